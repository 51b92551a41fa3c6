// Rotary positions. This file is compiled once per instruction set.
#include <string.h>

#include "kernels/kernels_isa.h"
#include "kernels/simd/f32.h"

// (a, b) -> (a c - b s, b c + a s) over `half` pairs that lie `half` apart; y = or y += by `add`.
static inline __attribute__((always_inline)) void rotate_halves(float *y, const float *x,
                                                                size_t half, const float *c,
                                                                const float *s, float sign,
                                                                bool add)
{
    const vf32 direction = vf32_set1(sign);
    for (size_t i = 0; i < half; i += VF32_LANES) {
        const size_t m = half - i < VF32_LANES ? half - i : VF32_LANES;
        const vf32 a = vf32_load_n(x + i, m), b = vf32_load_n(x + half + i, m);
        const vf32 co = vf32_load_n(c + i, m), si = vf32_mul(vf32_load_n(s + i, m), direction);
        vf32 ya = vf32_fnma(b, si, vf32_mul(a, co)), yb = vf32_fma(a, si, vf32_mul(b, co));
        if (add) {
            ya = vf32_add(ya, vf32_load_n(y + i, m));
            yb = vf32_add(yb, vf32_load_n(y + half + i, m));
        }
        vf32_store_n(y + i, ya, m);
        vf32_store_n(y + half + i, yb, m);
    }
}

static inline __attribute__((always_inline)) void rotate_pairs(float *y, const float *x,
                                                               size_t half, const float *c,
                                                               const float *s, float sign, bool add)
{
    for (size_t i = 0; i < half; i++) {
        const float a = x[2 * i], b = x[2 * i + 1], si = sign * s[i];
        const float ya = a * c[i] - b * si, yb = b * c[i] + a * si;
        y[2 * i] = add ? y[2 * i] + ya : ya;
        y[2 * i + 1] = add ? y[2 * i + 1] + yb : yb;
    }
}

// The heads [heads, head_dim] of one token: the first `rotary` dimensions turn by the angles whose
// cosines and sines [rotary / 2] are given, pairs (i, i + rotary/2), or (2i, 2i+1) when
// `interleaved`; the rest is copied. y may be x.
void EM_K(rope_f32)(float *y, const float *x, size_t heads, size_t head_dim, size_t rotary,
                    const float *c, const float *s, bool interleaved)
{
    for (size_t h = 0; h < heads; h++, x += head_dim, y += head_dim) {
        if (interleaved)
            rotate_pairs(y, x, rotary / 2, c, s, 1.0f, false);
        else
            rotate_halves(y, x, rotary / 2, c, s, 1.0f, false);
        if (y != x && rotary < head_dim)
            memcpy(y + rotary, x + rotary, (head_dim - rotary) * sizeof *y);
    }
}

// dx += dy turned back.
void EM_K(rope_backward_f32)(float *dx, const float *dy, size_t heads, size_t head_dim,
                             size_t rotary, const float *c, const float *s, bool interleaved)
{
    for (size_t h = 0; h < heads; h++, dx += head_dim, dy += head_dim) {
        if (interleaved)
            rotate_pairs(dx, dy, rotary / 2, c, s, -1.0f, true);
        else
            rotate_halves(dx, dy, rotary / 2, c, s, -1.0f, true);
        if (rotary < head_dim)
            EM_K(add_f32)(dx + rotary, dx + rotary, dy + rotary, head_dim - rotary);
    }
}
