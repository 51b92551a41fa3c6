// --set path.to.key=value.
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "models/family.h"
#include "models/model_priv.h"
#include "train/recipe.h"

enum { MOST_NAMES = 160 };

// What may stand at one level of a path.
struct level {
    const char *names[MOST_NAMES];
    size_t count;
};

static void add_table(struct level *l, const ember_option *table)
{
    for (; table && table->name && l->count < MOST_NAMES; table++)
        l->names[l->count++] = table->name;
}

static void add_names(struct level *l, const char *const *names)
{
    for (; names && *names && l->count < MOST_NAMES; names++)
        l->names[l->count++] = *names;
}

static void add_object(struct level *l, const json_t *object)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (l->count < MOST_NAMES) l->names[l->count++] = key;
    }
}

static const char *const groups[] = {"groups", NULL}; // beside options, and within `optimizer`

// The options of the optimizer or schedule that `key` of "train" names.
static void add_train_component(struct level *l, const json_t *train, const char *key)
{
    const struct em_component *c;
    const ember_kind kind = strcmp(key, "optimizer") == 0 ? EMBER_OPTIMIZER : EMBER_SCHEDULE;
    if (em_recipe_component(train, key, kind, "train", &c) == EMBER_OK) add_table(l, c->options);
    if (kind == EMBER_OPTIMIZER) add_names(l, groups);
}

// The options of whatever component has this name: within a model only kinds of layers are nested.
static void add_component(struct level *l, const json_t *object)
{
    static const char *const type_key[] = {"type", NULL};
    const char *type = json_string_value(json_object_get(object, "type"));
    const struct em_component *c;
    add_names(l, type_key);
    for (size_t i = 0; type && (c = em_registry_at(i)); i++)
        if (strcmp(c->name, type) == 0) add_table(l, c->options);
}

static void add_train(struct level *l, const json_t *train)
{
    add_table(l, em_train_settings_table);
    add_names(l, groups);
    add_train_component(l, train, "optimizer");
    add_train_component(l, train, "schedule");
}

static void add_model(struct level *l, const json_t *model)
{
    const char *type = json_string_value(json_object_get(model, "model_type"));
    const struct em_family *family = type ? em_family_find(type) : NULL;
    static const char *const common[] = {"model_type", NULL};
    add_names(l, common);
    if (family && family->keys) add_names(l, family->keys);
    if (family && !family->keys) add_table(l, em_form_options()); // a free block list
}

// What the object at a path of `depth` parts, `root` to `parent`, may hold.
static void allowed(const json_t *recipe, const json_t *object, const char *root,
                    const char *parent, size_t depth, struct level *l)
{
    static const char *const top[] = {"model", "data", "train", "seed", NULL};
    l->count = 0;
    add_object(l, object);
    if (depth == 0)
        add_names(l, top);
    else if (depth == 1 && strcmp(root, "train") == 0)
        add_train(l, json_object_get(recipe, "train"));
    else if (depth == 1 && strcmp(root, "data") == 0)
        add_table(l, em_data_settings_table);
    else if (depth == 1 && strcmp(root, "model") == 0)
        add_model(l, object);
    else if (strcmp(root, "data") == 0)
        add_table(l, em_source_table);
    else if (strcmp(root, "train") == 0 && parent && strcmp(parent, "groups") == 0)
        add_table(l, em_group_table);
    else if (strcmp(root, "train") == 0)
        add_train_component(l, json_object_get(recipe, "train"), parent);
    else
        add_component(l, object);
}

static ember_status unknown(const char *assignment, const char *part, const struct level *l)
{
    const char *near = em_did_you_mean(part, l->names, l->count);
    const int length = (int)strcspn(assignment, "=");
    return em_fail(EMBER_E_USAGE, "--set %.*s: there is no %s%s%s%s", length, assignment, part,
                   near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

static ember_status parse_value(const char *text, json_t **value)
{
    if (em_json_parse("--set", text, strlen(text), EM_JSON_COMMENTS, value) == EMBER_OK)
        return EMBER_OK;
    *value = json_string(text);
    return *value ? EMBER_OK
                  : em_fail(EMBER_E_USAGE, "--set %s: the value is neither JSON nor text", text);
}

// The member of a list that "3" names.
static ember_status list_member(const char *assignment, json_t *list, const char *part,
                                size_t *index)
{
    char *end;
    const unsigned long long v = strtoull(part, &end, 10);
    if (*part < '0' || *part > '9' || *end || v >= json_array_size(list))
        return em_fail(EMBER_E_USAGE, "--set %.*s: %s has to be a place in a list of %zu",
                       (int)strcspn(assignment, "="), assignment, part, json_array_size(list));
    *index = (size_t)v;
    return EMBER_OK;
}

// A component that is only named gets an object for its options.
static ember_status open_name(json_t *object, const char *part, json_t **child)
{
    json_t *value = json_object_get(object, part);
    if (!value || json_is_null(value)) {
        if (json_object_set_new(object, part, json_object()) != 0)
            return em_fail(EMBER_E_NOMEM, "out of memory");
    } else if (json_is_string(value)) {
        if (json_object_set_new(object, part, json_pack("{s:O}", "type", value)) != 0)
            return em_fail(EMBER_E_NOMEM, "out of memory");
    }
    *child = json_object_get(object, part);
    return EMBER_OK;
}

static ember_status forget_other_length(json_t *train, const char *part)
{
    if (strcmp(part, "steps") == 0) json_object_del(train, "minutes");
    if (strcmp(part, "minutes") == 0) json_object_del(train, "steps");
    return EMBER_OK;
}

struct walk {
    const char *assignment;
    json_t *recipe, *value;
    const char *root, *parent;
    struct level level;
};

static ember_status step(struct walk *w, json_t *at, char *rest, size_t depth)
{
    char *dot = strchr(rest, '.');
    if (dot) *dot = '\0';
    if (!*rest) return unknown(w->assignment, "(nothing)", &w->level);
    if (depth == 0) w->root = rest;
    if (json_is_array(at)) {
        size_t i;
        EM_TRY(list_member(w->assignment, at, rest, &i));
        if (dot) return step(w, json_array_get(at, i), dot + 1, depth + 1);
        return json_array_set(at, i, w->value) == 0 ? EMBER_OK
                                                    : em_fail(EMBER_E_NOMEM, "out of memory");
    }
    if (!json_is_object(at)) {
        w->level.count = 0;
        return unknown(w->assignment, rest, &w->level);
    }
    allowed(w->recipe, at, w->root, w->parent, depth, &w->level);
    bool known = false;
    for (size_t i = 0; i < w->level.count && !known; i++)
        known = strcmp(w->level.names[i], rest) == 0;
    if (!known) return unknown(w->assignment, rest, &w->level);
    if (dot) {
        json_t *child;
        if (depth == 0 && strcmp(rest, "model") == 0 &&
            json_is_string(json_object_get(at, "model")))
            return em_fail(EMBER_E_USAGE,
                           "--set %.*s: the model is a folder with weights, whose config cannot "
                           "be changed",
                           (int)strcspn(w->assignment, "="), w->assignment);
        EM_TRY(open_name(at, rest, &child));
        w->parent = rest;
        return step(w, child, dot + 1, depth + 1);
    }
    if (json_object_set(at, rest, w->value) != 0) return em_fail(EMBER_E_NOMEM, "out of memory");
    if (depth == 1 && strcmp(w->root, "train") == 0) return forget_other_length(at, rest);
    return EMBER_OK;
}

ember_status em_recipe_set(json_t *recipe, const char *assignment)
{
    const char *equals = strchr(assignment, '=');
    if (!equals || equals == assignment)
        return em_fail(EMBER_E_USAGE, "--set %s: has to be path.to.key=value", assignment);
    char *path = em_strndup(assignment, (size_t)(equals - assignment));
    if (!path) return EMBER_E_NOMEM;
    struct walk w = {.assignment = assignment, .recipe = recipe};
    ember_status status = parse_value(equals + 1, &w.value);
    if (status == EMBER_OK) status = step(&w, recipe, path, 0);
    json_decref(w.value);
    em_free(path);
    return status;
}
