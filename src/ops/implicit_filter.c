// The filter of a long convolution as a function of the position: a small network with sines, under
// a window that decays. Poli et al. 2023, "Hyena Hierarchy", arXiv:2302.10866, section 3.3.
//   h = z W_0^T + b_0,  h = sin(w h) W_i^T + b_i for the inner layers,  m = sin(w h) W^T,
//   k[i][c] = m[i][c] (exp(-t_i |delta_c|) + shift), and divided by its row's sum of magnitudes
// where that is asked for. A skip is added to row 0: what it multiplies is the token itself.
// One vector w of frequencies serves all sines. Rows come in blocks, and backward computes a block
// again instead of keeping it: of a filter of a million rows only the filter itself is held.
#include "ops/implicit_filter.h"
#include "kernels/kernels.h"

#include <math.h>

enum { BLOCK = 1024 }; // rows: the widest of 64 to 256 columns stays in the second cache

size_t em_filter_hidden(const struct em_call *c)
{
    return (c->n_in - EM_FILTER_WEIGHTS) / 2;
}

static ember_tensor *weight(const struct em_call *c, size_t i)
{
    return c->in[EM_FILTER_WEIGHTS + 2 * i];
}

static ember_tensor *bias(const struct em_call *c, size_t i)
{
    return i < em_filter_hidden(c) ? c->in[EM_FILTER_WEIGHTS + 2 * i + 1] : NULL;
}

static bool wants_any(const struct em_call *c)
{
    for (unsigned i = 0; i < c->n_in; i++)
        if (c->in[i] && c->in[i]->grad) return true;
    return false;
}

// ---- shape ----

static ember_status check_parameter(const struct em_call *c, const ember_tensor *t,
                                    const char *what, size_t rows, size_t columns)
{
    char text[96];
    EM_TRY(em_check_f32(c, t, what, 0));
    if (t->info || !em_is_contiguous(t))
        return em_fail(EMBER_E_SHAPE, "implicit_filter: %s has to be a parameter", what);
    const bool fits = rows ? t->ndim == 2 && t->dim[0] == rows && t->dim[1] == columns
                           : t->ndim == 1 && t->dim[0] == columns;
    if (fits) return EMBER_OK;
    if (rows)
        return em_fail(EMBER_E_SHAPE, "implicit_filter: %s has to be [%zu, %zu], not %s", what,
                       rows, columns, em_shape_text(t, text, sizeof text));
    return em_fail(EMBER_E_SHAPE, "implicit_filter: %s has to be [%zu], not %s", what, columns,
                   em_shape_text(t, text, sizeof text));
}

static ember_status check_layers(const struct em_call *c, size_t *channels)
{
    const size_t hidden = em_filter_hidden(c), W = em_last_dim(c->in[EM_FILTER_FREQUENCY]);
    size_t in = em_last_dim(c->in[EM_FILTER_Z]);
    for (size_t i = 0; i <= hidden; i++) {
        const ember_tensor *w = weight(c, i);
        EM_TRY(em_check_f32(c, w, "a weight", in));
        EM_TRY(check_parameter(c, w, "a weight", i < hidden ? W : w->dim[0], in));
        if (i < hidden) EM_TRY(check_parameter(c, bias(c, i), "a bias", 0, W));
        in = W;
        *channels = w->dim[0];
    }
    return EMBER_OK;
}

// Floats of a block: activations before and after every sine, and two of the widest width.
static ember_status need_memory(struct em_call *c, size_t channels)
{
    const size_t hidden = em_filter_hidden(c), W = em_last_dim(c->in[EM_FILTER_FREQUENCY]),
                 E = em_last_dim(c->in[EM_FILTER_Z]);
    const unsigned threads = em_call_threads(c);
    const bool gradients = em_is_training(c) && wants_any(c);
    size_t bytes = 0;
    const size_t layers = gradients ? 2 * hidden + 2 : 2;
    EM_TRY(em_add_scratch(c, BLOCK * layers, W, &bytes));
    EM_TRY(em_add_scratch(c, BLOCK, channels, &bytes));
    EM_TRY(em_add_matmul_scratch(c, em_gemm_scratch_size(threads), &bytes));
    for (size_t i = 0; i <= hidden; i++) {
        EM_TRY(em_need_packed(c, weight(c, i), EM_PACK_NT, true));
        if (gradients) EM_TRY(em_need_packed(c, weight(c, i), EM_PACK_NN, true));
    }
    if (gradients) {
        const size_t widest = E > W ? E : W;
        EM_TRY(em_add_matmul_scratch(
            c, em_gemm_unpacked_scratch_size(EM_GEMM_F32, widest, BLOCK, threads), &bytes));
    }
    em_need_scratch(c, bytes);
    return EMBER_OK;
}

static ember_status shape(struct em_call *c)
{
    const ember_tensor *z = c->in[EM_FILTER_Z], *t = c->in[EM_FILTER_T];
    size_t channels = 0;
    EM_TRY(em_check_f32(c, z, "z", 0));
    EM_TRY(em_check_f32(c, c->in[EM_FILTER_FREQUENCY], "the frequency", 0));
    if (z->ndim != 2)
        return em_fail(EMBER_E_SHAPE, "implicit_filter: z has to have a row for each position");
    EM_TRY(check_parameter(c, z, "z", z->dim[0], z->dim[1]));
    EM_TRY(check_parameter(c, t, "t", z->dim[0], 1));
    EM_TRY(check_parameter(c, c->in[EM_FILTER_FREQUENCY], "the frequency", 0,
                           em_last_dim(c->in[EM_FILTER_FREQUENCY])));
    EM_TRY(check_layers(c, &channels));
    EM_TRY(check_parameter(c, c->in[EM_FILTER_DELTAS], "deltas", 0, channels));
    if (c->in[EM_FILTER_SKIP])
        EM_TRY(check_parameter(c, c->in[EM_FILTER_SKIP], "the skip", 0, channels));
    EM_TRY(c->exec->backend == EM_CPU ? need_memory(c, channels)
                                      : em_filter_reference_memory(c, channels));
    EM_TRY(em_out_reach(c, 0, EMBER_F32, z->dim[0], &channels, 1));
    // Where tokens come in small parts, the filter is worth keeping from one to the next. In a pass
    // that has most of its rows it is a small part of the work, and memory counts.
    if (c->exec->backend != EM_CPU || em_is_training(c) || z->dim[0] / 2 < em_call_max_tokens(c))
        return EMBER_OK;
    EM_TRY(em_out(c, 1, EMBER_I32, &(size_t){EM_FILTER_MARKS}, 1));
    EM_TRY(em_lasting_shared(c, 0));
    return em_lasting_shared(c, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    // A filter that lasts is computed once, a row for each token that comes.
    const size_t most = em_call_max_tokens(c), all = c->out[0]->dim[0];
    const double rows = (double)(c->n_out > 1 && most < all ? most : all),
                 channels = (double)em_last_dim(c->out[0]),
                 W = (double)em_last_dim(c->in[EM_FILTER_FREQUENCY]);
    double weights = 0;
    for (size_t i = 0; i <= em_filter_hidden(c); i++)
        weights += em_elements(weight(c, i));
    const double sines = 20 * W * (double)em_filter_hidden(c), window = 16 * channels;
    const double flops = rows * (2 * weights + sines + window);
    const double bytes =
        4 * (rows * (channels + (double)em_last_dim(c->in[EM_FILTER_Z])) + weights);
    *forward = (struct em_cost){flops, bytes};
    *backward = (struct em_cost){wants_any(c) ? 3 * flops : 0, wants_any(c) ? 2 * bytes : 0};
}

// ---- cpu ----

struct block {
    const struct em_call *call;
    size_t first, rows, W, channels, hidden;
    float *before, *after; // of the sines: [hidden][BLOCK][W], or one of each where nothing is kept
    float *m;              // [BLOCK][channels]
    bool keep;             // every layer's activations
    bool backward;         // what the parallel task does: forward or backward
    size_t layer;
    float *gradient, *slope; // [BLOCK][W]
    struct em_gemm_scratch product, transposed;
};

static float *activations(const struct block *b, float *all, size_t layer)
{
    return all + (b->keep ? layer : 0) * BLOCK * b->W;
}

static void sine_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct block *b = arg;
    const float *w = em_f32(b->call->in[EM_FILTER_FREQUENCY]);
    float *before = activations(b, b->before, b->layer),
          *after = activations(b, b->after, b->layer);
    for (size_t r = begin; r < end; r++) {
        const size_t at = r * b->W;
        if (b->backward)
            em_kernels()->sine_backward_f32(b->gradient + at, b->slope + at, b->gradient + at, w,
                                            before + at, b->W);
        else
            em_kernels()->sine_f32(after + at, w, before + at, b->W);
    }
}

// The sum of magnitudes of a row that is divided by it.
static float magnitude(const float *m, size_t n)
{
    double sum = 0;
    for (size_t c = 0; c < n; c++)
        sum += fabs((double)m[c]);
    return (float)sum;
}

static void window_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct block *b = arg;
    const struct em_filter_attr *a = em_attr_const(b->call, struct em_filter_attr);
    const float *t = em_f32(b->call->in[EM_FILTER_T]),
                *delta = em_f32(b->call->in[EM_FILTER_DELTAS]);
    const struct em_strip k = em_strip_of(b->call->out[0]);
    for (size_t r = begin; r < end; r++) {
        float *y = k.data + (b->first + r) * k.stride;
        em_kernels()->decay_f32(y, b->m + r * b->channels, delta, t[b->first + r], a->shift,
                                b->channels);
        if (!a->normalise) continue;
        const float sum = magnitude(y, b->channels);
        if (sum > 0) em_kernels()->scale_f32(y, y, 1 / sum, b->channels);
    }
}

// dm from dk: through the division by the row's sum, and the window.
static void window_backward_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct block *b = arg;
    const struct em_filter_attr *a = em_attr_const(b->call, struct em_filter_attr);
    const float *t = em_f32(b->call->in[EM_FILTER_T]),
                *delta = em_f32(b->call->in[EM_FILTER_DELTAS]);
    const struct em_strip dk = em_strip_of(b->call->out[0]->grad);
    for (size_t r = begin; r < end; r++) {
        const float *dy = dk.data + (b->first + r) * dk.stride;
        float *m = b->m + r * b->channels;
        if (a->normalise) { // y = m / s: dm_c = (dy_c - sign(m_c) sum(dy y)) / s
            em_kernels()->decay_f32(m, m, delta, t[b->first + r], a->shift, b->channels);
            const double sum = (double)magnitude(m, b->channels);
            double mixed = 0;
            for (size_t c = 0; c < b->channels; c++)
                mixed += sum > 0 ? (double)dy[c] * (double)m[c] / sum : 0;
            for (size_t c = 0; c < b->channels; c++) {
                const double sign = m[c] > 0 ? 1 : m[c] < 0 ? -1 : 0;
                m[c] = sum > 0 ? (float)(((double)dy[c] - sign * mixed) / sum) : dy[c];
            }
            dy = m;
        }
        em_kernels()->decay_f32(m, dy, delta, t[b->first + r], a->shift, b->channels);
    }
}

static void over_rows(struct block *b, em_task *task, size_t width)
{
    em_parallel(b->call->exec->pool, b->rows, em_row_grain(width), task, b);
}

// y = x W_i^T + b_i for the block's rows.
static void product(struct block *b, size_t i, const float *x, size_t width, float *y)
{
    const struct em_call *c = b->call;
    const ember_tensor *w = weight(c, i);
    const struct em_gemm_epilogue e = {.bias = bias(c, i) ? em_f32(bias(c, i)) : NULL};
    em_gemm_packed(EM_GEMM_F32, b->rows, w->dim[0], width, em_matmul_rows(x, width),
                   em_packed(c, weight(c, i), EM_PACK_NT, true), y, w->dim[0], &e, &b->product,
                   c->exec->pool);
}

static void forward_block(struct block *b, bool last)
{
    const size_t E = em_last_dim(b->call->in[EM_FILTER_Z]);
    const float *x = em_f32(b->call->in[EM_FILTER_Z]) + b->first * E;
    size_t width = E;
    b->backward = false;
    for (b->layer = 0; b->layer < b->hidden; b->layer++) {
        product(b, b->layer, x, width, activations(b, b->before, b->layer));
        over_rows(b, sine_rows, b->W);
        x = activations(b, b->after, b->layer);
        width = b->W;
    }
    if (last) product(b, b->hidden, x, width, b->m);
}

static struct block block_of(const struct em_call *c, bool keep)
{
    struct block b = {.call = c, .keep = keep, .hidden = em_filter_hidden(c)};
    b.W = em_last_dim(c->in[EM_FILTER_FREQUENCY]);
    b.channels = em_last_dim(c->out[0]);
    b.before = em_take_floats(c, BLOCK * (keep ? b.hidden : 1), b.W);
    b.after = em_take_floats(c, BLOCK * (keep ? b.hidden : 1), b.W);
    b.m = em_take_floats(c, BLOCK, b.channels);
    b.product = em_matmul_scratch(c, em_gemm_scratch_size(em_pool_threads(c->exec->pool)));
    return b;
}

static void compute(const struct em_call *c, size_t begin, size_t end)
{
    struct block b = block_of(c, false);
    for (b.first = begin; b.first < end; b.first += b.rows) {
        b.rows = end - b.first < BLOCK ? end - b.first : BLOCK;
        forward_block(&b, true);
        over_rows(&b, window_rows, 4 * b.channels);
    }
    float *k = em_f32(c->out[0]);
    if (begin == 0 && c->in[EM_FILTER_SKIP])
        em_kernels()->add_f32(k, k, em_f32(c->in[EM_FILTER_SKIP]), b.channels);
}

// What a lasting filter holds: rows, and of which weights.
static void forward(const struct em_call *c)
{
    const size_t need = c->out[0]->dim[0], all = c->in[EM_FILTER_Z]->dim[0];
    int32_t *marks = c->n_out > 1 ? em_i32(c->out[1]) : NULL;
    if (!marks) {
        compute(c, 0, need);
        return;
    }
    const uint64_t version = em_weights_version(c);
    const int32_t low = (int32_t)(version & 0x7fffffff),
                  high = (int32_t)(version >> 31 & 0x7fffffff);
    if (marks[EM_FILTER_LOW] != low || marks[EM_FILTER_HIGH] != high) {
        marks[EM_FILTER_LOW] = low;
        marks[EM_FILTER_HIGH] = high;
        marks[EM_FILTER_ROWS] = 0;
    }
    const size_t have = (size_t)marks[EM_FILTER_ROWS];
    if (have >= need) return;
    // Twice as many at a time, so that a token at a time finds its row there.
    size_t end = need > 2 * have ? need : 2 * have;
    if (end < 64) end = 64;
    if (end > all) end = all;
    compute(c, have, end);
    marks[EM_FILTER_ROWS] = (int32_t)end;
}

// Gradients of the product y = x W_i^T + b_i: of W_i and b_i from dy, and of x into dx.
static void product_backward(struct block *b, size_t i, const float *x, size_t width, float *dy,
                             float *dx, bool accumulate)
{
    const struct em_call *c = b->call;
    const ember_tensor *w = weight(c, i);
    const unsigned at = (unsigned)(EM_FILTER_WEIGHTS + 2 * i);
    const size_t N = w->dim[0];
    if (em_wants(c, at))
        em_gemm(EM_GEMM_F32, N, width, b->rows, em_matmul_columns(dy, N), em_matmul_rows(x, width),
                em_f32(w->grad), width, &(struct em_gemm_epilogue){.accumulate = true},
                &b->transposed, c->exec->pool);
    if (bias(c, i) && em_wants(c, at + 1))
        em_add_column_sums(
            c->exec->pool,
            &(struct em_strip){.data = dy, .count = b->rows, .width = N, .stride = N},
            em_f32(bias(c, i)->grad));
    if (dx)
        em_gemm_packed(EM_GEMM_F32, b->rows, width, N, em_matmul_rows(dy, N),
                       em_packed(c, weight(c, i), EM_PACK_NN, true), dx, width,
                       &(struct em_gemm_epilogue){.accumulate = accumulate}, &b->product,
                       c->exec->pool);
}

static void backward_block(struct block *b)
{
    const struct em_call *c = b->call;
    const size_t E = em_last_dim(c->in[EM_FILTER_Z]);
    const bool normalise = em_attr_const(c, struct em_filter_attr)->normalise;
    forward_block(b, normalise);
    over_rows(b, window_backward_rows, 8 * b->channels);
    product_backward(b, b->hidden, activations(b, b->after, b->hidden - 1), b->W, b->m, b->gradient,
                     false);
    b->backward = true;
    for (b->layer = b->hidden; b->layer-- > 0;) {
        over_rows(b, sine_rows, b->W);
        if (em_wants(c, EM_FILTER_FREQUENCY))
            em_add_column_sums(
                c->exec->pool,
                &(struct em_strip){
                    .data = b->slope, .count = b->rows, .width = b->W, .stride = b->W},
                em_f32(c->in[EM_FILTER_FREQUENCY]->grad));
        if (b->layer > 0) {
            product_backward(b, b->layer, activations(b, b->after, b->layer - 1), b->W, b->gradient,
                             b->slope, false);
            float *swap = b->slope;
            b->slope = b->gradient;
            b->gradient = swap;
            continue;
        }
        ember_tensor *z = c->in[EM_FILTER_Z];
        product_backward(b, 0, em_f32(z) + b->first * E, E, b->gradient,
                         em_wants(c, EM_FILTER_Z) ? em_f32(z->grad) + b->first * E : NULL, true);
    }
}

static void backward(const struct em_call *c)
{
    struct block b = block_of(c, true);
    const size_t E = em_last_dim(c->in[EM_FILTER_Z]), rows = c->out[0]->dim[0];
    b.gradient = em_take_floats(c, BLOCK, b.W);
    b.slope = em_take_floats(c, BLOCK, b.W);
    b.transposed =
        em_matmul_scratch(c, em_gemm_unpacked_scratch_size(EM_GEMM_F32, E > b.W ? E : b.W, BLOCK,
                                                           em_pool_threads(c->exec->pool)));
    for (b.first = 0; b.first < rows; b.first += b.rows) {
        b.rows = rows - b.first < BLOCK ? rows - b.first : BLOCK;
        backward_block(&b);
    }
    if (!em_wants(c, EM_FILTER_SKIP)) return;
    float *dskip = em_f32(c->in[EM_FILTER_SKIP]->grad);
    em_kernels()->add_f32(dskip, dskip, em_f32(c->out[0]->grad), b.channels);
}

const struct em_op em_op_implicit_filter = {
    .name = "implicit_filter",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(em_filter_reference, em_filter_reference_backward)},
};

ember_status ember_implicit_filter(ember_flow *flow, const ember_filter_network *network,
                                   ember_tensor **k)
{
    const size_t hidden = network->hidden;
    if (!hidden || hidden > EMBER_FILTER_HIDDEN)
        return em_fail(EMBER_E_RANGE, "implicit_filter: 1 to %d layers of sines, not %zu",
                       EMBER_FILTER_HIDDEN, hidden);
    struct em_call *c =
        em_call_new(flow, &em_op_implicit_filter, (unsigned)(EM_FILTER_WEIGHTS + 2 * hidden + 1));
    if (!c) return EMBER_E_NOMEM;
    c->in[EM_FILTER_Z] = network->z;
    c->in[EM_FILTER_T] = network->t;
    c->in[EM_FILTER_DELTAS] = network->deltas;
    c->in[EM_FILTER_FREQUENCY] = network->frequency;
    c->in[EM_FILTER_SKIP] = network->skip;
    for (size_t i = 0; i <= hidden; i++) {
        c->in[EM_FILTER_WEIGHTS + 2 * i] = network->weight[i];
        if (i < hidden) c->in[EM_FILTER_WEIGHTS + 2 * i + 1] = network->bias[i];
    }
    struct em_filter_attr *a = em_attr(c, struct em_filter_attr);
    a->shift = network->shift;
    a->normalise = network->normalise;
    EM_TRY(em_record(flow, c));
    *k = c->out[0];
    return EMBER_OK;
}
