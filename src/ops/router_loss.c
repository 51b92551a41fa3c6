// Losses on routing that are not part of choosing: the weights pass unchanged, and backward adds
// the loss's gradient, times coefficient and exec->aux_scale. p are a token's scores over their
// sum, g its weights.
//   importance:   I_e = sum_t g_te;            var(I) / mean(I)^2       (arXiv:1701.06538)
//   sequence:     mean over sequences of       E sum_e f_e P_e          (arXiv:2412.19437)
//   information:  sum_e P_e log P_e - mean_t sum_e p_te log p_te        (arXiv:2306.04640)
// f counts choices and is a constant to the gradient. In double for both backends.
#include <math.h>

#include "ops/route_topk.h"

struct attr {
    ember_router_loss_kind kind;
    ember_score score;
    size_t n_experts;
    float coefficient;
};

enum { WEIGHTS, INDICES, LOGITS, INPUTS };
enum { PASSED, VALUE };
static const double TINY = 1e-10;

static ember_status shape(struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const ember_tensor *w = c->in[WEIGHTS], *i = c->in[INDICES], *h = c->in[LOGITS];
    EM_TRY(em_check_f32(c, w, "weights", 0));
    if (w->ndim != 2 || !i || i->dtype != EMBER_I32 || !em_same_shape(w, i))
        return em_fail(EMBER_E_SHAPE, "router_loss: weights and indices have to be [T, K]");
    if (a->kind != EMBER_LOSS_IMPORTANCE) {
        EM_TRY(em_check_f32(c, h, "logits", a->n_experts));
        if (h->ndim != 2 || h->dim[0] != w->dim[0] || !em_same_rows(h, w))
            return em_fail(EMBER_E_SHAPE, "router_loss: logits have to be [T, E]");
        if (a->kind == EMBER_LOSS_SEQUENCE && !em_has_token_rows(h))
            return em_fail(EMBER_E_SHAPE, "router_loss: sequences are made of the batch's tokens; "
                                          "these rows are not");
    }
    em_need_scratch(c, 4 * a->n_experts * sizeof(double) + 256);
    EM_TRY(em_out_like(c, PASSED, w));
    return em_out(c, VALUE, EMBER_F32, (size_t[]){1}, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->in[WEIGHTS]) + em_elements(c->in[LOGITS]);
    *forward = (struct em_cost){10 * n, 8 * n};
    *backward = (struct em_cost){20 * n, 16 * n};
}

// A token's scores over their sum, which is returned; `raw` gets the scores themselves.
static double shares(const struct em_call *c, size_t t, double *raw, double *p)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const float *h = em_row(c->in[LOGITS], t);
    double most = -INFINITY, sum = 0;
    for (size_t e = 0; e < a->n_experts; e++)
        most = fmax(most, (double)h[e]);
    for (size_t e = 0; e < a->n_experts; e++) {
        const double x = (double)h[e];
        raw[e] = a->score == EMBER_SCORE_SIGMOID         ? 1 / (1 + exp(-x))
                 : a->score == EMBER_SCORE_SQRT_SOFTPLUS ? sqrt(fmax(x, 0) + log1p(exp(-fabs(x))))
                                                         : exp(x - most);
        sum += raw[e];
    }
    for (size_t e = 0; e < a->n_experts; e++)
        p[e] = sum > 0 ? raw[e] / sum : 0;
    return sum;
}

// dh += the chain from dp through p = s / sum s into the logits.
static void into_logits(const struct em_call *c, size_t t, const double *raw, const double *p,
                        double sum, const double *dp)
{
    const struct attr *a = em_attr_const(c, struct attr);
    double through = 0;
    for (size_t e = 0; e < a->n_experts; e++)
        through += dp[e] * p[e];
    for (size_t e = 0; sum > 0 && e < a->n_experts; e++) {
        const double ds = dp[e] - through; // times 1 / sum
        em_row(c->in[LOGITS]->grad, t)[e] +=
            (float)(em_score_is_single(a->score) ? ds * em_score_slope(a->score, raw[e]) / sum
                                                 : ds * p[e]);
    }
}

static const int32_t *chosen(const struct em_call *c, size_t t)
{
    return em_i32(c->in[INDICES]) + t * c->in[INDICES]->dim[1];
}

// ---- importance ----

static double importance(const struct em_call *c, double *I, double *mean, double *variance)
{
    const size_t E = em_attr_const(c, struct attr)->n_experts, K = c->in[INDICES]->dim[1];
    memset(I, 0, E * sizeof *I);
    for (size_t t = 0; t < c->in[WEIGHTS]->dim[0]; t++)
        for (size_t n = 0; n < K; n++)
            if (chosen(c, t)[n] >= 0) I[chosen(c, t)[n]] += (double)em_row(c->in[WEIGHTS], t)[n];
    *mean = *variance = 0;
    for (size_t e = 0; e < E; e++)
        *mean += I[e] / (double)E;
    for (size_t e = 0; e < E; e++)
        *variance += (I[e] - *mean) * (I[e] - *mean) / (double)E;
    return *variance / (*mean * *mean + TINY);
}

static void importance_gradient(const struct em_call *c, double *I, double scale)
{
    const size_t E = em_attr_const(c, struct attr)->n_experts, K = c->in[INDICES]->dim[1];
    double mean, variance;
    importance(c, I, &mean, &variance);
    const double below = mean * mean + TINY;
    for (size_t t = 0; em_wants(c, WEIGHTS) && t < c->in[WEIGHTS]->dim[0]; t++)
        for (size_t n = 0; n < K; n++)
            if (chosen(c, t)[n] >= 0)
                em_row(c->in[WEIGHTS]->grad, t)[n] += (float)(scale * 2 / (double)E *
                                                              ((I[chosen(c, t)[n]] - mean) / below -
                                                               variance * mean / below / below));
}

// ---- losses on the scores: sums over a stretch of tokens ----

struct stretch {
    size_t begin, end;
    double *P, *f, *raw, *p; // [E]
};

static double add_up(const struct em_call *c, struct stretch *s)
{
    const size_t E = em_attr_const(c, struct attr)->n_experts, K = c->in[INDICES]->dim[1];
    const double tokens = (double)(s->end - s->begin);
    double entropy = 0, choices = 0;
    memset(s->P, 0, 2 * E * sizeof *s->P); // f follows
    for (size_t t = s->begin; t < s->end; t++) {
        shares(c, t, s->raw, s->p);
        for (size_t e = 0; e < E; e++) {
            s->P[e] += s->p[e] / tokens;
            if (s->p[e] > 0) entropy -= s->p[e] * log(s->p[e]) / tokens;
        }
        for (size_t n = 0; n < K; n++)
            if (chosen(c, t)[n] >= 0) {
                s->f[chosen(c, t)[n]]++;
                choices++;
            }
    }
    for (size_t e = 0; choices > 0 && e < E; e++)
        s->f[e] /= choices;
    return entropy;
}

static double value_of(const struct em_call *c, struct stretch *s)
{
    const size_t E = em_attr_const(c, struct attr)->n_experts;
    double value = add_up(c, s);
    if (em_attr_const(c, struct attr)->kind == EMBER_LOSS_SEQUENCE) {
        value = 0;
        for (size_t e = 0; e < E; e++)
            value += (double)E * s->f[e] * s->P[e];
        return value;
    }
    for (size_t e = 0; e < E; e++)
        if (s->P[e] > 0) value += s->P[e] * log(s->P[e]);
    return value;
}

static void stretch_gradient(const struct em_call *c, struct stretch *s, double scale)
{
    const size_t E = em_attr_const(c, struct attr)->n_experts;
    const double each = scale / (double)(s->end - s->begin);
    const bool sequence = em_attr_const(c, struct attr)->kind == EMBER_LOSS_SEQUENCE;
    add_up(c, s);
    for (size_t e = 0; e < E; e++) // of P_e
        s->f[e] = sequence ? (double)E * s->f[e] : s->P[e] > 0 ? log(s->P[e]) : 0;
    for (size_t t = s->begin; t < s->end; t++) {
        const double sum = shares(c, t, s->raw, s->p);
        double *dp = s->P;
        for (size_t e = 0; e < E; e++)
            dp[e] = each * (s->f[e] - (sequence || !(s->p[e] > 0) ? 0 : log(s->p[e])));
        into_logits(c, t, s->raw, s->p, sum, dp);
    }
}

static struct stretch take(const struct em_call *c)
{
    const size_t E = em_attr_const(c, struct attr)->n_experts;
    struct stretch s = {.P = em_scratch_take(em_scratch_of(c), 4 * E * sizeof *s.P)};
    s.f = s.P + E;
    s.raw = s.f + E;
    s.p = s.raw + E;
    return s;
}

// The stretches: all tokens, or each sequence.
static size_t stretches(const struct em_call *c)
{
    const bool sequence = em_attr_const(c, struct attr)->kind == EMBER_LOSS_SEQUENCE;
    return sequence ? c->exec->batch->n_sequences : c->in[WEIGHTS]->dim[0] ? 1 : 0;
}

static void enter(const struct em_call *c, struct stretch *s, size_t i)
{
    const bool sequence = em_attr_const(c, struct attr)->kind == EMBER_LOSS_SEQUENCE;
    s->begin = sequence ? c->exec->batch->offset[i] : 0;
    s->end = sequence ? c->exec->batch->offset[i + 1] : c->in[WEIGHTS]->dim[0];
}

static void forward(const struct em_call *c)
{
    struct stretch s = take(c);
    double value = 0, mean, variance;
    for (size_t t = 0; t < c->in[WEIGHTS]->dim[0]; t++)
        memcpy(em_row(c->out[PASSED], t), em_row(c->in[WEIGHTS], t),
               c->in[WEIGHTS]->dim[1] * sizeof(float));
    if (em_attr_const(c, struct attr)->kind == EMBER_LOSS_IMPORTANCE) {
        value = importance(c, s.P, &mean, &variance);
    } else {
        const size_t n = stretches(c);
        for (size_t i = 0; i < n; i++) {
            enter(c, &s, i);
            value += value_of(c, &s) / (double)n;
        }
    }
    em_f32(c->out[VALUE])[0] = (float)value;
}

static void backward(const struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const double scale = (double)a->coefficient * c->exec->aux_scale;
    struct stretch s = take(c);
    for (size_t t = 0; em_wants(c, WEIGHTS) && t < c->in[WEIGHTS]->dim[0]; t++)
        for (size_t n = 0; n < c->in[WEIGHTS]->dim[1]; n++)
            em_row(c->in[WEIGHTS]->grad, t)[n] += em_row(c->out[PASSED]->grad, t)[n];
    if (scale == 0) return;
    if (a->kind == EMBER_LOSS_IMPORTANCE) {
        importance_gradient(c, s.P, scale);
        return;
    }
    const size_t n = stretches(c);
    for (size_t i = 0; em_wants(c, LOGITS) && i < n; i++) {
        enter(c, &s, i);
        stretch_gradient(c, &s, scale / (double)n);
    }
}

const struct em_op em_op_router_loss = {
    .name = "router_loss",
    .shape = shape,
    .cost = cost,
    .backend =
        {[EM_CPU] = EM_PASSES(forward, backward), [EM_REFERENCE] = EM_PASSES(forward, backward)},
    .backward_reads = EM_READS_IN(WEIGHTS) | EM_READS_IN(INDICES) | EM_READS_IN(LOGITS),
};

ember_status ember_router_loss(ember_flow *flow, ember_router_loss_kind kind, ember_tensor *logits,
                               ember_score score, float coefficient, ember_routing *routing,
                               ember_tensor **value)
{
    struct em_call *c = em_call_new(flow, &em_op_router_loss, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[WEIGHTS] = routing->weights;
    c->in[INDICES] = routing->indices;
    if (kind != EMBER_LOSS_IMPORTANCE) c->in[LOGITS] = logits;
    *em_attr(c, struct attr) = (struct attr){kind, score, routing->n_experts, coefficient};
    EM_TRY(em_record(flow, c));
    routing->weights = c->out[PASSED];
    if (value) {
        *value = c->out[VALUE];
        em_keep(*value);
    }
    return EMBER_OK;
}
