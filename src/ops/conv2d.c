// A convolution over images: x [T, I] on a grid of H x W, w [O, I, k, k], stride s, p zeros around;
// y has (H + 2 p - k) / s + 1 rows of (W + 2 p - k) / s + 1 pixels each, [T', O].
//
// The patches of some images at once are gathered as rows [k, k, I], whose channels are as
// contiguous as those of x, and multiplied with w in that order.
#include "base/sizes.h"
#include "kernels/kernels.h"
#include "ops/image.h"
#include "ops/matmul.h"

enum { X, W, BIAS, INPUTS };
enum { ROWS_AT_ONCE = 2048 }; // enough for matrix products with all threads

struct attr {
    struct em_grid grid, out;
    size_t stride, padding;
    size_t images; // at once
};

static size_t patch_of(const struct em_call *c)
{
    return c->in[W]->dim[1] * c->in[W]->dim[2] * c->in[W]->dim[3];
}

static ember_status workspace(const struct em_call *c, size_t *bytes)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const size_t O = c->in[W]->dim[0], K = patch_of(c),
                 rows = a->images * a->out.rows * a->out.columns;
    const unsigned threads = em_call_threads(c);
    EM_TRY(em_add_scratch(c, rows, K, bytes)); // patches, or their gradients
    EM_TRY(em_add_scratch(c, O, K, bytes));    // w in the order of patches
    EM_TRY(em_add_scratch(c, O, K, bytes));    // its gradient
    for (int type = EM_GEMM_F32; type <= EM_GEMM_BF16; type++) {
        EM_TRY(em_add_matmul_scratch(
            c, em_gemm_unpacked_scratch_size((enum em_gemm_type)type, O, K, threads), bytes));
        EM_TRY(em_add_matmul_scratch(
            c, em_gemm_unpacked_scratch_size((enum em_gemm_type)type, K, O, threads), bytes));
        EM_TRY(em_add_matmul_scratch(
            c, em_gemm_unpacked_scratch_size((enum em_gemm_type)type, K, rows, threads), bytes));
    }
    return EMBER_OK;
}

static ember_status shape(struct em_call *c)
{
    char text[2][96];
    struct attr *a = em_attr(c, struct attr);
    const ember_tensor *x = c->in[X], *w = c->in[W], *bias = c->in[BIAS];
    EM_TRY(em_check_f32(c, x, "x", 0));
    EM_TRY(em_check_f32(c, w, "w", 0));
    if (w->info || !em_is_contiguous(w) || w->ndim != 4 || w->dim[1] != x->dim[1] || !w->dim[0] ||
        w->dim[2] != w->dim[3])
        return em_fail(EMBER_E_SHAPE,
                       "conv2d: x is %s, w is %s; they have to be [T, I] and a parameter "
                       "[O, I, k, k]",
                       em_shape_text(x, text[0], sizeof text[0]),
                       em_shape_text(w, text[1], sizeof text[1]));
    if (bias) EM_TRY(em_check_f32(c, bias, "bias", w->dim[0]));
    const size_t k = w->dim[2], H = a->grid.rows + 2 * a->padding,
                 V = a->grid.columns + 2 * a->padding;
    if (!a->stride || a->padding >= k || H < k || V < k)
        return em_fail(
            EMBER_E_SHAPE,
            "conv2d: windows of %zu with stride %zu and padding %zu do not fit a grid of "
            "%zu x %zu",
            k, a->stride, a->padding, a->grid.rows, a->grid.columns);
    a->out = (struct em_grid){(H - k) / a->stride + 1, (V - k) / a->stride + 1};
    const size_t all = x->dim[0] / (a->grid.rows * a->grid.columns), // images of the largest batch
        some = ROWS_AT_ONCE / (a->out.rows * a->out.columns);
    a->images = some < all ? some : all;
    if (!a->images) a->images = 1;
    em_need_grid(c, x, &a->grid);
    size_t bytes = 0;
    EM_TRY(workspace(c, &bytes));
    em_need_scratch(c, bytes);
    return em_out_pixels(c, 0, EMBER_F32, a->out.rows * a->out.columns, &w->dim[0], 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]), K = (double)patch_of(c);
    const double bytes = 4 * (n + em_elements(c->in[X]) + 2 * n / (double)c->in[W]->dim[0] * K);
    *forward = (struct em_cost){2 * n * K, bytes};
    *backward = (struct em_cost){4 * n * K, 2 * bytes};
}

// Images that are at work, as an argument of tasks.
struct images {
    const struct em_call *c;
    float *patches, *w, *dw; // in the order [k, k, I]
    size_t first;            // row of x
};

// The pixel of x that tap (i, j) of output pixel p meets, or false where that is a zero around it.
static bool tap(const struct em_call *c, size_t p, size_t i, size_t j, size_t *pixel)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const size_t y = p / a->out.columns * a->stride + i, x = p % a->out.columns * a->stride + j;
    if (y < a->padding || x < a->padding || y - a->padding >= a->grid.rows ||
        x - a->padding >= a->grid.columns)
        return false;
    *pixel = (y - a->padding) * a->grid.columns + x - a->padding;
    return true;
}

static void gather(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct images *m = arg;
    const struct attr *a = em_attr_const(m->c, struct attr);
    const size_t I = m->c->in[W]->dim[1], k = m->c->in[W]->dim[2], P = a->out.rows * a->out.columns,
                 pixels = a->grid.rows * a->grid.columns;
    const struct em_strip x = em_strip_of(m->c->in[X]);
    for (size_t r = begin; r < end; r++) {
        float *to = m->patches + r * k * k * I;
        for (size_t n = 0; n < k * k; n++, to += I) {
            size_t q;
            if (tap(m->c, r % P, n / k, n % k, &q))
                memcpy(to, em_strip_row(&x, m->first + r / P * pixels + q), I * sizeof *to);
            else
                memset(to, 0, I * sizeof *to);
        }
    }
}

// The output place, along a side of `count`, whose tap i lies at `place`; false where none does.
static bool meets(const struct attr *a, size_t place, size_t i, size_t count, size_t *out)
{
    const size_t from = place + a->padding - i; // wraps below 0, and is too large then
    *out = from / a->stride;
    return place + a->padding >= i && from % a->stride == 0 && *out < count;
}

// Patches overlap, so each pixel adds up what it has in them.
static void collect(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct images *m = arg;
    const struct attr *a = em_attr_const(m->c, struct attr);
    const size_t I = m->c->in[W]->dim[1], k = m->c->in[W]->dim[2], P = a->out.rows * a->out.columns,
                 pixels = a->grid.rows * a->grid.columns;
    const struct em_strip dx = em_strip_of(m->c->in[X]->grad);
    for (size_t r = begin; r < end; r++) {
        const size_t q = r % pixels;
        float *to = em_strip_row(&dx, m->first + r);
        for (size_t n = 0; n < k * k; n++) {
            size_t y, x;
            if (!meets(a, q / a->grid.columns, n / k, a->out.rows, &y) ||
                !meets(a, q % a->grid.columns, n % k, a->out.columns, &x))
                continue;
            const size_t p = r / pixels * P + y * a->out.columns + x;
            em_kernels()->add_f32(to, to, m->patches + (p * k * k + n) * I, I);
        }
    }
}

// w to the order of patches, and its gradient back.
static void reorder_w(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct images *m = arg;
    const size_t I = m->c->in[W]->dim[1], taps = patch_of(m->c) / I;
    for (size_t o = begin; o < end; o++)
        for (size_t ch = 0; ch < I; ch++)
            for (size_t n = 0; n < taps; n++)
                m->w[(o * taps + n) * I + ch] = em_f32(m->c->in[W])[(o * I + ch) * taps + n];
}

static void add_dw(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct images *m = arg;
    const size_t I = m->c->in[W]->dim[1], taps = patch_of(m->c) / I;
    for (size_t o = begin; o < end; o++)
        for (size_t ch = 0; ch < I; ch++)
            for (size_t n = 0; n < taps; n++)
                em_f32(m->c->in[W]->grad)[(o * I + ch) * taps + n] +=
                    m->dw[(o * taps + n) * I + ch];
}

static void product(const struct em_call *c, size_t M, size_t N, size_t K, struct em_matrix a,
                    struct em_matrix b, float *y, size_t stride, const struct em_gemm_epilogue *e)
{
    const enum em_gemm_type type = em_matmul_type(c, false);
    const size_t mark = em_scratch_mark(em_scratch_of(c));
    struct em_gemm_scratch scratch = em_matmul_scratch(
        c, em_gemm_unpacked_scratch_size(type, N, K, em_pool_threads(c->exec->pool)));
    em_gemm(type, M, N, K, a, b, y, stride, e, &scratch, c->exec->pool);
    em_scratch_reset(em_scratch_of(c), mark);
}

static struct images images_of(const struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const size_t O = c->in[W]->dim[0], K = patch_of(c);
    struct images m = {.c = c,
                       .patches = em_take_floats(c, a->images * a->out.rows * a->out.columns, K),
                       .w = em_take_floats(c, O, K),
                       .dw = em_take_floats(c, O, K)};
    em_parallel(c->exec->pool, O, em_row_grain(K), reorder_w, &m);
    return m;
}

static void forward(const struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const size_t P = a->out.rows * a->out.columns, K = patch_of(c), O = c->in[W]->dim[0],
                 S = c->exec->batch->n_sequences;
    const struct em_strip y = em_strip_of(c->out[0]);
    struct images m = images_of(c);
    for (size_t s = 0; s < S; s += a->images) {
        const size_t rows = em_min_size(a->images, S - s) * P;
        m.first = em_first_row(c, c->in[X], s);
        em_parallel(c->exec->pool, rows, em_row_grain(K), gather, &m);
        product(c, rows, O, K, em_matmul_rows(m.patches, K), em_matmul_columns(m.w, K),
                em_strip_row(&y, s * P), y.stride,
                &(struct em_gemm_epilogue){.bias = c->in[BIAS] ? em_f32(c->in[BIAS]) : NULL});
    }
}

static void backward(const struct em_call *c)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const size_t P = a->out.rows * a->out.columns, K = patch_of(c), O = c->in[W]->dim[0],
                 S = c->exec->batch->n_sequences;
    const struct em_strip dy = em_strip_of(c->out[0]->grad);
    struct images m = images_of(c);
    for (size_t s = 0; s < S; s += a->images) {
        const size_t images = em_min_size(a->images, S - s), rows = images * P;
        const float *d = em_strip_row(&dy, s * P);
        m.first = em_first_row(c, c->in[X], s);
        if (em_wants(c, W)) {
            em_parallel(c->exec->pool, rows, em_row_grain(K), gather, &m);
            product(c, O, K, rows, em_matmul_columns(d, dy.stride), em_matmul_rows(m.patches, K),
                    m.dw, K, &(struct em_gemm_epilogue){.accumulate = s > 0});
        }
        if (em_wants(c, X)) {
            product(c, rows, K, O, em_matmul_rows(d, dy.stride), em_matmul_rows(m.w, K), m.patches,
                    K, &(struct em_gemm_epilogue){0});
            em_parallel(c->exec->pool, images * a->grid.rows * a->grid.columns, em_row_grain(K),
                        collect, &m);
        }
    }
    if (em_wants(c, W) && S) em_parallel(c->exec->pool, O, em_row_grain(K), add_dw, &m);
    if (em_wants(c, BIAS)) em_add_column_sums(c->exec->pool, &dy, em_f32(c->in[BIAS]->grad));
}

// ---- reference ----

static void reference_pixel(const struct em_call *c, size_t s, size_t p, bool gradients)
{
    const struct attr *a = em_attr_const(c, struct attr);
    const size_t I = c->in[W]->dim[1], k = c->in[W]->dim[2];
    const size_t first = em_first_row(c, c->in[X], s), row = s * a->out.rows * a->out.columns + p;
    for (size_t o = 0; o < c->in[W]->dim[0]; o++) {
        double sum = c->in[BIAS] ? (double)em_f32(c->in[BIAS])[o] : 0;
        const double dy = gradients ? (double)em_row(c->out[0]->grad, row)[o] : 0;
        if (gradients && em_wants(c, BIAS)) em_f32(c->in[BIAS]->grad)[o] += (float)dy;
        for (size_t ch = 0; ch < I; ch++)
            for (size_t i = 0; i < k; i++)
                for (size_t j = 0; j < k; j++) {
                    size_t q;
                    const size_t at = ((o * I + ch) * k + i) * k + j;
                    if (!tap(c, p, i, j, &q)) continue;
                    const double x = (double)em_row(c->in[X], first + q)[ch],
                                 w = (double)em_f32(c->in[W])[at];
                    sum += x * w;
                    if (gradients && em_wants(c, W)) em_f32(c->in[W]->grad)[at] += (float)(dy * x);
                    if (gradients && em_wants(c, X))
                        em_row(c->in[X]->grad, first + q)[ch] += (float)(dy * w);
                }
        if (!gradients) em_row(c->out[0], row)[o] = (float)sum;
    }
}

static void reference(const struct em_call *c, bool gradients)
{
    const struct attr *a = em_attr_const(c, struct attr);
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++)
        for (size_t p = 0; p < a->out.rows * a->out.columns; p++)
            reference_pixel(c, s, p, gradients);
}

static void reference_forward(const struct em_call *c)
{
    reference(c, false);
}

static void reference_backward(const struct em_call *c)
{
    reference(c, true);
}

const struct em_op em_op_conv2d = {
    .name = "conv2d",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(X) | EM_READS_IN(W),
};

ember_status ember_conv2d(ember_flow *flow, ember_tensor *x, ember_tensor *w, ember_tensor *bias,
                          const ember_conv2d_options *options, ember_tensor **y)
{
    const struct em_grid grid = {options->rows, options->columns};
    EM_TRY(em_check_pixels(x, "conv2d", &grid));
    if (!grid.rows || grid.rows > 1 << 20 || grid.columns > 1 << 20)
        return em_fail(EMBER_E_RANGE, "conv2d: a grid of %zu x %zu", grid.rows, grid.columns);
    struct em_call *c = em_call_new(flow, &em_op_conv2d, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[X] = x;
    c->in[W] = w;
    c->in[BIAS] = bias;
    *em_attr(c, struct attr) =
        (struct attr){.grid = grid, .stride = options->stride, .padding = options->padding};
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
