// y_te = c_te g, with the cosine c_te = x_t . w_e r_t q_e, the inverse norms r = (|x|^2 + eps)^-1/2
// and q likewise of w, and g = exp(log_scale) / temperature. Backward, with d = dy g:
//   dx_t += sum_e d_te (w_e q_e r_t - c_te x_t r_t^2)
//   dw_e += sum_t d_te (x_t r_t q_e - c_te w_e q_e^2)
//   dlog_scale += sum dy y
#include <math.h>

#include "example.h"

enum { X, W, LOG_SCALE, INPUTS };
enum { R_SAVED }; // inverse norms of x's rows, for backward

struct constants {
    float temperature;
};

static const double eps = 1e-12;

static double inverse_norm(const float *v, size_t n)
{
    double sum = eps;
    for (size_t i = 0; i < n; i++)
        sum += (double)v[i] * (double)v[i];
    return 1 / sqrt(sum);
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static size_t padded(size_t bytes)
{
    return (bytes + EMBER_SCRATCH_ALIGNMENT - 1) / EMBER_SCRATCH_ALIGNMENT *
           EMBER_SCRATCH_ALIGNMENT;
}

static ember_status shape(ember_call *c)
{
    const ember_tensor *x = ember_call_in(c, X), *w = ember_call_in(c, W),
                       *scale = ember_call_in(c, LOG_SCALE);
    EMBER_TRY(ember_call_need_f32(c, X, "x", 0));
    EMBER_TRY(ember_call_need_f32(c, W, "w", 0));
    EMBER_TRY(ember_call_need_f32(c, LOG_SCALE, "log_scale", 1));
    if (x->ndim != 2 || w->ndim != 2 || x->dim[1] != w->dim[1] || scale->ndim != 1)
        return ember_call_refuse(c,
                                 "x has to be [T, R], w [E, R] and log_scale [1]; R is %zu and %zu",
                                 x->dim[x->ndim - 1], w->dim[w->ndim - 1]);
    const size_t E = w->dim[0], R = w->dim[1];
    ember_call_needs_scratch(c, padded(E * sizeof(double)) +
                                    padded(ember_call_threads(c) * R * sizeof(double)));
    EMBER_TRY(ember_call_saves(c, R_SAVED, EMBER_F32, x, 1, NULL, 0));
    return ember_call_makes(c, 0, EMBER_F32, x, 1, &E, 1);
}

static void cost(const ember_call *c, ember_cost *forward, ember_cost *backward)
{
    const double T = (double)ember_call_in(c, X)->dim[0], E = (double)ember_call_in(c, W)->dim[0],
                 R = (double)ember_call_in(c, W)->dim[1];
    *forward = (ember_cost){2 * T * E * R, 4 * (T * R + E * R + T * E)};
    *backward = (ember_cost){8 * T * E * R, 4 * (4 * T * R + 3 * E * R + 4 * T * E)};
}

struct work {
    const ember_call *call;
    const double *q; // [E]
    double *row;     // [threads][R]
    double gain;
};

static struct work work_of(const ember_call *c)
{
    const ember_tensor *w = ember_call_in(c, W);
    const struct constants *k = ember_call_constants(c);
    double *q = ember_call_scratch(c, w->dim[0] * sizeof *q);
    for (size_t e = 0; e < w->dim[0]; e++)
        q[e] = inverse_norm(ember_row(w, e), w->dim[1]);
    return (struct work){
        .call = c,
        .q = q,
        .row = ember_call_scratch(c, ember_call_threads(c) * w->dim[1] * sizeof(double)),
        .gain = exp((double)*ember_row(ember_call_in(c, LOG_SCALE), 0)) / (double)k->temperature};
}

static void forward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct work *k = arg;
    const ember_tensor *x = ember_call_in(k->call, X), *w = ember_call_in(k->call, W);
    ember_tensor *y = ember_call_out(k->call, 0), *saved = ember_call_saved(k->call, R_SAVED);
    for (size_t t = begin; t < end; t++) {
        const double r = inverse_norm(ember_row(x, t), x->dim[1]);
        if (saved) *ember_row(saved, t) = (float)r;
        for (size_t e = 0; e < w->dim[0]; e++)
            ember_row(y, t)[e] =
                (float)(dot(ember_row(x, t), ember_row(w, e), w->dim[1]) * r * k->q[e] * k->gain);
    }
}

static void forward(const ember_call *c)
{
    struct work w = work_of(c);
    ember_call_parallel(c, ember_call_in(c, X)->dim[0], 64, forward_rows, &w);
}

static void dx_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct work *k = arg;
    const ember_tensor *x = ember_call_in(k->call, X), *w = ember_call_in(k->call, W),
                       *y = ember_call_out(k->call, 0), *dy = ember_call_out_gradient(k->call, 0);
    ember_tensor *dx = ember_call_in_gradient(k->call, X);
    const size_t R = w->dim[1];
    double *sum = k->row + thread * R;
    for (size_t t = begin; t < end; t++) {
        const double r = (double)*ember_row(ember_call_saved(k->call, R_SAVED), t);
        double along = 0; // sum_e d_te c_te
        for (size_t i = 0; i < R; i++)
            sum[i] = 0;
        for (size_t e = 0; e < w->dim[0]; e++) {
            const double d = (double)ember_row(dy, t)[e];
            along += d * (double)ember_row(y, t)[e];
            for (size_t i = 0; i < R; i++)
                sum[i] += d * k->gain * k->q[e] * (double)ember_row(w, e)[i];
        }
        for (size_t i = 0; i < R; i++)
            ember_row(dx, t)[i] += (float)(r * (sum[i] - along * r * (double)ember_row(x, t)[i]));
    }
}

static void dw_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct work *k = arg;
    const ember_tensor *x = ember_call_in(k->call, X), *w = ember_call_in(k->call, W),
                       *y = ember_call_out(k->call, 0), *dy = ember_call_out_gradient(k->call, 0);
    ember_tensor *dw = ember_call_in_gradient(k->call, W);
    const size_t R = w->dim[1];
    double *sum = k->row + thread * R;
    for (size_t e = begin; e < end; e++) {
        double along = 0; // sum_t d_te c_te
        for (size_t i = 0; i < R; i++)
            sum[i] = 0;
        for (size_t t = 0; t < x->dim[0]; t++) {
            const double d = (double)ember_row(dy, t)[e],
                         r = (double)*ember_row(ember_call_saved(k->call, R_SAVED), t);
            along += d * (double)ember_row(y, t)[e];
            for (size_t i = 0; i < R; i++)
                sum[i] += d * k->gain * r * (double)ember_row(x, t)[i];
        }
        for (size_t i = 0; i < R; i++)
            ember_row(dw, e)[i] +=
                (float)(k->q[e] * (sum[i] - along * k->q[e] * (double)ember_row(w, e)[i]));
    }
}

static void backward(const ember_call *c)
{
    struct work k = work_of(c);
    const ember_tensor *y = ember_call_out(c, 0), *dy = ember_call_out_gradient(c, 0);
    ember_tensor *dscale = ember_call_in_gradient(c, LOG_SCALE);
    if (ember_call_in_gradient(c, X)) ember_call_parallel(c, y->dim[0], 64, dx_rows, &k);
    if (ember_call_in_gradient(c, W)) ember_call_parallel(c, y->dim[1], 1, dw_rows, &k);
    double sum = 0;
    for (size_t t = 0; dscale && t < y->dim[0]; t++)
        sum += dot(ember_row(dy, t), ember_row(y, t), y->dim[1]);
    if (dscale) *ember_row(dscale, 0) += (float)sum;
}

static const ember_operation cosine_scores = {
    .name = "cosine_scores",
    .shape = shape,
    .cost = cost,
    .forward = forward,
    .backward = backward,
    .backward_reads = EMBER_READS_INPUT(X) | EMBER_READS_INPUT(W) | EMBER_READS_INPUT(LOG_SCALE) |
                      EMBER_READS_OUTPUT(0),
};

ember_status example_cosine_scores(ember_flow *flow, ember_tensor *x, ember_tensor *w,
                                   ember_tensor *log_scale, float temperature, ember_tensor **y)
{
    const struct constants constants = {temperature};
    return ember_operate(flow, &cosine_scores,
                         &(ember_use){.in = (ember_tensor *[]){x, w, log_scale},
                                      .n_in = INPUTS,
                                      .constants = &constants,
                                      .constant_bytes = sizeof constants},
                         y, 1);
}
