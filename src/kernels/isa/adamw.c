// AdamW, one pass over parameter, moments and gradient. This file is compiled once per instruction
// set.
#include <math.h>

#include "kernels/kernels_isa.h"
#include "kernels/simd/f32.h"

// g' = s g; m = b1 m + (1 - b1) g'; v = b2 v + (1 - b2) g'^2;
// p -= lr (m / c1 / (sqrt(v / c2) + eps) + decay p). The gradient is read only.
// Returns 0, or NaN where a value that was written is not finite: another walk to see that would
// cost a tenth of the time.
float EM_K(adamw_f32)(float *p, float *m, float *v, const float *g, size_t n,
                      const struct em_adamw *o)
{
    const vf32 b1 = vf32_set1(o->beta1), b2 = vf32_set1(o->beta2);
    const vf32 a1 = vf32_set1(1.0f - o->beta1), a2 = vf32_set1(1.0f - o->beta2);
    const vf32 scale = vf32_set1(o->gradient_scale), eps = vf32_set1(o->eps);
    const vf32 step = vf32_set1(o->lr / o->correction1), keep = vf32_set1(1.0f - o->lr * o->decay);
    const vf32 root = vf32_set1(1.0f / sqrtf(o->correction2));
    const vf32 zero = vf32_zero();
    vf32 bad = zero;
    for (size_t i = 0; i < n; i += VF32_LANES) {
        const size_t c = n - i < VF32_LANES ? n - i : VF32_LANES;
        const vf32 d = vf32_mul(vf32_load_n(g + i, c), scale);
        const vf32 mean = vf32_fma(b1, vf32_load_n(m + i, c), vf32_mul(a1, d));
        const vf32 square = vf32_fma(b2, vf32_load_n(v + i, c), vf32_mul(a2, vf32_mul(d, d)));
        const vf32 size = vf32_fma(vf32_sqrt(square), root, eps);
        const vf32 old = vf32_mul(vf32_load_n(p + i, c), keep);
        vf32_store_n(m + i, mean, c);
        vf32_store_n(v + i, square, c);
        const vf32 value = vf32_fnma(step, vf32_div(mean, size), old);
        vf32_store_n(p + i, value, c);
        // Lanes past the end are 0 / eps.
        bad = vf32_fma(value, zero, vf32_fma(mean, zero, vf32_fma(square, zero, bad)));
    }
    return vf32_sum(bad);
}
