// Matrix multiplication in bf16 with NEON's BFMMLA, which multiplies 2 x 4 by 4 x 2 numbers: four
// times the multiply-adds of an f32 FMA. This file is compiled with that extension, and the driver
// asks the CPU.
//
// A step is four k. Packed B is [steps][columns] cells of four, so that a vector is two columns; in
// packed A the steps of rows 2i and 2i + 1 take turns, so that a vector is two rows. Sums are 2 x 2
// blocks while k runs.
//
// The instruction adds products in pairs, and each of these two additions is rounded to odd, which
// is off by less than 2^-23 where rounding to nearest is off by 2^-24 at most. As there is one
// addition in a pair and one pair to two k, K products are off by no more than K additions rounded
// to nearest: the bound that all bf16 products are held to. Numbers below 2^-126 count as zero.
#include "kernels/kernels_isa.h"

#include "kernels/gemm_set.h"

#if defined(EM_ISA_neon)

#include "kernels/isa/gemm_tile.h"

enum { STEP = 4 };      // k of a step
typedef uint16x8_t two; // rows or columns, four k of each

_Static_assert(MR % 2 == 0, "pairs of rows");

// Two neighbouring sums of two rows become two 2 x 2 blocks, and back.
TILE_INLINE void turn(vf acc[MR][NV], int pairs, int vecs)
{
    TILE_UNROLL
    for (int p = 0; p < pairs; p++)
        TILE_UNROLL
    for (int j = 0; j < vecs; j++) {
        const float64x2_t upper = vreinterpretq_f64_f32(acc[2 * p][j]),
                          lower = vreinterpretq_f64_f32(acc[2 * p + 1][j]);
        acc[2 * p][j] = vreinterpretq_f32_f64(vzip1q_f64(upper, lower));
        acc[2 * p + 1][j] = vreinterpretq_f32_f64(vzip2q_f64(upper, lower));
    }
}

TILE_INLINE vf multiply(vf sum, two rows, two columns)
{
    return vbfmmlaq_f32(sum, vreinterpretq_bf16_u16(rows), vreinterpretq_bf16_u16(columns));
}

TILE_INLINE void tile(const struct em_gemm_tile *t, int rows, int vecs)
{
    vf acc[MR][NV];
    const int pairs = (rows + 1) / 2;
    const uint16_t *a[MR / 2], *b = __builtin_assume_aligned(t->b, VB);
    TILE_UNROLL
    for (int p = 0; p < pairs; p++)
        a[p] = t->a[2 * p];
    tile_start(acc, t, rows, vecs);
    if (rows % 2) {
        TILE_UNROLL
        for (int j = 0; j < vecs; j++)
            acc[rows][j] = (vf){0};
    }
    turn(acc, pairs, vecs);
    const size_t steps = t->steps;
    const char *next = t->next;
    const size_t next_step = t->next_step;
    for (size_t k = 0; k < steps; k++, b += (size_t)vecs * L * STEP, next += next_step) {
        __builtin_prefetch(next, 0, 2);
        two x[MR / 2];
        TILE_UNROLL
        for (int p = 0; p < pairs; p++)
            x[p] = vld1q_u16(a[p] + k * 2 * STEP);
        TILE_UNROLL
        for (int j = 0; j < 2 * vecs; j++) {
            const two columns = vld1q_u16(b + j * 2 * STEP);
            TILE_UNROLL
            for (int p = 0; p < pairs; p++)
                acc[2 * p + j % 2][j / 2] = multiply(acc[2 * p + j % 2][j / 2], x[p], columns);
        }
    }
    turn(acc, pairs, vecs);
    tile_end(acc, t, rows, vecs);
}

TILE_KERNELS()

// Four floats each, to nearest, ties to even.
TILE_INLINE two rounded(vf first, vf second)
{
    return vreinterpretq_u16_bf16(vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(first), second));
}

// n <= 4 floats, the others zero.
TILE_INLINE vf part(const float *p, size_t n)
{
    if (n >= L) return vf_load(p);
    float full[L] = {0};
    memcpy(full, p, n * sizeof *p);
    return vf_load(full);
}

// Rows i and i + 1, four k of each in turn; without a second one its place is zeros.
static void pack_pair(uint16_t *dst, const float *first, const float *second, size_t k)
{
    for (size_t i = 0; i < k; i += STEP, dst += 2 * STEP)
        vst1q_u16(dst, rounded(part(first + i, k - i), second ? part(second + i, k - i) : (vf){0}));
}

static void pack_a_rows(void *dst, size_t stride, const float *const *rows, size_t count, size_t k)
{
    for (size_t i = 0; i < count; i += 2)
        pack_pair((uint16_t *)(void *)((char *)dst + i * stride), rows[i],
                  i + 1 < count ? rows[i + 1] : NULL, k);
}

// Element (i, k) of a 4 x 4 square is src[k * stride + i]: rows are turned to lie along k. Only
// `rows` x `k` of it are read, the others are zero.
TILE_INLINE void load_turned(vf square[L], const float *src, size_t stride, size_t rows, size_t k)
{
    vu v[L];
    TILE_UNROLL
    for (size_t i = 0; i < L; i++)
        v[i] = i < k ? (vu)part(src + i * stride, rows) : (vu){0};
    transpose_cells(v);
    TILE_UNROLL
    for (size_t i = 0; i < L; i++)
        square[i] = (vf)v[i];
}

static void pack_a_cols(void *dst, size_t stride, const float *src, size_t src_stride, size_t count,
                        size_t k)
{
    for (size_t k0 = 0; k0 < k; k0 += STEP)
        for (size_t i = 0; i < count; i += L) {
            vf square[L];
            load_turned(square, src + k0 * src_stride + i, src_stride, count - i, k - k0);
            char *out = (char *)dst + i * stride + k0 * 2 * sizeof(uint16_t);
            vst1q_u16((uint16_t *)(void *)out, rounded(square[0], square[1]));
            if (i + 2 < count)
                vst1q_u16((uint16_t *)(void *)(out + 2 * stride), rounded(square[2], square[3]));
        }
}

static void pack_b_rows(void *dst, size_t width, const float *src, size_t src_stride,
                        const int32_t *rows, size_t k, size_t cols)
{
    uint16_t *out = dst;
    for (size_t k0 = 0; k0 < k; k0 += STEP, out += width * STEP)
        for (size_t n = 0; n < width; n += L) {
            vf square[L] = {{0}};
            const size_t n_count = n < cols ? cols - n : 0;
            if (rows && n_count) {
                vu v[L];
                TILE_UNROLL
                for (size_t i = 0; i < L; i++)
                    v[i] = k0 + i < k
                               ? (vu)part(src + (size_t)rows[k0 + i] * src_stride + n, n_count)
                               : (vu){0};
                transpose_cells(v);
                TILE_UNROLL
                for (size_t i = 0; i < L; i++)
                    square[i] = (vf)v[i];
            } else if (n_count) {
                load_turned(square, src + k0 * src_stride + n, src_stride, n_count, k - k0);
            }
            vst1q_u16(out + n * STEP, rounded(square[0], square[1]));
            vst1q_u16(out + (n + 2) * STEP, rounded(square[2], square[3]));
        }
}

static void pack_b_cols(void *dst, size_t width, const float *src, size_t src_stride, size_t k,
                        size_t cols)
{
    for (size_t n = 0; n < width; n += 2) {
        uint16_t *out = (uint16_t *)dst + n * STEP;
        const float *first = src + n * src_stride;
        for (size_t i = 0; i < k; i += STEP, out += width * STEP)
            vst1q_u16(out, rounded(n < cols ? part(first + i, k - i) : (vf){0},
                                   n + 1 < cols ? part(first + src_stride + i, k - i) : (vf){0}));
    }
}

// The products of whole tiles, on registers alone.
static float roof_matrix(size_t iterations)
{
    vf acc[MR * NV], sum = {0};
    const two x = vdupq_n_u16((uint16_t)iterations), y = x;
    TILE_UNROLL
    for (int r = 0; r < MR * NV; r++)
        acc[r] = vf_set((float)r);
    for (size_t i = 0; i < iterations; i++) {
        TILE_UNROLL
        for (int r = 0; r < MR * NV; r++)
            acc[r] = multiply(acc[r], x, y);
    }
    TILE_UNROLL
    for (int r = 0; r < MR * NV; r++)
        sum += acc[r];
    return sum[0];
}

const struct em_gemm_set em_gemm_bf16_matrix__neon = {
    .name = "neon-bf16",
    .isa = "neon",
    .native = true,
    .mr = MR,
    .nr = NR,
    .lanes = L,
    .k_per_step = STEP,
    .cell_bytes = STEP * sizeof(uint16_t),
    .row_unit = 2,
    .a_step_bytes = STEP * sizeof(uint16_t),
    .a_in_place = false,
    .tile = TILE_TABLE,
    .roof = roof_matrix,
    .finish = finish_columns,
    .pack_a_rows = pack_a_rows,
    .pack_a_cols = pack_a_cols,
    .pack_b_rows = pack_b_rows,
    .pack_b_cols = pack_b_cols,
};

#endif
