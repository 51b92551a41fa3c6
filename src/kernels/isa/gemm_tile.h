// What the matrix-multiplication sources of one instruction set share: the vector type, the tile
// geometry, and what happens to a tile of sums after its k loop. Included after kernels_isa.h.
//
// Tiles: mr rows x nr columns of sums stay in registers; mr * nv + nv (B) + 1 (broadcast of A) of
// them.
#ifndef EM_KERNELS_GEMM_TILE_H
#define EM_KERNELS_GEMM_TILE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(EM_ISA_avx2) || defined(EM_ISA_avx512)
#include <immintrin.h>
#elif defined(EM_ISA_neon)
#include <arm_neon.h>
#endif
#if defined(EM_ISA_neon) && defined(__GNUC__) && !defined(__clang__)
// GCC 12 moves all loads of A to the top of the loop, and then spills sums for want of registers.
#pragma GCC optimize("no-schedule-insns")
#endif

#include "kernels/gemm_set.h"

#if defined(EM_ISA_avx512)
enum { VB = 64, MR = 6, NV = 4 };
#elif defined(EM_ISA_avx2)
enum { VB = 32, MR = 6, NV = 2 };
#elif defined(EM_ISA_neon)
enum { VB = 16, MR = 8, NV = 3 };
#else
enum { VB = 16, MR = 4, NV = 2 };
#endif
enum { L = VB / 4, NR = NV * L };

typedef float vf __attribute__((vector_size(VB)));
typedef uint32_t vu __attribute__((vector_size(VB)));
// The same in memory, at any float's address.
typedef float vf_any __attribute__((vector_size(VB), aligned(4), may_alias));
typedef uint32_t vu_any __attribute__((vector_size(VB), aligned(4), may_alias));

#define TILE_INLINE static inline __attribute__((always_inline))
// Sums live in registers only when every loop over a tile is unrolled.
#define TILE_UNROLL _Pragma("GCC unroll 32")

TILE_INLINE vf vf_load(const float *p)
{
    return *(const vf_any *)p;
}

TILE_INLINE void vf_store(float *p, vf v)
{
    *(vf_any *)p = v;
}

TILE_INLINE vf vf_set(float x)
{
    return x - (vf){0}; // a broadcast; -0 and NaN stay what they are
}

// a * b + c, rounded once where the set can: intrinsics, because what a compiler contracts by
// itself could differ between the kernels of two tile heights.
TILE_INLINE vf vf_fma(vf a, vf b, vf c)
{
#if defined(EM_ISA_avx512)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(EM_ISA_avx2)
    return _mm256_fmadd_ps(a, b, c);
#elif defined(EM_ISA_neon)
    return vfmaq_f32(c, a, b);
#else
    return a * b + c;
#endif
}

// Sums to begin with.
TILE_INLINE void tile_start(vf acc[MR][NV], const struct em_gemm_tile *t, int rows, int vecs)
{
    TILE_UNROLL
    for (int r = 0; r < rows; r++)
        TILE_UNROLL
    for (int j = 0; j < vecs; j++)
        acc[r][j] = (vf){0};
    if (t->c) {
        TILE_UNROLL
        for (int r = 0; r < rows; r++)
            TILE_UNROLL
        for (int j = 0; j < vecs * VB; j += 64)
            __builtin_prefetch((const char *)(t->c + (size_t)r * t->c_stride) + j, 1, 3);
    }
    if (!t->start) return;
    TILE_UNROLL
    for (int r = 0; r < rows; r++)
        TILE_UNROLL
    for (int j = 0; j < vecs; j++)
        acc[r][j] = vf_load(t->start + (size_t)r * t->sums_stride + j * L);
}

// Sums to memory, or through the epilogue to C. All of scale, bias and their absence are one FMA,
// so that tiles of every shape round alike.
TILE_INLINE void tile_end(vf acc[MR][NV], const struct em_gemm_tile *t, int rows, int vecs)
{
    if (!t->c) {
        TILE_UNROLL
        for (int r = 0; r < rows; r++)
            TILE_UNROLL
        for (int j = 0; j < vecs; j++)
            vf_store(t->sums + (size_t)r * t->sums_stride + j * L, acc[r][j]);
        return;
    }
    const vf scale = vf_set(t->scale);
    vf bias[NV];
    TILE_UNROLL
    for (int j = 0; j < vecs; j++)
        bias[j] = t->bias ? vf_load(t->bias + j * L) : (vf){0};
    TILE_UNROLL
    for (int r = 0; r < rows; r++)
        TILE_UNROLL
    for (int j = 0; j < vecs; j++)
        acc[r][j] = vf_fma(acc[r][j], scale, bias[j]);
    if (t->residual) {
        TILE_UNROLL
        for (int r = 0; r < rows; r++)
            TILE_UNROLL
        for (int j = 0; j < vecs; j++)
            acc[r][j] += vf_load(t->residual + (size_t)r * t->residual_stride + j * L);
    }
    if (t->accumulate) {
        TILE_UNROLL
        for (int r = 0; r < rows; r++)
            TILE_UNROLL
        for (int j = 0; j < vecs; j++)
            acc[r][j] += vf_load(t->c + (size_t)r * t->c_stride + j * L);
    }
    TILE_UNROLL
    for (int r = 0; r < rows; r++)
        TILE_UNROLL
    for (int j = 0; j < vecs; j++)
        vf_store(t->c + (size_t)r * t->c_stride + j * L, acc[r][j]);
}

// tile_##rows##_##vecs for every shape, from an always-inline tile(t, rows, vecs), and their table.
#define TILE_KERNEL(attribute, rows, vecs)                                                         \
    attribute static void tile_##rows##_##vecs(const struct em_gemm_tile *t)                       \
    {                                                                                              \
        tile(t, rows, vecs);                                                                       \
    }
#if defined(EM_ISA_avx512)
#define TILE_ROW(attribute, rows)                                                                  \
    TILE_KERNEL(attribute, rows, 1)                                                                \
    TILE_KERNEL(attribute, rows, 2)                                                                \
    TILE_KERNEL(attribute, rows, 4)
#define TILE_ENTRY(rows)                                                                           \
    {                                                                                              \
        tile_##rows##_1, tile_##rows##_2, tile_##rows##_4                                          \
    }
#elif defined(EM_ISA_neon)
#define TILE_ROW(attribute, rows)                                                                  \
    TILE_KERNEL(attribute, rows, 1)                                                                \
    TILE_KERNEL(attribute, rows, 2)                                                                \
    TILE_KERNEL(attribute, rows, 3)
#define TILE_ENTRY(rows)                                                                           \
    {                                                                                              \
        tile_##rows##_1, tile_##rows##_2, tile_##rows##_3                                          \
    }
#else
#define TILE_ROW(attribute, rows)                                                                  \
    TILE_KERNEL(attribute, rows, 1)                                                                \
    TILE_KERNEL(attribute, rows, 2)
#define TILE_ENTRY(rows)                                                                           \
    {                                                                                              \
        tile_##rows##_1, tile_##rows##_2, NULL                                                     \
    }
#endif

#define TILE_ROWS_4(a) TILE_ROW(a, 1) TILE_ROW(a, 2) TILE_ROW(a, 3) TILE_ROW(a, 4)
#define TILE_ENTRIES_4 TILE_ENTRY(1), TILE_ENTRY(2), TILE_ENTRY(3), TILE_ENTRY(4)
#if defined(EM_ISA_avx2) || defined(EM_ISA_avx512)
#define TILE_KERNELS(a) TILE_ROWS_4(a) TILE_ROW(a, 5) TILE_ROW(a, 6)
#define TILE_TABLE                                                                                 \
    {                                                                                              \
        TILE_ENTRIES_4, TILE_ENTRY(5), TILE_ENTRY(6)                                               \
    }
#elif defined(EM_ISA_neon)
#define TILE_KERNELS(a) TILE_ROWS_4(a) TILE_ROW(a, 5) TILE_ROW(a, 6) TILE_ROW(a, 7) TILE_ROW(a, 8)
#define TILE_TABLE                                                                                 \
    {                                                                                              \
        TILE_ENTRIES_4, TILE_ENTRY(5), TILE_ENTRY(6), TILE_ENTRY(7), TILE_ENTRY(8)                 \
    }
#else
#define TILE_KERNELS(a) TILE_ROWS_4(a)
#define TILE_TABLE                                                                                 \
    {                                                                                              \
        TILE_ENTRIES_4                                                                             \
    }
#endif

// The FMAs of whole tiles, on registers alone.
static inline float roof_fma(size_t iterations)
{
    vf acc[MR * NV], sum = {0};
    const vf x = vf_set((float)(iterations != 1) * 0.5f),
             y = vf_set(0.25f); // not known to the compiler
    TILE_UNROLL
    for (int r = 0; r < MR * NV; r++)
        acc[r] = vf_set((float)r);
    for (size_t i = 0; i < iterations; i++) {
        TILE_UNROLL
        for (int r = 0; r < MR * NV; r++)
#if defined(EM_ISA_neon)
            acc[r] = vf_fma(x, y, acc[r]); // the instruction adds to its result's register
#else
            acc[r] = vf_fma(acc[r], x, y);
#endif
    }
    TILE_UNROLL
    for (int r = 0; r < MR * NV; r++)
        sum += acc[r];
    return sum[0];
}

// The epilogue for columns that do not fill a vector: one at a time, rounded as tile_end does.
static inline void finish_columns(const struct em_gemm_tile *t, size_t rows, size_t cols)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t n = 0; n < cols; n++) {
            const float sum = t->sums[r * t->sums_stride + n];
            float v = vf_fma(vf_set(sum), vf_set(t->scale), vf_set(t->bias ? t->bias[n] : 0.0f))[0];
            if (t->residual) v += t->residual[r * t->residual_stride + n];
            float *c = t->c + r * t->c_stride + n;
            *c = t->accumulate ? *c + v : v;
        }
}

// L x L cells, rows to columns, in log2(L) rounds of interleaving row i with row i + L/2.
TILE_INLINE void transpose_cells(vu v[L])
{
    vu w[L];
#if defined(EM_ISA_avx512)
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(EM_ISA_avx2)
#define LOW 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define LOW 0, 4, 1, 5
#define HIGH 2, 6, 3, 7
#endif
    TILE_UNROLL
    for (int round = 1; round < L; round *= 2) {
        TILE_UNROLL
        for (int i = 0; i < L / 2; i++) {
            w[2 * i] = __builtin_shufflevector(v[i], v[i + L / 2], LOW);
            w[2 * i + 1] = __builtin_shufflevector(v[i], v[i + L / 2], HIGH);
        }
        TILE_UNROLL
        for (int i = 0; i < L; i++)
            v[i] = w[i];
    }
#undef LOW
#undef HIGH
}

// dst[c * dst_stride + r] = src[r * src_stride + c] for r < rows, c < cols; strides in cells.
static inline void transpose_floats(uint32_t *dst, size_t dst_stride, const float *src,
                                    size_t src_stride, size_t rows, size_t cols)
{
    size_t r = 0;
    for (; r + L <= rows; r += L) {
        size_t c = 0;
        for (; c + L <= cols; c += L) {
            vu v[L];
            TILE_UNROLL
            for (int i = 0; i < L; i++)
                v[i] = (vu)vf_load(src + (r + (size_t)i) * src_stride + c);
            transpose_cells(v);
            TILE_UNROLL
            for (int i = 0; i < L; i++)
                *(vu_any *)(dst + (c + (size_t)i) * dst_stride + r) = v[i];
        }
        for (; c < cols; c++)
            for (size_t i = r; i < r + L; i++)
                memcpy(dst + c * dst_stride + i, src + i * src_stride + c, sizeof(float));
    }
    for (; r < rows; r++)
        for (size_t c = 0; c < cols; c++)
            memcpy(dst + c * dst_stride + r, src + r * src_stride + c, sizeof(float));
}

#endif
