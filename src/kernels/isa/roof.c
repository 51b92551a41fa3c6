// Reading at the speed of memory.
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
