// Softmax and cross-entropy, one row at a time. This file is compiled once per instruction set.
#include <float.h>
#include <math.h>

#include "kernels/kernels_isa.h"
#include "kernels/simd/f32.h"
#include "kernels/simd/fetch.h"

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

#define ALWAYS static inline __attribute__((always_inline))

// exp(x), of numbers that are not above 0 but where the largest was infinite: a quarter faster,
// with errors that are below 3e-7 of the largest term.
ALWAYS vf32 term(vf32 x, bool finite)
{
    return finite ? vf32_exp2_decay(vf32_mul(x, vf32_set1(0x1.715476p+0f))) : vf32_exp(x);
}

ALWAYS float sum_terms(float *y, const float *x, size_t n, float m, bool finite)
{
    enum { L = VF32_LANES };
    const vf32 top = vf32_set1(m);
    vf32 s0 = vf32_zero(), s1 = s0;
    size_t i = 0;
    for (; i + 2 * L <= n; i += 2 * L) {
        const vf32 a = term(vf32_sub(vf32_load(x + i), top), finite);
        const vf32 b = term(vf32_sub(vf32_load(x + i + L), top), finite);
        em_fetch(x, n + i);
        em_fetch(x, n + i + L);
        s0 = vf32_add(s0, a);
        s1 = vf32_add(s1, b);
        if (y) {
            vf32_store(y + i, a);
            vf32_store(y + i + L, b);
        }
    }
    for (; i < n; i += L) {
        const size_t c = n - i < L ? n - i : L;
        const vf32 a = term(vf32_sub(vf32_load_n(x + i, c), top), finite);
        const vm32 inside = vf32_lt(vf32_iota(), vf32_set1((float)c)); // the rest is exp(0 - m)
        s0 = vf32_add(s0, vf32_select(inside, a, vf32_zero()));
        if (y) vf32_store_n(y + i, a, c);
    }
    return vf32_sum(vf32_add(s0, s1));
}

// sum exp(x - m), m being at least the largest finite value; y (which may be x, or NULL) gets the
// terms. What comes after x is fetched.
ALWAYS float sum_exp(float *y, const float *x, size_t n, float m)
{
    return m < FLT_MAX ? sum_terms(y, x, n, m, true) : sum_terms(y, x, n, m, false);
}

// A row goes through in blocks that the first-level cache holds, each with the largest value so far
// taken off: exponentials are computed while the next block comes from memory, and a long row is
// read from there once. A block's terms are brought to the row's largest value when they are
// scaled.
enum { BLOCK = 1024, BLOCKS = 256 };

static size_t block_of(size_t n)
{
    const size_t block = (n / BLOCKS + VF32_LANES) / VF32_LANES * VF32_LANES;
    return block < BLOCK ? BLOCK : block;
}

// sum exp(x - *m), *m being the largest value; y (which may be x) gets exp(x - top[b]) in block b.
// Both NULL: the sum alone.
ALWAYS float blocks_exp(float *y, float *top, const float *x, size_t n, float *m)
{
    const size_t block = block_of(n);
    float sum = 0, most = -FLT_MAX;
    for (size_t i = 0; i < n; i += block) {
        const size_t c = n - i < block ? n - i : block;
        const float here = row_max(x + i, c), old = most;
        if (here > most) most = here;
        if (i && most > old) sum *= expf(old - most);
        sum += sum_exp(y ? y + i : NULL, x + i, c, most);
        if (top) top[i / block] = most;
    }
    *m = most;
    return sum;
}

// What blocks_exp left in y becomes factor exp(x - m).
static void blocks_scale(float *y, const float *top, size_t n, float m, float factor)
{
    const size_t block = block_of(n);
    for (size_t i = 0; i < n; i += block)
        EM_K(scale_f32)
    (y + i, y + i, top[i / block] < m ? factor * expf(top[i / block] - m) : factor,
     n - i < block ? n - i : block);
}

// log sum exp(x), in nats.
float EM_K(logsumexp_f32)(const float *x, size_t n)
{
    float m;
    const float sum = blocks_exp(NULL, NULL, x, n, &m);
    return m + logf(sum);
}

// y = exp(x) / sum exp(x); returns log sum exp(x). y may be x.
float EM_K(softmax_f32)(float *y, const float *x, size_t n)
{
    float m, top[BLOCKS];
    const float sum = blocks_exp(y, top, x, n, &m);
    blocks_scale(y, top, n, m, 1.0f / sum);
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
    float m, top[BLOCKS];
    const float at_target = z[target], sum = blocks_exp(z, top, z, n, &m);
    blocks_scale(z, top, n, m, scale / sum);
    z[target] -= scale;
    return m + logf(sum) - at_target;
}
