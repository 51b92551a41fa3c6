// Linear attention over packed sequences. With features f of queries and keys, a state S [K, V] and
// its normaliser z [K] for each head of keys,
//   S_t = a_t S_{t-1} + f(k_t) v_t^T,  z_t = a_t z_{t-1} + f(k_t),
//   y_t = f(q_t) S_t  or  f(q_t) S_t / (f(q_t) z_t + eps).
// Katharopoulos et al. 2020, "Transformers are RNNs", arXiv:2006.16236; with a decay a < 1 and
// without the division, retention: Sun et al. 2023, arXiv:2307.08621; a by a gate on the token:
// Yang et al. 2023, arXiv:2312.06635 (there one for each feature).
//
// The denominator is a column of ones beside the values, so S is [K, V + 1] and there is one
// recurrence. A sequence is taken in chunks of C tokens: with L_i = sum of log a from the chunk's
// start to i and M_ij = exp(L_i - L_j) for j <= i,
//   o = (f(q) f(k)^T . M) v + exp(L) f(q) S,   S' = exp(L_C) S + (exp(L_C - L) f(k))^T v,
// all matrix products; the cost is linear in the tokens. No exponent is positive. Backward makes
// the states at the chunks' starts again and walks back; no gradient goes into a carried state.
#include "ops/linear_attention.h"

#include <math.h>

double em_linear_log_decay(const struct em_linear_attention *a, size_t g)
{
    const double first = a->o.decay_first, last = a->o.decay_last;
    const double x = a->G > 1 ? first + (last - first) * (double)g / (double)(a->G - 1) : first;
    return log1p(-exp2(-x));
}

double em_log_sigmoid(double x)
{
    return x < 0 ? x - log1p(exp(x)) : -log1p(exp(-x));
}

double em_log_sigmoid_slope(double x)
{
    return 1 / (1 + exp(x));
}

static ember_status shape(struct em_call *c)
{
    char text[3][96];
    const struct em_linear_attention *a = em_attr(c, struct em_linear_attention);
    const ember_tensor *q = c->in[EM_LINEAR_Q], *k = c->in[EM_LINEAR_K], *v = c->in[EM_LINEAR_V],
                       *gate = c->in[EM_LINEAR_GATE];
    EM_TRY(em_check_f32(c, q, "q", 0));
    EM_TRY(em_check_f32(c, k, "k", 0));
    EM_TRY(em_check_f32(c, v, "v", 0));
    if (q->ndim != 3 || k->ndim != 3 || v->ndim != 3 || !k->dim[1] || q->dim[1] % k->dim[1] ||
        q->dim[2] != k->dim[2] || v->dim[1] != k->dim[1])
        return em_fail(EMBER_E_SHAPE,
                       "linear_attention: q is %s, k is %s, v is %s; they have to be [T, H, K], "
                       "[T, G, K] and [T, G, V] with H a multiple of G",
                       em_shape_text(q, text[0], sizeof text[0]),
                       em_shape_text(k, text[1], sizeof text[1]),
                       em_shape_text(v, text[2], sizeof text[2]));
    if (!em_same_rows(q, k) || !em_same_rows(q, v))
        return em_fail(EMBER_E_SHAPE, "linear_attention: q, k and v have rows of different things");
    if (gate) EM_TRY(em_check_f32(c, gate, "gate", 0));
    if (gate && (gate->ndim != 2 || gate->dim[1] != a->G || !em_same_rows(q, gate)))
        return em_fail(EMBER_E_SHAPE, "linear_attention: the gate has to be [T, %zu], not %s", a->G,
                       em_shape_text(gate, text[0], sizeof text[0]));
    size_t bytes = 0;
    if (em_is_reference(c))
        EM_TRY(em_linear_reference_scratch(c, a, &bytes));
    else
        EM_TRY(em_linear_attention_scratch(c, a, &bytes));
    em_need_scratch(c, bytes);
    if (a->o.normalise) EM_TRY(em_saved_rows(c, 0, EMBER_F32, q, 1, &a->H, 1)); // the denominators
    return em_out_rows(c, 0, EMBER_F32, q, 1, (size_t[]){a->H, a->V}, 2);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const struct em_linear_attention *a = em_attr_const(c, struct em_linear_attention);
    const double T = (double)c->out[0]->dim[0], H = (double)a->H, K = (double)a->K,
                 V = (double)a->V1, C = EM_LINEAR_CHUNK;
    const double bytes = 4 * (em_elements(c->in[EM_LINEAR_Q]) + em_elements(c->in[EM_LINEAR_K]) +
                              em_elements(c->in[EM_LINEAR_V]) + em_elements(c->out[0]));
    *forward =
        (struct em_cost){T * H * (2 * K * V + C * (K + V)) + T * (double)a->G * 2 * K * V, bytes};
    *backward = (struct em_cost){
        T * H * (6 * K * V + 3 * C * (K + V)) + T * (double)a->G * 6 * K * V, 2 * bytes};
}

const struct em_op em_op_linear_attention = {
    .name = "linear_attention",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(em_linear_attention_forward, em_linear_attention_backward),
                [EM_REFERENCE] = EM_PASSES(em_linear_attention_reference,
                                           em_linear_attention_reference_backward)},
    .backward_reads = EM_READS_IN(EM_LINEAR_Q) | EM_READS_IN(EM_LINEAR_K) |
                      EM_READS_IN(EM_LINEAR_V) | EM_READS_IN(EM_LINEAR_GATE) | EM_READS_OUT(0),
};

static ember_status check_options(const ember_linear_attention_options *o)
{
    if ((unsigned)o->feature > EMBER_FEATURE_SOFTMAX)
        return em_fail(EMBER_E_RANGE, "linear_attention: feature map %d is not known",
                       (int)o->feature);
    if (o->normalise && o->feature == EMBER_FEATURE_IDENTITY)
        return em_fail(EMBER_E_RANGE,
                       "linear_attention: without a feature map the weights may cancel, so outputs "
                       "cannot be divided by their sum");
    if (!(o->eps >= 0) || !(o->scale >= 0) || !(o->gate_temperature >= 0))
        return em_fail(EMBER_E_RANGE,
                       "linear_attention: eps, scale and gate_temperature have to be 0 or more");
    if (o->decay_first < 0 || (o->decay_first > 0 && !(o->decay_last > 0)) ||
        !(o->decay_first <= 60) || !(o->decay_last <= 60))
        return em_fail(EMBER_E_RANGE,
                       "linear_attention: decays have to be given by numbers in (0, 60], not %g "
                       "to %g",
                       o->decay_first, o->decay_last);
    return EMBER_OK;
}

ember_status ember_linear_attention(ember_flow *flow, ember_tensor *q, ember_tensor *k,
                                    ember_tensor *v, ember_tensor *gate,
                                    const ember_linear_attention_options *options, ember_tensor **y)
{
    EM_TRY(em_check_token_rows(flow, "linear_attention", q));
    EM_TRY(check_options(options));
    struct em_call *c = em_call_new(flow, &em_op_linear_attention, EM_LINEAR_INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[EM_LINEAR_Q] = q;
    c->in[EM_LINEAR_K] = k;
    c->in[EM_LINEAR_V] = v;
    c->in[EM_LINEAR_GATE] = gate;
    struct em_linear_attention *a = em_attr(c, struct em_linear_attention);
    a->o = *options;
    if (q->ndim == 3 && k && k->ndim == 3 && v && v->ndim == 3 && k->dim[1] && k->dim[2]) {
        a->H = q->dim[1];
        a->G = k->dim[1];
        a->K = k->dim[2];
        a->V = v->dim[2];
        a->V1 = a->V + (options->normalise ? 1 : 0);
        if (a->o.scale == 0) a->o.scale = options->normalise ? 1 : 1 / sqrt((double)a->K);
        if (a->o.gate_temperature == 0) a->o.gate_temperature = 16;
        size_t fixed;
        if (!em_mul_size(a->G, a->K, &fixed) || !em_mul_size(fixed, a->V1, &fixed))
            return em_fail(EMBER_E_SHAPE, "linear_attention: the state does not fit into memory");
        EM_TRY(em_need_state(flow, c,
                             &(struct em_state_spec){.name = "linear_attention", .fixed = fixed}));
    }
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
