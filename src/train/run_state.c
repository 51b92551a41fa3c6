// What a training state holds, and going on from one.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "formats/state.h"
#include "kernels/kernels.h"
#include "models/diagnose.h"
#include "train/run.h"

enum { FORMAT = 1 };

// Files of a model's folder beside its weights, in the order in which they are replaced: the
// weights come last, so that a folder with new weights has everything that belongs to them.
static const char *const companions[] = {"config.json",           "tokenizer.json",
                                         "tokenizer_config.json", "special_tokens_map.json",
                                         "chat_template.jinja",   "generation_config.json"};
static const char *const weights[] = {"model.safetensors"};
enum { COMPANIONS = sizeof companions / sizeof companions[0] };

// ---- progress as JSON ----

static json_t *scores_json(const struct em_training *t)
{
    json_t *list = json_array();
    for (size_t d = 0; list && t->untrained && d < t->batches.dataset.count; d++) {
        const struct em_score *s = &t->untrained[d];
        list = em_json_add(list, json_pack("{s:f, s:f, s:I}", "nats", s->nats, "bytes", s->bytes,
                                           "tokens", (json_int_t)s->tokens));
    }
    return list;
}

// How this run computes: another way gives other roundings, and so another run from there on.
static void arithmetic(const struct em_training *t, char *text, size_t size)
{
    snprintf(text, size, "%s, %s kernels%s, Ember " EMBER_VERSION, t->bf16 ? "bf16" : "f32",
             em_kernels()->isa, t->job->backend == EM_REFERENCE ? " of the reference backend" : "");
}

static ember_status write_progress(const struct em_training *t, const char *path)
{
    const struct em_progress *p = &t->progress;
    char hash[24], how[96];
    arithmetic(t, how, sizeof how);
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)t->run.data_hash);
    json_t *state = json_pack(
        "{s:i, s:s, s:s, s:I, s:I, s:I, s:f, s:f, s:I, s:o, s:I, s:s, s:{s:I, s:I}, s:o}", "format",
        FORMAT, "version", EMBER_VERSION, "arithmetic", how, "step", (json_int_t)p->step, "steps",
        (json_int_t)p->steps, "tokens", (json_int_t)p->tokens, "seconds", p->seconds, "loss",
        p->last_loss, "evaluated", (json_int_t)p->evaluated, "best", em_json_finite(p->best),
        "best_step", (json_int_t)p->best_step, "data", hash, "logs", "train",
        (json_int_t)t->log.train_bytes, "eval", (json_int_t)t->log.eval_bytes, "untrained",
        scores_json(t));
    const ember_status status =
        state ? em_json_write(path, state, 2) : em_fail(EMBER_E_NOMEM, "%s: out of memory", path);
    json_decref(state);
    return status;
}

static ember_status read_size(const json_t *o, const char *where, const char *key, uint64_t *out)
{
    size_t v = 0;
    if (!json_object_get(o, key)) return em_fail(EMBER_E_FORMAT, "%s: has no %s", where, key);
    EM_TRY(em_json_get_size(o, where, key, 0, INT64_MAX, &v));
    *out = v;
    return EMBER_OK;
}

static ember_status read_untrained(struct em_training *t, const json_t *list, const char *path)
{
    const size_t n = json_array_size(list);
    if (!n) return EMBER_OK;
    if (n != t->recipe.source_count)
        return em_fail(EMBER_E_FORMAT, "%s: scores of %zu domains, the data have %zu", path, n,
                       t->recipe.source_count);
    if (!(t->untrained = em_calloc(n, sizeof *t->untrained))) return EMBER_E_NOMEM;
    for (size_t d = 0; d < n; d++) {
        const json_t *o = json_array_get(list, d);
        struct em_score *s = &t->untrained[d];
        EM_TRY(em_json_get_double(o, path, "nats", 0, 1e300, &s->nats));
        EM_TRY(em_json_get_double(o, path, "bytes", 0, 1e300, &s->bytes));
        EM_TRY(read_size(o, path, "tokens", &s->tokens));
    }
    return EMBER_OK;
}

static void tell_other_arithmetic(const struct em_training *t, const char *before)
{
    char now[96];
    arithmetic(t, now, sizeof now);
    if (*before && strcmp(before, now) != 0)
        em_note("this run was computed in %.95s until now, and is computed in %s from here on: it "
                "does not go on to the bit",
                before, now);
}

static ember_status read_progress(struct em_training *t, const json_t *o, const char *path)
{
    struct em_progress p = {.best = (double)NAN};
    uint64_t format = 0;
    const char *hash = "", *how = "";
    EM_TRY(read_size(o, path, "format", &format));
    if (format != FORMAT)
        return em_fail(EMBER_E_UNSUPPORTED, "%s: is of format %llu, this version knows %d", path,
                       (unsigned long long)format, FORMAT);
    EM_TRY(read_size(o, path, "step", &p.step));
    EM_TRY(read_size(o, path, "steps", &p.steps));
    EM_TRY(read_size(o, path, "tokens", &p.tokens));
    EM_TRY(read_size(o, path, "evaluated", &p.evaluated));
    EM_TRY(read_size(o, path, "best_step", &p.best_step));
    EM_TRY(em_json_get_double(o, path, "seconds", 0, 1e300, &p.seconds));
    EM_TRY(em_json_get_double(o, path, "loss", -1e300, 1e300, &p.last_loss));
    EM_TRY(em_json_get_double(o, path, "best", -1e300, 1e300, &p.best));
    EM_TRY(em_json_get_string(o, path, "data", &hash));
    char *end;
    t->run.data_hash = strtoull(hash, &end, 16);
    if (!*hash || *end) return em_fail(EMBER_E_FORMAT, "%s: data is no hash", path);
    const json_t *logs = json_object_get(o, "logs");
    EM_TRY(read_size(logs, path, "train", &t->run.train_bytes));
    EM_TRY(read_size(logs, path, "eval", &t->run.eval_bytes));
    EM_TRY(read_untrained(t, json_object_get(o, "untrained"), path));
    EM_TRY(em_json_get_string(o, path, "arithmetic", &how));
    tell_other_arithmetic(t, how);
    t->progress = p;
    return EMBER_OK;
}

ember_status em_run_load_progress(struct em_training *t)
{
    char *path = em_path_join(t->run.state, "state.json");
    json_t *o = NULL;
    if (!path) return EMBER_E_NOMEM;
    ember_status status = em_json_read(path, 0, 0, &o);
    if (status == EMBER_OK) status = read_progress(t, o, path);
    json_decref(o);
    em_free(path);
    return status;
}

// ---- moments ----

static ember_status write_moments(const struct em_training *t, const char *path)
{
    const struct em_params *params = &t->model->params;
    const size_t moments = t->trainable.optimizer->moments;
    struct em_st_output *output = em_calloc(params->count * moments + 1, sizeof *output);
    struct em_arena names = {0};
    ember_status status = output ? EMBER_OK : EMBER_E_NOMEM;
    size_t n = 0;
    for (size_t i = 0; i < params->count && status == EMBER_OK; i++) {
        const struct em_param *p = params->param[i];
        const size_t offset = em_trainable_offset(&t->trainable, i);
        for (size_t m = 0; m < moments && !p->frozen && status == EMBER_OK; m++) {
            output[n] = (struct em_st_output){
                .name = em_arena_printf(&names, "moment%zu.%s", m + 1, p->tensor.name),
                .shape = p->tensor.dim,
                .rank = p->tensor.ndim,
                .dtype = EM_ST_F32,
                .data = t->trainable.moments[m] + offset};
            if (!output[n++].name) status = EMBER_E_NOMEM;
        }
    }
    const struct em_st_pair about = {"optimizer", t->trainable.optimizer->name};
    if (status == EMBER_OK)
        status = em_safetensors_write(path, &(struct em_st_write){.tensors = output,
                                                                  .count = n,
                                                                  .metadata = &about,
                                                                  .metadata_count = 1,
                                                                  .hashes = true});
    em_arena_deinit(&names);
    em_free(output);
    return status;
}

static ember_status read_moments(struct em_training *t, const struct em_weights *file)
{
    const struct em_params *params = &t->model->params;
    char name[512];
    for (size_t i = 0; i < params->count; i++) {
        const struct em_param *p = params->param[i];
        const size_t offset = em_trainable_offset(&t->trainable, i);
        for (size_t m = 0; m < t->trainable.optimizer->moments && !p->frozen; m++) {
            const struct em_st_tensor *tensor;
            snprintf(name, sizeof name, "moment%zu.%s", m + 1, p->tensor.name);
            EM_TRY(em_weights_need(file, name, p->tensor.dim, p->tensor.ndim, &tensor));
            float *to = t->trainable.moments[m] + offset;
            EM_TRY(em_st_tensor_verify(em_weights_path(file), tensor));
            EM_TRY(em_st_tensor_f32(tensor, to));
            if (!em_all_finite(to, ember_tensor_count(&p->tensor)))
                return em_fail(EMBER_E_NUMERIC, "%s: tensor %s has values that are not finite",
                               em_weights_path(file), name);
        }
    }
    return EMBER_OK;
}

static ember_status publish(const struct em_training *t, const char *state)
{
    EM_TRY(em_publish_files(state, t->run.dir, companions, COMPANIONS));
    return em_publish_files(state, t->run.dir, weights, 1);
}

ember_status em_run_load(struct em_training *t)
{
    char *path = em_path_join(t->run.state, "optimizer.safetensors");
    struct em_weights *file = NULL;
    if (!path) return EMBER_E_NOMEM;
    ember_status status = em_weights_open(path, &file);
    if (status == EMBER_OK) status = read_moments(t, file);
    em_weights_close(file);
    em_free(path);
    // The run may have ended between its last state and the copy of it.
    return status == EMBER_OK ? publish(t, t->run.state) : status;
}

// ---- saving ----

// generation_config.json: which tokens begin, end and pad.
static ember_status write_generation_config(const struct em_training *t, const char *folder)
{
    static const char *const keys[] = {"bos_token_id", "eos_token_id", "pad_token_id"};
    json_t *config = json_object();
    char *path = em_path_join(folder, "generation_config.json");
    ember_status status = config && path ? EMBER_OK : EMBER_E_NOMEM;
    for (size_t i = 0; i < 3 && status == EMBER_OK; i++) {
        json_t *id = json_object_get(t->model->config, keys[i]);
        if (id && json_object_set(config, keys[i], id) != 0)
            status = em_fail(EMBER_E_NOMEM, "out of memory");
    }
    if (status == EMBER_OK) status = em_json_write(path, config, 2);
    em_free(path);
    json_decref(config);
    return status;
}

// Tokenizer and configs, so that the folder is a model's. What the start came with is kept as it
// is.
static ember_status write_companions(const struct em_training *t, const char *folder)
{
    EM_TRY(em_model_save_config(t->model, folder, EM_ST_F32));
    const char *from = t->tokenizer.from;
    if (from)
        EM_TRY(em_publish_files(from, folder, companions + 1, COMPANIONS - 1));
    else if (t->tokenizer.tokenizer)
        EM_TRY(em_tokenizer_save(t->tokenizer.tokenizer, folder));
    enum em_path_kind generation;
    EM_TRY(em_path_probe_in(folder, "generation_config.json", &generation));
    return generation || !t->model->language_model ? EMBER_OK : write_generation_config(t, folder);
}

ember_status em_run_begin_folder(struct em_training *t)
{
    EM_TRY(write_companions(t, t->run.dir));
    // The state or the model that they came from may be gone by the next save.
    if (t->tokenizer.tokenizer) t->tokenizer.from = t->run.dir;
    return EMBER_OK;
}

static ember_status write_weights(const struct em_training *t, const char *folder)
{
    char *path = em_path_join(folder, "model.safetensors");
    if (!path) return EMBER_E_NOMEM;
    const ember_status status = em_model_save_weights(t->model, path, EM_ST_F32);
    em_free(path);
    return status;
}

static ember_status fill(const struct em_training *t, const struct em_state_writer *w)
{
    char *recipe = em_state_file(w, "recipe.json"), *state = em_state_file(w, "state.json"),
         *moments = em_state_file(w, "optimizer.safetensors");
    ember_status status = recipe && state && moments ? EMBER_OK : EMBER_E_NOMEM;
    if (status == EMBER_OK) status = write_weights(t, w->temporary);
    if (status == EMBER_OK) status = write_moments(t, moments);
    if (status == EMBER_OK) status = write_companions(t, w->temporary);
    if (status == EMBER_OK) status = em_json_write(recipe, t->recipe.json, 2);
    if (status == EMBER_OK) status = write_progress(t, state);
    em_free(recipe);
    em_free(state);
    em_free(moments);
    return status;
}

// What is not finite is not worth going on from, and would replace what is.
static ember_status check_finite(const struct em_training *t)
{
    size_t count;
    const struct em_param *bad = em_model_find_bad(t->model, &count);
    if (bad)
        return em_fail(EMBER_E_NUMERIC, "%zu values of %s are not finite", count, bad->tensor.name);
    for (size_t m = 0; m < t->trainable.optimizer->moments; m++)
        if ((bad = em_trainable_bad_moment(&t->trainable, m, &count)))
            return em_fail(EMBER_E_NUMERIC, "%zu values of moment %zu of %s are not finite", count,
                           m + 1, bad->tensor.name);
    return EMBER_OK;
}

ember_status em_run_save(struct em_training *t)
{
    struct em_state_writer w = {0};
    EM_TRY(check_finite(t));
    // Logs are on disk before the state that knows their sizes.
    EM_TRY(em_run_log_sync(&t->log));
    EM_TRY(em_state_begin(t->run.dir, t->progress.step, &w));
    ember_status status = fill(t, &w);
    char *final = status == EMBER_OK ? em_strdup(w.final) : NULL;
    if (status == EMBER_OK && !final) status = EMBER_E_NOMEM;
    if (status == EMBER_OK) status = em_state_commit(&w);
    em_state_abort(&w);
    if (status == EMBER_OK) status = publish(t, final);
    em_free(final);
    return status;
}

ember_status em_run_save_best(struct em_training *t)
{
    char *folder = em_path_join(t->run.dir, "best");
    ember_status status = folder ? em_make_directories(folder) : EMBER_E_NOMEM;
    if (status == EMBER_OK) status = write_companions(t, folder);
    if (status == EMBER_OK) status = write_weights(t, folder);
    em_free(folder);
    return status;
}
