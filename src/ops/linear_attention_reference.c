// Linear attention as a masked matrix of all pairs of tokens, in double:
//   o_i = sum_{j <= i} exp(L_i - L_j) (f(q_i) f(k_j)) v_j + exp(L_i) f(q_i) S,
// with L the sum of log decays since the sequence's part of the batch began, S what it starts from.
#include "ops/linear_attention.h"

#include <math.h>

struct memory {
    double *q, *k, *L;    // [T, H, K], [T, G, K], [T, G]
    double *dq, *dk, *dL; // the same, of gradients
    double *o, *d;        // [V + 1]
};

ember_status em_linear_reference_scratch(const struct em_call *c,
                                         const struct em_linear_attention *a, size_t *bytes)
{
    const size_t T = c->in[EM_LINEAR_Q]->dim[0];
    size_t width, of_heads;
    if (!em_add_size(a->H, a->G, &of_heads) || !em_mul_size(of_heads, a->K, &width) ||
        !em_add_size(width, a->G, &width) || !em_mul_size(width, 4, &width))
        width = SIZE_MAX;
    EM_TRY(em_add_scratch(c, T, width, bytes)); // two sets of doubles
    return em_add_scratch(c, 4, a->V1, bytes);
}

static void features(const struct em_linear_attention *a, double *to, const float *x, double scale)
{
    double most = -INFINITY, sum = 0;
    for (size_t i = 0; i < a->K; i++)
        most = fmax(most, (double)x[i]);
    for (size_t i = 0; i < a->K; i++) {
        const double v = (double)x[i];
        switch (a->o.feature) {
        case EMBER_FEATURE_IDENTITY: to[i] = v; break;
        case EMBER_FEATURE_ELU1: to[i] = v > 0 ? v + 1 : exp(v); break;
        case EMBER_FEATURE_RELU: to[i] = v > 0 ? v : 0; break;
        case EMBER_FEATURE_SOFTMAX: sum += to[i] = exp(v - most); break;
        }
    }
    if (a->o.feature == EMBER_FEATURE_SOFTMAX) scale /= sum;
    for (size_t i = 0; i < a->K; i++)
        to[i] *= scale;
}

// y is scale f(x).
static void features_backward(const struct em_linear_attention *a, float *dx, const double *dy,
                              const double *y, double scale, const float *x)
{
    double s = 0;
    for (size_t i = 0; i < a->K; i++)
        s += dy[i] * y[i] / scale;
    for (size_t i = 0; i < a->K; i++) {
        const bool positive = x[i] > 0;
        double d = 0;
        switch (a->o.feature) {
        case EMBER_FEATURE_IDENTITY: d = scale * dy[i]; break;
        case EMBER_FEATURE_ELU1: d = positive ? scale * dy[i] : y[i] * dy[i]; break;
        case EMBER_FEATURE_RELU: d = positive ? scale * dy[i] : 0; break;
        case EMBER_FEATURE_SOFTMAX: d = y[i] * (dy[i] - s); break;
        }
        dx[i] += (float)d;
    }
}

static struct memory prepare(const struct em_call *c, const struct em_linear_attention *a)
{
    const size_t T = c->out[0]->dim[0], n = T * (a->H * a->K + a->G * a->K + a->G);
    struct memory m;
    m.q = em_scratch_take(em_scratch_of(c), 2 * n * sizeof *m.q);
    m.o = em_scratch_take(em_scratch_of(c), 2 * a->V1 * sizeof *m.o);
    memset(m.q, 0, 2 * n * sizeof *m.q);
    m.k = m.q + T * a->H * a->K;
    m.L = m.k + T * a->G * a->K;
    m.dq = m.q + n;
    m.dk = m.k + n;
    m.dL = m.L + n;
    m.d = m.o + a->V1;
    const ember_batch *b = c->exec->batch;
    const ember_tensor *gate = c->in[EM_LINEAR_GATE];
    for (size_t s = 0; s < b->n_sequences; s++)
        for (size_t t = b->offset[s]; t < b->offset[s + 1]; t++) {
            for (size_t h = 0; h < a->H; h++)
                features(a, m.q + (t * a->H + h) * a->K,
                         ember_row(c->in[EM_LINEAR_Q], t) + h * a->K, a->o.scale);
            for (size_t g = 0; g < a->G; g++) {
                features(a, m.k + (t * a->G + g) * a->K,
                         ember_row(c->in[EM_LINEAR_K], t) + g * a->K, 1);
                double log_decay = 0;
                if (gate)
                    log_decay =
                        em_log_sigmoid((double)ember_row(gate, t)[g]) / a->o.gate_temperature;
                else if (em_linear_decays(c, a))
                    log_decay = em_linear_log_decay(a, g);
                m.L[t * a->G + g] = log_decay + (t > b->offset[s] ? m.L[(t - 1) * a->G + g] : 0);
            }
        }
    return m;
}

static double value(const struct em_call *c, const struct em_linear_attention *a, size_t t,
                    size_t g, size_t e)
{
    return e < a->V ? (double)ember_row(c->in[EM_LINEAR_V], t)[g * a->V + e] : 1;
}

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

// The sums of head h at token i of the sequence that begins at `start`: o [V1].
static void sums(const struct em_call *c, const struct em_linear_attention *a,
                 const struct memory *m, const float *S, size_t start, size_t i, size_t h)
{
    const size_t g = h / (a->H / a->G);
    const double *q = m->q + (i * a->H + h) * a->K, L = m->L[i * a->G + g];
    for (size_t e = 0; e < a->V1; e++) {
        m->o[e] = 0;
        for (size_t d = 0; S && d < a->K; d++)
            m->o[e] += exp(L) * q[d] * (double)S[(g * a->K + d) * a->V1 + e];
    }
    for (size_t j = start; j <= i; j++) {
        const double w = exp(L - m->L[j * a->G + g]) * dot(q, m->k + (j * a->G + g) * a->K, a->K);
        for (size_t e = 0; e < a->V1; e++)
            m->o[e] += w * value(c, a, j, g, e);
    }
}

static void leave_state(const struct em_call *c, const struct em_linear_attention *a,
                        const struct memory *m, size_t s)
{
    const size_t *offset = c->exec->batch->offset, last = offset[s + 1] - 1;
    const struct em_slot *in = em_slot_in(c, s), *out = em_slot_out(c, s);
    for (size_t g = 0; out && g < a->G; g++)
        for (size_t d = 0; d < a->K; d++)
            for (size_t e = 0; e < a->V1; e++) {
                const size_t at = (g * a->K + d) * a->V1 + e;
                const double L = m->L[last * a->G + g];
                double sum = in ? exp(L) * (double)in->fixed[at] : 0;
                for (size_t j = offset[s]; j <= last; j++)
                    sum += exp(L - m->L[j * a->G + g]) * m->k[(j * a->G + g) * a->K + d] *
                           value(c, a, j, g, e);
                out->fixed[at] = (float)sum;
            }
}

void em_linear_attention_reference(const struct em_call *c)
{
    const struct em_linear_attention *a = em_attr_const(c, struct em_linear_attention);
    const ember_batch *b = c->exec->batch;
    const struct memory m = prepare(c, a);
    for (size_t s = 0; s < b->n_sequences; s++) {
        const struct em_slot *in = em_slot_in(c, s);
        for (size_t t = b->offset[s]; t < b->offset[s + 1]; t++)
            for (size_t h = 0; h < a->H; h++) {
                sums(c, a, &m, in ? in->fixed : NULL, b->offset[s], t, h);
                const double d = a->o.normalise ? m.o[a->V] + (double)a->o.eps : 1;
                if (c->saved[0]) ember_row(c->saved[0], t)[h] = (float)d;
                for (size_t e = 0; e < a->V; e++)
                    ember_row(c->out[0], t)[h * a->V + e] = (float)(m.o[e] / d);
            }
        leave_state(c, a, &m, s);
    }
}

static void backward_row(const struct em_call *c, const struct em_linear_attention *a,
                         const struct memory *m, const float *S, size_t start, size_t i, size_t h)
{
    const size_t g = h / (a->H / a->G), at = i * a->G + g;
    const double *q = m->q + (i * a->H + h) * a->K, L = m->L[at];
    const float *dy = ember_row(c->out[0]->grad, i) + h * a->V;
    double *dq = m->dq + (i * a->H + h) * a->K;
    sums(c, a, m, S, start, i, h);
    const double d = a->o.normalise ? m->o[a->V] + (double)a->o.eps : 1;
    double along = 0;
    for (size_t e = 0; e < a->V; e++) {
        m->d[e] = (double)dy[e] / d;
        along += (double)dy[e] * m->o[e];
    }
    if (a->o.normalise) m->d[a->V] = -along / (d * d);
    for (size_t k = 0; S && k < a->K; k++) {
        double sum = 0;
        for (size_t e = 0; e < a->V1; e++)
            sum += (double)S[(g * a->K + k) * a->V1 + e] * m->d[e];
        dq[k] += exp(L) * sum;
        m->dL[at] += exp(L) * q[k] * sum;
    }
    for (size_t j = start; j <= i; j++) {
        const double *kj = m->k + (j * a->G + g) * a->K, w = exp(L - m->L[j * a->G + g]);
        double *dk = m->dk + (j * a->G + g) * a->K, p = w * dot(q, kj, a->K), dp = 0;
        for (size_t e = 0; e < a->V1; e++) {
            dp += m->d[e] * value(c, a, j, g, e);
            if (e < a->V && em_wants(c, EM_LINEAR_V))
                ember_row(c->in[EM_LINEAR_V]->grad, j)[g * a->V + e] += (float)(p * m->d[e]);
        }
        for (size_t k = 0; k < a->K; k++) {
            dq[k] += w * dp * kj[k];
            dk[k] += w * dp * q[k];
        }
        m->dL[at] += p * dp;
        m->dL[j * a->G + g] -= p * dp;
    }
}

static void add_features(const struct em_call *c, const struct em_linear_attention *a,
                         const struct memory *m, size_t t)
{
    for (size_t h = 0; em_wants(c, EM_LINEAR_Q) && h < a->H; h++)
        features_backward(a, ember_row(c->in[EM_LINEAR_Q]->grad, t) + h * a->K,
                          m->dq + (t * a->H + h) * a->K, m->q + (t * a->H + h) * a->K, a->o.scale,
                          ember_row(c->in[EM_LINEAR_Q], t) + h * a->K);
    for (size_t g = 0; em_wants(c, EM_LINEAR_K) && g < a->G; g++)
        features_backward(a, ember_row(c->in[EM_LINEAR_K]->grad, t) + g * a->K,
                          m->dk + (t * a->G + g) * a->K, m->k + (t * a->G + g) * a->K, 1,
                          ember_row(c->in[EM_LINEAR_K], t) + g * a->K);
}

void em_linear_attention_reference_backward(const struct em_call *c)
{
    const struct em_linear_attention *a = em_attr_const(c, struct em_linear_attention);
    const ember_batch *b = c->exec->batch;
    const ember_tensor *gate = c->in[EM_LINEAR_GATE];
    const struct memory m = prepare(c, a);
    for (size_t s = 0; s < b->n_sequences; s++) {
        const struct em_slot *in = em_slot_in(c, s);
        for (size_t t = b->offset[s]; t < b->offset[s + 1]; t++)
            for (size_t h = 0; h < a->H; h++)
                backward_row(c, a, &m, in ? in->fixed : NULL, b->offset[s], t, h);
        for (size_t t = b->offset[s]; t < b->offset[s + 1]; t++)
            add_features(c, a, &m, t);
        for (size_t g = 0; em_wants(c, EM_LINEAR_GATE) && g < a->G; g++) {
            double sum = 0;
            for (size_t t = b->offset[s + 1]; t-- > b->offset[s];) {
                sum += m.dL[t * a->G + g];
                ember_row(gate->grad, t)[g] +=
                    (float)(sum * em_log_sigmoid_slope((double)ember_row(gate, t)[g]) /
                            a->o.gate_temperature);
            }
        }
    }
}
