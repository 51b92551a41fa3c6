// Routing that nothing learns: by a table of token ids (Roller et al. 2021, arXiv:2106.04426), by
// the position in the sequence, or by the sequence's label (Gururangan et al. 2021,
// arXiv:2108.05036). Weights are 1 over the number of experts.
#include <math.h>

#include "ops/route_topk.h"

enum by { TOKEN, POSITION, LABEL };

struct attr {
    enum by by;
    size_t n_experts, k, span;
    bool all; // a sequence without a label uses all experts; otherwise the first
};

enum { LIKE, TABLE, INPUTS };
enum { WEIGHTS, INDICES, STATS };

static ember_status shape(struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const ember_tensor *x = c->in[LIKE], *table = c->in[TABLE];
    EM_TRY(em_check_f32(c, x, "x", 0));
    if (!em_has_token_rows(x))
        return em_fail(EMBER_E_SHAPE, "route_fixed: x has to have a row for each token of the "
                                      "batch: within an expert there are others");
    if (a->by == TOKEN) {
        EM_TRY(em_check_f32(c, table, "table", 0));
        if (table->ndim != 2 || !table->dim[1] || table->dim[1] > a->n_experts)
            return em_fail(EMBER_E_SHAPE, "route_fixed: the table has to be [V, K], K in 1..%zu",
                           a->n_experts);
        em_need_vocabulary(c, table->dim[0]);
    }
    em_need_scratch(c, a->n_experts * sizeof(double) + 256);
    EM_TRY(em_out_rows(c, WEIGHTS, EMBER_F32, x, 1, &a->k, 1));
    EM_TRY(em_out_rows(c, INDICES, EMBER_I32, x, 1, &a->k, 1));
    return em_out(c, STATS, EMBER_F32, (size_t[]){4}, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = (double)c->in[LIKE]->dim[0] * (double)em_attr_const(c, struct attr)->k;
    *forward = (struct em_cost){2 * n, 12 * n};
    *backward = (struct em_cost){0};
}

// What a table says may come from a file: anything but an expert is none.
static int32_t expert_in(float entry, size_t n_experts)
{
    return entry > -0.5f && entry < (float)n_experts - 0.5f ? (int32_t)lrintf(entry) : -1;
}

static void choose(const struct em_call *c, size_t t, size_t sequence, int32_t *index)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const ember_batch *b = c->exec->batch;
    for (size_t n = 0; n < a->k; n++)
        index[n] = -1;
    if (a->by == TOKEN) {
        for (size_t n = 0, used = 0; n < a->k; n++) {
            const int32_t e =
                expert_in(em_row(c->in[TABLE], (size_t)b->tokens[t])[n], a->n_experts);
            bool twice = e < 0;
            for (size_t m = 0; m < used; m++)
                twice = twice || index[m] == e;
            if (!twice) index[used++] = e;
        }
    } else if (a->by == POSITION) {
        index[0] = (int32_t)((size_t)c->exec->position[t] / a->span % a->n_experts);
    } else {
        const int32_t label = b->labels ? b->labels[sequence] : -1;
        const bool known = label >= 0 && (size_t)label < a->n_experts;
        index[0] = known ? label : 0;
        for (size_t n = 0; a->all && !known && n < a->k; n++)
            index[n] = (int32_t)n;
    }
}

static void forward(const struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const size_t T = c->in[LIKE]->dim[0], E = a->n_experts;
    double *load = em_scratch_take(em_scratch_of(c), E * sizeof *load), all = 0, marginal = 0;
    memset(load, 0, E * sizeof *load);
    for (size_t t = 0, s = 0; t < T; t++) {
        int32_t *index = em_i32(c->out[INDICES]) + t * a->k;
        while (t >= c->exec->batch->offset[s + 1])
            s++;
        choose(c, t, s, index);
        const size_t k = em_route_chosen(index, a->k);
        for (size_t n = 0; n < a->k; n++)
            em_row(c->out[WEIGHTS], t)[n] = n < k ? 1 / (float)k : 0;
        for (size_t n = 0; n < k; n++)
            load[index[n]]++;
        all += (double)k;
    }
    for (size_t e = 0; e < E; e++)
        if (load[e] > 0) marginal -= load[e] / all * log(load[e] / all);
    float *stats = em_f32(c->out[STATS]);
    memset(stats, 0, 4 * sizeof *stats);
    stats[3] = E > 1 ? (float)(marginal / log((double)E)) : 1;
}

const struct em_op em_op_route_fixed = {
    .name = "route_fixed",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = {forward, NULL}, [EM_REFERENCE] = {forward, NULL}},
};

static ember_status route(ember_flow *flow, ember_tensor *x, ember_tensor *table,
                          const struct attr *a, ember_routing *routing)
{
    struct em_call *c = em_call_new(flow, &em_op_route_fixed, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[LIKE] = x;
    c->in[TABLE] = table;
    *em_attr(c, struct attr) = *a;
    EM_TRY(em_record(flow, c));
    routing->k = a->k;
    routing->weights = c->out[WEIGHTS];
    routing->indices = c->out[INDICES];
    EM_TRY(ember_dispatch(flow, routing));
    return em_flow_router(
        flow,
        &(struct em_router_record){.layer = c->layer, .routing = *routing, .stats = c->out[STATS]});
}

ember_status ember_route_table(ember_flow *flow, ember_tensor *x, ember_tensor *table,
                               ember_routing *routing)
{
    const size_t k = table && table->ndim == 2 ? table->dim[1] : 1;
    return route(flow, x, table,
                 &(struct attr){.by = TOKEN, .n_experts = routing->n_experts, .k = k}, routing);
}

ember_status ember_route_position(ember_flow *flow, ember_tensor *x, size_t span,
                                  ember_routing *routing)
{
    return route(
        flow, x, NULL,
        &(struct attr){
            .by = POSITION, .n_experts = routing->n_experts, .k = 1, .span = span ? span : 1},
        routing);
}

ember_status ember_route_label(ember_flow *flow, ember_tensor *x, bool unlabelled_use_all,
                               ember_routing *routing)
{
    const size_t E = routing->n_experts;
    return route(flow, x, NULL,
                 &(struct attr){.by = LABEL,
                                .n_experts = E,
                                .k = unlabelled_use_all ? E : 1,
                                .all = unlabelled_use_all},
                 routing);
}
