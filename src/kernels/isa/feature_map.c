// Feature maps of linear attention. This file is compiled once per instruction set.
#include "kernels/kernels_isa.h"
#include "kernels/simd/f32.h"

// y = elu(x) + 1: exp(x) below 0, x + 1 from there on. Any n >= 1, any alignment; y may be x.
void EM_K(elu1_f32)(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += VF32_LANES) {
        const size_t c = n - i < VF32_LANES ? n - i : VF32_LANES;
        const vf32 v = vf32_load_n(x + i, c);
        const vf32 below = vf32_exp(vf32_min(vf32_zero(), v));
        const vf32 above = vf32_add(v, vf32_set1(1));
        vf32_store_n(y + i, vf32_select(vf32_lt(v, vf32_zero()), below, above), c);
    }
}
