// The vocabulary of f32.h for AVX2 with FMA and F16C: eight lanes.
#ifndef EM_KERNELS_SIMD_F32_AVX2_H
#define EM_KERNELS_SIMD_F32_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define VF32_LANES 8

typedef __m256 vf32;
typedef __m256 vm32; // all bits of a lane, or none

static inline vf32 vf32_zero(void)
{
    return _mm256_setzero_ps();
}
static inline vf32 vf32_set1(float x)
{
    return _mm256_set1_ps(x);
}
static inline vf32 vf32_iota(void)
{
    return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7);
}
static inline vf32 vf32_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline void vf32_store(float *p, vf32 v)
{
    _mm256_storeu_ps(p, v);
}
static inline __m256i vf32_first_(size_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vf32 vf32_load_n(const float *p, size_t n)
{
    return n >= VF32_LANES ? vf32_load(p) : _mm256_maskload_ps(p, vf32_first_(n));
}
static inline void vf32_store_n(float *p, vf32 v, size_t n)
{
    if (n >= VF32_LANES)
        vf32_store(p, v); // masked stores are slow on AMD, even with a full mask
    else
        _mm256_maskstore_ps(p, vf32_first_(n), v);
}
static inline vf32 vf32_add(vf32 a, vf32 b)
{
    return _mm256_add_ps(a, b);
}
static inline vf32 vf32_sub(vf32 a, vf32 b)
{
    return _mm256_sub_ps(a, b);
}
static inline vf32 vf32_mul(vf32 a, vf32 b)
{
    return _mm256_mul_ps(a, b);
}
static inline vf32 vf32_div(vf32 a, vf32 b)
{
    return _mm256_div_ps(a, b);
}
static inline vf32 vf32_fma(vf32 a, vf32 b, vf32 c)
{
    return _mm256_fmadd_ps(a, b, c);
}
static inline vf32 vf32_fnma(vf32 a, vf32 b, vf32 c)
{
    return _mm256_fnmadd_ps(a, b, c);
}
static inline vf32 vf32_max(vf32 a, vf32 b)
{
    return _mm256_max_ps(a, b);
}
static inline vf32 vf32_min(vf32 a, vf32 b)
{
    return _mm256_min_ps(a, b);
}
static inline vf32 vf32_neg(vf32 a)
{
    return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f));
}
static inline vf32 vf32_abs(vf32 a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
static inline vf32 vf32_sqrt(vf32 a)
{
    return _mm256_sqrt_ps(a);
}
static inline vf32 vf32_round(vf32 a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vm32 vf32_lt(vf32 a, vf32 b)
{
    return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}
static inline vf32 vf32_select(vm32 m, vf32 a, vf32 b)
{
    return _mm256_blendv_ps(b, a, m);
}
// In two halves: 2^n alone may lie outside the range of f32 where x * 2^n does not.
static inline vf32 vf32_scale2(vf32 x, vf32 n)
{
    const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256i a = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    const __m256i b = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(x, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b));
}
static inline float vf32_sum(vf32 a)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float vf32_hmax(vf32 a)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
static inline float vf32_hmin(vf32 a)
{
    __m128 s = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_min_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_min_ss(s, _mm_movehdup_ps(s)));
}

// AVX2 has no masked access to 16-bit values: the tail goes through a buffer.
static inline __m128i vf32_load16_n_(const uint16_t *p, size_t n)
{
    uint16_t buffer[VF32_LANES] = {0};
    memcpy(buffer, p, n * sizeof *p);
    return _mm_loadu_si128((const __m128i *)(const void *)buffer);
}
static inline void vf32_store16_n_(uint16_t *p, __m128i v, size_t n)
{
    uint16_t buffer[VF32_LANES];
    _mm_storeu_si128((__m128i *)(void *)buffer, v);
    memcpy(p, buffer, n * sizeof *p);
}
static inline vf32 vf32_from_bf16_(__m128i h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
static inline __m128i vf32_to_bf16_(vf32 v)
{
    const __m256i u = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i nearest = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i bits = _mm256_srli_epi32(_mm256_blendv_epi8(nearest, quiet, nan), 16);
    const __m256i packed = _mm256_packus_epi32(bits, bits); // within each half of the register
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
}
static inline vf32 vf32_load_bf16(const uint16_t *p)
{
    return vf32_from_bf16_(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline vf32 vf32_load_bf16_n(const uint16_t *p, size_t n)
{
    return vf32_from_bf16_(vf32_load16_n_(p, n));
}
static inline void vf32_store_bf16(uint16_t *p, vf32 v)
{
    _mm_storeu_si128((__m128i *)(void *)p, vf32_to_bf16_(v));
}
static inline void vf32_store_bf16_n(uint16_t *p, vf32 v, size_t n)
{
    vf32_store16_n_(p, vf32_to_bf16_(v), n);
}
static inline vf32 vf32_load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline vf32 vf32_load_f16_n(const uint16_t *p, size_t n)
{
    return _mm256_cvtph_ps(vf32_load16_n_(p, n));
}
static inline void vf32_store_f16(uint16_t *p, vf32 v)
{
    _mm_storeu_si128((__m128i *)(void *)p,
                     _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline void vf32_store_f16_n(uint16_t *p, vf32 v, size_t n)
{
    vf32_store16_n_(p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), n);
}

static inline void vf32_transpose(vf32 r[VF32_LANES])
{
    __m256 t[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    // Then half q of r[4 g + c] is column 4 q + c of rows 4 g .. 4 g + 3.
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        const __m256 low = _mm256_permute2f128_ps(r[c], r[4 + c], 0x20);
        r[4 + c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x31);
        r[c] = low;
    }
}

#endif
