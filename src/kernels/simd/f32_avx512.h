// The vocabulary of f32.h for AVX-512 (F, BW, DQ, VL): sixteen lanes.
#ifndef EM_KERNELS_SIMD_F32_AVX512_H
#define EM_KERNELS_SIMD_F32_AVX512_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define VF32_LANES 16

typedef __m512 vf32;
typedef __mmask16 vm32;

static inline vf32 vf32_zero(void)
{
    return _mm512_setzero_ps();
}
static inline vf32 vf32_set1(float x)
{
    return _mm512_set1_ps(x);
}
static inline vf32 vf32_iota(void)
{
    return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
static inline vf32 vf32_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline void vf32_store(float *p, vf32 v)
{
    _mm512_storeu_ps(p, v);
}
static inline __mmask16 vf32_first_(size_t n)
{
    return (__mmask16)((1u << n) - 1u);
}
static inline vf32 vf32_load_n(const float *p, size_t n)
{
    return n >= VF32_LANES ? vf32_load(p) : _mm512_maskz_loadu_ps(vf32_first_(n), p);
}
static inline void vf32_store_n(float *p, vf32 v, size_t n)
{
    if (n >= VF32_LANES)
        vf32_store(p, v); // masked stores are slow on AMD, even with a full mask
    else
        _mm512_mask_storeu_ps(p, vf32_first_(n), v);
}
static inline vf32 vf32_add(vf32 a, vf32 b)
{
    return _mm512_add_ps(a, b);
}
static inline vf32 vf32_sub(vf32 a, vf32 b)
{
    return _mm512_sub_ps(a, b);
}
static inline vf32 vf32_mul(vf32 a, vf32 b)
{
    return _mm512_mul_ps(a, b);
}
static inline vf32 vf32_div(vf32 a, vf32 b)
{
    return _mm512_div_ps(a, b);
}
static inline vf32 vf32_fma(vf32 a, vf32 b, vf32 c)
{
    return _mm512_fmadd_ps(a, b, c);
}
static inline vf32 vf32_fnma(vf32 a, vf32 b, vf32 c)
{
    return _mm512_fnmadd_ps(a, b, c);
}
static inline vf32 vf32_max(vf32 a, vf32 b)
{
    return _mm512_max_ps(a, b);
}
static inline vf32 vf32_min(vf32 a, vf32 b)
{
    return _mm512_min_ps(a, b);
}
static inline vf32 vf32_neg(vf32 a)
{
    return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f));
}
static inline vf32 vf32_abs(vf32 a)
{
    return _mm512_abs_ps(a);
}
static inline vf32 vf32_sqrt(vf32 a)
{
    return _mm512_sqrt_ps(a);
}
static inline vf32 vf32_round(vf32 a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vm32 vf32_lt(vf32 a, vf32 b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
static inline vf32 vf32_select(vm32 m, vf32 a, vf32 b)
{
    return _mm512_mask_blend_ps(m, b, a);
}
static inline vf32 vf32_scale2(vf32 x, vf32 n)
{
    return _mm512_scalef_ps(x, n);
}
static inline float vf32_sum(vf32 a)
{
    return _mm512_reduce_add_ps(a);
}
static inline float vf32_hmax(vf32 a)
{
    return _mm512_reduce_max_ps(a);
}
static inline float vf32_hmin(vf32 a)
{
    return _mm512_reduce_min_ps(a);
}

static inline vf32 vf32_from_bf16_(__m256i h)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
static inline __m256i vf32_to_bf16_(vf32 v)
{
    const __m512i u = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i nearest = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i bits = _mm512_mask_or_epi32(nearest, nan, u, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16));
}
static inline vf32 vf32_load_bf16(const uint16_t *p)
{
    return vf32_from_bf16_(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
static inline vf32 vf32_load_bf16_n(const uint16_t *p, size_t n)
{
    return vf32_from_bf16_(_mm256_maskz_loadu_epi16(vf32_first_(n), p));
}
static inline void vf32_store_bf16(uint16_t *p, vf32 v)
{
    _mm256_storeu_si256((__m256i *)(void *)p, vf32_to_bf16_(v));
}
static inline void vf32_store_bf16_n(uint16_t *p, vf32 v, size_t n)
{
    _mm256_mask_storeu_epi16(p, vf32_first_(n), vf32_to_bf16_(v));
}
static inline vf32 vf32_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
static inline vf32 vf32_load_f16_n(const uint16_t *p, size_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vf32_first_(n), p));
}
static inline void vf32_store_f16(uint16_t *p, vf32 v)
{
    _mm256_storeu_si256((__m256i *)(void *)p,
                        _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline void vf32_store_f16_n(uint16_t *p, vf32 v, size_t n)
{
    _mm256_mask_storeu_epi16(p, vf32_first_(n),
                             _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static inline void vf32_transpose(vf32 r[VF32_LANES])
{
    __m512 t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    // Then quarter q of r[4 g + c] is column 4 q + c of rows 4 g .. 4 g + 3.
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        const __m512d a = _mm512_castps_pd(t[i]), b = _mm512_castps_pd(t[i + 1]);
        const __m512d c = _mm512_castps_pd(t[i + 2]), d = _mm512_castps_pd(t[i + 3]);
        r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        const __m512 low_even = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88);
        const __m512 low_odd = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
        const __m512 high_even = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
        const __m512 high_odd = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
        r[c] = _mm512_shuffle_f32x4(low_even, high_even, 0x88);
        r[8 + c] = _mm512_shuffle_f32x4(low_even, high_even, 0xdd);
        r[4 + c] = _mm512_shuffle_f32x4(low_odd, high_odd, 0x88);
        r[12 + c] = _mm512_shuffle_f32x4(low_odd, high_odd, 0xdd);
    }
}

#endif
