// A tile of a product with 8-bit weights. Included once per way to multiply four 8-bit pairs and
// add them up, with the name SET, what the CPU has to have beside the set as EXTRA and in a name as
// NAME, and, where it has an instruction for this, DOT_PRODUCTS.
#ifndef EM_KERNELS_GEMM_I8_TILE_H
#define EM_KERNELS_GEMM_I8_TILE_H

#include <string.h>

#include "kernels/gemm_i8.h"
#include "kernels/kernels_isa.h"

#include "kernels/simd/f32.h"

#if defined(EM_ISA_neon) && defined(__GNUC__) && !defined(__clang__)
// As in gemm_tile.h: GCC 12 would load early and spill sums for it.
#pragma GCC optimize("no-schedule-insns")
#endif

#define TILE_INLINE static inline __attribute__((always_inline))
#define TILE_UNROLL _Pragma("GCC unroll 32")

#if defined(EM_ISA_avx512)
enum { VB = 64, NV = 4 };
#elif defined(EM_ISA_avx2)
enum { VB = 32, NV = 2 };
#else
enum { VB = 16, NV = 2 };
#endif
enum { L = VB / 4, MR = 3, NR = NV * L, STEPS = EM_I8_BLOCK / 4 };
typedef int32_t vi __attribute__((vector_size(VB)));
typedef int32_t vi_any __attribute__((vector_size(VB), aligned(4), may_alias));
typedef float vf __attribute__((vector_size(VB)));
typedef float vf_any __attribute__((vector_size(VB), aligned(4), may_alias));

TILE_INLINE vi vi_set(int32_t x)
{
    return x - (vi){0};
}

TILE_INLINE vf multiply_add(vf a, vf b, vf sum)
{
#if defined(EM_ISA_avx512)
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
#elif defined(EM_ISA_avx2)
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#elif defined(EM_ISA_neon)
    return (vf)vfmaq_f32((float32x4_t)sum, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + sum;
#endif
}

// sum + the four products of each lane: b unsigned, a signed.
TILE_INLINE vi dot(vi sum, vi b, int32_t a)
{
#if defined(DOT_PRODUCTS)
    return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)b, (__m512i)vi_set(a));
#elif defined(EM_ISA_avx512)
    const __m512i even = _mm512_and_si512((__m512i)b, _mm512_set1_epi32(0xff00ff)),
                  odd = _mm512_and_si512(_mm512_srli_epi32((__m512i)b, 8),
                                         _mm512_set1_epi32(0xff00ff));
    const int32_t a_even = (int32_t)((uint32_t)(uint16_t)(int8_t)a |
                                     (uint32_t)(int32_t)(int8_t)(a >> 16) << 16),
                  a_odd = (int32_t)((uint32_t)(uint16_t)(int8_t)(a >> 8) |
                                    (uint32_t)(int32_t)(int8_t)(a >> 24) << 16);
    return sum + (vi)_mm512_madd_epi16(even, _mm512_set1_epi32(a_even)) +
           (vi)_mm512_madd_epi16(odd, _mm512_set1_epi32(a_odd));
#elif defined(EM_ISA_avx2)
    const __m256i even = _mm256_and_si256((__m256i)b, _mm256_set1_epi32(0xff00ff)),
                  odd = _mm256_and_si256(_mm256_srli_epi32((__m256i)b, 8),
                                         _mm256_set1_epi32(0xff00ff));
    const int32_t a_even = (int32_t)((uint32_t)(uint16_t)(int8_t)a |
                                     (uint32_t)(int32_t)(int8_t)(a >> 16) << 16),
                  a_odd = (int32_t)((uint32_t)(uint16_t)(int8_t)(a >> 8) |
                                    (uint32_t)(int32_t)(int8_t)(a >> 24) << 16);
    return sum + (vi)_mm256_madd_epi16(even, _mm256_set1_epi32(a_even)) +
           (vi)_mm256_madd_epi16(odd, _mm256_set1_epi32(a_odd));
#else
    for (int i = 0; i < 4; i++)
        sum += ((b >> 8 * i) & 0xff) * vi_set((int8_t)(a >> 8 * i));
    return sum;
#endif
}

TILE_INLINE void tile(const struct em_i8_tile *t, int rows)
{
    vf sum[MR][NV];
    const char *b = t->b;
    TILE_UNROLL
    for (int r = 0; r < rows; r++)
        TILE_UNROLL
    for (int j = 0; j < NV; j++)
        sum[r][j] =
            t->add ? (vf) * (const vf_any *)(t->c + (size_t)r * t->c_stride + j * L) : (vf){0};
    for (size_t k = 0; k < t->blocks; k++) {
        const uint16_t *scale = (const uint16_t *)(const void *)b;
        const char *cells = b + NR * sizeof *scale;
        vi part[MR][NV];
        TILE_UNROLL
        for (int r = 0; r < rows; r++) {

            const vi start = vi_set(t->a_start[(size_t)r * t->a_blocks + k]);
            TILE_UNROLL
            for (int j = 0; j < NV; j++)
                part[r][j] = start;
        }
        TILE_UNROLL
        for (int s = 0; s < STEPS; s++, cells += 4 * NR) {
            vi row[NV];
            TILE_UNROLL
            for (int j = 0; j < NV; j++)
                row[j] = *(const vi_any *)(const void *)(cells + j * VB);
            TILE_UNROLL
            for (int r = 0; r < rows; r++) {
                int32_t four;
                memcpy(&four, t->a + (size_t)r * t->a_stride + k * EM_I8_BLOCK + (size_t)s * 4,
                       sizeof four);
                TILE_UNROLL
                for (int j = 0; j < NV; j++)
                    part[r][j] = dot(part[r][j], row[j], four);
            }
        }
        TILE_UNROLL
        for (int j = 0; j < NV; j++) {
            vf of_b;
            TILE_UNROLL
            for (int i = 0; i < L; i += VF32_LANES) {
                const vf32 part_of = vf32_load_f16(scale + j * L + i);
                memcpy((char *)&of_b + i * 4, &part_of, sizeof part_of);
            }
            TILE_UNROLL
            for (int r = 0; r < rows; r++)
                sum[r][j] = multiply_add(__builtin_convertvector(part[r][j], vf),
                                         of_b * t->a_scale[(size_t)r * t->a_blocks + k], sum[r][j]);
        }
        b = cells;
    }
    TILE_UNROLL
    for (int r = 0; r < rows; r++)
        TILE_UNROLL
    for (int j = 0; j < NV; j++)
        *(vf_any *)(t->c + (size_t)r * t->c_stride + j * L) = sum[r][j];
}

static void tiles(const struct em_i8_tile *t)
{
    if (t->rows == 1)
        tile(t, 1);
    else if (t->rows == 2)
        tile(t, 2);
    else
        tile(t, MR);
}

enum { ROOF_PARTS = 24 };
static int32_t roof(size_t iterations)
{
    vi part[ROOF_PARTS], all = {0};
    TILE_UNROLL
    for (int i = 0; i < ROOF_PARTS; i++)
        part[i] = vi_set(i);
    for (size_t k = 0; k < iterations; k++) {
        const int32_t a = (int32_t)k;
        TILE_UNROLL
        for (int i = 0; i < ROOF_PARTS; i++)
            part[i] = dot(part[i], all, a);
    }
    TILE_UNROLL
    for (int i = 0; i < ROOF_PARTS; i++)
        all += part[i];
    return all[0];
}

#define STRING(x) #x
#define EXPAND_STRING(x) STRING(x)

const struct em_i8_set SET = {
    .name = EXPAND_STRING(EM_ISA) NAME,
    .isa = EXPAND_STRING(EM_ISA),
    .extra = EXTRA,
    .rows = MR,
    .columns = NR,
    .cell = 4,
    .offset = 128,
    .tile = tiles,
    .roof = roof,
    .roof_operations = (size_t)2 * 4 * L * ROOF_PARTS,
};

#endif
