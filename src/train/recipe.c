// A recipe's sources: preset, file, flags and --set become one object.
#include "train/recipe.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/log.h"
#include "formats/safetensors_header.h" // em_st_utf8_valid
#include "models/model.h"
#include "train/presets.h"
#include "train/tokenizer_choice.h"

static ember_status put(json_t *object, const char *key, json_t *value) // value is taken
{
    return value && json_object_set_new(object, key, value) == 0
               ? EMBER_OK
               : em_fail(EMBER_E_NOMEM, "out of memory");
}

static ember_status check_path(const char *path)
{
    if (em_st_utf8_valid(path, strlen(path))) return EMBER_OK; // a recipe is JSON
    return em_fail(EMBER_E_CONFIG, "%s: a path in a recipe has to be valid UTF-8", path);
}

// Text paths are kept absolute, so that a run goes on from any directory.
static ember_status absolute(const char *path, json_t **text)
{
    char here[4096];
    if (path[0] == '/') {
        *text = json_string(path);
    } else {
        if (!getcwd(here, sizeof here)) return em_fail_errno(path, "no current directory");
        char *joint = em_path_join(here, path);
        if (!joint) return EMBER_E_NOMEM;
        *text = json_string(joint);
        em_free(joint);
    }
    return *text ? EMBER_OK : em_fail(EMBER_E_NOMEM, "out of memory: the path %s", path);
}

static ember_status absolute_member(json_t *object, const char *key)
{
    const char *path = json_string_value(json_object_get(object, key));
    json_t *text;
    // One with a NUL within is for the option to refuse.
    if (!path || !*path || strlen(path) != json_string_length(json_object_get(object, key)))
        return EMBER_OK;
    EM_TRY(absolute(path, &text));
    return put(object, key, text);
}

// "data": "FILE", ["FILE", {"path": ..}], or an object whose sources may be given so.
static ember_status normalise_data(json_t *recipe, const char *name)
{
    json_t *data = json_object_get(recipe, "data");
    char found[96];
    if (!data || json_is_null(data)) return EMBER_OK;
    if (json_is_string(data)) {
        EM_TRY(put(recipe, "data", json_pack("{s:[O]}", "sources", data)));
    } else if (json_is_array(data)) {
        EM_TRY(put(recipe, "data", json_pack("{s:O}", "sources", data)));
    }
    data = json_object_get(recipe, "data");
    if (!json_is_object(data))
        return em_fail(EMBER_E_CONFIG,
                       "%s: data has to be a path, a list of them, or an object, found %s", name,
                       em_json_text(data, found, sizeof found));
    json_t *sources = json_object_get(data, "sources"), *source;
    if (json_is_string(sources)) {
        EM_TRY(put(data, "sources", json_pack("[O]", sources)));
        sources = json_object_get(data, "sources");
    }
    if (sources && !json_is_array(sources))
        return em_fail(EMBER_E_CONFIG,
                       "%s: data.sources has to be a list of files and folders, found %s", name,
                       em_json_text(sources, found, sizeof found));
    size_t i;
    json_array_foreach(sources, i, source)
    {
        if (json_is_string(source) &&
            json_array_set_new(sources, i, json_pack("{s:O}", "path", source)) != 0)
            return em_fail(EMBER_E_NOMEM, "out of memory");
        source = json_array_get(sources, i);
        if (!json_is_object(source))
            return em_fail(
                EMBER_E_CONFIG,
                "%s: data.sources[%zu] has to be a path, or an object with one, found %s", name, i,
                em_json_text(source, found, sizeof found));
        EM_TRY(absolute_member(source, "path"));
    }
    EM_TRY(absolute_member(data, "ids"));
    EM_TRY(absolute_member(data, "tensors"));
    EM_TRY(absolute_member(data, "tensors_held_out"));
    EM_TRY(absolute_member(data, "cache"));
    const char *tokenizer = json_string_value(json_object_get(data, "tokenizer"));
    return em_tokenizer_is_built_in(tokenizer) ? EMBER_OK : absolute_member(data, "tokenizer");
}

// Groups may stand within `optimizer`, as its options may beside it; a resolved recipe has them
// beside it. `replace`: they are newer than those that are there.
static ember_status normalise_groups(json_t *recipe, const char *name, bool replace)
{
    json_t *train = json_object_get(recipe, "train"),
           *optimizer = json_object_get(train, "optimizer"),
           *groups = json_object_get(optimizer, "groups");
    if (!groups) return EMBER_OK;
    if (json_object_get(train, "groups") && !replace)
        return em_fail(EMBER_E_CONFIG,
                       "%s: train.groups and train.optimizer.groups exclude each other", name);
    EM_TRY(put(train, "groups", json_incref(groups)));
    json_object_del(optimizer, "groups");
    return EMBER_OK;
}

ember_status em_recipe_merge(const json_t *base, const json_t *over, json_t **out)
{
    json_t *result = json_deep_copy(base);
    ember_status status = result ? EMBER_OK : em_fail(EMBER_E_NOMEM, "out of memory");
    const char *key;
    json_t *value;
    // One length of a run replaces the other.
    if (status == EMBER_OK &&
        (json_object_get(over, "steps") || json_object_get(over, "minutes"))) {
        json_object_del(result, "steps");
        json_object_del(result, "minutes");
    }
    json_object_foreach((json_t *)(uintptr_t)over, key, value)
    {
        const json_t *old = json_object_get(result, key);
        json_t *joint = NULL;
        if (status != EMBER_OK) break;
        // A model is one thing: a few keys of another would not make sense of it.
        if (strcmp(key, "model") != 0 && json_is_object(old) && json_is_object(value)) {
            status = em_recipe_merge(old, value, &joint);
            if (status == EMBER_OK) status = put(result, key, joint);
        } else {
            status = put(result, key, json_deep_copy(value));
        }
        // So do the two kinds of data.
        if (status == EMBER_OK && strcmp(key, "ids") == 0 && !json_object_get(over, "sources"))
            json_object_del(result, "sources");
        if (status == EMBER_OK && strcmp(key, "sources") == 0 && !json_object_get(over, "ids"))
            json_object_del(result, "ids");
    }
    if (status != EMBER_OK) {
        json_decref(result);
        return status;
    }
    *out = result;
    return EMBER_OK;
}

static ember_status read_file(const char *path, json_t **recipe)
{
    EM_TRY(em_json_read(path, 0, EM_JSON_COMMENTS, recipe));
    char found[96];
    ember_status status =
        json_is_object(*recipe)
            ? EMBER_OK
            : em_fail(EMBER_E_CONFIG,
                      "%s: a recipe has to be an object with model, data and train, found %s", path,
                      em_json_text(*recipe, found, sizeof found));
    if (status == EMBER_OK) status = normalise_data(*recipe, path);
    if (status == EMBER_OK) status = normalise_groups(*recipe, path, false);
    if (status != EMBER_OK) json_decref(*recipe);
    return status;
}

static ember_status read_preset(const char *name, json_t **recipe)
{
    EM_TRY(em_preset_read(name, recipe));
    ember_status status = put(*recipe, "preset", json_string(name));
    if (status == EMBER_OK) status = normalise_data(*recipe, name);
    if (status == EMBER_OK) status = normalise_groups(*recipe, name, false);
    if (status != EMBER_OK) json_decref(*recipe);
    return status;
}

// The preset and the file on top of it.
static ember_status read_layers(const struct em_recipe_request *q, json_t **out)
{
    json_t *file = NULL, *preset = NULL;
    const char *name = q->preset;
    ember_status status = EMBER_OK;
    if (q->file) EM_TRY(read_file(q->file, &file));
    const char *model = json_string_value(json_object_get(file, "model"));
    // A folder of that name wins over a preset.
    if (!name && model && em_preset_find(model) && !em_path_exists(model)) {
        name = em_preset_find(model)->name;
        json_object_del(file, "model");
    }
    if (name) status = read_preset(name, &preset);
    if (status == EMBER_OK) {
        json_t *empty = json_object();
        const json_t *base = preset ? preset : empty, *over = file ? file : empty;
        status = empty ? em_recipe_merge(base, over, out) : em_fail(EMBER_E_NOMEM, "out of memory");
        json_decref(empty);
    }
    json_decref(file);
    json_decref(preset);
    return status;
}

static ember_status apply_data(json_t *recipe, const struct em_recipe_request *q)
{
    if (!q->data_count) return EMBER_OK;
    json_t *over = json_object(), *list = json_array(), *merged = NULL;
    ember_status status = over && list ? EMBER_OK : em_fail(EMBER_E_NOMEM, "out of memory");
    for (size_t i = 0; i < q->data_count && status == EMBER_OK; i++) {
        status = check_path(q->data[i]);
        if (status == EMBER_OK &&
            json_array_append_new(list, json_pack("{s:s}", "path", q->data[i])) != 0)
            status = em_fail(EMBER_E_NOMEM, "out of memory: --data %s", q->data[i]);
    }
    if (status == EMBER_OK) status = put(over, "data", json_pack("{s:O}", "sources", list));
    if (status == EMBER_OK) status = normalise_data(over, "--data");
    if (status == EMBER_OK) status = em_recipe_merge(recipe, over, &merged);
    if (status == EMBER_OK)
        status = put(recipe, "data", json_incref(json_object_get(merged, "data")));
    json_decref(merged);
    json_decref(list);
    json_decref(over);
    return status;
}

static ember_status apply_flags(json_t *recipe, const struct em_recipe_request *q)
{
    static const char *const names[] = {[EM_TRAIN_F32] = "f32", [EM_TRAIN_BF16] = "bf16"};
    EM_TRY(apply_data(recipe, q));
    for (size_t i = 0; i < q->set_count; i++) {
        const bool sources = strncmp(q->set[i], "data.sources=", 13) == 0 ||
                             strncmp(q->set[i], "data.ids=", 9) == 0 ||
                             strncmp(q->set[i], "data.tensors=", 13) == 0;
        if (sources && q->data_count)
            return em_fail(EMBER_E_USAGE, "--data and --set %s exclude each other", q->set[i]);
        EM_TRY(em_recipe_set(recipe, q->set[i]));
    }
    EM_TRY(normalise_data(recipe, "--set"));
    EM_TRY(normalise_groups(recipe, "--set", true));
    if (q->seed_given) {
        if (q->seed > INT64_MAX)
            return em_fail(EMBER_E_USAGE, "--seed has to be at most %lld", (long long)INT64_MAX);
        EM_TRY(put(recipe, "seed", json_integer((json_int_t)q->seed)));
    }
    if (q->dtype != EM_TRAIN_AUTO) {
        json_t *train = json_object_get(recipe, "train");
        if (!train) {
            EM_TRY(put(recipe, "train", json_object()));
            train = json_object_get(recipe, "train");
        }
        EM_TRY(put(train, "dtype", json_string(names[q->dtype])));
    }
    return EMBER_OK;
}

// A model that is named becomes its config, or the absolute path of a folder with weights.
static ember_status resolve_model(json_t *recipe, const char *name)
{
    const json_t *model = json_object_get(recipe, "model");
    if (!model)
        return em_fail(EMBER_E_CONFIG,
                       "%s: model is needed: a config, a preset's name, or a folder with weights",
                       name);
    if (json_is_object(model)) return EMBER_OK;
    const char *path = json_string_value(model);
    char found[96];
    if (!path)
        return em_fail(EMBER_E_CONFIG, "%s: model has to be an object or a name, found %s", name,
                       em_json_text(model, found, sizeof found));
    if (!em_path_exists(path)) {
        json_t *none;
        const ember_status status = em_preset_read(path, &none); // with the names that there are
        if (status != EMBER_OK) return em_fail_in(status, "%s: model", name);
        json_decref(none);
        return em_fail(EMBER_E_INTERNAL, "%s: model \"%s\" was not resolved", name, path);
    }
    if (em_path_is_directory(path)) return absolute_member(recipe, "model");
    json_t *config;
    const ember_status status = em_model_read_config(path, &config);
    if (status != EMBER_OK) return em_fail_in(status, "%s: model", name);
    return put(recipe, "model", config);
}

static ember_status begin(const char *name, struct em_recipe *r)
{
    *r = (struct em_recipe){.arena = em_calloc(1, sizeof *r->arena)};
    if (r->arena) r->name = em_arena_strdup(r->arena, name);
    return r->name ? EMBER_OK : EMBER_E_NOMEM;
}

static const char *name_of(const struct em_recipe_request *q)
{
    return q->file ? q->file : q->preset ? q->preset : "recipe";
}

ember_status em_recipe_open(const struct em_recipe_request *q, struct em_recipe *out)
{
    struct em_recipe r;
    ember_status status = begin(name_of(q), &r);
    if (status == EMBER_OK) status = read_layers(q, &r.json);
    if (status == EMBER_OK) status = resolve_model(r.json, r.name);
    if (status == EMBER_OK) status = apply_flags(r.json, q);
    if (status == EMBER_OK) status = em_recipe_read(&r);
    if (status != EMBER_OK) {
        em_recipe_close(&r);
        return status;
    }
    *out = r;
    return EMBER_OK;
}

// ---- going on ----

// What a run may change when it goes on, with all that lies below: nothing that its model, its
// data, their order or the comparison of its scores depend on. Where the data lie may change: that
// they are the same is seen by their content.
static const char *const changeable[] = {"train.steps",
                                         "train.minutes",
                                         "train.lr",
                                         "train.warmup",
                                         "train.min_lr_ratio",
                                         "train.clip",
                                         "train.weight_decay",
                                         "train.beta1",
                                         "train.beta2",
                                         "train.eps",
                                         "train.schedule",
                                         "train.decay_ratio",
                                         "train.decay_shape",
                                         "train.eval_every",
                                         "train.save_every",
                                         "train.save_minutes",
                                         "train.log_every",
                                         "train.recompute",
                                         "train.accumulate",
                                         "train.dtype",
                                         "train.groups[].lr",
                                         "train.groups[].lr_factor",
                                         "train.groups[].weight_decay",
                                         "train.stop_right",
                                         "data.cache",
                                         "data.ids",
                                         "data.tensors",
                                         "data.tensors_held_out",
                                         "data.sources[].path"};

// Whether `path`, of which "[3]" stands for "[]", is `name` or below it.
static bool lies_in(const char *path, const char *name)
{
    while (*path && *path == *name) {
        if (*path == '[') path += strspn(path + 1, "0123456789");
        path++;
        name++;
    }
    return !*name && (!*path || *path == '.');
}

// The optimizer that a value names: itself, or by its type, or the default.
static const char *optimizer_of(const json_t *value)
{
    const json_t *type = json_is_object(value) ? json_object_get(value, "type") : value;
    return type ? json_string_value(type) : "adamw";
}

static bool may_change(const char *path, const json_t *saved, const json_t *now)
{
    for (size_t i = 0; i < sizeof changeable / sizeof *changeable; i++)
        if (lies_in(path, changeable[i])) return true;
    // The moments are those of one optimizer; its options are read anew.
    if (lies_in(path, "train.optimizer.type")) return false;
    if (strcmp(path, "train.optimizer") != 0) return lies_in(path, "train.optimizer");
    const char *before = optimizer_of(saved), *after = optimizer_of(now);
    return before && after && strcmp(before, after) == 0;
}

static void describe(const json_t *value, char *text, size_t size)
{
    struct em_buf b = {0};
    snprintf(text, size, "nothing");
    if (value && em_json_print(value, 0, &b) == EMBER_OK && b.data)
        snprintf(text, size, "%.*s", b.size > 60 ? 60 : (int)b.size, b.data);
    em_buf_deinit(&b);
}

static ember_status compare(struct em_recipe *r, const json_t *saved, const json_t *now,
                            const char *path);

static ember_status compare_objects(struct em_recipe *r, const json_t *saved, const json_t *now,
                                    const char *path)
{
    char at[256];
    const char *key;
    json_t *value;
    for (int pass = 0; pass < 2; pass++) {
        json_object_foreach((json_t *)(uintptr_t)(pass ? saved : now), key, value)
        {
            snprintf(at, sizeof at, "%s%s%s", path, *path ? "." : "", key);
            const json_t *other = json_object_get(pass ? now : saved, key);
            if (!pass || !other) EM_TRY(compare(r, pass ? value : other, pass ? other : value, at));
        }
    }
    return EMBER_OK;
}

static ember_status compare_lists(struct em_recipe *r, const json_t *saved, const json_t *now,
                                  const char *path)
{
    char at[256];
    for (size_t i = 0; i < json_array_size(saved); i++) {
        snprintf(at, sizeof at, "%s[%zu]", path, i);
        EM_TRY(compare(r, json_array_get(saved, i), json_array_get(now, i), at));
    }
    return EMBER_OK;
}

// Every value of `now` that differs from `saved` has to be one that may change, and is told.
static ember_status compare(struct em_recipe *r, const json_t *saved, const json_t *now,
                            const char *path)
{
    char before[80], after[80];
    if (json_is_object(saved) && json_is_object(now)) return compare_objects(r, saved, now, path);
    if (json_is_array(saved) && json_is_array(now) &&
        json_array_size(saved) == json_array_size(now))
        return compare_lists(r, saved, now, path);
    const bool same = saved && now && json_is_number(saved) && json_is_number(now)
                          ? json_number_value(saved) == json_number_value(now)
                          : saved && now && json_equal(saved, now);
    if (same) return EMBER_OK;
    const bool length = strcmp(path, "train.steps") == 0 || strcmp(path, "train.minutes") == 0;
    describe(saved, before, sizeof before);
    describe(now, after, sizeof after);
    if (may_change(path, saved, now)) {
        r->new_length = r->new_length || length;
        em_note("%s was %s until now and is %s from here on", path, before, after);
        return EMBER_OK;
    }
    return em_fail(EMBER_E_CONFIG,
                   "%s was %s when this run began and is %s now: a run goes on with the model, "
                   "tokenizer and data that it has; only steps, learning rate and the like may "
                   "change",
                   *path ? path : "the recipe", before, after);
}

ember_status em_recipe_resume(const struct em_recipe_request *q, const json_t *saved,
                              struct em_recipe *out)
{
    struct em_recipe r;
    json_t *merged = NULL;
    ember_status status = begin(q->file ? q->file : "the saved recipe", &r);
    if (status == EMBER_OK && (q->file || q->preset)) {
        status = read_layers(q, &r.json);
        if (status == EMBER_OK && json_object_get(r.json, "model"))
            status = resolve_model(r.json, r.name);
        // What the recipe leaves out stays as it is.
        if (status == EMBER_OK) status = em_recipe_merge(saved, r.json, &merged);
        json_decref(r.json);
        r.json = merged;
    } else if (status == EMBER_OK) {
        r.json = json_deep_copy(saved);
        if (!r.json) status = em_fail(EMBER_E_NOMEM, "out of memory");
    }
    if (status == EMBER_OK) status = apply_flags(r.json, q);
    if (status == EMBER_OK) status = compare(&r, saved, r.json, "");
    if (status == EMBER_OK) status = em_recipe_read(&r);
    if (status != EMBER_OK) {
        em_recipe_close(&r);
        return status;
    }
    *out = r;
    return EMBER_OK;
}

void em_recipe_close(struct em_recipe *r)
{
    if (!r->arena) return;
    json_decref(r->json);
    em_arena_deinit(r->arena);
    em_free(r->arena);
    *r = (struct em_recipe){0};
}
