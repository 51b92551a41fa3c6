// Grouped linear: each row times its expert's matrix, rows in the plan's order. x [T, M] gathered
// by the plan or in its order already, w [E, N, M], bias [E, N], y [rows, N].
//   dx = dy w_e (gathered: added up over a token's rows), dw_e += dy_e^T x_e, dbias_e += column
//   sums of dy_e.
#include "kernels/kernels.h"
#include "ops/matmul.h"
#include "ops/moe_plan.h"

struct attr {
    size_t k, limit; // choices of a token; rows at most
    bool gather;
};

enum { X, W, BIAS, PLAN, INPUTS };

static ember_status need_workspace(struct em_call *c)
{
    const enum em_gemm_type type = em_matmul_type(c, false);
    const struct attr *a = em_attr_const(c, struct attr);
    const unsigned threads = em_call_threads(c);
    const ember_tensor *x = c->in[X], *w = c->in[W];
    const size_t rows = a->gather ? a->limit : x->dim[0];
    size_t product = 0, gradient = 0;
    EM_TRY(em_add_matmul_scratch(c, rows * sizeof(int32_t), &product)); // sources of the rows
    EM_TRY(em_add_matmul_scratch(c, rows * sizeof(int32_t), &gradient));
    EM_TRY(em_add_matmul_scratch(c, em_gemm_scratch_size(threads), &product));
    EM_TRY(em_need_packed(c, c->in[W], EM_PACK_NT, false));
    if (em_is_training(c) && x->grad) {
        EM_TRY(em_need_packed(c, c->in[W], EM_PACK_NN, false));
        if (a->gather) EM_TRY(em_add_scratch(c, rows, x->dim[1], &product)); // dx of the rows
    }
    if (em_is_training(c) && w->grad)
        EM_TRY(em_add_matmul_scratch(
            c, em_gemm_grouped_grad_scratch_size(type, w->dim[0], rows, w->dim[2], threads),
            &gradient));
    em_need_scratch(c, product > gradient ? product : gradient);
    return EMBER_OK;
}

static ember_status shape(struct em_call *c)
{
    char text[2][96];
    const struct attr *a = em_attr_const(c, struct attr);
    ember_tensor *x = c->in[X], *w = c->in[W], *bias = c->in[BIAS];
    EM_TRY(em_check_f32(c, x, "x", 0));
    EM_TRY(em_check_f32(c, w, "w", 0));
    if (x->ndim != 2 || w->ndim != 3 || x->dim[1] != w->dim[2])
        return em_fail(EMBER_E_SHAPE, "grouped_linear: x is %s, w is %s",
                       em_shape_text(x, text[0], sizeof text[0]),
                       em_shape_text(w, text[1], sizeof text[1]));
    if (w->info || !em_is_contiguous(w))
        return em_fail(EMBER_E_SHAPE, "grouped_linear: w has to be a contiguous parameter");
    if (bias && (bias->dtype != EMBER_F32 || bias->ndim != 2 || bias->dim[0] != w->dim[0] ||
                 bias->dim[1] != w->dim[1] || !em_is_contiguous(bias)))
        return em_fail(EMBER_E_SHAPE, "grouped_linear: bias has to be [%zu, %zu], not %s",
                       w->dim[0], w->dim[1], em_shape_text(bias, text[0], sizeof text[0]));
    if (a->gather)
        EM_TRY(em_check_plan(c, c->in[PLAN], w->dim[0], x->dim[0] * a->k));
    else
        EM_TRY(em_check_plan_rows(c, c->in[PLAN], w->dim[0], x));
    if (c->exec->backend == EM_CPU) EM_TRY(need_workspace(c));
    if (!a->gather) return em_out_rows(c, 0, EMBER_F32, x, 1, &w->dim[1], 1);
    return em_out_plan(c, 0, EMBER_F32, c->in[PLAN], w->dim[0], a->limit, &w->dim[1], 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double R = (double)c->out[0]->dim[0], M = (double)c->in[W]->dim[2],
                 N = (double)c->in[W]->dim[1], w = em_elements(c->in[W]);
    const double dx = c->in[X]->grad ? 1 : 0, dw = c->in[W]->grad ? 1 : 0;
    *forward = (struct em_cost){2 * R * N * M, 4 * (R * (N + M) + w)};
    *backward = (struct em_cost){(dx + dw) * 2 * R * N * M,
                                 4 * (dx * (R * (N + 2 * M) + w) + dw * (R * (N + M) + 2 * w))};
}

// The token of each row, or NULL when x is in the plan's order already.
static int32_t *row_sources(const struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const size_t rows = c->out[0]->dim[0];
    if (!a->gather) return NULL;
    const int32_t *order = em_plan_order(c->in[PLAN], c->in[W]->dim[0]);
    int32_t *source = em_scratch_take(em_scratch_of(c), rows * sizeof *source);
    for (size_t r = 0; r < rows; r++)
        source[r] = order[r] / (int32_t)a->k;
    return source;
}

static void forward(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[X]), y = em_strip_of(c->out[0]);
    const size_t E = c->in[W]->dim[0], N = c->in[W]->dim[1];
    const enum em_gemm_type type = em_matmul_type(c, false);
    if (!y.count) return;
    const int32_t *source = row_sources(c);
    struct em_gemm_scratch scratch =
        em_matmul_scratch(c, em_gemm_scratch_size(em_pool_threads(c->exec->pool)));
    const struct em_gemm_epilogue e = {.bias = c->in[BIAS] ? em_f32(c->in[BIAS]) : NULL,
                                       .bias_group_stride = N};
    em_gemm_grouped(
        type, E, em_plan_offset(c->in[PLAN]), N, x.width, em_matmul_rows(x.data, x.stride), source,
        em_packed(c, c->in[W], EM_PACK_NT, false), em_gemm_packed_size(type, x.width, N), y.data,
        y.stride, &e, &scratch, c->exec->pool);
}

struct scatter {
    const struct em_call *call;
    const float *rows;
};

// dx of a token is the sum over its rows, in the order of its choices.
static void scatter_tokens(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct scatter *s = arg;
    const struct em_call *c = s->call;
    const size_t k = em_attr_const(c, struct attr)->k, M = c->in[W]->dim[2];
    const int32_t *place = em_plan_place(c->in[PLAN], c->in[W]->dim[0]);
    const struct em_strip dx = em_strip_of(c->in[X]->grad);
    for (size_t t = begin; t < end; t++) {
        float *to = em_strip_row(&dx, t);
        if (em_fresh(c, X)) memset(to, 0, M * sizeof *to);
        for (size_t n = 0; n < k; n++)
            if (place[t * k + n] >= 0)
                em_kernels()->add_f32(to, to, s->rows + (size_t)place[t * k + n] * M, M);
    }
}

static void input_gradient(const struct em_call *c)
{
    const struct em_strip dy = em_strip_of(c->out[0]->grad), dx = em_strip_of(c->in[X]->grad);
    const size_t E = c->in[W]->dim[0], N = c->in[W]->dim[1], M = c->in[W]->dim[2];
    const enum em_gemm_type type = em_matmul_type(c, false);
    const bool gather = em_attr_const(c, struct attr)->gather;
    float *rows = gather ? em_take_floats(c, dy.count, M) : dx.data;
    struct em_gemm_scratch scratch =
        em_matmul_scratch(c, em_gemm_scratch_size(em_pool_threads(c->exec->pool)));
    const struct em_gemm_epilogue e = {.accumulate = !gather && !em_fresh(c, X)};
    em_gemm_grouped(type, E, em_plan_offset(c->in[PLAN]), M, N, em_matmul_rows(dy.data, dy.stride),
                    NULL, em_packed(c, c->in[W], EM_PACK_NN, false),
                    em_gemm_packed_size(type, N, M), rows, gather ? M : dx.stride, &e, &scratch,
                    c->exec->pool);
    struct scatter s = {c, rows};
    if (gather) em_parallel(c->exec->pool, dx.count, em_row_grain(M), scatter_tokens, &s);
}

static void bias_gradient(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const int32_t *offset = em_plan_offset(c->in[PLAN]);
    struct em_strip dy = em_strip_of(c->out[0]->grad);
    float *const first = dy.data;
    for (size_t e = begin; e < end; e++) {
        dy.data = first + (size_t)offset[e] * dy.stride;
        dy.count = (size_t)(offset[e + 1] - offset[e]);
        em_add_column_sums(NULL, &dy, em_f32(c->in[BIAS]->grad) + e * dy.width);
    }
}

static void backward(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[X]), dy = em_strip_of(c->out[0]->grad);
    const size_t E = c->in[W]->dim[0], N = c->in[W]->dim[1], M = c->in[W]->dim[2],
                 mark = em_scratch_mark(em_scratch_of(c));
    const enum em_gemm_type type = em_matmul_type(c, false);
    if (!dy.count) {
        em_zero_fresh(c, X);
        return;
    }
    if (em_wants(c, X)) {
        input_gradient(c);
        em_scratch_reset(em_scratch_of(c), mark);
    }
    if (em_wants(c, W)) {
        const int32_t *source = row_sources(c);
        struct em_gemm_scratch scratch =
            em_matmul_scratch(c, em_gemm_grouped_grad_scratch_size(type, E, dy.count, M,
                                                                   em_pool_threads(c->exec->pool)));
        em_gemm_grouped_grad(type, E, em_plan_offset(c->in[PLAN]), N, M, dy.data, dy.stride, x.data,
                             x.stride, source, em_f32(c->in[W]->grad), M, N * M,
                             &(struct em_gemm_epilogue){.accumulate = true}, &scratch,
                             c->exec->pool);
        em_scratch_reset(em_scratch_of(c), mark);
    }
    if (em_wants(c, BIAS)) em_parallel(c->exec->pool, E, 1, bias_gradient, &c);
}

// ---- reference ----

struct row {
    size_t expert, source;
};

static struct row row_of(const struct em_call *c, size_t r)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const size_t E = c->in[W]->dim[0];
    const int32_t *offset = em_plan_offset(c->in[PLAN]);
    size_t e = 0;
    while (r >= (size_t)offset[e + 1])
        e++;
    return (struct row){e, a->gather ? (size_t)em_plan_order(c->in[PLAN], E)[r] / a->k : r};
}

static void reference_forward(const struct em_call *c)
{
    const size_t N = c->in[W]->dim[1], M = c->in[W]->dim[2];
    for (size_t r = 0; r < c->out[0]->dim[0]; r++) {
        const struct row row = row_of(c, r);
        for (size_t n = 0; n < N; n++) {
            const float *w = em_f32(c->in[W]) + (row.expert * N + n) * M;
            double sum = c->in[BIAS] ? (double)em_f32(c->in[BIAS])[row.expert * N + n] : 0;
            for (size_t m = 0; m < M; m++)
                sum += (double)em_row(c->in[X], row.source)[m] * (double)w[m];
            em_row(c->out[0], r)[n] = (float)sum;
        }
    }
}

static void reference_backward(const struct em_call *c)
{
    const size_t N = c->in[W]->dim[1], M = c->in[W]->dim[2];
    em_zero_fresh(c, X);
    for (size_t r = 0; r < c->out[0]->dim[0]; r++) {
        const struct row row = row_of(c, r);
        const float *dy = em_row(c->out[0]->grad, r), *x = em_row(c->in[X], row.source);
        const size_t w = row.expert * N * M;
        for (size_t m = 0; em_wants(c, X) && m < M; m++) {
            double sum = 0;
            for (size_t n = 0; n < N; n++)
                sum += (double)dy[n] * (double)em_f32(c->in[W])[w + n * M + m];
            em_row(c->in[X]->grad, row.source)[m] += (float)sum;
        }
        for (size_t n = 0; em_wants(c, W) && n < N; n++)
            for (size_t m = 0; m < M; m++)
                em_f32(c->in[W]->grad)[w + n * M + m] += (float)((double)dy[n] * (double)x[m]);
        for (size_t n = 0; em_wants(c, BIAS) && n < N; n++)
            em_f32(c->in[BIAS]->grad)[row.expert * N + n] += dy[n];
    }
}

const struct em_op em_op_grouped_linear = {
    .name = "grouped_linear",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(X) | EM_READS_IN(W) | EM_READS_IN(PLAN),
    .flags = EM_OP_SETS_FRESH,
};

ember_status ember_grouped_linear(ember_flow *flow, ember_tensor *x, ember_tensor *w,
                                  ember_tensor *bias, const ember_routing *routing, bool gather,
                                  ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, &em_op_grouped_linear, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    if (!routing->k) return em_fail(EMBER_E_SHAPE, "grouped_linear: nothing is routed");
    if (w && w->ndim == 3 && w->dim[0] != routing->n_experts)
        return em_fail(EMBER_E_SHAPE, "grouped_linear: weights of %zu experts, %zu are routed",
                       w->dim[0], routing->n_experts);
    c->in[X] = x;
    c->in[W] = w;
    c->in[BIAS] = bias;
    c->in[PLAN] = routing->plan;
    *em_attr(c, struct attr) =
        (struct attr){routing->k, x ? em_routing_limit(routing, x->dim[0]) : 0, gather};
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
