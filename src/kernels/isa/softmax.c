// Softmax and cross-entropy, one row at a time. This file is compiled once per instruction set.
#include <float.h>
#include <math.h>

#include "kernels/kernels_isa.h"
#include "kernels/simd/f32.h"

// The largest value, brought into the finite range so that x - max is never inf - inf: a row of
// -inf has logsumexp -inf then, one with +inf has +inf, and a NaN shows in the sum of exponentials.
static float row_max(const float *x, size_t n)
{
    enum { L = VF32_LANES };
    vf32 m0 = vf32_set1(-INFINITY), m1 = m0, m2 = m0, m3 = m0;
    size_t i = 0;
    for (; i + 4 * L <= n; i += 4 * L) {
        m0 = vf32_max(m0, vf32_load(x + i));
        m1 = vf32_max(m1, vf32_load(x + i + L));
        m2 = vf32_max(m2, vf32_load(x + i + 2 * L));
        m3 = vf32_max(m3, vf32_load(x + i + 3 * L));
    }
    for (; i + L <= n; i += L)
        m0 = vf32_max(m0, vf32_load(x + i));
    float m = vf32_hmax(vf32_max(vf32_max(m0, m1), vf32_max(m2, m3)));
    for (; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m > FLT_MAX ? FLT_MAX : m < -FLT_MAX ? -FLT_MAX : m;
}

// sum exp(x - m); y (which may be x, or NULL) gets the terms.
static inline __attribute__((always_inline)) float sum_exp(float *y, const float *x, size_t n,
                                                           float m)
{
    enum { L = VF32_LANES };
    const vf32 top = vf32_set1(m);
    vf32 s0 = vf32_zero(), s1 = s0;
    size_t i = 0;
    for (; i + 2 * L <= n; i += 2 * L) {
        const vf32 a = vf32_exp(vf32_sub(vf32_load(x + i), top));
        const vf32 b = vf32_exp(vf32_sub(vf32_load(x + i + L), top));
        s0 = vf32_add(s0, a);
        s1 = vf32_add(s1, b);
        if (y) {
            vf32_store(y + i, a);
            vf32_store(y + i + L, b);
        }
    }
    for (; i < n; i += L) {
        const size_t c = n - i < L ? n - i : L;
        const vf32 a = vf32_exp(vf32_sub(vf32_load_n(x + i, c), top));
        const vm32 inside = vf32_lt(vf32_iota(), vf32_set1((float)c)); // the rest is exp(0 - m)
        s0 = vf32_add(s0, vf32_select(inside, a, vf32_zero()));
        if (y) vf32_store_n(y + i, a, c);
    }
    return vf32_sum(vf32_add(s0, s1));
}

// log sum exp(x), in nats.
float EM_K(logsumexp_f32)(const float *x, size_t n)
{
    const float m = row_max(x, n);
    return m + logf(sum_exp(NULL, x, n, m));
}

// y = exp(x) / sum exp(x); returns log sum exp(x). y may be x.
float EM_K(softmax_f32)(float *y, const float *x, size_t n)
{
    const float m = row_max(x, n), sum = sum_exp(y, x, n, m);
    EM_K(scale_f32)(y, y, 1.0f / sum, n);
    return m + logf(sum);
}

// dx += y (dy - sum_j dy_j y_j), y being softmax(x).
void EM_K(softmax_backward_f32)(float *dx, const float *dy, const float *y, size_t n)
{
    const vf32 s = vf32_set1(EM_K(dot_f32)(dy, y, n));
    for (size_t i = 0; i < n; i += VF32_LANES) {
        const size_t c = n - i < VF32_LANES ? n - i : VF32_LANES;
        const vf32 d = vf32_sub(vf32_load_n(dy + i, c), s);
        vf32_store_n(dx + i, vf32_fma(vf32_load_n(y + i, c), d, vf32_load_n(dx + i, c)), c);
    }
}

// -log softmax(z)[target] in nats; z becomes its gradient, (softmax(z) - onehot(target)) scale. The
// exponentials are computed once and kept in z.
float EM_K(cross_entropy_f32)(float *z, size_t n, size_t target, float scale)
{
    const float at_target = z[target], m = row_max(z, n), sum = sum_exp(z, z, n, m);
    EM_K(scale_f32)(z, z, scale / sum, n);
    z[target] -= scale;
    return m + logf(sum) - at_target;
}
