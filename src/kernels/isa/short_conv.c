// Gated short depthwise causal convolution. This file is compiled once per instruction set.
//
// Channels are the lanes. The last L rows of u = B X (and of dv = dy C, backward) go round in small
// buffers on the stack, a block of channels at a time: rows of [B | C | X] are 12 D bytes apart,
// and where D is a power of two, reading several of them at the same channel makes their lines
// fight for one set of the first-level cache (D = 1024, backward: 4x slower). Past MOST taps, which
// nobody uses, u is computed again for each tap instead.
#include "kernels/kernels_isa.h"
#include "kernels/simd/f32.h"

// u[t] of `m` channels from c on; t counts from the first token, negative is history. The history
// has L-1 rows, the last of them at t = -1.
static inline vf32 gate_at(const struct em_short_conv *k, ptrdiff_t t, size_t c, size_t m)
{
    if (t >= 0) {
        const float *row = k->bcx + (size_t)t * k->bcx_stride + c;
        return vf32_mul(vf32_load_n(row, m), vf32_load_n(row + 2 * k->D, m));
    }
    if (!k->history) return vf32_zero();
    const size_t back = (size_t)-t; // 1 .. L-1
    return vf32_load_n(k->history + (k->L - 1 - back) * k->D + c, m);
}

#define ALWAYS static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")
enum { MOST = 8, CHANNELS = 1024, SKEWED = CHANNELS + VF32_LANES };

static inline size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

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
            const size_t m = min_size(end - c, VF32_LANES);
            vf32_store_n(row + c - begin, gate_at(k, at, c, m), m);
        }
    }
}

// Tokens [t, t_end), channels [begin, end) with L = k->L, a constant where that matters.
ALWAYS void forward(const struct em_short_conv *k, size_t L, float *y, size_t y_stride, size_t t,
                    size_t t_end, size_t begin, size_t end)
{
    float ring[MOST][SKEWED];
    fill_ring(k, ring, t, begin, end);
    for (; t < t_end; t++) {
        const float *b = k->bcx + t * k->bcx_stride, *gate = b + k->D, *x = gate + k->D;
        const float *row[MOST] = {NULL};
        UNROLL
        for (size_t j = 0; j + 1 < L; j++)
            row[j] = ring[slot((ptrdiff_t)(t + j + 1) - (ptrdiff_t)L, L)];
        float *newest = ring[slot((ptrdiff_t)t, L)];
        for (size_t c = begin; c < end; c += VF32_LANES) {
            const size_t m = min_size(end - c, VF32_LANES);
            const vf32 u = vf32_mul(vf32_load_n(b + c, m), vf32_load_n(x + c, m));
            vf32 v = k->bias ? vf32_load_n(k->bias + c, m) : vf32_zero();
            UNROLL
            for (size_t j = 0; j + 1 < L; j++)
                v = vf32_fma(vf32_load_n(k->taps + j * k->D + c, m), vf32_load(row[j] + c - begin),
                             v);
            v = vf32_fma(vf32_load_n(k->taps + (L - 1) * k->D + c, m), u, v);
            vf32_store(newest + c - begin, u);
            vf32_store_n(y + t * y_stride + c, vf32_mul(vf32_load_n(gate + c, m), v), m);
        }
    }
}

// Any number of taps.
static void forward_long(const struct em_short_conv *k, float *y, size_t y_stride, size_t t,
                         size_t t_end)
{
    for (; t < t_end; t++) {
        const float *gate = k->bcx + t * k->bcx_stride + k->D;
        for (size_t c = 0; c < k->D; c += VF32_LANES) {
            const size_t m = min_size(k->D - c, VF32_LANES);
            vf32 v = k->bias ? vf32_load_n(k->bias + c, m) : vf32_zero();
            for (size_t j = 0; j < k->L; j++) {
                const vf32 u = gate_at(k, (ptrdiff_t)(t + j + 1) - (ptrdiff_t)k->L, c, m);
                v = vf32_fma(vf32_load_n(k->taps + j * k->D + c, m), u, v);
            }
            vf32_store_n(y + t * y_stride + c, vf32_mul(vf32_load_n(gate + c, m), v), m);
        }
    }
}

// y[t] for tokens [begin, end) of the sequence, which is all of [0, T) or any part of it.
void EM_K(short_conv_f32)(const struct em_short_conv *k, float *y, size_t y_stride, size_t begin,
                          size_t end)
{
    if (k->L > MOST) {
        forward_long(k, y, y_stride, begin, end);
        return;
    }
    for (size_t c = 0; c < k->D; c += CHANNELS) {
        const size_t c_end = min_size(c + CHANNELS, k->D);
        if (k->L == 3)
            forward(k, 3, y, y_stride, begin, end, c, c_end);
        else if (k->L == 4)
            forward(k, 4, y, y_stride, begin, end, c, c_end);
        else
            forward(k, k->L, y, y_stride, begin, end, c, c_end);
    }
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

// dB, dC, dX of one token at channel c from du and v; `in` and `out` are its rows.
ALWAYS void add_inputs(const float *in, float *out, size_t D, size_t c, size_t m, vf32 dy, vf32 du,
                       vf32 v, bool set)
{
    const vf32 zero = vf32_zero();
    const vf32 db =
        vf32_fma(du, vf32_load_n(in + 2 * D + c, m), set ? zero : vf32_load_n(out + c, m));
    const vf32 dc = vf32_fma(dy, v, set ? zero : vf32_load_n(out + D + c, m));
    const vf32 dx =
        vf32_fma(du, vf32_load_n(in + c, m), set ? zero : vf32_load_n(out + 2 * D + c, m));
    vf32_store_n(out + c, db, m);
    vf32_store_n(out + D + c, dc, m);
    vf32_store_n(out + 2 * D + c, dx, m);
}

// dv of token t into its row of the ring; zeros past the end.
static void fill_dv(const struct em_short_conv *k, const struct em_short_conv_gradient *d,
                    float *row, size_t t, size_t begin, size_t end)
{
    const float *dy = d->dy + t * d->dy_stride, *gate = k->bcx + t * k->bcx_stride + k->D;
    for (size_t c = begin; c < end; c += VF32_LANES) {
        const size_t m = min_size(end - c, VF32_LANES);
        vf32_store(row + c - begin, t < d->T
                                        ? vf32_mul(vf32_load_n(dy + c, m), vf32_load_n(gate + c, m))
                                        : vf32_zero());
    }
}

// Tokens [start, stop), channels [begin, end) with L = k->L and `set`, constants where that
// matters.
ALWAYS void backward(const struct em_short_conv *k, size_t L,
                     const struct em_short_conv_gradient *d, bool set, size_t start, size_t stop,
                     size_t begin, size_t end)
{
    const size_t D = k->D;
    float us[MOST][SKEWED], dvs[MOST][SKEWED];
    fill_ring(k, us, start, begin, end);
    for (size_t t = start; t + 1 < start + L; t++)
        fill_dv(k, d, dvs[t % L], t, begin, end);
    for (size_t t = start; t < stop; t++) {
        const float *in = k->bcx + t * k->bcx_stride, *dy = d->dy + t * d->dy_stride;
        float *out = d->dbcx ? d->dbcx + t * d->dbcx_stride : NULL;
        fill_dv(k, d, dvs[(t + L - 1) % L], t + L - 1, begin, end);
        const float *u_row[MOST] = {NULL},
                    *dv_row[MOST] = {NULL}; // by tap: u[t-(L-1)+j] and dv[t+(L-1)-j]
        UNROLL
        for (size_t j = 0; j < L; j++) {
            u_row[j] = us[slot((ptrdiff_t)(t + j + 1) - (ptrdiff_t)L, L)];
            dv_row[j] = dvs[(t + L - 1 - j) % L];
        }
        float *newest = us[t % L];
        for (size_t c = begin; c < end; c += VF32_LANES) {
            const size_t m = min_size(end - c, VF32_LANES), at = c - begin;
            const vf32 dv = vf32_load(dv_row[L - 1] + at);
            const vf32 now = vf32_mul(vf32_load_n(in + c, m), vf32_load_n(in + 2 * D + c, m));
            vf32_store(newest + at, now);
            vf32 v = k->bias ? vf32_load_n(k->bias + c, m) : vf32_zero(), du = vf32_zero();
            UNROLL
            for (size_t j = 0; j < L; j++) {
                const vf32 w = vf32_load_n(k->taps + j * D + c, m);
                const vf32 u = j + 1 < L ? vf32_load(u_row[j] + at) : now;
                v = vf32_fma(w, u, v);
                du = vf32_fma(w, vf32_load(dv_row[j] + at), du);
                if (!d->dtaps) continue;
                float *dw = d->dtaps + j * D + c;
                vf32_store_n(dw, vf32_fma(dv, u, vf32_load_n(dw, m)), m);
            }
            if (d->dbias) vf32_store_n(d->dbias + c, vf32_add(vf32_load_n(d->dbias + c, m), dv), m);
            if (out) add_inputs(in, out, D, c, m, vf32_load_n(dy + c, m), du, v, set);
        }
    }
}

// Any number of taps.
static void backward_long(const struct em_short_conv *k, const struct em_short_conv_gradient *d,
                          size_t start, size_t stop)
{
    const size_t D = k->D, L = k->L;
    for (size_t t = start; t < stop; t++) {
        const float *in = k->bcx + t * k->bcx_stride;
        for (size_t c = 0; c < D; c += VF32_LANES) {
            const size_t m = min_size(D - c, VF32_LANES);
            const vf32 dy = vf32_load_n(d->dy + t * d->dy_stride + c, m);
            const vf32 dv = vf32_mul(dy, vf32_load_n(in + D + c, m));
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
                const vf32 then = vf32_load_n(k->bcx + later * k->bcx_stride + D + c, m);
                du = vf32_fma(w, vf32_mul(vf32_load_n(d->dy + later * d->dy_stride + c, m), then),
                              du);
            }
            if (d->dbcx) add_inputs(in, d->dbcx + t * d->dbcx_stride, D, c, m, dy, du, v, d->set);
        }
    }
}

// All channels, by the number of taps.
ALWAYS void backward_tokens(const struct em_short_conv *k, const struct em_short_conv_gradient *d,
                            bool set, size_t start, size_t stop)
{
    for (size_t c = 0; c < k->D; c += CHANNELS) {
        const size_t c_end = min_size(c + CHANNELS, k->D);
        if (k->L == 3)
            backward(k, 3, d, set, start, stop, c, c_end);
        else if (k->L == 4)
            backward(k, 4, d, set, start, stop, c, c_end);
        else
            backward(k, k->L, d, set, start, stop, c, c_end);
    }
}

// For tokens [begin, end) of the sequence: their rows of dbcx +=, and what they add to dtaps [L, D]
// and dbias [D], from dy, of which L - 1 later tokens are read too. With dv = dy C: dC = dy v, dw_j
// = sum_t dv[t] u[t-(L-1)+j], du[t] = sum_j w_j dv[t+(L-1)-j], dB = du X, dX = du B. No gradient
// goes into the history.
void EM_K(short_conv_backward_f32)(const struct em_short_conv *k,
                                   const struct em_short_conv_gradient *d, size_t begin, size_t end)
{
    if (k->L > MOST)
        backward_long(k, d, begin, end);
    else if (d->set)
        backward_tokens(k, d, true, begin, end);
    else
        backward_tokens(k, d, false, begin, end);
}
