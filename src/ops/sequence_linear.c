// A matrix for each sequence, made by the model itself: x [T, I], m [S, O I] (a row is the
// sequence's matrix [O, I]), y [T, O] with y_t = m_s x_t. Always in f32.
#include "kernels/kernels.h"
#include "ops/matmul.h"

enum { X, M, INPUTS };

static ember_status shape(struct em_call *c)
{
    char text[2][96];
    const ember_tensor *x = c->in[X], *m = c->in[M];
    size_t each, one, bytes = 0;
    EM_TRY(em_check_f32(c, x, "x", 0));
    EM_TRY(em_check_f32(c, m, "m", 0));
    if (x->ndim != 2 || m->ndim != 2 || !em_has_sequence_rows(x, &each) || !x->dim[1] ||
        m->dim[1] % x->dim[1] || !em_has_sequence_rows(m, &one) || one != 1)
        return em_fail(EMBER_E_SHAPE,
                       "sequence_linear: x is %s, m is %s; they have to be [T, I] and [S, O I], a "
                       "row for each sequence",
                       em_shape_text(x, text[0], sizeof text[0]),
                       em_shape_text(m, text[1], sizeof text[1]));
    const size_t I = x->dim[1], O = m->dim[1] / I, T = x->dim[0];
    const unsigned threads = em_call_threads(c);
    EM_TRY(em_add_matmul_scratch(c, em_gemm_unpacked_scratch_size(EM_GEMM_F32, O, I, threads),
                                 &bytes));
    EM_TRY(em_add_matmul_scratch(c, em_gemm_unpacked_scratch_size(EM_GEMM_F32, I, O, threads),
                                 &bytes));
    EM_TRY(em_add_matmul_scratch(c, em_gemm_unpacked_scratch_size(EM_GEMM_F32, I, T, threads),
                                 &bytes));
    em_need_scratch(c, bytes);
    return em_out_rows(c, 0, EMBER_F32, x, 1, &O, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]), I = (double)c->in[X]->dim[1];
    const double bytes = 4 * (n + em_elements(c->in[X]) + em_elements(c->in[M]));
    *forward = (struct em_cost){2 * n * I, bytes};
    *backward = (struct em_cost){4 * n * I, 2 * bytes};
}

static void product(const struct em_call *c, size_t rows, size_t N, size_t K, struct em_matrix a,
                    struct em_matrix b, float *y, size_t stride, bool add)
{
    const size_t mark = em_scratch_mark(em_scratch_of(c));
    struct em_gemm_scratch scratch = em_matmul_scratch(
        c, em_gemm_unpacked_scratch_size(EM_GEMM_F32, N, K, em_pool_threads(c->exec->pool)));
    em_gemm(EM_GEMM_F32, rows, N, K, a, b, y, stride, &(struct em_gemm_epilogue){.accumulate = add},
            &scratch, c->exec->pool);
    em_scratch_reset(em_scratch_of(c), mark);
}

static void forward(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[X]), m = em_strip_of(c->in[M]),
                          y = em_strip_of(c->out[0]);
    for (size_t s = 0; s < m.count; s++) {
        const size_t first = em_first_row(c, c->in[X], s);
        product(c, em_first_row(c, c->in[X], s + 1) - first, y.width, x.width,
                em_matmul_rows(em_strip_row(&x, first), x.stride),
                em_matmul_columns(em_strip_row(&m, s), x.width), em_strip_row(&y, first), y.stride,
                false);
    }
}

static void backward(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[X]), m = em_strip_of(c->in[M]),
                          dy = em_strip_of(c->out[0]->grad);
    for (size_t s = 0; s < m.count; s++) {
        const size_t first = em_first_row(c, c->in[X], s);
        const size_t n = em_first_row(c, c->in[X], s + 1) - first;
        const float *d = em_strip_row(&dy, first);
        if (em_wants(c, X)) {
            const struct em_strip dx = em_strip_of(c->in[X]->grad);
            product(c, n, x.width, dy.width, em_matmul_rows(d, dy.stride),
                    em_matmul_rows(em_strip_row(&m, s), x.width), em_strip_row(&dx, first),
                    dx.stride, true);
        }
        if (em_wants(c, M)) {
            const struct em_strip dm = em_strip_of(c->in[M]->grad);
            product(c, dy.width, x.width, n, em_matmul_columns(d, dy.stride),
                    em_matmul_rows(em_strip_row(&x, first), x.stride), em_strip_row(&dm, s),
                    x.width, true);
        }
    }
}

static void reference(const struct em_call *c, bool back)
{
    const size_t I = c->in[X]->dim[1], O = c->out[0]->dim[1];
    for (size_t s = 0; s < c->in[M]->dim[0]; s++)
        for (size_t t = em_first_row(c, c->in[X], s); t < em_first_row(c, c->in[X], s + 1); t++)
            for (size_t o = 0; o < O; o++) {
                const float *x = em_row(c->in[X], t), *m = em_row(c->in[M], s) + o * I;
                const double dy = back ? (double)em_row(c->out[0]->grad, t)[o] : 0;
                double sum = 0;
                for (size_t i = 0; i < I; i++) {
                    sum += (double)m[i] * (double)x[i];
                    if (back && em_wants(c, X))
                        em_row(c->in[X]->grad, t)[i] += (float)(dy * (double)m[i]);
                    if (back && em_wants(c, M))
                        em_row(c->in[M]->grad, s)[o * I + i] += (float)(dy * (double)x[i]);
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

const struct em_op em_op_sequence_linear = {
    .name = "sequence_linear",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(X) | EM_READS_IN(M),
};

ember_status ember_sequence_linear(ember_flow *flow, ember_tensor *x, ember_tensor *m,
                                   ember_tensor **y)
{
    struct em_call *c = em_call_new(flow, &em_op_sequence_linear, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[X] = x;
    c->in[M] = m;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
