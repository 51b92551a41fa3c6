// The samplers of this room as registry entries.
#include "infer/sampler.h"

#define EM_SAMPLER(symbol) extern const struct em_sampler_type em_sampler_##symbol;
#include "infer/list.def"
#undef EM_SAMPLER

static const struct em_sampler_type *const types[] = {
#define EM_SAMPLER(symbol) &em_sampler_##symbol,
#include "infer/list.def"
#undef EM_SAMPLER
};

ember_status em_infer_register(void)
{
    static struct em_component component[sizeof types / sizeof types[0]];
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        component[i] = (struct em_component){EMBER_SAMPLER,     types[i]->name, types[i]->help,
                                             types[i]->options, types[i]->size, types[i], NULL};
    return em_registry_add(component, sizeof types / sizeof types[0]);
}
