// What forward and backward of attention share for one instruction set: the register tiles of small
// matrix products, packing, and who sees whom.
//
// Operands of the products are made of cells: a float, or with PAIRS two bf16 that are neighbours
// in k (the even one in the low half), which a dot product takes at once; sums are f32.
#ifndef EM_KERNELS_ATTENTION_TILE_H
#define EM_KERNELS_ATTENTION_TILE_H

#include "base/sizes.h"
#include "kernels/attention.h"
#include "kernels/simd/f32.h"

#if defined(EM_ISA_neon) && defined(__GNUC__) && !defined(__clang__)
// As in gemm_tile.h: GCC 12 would load early and spill sums for it.
#pragma GCC optimize("no-schedule-insns")
#endif

#define TILE_INLINE static inline __attribute__((always_inline))
#define TILE_UNROLL _Pragma("GCC unroll 16")

// A tile is MR rows of NV vectors of sums, all in registers.
#if VF32_LANES == 8 || VF32_LANES == 1
enum { NV = 2 };
#else
enum { NV = 4 };
#endif
#if VF32_LANES == 1
enum { MR = 4 };
#else
enum { MR = 6 };
#endif
enum { L = VF32_LANES, NR = NV * L };

#if defined(PAIRS)
typedef uint32_t cell;
enum { STEP = 2 }; // k of a cell
#if defined(EM_ISA_neon)
typedef uint32x4_t cells;

static inline cells cells_load(const cell *p)
{
    return vld1q_u32(p);
}
static inline void cells_store(cell *p, cells x)
{
    vst1q_u32(p, x);
}
static inline cells cells_set1(cell x)
{
    return vdupq_n_u32(x);
}
// The two additions of a lane are rounded to odd, off by less than 2^-23 each; numbers below 2^-126
// count as zero.
static inline vf32 cells_product(cells a, cells b, vf32 sum)
{
    return vbfdotq_f32(sum, vreinterpretq_bf16_u32(a), vreinterpretq_bf16_u32(b));
}
// (low[0], low[1]), .., (high[2], high[3])
static inline cells cells_of_two(vf32 low, vf32 high)
{
    return vreinterpretq_u32_bf16(vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(low), high));
}
static inline cells cells_across(vf32 p, vf32 q)
{
    const uint16x8_t x = vreinterpretq_u16_u32(cells_of_two(p, q));
    return vreinterpretq_u32_u16(vzip1q_u16(x, vextq_u16(x, x, 4)));
}
#else
typedef __m512i cells;

static inline cells cells_load(const cell *p)
{
    return _mm512_loadu_si512(p);
}
static inline void cells_store(cell *p, cells x)
{
    _mm512_storeu_si512(p, x);
}
static inline cells cells_set1(cell x)
{
    return _mm512_set1_epi32((int)x);
}
static inline vf32 cells_product(cells a, cells b, vf32 sum)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}
// (low[0], low[1]), .., (high[14], high[15])
static inline cells cells_of_two(vf32 low, vf32 high)
{
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}
// (p[i], q[i])
static inline cells cells_across(vf32 p, vf32 q)
{
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, cells_of_two(p, q));
}
#endif
#else
typedef float cell;
enum { STEP = 1 };
typedef vf32 cells;

static inline cells cells_load(const cell *p)
{
    return vf32_load(p);
}
static inline cells cells_set1(cell x)
{
    return vf32_set1(x);
}
static inline vf32 cells_product(cells a, cells b, vf32 sum)
{
    return vf32_fma(a, b, sum);
}
#endif

// Cells of n numbers along k.
static inline size_t steps(size_t n)
{
    return (n + STEP - 1) / STEP;
}

static inline size_t vectors(size_t n)
{
    return (n + L - 1) / L;
}

static inline size_t padded(size_t n)
{
    return vectors(n) * L;
}

// Floats or cells of a caller's scratch, in whole cache lines; only counts while base is NULL.
static inline void *take(float *base, size_t *used, size_t n)
{
    float *p = base ? base + *used : NULL;
    *used += (n + 15) / 16 * 16;
    return p;
}

enum start { FROM_ZERO, FROM_C, FROM_C_TIMES };

// C [mr, nv vectors] = start + A B over `depth` cells. A(r, k) is a[r * a_stride + k], or with
// `turned` a[k * a_stride + r]; B's row k is b + k * b_stride. FROM_C_TIMES multiplies row r of C
// by factor[r] first.
TILE_INLINE void tile_product(int mr, int nv, bool turned, enum start start, float *c,
                              size_t c_stride, const float *factor, const cell *a, size_t a_stride,
                              const cell *b, size_t b_stride, size_t depth)
{
    vf32 sum[MR][NV];
    TILE_UNROLL
    for (int r = 0; r < mr; r++)
        TILE_UNROLL
    for (int j = 0; j < nv; j++) {
        const float *at = c + (size_t)r * c_stride + j * L;
        if (start == FROM_ZERO)
            sum[r][j] = vf32_zero();
        else if (start == FROM_C)
            sum[r][j] = vf32_load(at);
        else
            sum[r][j] = vf32_mul(vf32_load(at), vf32_set1(factor[r]));
    }
    for (size_t k = 0; k < depth; k++, b += b_stride) {
        cells row[NV];
        TILE_UNROLL
        for (int j = 0; j < nv; j++)
            row[j] = cells_load(b + j * L);
        TILE_UNROLL
        for (int r = 0; r < mr; r++) {
            const size_t at = turned ? k * a_stride + (size_t)r : (size_t)r * a_stride + k;
            const cells x = cells_set1(a[at]);
            TILE_UNROLL
            for (int j = 0; j < nv; j++)
                sum[r][j] = cells_product(x, row[j], sum[r][j]);
        }
    }
    TILE_UNROLL
    for (int r = 0; r < mr; r++)
        TILE_UNROLL
    for (int j = 0; j < nv; j++)
        vf32_store(c + (size_t)r * c_stride + j * L, sum[r][j]);
}

// All `columns` vectors of mr rows.
TILE_INLINE void strip_product(int mr, bool turned, enum start start, size_t columns, float *c,
                               size_t c_stride, const float *factor, const cell *a, size_t a_stride,
                               const cell *b, size_t b_stride, size_t depth)
{
    size_t j = 0;
    for (; j + NV <= columns; j += NV)
        tile_product(mr, NV, turned, start, c + j * L, c_stride, factor, a, a_stride, b + j * L,
                     b_stride, depth);
#if VF32_LANES == 16 || VF32_LANES == 4
    if (columns - j >= 2) {
        tile_product(mr, 2, turned, start, c + j * L, c_stride, factor, a, a_stride, b + j * L,
                     b_stride, depth);
        j += 2;
    }
#endif
    if (j < columns)
        tile_product(mr, 1, turned, start, c + j * L, c_stride, factor, a, a_stride, b + j * L,
                     b_stride, depth);
}

// Rows that the next tile takes of `rows` left: MR, then 4, 2, 1.
static inline size_t tile_rows(size_t rows)
{
    return rows >= MR ? MR : rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
}

#define TILE_CASES(CALL)                                                                           \
    switch (rows) {                                                                                \
    case 1: CALL(1); break;                                                                        \
    case 2: CALL(2); break;                                                                        \
    case 4: CALL(4); break;                                                                        \
    default: CALL(MR); break;                                                                      \
    }

// The products by name; `rows` is a tile_rows().
static __attribute__((noinline)) void product(size_t rows, size_t columns, float *c,
                                              size_t c_stride, const cell *a, size_t a_stride,
                                              const cell *b, size_t b_stride, size_t depth)
{
#define CALL(N)                                                                                    \
    strip_product(N, false, FROM_ZERO, columns, c, c_stride, NULL, a, a_stride, b, b_stride, depth)
    TILE_CASES(CALL)
#undef CALL
}

// Copies [rows, n] into rows of `stride` floats, times factor, the last vector filled with zeros.
static inline void pack_rows(float *to, size_t stride, const float *from, size_t from_stride,
                             size_t rows, size_t n, float factor)
{
    const vf32 f = vf32_set1(factor);
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < n; i += L)
            vf32_store(to + r * stride + i,
                       vf32_mul(vf32_load_n(from + r * from_stride + i, em_min_size(n - i, L)), f));
}

#if defined(PAIRS)
// Cells of p[0..width), width <= 2 L: (p[0], p[1]), (p[2], p[3]), ..; zeros follow.
static inline vf32 cells_along(const float *p, size_t width)
{
    const vf32 low = vf32_load_n(p, em_min_size(width, L)),
               high = width > L ? vf32_load_n(p + L, width - L) : vf32_zero();
    return (vf32)cells_of_two(low, high);
}

// Rows of n floats (whole vectors, an even number of them or zeros behind) as an operand whose k
// runs along them: in `space`, which has half their stride.
static inline const cell *along(cell *space, const float *x, size_t stride, size_t rows, size_t n)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < n; i += 2 * L) {
            const vf32 c = cells_along(x + r * stride + i, em_min_size(n - i, 2 * L));
            vf32_store_n((float *)(void *)(space + r * (stride / 2) + i / 2), c,
                         em_min_size(steps(n - i), L));
        }
    return space;
}

// Rows of n floats, whole vectors, as an operand whose k runs across them: in `space`, of the same
// stride.
static inline const cell *across(cell *space, const float *x, size_t stride, size_t rows, size_t n)
{
    for (size_t r = 0; r < rows; r += 2)
        for (size_t i = 0; i < n; i += L) {
            const float *p = x + r * stride + i;
            const cells c =
                cells_across(vf32_load(p), r + 1 < rows ? vf32_load(p + stride) : vf32_zero());
            cells_store(space + r / 2 * stride + i, c);
        }
    return space;
}

// The same of rows of any length, as they stand in a tensor: `stride` cells, the last vector filled
// with zeros.
static inline void pack_across(cell *to, size_t stride, const float *from, size_t from_stride,
                               size_t rows, size_t n)
{
    for (size_t r = 0; r < rows; r += 2)
        for (size_t i = 0; i < n; i += L) {
            const size_t width = em_min_size(n - i, L);
            const float *p = from + r * from_stride + i;
            const vf32 q = r + 1 < rows ? vf32_load_n(p + from_stride, width) : vf32_zero();
            cells_store(to + r / 2 * stride + i, cells_across(vf32_load_n(p, width), q));
        }
}
enum { CONVERTED = 1 }; // operands need memory of their own
#else
static inline vf32 cells_along(const float *p, size_t width)
{
    return vf32_load_n(p, width);
}

// Floats are their own cells.
static inline const cell *along(cell *space, const float *x, size_t stride, size_t rows, size_t n)
{
    (void)space, (void)stride, (void)rows, (void)n;
    return x;
}
static inline const cell *across(cell *space, const float *x, size_t stride, size_t rows, size_t n)
{
    (void)space, (void)stride, (void)rows, (void)n;
    return x;
}
static inline void pack_across(cell *to, size_t stride, const float *from, size_t from_stride,
                               size_t rows, size_t n)
{
    pack_rows(to, stride, from, from_stride, rows, n, 1.0f);
}
enum { CONVERTED = 0 };
#endif

// Rows that are wanted soon, to be prefetched line by line from end to end: between the rows of a
// head lie those of others, which defeats the hardware's prefetching (decode over 64 MiB: 1.9x).
struct stream {
    const float *at, *row_end;
    size_t width, stride, rows;
};

static inline struct stream stream(const float *row, size_t width, size_t stride, size_t rows)
{
    return (struct stream){row, row + width, width, stride, rows};
}

static inline void prefetch_line(struct stream *s)
{
    if (s->rows == 0) return;
    __builtin_prefetch(s->at);
    if ((size_t)(s->row_end - s->at) > 16) {
        s->at += 16;
    } else if (--s->rows) {
        s->row_end += s->stride;
        s->at = s->row_end - s->width;
    }
}

// One panel: NR columns, column c being row c of `from` [count, n], count <= NR; the rest zeros. So
// to[i * NR + c] is cell i of from[c].
// Two lines of what comes next are prefetched for each line packed.
static inline void pack_panel(cell *to, const float *from, size_t from_stride, size_t count,
                              size_t n, struct stream *one, struct stream *other)
{
    for (size_t c = 0; c < NR; c += L)
        for (size_t i = 0; i < n; i += L * STEP) {
            const size_t width = em_min_size(n - i, L * STEP);
            vf32 square[L];
            TILE_UNROLL
            for (size_t r = 0; r < L; r++)
                square[r] = c + r < count ? cells_along(from + (c + r) * from_stride + i, width)
                                          : vf32_zero();
            if (i % 16 == 0)
                for (size_t r = 0; r < L * STEP; r++) {
                    prefetch_line(one);
                    prefetch_line(other);
                }
            vf32_transpose(square);
            TILE_UNROLL
            for (size_t r = 0; r < L; r++)
                if (r < steps(width))
                    vf32_store((float *)(void *)(to + (i / STEP + r) * NR + c), square[r]);
        }
}

// Rows are (query, head of the group) pairs, the heads of a query together: row r of queries from
// t0 on is query t0 + r / heads, head h0 + r % heads.
struct rows {
    size_t t0, h0, heads, count;
};

// Keys [first, end) that query t sees.
static inline size_t first_key(const struct em_attention *a, size_t t)
{
    const size_t position = a->past + t;
    return a->window && position + 1 > a->window ? position + 1 - a->window : 0;
}

static inline size_t end_key(const struct em_attention *a, size_t t)
{
    const size_t position = a->past + t, all = a->past + a->T;
    if (!a->bidirectional) return position + 1;
    return a->window && a->window < all - position ? position + a->window : all;
}

// What a tile of rows sees of some keys: from .. to, and row i only first[i] .. last[i] of it, all
// counted from the first key; from >= to: nothing.
struct view {
    size_t first[MR], last[MR], from, to;
};

// Rows r .. r + n and keys key .. key + count.
static inline void look(const struct em_attention *a, const struct rows *rows, size_t r, size_t n,
                        size_t key, size_t count, struct view *v)
{
    v->from = count;
    v->to = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t t = rows->t0 + (r + i) / rows->heads;
        const size_t first = first_key(a, t), end = end_key(a, t);
        v->first[i] = first > key ? em_min_size(first - key, count) : 0;
        v->last[i] = end > key ? em_min_size(end - key, count) : 0;
        if (v->first[i] >= v->last[i]) continue;
        v->from = em_min_size(v->from, v->first[i]);
        v->to = em_max_size(v->to, v->last[i]);
    }
}

#endif
