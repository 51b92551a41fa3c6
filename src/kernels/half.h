// bf16 and f16 as bit patterns, one value at a time; kernels convert rows (convert_* in list.def).
#ifndef EM_KERNELS_HALF_H
#define EM_KERNELS_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t em_f32_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float em_f32_from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline float em_bf16_to_f32(uint16_t h)
{
    return em_f32_from_bits((uint32_t)h << 16);
}

// Nearest, ties to even; a NaN stays one (made quiet), also where its payload is in the low half.
static inline uint16_t em_bf16_from_f32(float x)
{
    const uint32_t u = em_f32_bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

static inline float em_f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = h & 0x7fffu;
    if (rest >= 0x7c00u) // infinity, NaN (made quiet, as the instructions do)
        return em_f32_from_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13 |
                                (rest > 0x7c00u ? 0x400000u : 0));
    // A normal or subnormal f16 is its bits read as a small f32, times 2^112: exact.
    const float magnitude = em_f32_from_bits(rest << 13) * 0x1p112f;
    return em_f32_from_bits(sign | em_f32_bits(magnitude));
}

// Nearest, ties to even; overflow gives infinity.
static inline uint16_t em_f16_from_f32(float x)
{
    const uint32_t u = em_f32_bits(x), sign = u >> 16 & 0x8000u, rest = u & 0x7fffffffu;
    if (rest > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (rest >> 13 & 0x3ffu));
    if (rest >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); // 65520 and more
    if (rest <
        0x38800000u) { // below 2^-14: a sum with 1/2 leaves the rounded subnormal in its low bits
        const float shifted = em_f32_from_bits(rest) + 0.5f;
        return (uint16_t)(sign | (em_f32_bits(shifted) - 0x3f000000u));
    }
    return (uint16_t)(sign | (rest - 0x38000000u + 0xfffu + (rest >> 13 & 1u)) >> 13);
}

#endif
