// Routing by activity: a token goes to every expert whose score is above a threshold, so to as many
// as it needs. s = relu(h) (Wang et al. 2024, arXiv:2412.14711), sigmoid(h) or softmax(h); active
// where s > theta_e; g = s over the active ones, or over their sum.
//   relu's loss, for sparsity:  l / T sum_t sum_e f_e g_te,  f_e = E / (k T) times its choices,
//   a constant to the gradient; the trainer moves l until k experts are active in the mean.
//   `observed` [E]: the k T / E-th largest score of each expert, for the trainer to move theta to.
// In double for both backends.
#include <math.h>
#include <stdlib.h>

#include "ops/route_topk.h"

struct attr {
    size_t k;
    ember_activity kind;
    bool renormalise;
    float scale;
};

enum { LOGITS, THRESHOLD, SPARSITY, INPUTS };
enum { WEIGHTS, INDICES, STATS, OBSERVED };

static ember_status shape(struct em_call *c)
{
    const ember_tensor *h = c->in[LOGITS];
    const struct attr *a = em_attr_const(c, struct attr);
    EM_TRY(em_check_f32(c, h, "logits", 0));
    if (h->ndim != 2 || !a->k || a->k > h->dim[1])
        return em_fail(EMBER_E_SHAPE, "route_active: logits have to be [T, E], k in 1..E");
    const size_t E = h->dim[1];
    if (c->in[THRESHOLD]) EM_TRY(em_check_f32(c, c->in[THRESHOLD], "threshold", E));
    if (c->in[SPARSITY]) EM_TRY(em_check_f32(c, c->in[SPARSITY], "sparsity", 1));
    size_t bytes = 0;
    EM_TRY(em_add_scratch(c, 2 * em_call_threads(c), E, &bytes));
    EM_TRY(em_add_scratch(c, em_call_threads(c), h->dim[0], &bytes));
    EM_TRY(em_add_scratch(c, 6, E, &bytes));
    em_need_scratch(c, bytes + em_call_threads(c) * 512);
    EM_TRY(em_out_rows(c, WEIGHTS, EMBER_F32, h, 1, &E, 1));
    EM_TRY(em_out_rows(c, INDICES, EMBER_I32, h, 1, &E, 1));
    EM_TRY(em_out(c, STATS, EMBER_F32, (size_t[]){4}, 1));
    EM_TRY(em_out(c, OBSERVED, EMBER_F32, &E, 1));
    return em_saved(c, 0, EMBER_F32, &E, 1); // f
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->in[LOGITS]);
    *forward = (struct em_cost){40 * n, 16 * n};
    *backward = (struct em_cost){20 * n, 16 * n};
}

// A token's scores; returns their sum.
static double read_scores(const struct em_call *c, size_t t, float *s)
{
    const size_t E = c->in[LOGITS]->dim[1];
    const float *h = em_row(c->in[LOGITS], t);
    const ember_activity kind = em_attr_const(c, struct attr)->kind;
    double most = -INFINITY, sum = 0, all = 0;
    for (size_t e = 0; e < E; e++)
        most = fmax(most, (double)h[e]);
    for (size_t e = 0; e < E; e++)
        sum += exp((double)h[e] - most);
    for (size_t e = 0; e < E; e++) {
        s[e] = kind == EMBER_ACTIVITY_RELU      ? fmaxf(h[e], 0)
               : kind == EMBER_ACTIVITY_SIGMOID ? (float)(1 / (1 + exp(-(double)h[e])))
                                                : (float)(exp((double)h[e] - most) / sum);
        all += (double)s[e];
    }
    return all;
}

static bool is_active(const struct em_call *c, size_t e, float s)
{
    return s > (c->in[THRESHOLD] ? em_f32(c->in[THRESHOLD])[e] : 0);
}

static double active_sum(const struct em_call *c, const float *s)
{
    double sum = 0;
    for (size_t e = 0; e < c->in[LOGITS]->dim[1]; e++)
        if (is_active(c, e, s[e])) sum += (double)s[e];
    return sum > 0x1p-126 ? sum : 0x1p-126;
}

static int descending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return x > y ? -1 : x < y;
}

struct work {
    const struct em_call *call;
    float *space; // of each thread
    size_t each;
};

static void observe(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct work *w = arg;
    const struct em_call *c = w->call;
    const size_t T = c->in[LOGITS]->dim[0], E = c->in[LOGITS]->dim[1],
                 share = (em_attr_const(c, struct attr)->k * T + E - 1) / E;
    float *column = w->space + thread * w->each;
    for (size_t e = begin; e < end; e++) {
        for (size_t t = 0; t < T; t++) // the scores lie in the weights' rows until these are packed
            column[t] = em_row(c->out[WEIGHTS], t)[e];
        if (T) qsort(column, T, sizeof *column, descending);
        em_f32(c->out[OBSERVED])[e] = T ? column[share < T ? share - 1 : T - 1] : 0;
    }
}

static void figures(const struct em_call *c, const double *P, const double *f, double sparse,
                    double entropy)
{
    const size_t T = c->in[LOGITS]->dim[0], E = c->in[LOGITS]->dim[1];
    const double tokens = T ? (double)T : 1, nats = E > 1 ? log((double)E) : 1;
    double marginal = 0, all = 0;
    for (size_t e = 0; e < E; e++)
        all += P[e];
    for (size_t e = 0; e < E; e++) {
        const double p = all > 0 ? P[e] / all : 0;
        if (p > 0) marginal -= p * log(p);
        if (em_recording(c)) em_f32(c->saved[0])[e] = (float)f[e];
    }
    float *stats = em_f32(c->out[STATS]);
    stats[0] = (float)(sparse / tokens);
    stats[1] = 0;
    stats[2] = (float)(entropy / tokens / nats);
    stats[3] = (float)(marginal / nats);
}

static void forward(const struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const size_t T = c->in[LOGITS]->dim[0], E = c->in[LOGITS]->dim[1];
    double *P = em_scratch_take(em_scratch_of(c), 2 * E * sizeof *P), *f = P + E, entropy = 0,
           sparse = 0;
    struct work w = {c, em_take_floats(c, em_pool_threads(c->exec->pool), T), T};
    float *s = em_take_floats(c, 1, E);
    memset(P, 0, 2 * E * sizeof *P);
    for (size_t t = 0; t < T; t++) {
        const double all = read_scores(c, t, em_row(c->out[WEIGHTS], t));
        for (size_t e = 0; e < E; e++) {
            const float score = em_row(c->out[WEIGHTS], t)[e];
            const double p = all > 0 ? (double)score / all : 0;
            P[e] += p;
            if (p > 0) entropy -= p * log(p);
            f[e] += is_active(c, e, score);
        }
    }
    for (size_t e = 0; e < E; e++)
        f[e] *= (double)E / ((double)a->k * (T ? (double)T : 1));
    em_parallel(c->exec->pool, E, 1, observe, &w);
    for (size_t t = 0; t < T; t++) {
        float *weight = em_row(c->out[WEIGHTS], t);
        int32_t *index = em_i32(c->out[INDICES]) + t * E;
        memcpy(s, weight, E * sizeof *s);
        const double factor = (double)a->scale / (a->renormalise ? active_sum(c, s) : 1);
        size_t n = 0;
        for (size_t e = 0; e < E; e++) {
            if (!is_active(c, e, s[e])) continue;
            sparse += f[e] * (double)s[e];
            weight[n] = (float)((double)s[e] * factor);
            index[n++] = (int32_t)e;
        }
        for (; n < E; n++) {
            weight[n] = 0;
            index[n] = -1;
        }
    }
    figures(c, P, f, sparse, entropy);
}

static void backward(const struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const size_t T = c->in[LOGITS]->dim[0], E = c->in[LOGITS]->dim[1];
    float *s = em_take_floats(c, 2, E), *ds = s + E;
    const double loss = c->in[SPARSITY] && T
                            ? (double)em_f32(c->in[SPARSITY])[0] * c->exec->aux_scale / (double)T
                            : 0;
    for (size_t t = 0; em_wants(c, LOGITS) && t < T; t++) {
        const float *g = em_row(c->out[WEIGHTS], t), *dg = em_row(c->out[WEIGHTS]->grad, t);
        const int32_t *index = em_i32(c->out[INDICES]) + t * E;
        read_scores(c, t, s);
        memset(ds, 0, E * sizeof *ds);
        const double sum = a->renormalise ? active_sum(c, s) : 1;
        double through = 0;
        for (size_t n = 0; a->renormalise && n < E && index[n] >= 0; n++)
            through += (double)dg[n] * (double)g[n];
        for (size_t n = 0; n < E && index[n] >= 0; n++)
            ds[index[n]] = (float)(((double)a->scale * (double)dg[n] - through) / sum +
                                   loss * (double)em_f32(c->saved[0])[index[n]]);
        double inner = 0;
        for (size_t e = 0; e < E; e++)
            inner += (double)ds[e] * (double)s[e];
        for (size_t e = 0; e < E; e++) {
            const double x = (double)s[e], d = (double)ds[e];
            em_row(c->in[LOGITS]->grad, t)[e] +=
                (float)(a->kind == EMBER_ACTIVITY_RELU      ? (x > 0 ? d : 0)
                        : a->kind == EMBER_ACTIVITY_SIGMOID ? d * x * (1 - x)
                                                            : x * (d - inner));
        }
    }
}

const struct em_op em_op_route_active = {
    .name = "route_active",
    .shape = shape,
    .cost = cost,
    .backend =
        {[EM_CPU] = EM_PASSES(forward, backward), [EM_REFERENCE] = EM_PASSES(forward, backward)},
    .backward_reads = EM_READS_IN(LOGITS) | EM_READS_IN(THRESHOLD) | EM_READS_IN(SPARSITY) |
                      EM_READS_OUT(WEIGHTS) | EM_READS_OUT(INDICES),
};

ember_status ember_route_active(ember_flow *flow, ember_tensor *logits, ember_tensor *threshold,
                                ember_tensor *sparsity, const ember_activity_options *options,
                                ember_routing *routing)
{
    struct em_call *c = em_call_new(flow, &em_op_route_active, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[LOGITS] = logits;
    c->in[THRESHOLD] = threshold;
    c->in[SPARSITY] = sparsity;
    *em_attr(c, struct attr) = (struct attr){options->k, options->kind, options->renormalise,
                                             options->scale != 0 ? options->scale : 1};
    EM_TRY(em_record(flow, c));
    routing->k = logits->dim[1];
    routing->weights = c->out[WEIGHTS];
    routing->indices = c->out[INDICES];
    em_keep(c->out[OBSERVED]);
    EM_TRY(ember_dispatch(flow, routing));
    return em_flow_router(flow,
                          &(struct em_router_record){.layer = c->layer,
                                                     .routing = *routing,
                                                     .logits = logits,
                                                     .threshold = threshold,
                                                     .threshold_rate = options->threshold_rate,
                                                     .sparsity = sparsity,
                                                     .target = options->k,
                                                     .observed = c->out[OBSERVED],
                                                     .stats = c->out[STATS]});
}
