// Linear: y = x w^T + bias + residual. x [T, K], w [N, K], bias [N], residual and y [T, N].
//   dx = dy w,  dw += dy^T x,  dbias += the column sums of dy,  dresidual = dy.
// The residual's gradient is dy itself, so the program lets them share memory where it can.
#include "ops/matmul.h"

struct attr {
    bool f32; // never in bf16
};

enum { X, W, BIAS, RESIDUAL, INPUTS };

static bool is_f32(const struct em_call *c)
{
    return em_attr_const(c, struct attr)->f32;
}

static ember_status need_workspace(struct em_call *c)
{
    const enum em_gemm_type type = em_matmul_type(c, is_f32(c));
    const unsigned threads = em_call_threads(c);
    const ember_tensor *x = c->in[X], *w = c->in[W];
    size_t product = 0, gradient = 0;
    EM_TRY(em_add_matmul_scratch(c, em_gemm_scratch_size(threads), &product));
    EM_TRY(em_need_packed(c, c->in[W], EM_PACK_NT, is_f32(c)));
    if (em_is_training(c) && x->grad) EM_TRY(em_need_packed(c, c->in[W], EM_PACK_NN, is_f32(c)));
    if (em_is_training(c) && w->grad)
        EM_TRY(em_add_matmul_scratch(
            c, em_gemm_unpacked_scratch_size(type, em_last_dim(x), x->dim[0], threads), &gradient));
    em_need_scratch(c, product > gradient ? product : gradient);
    return EMBER_OK;
}

static ember_status shape(struct em_call *c)
{
    char text[2][96];
    ember_tensor *x = c->in[X], *w = c->in[W], *bias = c->in[BIAS], *residual = c->in[RESIDUAL];
    EM_TRY(em_check_f32(c, x, "x", 0));
    EM_TRY(em_check_f32(c, w, "w", 0));
    if (x->ndim != 2 || w->ndim != 2 || x->dim[1] != w->dim[1] || !w->dim[0] || !w->dim[1])
        return em_fail(EMBER_E_SHAPE, "linear: x is %s, w is %s",
                       em_shape_text(x, text[0], sizeof text[0]),
                       em_shape_text(w, text[1], sizeof text[1]));
    if (w->info || !em_is_contiguous(w))
        return em_fail(EMBER_E_SHAPE, "linear: w has to be a contiguous parameter");
    if (bias) {
        EM_TRY(em_check_f32(c, bias, "bias", w->dim[0]));
        if (bias->ndim != 1)
            return em_fail(EMBER_E_SHAPE, "linear: bias has to be [%zu], not %s", w->dim[0],
                           em_shape_text(bias, text[0], sizeof text[0]));
    }
    if (residual) {
        EM_TRY(em_check_f32(c, residual, "residual", w->dim[0]));
        if (residual->ndim != 2 || residual->dim[0] != x->dim[0])
            return em_fail(EMBER_E_SHAPE, "linear: residual has to be [%zu, %zu], not %s",
                           x->dim[0], w->dim[0], em_shape_text(residual, text[0], sizeof text[0]));
    }
    if (residual && !em_same_rows(x, residual))
        return em_fail(EMBER_E_SHAPE, "linear: x and residual have rows of different things");
    if (c->exec->backend == EM_CPU) EM_TRY(need_workspace(c));
    return em_out_rows(c, 0, EMBER_F32, x, 1, &w->dim[0], 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double T = (double)c->in[X]->dim[0], K = (double)c->in[W]->dim[1],
                 N = (double)c->in[W]->dim[0];
    const double x = c->in[X]->grad ? 1 : 0, w = c->in[W]->grad ? 1 : 0;
    *forward =
        (struct em_cost){2 * T * N * K, 4 * (T * K + N * K + T * N + em_elements(c->in[RESIDUAL]))};
    *backward = (struct em_cost){(x + w) * 2 * T * N * K, 4 * (x * (T * N + N * K + 2 * T * K) +
                                                               w * (T * N + T * K + 2 * N * K))};
}

static void forward(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[X]), y = em_strip_of(c->out[0]);
    struct em_gemm_epilogue e = {.bias = c->in[BIAS] ? em_f32(c->in[BIAS]) : NULL};
    if (c->in[RESIDUAL]) {
        const struct em_strip residual = em_strip_of(c->in[RESIDUAL]);
        e.residual = residual.data;
        e.residual_stride = residual.stride;
    }
    struct em_gemm_scratch scratch =
        em_matmul_scratch(c, em_gemm_scratch_size(em_pool_threads(c->exec->pool)));
    em_gemm_packed(em_matmul_type(c, is_f32(c)), y.count, y.width, x.width,
                   em_matmul_rows(x.data, x.stride), em_packed(c, c->in[W], EM_PACK_NT, is_f32(c)),
                   y.data, y.stride, &e, &scratch, c->exec->pool);
}

static void backward(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[X]), dy = em_strip_of(c->out[0]->grad);
    const enum em_gemm_type type = em_matmul_type(c, is_f32(c));
    struct em_pool *pool = c->exec->pool;
    const size_t mark = em_scratch_mark(em_scratch_of(c));
    if (em_wants(c, X)) {
        const struct em_strip dx = em_strip_of(c->in[X]->grad);
        struct em_gemm_scratch scratch =
            em_matmul_scratch(c, em_gemm_scratch_size(em_pool_threads(pool)));
        em_gemm_packed(type, dy.count, x.width, dy.width, em_matmul_rows(dy.data, dy.stride),
                       em_packed(c, c->in[W], EM_PACK_NN, is_f32(c)), dx.data, dx.stride,
                       &(struct em_gemm_epilogue){.accumulate = !em_fresh(c, X)}, &scratch, pool);
        em_scratch_reset(em_scratch_of(c), mark);
    }
    if (em_wants(c, W) && dy.count) {
        struct em_gemm_scratch scratch = em_matmul_scratch(
            c, em_gemm_unpacked_scratch_size(type, x.width, dy.count, em_pool_threads(pool)));
        em_gemm(type, dy.width, x.width, dy.count, em_matmul_columns(dy.data, dy.stride),
                em_matmul_rows(x.data, x.stride), em_f32(c->in[W]->grad), x.width,
                &(struct em_gemm_epilogue){.accumulate = true}, &scratch, pool);
        em_scratch_reset(em_scratch_of(c), mark);
    }
    if (em_wants(c, BIAS)) em_add_column_sums(pool, &dy, em_f32(c->in[BIAS]->grad));
    em_add_residual_gradient(c);
}

static void reference_forward(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[X]), w = em_strip_of(c->in[W]),
                          y = em_strip_of(c->out[0]);
    for (size_t t = 0; t < y.count; t++)
        for (size_t n = 0; n < y.width; n++) {
            double sum = 0;
            for (size_t k = 0; k < x.width; k++)
                sum += (double)em_strip_row(&x, t)[k] * (double)em_strip_row(&w, n)[k];
            if (c->in[BIAS]) sum += (double)em_f32(c->in[BIAS])[n];
            if (c->in[RESIDUAL]) sum += (double)em_row(c->in[RESIDUAL], t)[n];
            em_strip_row(&y, t)[n] = (float)sum;
        }
}

static void reference_backward(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[X]), w = em_strip_of(c->in[W]),
                          dy = em_strip_of(c->out[0]->grad);
    const size_t T = dy.count, N = w.count, K = w.width;
    em_zero_fresh(c, X);
    for (size_t t = 0; em_wants(c, X) && t < T; t++)
        for (size_t k = 0; k < K; k++) {
            double sum = 0;
            for (size_t n = 0; n < N; n++)
                sum += (double)em_strip_row(&dy, t)[n] * (double)em_strip_row(&w, n)[k];
            em_row(c->in[X]->grad, t)[k] += (float)sum;
        }
    for (size_t n = 0; em_wants(c, W) && n < N; n++)
        for (size_t k = 0; k < K; k++) {
            double sum = 0;
            for (size_t t = 0; t < T; t++)
                sum += (double)em_strip_row(&dy, t)[n] * (double)em_strip_row(&x, t)[k];
            em_row(c->in[W]->grad, n)[k] += (float)sum;
        }
    for (size_t n = 0; em_wants(c, BIAS) && n < N; n++) {
        double sum = 0;
        for (size_t t = 0; t < T; t++)
            sum += (double)em_strip_row(&dy, t)[n];
        em_f32(c->in[BIAS]->grad)[n] += (float)sum;
    }
    em_zero_fresh(c, RESIDUAL);
    for (size_t t = 0; em_wants(c, RESIDUAL) && t < T; t++)
        for (size_t n = 0; n < N; n++)
            em_row(c->in[RESIDUAL]->grad, t)[n] += em_strip_row(&dy, t)[n];
}

const struct em_op em_op_linear = {
    .name = "linear",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(X) | EM_READS_IN(W),
    .flags = EM_OP_SETS_FRESH | EM_OP_ROW_WISE,
    .residual = RESIDUAL,
};

static ember_status record(ember_flow *flow, ember_tensor *x, ember_tensor *w, ember_tensor *bias,
                           ember_tensor *residual, bool f32, ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, &em_op_linear, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[X] = x;
    c->in[W] = w;
    c->in[BIAS] = bias;
    c->in[RESIDUAL] = residual;
    if (residual && residual != x) c->pass = RESIDUAL;
    em_attr(c, struct attr)->f32 = f32;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}

ember_status ember_linear(ember_flow *flow, ember_tensor *x, ember_tensor *w, ember_tensor *bias,
                          ember_tensor *residual, ember_tensor **y)
{
    bool gather;
    const ember_routing *routing = em_flow_experts(flow, x, &gather);
    if (!routing || !w || w->ndim != 3) return record(flow, x, w, bias, residual, false, y);
    ember_tensor *rows;
    EM_TRY(ember_grouped_linear(flow, x, w, bias, routing, gather, &rows));
    if (residual) return ember_add(flow, residual, rows, y);
    *y = rows;
    return EMBER_OK;
}

ember_status ember_linear_f32(ember_flow *flow, ember_tensor *x, ember_tensor *w,
                              ember_tensor *bias, ember_tensor **y)
{
    return record(flow, x, w, bias, NULL, true, y);
}
