// LayerNorm: y = (x - mean) / sqrt(var + eps) * w + b over the last axis; b may be absent.
// Ba, Kiros and Hinton 2016, "Layer Normalization", arXiv:1607.06450.
// x, y [T, .., D]; w, b [D]. Saved for backward: mean and rstd = 1 / sqrt(..) of each vector.
#include <math.h>

#include "kernels/kernels.h"
#include "ops/rows.h"

struct attr {
    float eps;
};

// Vectors whose share of dw and db is summed together. A fixed number: sums do not depend on
// threads.
enum { BLOCK = 64 };

static ember_status shape(struct em_call *c)
{
    ember_tensor *x = c->in[0], *w = c->in[1], *b = c->in[2];
    char shape[96];
    EM_TRY(em_check_f32(c, x, "x", 0));
    EM_TRY(em_check_f32(c, w, "w", 0));
    if (x->ndim < 2 || w->ndim != 1 || w->dim[0] != em_last_dim(x) || !w->dim[0])
        return em_fail(EMBER_E_SHAPE, "layernorm: x is %s, w has %zu elements",
                       em_shape_text(x, shape, sizeof shape), ember_tensor_count(w));
    if (b) EM_TRY(em_check_same(c, "w", w, "b", b));
    if (em_is_training(c) && c->exec->backend == EM_CPU) {
        size_t bytes = 0;
        const size_t blocks = em_vectors_of(x).count / BLOCK + 1;
        if (w->grad) EM_TRY(em_add_scratch(c, blocks, w->dim[0], &bytes));
        if (b && b->grad) EM_TRY(em_add_scratch(c, blocks, w->dim[0], &bytes));
        em_need_scratch(c, bytes);
    }
    EM_TRY(em_out_like(c, 0, x));
    EM_TRY(em_saved_rows(c, 0, EMBER_F32, x, 1, x->dim + 1, x->ndim - 2)); // mean
    return em_saved_rows(c, 1, EMBER_F32, x, 1, x->dim + 1, x->ndim - 2);  // rstd
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]);
    *forward = (struct em_cost){7 * n, 8 * n};
    *backward = (struct em_cost){14 * n, 16 * n};
}

static void forward_vectors(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_vectors x = em_vectors_of(c->in[0]), y = em_vectors_of(c->out[0]);
    const float *w = em_f32(c->in[1]), *b = c->in[2] ? em_f32(c->in[2]) : NULL;
    for (size_t i = begin; i < end; i++) {
        float mean;
        const float rstd =
            em_kernels()->layernorm_f32(em_vector(&y, i), em_vector(&x, i), w, b, x.width,
                                        em_attr_const(c, struct attr)->eps, &mean);
        if (!em_recording(c)) continue;
        em_f32(c->saved[0])[i] = mean;
        em_f32(c->saved[1])[i] = rstd;
    }
}

static void forward(const struct em_call *c)
{
    const struct em_vectors x = em_vectors_of(c->in[0]);
    em_over_rows(c, x.count, x.width, forward_vectors);
}

struct gradient {
    const struct em_call *call;
    float *dw, *db; // [blocks, D], or NULL
};

static float *cleared(float *partial, size_t block, size_t D)
{
    return partial ? memset(partial + block * D, 0, D * sizeof *partial) : NULL;
}

static void backward_blocks(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct gradient *g = arg;
    const struct em_call *c = g->call;
    const bool wants_x = em_wants(c, 0);
    const struct em_vectors x = em_vectors_of(c->in[0]), dy = em_vectors_of(c->out[0]->grad),
                            dx = wants_x ? em_vectors_of(c->in[0]->grad) : (struct em_vectors){0};
    const float *w = em_f32(c->in[1]), *mean = em_f32(c->saved[0]), *rstd = em_f32(c->saved[1]);
    for (size_t b = begin; b < end; b++) {
        float *dw = cleared(g->dw, b, x.width), *db = cleared(g->db, b, x.width);
        for (size_t i = b * BLOCK; i < (b + 1) * BLOCK && i < x.count; i++) {
            float *to = wants_x ? em_vector(&dx, i) : NULL;
            em_kernels()->layernorm_backward_f32(to, em_fresh(c, 0), dw, db, em_vector(&dy, i),
                                                 em_vector(&x, i), w, mean[i], rstd[i], x.width);
        }
    }
}

static void backward(const struct em_call *c)
{
    const struct em_vectors x = em_vectors_of(c->in[0]);
    const size_t blocks = (x.count + BLOCK - 1) / BLOCK;
    struct gradient g = {c, NULL, NULL};
    if (!blocks) return;
    if (em_wants(c, 1)) g.dw = em_take_floats(c, blocks, x.width);
    if (em_wants(c, 2)) g.db = em_take_floats(c, blocks, x.width);
    em_parallel(c->exec->pool, blocks, em_row_grain(BLOCK * x.width), backward_blocks, &g);
    const struct em_strip dw = {g.dw, blocks, x.width, x.width},
                          db = {g.db, blocks, x.width, x.width};
    if (g.dw) em_add_column_sums(c->exec->pool, &dw, em_f32(c->in[1]->grad));
    if (g.db) em_add_column_sums(c->exec->pool, &db, em_f32(c->in[2]->grad));
}

static double reference_rstd(const float *x, size_t D, float eps, double *mean)
{
    double sum = 0, squares = 0;
    for (size_t j = 0; j < D; j++)
        sum += (double)x[j];
    *mean = sum / (double)D;
    for (size_t j = 0; j < D; j++)
        squares += ((double)x[j] - *mean) * ((double)x[j] - *mean);
    return 1 / sqrt(squares / (double)D + (double)eps);
}

static void reference_forward(const struct em_call *c)
{
    const struct em_vectors x = em_vectors_of(c->in[0]), y = em_vectors_of(c->out[0]);
    const float *w = em_f32(c->in[1]), *b = c->in[2] ? em_f32(c->in[2]) : NULL;
    for (size_t i = 0; i < x.count; i++) {
        double mean;
        const double rstd =
            reference_rstd(em_vector(&x, i), x.width, em_attr_const(c, struct attr)->eps, &mean);
        for (size_t j = 0; j < x.width; j++)
            em_vector(&y, i)[j] =
                (float)(((double)em_vector(&x, i)[j] - mean) * rstd * (double)w[j] +
                        (b ? (double)b[j] : 0));
        if (!em_recording(c)) continue;
        em_f32(c->saved[0])[i] = (float)mean;
        em_f32(c->saved[1])[i] = (float)rstd;
    }
}

// z = (x - mean) rstd, g = w dy:  dx += rstd (g - mean(g) - z mean(g z)),  dw += dy z,  db += dy.
static void reference_backward(const struct em_call *c)
{
    const struct em_vectors x = em_vectors_of(c->in[0]), dy = em_vectors_of(c->out[0]->grad);
    const float *w = em_f32(c->in[1]), eps = em_attr_const(c, struct attr)->eps;
    const double D = (double)x.width;
    double mean;
    em_zero_fresh(c, 0);
    for (size_t i = 0; em_wants(c, 0) && i < x.count; i++) {
        const struct em_vectors dx = em_vectors_of(c->in[0]->grad);
        const float *xi = em_vector(&x, i), *di = em_vector(&dy, i);
        const double rstd = reference_rstd(xi, x.width, eps, &mean);
        double g = 0, gz = 0;
        for (size_t j = 0; j < x.width; j++) {
            g += (double)w[j] * (double)di[j] / D;
            gz += (double)w[j] * (double)di[j] * ((double)xi[j] - mean) * rstd / D;
        }
        for (size_t j = 0; j < x.width; j++)
            em_vector(&dx, i)[j] += (float)(rstd * ((double)w[j] * (double)di[j] - g -
                                                    ((double)xi[j] - mean) * rstd * gz));
    }
    for (size_t j = 0; j < x.width; j++) {
        double dw = 0, db = 0;
        for (size_t i = 0; i < x.count; i++) {
            const double rstd = reference_rstd(em_vector(&x, i), x.width, eps, &mean);
            dw += (double)em_vector(&dy, i)[j] * ((double)em_vector(&x, i)[j] - mean) * rstd;
            db += (double)em_vector(&dy, i)[j];
        }
        if (em_wants(c, 1)) em_f32(c->in[1]->grad)[j] += (float)dw;
        if (em_wants(c, 2)) em_f32(c->in[2]->grad)[j] += (float)db;
    }
}

const struct em_op em_op_layernorm = {
    .name = "layernorm",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(0) | EM_READS_IN(1),
    .flags = EM_OP_SETS_FRESH | EM_OP_REPEATS | EM_OP_ROW_WISE,
};

ember_status ember_layernorm(ember_flow *flow, ember_tensor *x, ember_tensor *w, ember_tensor *b,
                             float eps, ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, &em_op_layernorm, 3);
    if (!c) return EMBER_E_NOMEM;
    c->in[0] = x;
    c->in[1] = w;
    c->in[2] = b;
    em_attr(c, struct attr)->eps = eps;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
