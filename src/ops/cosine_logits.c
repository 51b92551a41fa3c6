// Cosine logits: h_te = tau cos(z_t, w_e), tau = exp(min(log_scale, limit)). z [T, P], w [E, P].
//   with unit rows a = z / |z|, b = w / |w| and g = dh tau:
//   dz_t = (sum_e g_te b_e - a_t sum_e g_te cos_te) / |z_t|,   dw_e likewise over tokens,
//   dlog_scale = sum dh h, where it is below the limit.
#include <math.h>

#include "kernels/kernels.h"
#include "ops/rows.h"

struct attr {
    float limit;
};

enum { Z, W, SCALE, INPUTS };

static ember_status shape(struct em_call *c)
{
    char text[2][96];
    const ember_tensor *z = c->in[Z], *w = c->in[W], *scale = c->in[SCALE];
    EM_TRY(em_check_f32(c, z, "z", 0));
    EM_TRY(em_check_f32(c, w, "w", 0));
    EM_TRY(em_check_f32(c, scale, "log_scale", 1));
    if (z->ndim != 2 || w->ndim != 2 || z->dim[1] != w->dim[1] || scale->ndim != 1)
        return em_fail(EMBER_E_SHAPE, "cosine_logits: z is %s, w is %s",
                       em_shape_text(z, text[0], sizeof text[0]),
                       em_shape_text(w, text[1], sizeof text[1]));
    size_t bytes = 0; // lengths of the rows of z and of w
    EM_TRY(em_add_scratch(c, z->dim[0], 1, &bytes));
    EM_TRY(em_add_scratch(c, w->dim[0], 1, &bytes));
    em_need_scratch(c, bytes);
    return em_out_rows(c, 0, EMBER_F32, z, 1, &w->dim[0], 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double z = em_elements(c->in[Z]), w = em_elements(c->in[W]);
    const double products = 2 * z * (double)c->in[W]->dim[0];
    *forward = (struct em_cost){products + 2 * (z + w), 4 * (z + w + em_elements(c->out[0]))};
    *backward = (struct em_cost){2 * products, 8 * (z + w) + 4 * em_elements(c->out[0])};
}

static double scale_of(const struct em_call *c)
{
    return exp(fmin((double)em_f32(c->in[SCALE])[0], (double)em_attr_const(c, struct attr)->limit));
}

struct lengths {
    const struct em_call *call;
    float *z, *w; // one over each row's length, 0 for rows of zeros
};

static float *inverse_lengths(const struct em_call *c, const ember_tensor *x)
{
    float *inverse = em_take_floats(c, x->dim[0], 1);
    for (size_t r = 0; r < x->dim[0]; r++) {
        const double squares = em_kernels()->sum_squares_f32(em_row(x, r), x->dim[1]);
        inverse[r] = squares > 0 ? (float)(1 / sqrt(squares)) : 0;
    }
    return inverse;
}

static struct lengths lengths_of(const struct em_call *c)
{
    return (struct lengths){c, inverse_lengths(c, c->in[Z]), inverse_lengths(c, c->in[W])};
}

static void forward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct lengths *l = arg;
    const struct em_call *c = l->call;
    const size_t E = c->in[W]->dim[0], P = c->in[W]->dim[1];
    const double tau = scale_of(c);
    for (size_t t = begin; t < end; t++)
        for (size_t e = 0; e < E; e++)
            em_row(c->out[0], t)[e] =
                (float)(tau * (double)l->z[t] * (double)l->w[e] *
                        (double)em_kernels()->dot_f32(em_row(c->in[Z], t), em_row(c->in[W], e), P));
}

static void forward(const struct em_call *c)
{
    struct lengths l = lengths_of(c);
    const size_t work = em_row_grain(c->in[W]->dim[0] * c->in[W]->dim[1]);
    em_parallel(c->exec->pool, c->out[0]->dim[0], work, forward_rows, &l);
}

// dx of one row x with inverse length `own`: g[i] weighs the unit rows of `other`, whose cosines
// with x are h / tau.
static void add_row_gradient(float *dx, const float *x, float own, const float *y, float other,
                             double g, double cosine, size_t P)
{
    em_kernels()->axpy_f32(dx, (float)(g * (double)own * (double)other), y, P);
    em_kernels()->axpy_f32(dx, (float)(-g * (double)own * (double)own * cosine), x, P);
}

static void backward_z(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct lengths *l = arg;
    const struct em_call *c = l->call;
    const double tau = scale_of(c);
    for (size_t t = begin; t < end; t++)
        for (size_t e = 0; e < c->in[W]->dim[0]; e++)
            add_row_gradient(em_row(c->in[Z]->grad, t), em_row(c->in[Z], t), l->z[t],
                             em_row(c->in[W], e), l->w[e],
                             tau * (double)em_row(c->out[0]->grad, t)[e],
                             (double)em_row(c->out[0], t)[e] / tau, c->in[W]->dim[1]);
}

static void backward_w(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct lengths *l = arg;
    const struct em_call *c = l->call;
    const double tau = scale_of(c);
    for (size_t e = begin; e < end; e++)
        for (size_t t = 0; t < c->in[Z]->dim[0]; t++)
            add_row_gradient(em_row(c->in[W]->grad, e), em_row(c->in[W], e), l->w[e],
                             em_row(c->in[Z], t), l->z[t],
                             tau * (double)em_row(c->out[0]->grad, t)[e],
                             (double)em_row(c->out[0], t)[e] / tau, c->in[W]->dim[1]);
}

static void backward(const struct em_call *c)
{
    struct lengths l = lengths_of(c);
    const size_t T = c->in[Z]->dim[0], E = c->in[W]->dim[0];
    if (em_wants(c, Z))
        em_parallel(c->exec->pool, T, em_row_grain(2 * E * c->in[W]->dim[1]), backward_z, &l);
    if (em_wants(c, W)) em_parallel(c->exec->pool, E, 1, backward_w, &l);
    if (!em_wants(c, SCALE) || em_f32(c->in[SCALE])[0] >= em_attr_const(c, struct attr)->limit)
        return;
    double sum = 0;
    for (size_t t = 0; t < T; t++)
        for (size_t e = 0; e < E; e++)
            sum += (double)em_row(c->out[0], t)[e] * (double)em_row(c->out[0]->grad, t)[e];
    em_f32(c->in[SCALE]->grad)[0] += (float)sum;
}

// ---- reference ----

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

// The cosine, and one over the lengths (0 for rows of zeros).
static double cosine_of(const struct em_call *c, size_t t, size_t e, double *z, double *w)
{
    const size_t P = c->in[W]->dim[1];
    const float *a = em_row(c->in[Z], t), *b = em_row(c->in[W], e);
    const double aa = dot(a, a, P), bb = dot(b, b, P);
    *z = aa > 0 ? 1 / sqrt(aa) : 0;
    *w = bb > 0 ? 1 / sqrt(bb) : 0;
    return dot(a, b, P) * *z * *w;
}

static void reference_forward(const struct em_call *c)
{
    double z, w;
    for (size_t t = 0; t < c->in[Z]->dim[0]; t++)
        for (size_t e = 0; e < c->in[W]->dim[0]; e++)
            em_row(c->out[0], t)[e] = (float)(scale_of(c) * cosine_of(c, t, e, &z, &w));
}

static void reference_backward(const struct em_call *c)
{
    const size_t P = c->in[W]->dim[1];
    double scale = 0;
    for (size_t t = 0; t < c->in[Z]->dim[0]; t++)
        for (size_t e = 0; e < c->in[W]->dim[0]; e++) {
            double z, w;
            const double cosine = cosine_of(c, t, e, &z, &w),
                         g = scale_of(c) * (double)em_row(c->out[0]->grad, t)[e];
            const float *a = em_row(c->in[Z], t), *b = em_row(c->in[W], e);
            for (size_t p = 0; em_wants(c, Z) && p < P; p++)
                em_row(c->in[Z]->grad, t)[p] +=
                    (float)(g * z * ((double)b[p] * w - (double)a[p] * z * cosine));
            for (size_t p = 0; em_wants(c, W) && p < P; p++)
                em_row(c->in[W]->grad, e)[p] +=
                    (float)(g * w * ((double)a[p] * z - (double)b[p] * w * cosine));
            scale += g * cosine;
        }
    if (em_wants(c, SCALE) && em_f32(c->in[SCALE])[0] < em_attr_const(c, struct attr)->limit)
        em_f32(c->in[SCALE]->grad)[0] += (float)scale;
}

const struct em_op em_op_cosine_logits = {
    .name = "cosine_logits",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(Z) | EM_READS_IN(W) | EM_READS_IN(SCALE) | EM_READS_OUT(0),
};

ember_status ember_cosine_logits(ember_flow *flow, ember_tensor *z, ember_tensor *w,
                                 ember_tensor *log_scale, float limit, ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, &em_op_cosine_logits, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[Z] = z;
    c->in[W] = w;
    c->in[SCALE] = log_scale;
    em_attr(c, struct attr)->limit = limit;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
