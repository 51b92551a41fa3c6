// LFM2's gated short convolution over packed sequences: bcx [T, 3D] = [B | C | X], u = B X,
//   y[t] = C[t] (sum_j w_j u[t - (L-1) + j] + bias).
// With dv = dy C: dC = dy v, dw_j = sum_t dv[t] u[t-(L-1)+j], du[s] = sum_j w_j dv[s+(L-1)-j], dB =
// du X, dX = du B. The state of a sequence is u of its last L-1 tokens; no gradient goes into it.
#include "kernels/kernels.h"
#include "ops/rows.h"

enum { BCX, W, BIAS, INPUTS };
// A piece of backward: its tokens' part of the weights' gradient is summed by itself, so there are
// not too many.
enum { TOKENS = 256, PIECES = 64 };

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

static ember_status shape(struct em_call *c)
{
    char text[2][96];
    const ember_tensor *x = c->in[BCX], *w = c->in[W], *bias = c->in[BIAS];
    EM_TRY(em_check_f32(c, x, "bcx", 0));
    EM_TRY(em_check_f32(c, w, "w", 0));
    if (x->ndim != 2 || w->ndim != 2 || x->dim[1] != 3 * w->dim[0] || !w->dim[1])
        return em_fail(
            EMBER_E_SHAPE, "short_conv: bcx is %s, w is %s; they have to be [T, 3D] and [D, L]",
            em_shape_text(x, text[0], sizeof text[0]), em_shape_text(w, text[1], sizeof text[1]));
    if (w->info || !em_is_contiguous(w))
        return em_fail(EMBER_E_SHAPE, "short_conv: w has to be a contiguous parameter");
    const size_t D = w->dim[0], L = w->dim[1];
    if (bias) EM_TRY(em_check_f32(c, bias, "bias", 0));
    if (bias && (bias->ndim != 1 || bias->dim[0] != D))
        return em_fail(EMBER_E_SHAPE, "short_conv: bias has to be [%zu], not %s", D,
                       em_shape_text(bias, text[0], sizeof text[0]));
    size_t bytes = 0, rows;
    EM_TRY(em_add_scratch(c, L, D, &bytes)); // taps
    // and the pieces' gradients of them and of the bias
    if (!em_mul_size(pieces_of(x->dim[0]), L + 1, &rows)) rows = SIZE_MAX;
    if (em_is_training(c)) EM_TRY(em_add_scratch(c, rows, D, &bytes));
    em_need_scratch(c, bytes);
    return em_out_rows(c, 0, EMBER_F32, x, 1, &D, 1);
}

static void cost(const struct em_call *c, struct em_cost *forward, struct em_cost *backward)
{
    const double n = em_elements(c->out[0]), L = (double)c->in[W]->dim[1];
    *forward = (struct em_cost){n * (2 * L + 2), 4 * 4 * n};
    *backward = (struct em_cost){n * (6 * L + 6), 4 * 10 * n};
}

// One sequence of the batch as the kernels want it. The history is read before it is replaced:
// forward writes the new one last, and backward runs only with states that are not overwritten in
// place.
static struct em_short_conv sequence(const struct em_call *c, const float *taps, size_t s)
{
    const struct em_strip x = em_strip_of(c->in[BCX]);
    const struct em_slot *in = em_slot_in(c, s);
    return (struct em_short_conv){
        .bcx = em_strip_row(&x, c->exec->batch->offset[s]),
        .bcx_stride = x.stride,
        .taps = taps,
        .bias = c->in[BIAS] ? em_f32(c->in[BIAS]) : NULL,
        .history = in ? in->fixed : NULL,
        .D = c->in[W]->dim[0],
        .L = c->in[W]->dim[1],
    };
}

struct work {
    const struct em_call *call;
    const float *taps;
    float *dweights; // [pieces][L + 1, D]: of the taps, of the bias
    size_t tokens;   // of a piece
};

static float *transposed_taps(const struct em_call *c)
{
    const size_t D = c->in[W]->dim[0], L = c->in[W]->dim[1];
    float *taps = em_take_floats(c, L, D);
    em_kernels()->transpose_f32(taps, em_f32(c->in[W]), D, L);
    return taps;
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
        em_kernels()->short_conv_f32(&k, em_strip_row(&y, offset[s]), y.stride, t - offset[s],
                                     stop - offset[s]);
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

static void backward_piece(const struct work *w, size_t piece)
{
    const struct em_call *c = w->call;
    const size_t D = c->in[W]->dim[0], L = c->in[W]->dim[1], *offset = c->exec->batch->offset;
    const size_t begin = piece * w->tokens, T = c->out[0]->dim[0];
    const size_t end = T - begin < w->tokens ? T : begin + w->tokens;
    const struct em_strip dy = em_strip_of(c->out[0]->grad);
    const struct em_strip dx =
        em_wants(c, BCX) ? em_strip_of(c->in[BCX]->grad) : (struct em_strip){0};
    float *dweights = w->dweights + piece * (L + 1) * D;
    memset(dweights, 0, (L + 1) * D * sizeof *dweights);
    for (size_t t = begin, s = em_sequence_of(c, begin); t < end; s++) {
        const size_t stop = offset[s + 1] < end ? offset[s + 1] : end;
        const struct em_short_conv k = sequence(c, w->taps, s);
        const struct em_short_conv_gradient d = {
            .dy = em_strip_row(&dy, offset[s]),
            .dy_stride = dy.stride,
            .T = offset[s + 1] - offset[s],
            .dbcx = dx.data ? em_strip_row(&dx, offset[s]) : NULL,
            .dbcx_stride = dx.stride,
            .set = em_fresh(c, BCX),
            .dtaps = em_wants(c, W) ? dweights : NULL,
            .dbias = em_wants(c, BIAS) ? dweights + L * D : NULL,
        };
        em_kernels()->short_conv_backward_f32(&k, &d, t - offset[s], stop - offset[s]);
        t = stop;
    }
}

static void backward_pieces(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    for (size_t i = begin; i < end; i++)
        backward_piece(arg, i);
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

// Part `p` (0: B, 1: C, 2: X) of token t of the sequence.
static double part(const struct view *v, size_t t, unsigned p, size_t d)
{
    return (double)em_row(v->c->in[BCX], v->start + t)[p * v->D + d];
}

// u of the token `back` before t.
static double u_before(const struct view *v, size_t t, size_t back, size_t d)
{
    if (back <= t) return part(v, t - back, 0, d) * part(v, t - back, 2, d);
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

static void reference_forward(const struct em_call *c)
{
    const ember_batch *b = c->exec->batch;
    for (size_t s = 0; s < b->n_sequences; s++) {
        const struct view v = view_of(c, s);
        const size_t T = b->offset[s + 1] - b->offset[s];
        for (size_t t = 0; t < T; t++)
            for (size_t d = 0; d < v.D; d++)
                em_row(c->out[0], v.start + t)[d] =
                    (float)(part(&v, t, 1, d) * convolved(&v, t, d));
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
    em_zero_fresh(c, BCX);
    for (size_t s = 0; s < b->n_sequences; s++) {
        const struct view v = view_of(c, s);
        const size_t T = b->offset[s + 1] - b->offset[s];
        for (size_t t = 0; t < T; t++)
            for (size_t d = 0; d < v.D; d++) {
                const double dy = (double)em_row(c->out[0]->grad, v.start + t)[d],
                             dv = dy * part(&v, t, 1, d);
                if (em_wants(c, BIAS)) em_f32(c->in[BIAS]->grad)[d] += (float)dv;
                for (size_t j = 0; em_wants(c, W) && j < v.L; j++)
                    em_f32(c->in[W]->grad)[d * v.L + j] +=
                        (float)(dv * u_before(&v, t, v.L - 1 - j, d));
                if (!em_wants(c, BCX)) continue;
                double du = 0;
                for (size_t j = 0; j < v.L; j++) { // token t is tap j of token t + (L-1) - j
                    const size_t at = t + v.L - 1 - j;
                    if (at >= T) continue;
                    du += (double)em_f32(c->in[W])[d * v.L + j] *
                          (double)em_row(c->out[0]->grad, v.start + at)[d] * part(&v, at, 1, d);
                }
                float *dx = em_row(c->in[BCX]->grad, v.start + t);
                dx[d] += (float)(du * part(&v, t, 2, d));
                dx[v.D + d] += (float)(dy * convolved(&v, t, d));
                dx[2 * v.D + d] += (float)(du * part(&v, t, 0, d));
            }
    }
}

const struct em_op em_op_short_conv = {
    .name = "short_conv",
    .shape = shape,
    .cost = cost,
    .backend = {[EM_CPU] = EM_PASSES(forward, backward),
                [EM_REFERENCE] = EM_PASSES(reference_forward, reference_backward)},
    .backward_reads = EM_READS_IN(BCX) | EM_READS_IN(W) | EM_READS_IN(BIAS),
    .flags = EM_OP_SETS_FRESH,
};

ember_status ember_short_conv(ember_flow *flow, ember_tensor *bcx, ember_tensor *w,
                              ember_tensor *bias, ember_tensor **y)
{
    EM_TRY(em_check_token_rows(flow, "short_conv", bcx));
    struct em_call *c = em_call_new(flow, &em_op_short_conv, INPUTS);
    if (!c) return EMBER_E_NOMEM;
    c->in[BCX] = bcx;
    c->in[W] = w;
    c->in[BIAS] = bias;
    if (w && w->ndim == 2 && w->dim[1])
        EM_TRY(em_need_state(
            flow, c,
            &(struct em_state_spec){.name = "short_conv", .fixed = w->dim[0] * (w->dim[1] - 1)}));
    EM_TRY(em_record(flow, c));
    *y = c->out[0];
    return EMBER_OK;
}
