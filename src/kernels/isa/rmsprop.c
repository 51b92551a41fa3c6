// RMSprop, one pass over parameter, moment and gradient. This file is compiled once per instruction
// set.
#include "kernels/kernels_isa.h"
#include "kernels/simd/f32.h"

// g' = s g; v = rho v + (1 - rho) g'^2; p -= lr (g' / (sqrt(v) + eps) + decay p). The gradient is
// read only. Returns 0, or NaN where a value that was written is not finite.
float EM_K(rmsprop_f32)(float *p, float *v, const float *g, size_t n, const struct em_rmsprop *o)
{
    const vf32 rho = vf32_set1(o->rho), rest = vf32_set1(1.0f - o->rho), eps = vf32_set1(o->eps);
    const vf32 scale = vf32_set1(o->gradient_scale), lr = vf32_set1(o->lr),
               keep = vf32_set1(1.0f - o->lr * o->decay), zero = vf32_zero();
    vf32 bad = zero;
    for (size_t i = 0; i < n; i += VF32_LANES) {
        const size_t c = n - i < VF32_LANES ? n - i : VF32_LANES;
        const vf32 d = vf32_mul(vf32_load_n(g + i, c), scale);
        const vf32 square = vf32_fma(rho, vf32_load_n(v + i, c), vf32_mul(rest, vf32_mul(d, d)));
        const vf32 old = vf32_mul(vf32_load_n(p + i, c), keep);
        const vf32 value = vf32_fnma(lr, vf32_div(d, vf32_add(vf32_sqrt(square), eps)), old);
        vf32_store_n(v + i, square, c);
        vf32_store_n(p + i, value, c);
        // Lanes past the end are 0 / eps.
        bad = vf32_fma(value, zero, vf32_fma(square, zero, bad));
    }
    return vf32_sum(bad);
}
