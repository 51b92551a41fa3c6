// Capacity: in training an expert takes at most ceil(factor T K / E) choices; what comes later goes
// nowhere (index -1, weight 0). First come the earliest tokens, or those with the largest weight
// (Lepikhin et al. 2020, arXiv:2006.16668; Riquelme et al. 2021, arXiv:2106.05974).
#include <math.h>
#include <stdlib.h>

#include "ops/route_topk.h"

struct attr {
    size_t n_experts;
    float factor;
    bool by_weight;
};

enum { WEIGHTS_IN, INDICES_IN, INPUTS };
enum { WEIGHTS, INDICES, DROPPED };

struct turn {
    float weight;
    uint32_t token;
};

static ember_status shape(struct em_call *c)
{
    const ember_tensor *w = c->in[WEIGHTS_IN], *i = c->in[INDICES_IN];
    EM_TRY(em_check_f32(c, w, "weights", 0));
    if (w->ndim != 2 || !i || i->dtype != EMBER_I32 || !em_same_shape(w, i) || !em_same_rows(w, i))
        return em_fail(EMBER_E_SHAPE, "capacity: weights and indices have to be [T, K]");
    size_t bytes = 0;
    EM_TRY(em_add_scratch(c, em_attr_const(c, struct attr)->n_experts, 2, &bytes));
    EM_TRY(em_add_scratch(c, w->dim[0], sizeof(struct turn) / sizeof(float), &bytes));
    em_need_scratch(c, bytes);
    EM_TRY(em_out_like(c, WEIGHTS, w));
    EM_TRY(em_out_rows(c, INDICES, EMBER_I32, i, 1, &i->dim[1], 1));
    return em_out(c, DROPPED, EMBER_F32, (size_t[]){1}, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->in[WEIGHTS_IN]);
    *forward = (struct em_cost){4 * n, 16 * n};
    *backward = (struct em_cost){n, 12 * n};
}

static int by_weight(const void *a, const void *b)
{
    const struct turn *x = a, *y = b;
    if (x->weight != y->weight) return x->weight > y->weight ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

// Whose turn is n-th.
static void order_tokens(const struct em_call *c, struct turn *turn)
{
    const size_t T = c->in[WEIGHTS_IN]->dim[0], K = c->in[WEIGHTS_IN]->dim[1];
    for (size_t t = 0; t < T; t++) {
        turn[t] = (struct turn){0, (uint32_t)t};
        for (size_t n = 0; n < K; n++)
            turn[t].weight = fmaxf(turn[t].weight, em_row(c->in[WEIGHTS_IN], t)[n]);
    }
    if (em_attr_const(c, struct attr)->by_weight) qsort(turn, T, sizeof *turn, by_weight);
}

static void forward(const struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const size_t T = c->in[WEIGHTS_IN]->dim[0], K = c->in[WEIGHTS_IN]->dim[1];
    const double even = ceil((double)a->factor * (double)(T * K) / (double)a->n_experts);
    const size_t capacity = !c->exec->training ? T : even < 1 ? 1 : (size_t)even;
    size_t *taken = em_scratch_take(em_scratch_of(c), a->n_experts * sizeof *taken), dropped = 0;
    struct turn *turn = em_scratch_take(em_scratch_of(c), T * sizeof *turn);
    memset(taken, 0, a->n_experts * sizeof *taken);
    order_tokens(c, turn);
    for (size_t i = 0; i < T; i++) {
        const size_t t = turn[i].token;
        const int32_t *index = em_i32(c->in[INDICES_IN]) + t * K;
        for (size_t n = 0; n < K; n++) {
            const bool goes = index[n] >= 0 && taken[index[n]] < capacity;
            if (goes) taken[index[n]]++;
            dropped += index[n] >= 0 && !goes;
            em_i32(c->out[INDICES])[t * K + n] = goes ? index[n] : -1;
            em_row(c->out[WEIGHTS], t)[n] = goes ? em_row(c->in[WEIGHTS_IN], t)[n] : 0;
        }
    }
    em_f32(c->out[DROPPED])[0] = (float)dropped;
}

static void backward(const struct em_call *c)
{
    const size_t T = c->out[WEIGHTS]->dim[0], K = c->out[WEIGHTS]->dim[1];
    for (size_t t = 0; em_wants(c, WEIGHTS_IN) && t < T; t++)
        for (size_t n = 0; n < K; n++)
            if (em_i32(c->out[INDICES])[t * K + n] >= 0)
                em_row(c->in[WEIGHTS_IN]->grad, t)[n] += em_row(c->out[WEIGHTS]->grad, t)[n];
}

const struct em_op em_op_capacity = {
    .name = "capacity",
    .shape = shape,
    .cost = cost,
    .backend =
        {[EM_CPU] = EM_PASSES(forward, backward), [EM_REFERENCE] = EM_PASSES(forward, backward)},
    .backward_reads = EM_READS_OUT(INDICES),
};

ember_status em_capacity(ember_flow *flow, float factor, bool by_weight, ember_routing *routing,
                         ember_tensor **dropped)
{
    if (!(factor > 0)) return em_fail(EMBER_E_RANGE, "capacity: the factor has to be above 0");
    struct em_call *c = em_call_new(flow, &em_op_capacity, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[WEIGHTS_IN] = routing->weights;
    c->in[INDICES_IN] = routing->indices;
    *em_attr(c, struct attr) = (struct attr){routing->n_experts, factor, by_weight};
    EM_TRY(em_record(flow, c));
    routing->weights = c->out[WEIGHTS];
    routing->indices = c->out[INDICES];
    *dropped = c->out[DROPPED];
    em_keep(*dropped);
    return EMBER_OK;
}

ember_status ember_capacity(ember_flow *flow, float factor, bool by_weight, ember_routing *routing)
{
    ember_tensor *dropped;
    return em_capacity(flow, factor, by_weight, routing, &dropped);
}
