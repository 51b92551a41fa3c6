// Gated short depthwise causal convolution. This file is compiled once per instruction set.
//
// u = B X is computed again wherever a tap needs it: the rows are in the first-level cache, and two
// loads and a product cost less than writing and reading u. Channels are the lanes.
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

// sum_j w_j u[t-(L-1)+j] + bias
static inline vf32 convolve(const struct em_short_conv *k, size_t t, size_t c, size_t m)
{
    vf32 v = k->bias ? vf32_load_n(k->bias + c, m) : vf32_zero();
    for (size_t j = 0; j < k->L; j++) {
        const vf32 u = gate_at(k, (ptrdiff_t)(t + j) - (ptrdiff_t)(k->L - 1), c, m);
        v = vf32_fma(vf32_load_n(k->taps + j * k->D + c, m), u, v);
    }
    return v;
}

// y[t] for tokens [begin, end) of the sequence, which is all of [0, T) or any part of it.
void EM_K(short_conv_f32)(const struct em_short_conv *k, float *y, size_t y_stride, size_t begin,
                          size_t end)
{
    for (size_t t = begin; t < end; t++) {
        const float *gate = k->bcx + t * k->bcx_stride + k->D;
        float *row = y + t * y_stride;
        for (size_t c = 0; c < k->D; c += VF32_LANES) {
            const size_t m = k->D - c < VF32_LANES ? k->D - c : VF32_LANES;
            vf32_store_n(row + c, vf32_mul(vf32_load_n(gate + c, m), convolve(k, t, c, m)), m);
        }
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

// For all T tokens of the sequence and channels [begin, end): dbcx +=, dtaps [L, D] +=, dbias [D]
// += (each may be NULL), from dy. Channels are independent, so blocks of them may run at the same
// time. With dv = dy C: dC = dy v, dw_j = sum_t dv[t] u[t-(L-1)+j], du[t] = sum_j w_j
// dv[t+(L-1)-j], dB = du X, dX = du B. No gradient goes into the history.
void EM_K(short_conv_backward_f32)(const struct em_short_conv *k, const float *dy, size_t dy_stride,
                                   size_t T, float *dbcx, size_t dbcx_stride, float *dtaps,
                                   float *dbias, size_t begin, size_t end)
{
    const size_t D = k->D, L = k->L;
    for (size_t t = 0; t < T; t++) {
        const float *in = k->bcx + t * k->bcx_stride;
        float *out = dbcx ? dbcx + t * dbcx_stride : NULL;
        for (size_t c = begin; c < end; c += VF32_LANES) {
            const size_t m = end - c < VF32_LANES ? end - c : VF32_LANES;
            const vf32 d = vf32_load_n(dy + t * dy_stride + c, m);
            const vf32 dv = vf32_mul(d, vf32_load_n(in + D + c, m));
            if (dbias) vf32_store_n(dbias + c, vf32_add(vf32_load_n(dbias + c, m), dv), m);
            vf32 v = k->bias ? vf32_load_n(k->bias + c, m) : vf32_zero(), du = vf32_zero();
            for (size_t j = 0; j < L; j++) {
                const vf32 w = vf32_load_n(k->taps + j * D + c, m);
                const vf32 u = gate_at(k, (ptrdiff_t)(t + j) - (ptrdiff_t)(L - 1), c, m);
                v = vf32_fma(w, u, v);
                if (dtaps) {
                    float *at = dtaps + j * D + c;
                    vf32_store_n(at, vf32_fma(dv, u, vf32_load_n(at, m)), m);
                }
                const size_t later = t + L - 1 - j;
                if (later >= T || !out) continue;
                const vf32 dvl = vf32_mul(vf32_load_n(dy + later * dy_stride + c, m),
                                          vf32_load_n(k->bcx + later * k->bcx_stride + D + c, m));
                du = vf32_fma(w, dvl, du);
            }
            if (!out) continue;
            const vf32 b = vf32_load_n(in + c, m), x = vf32_load_n(in + 2 * D + c, m);
            vf32_store_n(out + c, vf32_fma(du, x, vf32_load_n(out + c, m)), m);
            vf32_store_n(out + D + c, vf32_fma(d, v, vf32_load_n(out + D + c, m)), m);
            vf32_store_n(out + 2 * D + c, vf32_fma(du, b, vf32_load_n(out + 2 * D + c, m)), m);
        }
    }
}
