// Reading a model folder.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/log.h"
#include "base/rng.h"
#include "models/diagnose.h"
#include "models/model.h"
#include "models/model_priv.h"

// Other spellings of a tensor's name that are read too. transformers names some differently in
// memory.
static const struct em_st_tensor *
find_other_spelling(const struct em_model *m, const struct em_weights *weights, const char *name)
{
    static const struct {
        const char *from, *to;
    } spelling[] = {{".self_attn.gate_proj.", ".self_attn.g_proj."}};
    char other[256];
    for (size_t i = 0; i < sizeof spelling / sizeof *spelling; i++) {
        const char *at = strstr(name, spelling[i].from);
        if (!at) continue;
        snprintf(other, sizeof other, "%.*s%s%s", (int)(at - name), name, spelling[i].to,
                 at + strlen(spelling[i].from));
        const struct em_st_tensor *t = em_weights_find(weights, other);
        if (t) return t;
    }
    for (size_t i = 0; m->family->copies && i < em_weights_count(weights); i++) {
        const struct em_st_tensor *t = em_weights_at(weights, i);
        const char *copied = em_model_copied_name(m, t->name, other, sizeof other);
        if (copied && strcmp(copied, name) == 0) return t;
    }
    // A bare text model is saved without the leading "model.".
    if (strncmp(name, "model.", 6) == 0) return em_weights_find(weights, name + 6);
    return NULL;
}

// A tensor of the files, or a part of one.
struct source {
    const struct em_st_tensor *tensor;
    size_t first; // element
};

// Experts as transformers holds them in memory: gate_up_proj [E, 2F, D] (w1 then w3) and down_proj
// [E, D, F]. Nothing is changed where there is none.
static ember_status find_fused(const struct em_weights *weights, const struct em_file_tensor *f,
                               struct source *fused)
{
    char name[256];
    const char *at = strstr(f->name, ".experts.");
    size_t expert;
    char which;
    if (!at || sscanf(at, ".experts.%zu.w%c.weight", &expert, &which) != 2 || f->ndim != 2)
        return EMBER_OK;
    snprintf(name, sizeof name, "%.*s.experts.%s", (int)(at - f->name), f->name,
             which == '2' ? "down_proj" : "gate_up_proj");
    if (!em_weights_find(weights, name)) return EMBER_OK;
    const size_t parts = which == '2' ? 1 : 2;
    const size_t shape[] = {f->param->tensor.dim[0], parts * f->dim[0], f->dim[1]};
    EM_TRY(em_weights_need(weights, name, shape, 3, &fused->tensor));
    fused->first = (expert * parts + (which == '3' ? 1 : 0)) * f->count;
    return EMBER_OK;
}

static bool same_shape(const struct em_st_tensor *t, const struct em_file_tensor *f)
{
    return t->rank == f->ndim &&
           (f->ndim == 0 || memcmp(t->shape, f->dim, f->ndim * sizeof *f->dim) == 0);
}

// Where a tensor's values are: source->tensor NULL for a buffer that the file does not have.
static ember_status find_source(const struct em_model *m, const struct em_weights *weights,
                                const struct em_file_tensor *f, struct source *source)
{
    const struct em_st_tensor *t = em_weights_find(weights, f->name);
    if (!t) t = find_other_spelling(m, weights, f->name);
    *source = (struct source){.tensor = t};
    if (!t) EM_TRY(find_fused(weights, f, source));
    if (!source->tensor && f->param->init == EMBER_INIT_BUFFER) return EMBER_OK;
    if (!source->tensor || (t && !same_shape(t, f)))
        EM_TRY(em_weights_need(weights, t ? t->name : f->name, f->dim, f->ndim, &source->tensor));
    const ember_status status = em_st_to_f32(source->tensor->dtype, NULL, NULL, 0);
    return status == EMBER_OK
               ? EMBER_OK
               : em_fail_in(status, "%s: tensor %s", em_weights_file_of(weights, source->tensor),
                            source->tensor->name);
}

static ember_status load_one(const struct em_model *m, const struct em_weights *weights,
                             const struct em_file_tensor *f, const struct em_st_tensor **used)
{
    float *to = em_f32(&f->param->tensor) + f->offset;
    struct source s;
    EM_TRY(find_source(m, weights, f, &s));
    *used = s.tensor;
    if (!s.tensor) { // a file without the buffer: it is as in a new model
        if (f->offset == 0) {
            struct em_rng rng;
            em_rng_seed(&rng, 0, 0);
            em_param_init(f->param, 0, &rng);
        }
        return EMBER_OK;
    }
    const size_t bytes = em_st_dtype_bits(s.tensor->dtype) / 8;
    if (s.first == 0) // once for all parts
        EM_TRY(em_st_tensor_verify(em_weights_file_of(weights, s.tensor), s.tensor));
    EM_TRY(em_st_to_f32(s.tensor->dtype, s.tensor->data + s.first * bytes, to, f->count));
    // Else a model would take its file's size beside its own while it is loaded.
    em_weights_forget(weights, s.tensor->data + s.first * bytes, f->count * bytes);
    return EMBER_OK;
}

// Before memory is taken: a config can ask for terabytes that its file does not have.
static ember_status check(const struct em_model *m, const struct em_weights *weights)
{
    struct source s;
    for (size_t i = 0; i < m->n_file_tensors; i++)
        EM_TRY(find_source(m, weights, &m->file_tensor[i], &s));
    return EMBER_OK;
}

// One such weight makes every result NaN, and nothing later would say where it came from.
static ember_status refuse_not_finite(const struct em_model *m, const struct em_weights *weights)
{
    size_t count = 0;
    const struct em_file_tensor *first = NULL;
    for (size_t i = 0; i < m->n_file_tensors; i++) {
        const struct em_file_tensor *f = &m->file_tensor[i];
        if (em_all_finite(em_f32(&f->param->tensor) + f->offset, f->count)) continue;
        if (!count++) first = f;
    }
    if (!count) return EMBER_OK;
    const float *x = em_f32(&first->param->tensor) + first->offset;
    struct source source;
    EM_TRY(find_source(m, weights, first, &source));
    size_t i = 0, bad = 0;
    while (isfinite(x[i]))
        i++;
    for (size_t j = i; j < first->count; j++)
        bad += !isfinite(x[j]);
    char others[48] = "";
    if (count > 1) snprintf(others, sizeof others, "; so do %zu other tensors", count - 1);
    return em_fail(EMBER_E_NUMERIC,
                   "%s: tensor %s has %zu of %zu values that are not finite, the first is %g at "
                   "%zu%s",
                   em_weights_file_of(weights, source.tensor), first->name, bad, first->count,
                   (double)x[i], i, others);
}

static int by_address(const void *a, const void *b)
{
    const struct em_st_tensor *x = *(const struct em_st_tensor *const *)a,
                              *y = *(const struct em_st_tensor *const *)b;
    return x < y ? -1 : x > y;
}

// A tensor that shares memory with another in the original: it has to hold the same.
static bool is_copy(const struct em_model *m, const struct em_weights *weights,
                    const struct em_st_tensor *t)
{
    char text[256];
    const char *name = em_model_copied_name(m, t->name, text, sizeof text);
    const struct em_st_tensor *first = name ? em_weights_find(weights, name) : NULL;
    return first && first->dtype == t->dtype && first->bytes == t->bytes &&
           memcmp(first->data, t->data, t->bytes) == 0;
}

// Whatever the files hold and nobody asked for is a line, not silence.
static void note_unused(const struct em_model *m, const struct em_weights *weights,
                        const struct em_st_tensor **used, size_t n)
{
    size_t unused = 0;
    const char *first = NULL;
    qsort(used, n, sizeof *used, by_address);
    for (size_t i = 0; i < em_weights_count(weights); i++) {
        const struct em_st_tensor *t = em_weights_at(weights, i);
        if (bsearch(&t, used, n, sizeof *used, by_address)) continue;
        // A tied head is often written twice.
        if (m->head == m->embedding && strcmp(t->name, "lm_head.weight") == 0) continue;
        if (is_copy(m, weights, t)) continue;
        if (!unused++) first = t->name;
    }
    if (unused)
        em_warn("%s: %zu tensors are not used by this model, the first is %s",
                em_weights_path(weights), unused, first);
}

ember_status em_model_load(struct em_model *m, const struct em_weights *weights)
{
    const struct em_st_tensor **used =
        em_calloc(m->n_file_tensors ? m->n_file_tensors : 1, sizeof(struct em_st_tensor *));
    if (!used) return EMBER_E_NOMEM;
    ember_status status = EMBER_OK;
    for (size_t i = 0; i < m->n_file_tensors && status == EMBER_OK; i++)
        status = load_one(m, weights, &m->file_tensor[i], &used[i]);
    if (status == EMBER_OK) {
        note_unused(m, weights, used, m->n_file_tensors);
        status = refuse_not_finite(m, weights);
    }
    em_free(used);
    em_packs_changed(m->packs);
    return status;
}

ember_status em_model_read_config(const char *path, json_t **config)
{
    enum em_path_kind kind;
    EM_TRY(em_path_probe(path, &kind));
    char *file = kind == EM_PATH_DIRECTORY ? em_path_join(path, "config.json") : em_strdup(path);
    if (!file) return EMBER_E_NOMEM;
    const ember_status status = em_json_read(file, 0, EM_JSON_COMMENTS, config);
    em_free(file);
    return status;
}

static ember_status read_folder_config(const struct em_folder *folder, json_t **config)
{
    return folder->path ? em_model_read_config(folder->path, config)
                        : em_folder_json(folder, "config.json", 0, EM_JSON_COMMENTS, config);
}

ember_status em_model_open_in(const struct em_folder *folder, struct em_model **model)
{
    json_t *config = NULL;
    struct em_weights *weights = NULL;
    struct em_model *m = NULL;
    char *name = em_folder_name(folder, "config.json");
    ember_status status = EMBER_E_NOMEM;
    if (!name) return status;
    EM_TRY_GOTO(status, out, read_folder_config(folder, &config));
    EM_TRY_GOTO(status, out, em_weights_open_in(folder, &weights));
    EM_TRY_GOTO(status, out, em_model_create(config, name, weights, &m));
    EM_TRY_GOTO(status, out, check(m, weights));
    EM_TRY_GOTO(status, out, em_model_allocate(m));
    EM_TRY_GOTO(status, out, em_model_load(m, weights));
    *model = m;
    m = NULL;
out:
    em_model_close(m);
    em_weights_close(weights);
    json_decref(config);
    em_free(name);
    return status;
}

ember_status em_model_open(const char *path, struct em_model **model)
{
    return em_model_open_in(&(struct em_folder){.path = path}, model);
}
