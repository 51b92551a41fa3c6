// Top-k routing. s = scores of the logits h; S = the k largest of s (+ bias), ties to the lowest
// index.
//   softmax over the selected: g = softmax(h_S);               dh_i = g_i (a_i - sum_S g_j a_j),  a
//   = dL/dg softmax over all: g = p_S (renormalised: as above);        dh_j = g_j a_j [j in S] -
//   p_j sum_S g_i a_i sigmoid: g = s_S, or s_S / Z with Z = sum_S s + eps;       dh_i = s_i (1 -
//   s_i) (a_i - sum_S a_j g_j) / Z
// everything times `scale`. Losses, per layer and over the whole batch, added to dh with
// exec->aux_scale:
//   balance: c E sum_e f_e P_e, f_e = choices of e / (k T), P_e = mean of the scores normalised to
//   sum 1
//            (Fedus et al. 2021, arXiv:2101.03961; f divided by k, so 1 when balanced)
//   z:       c mean (logsumexp h)^2                            (Zoph et al. 2022, arXiv:2202.08906)
#include <math.h>

#include "ops/rows.h"

enum { LOGITS, BIAS, INPUTS };
enum { WEIGHTS, INDICES, STATS };
enum { BLOCK = 256 }; // tokens of a partial sum

static const ember_topk_options *options_of(const struct em_call *c)
{
    return em_attr_const(c, ember_topk_options);
}

static ember_status shape(struct em_call *c)
{
    char text[96];
    const ember_tensor *h = c->in[LOGITS];
    const ember_topk_options *o = options_of(c);
    EM_TRY(em_check_f32(c, h, "logits", 0));
    if (h->ndim != 2 || !o->k || o->k > h->dim[1])
        return em_fail(EMBER_E_SHAPE, "route_topk: %zu of the experts of %s cannot be chosen", o->k,
                       em_shape_text(h, text, sizeof text));
    const size_t E = h->dim[1];
    if (c->in[BIAS]) EM_TRY(em_check_f32(c, c->in[BIAS], "bias", E));
    size_t bytes = 0;
    EM_TRY(em_add_scratch(c, h->dim[0] / BLOCK + 2, 4 * E + 8,
                          &bytes)); // sums of each block, in double
    em_need_scratch(c, bytes);
    EM_TRY(em_out_rows(c, WEIGHTS, EMBER_F32, h, 1, &o->k, 1));
    EM_TRY(em_out_rows(c, INDICES, EMBER_I32, h, 1, &o->k, 1));
    EM_TRY(em_out(c, STATS, EMBER_F32, (size_t[]){4}, 1));
    // P and f of the balance loss, for backward.
    return em_saved(c, 0, EMBER_F32, (size_t[]){2 * E}, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->in[LOGITS]);
    *forward = (struct em_cost){(8 + (double)options_of(c)->k) * n, 4 * n};
    *backward = (struct em_cost){10 * n, 12 * n};
}

// What a token's logits say: scores, their sum, and the log of the sum of exponentials.
struct token {
    double max, lse, score_sum;
};

static double score_of(ember_score kind, const struct token *t, float h)
{
    return kind == EMBER_SCORE_SIGMOID ? 1 / (1 + exp(-(double)h)) : exp((double)h - t->lse);
}

static struct token read_token(const float *h, size_t E, ember_score kind)
{
    struct token t = {.max = -INFINITY};
    double sum = 0;
    for (size_t e = 0; e < E; e++)
        t.max = fmax(t.max, (double)h[e]);
    for (size_t e = 0; e < E; e++)
        sum += exp((double)h[e] - t.max);
    t.lse = t.max + log(sum);
    t.score_sum = 1;
    if (kind == EMBER_SCORE_SIGMOID) {
        t.score_sum = 0;
        for (size_t e = 0; e < E; e++)
            t.score_sum += score_of(kind, &t, h[e]);
    }
    return t;
}

// The k best of score + bias; for softmax scores the order is that of the logits, so that far tails
// keep theirs.
static void choose(const float *h, const float *bias, size_t E, const struct token *t,
                   const ember_topk_options *o, int32_t *chosen)
{
    double best[EMBER_TOPK_MAX];
    for (size_t n = 0; n < o->k; n++)
        best[n] = -INFINITY;
    size_t have = 0;
    for (size_t e = 0; e < E; e++) {
        double v =
            o->score == EMBER_SCORE_SIGMOID || bias ? score_of(o->score, t, h[e]) : (double)h[e];
        if (bias) v = (double)(float)v + (double)bias[e];
        size_t at = have < o->k ? have++ : o->k;
        if (at == o->k && !(v > best[o->k - 1])) continue;
        if (at == o->k) at--;
        for (; at > 0 && v > best[at - 1]; at--) {
            best[at] = best[at - 1];
            chosen[at] = chosen[at - 1];
        }
        best[at] = v;
        chosen[at] = (int32_t)e;
    }
}

// Sum of the chosen scores that the weights are divided by: 1 without renormalisation.
static double divisor(const float *h, const struct token *t, const ember_topk_options *o,
                      const int32_t *chosen)
{
    if (o->score != EMBER_SCORE_SOFTMAX_SELECTED && !o->renormalise) return 1;
    double z = o->score == EMBER_SCORE_SOFTMAX_SELECTED ? 0 : (double)o->eps;
    for (size_t n = 0; n < o->k; n++)
        z += score_of(o->score, t, h[chosen[n]]);
    return z;
}

// Softmax over the selected, where the scores relative to all experts could vanish.
static void selected_softmax(const float *h, const ember_topk_options *o, const int32_t *chosen,
                             double scale, float *weight)
{
    double max = -INFINITY, sum = 0;
    for (size_t n = 0; n < o->k; n++)
        max = fmax(max, (double)h[chosen[n]]);
    for (size_t n = 0; n < o->k; n++)
        sum += exp((double)h[chosen[n]] - max);
    for (size_t n = 0; n < o->k; n++)
        weight[n] = (float)(exp((double)h[chosen[n]] - max) / sum * scale);
}

static double scale_of(const ember_topk_options *o)
{
    return o->scale != 0 ? (double)o->scale : 1;
}

struct work {
    const struct em_call *call;
    double *sum; // per block: P [E], counts [E], z, entropy
};

static void forward_blocks(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct work *w = arg;
    const struct em_call *c = w->call;
    const ember_topk_options *o = options_of(c);
    const size_t T = c->in[LOGITS]->dim[0], E = c->in[LOGITS]->dim[1];
    const float *bias = c->in[BIAS] ? em_f32(c->in[BIAS]) : NULL;
    for (size_t b = begin; b < end; b++) {
        double *sum = w->sum + b * (2 * E + 2);
        memset(sum, 0, (2 * E + 2) * sizeof *sum);
        for (size_t t = b * BLOCK; t < T && t < (b + 1) * BLOCK; t++) {
            const float *h = em_row(c->in[LOGITS], t);
            int32_t *chosen = em_i32(c->out[INDICES]) + t * o->k;
            float *weight = em_row(c->out[WEIGHTS], t);
            const struct token token = read_token(h, E, o->score);
            choose(h, bias, E, &token, o, chosen);
            if (o->score == EMBER_SCORE_SOFTMAX_SELECTED) {
                selected_softmax(h, o, chosen, scale_of(o), weight);
            } else {
                const double z = divisor(h, &token, o, chosen);
                for (size_t n = 0; n < o->k; n++)
                    weight[n] = (float)(score_of(o->score, &token, h[chosen[n]]) / z * scale_of(o));
            }
            for (size_t n = 0; n < o->k; n++)
                sum[E + (size_t)chosen[n]]++;
            for (size_t e = 0; e < E; e++) {
                const double p = score_of(o->score, &token, h[e]) / token.score_sum;
                sum[e] += p;
                if (p > 0) sum[2 * E + 1] -= p * log(p);
            }
            sum[2 * E] += token.lse * token.lse;
        }
    }
}

// Adds the blocks' sums in order; means, the losses and the entropies.
static void finish(const struct em_call *c, const double *sum, size_t blocks)
{
    const size_t T = c->in[LOGITS]->dim[0], E = c->in[LOGITS]->dim[1], k = options_of(c)->k;
    double aux = 0, z = 0, entropy = 0, marginal = 0;
    for (size_t b = 0; b < blocks; b++) {
        z += sum[b * (2 * E + 2) + 2 * E];
        entropy += sum[b * (2 * E + 2) + 2 * E + 1];
    }
    const double tokens = T ? (double)T : 1, nats = E > 1 ? log((double)E) : 1;
    for (size_t e = 0; e < E; e++) {
        double p = 0, f = 0;
        for (size_t b = 0; b < blocks; b++) {
            p += sum[b * (2 * E + 2) + e];
            f += sum[b * (2 * E + 2) + E + e];
        }
        p /= tokens;
        f /= tokens * (double)k;
        aux += (double)E * f * p;
        if (p > 0) marginal -= p * log(p);
        if (!em_recording(c)) continue;
        em_f32(c->saved[0])[e] = (float)p;
        em_f32(c->saved[0])[E + e] = (float)f;
    }
    float *stats = em_f32(c->out[STATS]);
    stats[0] = (float)aux;
    stats[1] = (float)(z / tokens);
    stats[2] = (float)(entropy / tokens / nats);
    stats[3] = (float)(marginal / nats);
}

static void forward(const struct em_call *c)
{
    const size_t T = c->in[LOGITS]->dim[0], E = c->in[LOGITS]->dim[1],
                 blocks = (T + BLOCK - 1) / BLOCK;
    struct work w = {
        c, em_scratch_take(em_scratch_of(c), (blocks + 1) * (2 * E + 2) * sizeof(double))};
    em_parallel(c->exec->pool, blocks, 1, forward_blocks, &w);
    finish(c, w.sum, blocks);
}

static void reference_forward(const struct em_call *c)
{
    const size_t T = c->in[LOGITS]->dim[0], E = c->in[LOGITS]->dim[1],
                 blocks = (T + BLOCK - 1) / BLOCK;
    struct work w = {
        c, em_scratch_take(em_scratch_of(c), (blocks + 1) * (2 * E + 2) * sizeof(double))};
    forward_blocks(&w, 0, blocks, 0);
    finish(c, w.sum, blocks);
}

// The gradient that comes in through the weights.
static void weight_gradient(const struct em_call *c, size_t t, const struct token *token, float *dh)
{
    const ember_topk_options *o = options_of(c);
    const size_t E = c->in[LOGITS]->dim[1];
    const float *h = em_row(c->in[LOGITS], t), *g = em_row(c->out[WEIGHTS], t),
                *a = em_row(c->out[WEIGHTS]->grad, t);
    const int32_t *chosen = em_i32(c->out[INDICES]) + t * o->k;
    double mean = 0; // sum_S g_j a_j, g with its scale
    for (size_t n = 0; n < o->k; n++)
        mean += (double)g[n] * (double)a[n];
    if (o->score == EMBER_SCORE_SOFTMAX_SELECTED) {
        for (size_t n = 0; n < o->k; n++)
            dh[chosen[n]] += (float)((double)g[n] * ((double)a[n] - mean / scale_of(o)));
        return;
    }
    const double z = divisor(h, token, o, chosen), scale = scale_of(o);
    double through_all = 0;
    for (size_t n = 0; n < o->k; n++) {
        // ds: of the score, then into the logit by the score's own derivative.
        const double s = score_of(o->score, token, h[chosen[n]]);
        const double ds = o->renormalise ? (scale * (double)a[n] - mean) / z : scale * (double)a[n];
        if (o->score == EMBER_SCORE_SIGMOID) {
            dh[chosen[n]] += (float)(ds * s * (1 - s));
        } else {
            dh[chosen[n]] += (float)(ds * s);
            through_all += ds * s;
        }
    }
    for (size_t e = 0; o->score == EMBER_SCORE_SOFTMAX_ALL && e < E; e++)
        dh[e] -= (float)(score_of(o->score, token, h[e]) * through_all);
}

static void loss_gradient(const struct em_call *c, const struct token *token, const float *h,
                          float *dh)
{
    const ember_topk_options *o = options_of(c);
    const size_t E = c->in[LOGITS]->dim[1];
    const double T = (double)c->in[LOGITS]->dim[0];
    const double aux = (double)o->aux_coefficient * c->exec->aux_scale * (double)E / T;
    const double z = (double)o->z_coefficient * c->exec->aux_scale * 2 / T * token->lse;
    const float *f = em_f32(c->saved[0]) + E;
    double mean = 0;
    for (size_t e = 0; aux != 0 && e < E; e++)
        mean += score_of(o->score, token, h[e]) / token->score_sum * (double)f[e];
    for (size_t e = 0; e < E; e++) {
        const double s = score_of(o->score, token, h[e]);
        double d = z * exp((double)h[e] - token->lse);
        if (o->score == EMBER_SCORE_SIGMOID)
            d += aux * s * (1 - s) / token->score_sum * ((double)f[e] - mean);
        else
            d += aux * s * ((double)f[e] - mean);
        dh[e] += (float)d;
    }
}

static void backward_tokens(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const ember_topk_options *o = options_of(c);
    const size_t E = c->in[LOGITS]->dim[1];
    const bool losses =
        c->exec->aux_scale != 0 && (o->aux_coefficient != 0 || o->z_coefficient != 0);
    for (size_t t = begin; t < end; t++) {
        const float *h = em_row(c->in[LOGITS], t);
        float *dh = em_row(c->in[LOGITS]->grad, t);
        const struct token token = read_token(h, E, o->score);
        weight_gradient(c, t, &token, dh);
        if (losses) loss_gradient(c, &token, h, dh);
    }
}

static void backward(const struct em_call *c)
{
    if (em_wants(c, LOGITS))
        em_over_rows(c, c->in[LOGITS]->dim[0], 16 * c->in[LOGITS]->dim[1], backward_tokens);
}

static void reference_backward(const struct em_call *c)
{
    if (em_wants(c, LOGITS)) backward_tokens(&c, 0, c->in[LOGITS]->dim[0], 0);
}

const struct em_op em_op_route_topk = {
    .name = "route_topk",
    .shape = shape,
    .cost = cost,
    .backend =
        {[EM_CPU] = {forward, backward}, [EM_REFERENCE] = {reference_forward, reference_backward}},
    .backward_reads = EM_READS_IN(LOGITS) | EM_READS_OUT(WEIGHTS) | EM_READS_OUT(INDICES),
};

ember_status ember_route_topk(ember_flow *flow, ember_tensor *logits, ember_tensor *bias,
                              const ember_topk_options *options, ember_routing *routing)
{
    if (options->k > EMBER_TOPK_MAX)
        return em_fail(EMBER_E_SHAPE, "route_topk: at most %d experts a token, not %zu",
                       EMBER_TOPK_MAX, options->k);
    if (logits && logits->ndim == 2 && logits->dim[1] != routing->n_experts)
        return em_fail(EMBER_E_SHAPE, "route_topk: %zu logits for %zu experts", logits->dim[1],
                       routing->n_experts);
    struct em_call *c = em_call_new(flow, &em_op_route_topk, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[LOGITS] = logits;
    c->in[BIAS] = bias;
    *em_attr(c, ember_topk_options) = *options;
    EM_TRY(em_record(flow, c));
    routing->k = options->k;
    routing->weights = c->out[WEIGHTS];
    routing->indices = c->out[INDICES];
    EM_TRY(ember_dispatch(flow, routing));
    return em_flow_router(flow, &(struct em_router_record){.layer = c->layer,
                                                           .routing = *routing,
                                                           .logits = logits,
                                                           .bias = bias,
                                                           .bias_rate = options->bias_rate,
                                                           .stats = c->out[STATS]});
}
