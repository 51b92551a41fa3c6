// Kinds, components and option tables: mechanism only, it knows no component by name.
#ifndef EM_REGISTRY_REGISTRY_H
#define EM_REGISTRY_REGISTRY_H

#include <ember/layer.h>

#include "base/buf.h"
#include "base/json.h"

// Where components come from that are not built in.
struct em_plugin {
    const char *name, *version;
};

// A component as the registry sees it: layers are made from their ember_layer_type, others name
// their options and carry a descriptor of their own kind.
struct em_component {
    ember_kind kind;
    const char *name;
    const char *help;
    const ember_option *options;    // NULL: none
    size_t size;                    // of the options' struct
    const void *impl;               // ember_layer_type, em_family, em_optimizer, ...
    const struct em_plugin *plugin; // NULL: built in
};

// Registers a table (of n entries, static storage), all of it or nothing. Twice the same (kind,
// name) is EMBER_E_STATE. One thread at a time; others may look things up meanwhile.
ember_status em_registry_add(const struct em_component *table, size_t n) EMBER_CHECKED;

// NULL when there is none. em_registry_at walks all, in registration order, NULL past the end.
const struct em_component *em_registry_find(ember_kind kind, const char *name);
const struct em_component *em_registry_at(size_t i);

// The plug-in of that name among those that components were registered from; NULL: none.
const struct em_plugin *em_registry_plugin(const char *name);

// As find, but fails with EMBER_E_CONFIG "where: no KIND is called "x"; did you mean "y"? (there
// are: a, b, c)", with a word on plug-ins for the kinds that they bring.
ember_status em_registry_need(ember_kind kind, const char *name, const char *where,
                              const struct em_component **component) EMBER_CHECKED;

// Reads `object` by a table into the struct at `out`: absent options get their defaults, unknown
// keys, wrong types and values outside the range are EMBER_E_CONFIG with `where` ("file:
// blocks[3].channel") and the key in front. Keys in `also` (NULL-terminated, may be NULL) are left
// alone, "type" always. NULL object: all defaults. Strings and component configs in the struct are
// borrowed from `object`, or from static defaults.
ember_status em_options_read(const ember_option *options, const json_t *object, const char *where,
                             const char *const *also, void *out) EMBER_CHECKED;

// The reverse: every option with its value, as a JSON object; owned by the caller.
ember_status em_options_write(const ember_option *options, const void *in,
                              json_t **object) EMBER_CHECKED;

// Fails with EMBER_E_CONFIG "where: option ..." unless every line of the table has a name, help, a
// sensible range with the default inside, and a field of its own within the struct of `size` bytes,
// past its first `head` ones. For tables from elsewhere: nothing else may look at them before.
ember_status em_options_check(const ember_option *options, size_t head, size_t size,
                              const char *where) EMBER_CHECKED;
// Whether it can be a component's, an option's or a plug-in's name: [a-z][a-z0-9_]*, not too long.
bool em_name_is_plain(const char *name);

// A list of {name, type, default, range, help}, for `ember registry NAME` and the docs.
ember_status em_options_json(const ember_option *options, json_t **array) EMBER_CHECKED;

static inline const json_t *em_config_json(const ember_config *config)
{
    return (const json_t *)(const void *)config;
}

static inline const ember_config *em_json_config(const json_t *value)
{
    return (const ember_config *)(const void *)value;
}

#endif
