// More, fewer, merged experts: a model's folder becomes another.
#include <ember/experts.h>

#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "models/expert_edit.h"
#include "models/upcycle.h"

_Static_assert((int)EMBER_EXPERTS_ADD == (int)EM_EXPERTS_ADD &&
                   (int)EMBER_EXPERTS_MERGE == (int)EM_EXPERTS_MERGE,
               "the kinds of edits are the same");

enum { MOST_NEW = 4096, COMPANION_LIMIT = 1 << 30 };

// What goes with a model unchanged.
static const char *const companion[] = {"tokenizer.json", "tokenizer_config.json",
                                        "special_tokens_map.json", "chat_template.jinja",
                                        "generation_config.json"};

static ember_status check_noise(double noise)
{
    return noise >= 0 && noise <= 10
               ? EMBER_OK
               : em_fail(EMBER_E_RANGE, "noise has to be in [0, 10], not %g", noise);
}

static ember_status check(const ember_expert_edit *e)
{
    const bool add = e->kind == EMBER_EXPERTS_ADD;
    if ((unsigned)e->kind > EMBER_EXPERTS_MERGE)
        return em_fail(EMBER_E_USAGE, "there is no edit number %d", (int)e->kind);
    if (add && (!e->count || e->count > MOST_NEW))
        return em_fail(EMBER_E_RANGE, "1 to %d experts can be added, not %zu", MOST_NEW, e->count);
    if (!add && e->n_experts < (e->kind == EMBER_EXPERTS_MERGE ? 2u : 1u))
        return em_fail(EMBER_E_USAGE, "experts have to be named%s",
                       e->kind == EMBER_EXPERTS_MERGE ? ", at least two" : "");
    return check_noise(e->noise);
}

static ember_status copy_companions(const char *from, const char *to)
{
    ember_status status = EMBER_OK;
    for (size_t i = 0; i < sizeof companion / sizeof *companion && status == EMBER_OK; i++) {
        char *source = em_path_join(from, companion[i]), *target = em_path_join(to, companion[i]);
        struct em_buf content = {0};
        status = source && target ? EMBER_OK : EMBER_E_NOMEM;
        if (status == EMBER_OK && em_path_exists(source)) {
            status = em_read_file(source, COMPANION_LIMIT, &content);
            if (status == EMBER_OK) status = em_write_file(target, content.data, content.size);
        }
        em_buf_deinit(&content);
        em_free(source);
        em_free(target);
    }
    return status;
}

static enum em_st_dtype dtype_of(const struct em_model *m)
{
    const json_t *dtype = json_object_get(m->config, "dtype");
    if (!dtype) dtype = json_object_get(m->config, "torch_dtype");
    const bool bf16 = json_is_string(dtype) && !strcmp(json_string_value(dtype), "bfloat16");
    return bf16 ? EM_ST_BF16 : EM_ST_F32;
}

static ember_status save(const struct em_model *m, enum em_st_dtype dtype, const char *from,
                         const char *to)
{
    char *weights = em_path_join(to, "model.safetensors");
    ember_status status = weights ? em_make_directories(to) : EMBER_E_NOMEM;
    if (status == EMBER_OK) status = em_model_save_weights(m, weights, dtype);
    if (status == EMBER_OK) status = copy_companions(from, to);
    if (status == EMBER_OK) status = em_model_save_config(m, to, dtype); // last: makes it a model
    em_free(weights);
    return status;
}

// Opens, changes, saves.
typedef ember_status change(struct em_model *old, const void *how, struct em_buf *said,
                            struct em_model **now);

static ember_status rewrite(const char *model, const char *out, change *make, const void *how,
                            char **text)
{
    struct em_model *old = NULL, *now = NULL;
    struct em_buf said = {0};
    if (em_path_exists(out)) return em_fail(EMBER_E_STATE, "%s: is there already", out);
    ember_status status = em_model_open(model, &old);
    const enum em_st_dtype dtype = status == EMBER_OK ? dtype_of(old) : EM_ST_F32;
    if (status == EMBER_OK) status = make(old, how, &said, &now);
    if (status == EMBER_OK) {
        status = save(now, dtype, model, out);
        if (status != EMBER_OK) (void)!em_remove_tree(out);
    }
    if (status == EMBER_OK && text) status = em_buf_putc(&said, '\0');
    em_model_close(now);
    em_model_close(old);
    if (status == EMBER_OK && text) {
        *text = said.data;
        return EMBER_OK;
    }
    em_buf_deinit(&said);
    return status;
}

static ember_status edit_experts(struct em_model *old, const void *how, struct em_buf *said,
                                 struct em_model **now)
{
    return em_expert_edit(old, how, said, now);
}

ember_status ember_experts_edit(const char *model, const char *out, const ember_expert_edit *e,
                                char **text)
{
    EM_TRY(check(e));
    return rewrite(model, out, edit_experts,
                   &(struct em_expert_edit){.kind = (enum em_expert_edit_kind)e->kind,
                                            .expert = e->experts,
                                            .experts = e->n_experts,
                                            .count = e->count,
                                            .like = e->like,
                                            .noise = e->noise,
                                            .off = e->off,
                                            .layer = e->layers,
                                            .layers = e->n_layers,
                                            .seed = e->seed},
                   text);
}

static ember_status upcycle(struct em_model *old, const void *how, struct em_buf *said,
                            struct em_model **now)
{
    return em_upcycle(old, how, said, now);
}

ember_status ember_experts_upcycle(const char *model, const char *out, const ember_upcycling *u,
                                   char **text)
{
    if (!u->experts || u->experts > MOST_NEW)
        return em_fail(EMBER_E_RANGE, "1 to %d experts can be made, not %zu", MOST_NEW, u->experts);
    EM_TRY(check_noise(u->noise));
    return rewrite(model, out, upcycle,
                   &(struct em_upcycle){.experts = u->experts,
                                        .k = u->k ? u->k : 2,
                                        .noise = u->noise,
                                        .layer = u->layers,
                                        .layers = u->n_layers,
                                        .seed = u->seed},
                   text);
}
