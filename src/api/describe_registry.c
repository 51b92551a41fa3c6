// ember registry: the components.
#include <ember/describe.h>
#include <string.h>

#include "api/describe.h"
#include "api/library.h"
#include "models/family.h"
#include "models/model_priv.h"
#include "registry/registry.h"

static bool is_layer(ember_kind kind)
{
    return kind <= EMBER_BLOCK;
}

// A family's options are the keys of its config.json; only the free block list has a table.
static const ember_option *options_of(const struct em_component *c)
{
    if (c->kind == EMBER_FAMILY && strcmp(c->name, "ember") == 0) return em_form_options();
    return c->options;
}

static ember_status add_flags(json_t *o, const struct em_component *c)
{
    static const struct {
        unsigned flag;
        const char *text;
    } flags[] = {
        {EMBER_NOT_CAUSAL, "not causal: outputs depend on later tokens"},
        {EMBER_MIXES_BATCH, "mixes the sequences of a batch"},
        {EMBER_GROUPABLE, "alike experts of it run as one grouped product"},
    };
    const ember_layer_type *type = c->impl;
    json_t *list;
    EM_TRY(em_put_list(o, "properties", &list));
    for (size_t i = 0; is_layer(c->kind) && i < sizeof flags / sizeof *flags; i++)
        if (type->flags & flags[i].flag) EM_TRY(em_push(list, json_string(flags[i].text)));
    return EMBER_OK;
}

static ember_status add_keys(json_t *o, const struct em_component *c)
{
    const struct em_family *family = c->impl;
    if (c->kind != EMBER_FAMILY || !family->keys) return EMBER_OK;
    json_t *list;
    EM_TRY(em_put_list(o, "config_keys", &list));
    for (size_t i = 0; family->keys[i]; i++)
        EM_TRY(em_push(list, json_string(family->keys[i])));
    return EMBER_OK;
}

static ember_status component(const struct em_component *c, bool whole, json_t *o)
{
    EM_TRY(em_put_text(o, "kind", ember_kind_name(c->kind)));
    EM_TRY(em_put_text(o, "name", c->name));
    EM_TRY(em_put_text(o, "help", c->help));
    if (c->plugin) {
        json_t *plugin;
        EM_TRY(em_put_object(o, "plugin", &plugin));
        EM_TRY(em_put_text(plugin, "name", c->plugin->name));
        EM_TRY(em_put_text(plugin, "version", c->plugin->version));
    }
    if (!whole) return EMBER_OK;
    EM_TRY(add_flags(o, c));
    EM_TRY(add_keys(o, c));
    json_t *options;
    EM_TRY(em_options_json(options_of(c), &options));
    return em_put(o, "options", options);
}

static ember_status unknown_kind(const char *kind)
{
    const char *names[EMBER_KINDS];
    for (int k = 0; k < EMBER_KINDS; k++)
        names[k] = ember_kind_name((ember_kind)k);
    const char *near = em_did_you_mean(kind, names, EMBER_KINDS);
    return em_fail(EMBER_E_USAGE, "there is no kind \"%s\"%s%s%s", kind,
                   near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

static ember_status unknown_name(const char *name)
{
    const char *names[512];
    size_t n = 0;
    const struct em_component *c;
    for (size_t i = 0; (c = em_registry_at(i)) && n < 512; i++)
        names[n++] = c->name;
    const char *near = em_did_you_mean(name, names, n);
    return em_fail(EMBER_E_USAGE, "there is no component \"%s\"%s%s%s; `ember registry` lists them",
                   name, near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

static ember_status collect(const char *name, const char *kind, bool whole, json_t *root)
{
    const struct em_component *c;
    json_t *list, *o;
    EM_TRY(em_put_list(root, "components", &list));
    int wanted = -1;
    for (int k = 0; kind && k < EMBER_KINDS; k++)
        if (strcmp(ember_kind_name((ember_kind)k), kind) == 0) wanted = k;
    if (kind && wanted < 0) return unknown_kind(kind);
    for (int k = 0; k < EMBER_KINDS; k++)
        for (size_t i = 0; (c = em_registry_at(i)); i++) {
            if ((int)c->kind != k || (kind && k != wanted)) continue;
            if (name && strcmp(c->name, name) != 0) continue;
            EM_TRY(em_put_object(list, NULL, &o));
            EM_TRY(component(c, whole, o));
        }
    return name && !json_array_size(list) ? unknown_name(name) : EMBER_OK;
}

static ember_status print_list(const json_t *root, struct em_buf *out)
{
    const json_t *list = json_object_get(root, "components");
    const char *kind = "";
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        if (strcmp(em_text_of(o, "kind"), kind) != 0) {
            EM_TRY(em_buf_printf(out, "%s%s\n", *kind ? "\n" : "", em_text_of(o, "kind")));
            kind = em_text_of(o, "kind");
        }
        EM_TRY(em_buf_printf(out, "  %-16s %s\n", em_text_of(o, "name"), em_text_of(o, "help")));
    }
    return EMBER_OK;
}

static ember_status print_strings(const json_t *list, const char *title, const char *between,
                                  struct em_buf *out)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        EM_TRY(em_buf_printf(out, "%s%s", i ? between : title,
                             json_string_value(json_array_get(list, i))));
    return json_array_size(list) ? em_buf_putc(out, '\n') : EMBER_OK;
}

static ember_status print_options(const json_t *options, struct em_buf *out)
{
    for (size_t i = 0; i < json_array_size(options); i++) {
        const json_t *o = json_array_get(options, i);
        const char *range = em_text_of(o, "range");
        EM_TRY(em_buf_printf(out, "  %-22s %-11s default %-10s %s%s%s\n      %s\n",
                             em_text_of(o, "name"), em_text_of(o, "type"), em_text_of(o, "default"),
                             *range ? "[" : "", range, *range ? "]" : "", em_text_of(o, "help")));
    }
    return EMBER_OK;
}

static ember_status print_whole(const json_t *root, struct em_buf *out)
{
    const json_t *list = json_object_get(root, "components");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i), *options = json_object_get(o, "options");
        EM_TRY(em_buf_printf(out, "%s%s %s: %s\n", i ? "\n" : "", em_text_of(o, "kind"),
                             em_text_of(o, "name"), em_text_of(o, "help")));
        const json_t *plugin = json_object_get(o, "plugin");
        if (plugin)
            EM_TRY(em_buf_printf(out, "  of the plug-in %s %s\n", em_text_of(plugin, "name"),
                                 em_text_of(plugin, "version")));
        EM_TRY(print_strings(json_object_get(o, "properties"), "  ", "\n  ", out));
        EM_TRY(
            print_strings(json_object_get(o, "config_keys"), "keys of config.json: ", ", ", out));
        if (json_array_size(options)) EM_TRY(em_buf_puts(out, "options:\n"));
        EM_TRY(print_options(options, out));
        if (!json_array_size(options) && !json_object_get(o, "config_keys"))
            EM_TRY(em_buf_puts(out, "no options\n"));
    }
    return EMBER_OK;
}

static ember_status describe(const char *name, const char *kind, bool whole, bool json,
                             ember_status (*print)(const json_t *root, struct em_buf *out),
                             char **text)
{
    EM_TRY(ember_start());
    json_t *root = json_object();
    const ember_status status = root ? collect(name, kind, whole, root)
                                     : em_fail(EMBER_E_NOMEM, "out of memory: the registry");
    return em_describe(status, root, json, print, text);
}

ember_status ember_registry_describe(const char *name, const char *kind, bool json, char **text)
{
    return describe(name, kind, name != NULL, json, name ? print_whole : print_list, text);
}

ember_status ember_registry_markdown(const char *name, const char *kind, char **text)
{
    return describe(name, kind, true, false, em_print_markdown, text);
}

const char *ember_component_at(size_t i, const char **kind)
{
    if (ember_start() != EMBER_OK) return NULL;
    const struct em_component *c = em_registry_at(i);
    if (c && kind) *kind = ember_kind_name(c->kind);
    return c ? c->name : NULL;
}
