// A depthwise convolution over images, zeros around them: y[p, e] = bias[e] + sum over the k x k
// window of w[e, i, j] x[p + (i - k/2, j - k/2), e]. x, y [T, E]; w [E, 1, k, k], k odd.
#include "kernels/kernels.h"
#include "ops/image.h"

enum { X, W, BIAS, INPUTS };
enum { COLUMNS = 64 }; // channels of a piece of the weights' gradient

struct attr {
    struct em_grid grid;
};

static ember_status shape(struct em_call *c)
{
    char text[2][96];
    const ember_tensor *x = c->in[X], *w = c->in[W], *bias = c->in[BIAS];
    EM_TRY(em_check_f32(c, x, "x", 0));
    EM_TRY(em_check_f32(c, w, "w", 0));
    if (w->info || !em_is_contiguous(w) || w->ndim != 4 || w->dim[0] != x->dim[1] ||
        w->dim[1] != 1 || w->dim[2] != w->dim[3] || w->dim[2] % 2 == 0)
        return em_fail(EMBER_E_SHAPE,
                       "depthwise_conv2d: x is %s, w is %s; they have to be [T, E] and a parameter "
                       "[E, 1, k, k] with k odd",
                       em_shape_text(x, text[0], sizeof text[0]),
                       em_shape_text(w, text[1], sizeof text[1]));
    if (bias) EM_TRY(em_check_f32(c, bias, "bias", w->dim[0]));
    size_t bytes = 0;
    EM_TRY(em_add_scratch(c, w->dim[2] * w->dim[2] + 1, w->dim[0], &bytes));
    EM_TRY(em_add_scratch(c, w->dim[2] * w->dim[2] + 1, w->dim[0], &bytes));
    em_need_scratch(c, bytes);
    return em_out_like(c, 0, x);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]), k = (double)c->in[W]->dim[2];
    *forward = (struct em_cost){2 * k * k * n, 8 * n};
    *backward = (struct em_cost){4 * k * k * n, 16 * n};
}

struct work {
    const struct em_call *c;
    const float *taps; // [k * k, E]
    float *dtaps;      // the same, and the bias's
    size_t first, n;   // of the image
};

// The pixel (dy, dx) away from p, or n where there is none.
static size_t neighbour(const struct em_call *c, size_t n, size_t p, ptrdiff_t dy, ptrdiff_t dx)
{
    const ptrdiff_t width = (ptrdiff_t)em_attr_const(c, struct attr)->grid.columns;
    const ptrdiff_t y = (ptrdiff_t)p / width + dy, x = (ptrdiff_t)p % width + dx;
    if (y < 0 || x < 0 || x >= width) return n;
    const size_t q = (size_t)(y * width + x);
    return q < n ? q : n;
}

static ptrdiff_t offset_of(const struct em_call *c, size_t i)
{
    return (ptrdiff_t)i - (ptrdiff_t)(c->in[W]->dim[2] / 2);
}

static void forward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct work *w = arg;
    const struct em_call *c = w->c;
    const size_t E = c->in[W]->dim[0], k = c->in[W]->dim[2];
    const struct em_strip x = em_strip_of(c->in[X]), y = em_strip_of(c->out[0]);
    for (size_t p = begin; p < end; p++) {
        float *to = em_strip_row(&y, w->first + p);
        if (c->in[BIAS])
            memcpy(to, em_f32(c->in[BIAS]), E * sizeof *to);
        else
            memset(to, 0, E * sizeof *to);
        for (size_t i = 0; i < k; i++)
            for (size_t j = 0; j < k; j++) {
                const size_t q = neighbour(c, w->n, p, offset_of(c, i), offset_of(c, j));
                if (q < w->n)
                    em_kernels()->muladd_f32(to, w->taps + (i * k + j) * E,
                                             em_strip_row(&x, w->first + q), E);
            }
    }
}

// dx[q] takes from every pixel whose window has q in it.
static void backward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct work *w = arg;
    const struct em_call *c = w->c;
    const size_t E = c->in[W]->dim[0], k = c->in[W]->dim[2];
    const struct em_strip dx = em_strip_of(c->in[X]->grad), dy = em_strip_of(c->out[0]->grad);
    for (size_t q = begin; q < end; q++) {
        float *to = em_strip_row(&dx, w->first + q);
        for (size_t i = 0; i < k; i++)
            for (size_t j = 0; j < k; j++) {
                const size_t p = neighbour(c, w->n, q, -offset_of(c, i), -offset_of(c, j));
                if (p < w->n)
                    em_kernels()->muladd_f32(to, w->taps + (i * k + j) * E,
                                             em_strip_row(&dy, w->first + p), E);
            }
    }
}

// The weights' gradient in the channels [begin, end), over all images.
static void backward_channels(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct work *w = arg;
    const struct em_call *c = w->c;
    const size_t E = c->in[W]->dim[0], k = c->in[W]->dim[2], n = end - begin;
    const struct em_strip x = em_strip_of(c->in[X]), dy = em_strip_of(c->out[0]->grad);
    for (size_t i = 0; i <= k * k; i++)
        memset(w->dtaps + i * E + begin, 0, n * sizeof *w->dtaps);
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++) {
        const size_t first = em_first_row(c, c->in[X], s);
        const size_t pixels = em_first_row(c, c->in[X], s + 1) - first;
        for (size_t p = 0; p < pixels; p++) {
            const float *d = em_strip_row(&dy, first + p) + begin;
            float *bias = w->dtaps + k * k * E + begin;
            em_kernels()->add_f32(bias, bias, d, n);
            for (size_t i = 0; i < k; i++)
                for (size_t j = 0; j < k; j++) {
                    const size_t q = neighbour(c, pixels, p, offset_of(c, i), offset_of(c, j));
                    if (q < pixels)
                        em_kernels()->muladd_f32(w->dtaps + (i * k + j) * E + begin, d,
                                                 em_strip_row(&x, first + q) + begin, n);
                }
        }
    }
}

static void over_images(struct work *w, em_task *task)
{
    const struct em_call *c = w->c;
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++) {
        w->first = em_first_row(c, c->in[X], s);
        w->n = em_first_row(c, c->in[X], s + 1) - w->first;
        em_parallel(c->exec->pool, w->n, em_row_grain(c->in[W]->dim[0]), task, w);
    }
}

static struct work work_of(const struct em_call *c)
{
    const size_t E = c->in[W]->dim[0], k = c->in[W]->dim[2];
    float *taps = em_take_floats(c, k * k + 1, E);
    em_kernels()->transpose_f32(taps, em_f32(c->in[W]), E, k * k);
    return (struct work){.c = c, .taps = taps};
}

static void forward(const struct em_call *c)
{
    struct work w = work_of(c);
    over_images(&w, forward_rows);
}

static void backward(const struct em_call *c)
{
    const size_t E = c->in[W]->dim[0], k2 = c->in[W]->dim[2] * c->in[W]->dim[2];
    struct work w = work_of(c);
    if (em_wants(c, X)) over_images(&w, backward_rows);
    if (!em_wants(c, W) && !em_wants(c, BIAS)) return;
    w.dtaps = em_take_floats(c, k2 + 1, E);
    em_parallel(c->exec->pool, E, COLUMNS, backward_channels, &w);
    for (size_t e = 0; em_wants(c, W) && e < E; e++)
        for (size_t i = 0; i < k2; i++)
            em_f32(c->in[W]->grad)[e * k2 + i] += w.dtaps[i * E + e];
    if (em_wants(c, BIAS)) {
        float *d = em_f32(c->in[BIAS]->grad);
        em_kernels()->add_f32(d, d, w.dtaps + k2 * E, E);
    }
}

// ---- reference ----

static void reference(const struct em_call *c, bool gradients)
{
    const size_t E = c->in[W]->dim[0], k = c->in[W]->dim[2];
    for (size_t s = 0; s < c->exec->batch->n_sequences; s++) {
        const size_t first = em_first_row(c, c->in[X], s);
        const size_t n = em_first_row(c, c->in[X], s + 1) - first;
        for (size_t p = 0; p < n; p++)
            for (size_t e = 0; e < E; e++) {
                double sum = c->in[BIAS] ? (double)em_f32(c->in[BIAS])[e] : 0;
                const double dy = gradients ? (double)em_row(c->out[0]->grad, first + p)[e] : 0;
                if (gradients && em_wants(c, BIAS)) em_f32(c->in[BIAS]->grad)[e] += (float)dy;
                for (size_t i = 0; i < k; i++)
                    for (size_t j = 0; j < k; j++) {
                        const size_t q = neighbour(c, n, p, offset_of(c, i), offset_of(c, j));
                        const size_t tap = (e * k + i) * k + j;
                        if (q == n) continue;
                        const double x = (double)em_row(c->in[X], first + q)[e],
                                     w = (double)em_f32(c->in[W])[tap];
                        sum += w * x;
                        if (gradients && em_wants(c, W))
                            em_f32(c->in[W]->grad)[tap] += (float)(dy * x);
                        if (gradients && em_wants(c, X))
                            em_row(c->in[X]->grad, first + q)[e] += (float)(dy * w);
                    }
                if (!gradients) em_row(c->out[0], first + p)[e] = (float)sum;
            }
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

const struct em_op em_op_depthwise_conv2d = {
    .name = "depthwise_conv2d",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(X) | EM_READS_IN(W),
};

ember_status ember_depthwise_conv2d(ember_flow *flow, ember_tensor *x, ember_tensor *w,
                                    ember_tensor *bias, size_t columns, ember_tensor **y)
{
    const struct em_grid grid = {.columns = columns};
    EM_TRY(em_check_pixels(x, "depthwise_conv2d", &grid));
    struct em_call *c = em_call_new(flow, &em_op_depthwise_conv2d, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[X] = x;
    c->in[W] = w;
    c->in[BIAS] = bias;
    em_attr(c, struct attr)->grid = grid;
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
