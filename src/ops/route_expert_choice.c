// Expert choice: of each sequence every expert takes the C = ceil(factor L / E) tokens whose
// softmax scores p_te are largest for it (ties: the earlier one); g = p. So all experts have equal
// work, and a token may get none or all of them. A choice depends on later tokens. Zhou et al.
// 2022, arXiv:2202.09368. With a = dL/dg where chosen, else 0: dh_j = p_j (a_j - sum_e a_e p_e).
#include <math.h>
#include <stdlib.h>

#include "ops/route_topk.h"

struct attr {
    float factor;
};

struct pair {
    float score;
    uint32_t token;
};

enum { LOGITS, INPUTS };
enum { WEIGHTS, INDICES, STATS };

static ember_status shape(struct em_call *c)
{
    const ember_tensor *h = c->in[LOGITS];
    EM_TRY(em_check_f32(c, h, "logits", 0));
    if (h->ndim != 2 || !em_has_token_rows(h))
        return em_fail(EMBER_E_SHAPE,
                       "route_expert_choice: logits have to be [T, E] with a row for "
                       "each token of the batch");
    const size_t E = h->dim[1];
    size_t bytes = 0;
    EM_TRY(em_add_scratch(c, h->dim[0], E, &bytes));
    EM_TRY(em_add_scratch(c, h->dim[0], sizeof(struct pair) / sizeof(float), &bytes));
    EM_TRY(em_add_scratch(c, 2, 2 * E, &bytes));
    em_need_scratch(c, bytes + 1024);
    EM_TRY(em_out_rows(c, WEIGHTS, EMBER_F32, h, 1, &E, 1));
    EM_TRY(em_out_rows(c, INDICES, EMBER_I32, h, 1, &E, 1));
    return em_out(c, STATS, EMBER_F32, (size_t[]){4}, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->in[LOGITS]);
    *forward = (struct em_cost){60 * n, 20 * n};
    *backward = (struct em_cost){20 * n, 16 * n};
}

static void softmax(const float *h, size_t E, double *p)
{
    double most = -INFINITY, sum = 0;
    for (size_t e = 0; e < E; e++)
        most = fmax(most, (double)h[e]);
    for (size_t e = 0; e < E; e++)
        sum += p[e] = exp((double)h[e] - most);
    for (size_t e = 0; e < E; e++)
        p[e] /= sum;
}

static int best_first(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

static size_t capacity_of(float factor, size_t length, size_t E)
{
    const double c = ceil((double)factor * (double)length / (double)E);
    return c < 1 ? 1 : c > (double)length ? length : (size_t)c;
}

// Entropies of the scores, over log E; loads are equal by construction.
static void figures(const struct em_call *c, double entropy, const double *P)
{
    const size_t T = c->in[LOGITS]->dim[0], E = c->in[LOGITS]->dim[1];
    const double tokens = T ? (double)T : 1, nats = E > 1 ? log((double)E) : 1;
    double marginal = 0;
    for (size_t e = 0; e < E; e++)
        if (P[e] > 0) marginal -= P[e] / tokens * log(P[e] / tokens);
    float *stats = em_f32(c->out[STATS]);
    stats[0] = 1;
    stats[1] = 0;
    stats[2] = (float)(entropy / tokens / nats);
    stats[3] = (float)(marginal / nats);
}

static void forward(const struct em_call *c)
{
    const size_t T = c->in[LOGITS]->dim[0], E = c->in[LOGITS]->dim[1];
    const ember_batch *b = c->exec->batch;
    float *score = em_take_floats(c, T, E);
    struct pair *pair = em_scratch_take(em_scratch_of(c), T * sizeof *pair);
    double *p = em_scratch_take(em_scratch_of(c), 2 * E * sizeof *p), *P = p + E, entropy = 0;
    memset(P, 0, E * sizeof *P);
    for (size_t t = 0; t < T; t++) {
        softmax(em_row(c->in[LOGITS], t), E, p);
        for (size_t e = 0; e < E; e++) {
            score[t * E + e] = (float)p[e];
            em_row(c->out[WEIGHTS], t)[e] = 0;
            em_i32(c->out[INDICES])[t * E + e] = -1;
            P[e] += p[e];
            if (p[e] > 0) entropy -= p[e] * log(p[e]);
        }
    }
    for (size_t s = 0; s < b->n_sequences; s++) {
        const size_t first = b->offset[s], length = b->offset[s + 1] - first;
        const size_t C = capacity_of(em_attr_const(c, struct attr)->factor, length, E);
        for (size_t e = 0; e < E; e++) {
            for (size_t t = 0; t < length; t++)
                pair[t] = (struct pair){score[(first + t) * E + e], (uint32_t)(first + t)};
            qsort(pair, length, sizeof *pair, best_first);
            for (size_t i = 0; i < C; i++) { // the token's next free place
                const size_t t = pair[i].token;
                int32_t *index = em_i32(c->out[INDICES]) + t * E;
                size_t n = 0;
                while (index[n] >= 0)
                    n++;
                index[n] = (int32_t)e;
                em_row(c->out[WEIGHTS], t)[n] = pair[i].score;
            }
        }
    }
    figures(c, entropy, P);
}

static void backward(const struct em_call *c)
{
    const size_t E = c->in[LOGITS]->dim[1];
    double *p = em_scratch_take(em_scratch_of(c), 2 * E * sizeof *p), *a = p + E;
    for (size_t t = 0; em_wants(c, LOGITS) && t < c->in[LOGITS]->dim[0]; t++) {
        const int32_t *index = em_i32(c->out[INDICES]) + t * E;
        double inner = 0;
        softmax(em_row(c->in[LOGITS], t), E, p);
        memset(a, 0, E * sizeof *a);
        for (size_t n = 0; n < E && index[n] >= 0; n++)
            a[index[n]] = (double)em_row(c->out[WEIGHTS]->grad, t)[n];
        for (size_t e = 0; e < E; e++)
            inner += a[e] * p[e];
        for (size_t e = 0; e < E; e++)
            em_row(c->in[LOGITS]->grad, t)[e] += (float)(p[e] * (a[e] - inner));
    }
}

const struct em_op em_op_route_expert_choice = {
    .name = "route_expert_choice",
    .shape = shape,
    .cost = cost,
    .backend =
        {[EM_CPU] = EM_PASSES(forward, backward), [EM_REFERENCE] = EM_PASSES(forward, backward)},
    .backward_reads = EM_READS_IN(LOGITS) | EM_READS_OUT(INDICES),
};

ember_status ember_route_expert_choice(ember_flow *flow, ember_tensor *logits, float factor,
                                       ember_routing *routing)
{
    if (!(factor > 0))
        return em_fail(EMBER_E_RANGE, "route_expert_choice: the factor has to be above 0");
    struct em_call *c = em_call_new(flow, &em_op_route_expert_choice, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[LOGITS] = logits;
    em_attr(c, struct attr)->factor = factor;
    EM_TRY(em_record(flow, c));
    // Every sequence rounds up for every expert.
    const size_t E = logits->dim[1], T = logits->dim[0];
    const double rows =
        ceil((double)factor * (double)T) + (double)(E * em_flow_options(flow)->max_sequences);
    routing->k = E;
    routing->weights = c->out[WEIGHTS];
    routing->indices = c->out[INDICES];
    routing->max_rows = rows < (double)(T * E) ? (size_t)rows : T * E;
    EM_TRY(ember_dispatch(flow, routing));
    return em_flow_router(flow, &(struct em_router_record){.layer = c->layer,
                                                           .routing = *routing,
                                                           .logits = logits,
                                                           .stats = c->out[STATS]});
}
