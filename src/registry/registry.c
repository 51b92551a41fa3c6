#include "registry/registry.h"

#include <string.h>

#include "base/alloc.h"

static const char *const kind_names[EMBER_KINDS] = {
    [EMBER_SEQUENCE_MIXER] = "sequence_mixer",
    [EMBER_CHANNEL_MIXER] = "channel_mixer",
    [EMBER_NORM] = "norm",
    [EMBER_ROUTER] = "router",
    [EMBER_COMBINER] = "combiner",
    [EMBER_BLOCK] = "block",
    [EMBER_FAMILY] = "family",
    [EMBER_OPTIMIZER] = "optimizer",
    [EMBER_SCHEDULE] = "schedule",
    [EMBER_LOSS] = "loss",
    [EMBER_SAMPLER] = "sampler",
    [EMBER_DATA_SOURCE] = "data_source",
    [EMBER_FORMAT] = "format",
};

const char *ember_kind_name(ember_kind kind)
{
    return (unsigned)kind < EMBER_KINDS ? kind_names[kind] : "?";
}

static struct {
    const struct em_component **entry;
    size_t count, capacity;
} registry;

const struct em_component *em_registry_at(size_t i)
{
    return i < registry.count ? registry.entry[i] : NULL;
}

const struct em_component *em_registry_find(ember_kind kind, const char *name)
{
    for (size_t i = 0; i < registry.count; i++)
        if (registry.entry[i]->kind == kind && strcmp(registry.entry[i]->name, name) == 0)
            return registry.entry[i];
    return NULL;
}

ember_status em_registry_add(const struct em_component *table, size_t n)
{
    EM_TRY(
        em_grow(&registry.entry, &registry.capacity, registry.count + n, sizeof *registry.entry));
    for (size_t i = 0; i < n; i++) {
        if (em_registry_find(table[i].kind, table[i].name))
            return em_fail(EMBER_E_STATE, "the %s \"%s\" is registered already",
                           ember_kind_name(table[i].kind), table[i].name);
        registry.entry[registry.count++] = &table[i];
    }
    return EMBER_OK;
}

ember_status em_registry_need(ember_kind kind, const char *name, const char *where,
                              const struct em_component **component)
{
    *component = em_registry_find(kind, name);
    if (*component) return EMBER_OK;
    const char *have[64];
    size_t n = 0, used = 0;
    char list[512] = "";
    for (size_t i = 0; i < registry.count && n < 64; i++) {
        if (registry.entry[i]->kind != kind) continue;
        have[n++] = registry.entry[i]->name;
        const size_t length = strlen(registry.entry[i]->name);
        if (used + length + 3 > sizeof list) continue;
        memcpy(list + used, used ? ", " : "", used ? 2 : 0);
        used += used ? 2 : 0;
        memcpy(list + used, registry.entry[i]->name, length + 1);
        used += length;
    }
    const char *near = em_did_you_mean(name, have, n);
    return em_fail(EMBER_E_CONFIG, "%s: no %s is called \"%s\"%s%s%s (there are: %s)", where,
                   ember_kind_name(kind), name, near ? "; did you mean \"" : "", near ? near : "",
                   near ? "\"?" : "", list);
}
