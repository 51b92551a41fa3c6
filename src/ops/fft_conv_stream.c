// States of the causal long convolution: an online convolution. Van der Hoeven 2002, "Relax, but
// don't be too lazy"; Oncescu et al. 2024, "Flash Inference", arXiv:2410.12982.
//
// A block of B = 2^p tokens, when it ends at token t (B the largest power of 2 that divides t),
// meets the B tokens after it: its part of their sums is computed by one transform and kept as
// pending. Whatever pair of tokens there is, it meets so exactly once, but for the blocks in which
// a call computes several tokens together. Blocks are as large as the kernel has lags at most, as
// tokens further apart do not meet.
#include "ops/fft_conv.h"

#include "base/sizes.h"

struct stream {
    const struct em_fft_conv_group *g;
    size_t s, seen, now, block; // tokens before this batch, and after it
    size_t row, column;         // floats of a token in the state; where its pending sums stand
    struct em_fft_conv_pending pending; // after the batch
    const struct em_slot *in;
    struct em_slot *out;
    float *rows; // sums of this batch's tokens
};

static void add_lanes(float *to, const float *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] += from[i];
}

// Where sums for token q are collected; NULL: nobody asks for it.
static float *sums_of(const struct stream *x, size_t q)
{
    if (q < x->now) return x->rows + (q - x->seen) * EM_FC_LANES;
    return x->out ? x->out->tokens + (q - x->pending.base) * x->row + x->column : NULL;
}

// o[j] = sum_i k[lag + j - i] v[i] for the last `count` of lags that are there; few tokens.
static void meet_directly(const struct stream *x, size_t from, size_t inputs, size_t to,
                          size_t outputs, size_t lag)
{
    struct em_fft_conv_scratch *c = x->g->scratch;
    em_fft_conv_signal(x->g, x->s, x->seen, from, from + inputs, c->signal);
    for (size_t j = 0; j < outputs; j++) {
        float *sum = sums_of(x, to + j), total[EM_FC_LANES] = {0};
        if (!sum) return;
        for (size_t i = 0; i < inputs && i <= lag + j; i++)
            em_kernels()->muladd_f32(total, c->signal + i * EM_FC_LANES,
                                     c->taps + (lag + j - i) * EM_FC_LANES, x->g->lanes);
        add_lanes(sum, total, x->g->lanes);
    }
}

// By a transform of N numbers, N = inputs = outputs: those that come after the inputs, with lags
// from `first` on, or the inputs' own places.
static void meet_by_transform(const struct stream *x, size_t from, size_t to, size_t N,
                              size_t first, size_t least, bool own)
{
    struct em_fft_conv_scratch *c = x->g->scratch;
    em_fft_conv_spectrum(x->g, N, first, own ? N : 2 * N);
    em_fft_conv_signal(x->g, x->s, x->seen, from, from + N, c->signal);
    em_kernels()->fft_read_f32(
        c->work, N, 0,
        &(struct em_fft_rows){
            .x = c->signal, .stride = EM_FC_LANES, .count = N, .lanes = x->g->lanes});
    em_kernels()->fft_convolve_f32(c->work, c->spectrum, N);
    em_kernels()->fft_take_f32(c->signal, c->work, N, own ? 0 : N, N, false);
    for (size_t j = least > to ? least - to : 0; j < N; j++) {
        float *sum = sums_of(x, to + j);
        if (!sum) return;
        add_lanes(sum, c->signal + j * EM_FC_LANES, x->g->lanes);
    }
}

// The block of `size` tokens before `at` meets the tokens after it; only sums for tokens from
// `least` on are missing.
static void meet(const struct stream *x, size_t at, size_t size, size_t least)
{
    if (at + size <= least || (!x->out && at >= x->now)) return;
    if (size <= EM_FC_DIRECT) {
        const size_t skip = least > at ? least - at : 0;
        meet_directly(x, at - size, size, at + skip, size - skip, size + skip);
        return;
    }
    const size_t part = em_min_size(size, EM_FC_LARGEST);
    for (size_t to = least > at ? (least - at) / part * part : 0; to < size; to += part)
        for (size_t from = 0; from < size; from += part)
            meet_by_transform(x, at - size + from, at + to, part, size + to - from - part, least,
                              false);
}

// The tokens of [at, at + size) among themselves.
static void meet_inside(const struct stream *x, size_t at, size_t size)
{
    if (size <= EM_FC_DIRECT)
        meet_directly(x, at, size, at, size, 0);
    else
        meet_by_transform(x, at, at, size, 0, at, true);
}

// What was pending: into this batch's sums, and over to the new state.
static void take_pending(const struct stream *x)
{
    const struct em_fft_conv_pending old = em_fft_conv_pending(x->seen, x->block);
    const size_t lanes = x->g->lanes * sizeof(float);
    memset(x->rows, 0, (x->now - x->seen) * EM_FC_LANES * sizeof *x->rows);
    for (size_t q = x->seen; q < old.end && q < x->now; q++)
        memcpy(x->rows + (q - x->seen) * EM_FC_LANES,
               x->in->tokens + (q - old.base) * x->row + x->column, lanes);
    const bool same = x->seen && old.end == x->pending.end;
    for (size_t q = x->now; x->out && q < x->pending.end; q++) {
        float *to = x->out->tokens + (q - x->pending.base) * x->row + x->column;
        if (!same)
            memset(to, 0, lanes);
        else if (x->in != x->out)
            memcpy(to, x->in->tokens + (q - old.base) * x->row + x->column, lanes);
    }
}

// A fresh sequence: its tokens meet at once, and the blocks that the last token leaves open make
// the pending sums.
static void begin_sequence(const struct stream *x)
{
    em_fft_conv_whole(x->g, x->s, x->rows);
    size_t at = 0;
    for (size_t rest = x->now; x->out && rest; rest = x->now - at) {
        size_t size = x->block;
        while (size > rest)
            size /= 2;
        at += rest / size * size;
        meet(x, at, size, x->now);
    }
}

static void go_on(const struct stream *x)
{
    const size_t most = x->g->f->attr.exact ? EM_FC_DIRECT : EM_FC_LARGEST;
    for (size_t at = x->seen; at < x->now;) {
        size_t size = em_min_size(at ? em_fft_conv_meets(at, x->block) : x->block, most);
        while (size > x->now - at)
            size /= 2;
        meet_inside(x, at, size);
        at += size;
        meet(x, at, em_fft_conv_meets(at, x->block), at);
    }
}

static struct stream stream_of(const struct em_fft_conv_group *g, size_t s, float *rows)
{
    const struct em_call *c = g->f->call;
    const size_t *offset = c->exec->batch->offset;
    struct stream x = {.g = g, .s = s, .rows = rows, .block = g->f->attr.block};
    x.seen = em_fft_conv_seen(g->f, s);
    x.now = x.seen + offset[s + 1] - offset[s];
    x.row = em_fft_conv_row(g->f);
    x.column = em_fft_conv_inputs(g->f) + g->i * g->f->D + g->channel;
    x.pending = em_fft_conv_pending(x.now, x.block);
    x.in = x.seen ? em_slot_in(c, s) : NULL;
    x.out = c->slot >= 0 ? em_slot_out(c, s) : NULL;
    return x;
}

static void keep_inputs(const struct stream *x)
{
    const struct em_fft_conv_group *g = x->g;
    const struct em_call *c = g->f->call;
    const ember_tensor *u = c->in[EM_FC_U], *pre = c->in[EM_FC_PRE];
    const size_t lanes = g->lanes * sizeof(float), start = c->exec->batch->offset[x->s],
                 D = g->f->D;
    const bool two = g->f->d > 1;
    if (x->in && x->in != x->out)
        for (size_t r = 0; r < x->block && r < x->seen; r++)
            for (int part = 0; part < (two ? 2 : 1); part++)
                memcpy(x->out->tokens + r * x->row + (size_t)part * D + g->channel,
                       x->in->tokens + r * x->row + (size_t)part * D + g->channel, lanes);
    for (size_t q = x->now - em_min_size(x->now - x->seen, x->block); q < x->now; q++) {
        float *to = x->out->tokens + q % x->block * x->row + g->channel;
        const size_t t = start + q - x->seen;
        if (two) {
            memcpy(to, em_row(u, t) + g->channel, lanes);
            memcpy(to + D, em_row(pre, t) + g->channel, lanes);
        } else if (pre) {
            em_kernels()->mul_f32(to, em_row(u, t) + g->channel, em_row(pre, t) + g->channel,
                                  g->lanes);
        } else {
            memcpy(to, em_row(u, t) + g->channel, lanes);
        }
    }
}

static void read_first_taps(const struct em_fft_conv_group *g)
{
    const struct em_fft_conv *f = g->f;
    const ember_tensor *k = f->call->in[EM_FC_K];
    for (size_t j = 0; j < (size_t)2 * EM_FC_DIRECT; j++)
        for (size_t lane = 0; lane < g->lanes; lane++)
            g->scratch->taps[j * EM_FC_LANES + lane] =
                j < f->taps ? em_f32(k)[em_fft_conv_tap(f, k, (g->channel + lane) / f->d, j)] : 0;
}

void em_fft_conv_stream(const struct em_fft_conv_group *g, size_t s, float *rows)
{
    const struct stream x = stream_of(g, s, rows);
    read_first_taps(g);
    take_pending(&x);
    if (x.seen || g->f->attr.exact)
        go_on(&x);
    else
        begin_sequence(&x);
}

void em_fft_conv_keep(const struct em_fft_conv_group *g)
{
    const struct em_call *c = g->f->call;
    for (size_t s = 0; c->slot >= 0 && s < c->exec->batch->n_sequences; s++) {
        const struct stream x = stream_of(g, s, NULL);
        if (x.out) keep_inputs(&x);
    }
}
