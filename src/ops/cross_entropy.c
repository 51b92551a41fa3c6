// Cross-entropy of a linear head: loss [1] = loss_scale * sum over scored tokens of
// -log softmax(x w^T + bias)[target], in nats. x [T, D], w [V, D], bias [V]; nll [T], 0 where not
// scored.
//
// Where x has a row for each sequence, that row has the target of the sequence's last place.
//
// [T, V] never exists: rows go through in chunks whose logits live in scratch. What the gradient
// needs is at hand then, so a forward that a backward follows computes it: dx of the loss into
// saved[0], dw and dbias added straight to the parameters' gradients, as if the loss's own gradient
// were 1. Backward makes up for it where it is not (the loss was scaled, or nll is part of a loss
// too), and does all of it for a recomputed region, whose forward runs twice. The chunks are gone
// through again then.
#include <math.h>

#include "base/sizes.h"
#include "kernels/kernels.h"
#include "ops/matmul.h"

enum { X, W, BIAS, INPUTS };
enum { LOSS, NLL, RIGHT };

struct attr {
    bool tells_right;
};

// Rows of a chunk: up to 64 MiB of logits, within bounds that keep matrix products efficient. Every
// chunk adds to the whole gradient of w, so few large ones beat those that stay in the caches. A
// function of V alone, as the order of sums follows it.
static size_t chunk_rows(size_t V)
{
    const size_t rows = ((size_t)1 << 24) / V / 16 * 16;
    return rows < 128 ? 128 : rows > 512 ? 512 : rows;
}

static int32_t target_of(const struct em_call *c, size_t row)
{
    const ember_batch *b = c->exec->batch;
    return b->targets[em_has_token_rows(c->in[X]) ? row : b->offset[row + 1] - 1];
}

static ember_status need_workspace(struct em_call *c)
{
    ember_tensor *x = c->in[X], *w = c->in[W];
    const enum em_gemm_type type = em_matmul_type(c, false);
    const size_t V = w->dim[0], D = w->dim[1], rows = em_min_size(x->dim[0], chunk_rows(V));
    const unsigned threads = em_call_threads(c);
    size_t bytes = 0, product = 0, gradient = 0;
    EM_TRY(em_add_scratch(c, x->dim[0], sizeof(int32_t) / sizeof(float), &bytes)); // scored rows
    EM_TRY(em_add_scratch(c, rows, V, &bytes));                                    // logits
    EM_TRY(em_add_scratch(c, rows, D, &bytes));                                    // gathered rows
    EM_TRY(em_need_packed(c, w, EM_PACK_NT, false));
    EM_TRY(em_add_matmul_scratch(c, em_gemm_scratch_size(threads), &product));
    if (em_is_training(c) && x->grad) EM_TRY(em_need_packed(c, w, EM_PACK_NN, false));
    if (em_is_training(c) && w->grad)
        EM_TRY(em_add_matmul_scratch(c, em_gemm_unpacked_scratch_size(type, D, rows, threads),
                                     &gradient));
    if (!em_add_size(bytes, product > gradient ? product : gradient, &bytes))
        return em_fail(EMBER_E_NOMEM, "cross_entropy: its scratch does not fit into memory");
    em_need_scratch(c, bytes);
    return EMBER_OK;
}

static ember_status shape(struct em_call *c)
{
    char text[2][96];
    ember_tensor *x = c->in[X], *w = c->in[W], *bias = c->in[BIAS];
    EM_TRY(em_check_f32(c, x, "x", 0));
    EM_TRY(em_check_f32(c, w, "w", 0));
    if (x->ndim != 2 || w->ndim != 2 || x->dim[1] != w->dim[1] || !w->dim[0] || !w->dim[1])
        return em_fail(EMBER_E_SHAPE, "cross_entropy: x is %s, w is %s",
                       em_shape_text(x, text[0], sizeof text[0]),
                       em_shape_text(w, text[1], sizeof text[1]));
    if (w->info || !em_is_contiguous(w))
        return em_fail(EMBER_E_SHAPE, "cross_entropy: w has to be a contiguous parameter");
    if (bias) {
        EM_TRY(em_check_f32(c, bias, "bias", w->dim[0]));
        if (bias->ndim != 1)
            return em_fail(EMBER_E_SHAPE, "cross_entropy: bias has to be [%zu], not %s", w->dim[0],
                           em_shape_text(bias, text[0], sizeof text[0]));
    }
    em_need_targets(c, w->dim[0]);
    EM_TRY(em_out(c, LOSS, EMBER_F32, (size_t[]){1}, 1));
    EM_TRY(em_out_rows(c, NLL, EMBER_F32, x, 1, NULL, 0));
    if (em_attr_const(c, struct attr)->tells_right)
        EM_TRY(em_out_rows(c, RIGHT, EMBER_I32, x, 1, NULL, 0));
    if (c->exec->backend == EM_REFERENCE) {
        size_t bytes = 0;
        EM_TRY(em_add_scratch(c, w->dim[0], sizeof(double) / sizeof(float), &bytes));
        em_need_scratch(c, bytes);
        return EMBER_OK;
    }
    EM_TRY(need_workspace(c));
    return x->grad ? em_saved_rows(c, 0, EMBER_F32, x, 1, x->dim + 1, 1) : EMBER_OK; // dx
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double T = (double)c->in[X]->dim[0], V = (double)c->in[W]->dim[0],
                 D = (double)c->in[W]->dim[1];
    const double product = 2 * T * V * D, read = 4 * (T * D + V * D + T * V);
    const double products =
        em_is_training(c) ? (c->in[X]->grad != NULL) + (c->in[W]->grad != NULL) : 0;
    *forward = (struct em_cost){product + 5 * T * V, read};
    *backward = (struct em_cost){products * product, products * read};
}

// One walk over the scored rows.
struct walk {
    const struct em_call *call;
    const int32_t *scored; // row numbers, ascending
    size_t count;
    bool gradient;      // logits become their gradient
    float factor;       // of every row's gradient,
    const float *extra; // [T] plus this row's; or NULL
    float *nll;         // [T], or NULL
    int32_t *right;     // [T], or NULL; only without gradients, which take the logits' place
    // the chunk
    const int32_t *rows;
    float *logits;
};

static bool is_largest(const float *z, size_t V, size_t target)
{
    for (size_t v = 0; v < V; v++)
        if (z[v] > z[target]) return false;
    return true;
}

static void softmax_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct walk *k = arg;
    const size_t V = k->call->in[W]->dim[0];
    for (size_t i = begin; i < end; i++) {
        const size_t row = (size_t)k->rows[i], target = (size_t)target_of(k->call, row);
        float *z = k->logits + i * V, nll;
        if (k->gradient)
            nll = em_kernels()->cross_entropy_f32(z, V, target,
                                                  k->factor + (k->extra ? k->extra[row] : 0));
        else
            nll = em_kernels()->logsumexp_f32(z, V) - z[target];
        if (k->right) k->right[row] = is_largest(z, V, target);
        if (k->nll) k->nll[row] = nll;
    }
}

// The gradient of a chunk's logits goes on to x and w. dx, rows `dx_stride` apart for all T rows,
// is set, or added to when `add`.
static void pass_on(const struct walk *k, size_t n, const float *x, size_t x_stride, bool gathered,
                    float *gather, const struct em_strip *dx, bool add)
{
    const struct em_call *c = k->call;
    const size_t V = c->in[W]->dim[0], D = c->in[W]->dim[1],
                 mark = em_scratch_mark(em_scratch_of(c));
    const enum em_gemm_type type = em_matmul_type(c, false);
    struct em_pool *pool = c->exec->pool;
    // First w, as the gathered rows of x make room for those of dx.
    if (em_wants(c, W)) {
        struct em_gemm_scratch scratch =
            em_matmul_scratch(c, em_gemm_unpacked_scratch_size(type, D, n, em_pool_threads(pool)));
        em_gemm(type, V, D, n, em_matmul_columns(k->logits, V), em_matmul_rows(x, x_stride),
                em_f32(c->in[W]->grad), D, &(struct em_gemm_epilogue){.accumulate = true}, &scratch,
                pool);
        em_scratch_reset(em_scratch_of(c), mark);
    }
    if (em_wants(c, BIAS)) {
        const struct em_strip rows = {k->logits, n, V, V};
        em_add_column_sums(pool, &rows, em_f32(c->in[BIAS]->grad));
    }
    if (!dx) return;
    float *to = gathered ? gather : em_strip_row(dx, (size_t)k->rows[0]);
    struct em_gemm_scratch scratch =
        em_matmul_scratch(c, em_gemm_scratch_size(em_pool_threads(pool)));
    em_gemm_packed(type, n, D, V, em_matmul_rows(k->logits, V),
                   em_packed(c, c->in[W], EM_PACK_NN, false), to, gathered ? D : dx->stride,
                   &(struct em_gemm_epilogue){.accumulate = add && !gathered}, &scratch, pool);
    em_scratch_reset(em_scratch_of(c), mark);
    for (size_t i = 0; gathered && i < n; i++) {
        float *row = em_strip_row(dx, (size_t)k->rows[i]);
        if (add)
            em_kernels()->add_f32(row, row, gather + i * D, D);
        else
            memcpy(row, gather + i * D, D * sizeof *row);
    }
}

static void walk(struct walk *k, const struct em_strip *dx, bool add)
{
    const struct em_call *c = k->call;
    const struct em_strip x = em_strip_of(c->in[X]);
    const size_t V = c->in[W]->dim[0], D = c->in[W]->dim[1],
                 chunk = em_min_size(x.count, chunk_rows(V));
    if (!k->count) return;
    k->logits = em_take_floats(c, chunk, V);
    float *gather = em_take_floats(c, chunk, D);
    const struct em_gemm_epilogue e = {.bias = c->in[BIAS] ? em_f32(c->in[BIAS]) : NULL};
    for (size_t begin = 0; begin < k->count; begin += chunk) {
        const size_t n = em_min_size(chunk, k->count - begin);
        k->rows = k->scored + begin;
        const bool gathered = (size_t)(k->rows[n - 1] - k->rows[0]) != n - 1;
        for (size_t i = 0; gathered && i < n; i++)
            memcpy(gather + i * D, em_strip_row(&x, (size_t)k->rows[i]), D * sizeof *gather);
        const float *from = gathered ? gather : em_strip_row(&x, (size_t)k->rows[0]);
        const size_t stride = gathered ? D : x.stride, mark = em_scratch_mark(em_scratch_of(c));
        struct em_gemm_scratch scratch =
            em_matmul_scratch(c, em_gemm_scratch_size(em_pool_threads(c->exec->pool)));
        em_gemm_packed(em_matmul_type(c, false), n, V, D, em_matmul_rows(from, stride),
                       em_packed(c, c->in[W], EM_PACK_NT, false), k->logits, V, &e, &scratch,
                       c->exec->pool);
        em_scratch_reset(em_scratch_of(c), mark);
        em_parallel(c->exec->pool, n, em_row_grain(V), softmax_rows, k);
        if (k->gradient) pass_on(k, n, from, stride, gathered, gather, dx, add);
    }
}

static size_t list_scored(const struct em_call *c, int32_t *scored)
{
    size_t n = 0;
    for (size_t t = 0; t < c->in[X]->dim[0]; t++)
        if (target_of(c, t) >= 0) scored[n++] = (int32_t)t;
    return n;
}

static bool gradient_in_forward(const struct em_call *c)
{
    return c->exec->gradients && c->region < 0 &&
           (em_wants(c, X) || em_wants(c, W) || em_wants(c, BIAS));
}

static void clear_rows(const struct em_strip *s)
{
    for (size_t r = 0; r < s->count; r++)
        memset(em_strip_row(s, r), 0, s->width * sizeof *s->data);
}

static void forward(const struct em_call *c)
{
    const size_t T = c->in[X]->dim[0];
    int32_t *scored = em_scratch_take(em_scratch_of(c), T * sizeof *scored);
    struct walk k = {.call = c,
                     .scored = scored,
                     .count = list_scored(c, scored),
                     .gradient = gradient_in_forward(c),
                     .factor = (float)c->exec->loss_scale,
                     .nll = em_f32(c->out[NLL])};
    const struct em_strip dx = em_recording(c) ? em_strip_of(c->saved[0]) : (struct em_strip){0};
    memset(k.nll, 0, T * sizeof *k.nll);
    if (em_attr_const(c, struct attr)->tells_right) {
        int32_t *right = em_i32(c->out[RIGHT]);
        memset(right, 0, T * sizeof *right);
        k.right = k.gradient ? NULL : right;
    }
    if (k.gradient && em_recording(c) && k.count < T) clear_rows(&dx);
    walk(&k, em_recording(c) ? &dx : NULL, false);
    double sum = 0;
    for (size_t t = 0; t < T; t++)
        sum += (double)k.nll[t];
    em_f32(c->out[LOSS])[0] = (float)(sum * c->exec->loss_scale);
}

static void add_saved_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const struct em_strip dx = em_strip_of(c->in[X]->grad), saved = em_strip_of(c->saved[0]);
    for (size_t r = begin; r < end; r++) {
        float *to = em_strip_row(&dx, r);
        if (em_fresh(c, X))
            memcpy(to, em_strip_row(&saved, r), dx.width * sizeof *to);
        else
            em_kernels()->add_f32(to, to, em_strip_row(&saved, r), dx.width);
    }
}

static void backward(const struct em_call *c)
{
    const size_t T = c->in[X]->dim[0];
    const bool done = gradient_in_forward(c);
    const struct em_strip dx = em_wants(c, X) ? em_strip_of(c->in[X]->grad) : (struct em_strip){0};
    if (em_wants(c, X) && done)
        em_over_rows(c, dx.count, dx.width, add_saved_rows);
    else
        em_zero_fresh(c, X);
    const float *dnll = em_f32(c->out[NLL]->grad);
    const double missing = (double)em_f32(c->out[LOSS]->grad)[0] - (done ? 1 : 0);
    bool any = missing != 0;
    for (size_t t = 0; t < T && !any; t++)
        any = dnll[t] != 0;
    if (!any) return;
    int32_t *scored = em_scratch_take(em_scratch_of(c), T * sizeof *scored);
    struct walk k = {.call = c,
                     .scored = scored,
                     .count = list_scored(c, scored),
                     .gradient = true,
                     .factor = (float)(missing * c->exec->loss_scale),
                     .extra = dnll};
    walk(&k, em_wants(c, X) ? &dx : NULL, true);
}

// z = x_t w^T + bias in double; returns log sum exp(z).
static double reference_logits(const struct em_call *c, size_t t, double *z)
{
    const struct em_strip x = em_strip_of(c->in[X]), w = em_strip_of(c->in[W]);
    double top = -INFINITY, sum = 0;
    for (size_t v = 0; v < w.count; v++) {
        z[v] = c->in[BIAS] ? (double)em_f32(c->in[BIAS])[v] : 0;
        for (size_t j = 0; j < w.width; j++)
            z[v] += (double)em_strip_row(&x, t)[j] * (double)em_strip_row(&w, v)[j];
        top = fmax(top, z[v]);
    }
    for (size_t v = 0; v < w.count; v++)
        sum += exp(z[v] - top);
    return top + log(sum);
}

static bool reference_is_largest(const struct em_call *c, const double *z, int32_t target)
{
    for (size_t v = 0; v < c->in[W]->dim[0]; v++)
        if (z[v] > z[target]) return false;
    return true;
}

static void reference_forward(const struct em_call *c)
{
    double *z = em_scratch_take(em_scratch_of(c), c->in[W]->dim[0] * sizeof *z), sum = 0;
    for (size_t t = 0; t < c->in[X]->dim[0]; t++) {
        const int32_t target = target_of(c, t);
        const double nll = target < 0 ? 0 : reference_logits(c, t, z) - z[target];
        em_f32(c->out[NLL])[t] = (float)nll;
        if (em_attr_const(c, struct attr)->tells_right)
            em_i32(c->out[RIGHT])[t] =
                target >= 0 && !c->exec->gradients && reference_is_largest(c, z, target);
        sum += nll;
    }
    em_f32(c->out[LOSS])[0] = (float)(sum * c->exec->loss_scale);
}

// dz = (softmax(z) - onehot(target)) * (dloss * loss_scale + dnll);  dx = dz w,  dw += dz x,  dbias
// += dz.
static void reference_backward(const struct em_call *c)
{
    const struct em_strip x = em_strip_of(c->in[X]), w = em_strip_of(c->in[W]);
    double *z = em_scratch_take(em_scratch_of(c), w.count * sizeof *z);
    em_zero_fresh(c, X);
    for (size_t t = 0; t < x.count; t++) {
        const int32_t target = target_of(c, t);
        if (target < 0) continue;
        const double top = reference_logits(c, t, z);
        const double factor = (double)em_f32(c->out[LOSS]->grad)[0] * c->exec->loss_scale +
                              (double)em_f32(c->out[NLL]->grad)[t];
        for (size_t v = 0; v < w.count; v++)
            z[v] = (exp(z[v] - top) - (v == (size_t)target)) * factor;
        for (size_t j = 0; em_wants(c, X) && j < w.width; j++) {
            double sum = 0;
            for (size_t v = 0; v < w.count; v++)
                sum += z[v] * (double)em_strip_row(&w, v)[j];
            em_row(c->in[X]->grad, t)[j] += (float)sum;
        }
        for (size_t v = 0; v < w.count; v++) {
            for (size_t j = 0; em_wants(c, W) && j < w.width; j++)
                em_row(c->in[W]->grad, v)[j] += (float)(z[v] * (double)em_strip_row(&x, t)[j]);
            if (em_wants(c, BIAS)) em_f32(c->in[BIAS]->grad)[v] += (float)z[v];
        }
    }
}

const struct em_op em_op_cross_entropy = {
    .name = "cross_entropy",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(X) | EM_READS_IN(W) | EM_READS_IN(BIAS),
    .flags = EM_OP_SETS_FRESH,
};

static ember_status record(ember_flow *flow, ember_tensor *const in[INPUTS], bool tells_right,
                           ember_tensor **out)
{
    ember_tensor *x = in[X];
    size_t each;
    if (!x || !em_has_sequence_rows(x, &each) || each > 1)
        EM_TRY(em_check_token_rows(flow, "cross_entropy", x));
    struct em_call *c = em_call_new(flow, &em_op_cross_entropy, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    memcpy(c->in, in, INPUTS * sizeof *in);
    em_attr(c, struct attr)->tells_right = tells_right;
    EM_TRY(em_record(flow, c));
    memcpy(out, c->out, (tells_right ? RIGHT + 1 : RIGHT) * sizeof *out);
    return EMBER_OK;
}

ember_status ember_cross_entropy(ember_flow *flow, ember_tensor *x, ember_tensor *w,
                                 ember_tensor *bias, ember_tensor **loss, ember_tensor **nll)
{
    ember_tensor *out[RIGHT];
    EM_TRY(record(flow, (ember_tensor *[]){x, w, bias}, false, out));
    *loss = out[LOSS];
    if (nll) *nll = out[NLL];
    return EMBER_OK;
}

ember_status ember_cross_entropy_right(ember_flow *flow, ember_tensor *x, ember_tensor *w,
                                       ember_tensor *bias, ember_tensor **loss, ember_tensor **nll,
                                       ember_tensor **right)
{
    ember_tensor *out[RIGHT + 1];
    EM_TRY(record(flow, (ember_tensor *[]){x, w, bias}, true, out));
    *loss = out[LOSS];
    if (nll) *nll = out[NLL];
    *right = out[RIGHT];
    return EMBER_OK;
}
