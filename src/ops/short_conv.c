// Short causal convolutions over packed sequences, one channel by itself, w [D, L]:
//   short_conv, LFM2's gated form: bcx [T, 3D] = [B | C | X], u = B X, y = C v
//   depthwise_conv, the plain form: u = x, y = act(v)
// with v[t] = sum_j w_j u[t - (L-1) + j] + bias. Backward, with dv = dy C or dy act'(v): dC = dy v,
// dw_j = sum_t dv[t] u[t-(L-1)+j], du[s] = sum_j w_j dv[s+(L-1)-j], dB = du X, dX = du B. v is
// computed again for act'. The state of a sequence is u of its last L-1 tokens; no gradient goes
// into it.
#include "kernels/kernels.h"
#include "ops/activation.h"

enum { X, W, BIAS, INPUTS };
// A piece of backward: its tokens' part of the weights' gradient is summed by itself, so there are
// not too many.
enum { TOKENS = 256, PIECES = 64 };

struct attr {
    bool gated;
    enum em_activation activation;
};

// Parts of a row of x, each D wide: B, C, X, or X alone.
static size_t parts(const struct em_call *c)
{
    return em_attr_const(c, struct attr)->gated ? 3 : 1;
}

static bool is_active(const struct em_call *c)
{
    return em_attr_const(c, struct attr)->activation != EM_IDENTITY;
}

// Tokens of a piece: a function of T alone, as the order of sums follows it.
static size_t piece_tokens(size_t T)
{
    const size_t tokens = T / PIECES + 1;
    return tokens < TOKENS ? TOKENS : tokens;
}

static size_t pieces_of(size_t T)
{
    const size_t tokens = piece_tokens(T);
    return T / tokens + (T % tokens != 0);
}

// With an activation a piece is done so many tokens at a time, for which dv takes memory.
static size_t chunk_tokens(size_t L)
{
    return L > 32 ? 2 * L : 64;
}

static ember_status shape(struct em_call *c)
{
    char text[2][96];
    const ember_tensor *x = c->in[X], *w = c->in[W], *bias = c->in[BIAS];
    const bool gated = em_attr_const(c, struct attr)->gated;
    const char *name = c->op->name, *what = gated ? "bcx" : "x";
    EM_TRY(em_check_f32(c, x, what, 0));
    EM_TRY(em_check_f32(c, w, "w", 0));
    if (x->ndim != 2 || w->ndim != 2 || x->dim[1] % parts(c) || x->dim[1] / parts(c) != w->dim[0] ||
        !w->dim[1])
        return em_fail(EMBER_E_SHAPE, "%s: %s is %s, w is %s; they have to be [T, %sD] and [D, L]",
                       name, what, em_shape_text(x, text[0], sizeof text[0]),
                       em_shape_text(w, text[1], sizeof text[1]), gated ? "3" : "");
    if (w->info || !em_is_contiguous(w))
        return em_fail(EMBER_E_SHAPE, "%s: w has to be a contiguous parameter", name);
    const size_t D = w->dim[0], L = w->dim[1];
    if (bias) EM_TRY(em_check_f32(c, bias, "bias", 0));
    if (bias && (bias->ndim != 1 || bias->dim[0] != D))
        return em_fail(EMBER_E_SHAPE, "%s: bias has to be [%zu], not %s", name, D,
                       em_shape_text(bias, text[0], sizeof text[0]));
    size_t bytes = 0, rows;
    EM_TRY(em_add_scratch(c, L, D, &bytes)); // taps
    // and the pieces' gradients of them and of the bias
    if (!em_mul_size(pieces_of(x->dim[0]), L + 1, &rows)) rows = SIZE_MAX;
    if (em_is_training(c)) EM_TRY(em_add_scratch(c, rows, D, &bytes));
    // and each thread's v and dv
    if (em_is_training(c) && is_active(c)) {
        if (!em_mul_size(2 * (chunk_tokens(L) + L), em_call_threads(c), &rows)) rows = SIZE_MAX;
        EM_TRY(em_add_scratch(c, rows, D, &bytes));
    }
    em_need_scratch(c, bytes);
    return em_out_rows(c, 0, EMBER_F32, x, 1, &D, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]), L = (double)c->in[W]->dim[1];
    const double more = em_attr_const(c, struct attr)->gated || is_active(c) ? 1 : 0;
    *forward = (struct em_cost){n * (2 * L + 2 * more), 4 * n * ((double)parts(c) + 1)};
    *backward =
        (struct em_cost){n * (4 * L + (2 * L + 6) * more), 4 * n * (3 * (double)parts(c) + 1)};
}

// One sequence of the batch as the kernels want it. The history is read before it is replaced:
// forward writes the new one last, and backward runs only with states that are not overwritten in
// place.
static struct em_short_conv sequence(const struct em_call *c, const float *taps, size_t s)
{
    const struct em_strip x = em_strip_of(c->in[X]);
    const struct em_slot *in = em_slot_in(c, s);
    const float *row = em_strip_row(&x, c->exec->batch->offset[s]);
    const size_t D = c->in[W]->dim[0];
    const bool gated = em_attr_const(c, struct attr)->gated;
    return (struct em_short_conv){
        .x = gated ? row + 2 * D : row,
        .b = gated ? row : NULL,
        .c = gated ? row + D : NULL,
        .stride = x.stride,
        .taps = taps,
        .bias = c->in[BIAS] ? em_f32(c->in[BIAS]) : NULL,
        .history = in ? in->fixed : NULL,
        .D = D,
        .L = c->in[W]->dim[1],
    };
}

struct work {
    const struct em_call *call;
    const float *taps;
    float *dweights; // [pieces][L + 1, D]: of the taps, of the bias
    float *values;   // [threads][2][chunk + L, D]: v and dv, with an activation
    size_t tokens;   // of a piece
};

static float *transposed_taps(const struct em_call *c)
{
    const size_t D = c->in[W]->dim[0], L = c->in[W]->dim[1];
    float *taps = em_take_floats(c, L, D);
    em_kernels()->transpose_f32(taps, em_f32(c->in[W]), D, L);
    return taps;
}

// Tokens [begin, end) of a sequence, the first of which has row 0 of y; the activation while they
// are in the first-level cache.
static void forward_part(const struct em_call *c, const struct em_short_conv *k, float *y,
                         size_t stride, size_t begin, size_t end)
{
    const size_t grain = is_active(c) ? em_row_grain(k->D) + 8 : end - begin;
    for (size_t t = begin; t < end; t += grain) {
        const size_t stop = end - t < grain ? end : t + grain;
        float *row = y + (t - begin) * stride;
        em_kernels()->short_conv_f32(k, row, stride, t, stop);
        for (size_t r = t; is_active(c) && r < stop; r++, row += stride)
            em_kernels()->activation_f32(em_attr_const(c, struct attr)->activation, row, row, k->D);
    }
}

// Tokens [begin, end) of the batch, whichever sequences they belong to.
static void forward_tokens(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct work *w = arg;
    const size_t *offset = w->call->exec->batch->offset;
    const struct em_strip y = em_strip_of(w->call->out[0]);
    for (size_t t = begin, s = em_sequence_of(w->call, begin); t < end; s++) {
        const size_t stop = offset[s + 1] < end ? offset[s + 1] : end;
        const struct em_short_conv k = sequence(w->call, w->taps, s);
        forward_part(w->call, &k, em_strip_row(&y, t), y.stride, t - offset[s], stop - offset[s]);
        t = stop;
    }
}

static void write_histories(const struct em_call *c, const float *taps)
{
    const ember_batch *b = c->exec->batch;
    for (size_t s = 0; c->in[W]->dim[1] > 1 && s < b->n_sequences; s++) {
        struct em_slot *out = em_slot_out(c, s);
        if (!out) continue;
        const struct em_short_conv k = sequence(c, taps, s);
        em_kernels()->short_conv_history_f32(&k, out->fixed, b->offset[s + 1] - b->offset[s]);
    }
}

static void forward(const struct em_call *c)
{
    struct work w = {.call = c, .taps = transposed_taps(c)};
    const size_t T = c->out[0]->dim[0];
    if (T) em_parallel(c->exec->pool, T, em_row_grain(4 * c->in[W]->dim[0]), forward_tokens, &w);
    write_histories(c, w.taps);
}

// Backward of tokens [begin, end) of a sequence through the activation: dv of a few tokens, and of
// the L - 1 after them, takes the place of dy.
static void backward_active(const struct work *w, const struct em_short_conv *k,
                            const struct em_short_conv_gradient *d, size_t begin, size_t end,
                            unsigned thread)
{
    const struct em_call *c = w->call;
    const size_t chunk = chunk_tokens(k->L), room = (chunk + k->L) * k->D;
    float *v = w->values + thread * 2 * room, *dv = v + room;
    for (size_t t = begin; t < end; t += chunk) {
        const size_t stop = end - t < chunk ? end : t + chunk;
        const size_t after = d->T - stop < k->L - 1 ? d->T : stop + k->L - 1;
        struct em_short_conv_gradient part = *d;
        part.dy = dv;
        part.dy_stride = k->D;
        part.dy_first = t;
        part.T = after;
        em_kernels()->short_conv_f32(k, v, k->D, t, after);
        for (size_t r = t; r < after; r++)
            em_kernels()->activation_backward_f32(
                em_attr_const(c, struct attr)->activation, dv + (r - t) * k->D, true,
                d->dy + r * d->dy_stride, v + (r - t) * k->D, k->D);
        em_kernels()->short_conv_backward_f32(k, &part, t, stop);
    }
}

static void backward_piece(const struct work *w, size_t piece, unsigned thread)
{
    const struct em_call *c = w->call;
    const size_t D = c->in[W]->dim[0], L = c->in[W]->dim[1], *offset = c->exec->batch->offset;
    const size_t begin = piece * w->tokens, T = c->out[0]->dim[0];
    const size_t end = T - begin < w->tokens ? T : begin + w->tokens;
    const struct em_strip dy = em_strip_of(c->out[0]->grad);
    const struct em_strip dx = em_wants(c, X) ? em_strip_of(c->in[X]->grad) : (struct em_strip){0};
    const bool gated = em_attr_const(c, struct attr)->gated;
    float *dweights = w->dweights + piece * (L + 1) * D;
    memset(dweights, 0, (L + 1) * D * sizeof *dweights);
    for (size_t t = begin, s = em_sequence_of(c, begin); t < end; s++) {
        const size_t stop = offset[s + 1] < end ? offset[s + 1] : end;
        const struct em_short_conv k = sequence(c, w->taps, s);
        struct em_short_conv_gradient d = {
            .dy = em_strip_row(&dy, offset[s]),
            .dy_stride = dy.stride,
            .T = offset[s + 1] - offset[s],
            .dx_stride = dx.stride,
            .set = em_fresh(c, X),
            .dtaps = em_wants(c, W) ? dweights : NULL,
            .dbias = em_wants(c, BIAS) ? dweights + L * D : NULL,
        };
        if (dx.data) {
            float *row = em_strip_row(&dx, offset[s]);
            d.dx = gated ? row + 2 * D : row;
            d.db = gated ? row : NULL;
            d.dc = gated ? row + D : NULL;
        }
        if (is_active(c))
            backward_active(w, &k, &d, t - offset[s], stop - offset[s], thread);
        else
            em_kernels()->short_conv_backward_f32(&k, &d, t - offset[s], stop - offset[s]);
        t = stop;
    }
}

static void backward_pieces(void *arg, size_t begin, size_t end, unsigned thread)
{
    for (size_t i = begin; i < end; i++)
        backward_piece(arg, i, thread);
}

// The pieces' gradients, in order.
static void add_weights(const struct work *w, size_t pieces)
{
    const struct em_call *c = w->call;
    const size_t D = c->in[W]->dim[0], L = c->in[W]->dim[1];
    for (size_t i = 1; i < pieces; i++)
        em_kernels()->add_f32(w->dweights, w->dweights, w->dweights + i * (L + 1) * D, (L + 1) * D);
    for (size_t d = 0; em_wants(c, W) && d < D; d++)
        for (size_t j = 0; j < L; j++)
            em_f32(c->in[W]->grad)[d * L + j] += w->dweights[j * D + d];
    if (em_wants(c, BIAS)) {
        float *dbias = em_f32(c->in[BIAS]->grad);
        em_kernels()->add_f32(dbias, dbias, w->dweights + L * D, D);
    }
}

static void backward(const struct em_call *c)
{
    const size_t D = c->in[W]->dim[0], L = c->in[W]->dim[1], T = c->out[0]->dim[0];
    const size_t pieces = pieces_of(T);
    struct work w = {.call = c, .taps = transposed_taps(c), .tokens = piece_tokens(T)};
    if (!pieces) return;
    w.dweights = em_take_floats(c, pieces * (L + 1), D);
    if (is_active(c))
        w.values = em_take_floats(c, 2 * (chunk_tokens(L) + L) * em_call_threads(c), D);
    em_parallel(c->exec->pool, pieces, 1, backward_pieces, &w);
    add_weights(&w, pieces);
}

// ---- reference ----

struct view {
    const struct em_call *c;
    const float *history;
    size_t start, D, L;
};

static struct view view_of(const struct em_call *c, size_t s)
{
    const struct em_slot *in = em_slot_in(c, s);
    return (struct view){c, in ? in->fixed : NULL, c->exec->batch->offset[s], c->in[W]->dim[0],
                         c->in[W]->dim[1]};
}

enum part { PART_B, PART_C, PART_X };

// One of them at token t of the sequence; the plain form has gates of 1.
static double part(const struct view *v, size_t t, enum part p, size_t d)
{
    const float *row = em_row(v->c->in[X], v->start + t);
    if (em_attr_const(v->c, struct attr)->gated) return (double)row[p * v->D + d];
    return p == PART_X ? (double)row[d] : 1;
}

// u of the token `back` before t.
static double u_before(const struct view *v, size_t t, size_t back, size_t d)
{
    if (back <= t) return part(v, t - back, PART_B, d) * part(v, t - back, PART_X, d);
    const size_t ago = back - t; // 1: the last row of the history
    return v->history ? (double)v->history[(v->L - 1 - ago) * v->D + d] : 0;
}

static double convolved(const struct view *v, size_t t, size_t d)
{
    double sum = v->c->in[BIAS] ? (double)em_f32(v->c->in[BIAS])[d] : 0;
    for (size_t j = 0; j < v->L; j++)
        sum += (double)em_f32(v->c->in[W])[d * v->L + j] * u_before(v, t, v->L - 1 - j, d);
    return sum;
}

// act(v), and its slope at v.
static double activated(const struct view *v, size_t t, size_t d, double *slope)
{
    return em_activation_reference(em_attr_const(v->c, struct attr)->activation, convolved(v, t, d),
                                   slope);
}

static double dv_of(const struct view *v, size_t t, size_t d)
{
    double slope;
    activated(v, t, d, &slope);
    return (double)em_row(v->c->out[0]->grad, v->start + t)[d] * part(v, t, PART_C, d) * slope;
}

static void reference_forward(const struct em_call *c)
{
    const ember_batch *b = c->exec->batch;
    for (size_t s = 0; s < b->n_sequences; s++) {
        const struct view v = view_of(c, s);
        const size_t T = b->offset[s + 1] - b->offset[s];
        for (size_t t = 0; t < T; t++)
            for (size_t d = 0; d < v.D; d++) {
                double slope;
                em_row(c->out[0], v.start + t)[d] =
                    (float)(part(&v, t, PART_C, d) * activated(&v, t, d, &slope));
            }
        struct em_slot *out = em_slot_out(c, s);
        // Ascending rows: each reads only rows after itself, so in and out may be the same.
        for (size_t r = 0; out && r + 1 < v.L; r++)
            for (size_t d = 0; d < v.D; d++)
                out->fixed[r * v.D + d] = (float)u_before(&v, T - 1, v.L - 2 - r, d);
    }
}

static void reference_backward(const struct em_call *c)
{
    const ember_batch *b = c->exec->batch;
    em_zero_fresh(c, X);
    for (size_t s = 0; s < b->n_sequences; s++) {
        const struct view v = view_of(c, s);
        const size_t T = b->offset[s + 1] - b->offset[s];
        for (size_t t = 0; t < T; t++)
            for (size_t d = 0; d < v.D; d++) {
                const double dv = dv_of(&v, t, d);
                if (em_wants(c, BIAS)) em_f32(c->in[BIAS]->grad)[d] += (float)dv;
                for (size_t j = 0; em_wants(c, W) && j < v.L; j++)
                    em_f32(c->in[W]->grad)[d * v.L + j] +=
                        (float)(dv * u_before(&v, t, v.L - 1 - j, d));
                if (!em_wants(c, X)) continue;
                double du = 0;
                for (size_t j = 0; j < v.L; j++) { // token t is tap j of token t + (L-1) - j
                    const size_t at = t + v.L - 1 - j;
                    if (at >= T) continue;
                    du += (double)em_f32(c->in[W])[d * v.L + j] * dv_of(&v, at, d);
                }
                float *dx = em_row(c->in[X]->grad, v.start + t);
                if (!em_attr_const(c, struct attr)->gated) {
                    dx[d] += (float)du;
                    continue;
                }
                const double dy = (double)em_row(c->out[0]->grad, v.start + t)[d];
                dx[d] += (float)(du * part(&v, t, PART_X, d));
                dx[v.D + d] += (float)(dy * convolved(&v, t, d));
                dx[2 * v.D + d] += (float)(du * part(&v, t, PART_B, d));
            }
    }
}

#define SHORT_CONV(text)                                                                           \
    {                                                                                              \
        .name = text, .shape = shape, .cost = cost,                                                \
        .backend = {[EM_CPU] = EM_PASSES(forward, backward),                                       \
                    [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},            \
        .backward_reads = EM_READS_IN(X) | EM_READS_IN(W) | EM_READS_IN(BIAS),                     \
        .flags = EM_OP_SETS_FRESH | EM_OP_REPEATS | EM_OP_ROW_WISE,                                \
    }

const struct em_op em_op_short_conv = SHORT_CONV("short_conv");
const struct em_op em_op_depthwise_conv = SHORT_CONV("depthwise_conv");

static ember_status record(ember_flow *flow, const struct em_op *op, const struct attr *attr,
                           ember_tensor *const in[INPUTS], ember_tensor **y)
{
    EM_TRY(em_check_token_rows(flow, op->name, in[X]));
    struct em_call *c = em_call_new(flow, op, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    memcpy(c->in, in, INPUTS * sizeof *in);
    *em_attr(c, struct attr) = *attr;
    const ember_tensor *w = in[W];
    if (w && w->ndim == 2 && w->dim[1])
        EM_TRY(em_need_state(
            flow, c,
            &(struct em_state_spec){.name = op->name, .fixed = w->dim[0] * (w->dim[1] - 1)}));
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}

ember_status ember_short_conv(ember_flow *flow, ember_tensor *bcx, ember_tensor *w,
                              ember_tensor *bias, ember_tensor **y)
{
    return record(flow, &em_op_short_conv, &(struct attr){.gated = true},
                  (ember_tensor *[INPUTS]){bcx, w, bias}, y);
}

ember_status ember_depthwise_conv(ember_flow *flow, ember_tensor *x, ember_tensor *w,
                                  ember_tensor *bias, ember_activation_kind activation,
                                  ember_tensor **y)
{
    struct attr attr = {.gated = false};
    EM_TRY(em_activation_of("depthwise_conv", activation, &attr.activation));
    return record(flow, &em_op_depthwise_conv, &attr, (ember_tensor *[INPUTS]){x, w, bias}, y);
}
