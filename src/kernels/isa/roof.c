// Reading and writing at the speed of memory: what kernels that memory bounds are measured against.
#include "kernels/kernels_isa.h"

#include "kernels/simd/f32.h"

// The sum of x (in an order of its own: only the reading counts).
float EM_K(read_f32)(const float *x, size_t n)
{
    vf32 s[8];
    for (int i = 0; i < 8; i++)
        s[i] = vf32_zero();
    size_t i = 0;
    for (; i + 8 * VF32_LANES <= n; i += 8 * VF32_LANES)
        for (size_t j = 0; j < 8; j++)
            s[j] = vf32_add(s[j], vf32_load(x + i + j * VF32_LANES));
    float sum = 0;
    for (int j = 0; j < 8; j++)
        sum += vf32_sum(s[j]);
    for (; i < n; i++)
        sum += x[i];
    return sum;
}

// y[j] = x[j] + factor (x[0] + x[1] + ..), x[j] being 0 from j = reads on: next to no arithmetic,
// so that memory alone decides. Where y[j] is x[j] and factor is 0, a pass leaves finite values as
// they were.
void EM_K(plain_f32)(float *const *y, size_t writes, const float *const *x, size_t reads,
                     float factor, size_t n)
{
    enum { L = VF32_LANES, LINES = 4 };
    const vf32 f = vf32_set1(factor);
    size_t i = 0;
    for (; i + LINES * L <= n; i += LINES * L) {
        vf32 s[LINES];
        for (size_t k = 0; k < LINES; k++)
            s[k] = vf32_zero();
        for (size_t r = 0; r < reads; r++)
            for (size_t k = 0; k < LINES; k++)
                s[k] = vf32_add(s[k], vf32_load(x[r] + i + k * L));
        for (size_t w = 0; w < writes; w++)
            for (size_t k = 0; k < LINES; k++) {
                const vf32 own = w < reads ? vf32_load(x[w] + i + k * L) : vf32_zero();
                vf32_store(y[w] + i + k * L, vf32_fma(f, s[k], own));
            }
    }
    for (; i < n; i++) {
        float s = 0;
        for (size_t r = 0; r < reads; r++)
            s += x[r][i];
        for (size_t w = 0; w < writes; w++)
            y[w][i] = factor * s + (w < reads ? x[w][i] : 0);
    }
}
