#include "registry/registry.h"

#include <stdatomic.h>
#include <string.h>

static const char *const kind_names[EMBER_KINDS] = {
    [EMBER_SEQUENCE_MIXER] = "sequence_mixer",
    [EMBER_CHANNEL_MIXER] = "channel_mixer",
    [EMBER_NORM] = "norm",
    [EMBER_ROUTER] = "router",
    [EMBER_COMBINER] = "combiner",
    [EMBER_GATE] = "gate",
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

// Entries are written before the count says that they are there, so that looking things up needs no
// lock while a plug-in is being registered.
enum { MAX_COMPONENTS = 2048 };
static struct {
    const struct em_component *entry[MAX_COMPONENTS];
    _Atomic size_t count;
} registry;

static size_t count_now(void)
{
    return atomic_load_explicit(&registry.count, memory_order_acquire);
}

const struct em_component *em_registry_at(size_t i)
{
    return i < count_now() ? registry.entry[i] : NULL;
}

static const struct em_component *find_among(size_t count, ember_kind kind, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (registry.entry[i]->kind == kind && strcmp(registry.entry[i]->name, name) == 0)
            return registry.entry[i];
    return NULL;
}

const struct em_component *em_registry_find(ember_kind kind, const char *name)
{
    return find_among(count_now(), kind, name);
}

const struct em_plugin *em_registry_plugin(const char *name)
{
    const struct em_component *c;
    for (size_t i = 0; (c = em_registry_at(i)); i++)
        if (c->plugin && strcmp(c->plugin->name, name) == 0) return c->plugin;
    return NULL;
}

ember_status em_registry_add(const struct em_component *table, size_t n)
{
    size_t count = count_now();
    if (n > MAX_COMPONENTS - count)
        return em_fail(EMBER_E_STATE, "more than %d components", MAX_COMPONENTS);
    for (size_t i = 0; i < n; i++) {
        if (find_among(count, table[i].kind, table[i].name))
            return em_fail(EMBER_E_STATE, "the %s \"%s\" is registered already",
                           ember_kind_name(table[i].kind), table[i].name);
        registry.entry[count++] = &table[i];
    }
    atomic_store_explicit(&registry.count, count, memory_order_release);
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
    const struct em_component *c;
    for (size_t i = 0; (c = em_registry_at(i)) && n < 64; i++) {
        if (c->kind != kind) continue;
        have[n++] = c->name;
        const size_t length = strlen(c->name);
        if (used + length + 3 > sizeof list) continue;
        memcpy(list + used, used ? ", " : "", used ? 2 : 0);
        used += used ? 2 : 0;
        memcpy(list + used, c->name, length + 1);
        used += length;
    }
    const char *near = em_did_you_mean(name, have, n);
    return em_fail(EMBER_E_CONFIG, "%s: no %s is called \"%.60s\"%s%s%s (there are: %s)%s", where,
                   ember_kind_name(kind), name, near ? "; did you mean \"" : "", near ? near : "",
                   near ? "\"?" : "", list,
                   kind <= EMBER_BLOCK ? "; a plug-in's has to be loaded with --plugin FILE.so"
                                       : "");
}
