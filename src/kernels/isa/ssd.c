// Mamba-2's scan: one token of one head, and the exponentials of a chunk. This file is compiled
// once per instruction set.
#include "base/sizes.h"
#include "kernels/kernels_isa.h"
#include "kernels/simd/f32.h"

enum { VECTORS = 4, WIDTH = VECTORS * VF32_LANES };

// h [N, P] = decay h + b x^T, y [P] += c h.
void EM_K(ssd_token_f32)(float *h, float *y, const float *x, const float *b, const float *c,
                         float decay, size_t N, size_t P)
{
    const vf32 a = vf32_set1(decay);
    for (size_t p = 0; p < P; p += WIDTH) {
        vf32 xs[VECTORS], ys[VECTORS];
        size_t m[VECTORS];
        for (size_t v = 0; v < VECTORS; v++) {
            const size_t at = p + v * VF32_LANES;
            m[v] = at < P ? em_min_size(P - at, VF32_LANES) : 0;
            xs[v] = m[v] ? vf32_load_n(x + at, m[v]) : vf32_zero();
            ys[v] = m[v] ? vf32_load_n(y + at, m[v]) : vf32_zero();
        }
        for (size_t n = 0; n < N; n++) {
            float *row = h + n * P + p;
            const vf32 bn = vf32_set1(b[n]), cn = vf32_set1(c[n]);
#pragma GCC unroll 4
            for (size_t v = 0; v < VECTORS; v++) {
                if (!m[v]) continue;
                const vf32 now =
                    vf32_fma(a, vf32_load_n(row + v * VF32_LANES, m[v]), vf32_mul(bn, xs[v]));
                vf32_store_n(row + v * VF32_LANES, now, m[v]);
                ys[v] = vf32_fma(cn, now, ys[v]);
            }
        }
        for (size_t v = 0; v < VECTORS; v++)
            if (m[v]) vf32_store_n(y + p + v * VF32_LANES, ys[v], m[v]);
    }
}

void EM_K(exp_f32)(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += VF32_LANES) {
        const size_t m = em_min_size(n - i, VF32_LANES);
        vf32_store_n(y + i, vf32_exp(vf32_load_n(x + i, m)), m);
    }
}
