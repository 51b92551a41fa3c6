// Normalisation, one row at a time. This file is compiled once per instruction set.
#include <math.h>

#include "kernels/kernels_isa.h"
#include "kernels/simd/f32.h"

// y = x w / sqrt(mean(x^2) + eps), each [n]; returns 1 / sqrt(..), which backward needs. y may be
// x.
float EM_K(rmsnorm_f32)(float *y, const float *x, const float *w, size_t n, float eps)
{
    const float rstd = 1.0f / sqrtf(EM_K(dot_f32)(x, x, n) / (float)n + eps);
    const vf32 r = vf32_set1(rstd);
    size_t i = 0;
    for (; i + VF32_LANES <= n; i += VF32_LANES)
        vf32_store(y + i, vf32_mul(vf32_mul(vf32_load(x + i), r), vf32_load(w + i)));
    if (i < n) {
        const size_t m = n - i;
        vf32_store_n(y + i, vf32_mul(vf32_mul(vf32_load_n(x + i, m), r), vf32_load_n(w + i, m)), m);
    }
    return rstd;
}

// With r = rstd and s = mean_j(w_j dy_j x_j): dx_i += r (w_i dy_i - x_i r^2 s), dw_i += dy_i x_i r.
// dx or dw may be NULL.
void EM_K(rmsnorm_backward_f32)(float *dx, float *dw, const float *dy, const float *x,
                                const float *w, float rstd, size_t n)
{
    const vf32 r = vf32_set1(rstd);
    vf32 s0 = vf32_zero(), s1 = vf32_zero();
    size_t i = 0;
    // The sum and dw share the reads of dy and x.
    for (; i + VF32_LANES <= n; i += VF32_LANES) {
        const vf32 dyx = vf32_mul(vf32_load(dy + i), vf32_load(x + i));
        s0 = vf32_fma(dyx, vf32_load(w + i), s0);
        if (dw) vf32_store(dw + i, vf32_fma(dyx, r, vf32_load(dw + i)));
    }
    if (i < n) {
        const size_t m = n - i;
        const vf32 dyx = vf32_mul(vf32_load_n(dy + i, m), vf32_load_n(x + i, m));
        s1 = vf32_mul(dyx, vf32_load_n(w + i, m));
        if (dw) vf32_store_n(dw + i, vf32_fma(dyx, r, vf32_load_n(dw + i, m)), m);
    }
    if (!dx) return;
    const float s = vf32_sum(vf32_add(s0, s1)) / (float)n;
    const vf32 c = vf32_set1(rstd * rstd * rstd * s);
    for (i = 0; i + VF32_LANES <= n; i += VF32_LANES) {
        const vf32 g = vf32_mul(vf32_load(w + i), vf32_load(dy + i));
        const vf32 old = vf32_load(dx + i);
        vf32_store(dx + i, vf32_fnma(c, vf32_load(x + i), vf32_fma(r, g, old)));
    }
    if (i < n) {
        const size_t m = n - i;
        const vf32 g = vf32_mul(vf32_load_n(w + i, m), vf32_load_n(dy + i, m));
        const vf32 old = vf32_load_n(dx + i, m);
        vf32_store_n(dx + i, vf32_fnma(c, vf32_load_n(x + i, m), vf32_fma(r, g, old)), m);
    }
}

static float sum(const float *x, size_t n)
{
    vf32 s0 = vf32_zero(), s1 = vf32_zero();
    size_t i = 0;
    for (; i + 2 * VF32_LANES <= n; i += 2 * VF32_LANES) {
        s0 = vf32_add(s0, vf32_load(x + i));
        s1 = vf32_add(s1, vf32_load(x + i + VF32_LANES));
    }
    for (; i + VF32_LANES <= n; i += VF32_LANES)
        s0 = vf32_add(s0, vf32_load(x + i));
    if (i < n) s1 = vf32_add(s1, vf32_load_n(x + i, n - i));
    return vf32_sum(vf32_add(s0, s1));
}

// sum (x - mean)^2. A pass of its own: mean(x^2) - mean^2 cancels when the mean is large.
static float sum_squared_deviations(const float *x, size_t n, float mean)
{
    const vf32 mu = vf32_set1(mean);
    vf32 s0 = vf32_zero(), s1 = vf32_zero();
    size_t i = 0;
    for (; i + 2 * VF32_LANES <= n; i += 2 * VF32_LANES) {
        const vf32 a = vf32_sub(vf32_load(x + i), mu);
        const vf32 b = vf32_sub(vf32_load(x + i + VF32_LANES), mu);
        s0 = vf32_fma(a, a, s0);
        s1 = vf32_fma(b, b, s1);
    }
    float tail = 0;
    for (; i + VF32_LANES <= n; i += VF32_LANES) {
        const vf32 a = vf32_sub(vf32_load(x + i), mu);
        s0 = vf32_fma(a, a, s0);
    }
    for (; i < n; i++)
        tail += (x[i] - mean) * (x[i] - mean);
    return vf32_sum(vf32_add(s0, s1)) + tail;
}

// y = (x - mean) w / sqrt(var + eps) + b; b may be NULL. Returns 1 / sqrt(..) and gives the mean.
// y may be x.
float EM_K(layernorm_f32)(float *y, const float *x, const float *w, const float *b, size_t n,
                          float eps, float *mean)
{
    const float mu = sum(x, n) / (float)n;
    const float rstd = 1.0f / sqrtf(sum_squared_deviations(x, n, mu) / (float)n + eps);
    const vf32 r = vf32_set1(rstd), m = vf32_set1(mu);
    for (size_t i = 0; i < n; i += VF32_LANES) {
        const size_t c = n - i < VF32_LANES ? n - i : VF32_LANES;
        const vf32 z = vf32_mul(vf32_sub(vf32_load_n(x + i, c), m), r);
        const vf32 shift = b ? vf32_load_n(b + i, c) : vf32_zero();
        vf32_store_n(y + i, vf32_fma(z, vf32_load_n(w + i, c), shift), c);
    }
    *mean = mu;
    return rstd;
}

// With z = (x - mean) rstd and g = w dy: dx += rstd (g - mean(g) - z mean(g z)), dw += dy z, db +=
// dy. Each of dx, dw, db may be NULL.
void EM_K(layernorm_backward_f32)(float *dx, float *dw, float *db, const float *dy, const float *x,
                                  const float *w, float mean, float rstd, size_t n)
{
    const vf32 r = vf32_set1(rstd), mu = vf32_set1(mean);
    vf32 sg = vf32_zero(), sgz = vf32_zero();
    for (size_t i = 0; i < n; i += VF32_LANES) {
        const size_t c = n - i < VF32_LANES ? n - i : VF32_LANES;
        const vf32 d = vf32_load_n(dy + i, c), g = vf32_mul(d, vf32_load_n(w + i, c));
        const vf32 z = vf32_mul(vf32_sub(vf32_load_n(x + i, c), mu), r);
        sg = vf32_add(sg, g);
        sgz = vf32_fma(g, z, sgz);
        if (dw) vf32_store_n(dw + i, vf32_fma(d, z, vf32_load_n(dw + i, c)), c);
        if (db) vf32_store_n(db + i, vf32_add(d, vf32_load_n(db + i, c)), c);
    }
    if (!dx) return;
    const vf32 mg = vf32_set1(vf32_sum(sg) / (float)n), mgz = vf32_set1(vf32_sum(sgz) / (float)n);
    for (size_t i = 0; i < n; i += VF32_LANES) {
        const size_t c = n - i < VF32_LANES ? n - i : VF32_LANES;
        const vf32 g = vf32_mul(vf32_load_n(dy + i, c), vf32_load_n(w + i, c));
        const vf32 z = vf32_mul(vf32_sub(vf32_load_n(x + i, c), mu), r);
        const vf32 d = vf32_fnma(z, mgz, vf32_sub(g, mg));
        vf32_store_n(dx + i, vf32_fma(r, d, vf32_load_n(dx + i, c)), c);
    }
}
