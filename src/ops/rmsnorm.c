// RMSNorm: y = x / sqrt(mean(x^2) + eps) * w over the last axis.
// Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", arXiv:1910.07467.
// x, y [T, .., D]; w [D], or a whole row of x (a norm of each group of channels). Saved for
// backward: rstd = 1 / sqrt(..) of each vector.
#include <math.h>

#include "kernels/kernels.h"
#include "ops/rows.h"

struct attr {
    float eps;
};

// Vectors whose share of dw is summed together. A fixed number: sums do not depend on threads.
enum { BLOCK = 64 };

// The weights of vector i: those of its place in the row, where each has its own.
static size_t weights_of(const struct em_vectors *x, const ember_tensor *w, size_t i)
{
    return w->dim[0] == x->width ? 0 : i % x->per_row * x->width;
}

static ember_status shape(struct em_call *c)
{
    ember_tensor *x = c->in[0], *w = c->in[1];
    char shape[96];
    EM_TRY(em_check_f32(c, x, "x", 0));
    EM_TRY(em_check_f32(c, w, "w", 0));
    if (x->ndim < 2 || w->ndim != 1 || !w->dim[0] ||
        (w->dim[0] != em_last_dim(x) && w->dim[0] != em_strip_of(x).width))
        return em_fail(EMBER_E_SHAPE, "rmsnorm: x is %s, w has %zu elements",
                       em_shape_text(x, shape, sizeof shape), ember_tensor_count(w));
    if (em_is_training(c) && w->grad && c->exec->backend == EM_CPU) {
        size_t bytes = 0;
        EM_TRY(em_add_scratch(c, em_vectors_of(x).count / BLOCK + 1, w->dim[0], &bytes));
        em_need_scratch(c, bytes);
    }
    EM_TRY(em_out_like(c, 0, x));
    return em_saved_rows(c, 0, EMBER_F32, x, 1, x->dim + 1, x->ndim - 2); // rstd
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]);
    *forward = (struct em_cost){4 * n, 8 * n};
    *backward = (struct em_cost){10 * n, 16 * n};
}

static void forward_vectors(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_vectors x = em_vectors_of(c->in[0]), y = em_vectors_of(c->out[0]);
    const float *w = em_f32(c->in[1]), eps = em_attr_const(c, struct attr)->eps;
    for (size_t i = begin; i < end; i++) {
        const float rstd = em_kernels()->rmsnorm_f32(em_vector(&y, i), em_vector(&x, i),
                                                     w + weights_of(&x, c->in[1], i), x.width, eps);
        if (em_recording(c)) em_f32(c->saved[0])[i] = rstd;
    }
}

static void forward(const struct em_call *c)
{
    const struct em_vectors x = em_vectors_of(c->in[0]);
    em_over_rows(c, x.count, x.width, forward_vectors);
}

struct gradient {
    const struct em_call *call;
    float *partial; // [blocks, D] of dw, or NULL
};

static void backward_blocks(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct gradient *g = arg;
    const struct em_call *c = g->call;
    const bool wants_x = em_wants(c, 0);
    const struct em_vectors x = em_vectors_of(c->in[0]), dy = em_vectors_of(c->out[0]->grad),
                            dx = wants_x ? em_vectors_of(c->in[0]->grad) : (struct em_vectors){0};
    const float *w = em_f32(c->in[1]), *rstd = em_f32(c->saved[0]);
    for (size_t b = begin; b < end; b++) {
        float *dw = g->partial ? g->partial + b * c->in[1]->dim[0] : NULL;
        if (dw) memset(dw, 0, c->in[1]->dim[0] * sizeof *dw);
        for (size_t i = b * BLOCK; i < (b + 1) * BLOCK && i < x.count; i++) {
            float *to = wants_x ? em_vector(&dx, i) : NULL;
            const size_t at = weights_of(&x, c->in[1], i);
            em_kernels()->rmsnorm_backward_f32(to, em_fresh(c, 0), dw ? dw + at : NULL,
                                               em_vector(&dy, i), em_vector(&x, i), w + at, rstd[i],
                                               x.width);
        }
    }
}

static void backward(const struct em_call *c)
{
    const struct em_vectors x = em_vectors_of(c->in[0]);
    const size_t blocks = (x.count + BLOCK - 1) / BLOCK;
    struct gradient g = {c, NULL};
    if (!blocks) return;
    if (em_wants(c, 1)) g.partial = em_take_floats(c, blocks, c->in[1]->dim[0]);
    em_parallel(c->exec->pool, blocks, em_row_grain(BLOCK * x.width), backward_blocks, &g);
    if (!g.partial) return;
    const struct em_strip partial = {g.partial, blocks, c->in[1]->dim[0], c->in[1]->dim[0]};
    em_add_column_sums(c->exec->pool, &partial, em_f32(c->in[1]->grad));
}

static double reference_rstd(const float *x, size_t D, float eps)
{
    double sum = 0;
    for (size_t j = 0; j < D; j++)
        sum += (double)x[j] * (double)x[j];
    return 1 / sqrt(sum / (double)D + (double)eps);
}

static void reference_forward(const struct em_call *c)
{
    const struct em_vectors x = em_vectors_of(c->in[0]), y = em_vectors_of(c->out[0]);
    const float *w = em_f32(c->in[1]), eps = em_attr_const(c, struct attr)->eps;
    for (size_t i = 0; i < x.count; i++) {
        const double rstd = reference_rstd(em_vector(&x, i), x.width, eps);
        for (size_t j = 0; j < x.width; j++)
            em_vector(&y, i)[j] = (float)((double)em_vector(&x, i)[j] * rstd *
                                          (double)w[weights_of(&x, c->in[1], i) + j]);
        if (em_recording(c)) em_f32(c->saved[0])[i] = (float)rstd;
    }
}

// r = rstd, s = sum_j w_j dy_j x_j:  dx_i += r (w_i dy_i - x_i r^2 s / D),  dw_i += dy_i x_i r.
static void reference_backward(const struct em_call *c)
{
    const struct em_vectors x = em_vectors_of(c->in[0]), dy = em_vectors_of(c->out[0]->grad);
    const float *w = em_f32(c->in[1]), eps = em_attr_const(c, struct attr)->eps;
    em_zero_fresh(c, 0);
    for (size_t i = 0; em_wants(c, 0) && i < x.count; i++) {
        const struct em_vectors dx = em_vectors_of(c->in[0]->grad);
        const float *xi = em_vector(&x, i), *di = em_vector(&dy, i);
        const double r = reference_rstd(xi, x.width, eps);
        const size_t at = weights_of(&x, c->in[1], i);
        double s = 0;
        for (size_t j = 0; j < x.width; j++)
            s += (double)w[at + j] * (double)di[j] * (double)xi[j];
        for (size_t j = 0; j < x.width; j++)
            em_vector(&dx, i)[j] += (float)(r * ((double)w[at + j] * (double)di[j] -
                                                 (double)xi[j] * r * r * s / (double)x.width));
    }
    for (size_t j = 0; em_wants(c, 1) && j < c->in[1]->dim[0]; j++) {
        double sum = 0;
        for (size_t i = 0; i < x.count; i++) {
            const size_t at = weights_of(&x, c->in[1], i);
            if (j < at || j >= at + x.width) continue; // another group's
            sum += (double)em_vector(&dy, i)[j - at] * (double)em_vector(&x, i)[j - at] *
                   reference_rstd(em_vector(&x, i), x.width, eps);
        }
        em_f32(c->in[1]->grad)[j] += (float)sum;
    }
}

const struct em_op em_op_rmsnorm = {
    .name = "rmsnorm",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(0) | EM_READS_IN(1),
    .flags = EM_OP_SETS_FRESH | EM_OP_REPEATS | EM_OP_ROW_WISE,
};

ember_status ember_rmsnorm(ember_flow *flow, ember_tensor *x, ember_tensor *w, float eps,
                           ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, &em_op_rmsnorm, 2);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = x;
    c->in[1] = w;
    em_attr(c, struct attr)->eps = eps;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
