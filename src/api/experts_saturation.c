// Router saturation: the share of a token's experts that an earlier checkpoint had chosen as well.
// Muennighoff et al. 2024, "OLMoE: Open Mixture-of-Experts Language Models", arXiv:2409.02060.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/experts_priv.h"
#include "api/model.h"
#include "base/alloc.h"
#include "base/io.h"
#include "base/log.h"

enum { MOST_STATES = 8 };

static bool is_state(const char *name)
{
    static const char prefix[] = "step-";
    const size_t n = sizeof prefix - 1;
    return !strncmp(name, prefix, n) && name[n] &&
           strspn(name + n, "0123456789") == strlen(name + n);
}

static int by_step(const void *a, const void *b)
{
    const unsigned long long x = strtoull(*(char *const *)a + 5, NULL, 10),
                             y = strtoull(*(char *const *)b + 5, NULL, 10);
    return (x > y) - (x < y);
}

static ember_status add_checkpoint(struct em_experts_study *s, const char *path, const char *name)
{
    const size_t i = s->checkpoints++;
    s->checkpoint[i] = em_arena_strdup(&s->arena, path);
    s->checkpoint_name[i] = em_arena_strdup(&s->arena, name);
    return s->checkpoint[i] && s->checkpoint_name[i] ? EMBER_OK : EMBER_E_NOMEM;
}

// The newest states of the run in the folder, oldest first.
static ember_status add_states(struct em_experts_study *s, const char *training)
{
    char **names;
    size_t count, states = 0;
    EM_TRY(em_list_directory(training, &names, &count));
    for (size_t i = 0; i < count; i++)
        if (is_state(names[i])) {
            char *name = names[i];
            names[i] = names[states];
            names[states++] = name;
        }
    if (states) qsort(names, states, sizeof *names, by_step);
    ember_status status = EMBER_OK;
    for (size_t i = states > MOST_STATES ? states - MOST_STATES : 0;
         i < states && status == EMBER_OK; i++) {
        char *path = em_path_join(training, names[i]);
        status = path ? add_checkpoint(s, path, names[i]) : EMBER_E_NOMEM;
        em_free(path);
    }
    em_names_free(names, count);
    return status;
}

ember_status em_experts_find_checkpoints(struct em_experts_study *s)
{
    const ember_experts_options *o = s->options;
    const size_t room = o->n_compare + MOST_STATES + 1;
    enum em_path_kind kind;
    s->checkpoint = em_arena_alloc(&s->arena, room * sizeof *s->checkpoint);
    s->checkpoint_name = em_arena_alloc(&s->arena, room * sizeof *s->checkpoint_name);
    if (!s->checkpoint || !s->checkpoint_name) return EMBER_E_NOMEM;
    for (size_t i = 0; i < o->n_compare; i++)
        EM_TRY(add_checkpoint(s, o->compare[i], em_path_base(o->compare[i])));
    s->required = o->n_compare;
    char *training = em_path_join(s->path, "training");
    if (!training) return EMBER_E_NOMEM;
    ember_status status = em_path_probe(training, &kind);
    if (status == EMBER_OK && kind == EM_PATH_DIRECTORY) status = add_states(s, training);
    em_free(training);
    return status;
}

struct comparison {
    struct em_experts_study *study;
    const char *name; // of the checkpoint
    size_t *at;       // [layers] places of the choices that come next
    uint64_t *common, *chosen;
};

static ember_status recorded(void *context, struct em_program *program)
{
    const struct comparison *c = context;
    const struct em_expert_views *v = &c->study->views;
    const struct em_router_record *router;
    const size_t n = em_program_routers(program, &router);
    if (n != v->count)
        return em_fail(EMBER_E_CONFIG, "%s: has %zu mixtures of experts, not %zu", c->name, n,
                       v->count);
    for (size_t i = 0; i < n; i++)
        if (router[i].routing.n_experts != v->view[i].counts.shape.experts ||
            router[i].routing.k != v->view[i].k)
            return em_fail(EMBER_E_CONFIG, "%s: %s chooses %zu of %zu experts, not %zu of %zu",
                           c->name, router[i].layer, router[i].routing.k,
                           router[i].routing.n_experts, v->view[i].k,
                           v->view[i].counts.shape.experts);
    return EMBER_OK;
}

static ember_status passed(void *context, const struct em_program *program,
                           const ember_batch *batch)
{
    struct comparison *c = context;
    const struct em_expert_views *v = &c->study->views;
    const struct em_router_record *router;
    const size_t n = em_program_routers(program, &router);
    for (size_t i = 0; i < n; i++) {
        const size_t k = v->view[i].k;
        if (!v->view[i].choices) continue; // its rows are not the tokens
        const int32_t *theirs = em_i32(router[i].routing.indices),
                      *ours = v->view[i].chosen + c->at[i];
        for (size_t t = 0; t < batch->n_tokens; t++)
            for (size_t j = 0; j < k; j++) {
                const int32_t e = ours[t * k + j];
                bool again = false;
                for (size_t a = 0; a < k && !again; a++)
                    again = e >= 0 && theirs[t * k + a] == e;
                c->chosen[i] += e >= 0;
                c->common[i] += again;
            }
        c->at[i] += batch->n_tokens * k;
    }
    return EMBER_OK;
}

static ember_status compare_one(struct em_experts_study *s, size_t checkpoint, double *const *out)
{
    const size_t n = s->views.count;
    struct em_model *model = NULL;
    struct comparison c = {.study = s, .name = s->checkpoint[checkpoint]};
    ember_status status = EMBER_E_NOMEM;
    c.at = em_calloc(n + 1, sizeof *c.at);
    c.common = em_calloc(2 * n + 1, sizeof *c.common);
    if (c.at && c.common) {
        c.chosen = c.common + n;
        status = em_model_open(s->checkpoint[checkpoint], &model);
    }
    if (status == EMBER_OK && model->vocabulary != s->model->model->vocabulary)
        status = em_fail(EMBER_E_CONFIG, "%s: has a vocabulary of %zu tokens, not %zu", c.name,
                         model->vocabulary, s->model->model->vocabulary);
    if (status == EMBER_OK) {
        struct em_perplexity_options options = {
            .recorded = recorded, .passed = passed, .onlooker = &c};
        status = em_experts_walk(s, model, &options, NULL);
    }
    for (size_t i = 0; i < n && status == EMBER_OK; i++)
        out[i][checkpoint] = c.chosen[i] ? (double)c.common[i] / (double)c.chosen[i] : (double)NAN;
    em_model_close(model);
    em_free(c.at);
    em_free(c.common);
    return status;
}

ember_status em_experts_saturation(struct em_experts_study *s, struct em_report_layer *layers)
{
    const size_t n = s->views.count;
    double **out = em_arena_alloc(&s->arena, (n + 1) * sizeof *out);
    if (!out) return EMBER_E_NOMEM;
    for (size_t i = 0; i < n; i++)
        if (!(out[i] = em_arena_alloc(&s->arena, (s->checkpoints + 1) * sizeof **out)))
            return EMBER_E_NOMEM;
    for (size_t c = 0; c < s->checkpoints; c++) {
        const ember_status status = compare_one(s, c, out);
        if (status == EMBER_OK) continue;
        // What nobody asked for, and cannot be read, spoils no report.
        if (c < s->required || status == EMBER_E_NOMEM || status == EMBER_E_INTERRUPTED)
            return status;
        em_warn("%s: left out of the report: %s", s->checkpoint_name[c], ember_last_error());
        for (size_t i = 0; i < n; i++)
            out[i][c] = (double)NAN;
    }
    for (size_t i = 0; i < n; i++)
        layers[i].saturation = s->checkpoints ? out[i] : NULL;
    s->report.checkpoints = s->checkpoint_name;
    s->report.checkpoint_count = s->checkpoints;
    return EMBER_OK;
}
