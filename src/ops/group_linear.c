// Products of groups of columns: x [T, G K] and w [G P, K] (or [G, P, K]), of whose P rows in each
// group those in [begin, end) are used: y [T, G (end - begin)], y_g = x_g w_g[begin..end]^T. Always
// in f32.
#include "kernels/kernels.h"
#include "ops/matmul.h"

enum { X, W, INPUTS };

struct attr {
    size_t groups, begin, end;
    size_t K, P;
};

static ember_status shape(struct em_call *c)
{
    char text[2][96];
    struct attr *a = em_attr(c, struct attr);
    const ember_tensor *x = c->in[X], *w = c->in[W];
    EM_TRY(em_check_f32(c, x, "x", 0));
    EM_TRY(em_check_f32(c, w, "w", 0));
    a->K = em_last_dim(w);
    const size_t rows = a->K ? ember_tensor_count(w) / a->K : 0;
    size_t wide;
    if (w->info || !em_is_contiguous(w) || !a->groups || x->ndim != 2 || w->ndim < 2 || !rows ||
        rows % a->groups || !em_mul_size(a->groups, a->K, &wide) || x->dim[1] != wide)
        return em_fail(EMBER_E_SHAPE,
                       "group_linear: x is %s, w is %s; they have to be [T, %zu K] and a parameter "
                       "[%zu, P, K]",
                       em_shape_text(x, text[0], sizeof text[0]),
                       em_shape_text(w, text[1], sizeof text[1]), a->groups, a->groups);
    a->P = rows / a->groups;
    if (a->begin >= a->end || a->end > a->P)
        return em_fail(EMBER_E_SHAPE, "group_linear: w has %zu rows a group, none in [%zu, %zu)",
                       a->P, a->begin, a->end);
    const size_t N = a->end - a->begin, out = a->groups * N, T = x->dim[0];
    const unsigned threads = em_call_threads(c);
    size_t bytes = 0;
    EM_TRY(em_add_matmul_scratch(c, em_gemm_unpacked_scratch_size(EM_GEMM_F32, N, a->K, threads),
                                 &bytes));
    EM_TRY(em_add_matmul_scratch(c, em_gemm_unpacked_scratch_size(EM_GEMM_F32, a->K, N, threads),
                                 &bytes));
    if (em_is_training(c))
        EM_TRY(em_add_matmul_scratch(
            c, em_gemm_unpacked_scratch_size(EM_GEMM_F32, a->K, T, threads), &bytes));
    em_need_scratch(c, bytes);
    return em_out_rows(c, 0, EMBER_F32, x, 1, &out, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]), K = (double)em_attr_const(c, struct attr)->K;
    const double bytes = 4 * (n + em_elements(c->in[X]) + em_elements(c->in[W]));
    *forward = (struct em_cost){2 * n * K, bytes};
    *backward = (struct em_cost){4 * n * K, 2 * bytes};
}

static void product(const struct em_call *c, size_t M, size_t N, size_t K, struct em_matrix a,
                    struct em_matrix b, float *y, size_t stride, bool add)
{
    const size_t mark = em_scratch_mark(em_scratch_of(c));
    struct em_gemm_scratch scratch = em_matmul_scratch(
        c, em_gemm_unpacked_scratch_size(EM_GEMM_F32, N, K, em_pool_threads(c->exec->pool)));
    em_gemm(EM_GEMM_F32, M, N, K, a, b, y, stride, &(struct em_gemm_epilogue){.accumulate = add},
            &scratch, c->exec->pool);
    em_scratch_reset(em_scratch_of(c), mark);
}

static size_t first_weight(const struct attr *a, size_t g)
{
    return (g * a->P + a->begin) * a->K;
}

static void forward(const struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const struct em_strip x = em_strip_of(c->in[X]), y = em_strip_of(c->out[0]);
    const size_t N = a->end - a->begin;
    for (size_t g = 0; g < a->groups && x.count; g++)
        product(c, x.count, N, a->K, em_matmul_rows(x.data + g * a->K, x.stride),
                em_matmul_columns(em_f32(c->in[W]) + first_weight(a, g), a->K), y.data + g * N,
                y.stride, false);
}

static void backward(const struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const struct em_strip x = em_strip_of(c->in[X]), dy = em_strip_of(c->out[0]->grad);
    const size_t N = a->end - a->begin;
    for (size_t g = 0; g < a->groups && x.count; g++) {
        const float *d = dy.data + g * N;
        if (em_wants(c, X)) {
            const struct em_strip dx = em_strip_of(c->in[X]->grad);
            product(c, x.count, a->K, N, em_matmul_rows(d, dy.stride),
                    em_matmul_rows(em_f32(c->in[W]) + first_weight(a, g), a->K), dx.data + g * a->K,
                    dx.stride, true);
        }
        if (em_wants(c, W))
            product(c, N, a->K, x.count, em_matmul_columns(d, dy.stride),
                    em_matmul_rows(x.data + g * a->K, x.stride),
                    em_f32(c->in[W]->grad) + first_weight(a, g), a->K, true);
    }
}

static void reference(const struct em_call *c, bool back)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const size_t N = a->end - a->begin;
    for (size_t t = 0; t < c->out[0]->dim[0]; t++)
        for (size_t o = 0; o < a->groups * N; o++) {
            const size_t g = o / N, at = first_weight(a, g) + o % N * a->K;
            const float *x = em_row(c->in[X], t) + g * a->K, *w = em_f32(c->in[W]) + at;
            const double dy = back ? (double)em_row(c->out[0]->grad, t)[o] : 0;
            double sum = 0;
            for (size_t k = 0; k < a->K; k++) {
                sum += (double)x[k] * (double)w[k];
                if (back && em_wants(c, X))
                    em_row(c->in[X]->grad, t)[g * a->K + k] += (float)(dy * (double)w[k]);
                if (back && em_wants(c, W))
                    em_f32(c->in[W]->grad)[at + k] += (float)(dy * (double)x[k]);
            }
            if (!back) em_row(c->out[0], t)[o] = (float)sum;
        }
}

static void reference_forward(const struct em_call *c)
{
    reference(c, false);
}

static void reference_backward(const struct em_call *c)
{
    reference(c, true);
}

const struct em_op em_op_group_linear = {
    .name = "group_linear",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(X) | EM_READS_IN(W),
};

ember_status ember_group_linear(ember_flow *flow, ember_tensor *x, ember_tensor *w, size_t groups,
                                size_t begin, size_t end, ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, &em_op_group_linear, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[X] = x;
    c->in[W] = w;
    *em_attr(c, struct attr) = (struct attr){.groups = groups, .begin = begin, .end = end};
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
