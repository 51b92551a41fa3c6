// Normalisation, one row at a time. This file is compiled once per instruction set.
#include <math.h>

#include "kernels/kernels_isa.h"
#include "kernels/simd/f32.h"
#include "kernels/simd/fetch.h"

// STEP(i, m) for vectors of m lanes from i on: all of [0, n), m being a constant but for the last.
#define EACH_VECTOR(n, STEP)                                                                       \
    do {                                                                                           \
        size_t i = 0;                                                                              \
        for (; i + VF32_LANES <= (n); i += VF32_LANES) {                                           \
            STEP(i, VF32_LANES);                                                                   \
        }                                                                                          \
        if (i < (n)) {                                                                             \
            STEP(i, (n)-i);                                                                        \
        }                                                                                          \
    } while (0)

// sum x^2; y, which is written next, is fetched. Four sums, so that one addition does not wait for
// the other.
static float sum_squares(const float *x, const float *y, size_t n)
{
    enum { L = VF32_LANES };
    vf32 s0 = vf32_zero(), s1 = s0, s2 = s0, s3 = s0;
    size_t i = 0;
    for (; i + 4 * L <= n; i += 4 * L) {
        const vf32 a = vf32_load(x + i), b = vf32_load(x + i + L);
        const vf32 c = vf32_load(x + i + 2 * L), d = vf32_load(x + i + 3 * L);
        for (size_t j = 0; j < 4 * L; j += L)
            em_fetch(y, i + j);
        s0 = vf32_fma(a, a, s0);
        s1 = vf32_fma(b, b, s1);
        s2 = vf32_fma(c, c, s2);
        s3 = vf32_fma(d, d, s3);
    }
    for (; i < n; i += L) {
        const vf32 a = vf32_load_n(x + i, n - i < L ? n - i : L);
        s0 = vf32_fma(a, a, s0);
    }
    return vf32_sum(vf32_add(vf32_add(s0, s1), vf32_add(s2, s3)));
}

// y = x w / sqrt(mean(x^2) + eps), each [n]; returns 1 / sqrt(..), which backward needs. y may be
// x.
float EM_K(rmsnorm_f32)(float *y, const float *x, const float *w, size_t n, float eps)
{
    const float rstd = 1.0f / sqrtf(sum_squares(x, y, n) / (float)n + eps);
    const vf32 r = vf32_set1(rstd);
#define WRITE(i, m)                                                                                \
    em_fetch(x, n + i);                                                                            \
    vf32_store_n(y + i, vf32_mul(vf32_mul(vf32_load_n(x + i, m), r), vf32_load_n(w + i, m)), m)
    EACH_VECTOR(n, WRITE);
#undef WRITE
    return rstd;
}

// With r = rstd and s = mean_j(w_j dy_j x_j): dx_i += r (w_i dy_i - x_i r^2 s), dw_i += dy_i x_i r.
// dx or dw may be NULL; `set`: dx holds nothing yet.
void EM_K(rmsnorm_backward_f32)(float *dx, bool set, float *dw, const float *dy, const float *x,
                                const float *w, float rstd, size_t n)
{
    const vf32 r = vf32_set1(rstd);
    vf32 sum = vf32_zero();
    // The sum and dw share the reads of dy and x.
#define ADD(i, m)                                                                                  \
    const vf32 dyx = vf32_mul(vf32_load_n(dy + i, m), vf32_load_n(x + i, m));                      \
    em_fetch(dx, i);                                                                               \
    sum = vf32_fma(dyx, vf32_load_n(w + i, m), sum);                                               \
    if (dw) vf32_store_n(dw + i, vf32_fma(dyx, r, vf32_load_n(dw + i, m)), m)
    EACH_VECTOR(n, ADD);
#undef ADD
    if (!dx) return;
    const float s = vf32_sum(sum) / (float)n;
    const vf32 c = vf32_set1(rstd * rstd * rstd * s);
#define WRITE(i, m)                                                                                \
    const vf32 g = vf32_mul(vf32_load_n(w + i, m), vf32_load_n(dy + i, m));                        \
    const vf32 old = set ? vf32_zero() : vf32_load_n(dx + i, m);                                   \
    em_fetch(x, n + i);                                                                            \
    em_fetch(dy, n + i);                                                                           \
    vf32_store_n(dx + i, vf32_fnma(c, vf32_load_n(x + i, m), vf32_fma(r, g, old)), m)
    EACH_VECTOR(n, WRITE);
#undef WRITE
}

static float sum(const float *x, const float *y, size_t n)
{
    enum { L = VF32_LANES };
    vf32 s0 = vf32_zero(), s1 = vf32_zero();
    size_t i = 0;
    for (; i + 2 * L <= n; i += 2 * L) {
        em_fetch(y, i);
        em_fetch(y, i + L);
        s0 = vf32_add(s0, vf32_load(x + i));
        s1 = vf32_add(s1, vf32_load(x + i + L));
    }
    for (; i + L <= n; i += L)
        s0 = vf32_add(s0, vf32_load(x + i));
    if (i < n) s1 = vf32_add(s1, vf32_load_n(x + i, n - i));
    return vf32_sum(vf32_add(s0, s1));
}

// sum (x - mean)^2, with the row after x being fetched. A pass of its own: mean(x^2) - mean^2
// cancels when the mean is large.
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
    const float mu = sum(x, y, n) / (float)n;
    const float rstd = 1.0f / sqrtf(sum_squared_deviations(x, n, mu) / (float)n + eps);
    const vf32 r = vf32_set1(rstd), c = vf32_set1(mu);
#define WRITE(i, m)                                                                                \
    const vf32 z = vf32_mul(vf32_sub(vf32_load_n(x + i, m), c), r);                                \
    const vf32 shift = b ? vf32_load_n(b + i, m) : vf32_zero();                                    \
    em_fetch(x, n + i);                                                                            \
    vf32_store_n(y + i, vf32_fma(z, vf32_load_n(w + i, m), shift), m)
    EACH_VECTOR(n, WRITE);
#undef WRITE
    *mean = mu;
    return rstd;
}

// With z = (x - mean) rstd and g = w dy: dx += rstd (g - mean(g) - z mean(g z)), dw += dy z, db +=
// dy. Each of dx, dw, db may be NULL; `set`: dx holds nothing yet.
void EM_K(layernorm_backward_f32)(float *dx, bool set, float *dw, float *db, const float *dy,
                                  const float *x, const float *w, float mean, float rstd, size_t n)
{
    const vf32 r = vf32_set1(rstd), mu = vf32_set1(mean);
    vf32 sg = vf32_zero(), sgz = vf32_zero();
#define ADD(i, m)                                                                                  \
    const vf32 d = vf32_load_n(dy + i, m), g = vf32_mul(d, vf32_load_n(w + i, m));                 \
    const vf32 z = vf32_mul(vf32_sub(vf32_load_n(x + i, m), mu), r);                               \
    em_fetch(dx, i);                                                                               \
    sg = vf32_add(sg, g);                                                                          \
    sgz = vf32_fma(g, z, sgz);                                                                     \
    if (dw) vf32_store_n(dw + i, vf32_fma(d, z, vf32_load_n(dw + i, m)), m);                       \
    if (db) vf32_store_n(db + i, vf32_add(d, vf32_load_n(db + i, m)), m)
    EACH_VECTOR(n, ADD);
#undef ADD
    if (!dx) return;
    const vf32 mg = vf32_set1(vf32_sum(sg) / (float)n), mgz = vf32_set1(vf32_sum(sgz) / (float)n);
#define WRITE(i, m)                                                                                \
    const vf32 g = vf32_mul(vf32_load_n(dy + i, m), vf32_load_n(w + i, m));                        \
    const vf32 z = vf32_mul(vf32_sub(vf32_load_n(x + i, m), mu), r);                               \
    const vf32 d = vf32_fnma(z, mgz, vf32_sub(g, mg));                                             \
    const vf32 old = set ? vf32_zero() : vf32_load_n(dx + i, m);                                   \
    em_fetch(x, n + i);                                                                            \
    em_fetch(dy, n + i);                                                                           \
    vf32_store_n(dx + i, vf32_fma(r, d, old), m)
    EACH_VECTOR(n, WRITE);
#undef WRITE
}
