// What implicit filters are made of beside matrix products: sines and a decaying window. This file
// is compiled once per instruction set.
#include "kernels/kernels_isa.h"
#include "kernels/simd/f32.h"

// sin(w x) with the product's rounding put back: behind it another layer multiplies such errors by
// the frequency again.
static vf32 sine_of(vf32 w, vf32 x)
{
    const vf32 a = vf32_mul(w, x), rest = vf32_fma(w, x, vf32_sub(vf32_zero(), a));
    return vf32_fma(rest, vf32_cos(a), vf32_sin(a));
}

// y = sin(w x); y may be x.
void EM_K(sine_f32)(float *y, const float *w, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + VF32_LANES <= n; i += VF32_LANES)
        vf32_store(y + i, sine_of(vf32_load(w + i), vf32_load(x + i)));
    if (i < n) {
        const size_t m = n - i;
        vf32_store_n(y + i, sine_of(vf32_load_n(w + i, m), vf32_load_n(x + i, m)), m);
    }
}

// dx = dy w cos(w x), dw = dy x cos(w x): both are set. Either may be dy or x.
void EM_K(sine_backward_f32)(float *dx, float *dw, const float *dy, const float *w, const float *x,
                             size_t n)
{
    for (size_t i = 0; i < n; i += VF32_LANES) {
        const size_t m = n - i < VF32_LANES ? n - i : VF32_LANES;
        const vf32 f = vf32_load_n(w + i, m), a = vf32_load_n(x + i, m);
        const vf32 d = vf32_mul(vf32_load_n(dy + i, m), vf32_cos(vf32_mul(f, a)));
        vf32_store_n(dx + i, vf32_mul(d, f), m);
        vf32_store_n(dw + i, vf32_mul(d, a), m);
    }
}

// y = x (exp(-t |delta|) + shift); y may be x.
void EM_K(decay_f32)(float *y, const float *x, const float *delta, float t, float shift, size_t n)
{
    const vf32 minus_t = vf32_set1(-t), s = vf32_set1(shift);
    for (size_t i = 0; i < n; i += VF32_LANES) {
        const size_t m = n - i < VF32_LANES ? n - i : VF32_LANES;
        const vf32 rate = vf32_abs(vf32_load_n(delta + i, m));
        const vf32 window = vf32_add(vf32_exp(vf32_mul(minus_t, rate)), s);
        vf32_store_n(y + i, vf32_mul(vf32_load_n(x + i, m), window), m);
    }
}
