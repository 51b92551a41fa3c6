// Matrix multiplication in bf16 with AVX-512's dot product of pairs: twice the rate of f32 FMAs.
// Not every CPU of the set has it, so functions carry their target, and the driver asks the CPU.
#include "kernels/kernels_isa.h"

#include "kernels/gemm_set.h"

#if defined(EM_ISA_avx512)

#define PAIRS_ATTRIBUTE __attribute__((target("avx512bf16")))
#define PAIRS_NATIVE
#include "kernels/isa/gemm_bf16_pack.h"

PAIRS_INLINE void tile(const struct em_gemm_tile *t, int rows, int vecs)
{
    vf acc[MR][NV];
    const uint32_t *a[MR];
    const uint32_t *b = __builtin_assume_aligned(t->b, VB);
    TILE_UNROLL
    for (int r = 0; r < rows; r++)
        a[r] = t->a[r];
    tile_start(acc, t, rows, vecs);
    const size_t steps = t->steps;
    const char *next = t->next;
    const size_t next_step = t->next_step;
    for (size_t k = 0; k < steps; k++, b += vecs * L, next += next_step) {
        __builtin_prefetch(next, 0, 2);
        __m512bh bv[NV];
        TILE_UNROLL
        for (int j = 0; j < vecs; j++)
            bv[j] = (__m512bh)_mm512_load_si512(b + j * L);
        TILE_UNROLL
        for (int r = 0; r < rows; r++) {
            const __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[r][k]);
            TILE_UNROLL
            for (int j = 0; j < vecs; j++)
                acc[r][j] = _mm512_dpbf16_ps(acc[r][j], x, bv[j]);
        }
    }
    tile_end(acc, t, rows, vecs);
}

TILE_KERNELS(PAIRS_ATTRIBUTE)

PAIRS_ATTRIBUTE static void pack_a_rows(void *dst, size_t stride, const float *const *rows,
                                        size_t count, size_t k)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t *out = (uint32_t *)(void *)((char *)dst + i * stride);
        const float *p = rows[i];
        size_t j = 0;
        for (; j + 2 * L <= k; j += 2 * L, out += L)
            *(vu_any *)out = pairs_along(p + j);
        if (j < k) *(vu_any *)out = pairs_along_part(p + j, k - j);
    }
}

PAIRS_ATTRIBUTE static void pack_a_cols(void *dst, size_t stride, const float *src,
                                        size_t src_stride, size_t count, size_t k)
{
    for (size_t k0 = 0; k0 < k; k0 += 2 * L)
        for (size_t m0 = 0; m0 < count; m0 += L) {
            vu v[L];
            const size_t m_count = count - m0 < L ? count - m0 : L;
            const size_t k_count = k - k0 < 2 * L ? k - k0 : 2 * L;
            const float *p = src + k0 * src_stride + m0;
            if (m_count == L && k_count == 2 * L) {
                TILE_UNROLL
                for (size_t i = 0; i < L; i++)
                    v[i] = pairs_across(p + 2 * i * src_stride, p + (2 * i + 1) * src_stride);
            } else {
                for (size_t i = 0; i < L; i++) {
                    v[i] = (vu){0};
                    if (2 * i >= k_count) continue;
                    const float *second =
                        2 * i + 1 < k_count ? p + (2 * i + 1) * src_stride : zero_row;
                    v[i] = pairs_across_part(p + 2 * i * src_stride, second, m_count);
                }
            }
            transpose_cells(v);
            char *out = (char *)dst + m0 * stride + k0 / 2 * sizeof(uint32_t);
            for (size_t i = 0; i < m_count; i++)
                *(vu_any *)(void *)(out + i * stride) = v[i];
        }
}

// The dot products of whole tiles, on registers alone.
PAIRS_ATTRIBUTE static float roof_dot(size_t iterations)
{
    vf acc[MR * NV], sum = {0};
    const __m512bh x = (__m512bh)_mm512_set1_epi32((int)iterations), y = x;
    TILE_UNROLL
    for (int r = 0; r < MR * NV; r++)
        acc[r] = vf_set((float)r);
    for (size_t i = 0; i < iterations; i++) {
        TILE_UNROLL
        for (int r = 0; r < MR * NV; r++)
            acc[r] = _mm512_dpbf16_ps(acc[r], x, y);
    }
    TILE_UNROLL
    for (int r = 0; r < MR * NV; r++)
        sum += acc[r];
    return sum[0];
}

const struct em_gemm_set em_gemm_bf16_dot__avx512 = {
    .name = "avx512-bf16",
    .isa = "avx512",
    .native = true,
    .mr = MR,
    .nr = NR,
    .lanes = L,
    .k_per_step = 2,
    .cell_bytes = sizeof(uint32_t),
    .row_unit = 1,
    .a_step_bytes = sizeof(uint32_t),
    .a_in_place = false,
    .tile = TILE_TABLE,
    .roof = roof_dot,
    .finish = finish_columns,
    .pack_a_rows = pack_a_rows,
    .pack_a_cols = pack_a_cols,
    .pack_b_rows = pack_b_rows,
    .pack_b_cols = pack_b_cols,
};

#endif
