// The layer types of this room as registry entries, and what a layer type has to be.
#include <string.h>

#include "nn/build.h"

enum { MAX_LAYER_SIZE = 1 << 20 };

#define EM_LAYER(symbol) extern const ember_layer_type em_layer_##symbol;
#include "nn/list.def"
#undef EM_LAYER

static const ember_layer_type *const types[] = {
#define EM_LAYER(symbol) &em_layer_##symbol,
#include "nn/list.def"
#undef EM_LAYER
};

struct em_component em_layer_component(const ember_layer_type *type, const struct em_plugin *plugin)
{
    return (struct em_component){.kind = type->kind,
                                 .name = type->name,
                                 .help = type->help,
                                 .options = type->options,
                                 .size = type->size,
                                 .impl = type,
                                 .plugin = plugin};
}

ember_status em_nn_register(void)
{
    static struct em_component component[sizeof types / sizeof types[0]];
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        component[i] = em_layer_component(types[i], NULL);
    return em_registry_add(component, sizeof types / sizeof types[0]);
}

ember_status em_layer_type_check(const ember_layer_type *type, const char *where)
{
    if (!em_name_is_plain(type->name))
        return em_fail(EMBER_E_CONFIG, "%s: a component without a name like [a-z][a-z0-9_]*",
                       where);
    if ((unsigned)type->kind > EMBER_BLOCK)
        return em_fail(EMBER_E_CONFIG, "%s: %s is of kind %d, which is not a layer's", where,
                       type->name, (int)type->kind);
    const bool routes = type->kind == EMBER_ROUTER, combines = type->kind == EMBER_COMBINER;
    const struct {
        bool needed, there;
        const char *what;
    } parts[] = {
        {true, type->build, "build"},
        {!routes && !combines, type->forward, "forward"},
        {routes, type->route, "route"},
        {combines, type->combine, "combine"},
        {true, type->help && *type->help && !strchr(type->help, '\n'), "help of one line"},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i].needed && !parts[i].there)
            return em_fail(EMBER_E_CONFIG, "%s: the %s %s has no %s", where,
                           ember_kind_name(type->kind), type->name, parts[i].what);
    if (type->flags &
        ~(unsigned)(EMBER_NOT_CAUSAL | EMBER_MIXES_BATCH | EMBER_GROUPABLE | EMBER_IMAGES))
        return em_fail(EMBER_E_CONFIG, "%s: %s has flags that are not known: %#x", where,
                       type->name, type->flags);
    if (type->size < sizeof(ember_layer) || type->size > MAX_LAYER_SIZE)
        return em_fail(
            EMBER_E_CONFIG,
            "%s: %s has a struct of %zu bytes; it has to begin with an ember_layer (%zu)", where,
            type->name, type->size, sizeof(ember_layer));
    const ember_status status =
        em_options_check(type->options, sizeof(ember_layer), type->size, type->name);
    return status == EMBER_OK ? status : em_fail_in(status, "%s", where);
}
