#include "models/expert_edit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"

// One mixture: where its new experts come from.
struct mixture {
    const char *path;
    size_t block, before, after;
    int64_t *from; // [after] old expert, -1: none
    bool *fresh;   // [after] did not exist before
};

struct job {
    struct em_model *old, *now;
    const struct em_expert_edit *edit;
    struct mixture *mixture;
    size_t mixtures;
};

// ---- which mixtures, and what becomes of their experts ----

static bool is_chosen(const struct em_expert_edit *edit, size_t block)
{
    for (size_t i = 0; i < edit->layers; i++)
        if (edit->layer[i] == block) return true;
    return !edit->layers;
}

static bool lists(const struct em_expert_edit *edit, size_t expert)
{
    for (size_t i = 0; i < edit->experts; i++)
        if (edit->expert[i] == expert) return true;
    return false;
}

static ember_status check_indices(const struct job *j, const struct mixture *m)
{
    const struct em_expert_edit *e = j->edit;
    for (size_t i = 0; i < e->experts; i++) {
        if (e->expert[i] >= m->before)
            return em_fail(EMBER_E_RANGE, "%s: %s has no expert %zu: it has %zu", j->old->name,
                           m->path, e->expert[i], m->before);
        for (size_t k = 0; k < i; k++)
            if (e->expert[k] == e->expert[i])
                return em_fail(EMBER_E_USAGE, "expert %zu is named twice", e->expert[i]);
    }
    if (e->like && *e->like >= m->before)
        return em_fail(EMBER_E_RANGE, "%s: %s has no expert %zu: it has %zu", j->old->name, m->path,
                       *e->like, m->before);
    return EMBER_OK;
}

static ember_status plan_mixture(const struct job *j, struct mixture *m)
{
    const struct em_expert_edit *e = j->edit;
    size_t more = 0, n = 0;
    EM_TRY(check_indices(j, m));
    if (e->kind == EM_EXPERTS_ADD) more = e->count;
    if (e->kind == EM_EXPERTS_CLONE) more = e->experts;
    m->from = em_calloc(m->before + more, sizeof *m->from);
    m->fresh = em_calloc(m->before + more, sizeof *m->fresh);
    if (!m->from || !m->fresh) return EMBER_E_NOMEM;
    for (size_t x = 0; x < m->before; x++) {
        const bool gone = (e->kind == EM_EXPERTS_REMOVE && lists(e, x)) ||
                          (e->kind == EM_EXPERTS_MERGE && lists(e, x) && x != e->expert[0]);
        if (!gone) m->from[n++] = (int64_t)x;
    }
    for (size_t i = 0; i < more; i++, n++) {
        m->fresh[n] = true;
        m->from[n] = e->kind == EM_EXPERTS_CLONE ? (int64_t)e->expert[i]
                     : e->like                   ? (int64_t)*e->like
                                                 : -1;
    }
    m->after = n;
    return n ? EMBER_OK
             : em_fail(EMBER_E_RANGE, "%s: %s would have no experts left", j->old->name, m->path);
}

static ember_status find_mixtures(struct job *j)
{
    const struct em_params *p = &j->old->params;
    j->mixture = em_calloc(p->moe_count ? p->moe_count : 1, sizeof *j->mixture);
    if (!j->mixture) return EMBER_E_NOMEM;
    for (size_t i = 0; i < p->moe_count; i++) {
        size_t block;
        // What is inside of an expert goes with it.
        if (sscanf(p->moe[i].path, "blocks.%zu", &block) != 1 || strstr(p->moe[i].path, ".expert"))
            continue;
        if (!is_chosen(j->edit, block)) continue;
        struct mixture *m = &j->mixture[j->mixtures++];
        *m = (struct mixture){p->moe[i].path, block, p->moe[i].experts, 0, NULL, NULL};
        EM_TRY(plan_mixture(j, m));
    }
    if (j->mixtures) return EMBER_OK;
    return em_fail(EMBER_E_CONFIG, "%s: %s", j->old->name,
                   j->edit->layers ? "the blocks that are named have no mixture of experts"
                                   : "the model has no mixture of experts");
}

// ---- the config ----

static ember_status no_memory(void)
{
    return em_fail(EMBER_E_NOMEM, "out of memory");
}

static ember_status edit_list(const struct mixture *m, json_t *node)
{
    const json_t *list = json_object_get(node, "expert_list");
    json_t *next = json_array();
    for (size_t x = 0; next && x < m->after; x++) {
        const json_t *old = json_array_get(list, m->from[x] < 0 ? 0 : (size_t)m->from[x]);
        if (json_array_append_new(next, json_deep_copy(old)) != 0) {
            json_decref(next);
            return no_memory();
        }
    }
    return next && json_object_set_new(node, "expert_list", next) == 0 ? EMBER_OK : no_memory();
}

// A router that can be told to leave experts alone.
static ember_status need_bias(json_t *node)
{
    json_t *router = json_object_get(node, "router");
    if (!router) {
        router = json_pack("{s:s}", "type", "sigmoid_topk");
        if (!router || json_object_set_new(node, "router", router) != 0) return no_memory();
    }
    if (json_is_string(router)) {
        json_t *object = json_pack("{s:O}", "type", router);
        if (!object || json_object_set_new(node, "router", object) != 0) return no_memory();
        router = object;
    }
    return json_object_set_new(router, "selection_bias", json_true()) == 0 ? EMBER_OK : no_memory();
}

// Of a free block list: every mixture by itself, in the form, which is the config.
static ember_status edit_form(const struct job *j, json_t **config)
{
    for (size_t i = 0; i < j->mixtures; i++) {
        const struct mixture *m = &j->mixture[i];
        json_t *node = (json_t *)(uintptr_t)em_model_config_at(j->old, m->path);
        if (!json_is_object(node))
            return em_fail(EMBER_E_UNSUPPORTED, "%s: the config does not say what %s is made of",
                           j->old->name, m->path);
        if (json_object_get(node, "expert_list"))
            EM_TRY(edit_list(m, node));
        else if (json_object_set_new(node, "experts", json_integer((json_int_t)m->after)) != 0)
            return no_memory();
        if (j->edit->off) EM_TRY(need_bias(node));
    }
    *config = json_deep_copy(j->old->form);
    return *config ? EMBER_OK : no_memory();
}

// Of a family: a number that all layers share.
static ember_status edit_number(const struct job *j, json_t **config)
{
    static const char key[] = "num_experts";
    const json_t *number = json_object_get(j->old->config, key);
    if (!json_is_integer(number))
        return em_fail(EMBER_E_UNSUPPORTED, "%s: the family %s has no %s to change", j->old->name,
                       j->old->family->name, key);
    if (j->edit->layers)
        return em_fail(EMBER_E_UNSUPPORTED,
                       "%s: layers of the family %s have equally many experts: all or none change",
                       j->old->name, j->old->family->name);
    *config = json_deep_copy(j->old->config);
    if (!*config ||
        json_object_set_new(*config, key, json_integer((json_int_t)j->mixture[0].after)) != 0)
        return no_memory();
    return EMBER_OK;
}

// ---- the numbers ----

static double root_mean_square(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return n ? sqrt(sum / (double)n) : 0;
}

static void add_noise(const struct job *j, float *x, size_t n, const char *name, size_t expert)
{
    struct em_rng rng;
    const double scale = j->edit->noise * root_mean_square(x, n);
    uint64_t stream = expert;
    for (; *name; name++)
        stream = stream * 1099511628211u + (unsigned char)*name;
    em_rng_seed(&rng, j->edit->seed, stream);
    for (size_t i = 0; scale > 0 && i < n; i++)
        x[i] += (float)(scale * em_rng_normal(&rng));
}

// The mean of the merged experts' rows, `each` numbers a row.
static void average(const struct job *j, float *to, const float *old, size_t each)
{
    for (size_t i = 0; i < each; i++) {
        double sum = 0;
        for (size_t k = 0; k < j->edit->experts; k++)
            sum += (double)old[j->edit->expert[k] * each + i];
        to[i] = (float)(sum / (double)j->edit->experts);
    }
}

// Rows of a tensor whose first dimension counts experts.
static void copy_rows(const struct job *j, const struct mixture *m, const struct em_param *now,
                      const struct em_param *old)
{
    const size_t each = ember_tensor_count(&now->tensor) / m->after;
    const bool bias = now->init == EMBER_INIT_BUFFER;
    for (size_t x = 0; x < m->after; x++) {
        float *to = em_f32(&now->tensor) + x * each;
        if (m->from[x] < 0) continue;
        if (j->edit->kind == EM_EXPERTS_MERGE && lists(j->edit, (size_t)m->from[x])) {
            average(j, to, em_f32(&old->tensor), each);
            continue;
        }
        memcpy(to, em_f32(&old->tensor) + (size_t)m->from[x] * each, each * sizeof *to);
        if (m->fresh[x] && !bias) add_noise(j, to, each, now->tensor.name, x);
    }
}

// A hash table says experts' numbers: they are others now, and those of experts that are gone none.
static void renumber(const struct mixture *m, float *table, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float next = -1;
        for (size_t x = 0; x < m->after; x++)
            if (!m->fresh[x] && (float)m->from[x] == table[i]) next = (float)x;
        table[i] = next;
    }
}

// The mixture that a parameter belongs to; *rest is what follows its path.
static const struct mixture *mixture_of(const struct job *j, const char *name, const char **rest)
{
    for (size_t i = 0; i < j->mixtures; i++) {
        const size_t n = strlen(j->mixture[i].path);
        if (strncmp(name, j->mixture[i].path, n) == 0 && name[n] == '.') {
            *rest = name + n + 1;
            return &j->mixture[i];
        }
    }
    return NULL;
}

static bool same_shape(const ember_tensor *a, const ember_tensor *b, unsigned from)
{
    if (a->ndim != b->ndim) return false;
    for (unsigned i = from; i < a->ndim; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

// "experts.N.rest": of old expert from[N].
static ember_status copy_single(const struct job *j, const struct mixture *m, struct em_param *now,
                                const char *rest)
{
    char *end;
    const size_t x = strtoul(rest, &end, 10);
    if (x >= m->after || m->from[x] < 0) return EMBER_OK;
    const size_t merged = j->edit->kind == EM_EXPERTS_MERGE && lists(j->edit, (size_t)m->from[x])
                              ? j->edit->experts
                              : 1;
    const size_t n = ember_tensor_count(&now->tensor);
    float *to = em_f32(&now->tensor);
    for (size_t k = 0; k < merged; k++) {
        char name[512];
        const size_t source = merged > 1 ? j->edit->expert[k] : (size_t)m->from[x];
        snprintf(name, sizeof name, "%s.experts.%zu%s", m->path, source, end);
        const struct em_param *old = em_params_find(&j->old->params, name);
        if (!old || !same_shape(&now->tensor, &old->tensor, 0))
            return em_fail(EMBER_E_CONFIG, "%s: experts that differ in kind cannot be merged: %s",
                           j->old->name, name);
        const float share = 1 / (float)merged;
        for (size_t i = 0; i < n; i++)
            to[i] = (k ? to[i] : 0) + share * em_f32(&old->tensor)[i];
    }
    if (m->fresh[x]) add_noise(j, to, n, now->tensor.name, x);
    return EMBER_OK;
}

static ember_status copy_parameter(const struct job *j, struct em_param *now)
{
    const char *rest, *name = now->tensor.name;
    const struct mixture *m = mixture_of(j, name, &rest);
    if (m && strncmp(rest, "experts.", 8) == 0) return copy_single(j, m, now, rest + 8);
    const struct em_param *old = em_params_find(&j->old->params, name);
    if (!old && m && strcmp(rest, "router.bias") == 0) return EMBER_OK; // new: zeros
    if (!old) return em_fail(EMBER_E_INTERNAL, "%s: nothing is known of %s", j->old->name, name);
    if (same_shape(&now->tensor, &old->tensor, 0) &&
        (!m || m->before == m->after || !now->expert)) {
        memcpy(now->tensor.data, old->tensor.data, em_tensor_bytes(&old->tensor));
        if (m && strcmp(rest, "router.table") == 0)
            renumber(m, em_f32(&now->tensor), ember_tensor_count(&now->tensor));
        return EMBER_OK;
    }
    if (!m || now->tensor.dim[0] != m->after || old->tensor.dim[0] != m->before ||
        !same_shape(&now->tensor, &old->tensor, 1))
        return em_fail(EMBER_E_UNSUPPORTED, "%s: %s does not go by experts, and its shape changes",
                       j->old->name, name);
    copy_rows(j, m, now, old);
    return EMBER_OK;
}

static ember_status switch_off(const struct job *j, const struct mixture *m)
{
    char name[512];
    snprintf(name, sizeof name, "%s.router.bias", m->path);
    const struct em_param *bias = em_params_find(&j->now->params, name);
    if (!bias)
        return em_fail(EMBER_E_UNSUPPORTED,
                       "%s: the router of %s has no selection bias that could keep experts from "
                       "being chosen",
                       j->old->name, m->path);
    for (size_t x = 0; x < m->after; x++)
        if (m->fresh[x]) em_f32(&bias->tensor)[x] = EM_EXPERT_OFF;
    return EMBER_OK;
}

static ember_status build(struct job *j, struct em_buf *said)
{
    json_t *config = NULL;
    EM_TRY(find_mixtures(j));
    const bool free_list = strcmp(j->old->family->name, "ember") == 0;
    ember_status status = free_list ? edit_form(j, &config) : edit_number(j, &config);
    if (status == EMBER_OK) status = em_model_create(config, j->old->name, NULL, &j->now);
    json_decref(config);
    EM_TRY(status);
    EM_TRY(em_model_allocate(j->now));
    em_model_init(j->now, j->edit->seed, NULL);
    for (size_t i = 0; i < j->now->params.count; i++)
        EM_TRY(copy_parameter(j, j->now->params.param[i]));
    for (size_t i = 0; i < j->mixtures; i++) {
        const struct mixture *m = &j->mixture[i];
        if (j->edit->off) EM_TRY(switch_off(j, m));
        EM_TRY(em_buf_printf(said, "%s: %zu experts, now %zu\n", m->path, m->before, m->after));
    }
    return EMBER_OK;
}

ember_status em_expert_edit(struct em_model *from, const struct em_expert_edit *edit,
                            struct em_buf *said, struct em_model **out)
{
    struct job j = {.old = from, .edit = edit};
    const ember_status status = build(&j, said);
    for (size_t i = 0; j.mixture && i < j.mixtures; i++) {
        em_free(j.mixture[i].from);
        em_free(j.mixture[i].fresh);
    }
    em_free(j.mixture);
    if (status != EMBER_OK) {
        em_model_close(j.now);
        return status;
    }
    *out = j.now;
    return EMBER_OK;
}
