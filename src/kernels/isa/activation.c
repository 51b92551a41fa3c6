// Activations and gates, forward and backward. This file is compiled once per instruction set.
#include "kernels/kernels_isa.h"
#include "kernels/simd/f32.h"

// One function body per kind, so that the choice stands outside the loop.
#define ALWAYS static inline __attribute__((always_inline))

// sqrt(2 / pi) x (1 + 0.044715 x^2), doubled: tanh form as 2 sigmoid(2 u) - 1.
ALWAYS vf32 gelu_tanh_argument(vf32 x)
{
    const vf32 k = vf32_set1(2 * 0.7978845608f), cubic = vf32_set1(2 * 0.7978845608f * 0.044715f);
    return vf32_mul(x, vf32_fma(cubic, vf32_mul(x, x), k));
}

// Phi(x), the normal distribution's cumulative function.
ALWAYS vf32 normal_cdf(vf32 x)
{
    const vf32 half = vf32_set1(0.5f);
    return vf32_fma(half, vf32_erf(vf32_mul(x, vf32_set1(0.70710678f))), half);
}

ALWAYS vf32 value(enum em_activation kind, vf32 x)
{
    const vf32 zero = vf32_zero();
    switch (kind) {
    case EM_RELU: return vf32_max(zero, x);
    case EM_RELU2: {
        const vf32 p = vf32_max(zero, x);
        return vf32_mul(p, p);
    }
    case EM_SILU: return vf32_silu(x);
    case EM_GELU: return vf32_mul(x, normal_cdf(x));
    case EM_GELU_TANH: return vf32_mul(x, vf32_sigmoid(gelu_tanh_argument(x)));
    case EM_SIGMOID: return vf32_sigmoid(x);
    case EM_TANH: return vf32_tanh(x);
    case EM_IDENTITY:
    case EM_ACTIVATIONS: break;
    }
    return x;
}

// act(x), and act'(x) in *slope.
ALWAYS vf32 value_and_slope(enum em_activation kind, vf32 x, vf32 *slope)
{
    const vf32 zero = vf32_zero(), one = vf32_set1(1.0f);
    switch (kind) {
    case EM_RELU: *slope = vf32_select(vf32_lt(zero, x), one, zero); return vf32_max(zero, x);
    case EM_RELU2: {
        const vf32 p = vf32_max(zero, x);
        *slope = vf32_add(p, p);
        return vf32_mul(p, p);
    }
    case EM_SILU: { // s (1 + x (1 - s))
        const vf32 s = vf32_sigmoid(x), y = vf32_mul(x, s);
        *slope = vf32_fma(y, vf32_sub(one, s), s);
        return y;
    }
    case EM_GELU: { // Phi + x phi
        const vf32 cdf = normal_cdf(x);
        const vf32 e = vf32_exp(vf32_mul(vf32_mul(x, x), vf32_set1(-0.5f)));
        *slope = vf32_fma(vf32_mul(x, vf32_set1(0.3989422804f)), e, cdf);
        return vf32_mul(x, cdf);
    }
    case EM_GELU_TANH: { // s + x s (1 - s) a', a = 2 sqrt(2 / pi) (x + 0.044715 x^3)
        const vf32 s = vf32_sigmoid(gelu_tanh_argument(x)), y = vf32_mul(x, s);
        const vf32 a1 = vf32_fma(vf32_set1(2 * 0.7978845608f * 3 * 0.044715f), vf32_mul(x, x),
                                 vf32_set1(2 * 0.7978845608f));
        *slope = vf32_fma(vf32_mul(y, vf32_sub(one, s)), a1, s);
        return y;
    }
    case EM_SIGMOID: {
        const vf32 s = vf32_sigmoid(x);
        *slope = vf32_mul(s, vf32_sub(one, s));
        return s;
    }
    case EM_TANH: {
        const vf32 t = vf32_tanh(x);
        *slope = vf32_fnma(t, t, one);
        return t;
    }
    case EM_IDENTITY:
    case EM_ACTIVATIONS: break;
    }
    *slope = one;
    return x;
}

ALWAYS void forward(enum em_activation kind, float *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + VF32_LANES <= n; i += VF32_LANES)
        vf32_store(y + i, value(kind, vf32_load(x + i)));
    if (i < n) vf32_store_n(y + i, value(kind, vf32_load_n(x + i, n - i)), n - i);
}

ALWAYS vf32 before(const float *d, bool set, size_t m)
{
    return set ? vf32_zero() : vf32_load_n(d, m);
}

ALWAYS void backward(enum em_activation kind, float *dx, bool set, const float *dy, const float *x,
                     size_t n)
{
    vf32 slope;
    for (size_t i = 0; i < n; i += VF32_LANES) {
        const size_t m = n - i < VF32_LANES ? n - i : VF32_LANES;
        value_and_slope(kind, vf32_load_n(x + i, m), &slope);
        vf32_store_n(dx + i, vf32_fma(vf32_load_n(dy + i, m), slope, before(dx + i, set, m)), m);
    }
}

ALWAYS void gated(enum em_activation kind, float *h, const float *g, const float *u, size_t n)
{
    size_t i = 0;
    for (; i + VF32_LANES <= n; i += VF32_LANES)
        vf32_store(h + i, vf32_mul(value(kind, vf32_load(g + i)), vf32_load(u + i)));
    if (i < n) {
        const size_t m = n - i;
        vf32_store_n(h + i, vf32_mul(value(kind, vf32_load_n(g + i, m)), vf32_load_n(u + i, m)), m);
    }
}

ALWAYS void gated_backward(enum em_activation kind, float *dg, bool set_g, float *du, bool set_u,
                           const float *dh, const float *g, const float *u, size_t n)
{
    vf32 slope;
    for (size_t i = 0; i < n; i += VF32_LANES) {
        const size_t m = n - i < VF32_LANES ? n - i : VF32_LANES;
        const vf32 a = value_and_slope(kind, vf32_load_n(g + i, m), &slope);
        const vf32 d = vf32_load_n(dh + i, m);
        const vf32 t = vf32_mul(vf32_mul(d, vf32_load_n(u + i, m)), slope);
        if (dg) vf32_store_n(dg + i, vf32_add(before(dg + i, set_g, m), t), m);
        if (du) vf32_store_n(du + i, vf32_fma(d, a, before(du + i, set_u, m)), m);
    }
}

#define EACH_KIND(CALL)                                                                            \
    switch (kind) {                                                                                \
    case EM_IDENTITY: CALL(EM_IDENTITY); break;                                                    \
    case EM_RELU: CALL(EM_RELU); break;                                                            \
    case EM_RELU2: CALL(EM_RELU2); break;                                                          \
    case EM_SILU: CALL(EM_SILU); break;                                                            \
    case EM_GELU: CALL(EM_GELU); break;                                                            \
    case EM_GELU_TANH: CALL(EM_GELU_TANH); break;                                                  \
    case EM_SIGMOID: CALL(EM_SIGMOID); break;                                                      \
    case EM_TANH: CALL(EM_TANH); break;                                                            \
    case EM_ACTIVATIONS: break;                                                                    \
    }

// y = act(x); y may be x.
void EM_K(activation_f32)(enum em_activation kind, float *y, const float *x, size_t n)
{
#define CALL(KIND) forward(KIND, y, x, n)
    EACH_KIND(CALL)
#undef CALL
}

// dx += dy act'(x); `set`: dx holds nothing yet.
void EM_K(activation_backward_f32)(enum em_activation kind, float *dx, bool set, const float *dy,
                                   const float *x, size_t n)
{
#define CALL(KIND) backward(KIND, dx, set, dy, x, n)
    EACH_KIND(CALL)
#undef CALL
}

// h = act(g) u; h may be g or u.
void EM_K(gated_f32)(enum em_activation kind, float *h, const float *g, const float *u, size_t n)
{
#define CALL(KIND) gated(KIND, h, g, u, n)
    EACH_KIND(CALL)
#undef CALL
}

// dg += dh u act'(g), du += dh act(g); dg or du may be NULL, or hold nothing yet (`set_g`,
// `set_u`).
void EM_K(gated_backward_f32)(enum em_activation kind, float *dg, bool set_g, float *du, bool set_u,
                              const float *dh, const float *g, const float *u, size_t n)
{
#define CALL(KIND) gated_backward(KIND, dg, set_g, du, set_u, dh, g, u, n)
    EACH_KIND(CALL)
#undef CALL
}
