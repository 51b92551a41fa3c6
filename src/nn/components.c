// The layer types of this room as registry entries.
#include "nn/build.h"

#define EM_LAYER(symbol) extern const ember_layer_type em_layer_##symbol;
#include "nn/list.def"
#undef EM_LAYER

static const ember_layer_type *const types[] = {
#define EM_LAYER(symbol) &em_layer_##symbol,
#include "nn/list.def"
#undef EM_LAYER
};

ember_status em_nn_register(void)
{
    static struct em_component component[sizeof types / sizeof types[0]];
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        component[i] = (struct em_component){types[i]->kind,    types[i]->name, types[i]->help,
                                             types[i]->options, types[i]->size, types[i]};
    return em_registry_add(component, sizeof types / sizeof types[0]);
}
