// Exponential and friends on the vocabulary of f32.h. The polynomials are minimax fits (Remez),
// made for the intervals given; errors are the largest relative ones against double, measured in
// f32.
#ifndef EM_KERNELS_SIMD_F32_MATH_H
#define EM_KERNELS_SIMD_F32_MATH_H

// Error 1e-7. Below -104 gives 0, above 88.72 infinity; NaN stays NaN.
static inline vf32 vf32_exp(vf32 x)
{
    x = vf32_max(vf32_set1(-104.0f), vf32_min(vf32_set1(89.0f), x));
    const vf32 n = vf32_round(vf32_mul(x, vf32_set1(0x1.715476p+0f)));
    // ln 2 in two parts, of which the first has so few bits that n times it is exact.
    vf32 r = vf32_fnma(n, vf32_set1(0.693359375f), x);
    r = vf32_fnma(n, vf32_set1(-2.12194440e-4f), r);
    vf32 q = vf32_fma(vf32_set1(0.00138145986f), r, vf32_set1(0.00836871688f));
    q = vf32_fma(q, r, vf32_set1(0.041668388f));
    q = vf32_fma(q, r, vf32_set1(0.166665206f));
    q = vf32_fma(q, r, vf32_set1(0.499999934f));
    q = vf32_fma(vf32_mul(r, r), q, r);
    return vf32_scale2(vf32_add(q, vf32_set1(1.0f)), n);
}

static inline vf32 vf32_exp2_(vf32 x)
{
    const vf32 n = vf32_round(x), r = vf32_sub(x, n);
    vf32 q = vf32_fma(vf32_set1(0.00132646999f), r, vf32_set1(0.0096715339f));
    q = vf32_fma(q, r, vf32_set1(0.05550734f));
    q = vf32_fma(q, r, vf32_set1(0.240222418f));
    q = vf32_fma(q, r, vf32_set1(0.693146977f));
    return vf32_scale2(vf32_fma(q, r, vf32_set1(1.0f)), n);
}

// 2^x, error 2e-7: shorter than exp, for callers that can scale by log2(e) beforehand. Below -150
// gives 0, from 128 on infinity; NaN stays NaN.
static inline vf32 vf32_exp2(vf32 x)
{
    return vf32_exp2_(vf32_max(vf32_set1(-151.0f), vf32_min(vf32_set1(129.0f), x)));
}

// The same for x <= 0: a decay.
static inline vf32 vf32_exp2_decay(vf32 x)
{
    return vf32_exp2_(vf32_max(vf32_set1(-151.0f), x));
}

static inline vf32 vf32_sigmoid(vf32 x)
{
    const vf32 one = vf32_set1(1.0f);
    return vf32_div(one, vf32_add(one, vf32_exp(vf32_neg(x))));
}

static inline vf32 vf32_silu(vf32 x)
{
    return vf32_div(x, vf32_add(vf32_set1(1.0f), vf32_exp(vf32_neg(x))));
}

// log(1 + e^x) = max(x, 0) + log(1 + u), u = e^-|x|, the latter as 2 atanh(u / (2 + u)): error
// 3e-7, also where the result is small. Its derivative is vf32_sigmoid.
static inline vf32 vf32_softplus(vf32 x)
{
    const vf32 u = vf32_exp(vf32_neg(vf32_abs(x)));
    const vf32 s = vf32_div(u, vf32_add(vf32_set1(2.0f), u)), z = vf32_mul(s, s);
    vf32 p = vf32_fma(vf32_set1(0.268675506f), z, vf32_set1(0.282339543f));
    p = vf32_fma(p, z, vf32_set1(0.400076717f));
    p = vf32_fma(p, z, vf32_set1(0.666666389f));
    p = vf32_fma(p, z, vf32_set1(2.0f));
    return vf32_fma(p, s, vf32_max(vf32_zero(), x));
}

// Error 2e-7. Near 0 the exponential form would cancel, so there an odd polynomial.
static inline vf32 vf32_tanh(vf32 x)
{
    const vf32 a = vf32_abs(x), z = vf32_mul(x, x), one = vf32_set1(1.0f);
    vf32 p = vf32_fma(vf32_set1(-0.00566477536f), z, vf32_set1(0.0206159962f));
    p = vf32_fma(p, z, vf32_set1(-0.0537386242f));
    p = vf32_fma(p, z, vf32_set1(0.13331542f));
    p = vf32_fma(p, z, vf32_set1(-0.333332926f));
    const vf32 near = vf32_fma(vf32_mul(x, z), p, x);
    const vf32 e = vf32_exp(vf32_add(a, a));
    const vf32 far = vf32_sub(one, vf32_div(vf32_set1(2.0f), vf32_add(e, one)));
    const vf32 signed_far = vf32_select(vf32_lt(x, vf32_zero()), vf32_neg(far), far);
    return vf32_select(vf32_lt(a, vf32_set1(0.625f)), near, signed_far);
}

// sin r for |r| <= pi / 2. Error 6e-9 before rounding.
static inline vf32 vf32_sin_near_(vf32 r)
{
    const vf32 z = vf32_mul(r, r);
    vf32 p = vf32_fma(vf32_set1(2.6056302e-06f), z, vf32_set1(-0.00019809538f));
    p = vf32_fma(p, z, vf32_set1(0.008333066f));
    p = vf32_fma(p, z, vf32_set1(-0.1666666f));
    return vf32_fma(vf32_mul(r, z), p, r);
}

// a - n pi, with pi in three parts of which the first two have so few bits that n times them is
// exact up to 2^12.
static inline vf32 vf32_less_pi_(vf32 a, vf32 n)
{
    a = vf32_fnma(n, vf32_set1(3.140625f), a);
    a = vf32_fnma(n, vf32_set1(0.0009675025939941406f), a);
    return vf32_fnma(n, vf32_set1(1.509958e-07f), a);
}

// 1 for an even n, -1 for an odd one.
static inline vf32 vf32_parity_(vf32 n)
{
    const vf32 half = vf32_mul(n, vf32_set1(0.5f));
    const vf32 odd = vf32_abs(vf32_sub(n, vf32_mul(vf32_set1(2.0f), vf32_round(half))));
    return vf32_fnma(vf32_set1(2.0f), odd, vf32_set1(1.0f));
}

// Error 1.2e-7 absolute up to |a| = 1e4, where the argument's own rounding is far more. Infinite
// arguments give NaN.
static inline vf32 vf32_sin(vf32 a)
{
    const vf32 n = vf32_round(vf32_mul(a, vf32_set1(0.31830989f)));
    return vf32_mul(vf32_parity_(n), vf32_sin_near_(vf32_less_pi_(a, n)));
}

// cos a = -sin(a - (n + 1/2) pi) for an even n.
static inline vf32 vf32_cos(vf32 a)
{
    const vf32 half = vf32_set1(0.5f);
    const vf32 n = vf32_round(vf32_sub(vf32_mul(a, vf32_set1(0.31830989f)), half));
    const vf32 r = vf32_less_pi_(a, vf32_add(n, half));
    return vf32_neg(vf32_mul(vf32_parity_(n), vf32_sin_near_(r)));
}

// Error 2e-7: an odd polynomial below 1, beyond it 1 - exp(fit of log erfc).
static inline vf32 vf32_erf(vf32 x)
{
    const vf32 one = vf32_set1(1.0f), z = vf32_mul(x, x);
    const vf32 a = vf32_min(vf32_set1(3.95f), vf32_abs(x)); // 1 - erf(3.95) < 2^-25
    vf32 p = vf32_fma(vf32_set1(7.85387098e-05f), z, vf32_set1(-0.000801019678f));
    p = vf32_fma(p, z, vf32_set1(0.00518832808f));
    p = vf32_fma(p, z, vf32_set1(-0.0268538122f));
    p = vf32_fma(p, z, vf32_set1(0.112835852f));
    p = vf32_fma(p, z, vf32_set1(-0.376126258f));
    p = vf32_fma(p, z, vf32_set1(1.12837917f));
    const vf32 near = vf32_mul(p, x);
    vf32 q = vf32_fma(vf32_set1(0.000186378986f), a, vf32_set1(-0.00294765623f));
    q = vf32_fma(q, a, vf32_set1(0.0218380556f));
    q = vf32_fma(q, a, vf32_set1(-0.103106737f));
    q = vf32_fma(q, a, vf32_set1(-0.638144854f));
    q = vf32_fma(q, a, vf32_set1(-1.12708918f));
    q = vf32_fma(q, a, vf32_set1(-0.00034152626f));
    const vf32 far = vf32_sub(one, vf32_exp(q));
    const vf32 signed_far = vf32_select(vf32_lt(x, vf32_zero()), vf32_neg(far), far);
    return vf32_select(vf32_lt(a, one), near, signed_far);
}

#endif
