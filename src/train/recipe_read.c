// The option tables of a recipe, and reading a resolved one by them.
#include <string.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "train/recipe.h"

const ember_option em_train_settings_table[] = {
    EMBER_OPT_SIZE(struct em_train_settings, steps, 0, 0, 1e12,
                   "length of the run; 0: once through the data, or what `minutes` allow"),
    EMBER_OPT_DOUBLE(struct em_train_settings, minutes, 0, 0, 1e7,
                     "length of the run instead of steps: their number is fixed by measuring the "
                     "first ones"),
    EMBER_OPT_SIZE(struct em_train_settings, batch, 8, 1, 1 << 20, "sequences a step"),
    EMBER_OPT_SIZE(struct em_train_settings, seq, 512, 2, 1 << 24, "tokens of each"),
    EMBER_OPT_SIZE(struct em_train_settings, seq_start, 0, 0, 1 << 24,
                   "a warm-up of lengths: sequences are cut to this at first; as many tokens a "
                   "step all the same; 0: none"),
    EMBER_OPT_SIZE(struct em_train_settings, seq_stage, 1000, 1, 1u << 30,
                   "steps after which they may be twice as long, until seq"),
    EMBER_OPT_SIZE(struct em_train_settings, accumulate, 1, 1, 1 << 20,
                   "parts that a step's batch is computed in, to save memory"),
    EMBER_OPT_DOUBLE(struct em_train_settings, lr, 1e-3, 0, 10, "peak learning rate"),
    EMBER_OPT_COMPONENT(struct em_train_settings, optimizer, EMBER_OPTIMIZER,
                        "{\"type\": \"adamw\"}",
                        "its options may also be given beside it, in `train`"),
    EMBER_OPT_COMPONENT(struct em_train_settings, schedule, EMBER_SCHEDULE,
                        "{\"type\": \"cosine\"}",
                        "of the learning rate; its options may also be given beside it"),
    EMBER_OPT_DOUBLE(struct em_train_settings, warmup, 0.02, 0, 1e12,
                     "steps in which the rate rises in a line; below 1: their share of all"),
    EMBER_OPT_DOUBLE(struct em_train_settings, clip, 1, 0, 1e9,
                     "the gradient's norm is cut to it; 0: not"),
    EMBER_OPT_ENUM(struct em_train_settings, dtype, EM_TRAIN_AUTO, "auto|f32|bf16",
                   "of matrix products; auto: bf16 where the machine has instructions for it"),
    EMBER_OPT_SIZE(struct em_train_settings, eval_every, 0, 0, 1e12,
                   "steps between evaluations on held-out text; 0: a tenth of the run"),
    EMBER_OPT_DOUBLE(struct em_train_settings, stop_right, 0, 0, 1,
                     "the run ends where this share of held-out labels is right; 0: after its "
                     "steps"),
    EMBER_OPT_SIZE(struct em_train_settings, eval_tokens, 8192, 1, 1e12,
                   "held-out tokens of each domain in one of them"),
    EMBER_OPT_SIZE(struct em_train_settings, final_eval_tokens, 262144, 1, 1e12,
                   "the same for the evaluations before the first and after the last step"),
    EMBER_OPT_SIZE(struct em_train_settings, save_every, 0, 0, 1e12,
                   "steps between states; 0: as save_minutes says"),
    EMBER_OPT_DOUBLE(struct em_train_settings, save_minutes, 10, 0.01, 1e6,
                     "minutes between states, where save_every is 0"),
    EMBER_OPT_SIZE(struct em_train_settings, log_every, 1, 1, 1e9, "steps between log lines"),
    EMBER_OPT_BOOL(struct em_train_settings, recompute, false,
                   "blocks keep only their input and run again in backward: less memory, a third "
                   "more time"),
    {0},
};

const ember_option em_data_settings_table[] = {
    EMBER_OPT_COMPONENTS(struct em_data_settings, sources, EMBER_DATA_SOURCE,
                         "files, folders or globs, each a domain: a path, or an object with path, "
                         "name, weight, text_key, format"),
    EMBER_OPT_STRING(struct em_data_settings, ids,
                     "safetensors with input_ids [S, B, T] instead: one slice a step, in order"),
    EMBER_OPT_STRING(
        struct em_data_settings, tensors,
        "safetensors with inputs [S, B, T, I] for models of `inputs`, or input_ids [S, B, T]; "
        "optional timespans [S, B, T] and lengths [S, B]; and targets [S, B, T, M] (mean squared "
        "error), labels [S, B] (cross-entropy of one output a sequence) or labels [S, B, T] "
        "(of places, -100: not scored): one slice a step, over and over"),
    EMBER_OPT_STRING(struct em_data_settings, tensors_held_out,
                     "beside tensors: as they are, scored every train.eval_every steps and never "
                     "trained on; best/ has the weights of the least loss"),
    EMBER_OPT_STRING(struct em_data_settings, tokenizer,
                     "a folder or tokenizer.json; or \"bytes\", \"dna\" (nucleotides) or "
                     "\"characters:ABC\"; empty: the model folder's, else one is trained on the "
                     "data"),
    EMBER_OPT_SIZE(struct em_data_settings, vocab, 0, 0, 1 << 24,
                   "tokens of a tokenizer trained here; 0: the model's vocabulary"),
    EMBER_OPT_DOUBLE(struct em_data_settings, held_out, 0.02, 0, 0.9,
                     "share of each domain that is never trained on"),
    EMBER_OPT_DOUBLE(struct em_data_settings, mix, 1, 0, 1,
                     "where no source has a weight: a domain's share follows its tokens to this "
                     "power; 1: by size, 0: equal shares"),
    EMBER_OPT_DOUBLE(struct em_data_settings, reverse_complement, 0, 0, 1,
                     "chance that a sequence of nucleotides is read as its other strand, reversed "
                     "and complemented"),
    EMBER_OPT_STRING(struct em_data_settings, text_key, "of JSON lines; empty: \"text\""),
    EMBER_OPT_ENUM(struct em_data_settings, format, EM_DATA_AUTO, "auto|text|lines|jsonl",
                   "of files; auto: by their names"),
    EMBER_OPT_STRING(struct em_data_settings, cache,
                     "folder for tokenised text; empty: cache/ in the run's folder"),
    EMBER_OPT_BOOL(struct em_data_settings, eos, true, "documents end with the end token"),
    {0},
};

struct source {
    const char *path, *name, *text_key;
    double weight;
    int format;
};

const ember_option em_source_table[] = {
    EMBER_OPT_STRING(struct source, path, "a file, a folder or a glob"),
    EMBER_OPT_STRING(struct source, name, "of the domain; empty: the path's last part"),
    EMBER_OPT_DOUBLE(struct source, weight, 0, 0, 1e9,
                     "share of the tokens drawn, relative to other sources; 0: not given"),
    EMBER_OPT_STRING(struct source, text_key, "of JSON lines; empty: as in data"),
    EMBER_OPT_ENUM(struct source, format, EM_DATA_AUTO, "auto|text|lines|jsonl", "of its files"),
    {0},
};

ember_status em_recipe_component(const json_t *train, const char *key, ember_kind kind,
                                 const char *where, const struct em_component **component)
{
    const json_t *value = json_object_get(train, key),
                 *type = json_is_object(value) ? json_object_get(value, "type") : value;
    const char *preset = kind == EMBER_OPTIMIZER ? "adamw" : "cosine";
    char found[96];
    if (type && !json_is_string(type))
        return em_fail(EMBER_E_CONFIG,
                       "%s.%s has to be a %s: its name, or an object with a type; found %s", where,
                       key, ember_kind_name(kind), em_json_text(type, found, sizeof found));
    char *at = em_asprintf("%s.%s", where, key);
    if (!at) return EMBER_E_NOMEM;
    const ember_status status =
        em_registry_need(kind, type ? json_string_value(type) : preset, at, component);
    em_free(at);
    return status;
}

static bool has_option(const ember_option *table, const char *name)
{
    for (; table && table->name; table++)
        if (strcmp(table->name, name) == 0) return true;
    return false;
}

static size_t collect(const ember_option *table, const char **names, size_t n, size_t max)
{
    for (; table && table->name && n < max; table++)
        names[n++] = table->name;
    return n;
}

// The options of a component: its own object's, and those beside it in "train".
static ember_status read_component(struct em_recipe *r, const json_t *train, const char *key,
                                   const struct em_component *c, void **options)
{
    const json_t *value = json_object_get(train, key);
    json_t *joint = json_is_object(value) ? json_deep_copy(value) : json_object();
    char *where = em_arena_printf(r->arena, "%s: train.%s", r->name, key);
    const char *name;
    json_t *v;
    ember_status status = joint && where ? EMBER_OK : EMBER_E_NOMEM;
    json_object_foreach((json_t *)(uintptr_t)train, name, v)
    {
        if (status == EMBER_OK && has_option(c->options, name) && !json_object_get(joint, name) &&
            json_object_set(joint, name, v) != 0)
            status = em_fail(EMBER_E_NOMEM, "out of memory");
    }
    if (status == EMBER_OK && !(*options = em_arena_alloc(r->arena, c->size ? c->size : 1)))
        status = EMBER_E_NOMEM;
    if (status == EMBER_OK) status = em_options_read(c->options, joint, where, NULL, *options);
    json_decref(joint);
    return status;
}

static ember_status read_train(struct em_recipe *r)
{
    enum { MOST = 96 };
    const json_t *train = json_object_get(r->json, "train");
    const struct em_component *optimizer, *schedule;
    const char *names[MOST + 1], *where = em_arena_printf(r->arena, "%s: train", r->name), *key;
    json_t *value;
    if (!where) return EMBER_E_NOMEM;
    EM_TRY(em_recipe_component(train, "optimizer", EMBER_OPTIMIZER, where, &optimizer));
    EM_TRY(em_recipe_component(train, "schedule", EMBER_SCHEDULE, where, &schedule));
    size_t n = collect(optimizer->options, names, 0, MOST);
    n = collect(schedule->options, names, n, MOST - 1);
    names[n++] = "groups";
    names[n] = NULL;
    const size_t own = collect(em_train_settings_table, names, n, MOST);
    json_object_foreach((json_t *)(uintptr_t)train, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < own && !known; i++)
            known = strcmp(names[i], key) == 0;
        if (known) continue;
        const char *near = em_did_you_mean(key, names, own);
        return em_fail(EMBER_E_CONFIG, "%s.%s is not known%s%s%s", where, key,
                       near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    }
    names[n] = NULL;
    EM_TRY(em_options_read(em_train_settings_table, train, where, names, &r->train));
    r->optimizer = optimizer->impl;
    r->schedule = schedule->impl;
    EM_TRY(read_component(r, train, "optimizer", optimizer, &r->optimizer_options));
    EM_TRY(read_component(r, train, "schedule", schedule, &r->schedule_options));
    EM_TRY(em_groups_read(r));
    if (r->train.steps && r->train.minutes > 0)
        return em_fail(EMBER_E_CONFIG, "%s: steps and minutes exclude each other", where);
    if (r->train.accumulate > r->train.batch)
        return em_fail(EMBER_E_CONFIG,
                       "%s.accumulate is %zu; it has to be at most batch, which is %zu", where,
                       r->train.accumulate, r->train.batch);
    return EMBER_OK;
}

static ember_status read_sources(struct em_recipe *r)
{
    const json_t *list = em_config_json(r->data.sources);
    r->source_count = json_array_size(list);
    if (!r->source_count) return EMBER_OK;
    r->sources = em_arena_alloc(r->arena, r->source_count * sizeof *r->sources);
    if (!r->sources) return EMBER_E_NOMEM;
    for (size_t i = 0; i < r->source_count; i++) {
        struct source s;
        const char *where = em_arena_printf(r->arena, "%s: data.sources[%zu]", r->name, i);
        if (!where) return EMBER_E_NOMEM;
        EM_TRY(em_options_read(em_source_table, json_array_get(list, i), where, NULL, &s));
        if (!*s.path) return em_fail(EMBER_E_CONFIG, "%s.path is needed", where);
        const char *text_key = *s.text_key ? s.text_key : r->data.text_key;
        r->sources[i] = (struct em_source){
            .path = s.path,
            .name = *s.name ? s.name : NULL,
            .weight = s.weight,
            .options = {.text_key = *text_key ? text_key : NULL,
                        .format = (enum em_data_format)(s.format ? s.format : r->data.format)}};
    }
    return EMBER_OK;
}

static ember_status read_data(struct em_recipe *r)
{
    const char *where = em_arena_printf(r->arena, "%s: data", r->name);
    if (!where) return EMBER_E_NOMEM;
    EM_TRY(em_options_read(em_data_settings_table, json_object_get(r->json, "data"), where, NULL,
                           &r->data));
    EM_TRY(read_sources(r));
    const size_t kinds = (r->source_count > 0) + (*r->data.ids != 0) + (*r->data.tensors != 0);
    if (!kinds)
        return em_fail(
            EMBER_E_CONFIG,
            "%s: data is needed: --data FILE..., or sources, ids or tensors in the recipe",
            r->name);
    if (kinds > 1)
        return em_fail(EMBER_E_CONFIG, "%s: sources, ids and tensors exclude each other", where);
    if (*r->data.tensors_held_out && !*r->data.tensors)
        return em_fail(EMBER_E_CONFIG, "%s: data.tensors_held_out needs data.tensors", where);
    return EMBER_OK;
}

static ember_status check_top(const struct em_recipe *r)
{
    static const char *const names[] = {"model", "data", "train", "seed", "preset"};
    enum { NAMES = sizeof names / sizeof names[0] };
    const char *key;
    json_t *value;
    json_object_foreach(r->json, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < NAMES && !known; i++)
            known = strcmp(names[i], key) == 0;
        if (known) continue;
        const char *near = em_did_you_mean(key, names, NAMES);
        return em_fail(EMBER_E_CONFIG, "%s: %s is not known%s%s%s", r->name, key,
                       near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    }
    return EMBER_OK;
}

ember_status em_recipe_read(struct em_recipe *r)
{
    size_t seed = 0;
    EM_TRY(check_top(r));
    EM_TRY(em_json_get_size(r->json, r->name, "seed", 0, INT64_MAX, &seed));
    r->seed = seed;
    if (json_object_set_new(r->json, "seed", json_integer((json_int_t)seed)) != 0)
        return em_fail(EMBER_E_NOMEM, "out of memory");
    const json_t *model = json_object_get(r->json, "model");
    if (json_is_object(model))
        r->model = model;
    else
        r->model_folder = json_string_value(model);
    EM_TRY(read_train(r));
    return read_data(r);
}
