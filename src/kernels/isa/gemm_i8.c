// Products with 8-bit weights in the instructions of the set, and the quantising of activations.
#define SET EM_K(gemm_i8)
#define NAME ""
#define EXTRA 0
#include "kernels/isa/gemm_i8_tile.h"

typedef int8_t narrow __attribute__((vector_size(L)));

// The largest magnitude; NaN when any number is not finite.
static inline float largest(const float *x)
{
    vf32 most = vf32_zero(), wrong = vf32_zero();
    for (size_t i = 0; i < EM_I8_BLOCK; i += VF32_LANES) {
        const vf32 v = vf32_load(x + i);
        most = vf32_max(vf32_abs(v), most);
        wrong = vf32_add(wrong, vf32_sub(v, v)); // 0, or NaN
    }
    return vf32_hmax(most) + vf32_sum(wrong);
}

// The sum of the lanes.
static inline int32_t total_of(vi x)
{
#if defined(EM_ISA_avx512)
    return _mm512_reduce_add_epi32((__m512i)x);
#else
    int32_t sum = 0;
    for (int i = 0; i < L; i++)
        sum += x[i];
    return sum;
#endif
}

// x [n] in blocks of 32, the last one padded with zeros: values of 127ths of the largest magnitude,
// to nearest, their sum, and the scale. A block with a number that is not finite is 0 with NaN as
// its scale.
void EM_K(quantise_i8)(int8_t *values, float *scales, int32_t *starts, const float *x, size_t n)
{
    const float to_integer = 0x1.8p23f; // what is added to it is rounded to an integer
    for (size_t k = 0; k < n; k += EM_I8_BLOCK, x += EM_I8_BLOCK, values += EM_I8_BLOCK) {
        float padded[EM_I8_BLOCK] = {0};
        const float *block = x;
        if (n - k < EM_I8_BLOCK) block = memcpy(padded, x, (n - k) * sizeof *x);
        const float most = largest(block), inverse = most > 0 ? 127 / most : 0;
        vi total = {0};
        for (int i = 0; i < EM_I8_BLOCK; i += L) {
            const vf v = *(const vf_any *)(block + i), rounded = v * inverse + to_integer;
            const vi q = most > 0 ? __builtin_convertvector(rounded - to_integer, vi) : (vi){0};
            const narrow bytes = __builtin_convertvector(q, narrow);
            memcpy(values + i, &bytes, sizeof bytes);
            total += q;
        }
        *scales++ = most / 127;
        *starts++ = -128 * total_of(total);
    }
}
