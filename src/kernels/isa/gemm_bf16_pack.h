// Packing for bf16: pairs of neighbours in k become one cell, the even k in its low half. Included
// after gemm_tile.h, with PAIRS_ATTRIBUTE (a target, or nothing) and, where the set has
// instructions for it, PAIRS_NATIVE.
#ifndef EM_KERNELS_GEMM_BF16_PACK_H
#define EM_KERNELS_GEMM_BF16_PACK_H

#include "kernels/isa/gemm_tile.h"

#define PAIRS_INLINE PAIRS_ATTRIBUTE TILE_INLINE

// To the nearest bf16, ties to even, in the upper half of each lane; a NaN stays one. The lower
// half is not cleared.
TILE_INLINE vu round_bf16(vu u)
{
    const vu rounded = u + 0x7fff + ((u >> 16) & 1);
    const vu nan = (vu)((u & 0x7fffffff) > 0x7f800000);
    return (rounded & ~nan) | ((u | 0x400000) & nan);
}

// Cell i is (p[2i], p[2i + 1]).
PAIRS_INLINE vu pairs_along(const float *p)
{
#if defined(PAIRS_NATIVE)
    return (vu)_mm512_cvtne2ps_pbh(vf_load(p + L), vf_load(p));
#else
#if defined(EM_ISA_avx512)
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#elif defined(EM_ISA_avx2)
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#else
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#endif
    const vu x = round_bf16((vu)vf_load(p)), y = round_bf16((vu)vf_load(p + L));
    return (__builtin_shufflevector(x, y, EVEN) >> 16) |
           (__builtin_shufflevector(x, y, ODD) & 0xffff0000);
#undef EVEN
#undef ODD
#endif
}

// Cell i is (p[i], q[i]).
PAIRS_INLINE vu pairs_across(const float *p, const float *q)
{
#if defined(PAIRS_NATIVE)
    const __m512i order =
        (__m512i)(__v32hi){0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                           8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512bh halves = _mm512_cvtne2ps_pbh(vf_load(q), vf_load(p));
    return (vu)_mm512_permutexvar_epi16(order, (__m512i)halves);
#else
    return (round_bf16((vu)vf_load(p)) >> 16) | (round_bf16((vu)vf_load(q)) & 0xffff0000);
#endif
}

// The same for n < 2L or n < L values, the others zero.
PAIRS_INLINE vu pairs_along_part(const float *p, size_t n)
{
    float full[2 * L] = {0};
    memcpy(full, p, n * sizeof(float));
    return pairs_along(full);
}

PAIRS_INLINE vu pairs_across_part(const float *p, const float *q, size_t n)
{
    float full[2][L] = {{0}};
    memcpy(full[0], p, n * sizeof(float));
    memcpy(full[1], q, n * sizeof(float));
    return pairs_across(full[0], full[1]);
}

// What stands for the row after the last when k is odd.
static const float zero_row[NR];

PAIRS_ATTRIBUTE static void pack_b_rows(void *dst, size_t width, const float *src,
                                        size_t src_stride, const int32_t *rows, size_t k,
                                        size_t cols)
{
    uint32_t *out = dst;
    for (size_t i = 0; i < k; i += 2, out += width) {
        const float *p = src + (rows ? (size_t)rows[i] : i) * src_stride;
        const float *q = zero_row;
        if (i + 1 < k) q = src + (rows ? (size_t)rows[i + 1] : i + 1) * src_stride;
        if (cols == NR) {
            TILE_UNROLL
            for (int j = 0; j < NR; j += L)
                *(vu *)(void *)(out + j) = pairs_across(p + j, q + j);
            continue;
        }
        for (size_t j = 0; j < width; j += L) {
            const size_t n = j >= cols ? 0 : cols - j < L ? cols - j : L;
            *(vu *)(void *)(out + j) = n ? pairs_across_part(p + j, q + j, n) : (vu){0};
        }
    }
}

PAIRS_ATTRIBUTE static void pack_b_cols(void *dst, size_t width, const float *src,
                                        size_t src_stride, size_t k, size_t cols)
{
    uint32_t *out = dst;
    for (size_t n0 = 0; n0 < width; n0 += L)
        for (size_t k0 = 0; k0 < k; k0 += 2 * L) {
            vu v[L];
            const size_t n_count = n0 >= cols ? 0 : cols - n0 < L ? cols - n0 : L;
            const size_t k_count = k - k0 < 2 * L ? k - k0 : 2 * L;
            const float *p = src + n0 * src_stride + k0;
            if (n_count == L && k_count == 2 * L) {
                TILE_UNROLL
                for (int i = 0; i < L; i++)
                    v[i] = pairs_along(p + (size_t)i * src_stride);
            } else {
                for (size_t i = 0; i < L; i++)
                    v[i] = i < n_count ? pairs_along_part(p + i * src_stride, k_count) : (vu){0};
            }
            transpose_cells(v);
            uint32_t *o = out + k0 / 2 * width + n0;
            for (size_t i = 0; i < (k_count + 1) / 2; i++)
                *(vu *)(void *)(o + i * width) = v[i];
        }
}

#endif
