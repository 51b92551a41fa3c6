// Short depthwise causal convolution, with gates or plain. This file is compiled once per
// instruction set.
//
// Channels are the lanes. The last L rows of u = B X (and of dv = dy C, backward; B = C = 1 in the
// plain form, for which each function is compiled again without them) go round in small
// buffers on the stack, a block of channels at a time: rows of [B | C | X] are 12 D bytes apart,
// and where D is a power of two, reading several of them at the same channel makes their lines
// fight for one set of the first-level cache (D = 1024, backward: 4x slower). Past MOST taps, which
// nobody uses, u is computed again for each tap instead.
#include "base/sizes.h"
#include "kernels/kernels_isa.h"
#include "kernels/simd/f32.h"

// u[t] of `m` channels from c on; t counts from the first token, negative is history. The history
// has L-1 rows, the last of them at t = -1.
static inline vf32 gate_at(const struct em_short_conv *k, ptrdiff_t t, size_t c, size_t m)
{
    if (t >= 0) {
        const size_t at = (size_t)t * k->stride + c;
        const vf32 x = vf32_load_n(k->x + at, m);
        return k->b ? vf32_mul(vf32_load_n(k->b + at, m), x) : x;
    }
    if (!k->history) return vf32_zero();
    const size_t back = (size_t)-t; // 1 .. L-1
    return vf32_load_n(k->history + (k->L - 1 - back) * k->D + c, m);
}

#define ALWAYS static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")
enum { MOST = 8, CHANNELS = 1024, SKEWED = CHANNELS + VF32_LANES };

// Row of a ring that holds time t; t >= -L.
static inline size_t slot(ptrdiff_t t, size_t L)
{
    return (size_t)(t + (ptrdiff_t)L) % L;
}

// u of the L-1 tokens before t into the ring.
static void fill_ring(const struct em_short_conv *k, float (*ring)[SKEWED], size_t t, size_t begin,
                      size_t end)
{
    for (size_t back = 1; back < k->L; back++) {
        const ptrdiff_t at = (ptrdiff_t)t - (ptrdiff_t)back;
        float *row = ring[slot(at, k->L)];
        for (size_t c = begin; c < end; c += VF32_LANES) {
            const size_t m = em_min_size(end - c, VF32_LANES);
            vf32_store_n(row + c - begin, gate_at(k, at, c, m), m);
        }
    }
}

// Tokens [t, t_end), channels [begin, end) with L = k->L, a constant where that matters, and
// `gated`: k has B and C.
ALWAYS void forward(const struct em_short_conv *k, size_t L, bool gated, float *y, size_t y_stride,
                    size_t t, size_t t_end, size_t begin, size_t end)
{
    float ring[MOST][SKEWED];
    fill_ring(k, ring, t, begin, end);
    for (; t < t_end; t++, y += y_stride) {
        const size_t at = t * k->stride;
        const float *row[MOST] = {NULL};
        UNROLL
        for (size_t j = 0; j + 1 < L; j++)
            row[j] = ring[slot((ptrdiff_t)(t + j + 1) - (ptrdiff_t)L, L)];
        float *newest = ring[slot((ptrdiff_t)t, L)];
        for (size_t c = begin; c < end; c += VF32_LANES) {
            const size_t m = em_min_size(end - c, VF32_LANES);
            vf32 u = vf32_load_n(k->x + at + c, m);
            if (gated) u = vf32_mul(vf32_load_n(k->b + at + c, m), u);
            vf32 v = k->bias ? vf32_load_n(k->bias + c, m) : vf32_zero();
            UNROLL
            for (size_t j = 0; j + 1 < L; j++)
                v = vf32_fma(vf32_load_n(k->taps + j * k->D + c, m), vf32_load(row[j] + c - begin),
                             v);
            v = vf32_fma(vf32_load_n(k->taps + (L - 1) * k->D + c, m), u, v);
            vf32_store(newest + c - begin, u);
            if (gated) v = vf32_mul(vf32_load_n(k->c + at + c, m), v);
            vf32_store_n(y + c, v, m);
        }
    }
}

// Any number of taps.
static void forward_long(const struct em_short_conv *k, float *y, size_t y_stride, size_t t,
                         size_t t_end)
{
    for (; t < t_end; t++, y += y_stride) {
        for (size_t c = 0; c < k->D; c += VF32_LANES) {
            const size_t m = em_min_size(k->D - c, VF32_LANES);
            vf32 v = k->bias ? vf32_load_n(k->bias + c, m) : vf32_zero();
            for (size_t j = 0; j < k->L; j++) {
                const vf32 u = gate_at(k, (ptrdiff_t)(t + j + 1) - (ptrdiff_t)k->L, c, m);
                v = vf32_fma(vf32_load_n(k->taps + j * k->D + c, m), u, v);
            }
            if (k->c) v = vf32_mul(vf32_load_n(k->c + t * k->stride + c, m), v);
            vf32_store_n(y + c, v, m);
        }
    }
}

ALWAYS void forward_tokens(const struct em_short_conv *k, bool gated, float *y, size_t y_stride,
                           size_t begin, size_t end)
{
    for (size_t c = 0; c < k->D; c += CHANNELS) {
        const size_t c_end = em_min_size(c + CHANNELS, k->D);
        if (k->L == 3)
            forward(k, 3, gated, y, y_stride, begin, end, c, c_end);
        else if (k->L == 4)
            forward(k, 4, gated, y, y_stride, begin, end, c, c_end);
        else
            forward(k, k->L, gated, y, y_stride, begin, end, c, c_end);
    }
}

// Tokens [begin, end) of the sequence, which is all of [0, T) or any part of it; row 0 of y is that
// of token `begin`.
void EM_K(short_conv_f32)(const struct em_short_conv *k, float *y, size_t y_stride, size_t begin,
                          size_t end)
{
    if (k->L > MOST)
        forward_long(k, y, y_stride, begin, end);
    else if (k->b)
        forward_tokens(k, true, y, y_stride, begin, end);
    else
        forward_tokens(k, false, y, y_stride, begin, end);
}

// The history after T tokens, [L-1, D]; `next` may be k->history.
void EM_K(short_conv_history_f32)(const struct em_short_conv *k, float *next, size_t T)
{
    // Row r of the result lies T rows further on than row r of the history: ascending is safe in
    // place.
    for (size_t r = 0; r + 1 < k->L; r++)
        for (size_t c = 0; c < k->D; c += VF32_LANES) {
            const size_t m = k->D - c < VF32_LANES ? k->D - c : VF32_LANES;
            const ptrdiff_t t = (ptrdiff_t)(T + r) - (ptrdiff_t)(k->L - 1);
            vf32_store_n(next + r * k->D + c, gate_at(k, t, c, m), m);
        }
}

// row[c..] += v, or = v
ALWAYS void put(float *row, vf32 v, size_t m, bool set)
{
    vf32_store_n(row, set ? v : vf32_add(v, vf32_load_n(row, m)), m);
}

// dB, dC, dX of token t at channel c from dy, du and v.
ALWAYS void add_inputs(const struct em_short_conv *k, const struct em_short_conv_gradient *d,
                       bool gated, bool set, size_t t, size_t c, size_t m, vf32 dy, vf32 du, vf32 v)
{
    const size_t in = t * k->stride + c, out = t * d->dx_stride + c;
    if (!gated) {
        put(d->dx + out, du, m, set);
        return;
    }
    const vf32 b = vf32_load_n(k->b + in, m), x = vf32_load_n(k->x + in, m), zero = vf32_zero();
    const vf32 db = vf32_fma(du, x, set ? zero : vf32_load_n(d->db + out, m));
    const vf32 dc = vf32_fma(dy, v, set ? zero : vf32_load_n(d->dc + out, m));
    const vf32 dx = vf32_fma(du, b, set ? zero : vf32_load_n(d->dx + out, m));
    vf32_store_n(d->db + out, db, m);
    vf32_store_n(d->dc + out, dc, m);
    vf32_store_n(d->dx + out, dx, m);
}

ALWAYS const float *dy_row(const struct em_short_conv_gradient *d, size_t t)
{
    return d->dy + (t - d->dy_first) * d->dy_stride;
}

// dv of token t into its row of the ring; zeros past the end.
ALWAYS void fill_dv(const struct em_short_conv *k, const struct em_short_conv_gradient *d,
                    bool gated, float *row, size_t t, size_t begin, size_t end)
{
    for (size_t c = begin; c < end; c += VF32_LANES) {
        const size_t m = em_min_size(end - c, VF32_LANES);
        vf32 dv = vf32_zero();
        if (t < d->T) dv = vf32_load_n(dy_row(d, t) + c, m);
        if (gated && t < d->T) dv = vf32_mul(dv, vf32_load_n(k->c + t * k->stride + c, m));
        vf32_store(row + c - begin, dv);
    }
}

// Tokens [start, stop), channels [begin, end) with L = k->L, `gated` and `set`, constants where
// that matters.
ALWAYS void backward(const struct em_short_conv *k, size_t L,
                     const struct em_short_conv_gradient *d, bool gated, bool set, size_t start,
                     size_t stop, size_t begin, size_t end)
{
    const size_t D = k->D;
    float us[MOST][SKEWED], dvs[MOST][SKEWED];
    fill_ring(k, us, start, begin, end);
    for (size_t t = start; t + 1 < start + L; t++)
        fill_dv(k, d, gated, dvs[t % L], t, begin, end);
    for (size_t t = start; t < stop; t++) {
        const size_t in = t * k->stride;
        fill_dv(k, d, gated, dvs[(t + L - 1) % L], t + L - 1, begin, end);
        const float *u_row[MOST] = {NULL},
                    *dv_row[MOST] = {NULL}; // by tap: u[t-(L-1)+j] and dv[t+(L-1)-j]
        UNROLL
        for (size_t j = 0; j < L; j++) {
            u_row[j] = us[slot((ptrdiff_t)(t + j + 1) - (ptrdiff_t)L, L)];
            dv_row[j] = dvs[(t + L - 1 - j) % L];
        }
        float *newest = us[t % L];
        for (size_t c = begin; c < end; c += VF32_LANES) {
            const size_t m = em_min_size(end - c, VF32_LANES), at = c - begin;
            const vf32 dv = vf32_load(dv_row[L - 1] + at);
            vf32 now = vf32_load_n(k->x + in + c, m);
            if (gated) now = vf32_mul(vf32_load_n(k->b + in + c, m), now);
            vf32_store(newest + at, now);
            vf32 v = k->bias ? vf32_load_n(k->bias + c, m) : vf32_zero(), du = vf32_zero();
            UNROLL
            for (size_t j = 0; j < L; j++) {
                const vf32 w = vf32_load_n(k->taps + j * D + c, m);
                const vf32 u = j + 1 < L ? vf32_load(u_row[j] + at) : now;
                if (gated) v = vf32_fma(w, u, v);
                du = vf32_fma(w, vf32_load(dv_row[j] + at), du);
                if (!d->dtaps) continue;
                float *dw = d->dtaps + j * D + c;
                vf32_store_n(dw, vf32_fma(dv, u, vf32_load_n(dw, m)), m);
            }
            if (d->dbias) vf32_store_n(d->dbias + c, vf32_add(vf32_load_n(d->dbias + c, m), dv), m);
            if (!d->dx) continue;
            const vf32 dy = vf32_load_n(dy_row(d, t) + c, m);
            add_inputs(k, d, gated, set, t, c, m, dy, du, v);
        }
    }
}

// Any number of taps.
static void backward_long(const struct em_short_conv *k, const struct em_short_conv_gradient *d,
                          size_t start, size_t stop)
{
    const size_t D = k->D, L = k->L;
    for (size_t t = start; t < stop; t++) {
        for (size_t c = 0; c < D; c += VF32_LANES) {
            const size_t m = em_min_size(D - c, VF32_LANES);
            const vf32 dy = vf32_load_n(dy_row(d, t) + c, m);
            const vf32 dv = k->c ? vf32_mul(dy, vf32_load_n(k->c + t * k->stride + c, m)) : dy;
            if (d->dbias) vf32_store_n(d->dbias + c, vf32_add(vf32_load_n(d->dbias + c, m), dv), m);
            vf32 v = k->bias ? vf32_load_n(k->bias + c, m) : vf32_zero(), du = vf32_zero();
            for (size_t j = 0; j < L; j++) {
                const vf32 w = vf32_load_n(k->taps + j * D + c, m);
                const vf32 u = gate_at(k, (ptrdiff_t)(t + j + 1) - (ptrdiff_t)L, c, m);
                v = vf32_fma(w, u, v);
                if (d->dtaps) {
                    float *dw = d->dtaps + j * D + c;
                    vf32_store_n(dw, vf32_fma(dv, u, vf32_load_n(dw, m)), m);
                }
                const size_t later = t + L - 1 - j;
                if (later >= d->T) continue;
                vf32 then = vf32_load_n(dy_row(d, later) + c, m);
                if (k->c) then = vf32_mul(then, vf32_load_n(k->c + later * k->stride + c, m));
                du = vf32_fma(w, then, du);
            }
            if (d->dx) add_inputs(k, d, k->b != NULL, d->set, t, c, m, dy, du, v);
        }
    }
}

// All channels, by the number of taps.
ALWAYS void backward_tokens(const struct em_short_conv *k, const struct em_short_conv_gradient *d,
                            bool gated, bool set, size_t start, size_t stop)
{
    for (size_t c = 0; c < k->D; c += CHANNELS) {
        const size_t c_end = em_min_size(c + CHANNELS, k->D);
        if (k->L == 3)
            backward(k, 3, d, gated, set, start, stop, c, c_end);
        else if (k->L == 4)
            backward(k, 4, d, gated, set, start, stop, c, c_end);
        else
            backward(k, k->L, d, gated, set, start, stop, c, c_end);
    }
}

// For tokens [begin, end) of the sequence: their rows of dx, db, dc +=, and what they add to dtaps
// [L, D] and dbias [D], from dy, of which L - 1 later tokens are read too. With dv = dy C: dC = dy
// v, dw_j = sum_t dv[t] u[t-(L-1)+j], du[t] = sum_j w_j dv[t+(L-1)-j], dB = du X, dX = du B. No
// gradient goes into the history.
void EM_K(short_conv_backward_f32)(const struct em_short_conv *k,
                                   const struct em_short_conv_gradient *d, size_t begin, size_t end)
{
    if (k->L > MOST)
        backward_long(k, d, begin, end);
    else if (k->b && d->set)
        backward_tokens(k, d, true, true, begin, end);
    else if (k->b)
        backward_tokens(k, d, true, false, begin, end);
    else if (d->set)
        backward_tokens(k, d, false, true, begin, end);
    else
        backward_tokens(k, d, false, false, begin, end);
}
