// Routing of whole sequences: to the k experts of the largest softmax scores of the first token's
// logits, or of the sequence's mean logits, or to its label's expert. What was chosen at a
// sequence's start is kept in its state, so that all of its parts go the same way. Weights are the
// scores p_S, or these over their sum:
//   p_S:       dh_j = p_j (a_j [j in S] - sum_S a_i p_i),   over their sum: as if p were over S.
// In double for both backends.
#include <math.h>

#include "ops/rows.h"

struct attr {
    ember_sequence_route by;
    size_t n_experts, k;
    bool renormalise;
};

enum { LOGITS, INPUTS };
enum { WEIGHTS, INDICES };

static ember_status shape(struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const ember_tensor *h = c->in[LOGITS];
    if (a->by != EMBER_BY_LABEL) {
        EM_TRY(em_check_f32(c, h, "logits", a->n_experts));
        if (h->ndim != 2 || !em_has_token_rows(h))
            return em_fail(EMBER_E_SHAPE,
                           "route_sequences: logits have to be [T, E] with a row for each token");
    }
    if (!a->k || a->k > a->n_experts)
        return em_fail(EMBER_E_SHAPE, "route_sequences: %zu of %zu experts", a->k, a->n_experts);
    em_need_scratch(c, 2 * a->n_experts * sizeof(double) + 256);
    EM_TRY(em_out_sequences(c, WEIGHTS, EMBER_F32, &a->k, 1));
    return em_out_sequences(c, INDICES, EMBER_I32, &a->k, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->in[LOGITS]);
    *forward = (struct em_cost){2 * n, 4 * n};
    *backward = (struct em_cost){2 * n, 8 * n};
}

// Rows whose mean logits count.
static size_t rows_of(const struct em_call *c, size_t s)
{
    const size_t *offset = c->exec->batch->offset;
    return em_attr_const(c, struct attr)->by == EMBER_BY_MEAN ? offset[s + 1] - offset[s] : 1;
}

static void scores(const struct em_call *c, size_t s, double *p)
{
    const size_t E = em_attr_const(c, struct attr)->n_experts, n = rows_of(c, s),
                 first = c->exec->batch->offset[s];
    double most = -INFINITY, sum = 0;
    for (size_t e = 0; e < E; e++) {
        p[e] = 0;
        for (size_t t = first; t < first + n; t++)
            p[e] += (double)em_row(c->in[LOGITS], t)[e] / (double)n;
        most = fmax(most, p[e]);
    }
    for (size_t e = 0; e < E; e++)
        sum += p[e] = exp(p[e] - most);
    for (size_t e = 0; e < E; e++)
        p[e] /= sum;
}

static void choose(const struct em_call *c, size_t s, double *p, float *weight, int32_t *index)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const ember_batch *b = c->exec->batch;
    if (a->by == EMBER_BY_LABEL) {
        const int32_t label = b->labels ? b->labels[s] : -1;
        for (size_t n = 0; n < a->k; n++) {
            weight[n] = n ? 0 : 1;
            index[n] = n ? -1 : label >= 0 && (size_t)label < a->n_experts ? label : 0;
        }
        return;
    }
    double sum = 0;
    scores(c, s, p);
    for (size_t n = 0; n < a->k; n++) {
        int32_t best = -1;
        for (size_t e = 0; e < a->n_experts; e++) {
            bool taken = false;
            for (size_t m = 0; m < n; m++)
                taken = taken || (size_t)index[m] == e;
            if (!taken && (best < 0 || p[e] > p[best])) best = (int32_t)e;
        }
        index[n] = best;
        weight[n] = (float)p[best];
        sum += p[best];
    }
    for (size_t n = 0; a->renormalise && n < a->k; n++)
        weight[n] = (float)((double)weight[n] / sum);
}

// A state holds 1, then indices and weights; a fresh one 0.
static bool recall(const struct em_slot *slot, size_t k, float *weight, int32_t *index)
{
    if (!slot || !(slot->fixed[0] > 0)) return false;
    for (size_t n = 0; n < k; n++) {
        index[n] = (int32_t)lrintf(slot->fixed[1 + n]);
        weight[n] = slot->fixed[1 + k + n];
    }
    return true;
}

static void forward(const struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    double *p = em_scratch_take(em_scratch_of(c), a->n_experts * sizeof *p);
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++) {
        float *weight = em_row(c->out[WEIGHTS], s);
        int32_t *index = em_i32(c->out[INDICES]) + s * a->k;
        struct em_slot *out = em_slot_out(c, s);
        if (!recall(em_slot_in(c, s), a->k, weight, index)) choose(c, s, p, weight, index);
        if (!out) continue;
        out->fixed[0] = 1;
        for (size_t n = 0; n < a->k; n++) {
            out->fixed[1 + n] = (float)index[n];
            out->fixed[1 + a->k + n] = weight[n];
        }
    }
}

static void backward(const struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const size_t E = a->n_experts;
    double *p = em_scratch_take(em_scratch_of(c), 2 * E * sizeof *p), *da = p + E;
    if (!em_wants(c, LOGITS)) return;
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++) {
        const struct em_slot *in = em_slot_in(c, s);
        if (in && in->fixed[0] > 0) continue; // chosen before: a constant here
        const int32_t *index = em_i32(c->out[INDICES]) + s * a->k;
        const float *weight = em_row(c->out[WEIGHTS], s), *dw = em_row(c->out[WEIGHTS]->grad, s);
        double inner = 0;
        scores(c, s, p);
        memset(da, 0, E * sizeof *da);
        for (size_t n = 0; n < a->k; n++) {
            inner += (double)dw[n] * (double)weight[n];
            da[index[n]] = (double)dw[n] * (double)weight[n];
        }
        const size_t first = c->exec->batch->offset[s], rows = rows_of(c, s);
        for (size_t n = 0; a->renormalise && n < a->k; n++) // within S alone
            da[index[n]] -= (double)weight[n] * inner;
        for (size_t e = 0; e < E; e++) {
            const double dh = da[e] - (a->renormalise ? 0 : p[e] * inner);
            for (size_t t = first; t < first + rows; t++)
                em_row(c->in[LOGITS]->grad, t)[e] += (float)(dh / (double)rows);
        }
    }
}

const struct em_op em_op_route_sequences = {
    .name = "route_sequences",
    .shape = shape,
    .cost = cost,
    .backend =
        {[EM_CPU] = EM_PASSES(forward, backward), [EM_REFERENCE] = EM_PASSES(forward, backward)},
    .backward_reads = EM_READS_IN(LOGITS) | EM_READS_OUT(WEIGHTS) | EM_READS_OUT(INDICES),
};

ember_status ember_route_sequences(ember_flow *flow, ember_tensor *logits, ember_sequence_route by,
                                   size_t k, bool renormalise, ember_routing *routing)
{
    struct em_call *c = em_call_new(flow, &em_op_route_sequences, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[LOGITS] = by == EMBER_BY_LABEL ? NULL : logits;
    *em_attr(c, struct attr) = (struct attr){by, routing->n_experts, k, renormalise};
    EM_TRY(em_need_state(flow, c, &(struct em_state_spec){.name = "route", .fixed = 1 + 2 * k}));
    EM_TRY(em_record(flow, c));
    routing->k = k;
    routing->weights = c->out[WEIGHTS];
    routing->indices = c->out[INDICES];
    return ember_dispatch(flow, routing);
}
