// Noisy logits: in training y = h + n sigma, sigma = softplus(s) + 0.01, n normal; otherwise y = h.
// Shazeer et al. 2017, arXiv:1701.06538, appendix A. dh = dy, ds = dy n sigmoid(s), and the load
// loss: with psi_te the k-th largest of y_t without e,
//   P_te = Phi((h_te - psi_te) / sigma_te), Load_e = sum_t P_te, loss = var(Load) / mean(Load)^2.
// The thresholds psi pass their gradients on to the expert whose y they are. All in double: a few
// numbers for each token.
#include <math.h>

#include "base/rng.h"
#include "ops/rows.h"

struct attr {
    size_t k;
    float coefficient;
};

enum { H, S, INPUTS };
enum { Y, VALUE };
static const double LEAST = 1e-2, TINY = 1e-10;

static ember_status shape(struct em_call *c)
{
    const ember_tensor *h = c->in[H];
    EM_TRY(em_check_same(c, "h", h, "s", c->in[S]));
    if (h->ndim != 2 || !em_attr_const(c, struct attr)->k)
        return em_fail(EMBER_E_SHAPE, "noisy_logits: h has to be [T, E], and k above 0");
    em_need_scratch(c, (em_call_threads(c) + 1) * (3 * h->dim[1] * sizeof(double) + 256));
    EM_TRY(em_out_like(c, Y, h));
    EM_TRY(em_out(c, VALUE, EMBER_F32, (size_t[]){1}, 1));
    return em_saved(c, 0, EMBER_F32, &h->dim[1], 1); // dloss/dLoad
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->in[H]);
    *forward = (struct em_cost){40 * n, 12 * n};
    *backward = (struct em_cost){40 * n, 20 * n};
}

static double softplus(double x)
{
    return fmax(x, 0) + log1p(exp(-fabs(x)));
}

// The noise of one token, the same in backward and in a region that runs again.
static void draw(const struct em_call *c, size_t t, double *noise)
{
    struct em_rng rng;
    em_rng_seed(&rng, em_hash64(c->exec->seed, c->exec->step, 0x6e6f6973),
                em_hash64(c->index, t, 1));
    for (size_t e = 0; e < c->in[H]->dim[1]; e++)
        noise[e] = c->exec->training ? em_rng_normal(&rng) : 0;
}

static double sigma_of(const struct em_call *c, size_t t, size_t e)
{
    return softplus((double)em_row(c->in[S], t)[e]) + LEAST;
}

static bool has_load(const struct em_call *c)
{
    return c->exec->training && em_attr_const(c, struct attr)->k < c->in[H]->dim[1];
}

// The k-th and the (k+1)-th largest of n numbers; `sorted` is space for them.
static void thresholds(const double *x, size_t n, size_t k, double *sorted, double *in, double *out)
{
    for (size_t i = 0; i < n; i++) {
        size_t at = i;
        for (; at > 0 && sorted[at - 1] < x[i]; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = x[i];
    }
    *in = sorted[k - 1];
    *out = sorted[k];
}

// How far expert e is from being chosen or not, in its own noise.
static double margin(const struct em_call *c, size_t t, size_t e, double noisy, double in,
                     double out)
{
    const double psi = noisy >= in ? out : in;
    return ((double)em_row(c->in[H], t)[e] - psi) / sigma_of(c, t, e);
}

static double *take(const struct em_call *c)
{
    return em_scratch_take(em_scratch_of(c), 3 * c->in[H]->dim[1] * sizeof(double));
}

static void forward(const struct em_call *c)
{
    const size_t T = c->in[H]->dim[0], E = c->in[H]->dim[1], k = em_attr_const(c, struct attr)->k;
    double *y = take(c), *sorted = y + E, *load = sorted + E, in, out, sum = 0, squares = 0;
    for (size_t e = 0; e < E; e++)
        load[e] = 0;
    for (size_t t = 0; t < T; t++) {
        draw(c, t, y);
        for (size_t e = 0; e < E; e++) {
            y[e] = (double)em_row(c->in[H], t)[e] + y[e] * sigma_of(c, t, e);
            em_row(c->out[Y], t)[e] = (float)y[e];
        }
        if (!has_load(c)) continue;
        thresholds(y, E, k, sorted, &in, &out);
        for (size_t e = 0; e < E; e++)
            load[e] += 0.5 * erfc(-margin(c, t, e, y[e], in, out) * M_SQRT1_2);
    }
    for (size_t e = 0; e < E; e++)
        sum += load[e];
    const double n = (double)E, mean = sum / n, below = mean * mean + TINY;
    for (size_t e = 0; e < E; e++)
        squares += (load[e] - mean) * (load[e] - mean);
    const double variance = squares / n;
    em_f32(c->out[VALUE])[0] = has_load(c) ? (float)(variance / below) : 0;
    for (size_t e = 0; em_recording(c) && e < E; e++)
        em_f32(c->saved[0])[e] =
            (float)(2 * (load[e] - mean) / n / below - variance * 2 * mean / n / below / below);
}

// The loss's slope along expert e's own logit.
static double load_slope(const struct em_call *c, size_t t, size_t e, double noisy, double in,
                         double out, double scale)
{
    const double u = margin(c, t, e, noisy, in, out);
    return scale * (double)em_f32(c->saved[0])[e] * exp(-u * u / 2) / sqrt(2 * M_PI) /
           sigma_of(c, t, e);
}

static size_t place_of(const double *x, size_t n, double value)
{
    size_t i = 0;
    while (i + 1 < n && x[i] != value)
        i++;
    return i;
}

static void backward(const struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const size_t T = c->in[H]->dim[0], E = c->in[H]->dim[1];
    const double scale = has_load(c) ? (double)a->coefficient * c->exec->aux_scale : 0;
    double *noise = take(c), *y = noise + E, *sorted = y + E, in = 0, out = 0;
    for (size_t t = 0; t < T; t++) {
        draw(c, t, noise);
        for (size_t e = 0; e < E; e++)
            y[e] = (double)em_row(c->in[H], t)[e] + noise[e] * sigma_of(c, t, e);
        double *dy = sorted;
        if (scale != 0) thresholds(y, E, a->k, sorted, &in, &out);
        const size_t at_in = place_of(y, E, in), at_out = place_of(y, E, out);
        for (size_t e = 0; e < E; e++)
            dy[e] = (double)em_row(c->out[Y]->grad, t)[e];
        for (size_t e = 0; scale != 0 && e < E; e++) {
            const double slope = load_slope(c, t, e, y[e], in, out, scale);
            dy[y[e] >= in ? at_out : at_in] -= slope;
        }
        for (size_t e = 0; e < E; e++) {
            double dh = dy[e], dsigma = dy[e] * noise[e];
            if (scale != 0) {
                const double slope = load_slope(c, t, e, y[e], in, out, scale);
                dh += slope;
                dsigma -= margin(c, t, e, y[e], in, out) * slope;
            }
            const double s = (double)em_row(c->in[S], t)[e];
            if (em_wants(c, H)) em_row(c->in[H]->grad, t)[e] += (float)dh;
            if (em_wants(c, S)) em_row(c->in[S]->grad, t)[e] += (float)(dsigma / (1 + exp(-s)));
        }
    }
}

const struct em_op em_op_noisy_logits = {
    .name = "noisy_logits",
    .shape = shape,
    .cost = cost,
    .backend =
        {[EM_CPU] = EM_PASSES(forward, backward), [EM_REFERENCE] = EM_PASSES(forward, backward)},
    .backward_reads = EM_READS_IN(H) | EM_READS_IN(S),
};

ember_status ember_noisy_logits(ember_flow *flow, ember_tensor *h, ember_tensor *s, size_t k,
                                float load_coefficient, ember_tensor **y, ember_tensor **value)
{
    struct em_call *c = em_call_new(flow, &em_op_noisy_logits, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[H] = h;
    c->in[S] = s;
    *em_attr(c, struct attr) = (struct attr){k, load_coefficient};
    EM_TRY(em_record(flow, c));
    *y = c->out[Y];
    if (value) {
        *value = c->out[VALUE];
        em_keep(*value);
    }
    return EMBER_OK;
}
