// What the driver of matrix multiplication (gemm_driver.c, gemm_pack.c) and the sources per
// instruction set (isa/gemm_*.c) agree on.
//
// B is packed into panels of `nr` columns, each [steps][width] cells: a float (f32: one k a step),
// or two or four bf16, the first k in the lowest bits (so many k a step). The last panel is as
// narrow as a kernel allows, and padded with zeros.
#ifndef EM_KERNELS_GEMM_SET_H
#define EM_KERNELS_GEMM_SET_H

#include "kernels/gemm.h"

enum {
    EM_GEMM_MR_MAX = 8,
    EM_GEMM_NR_MAX = 64,
    EM_GEMM_WIDTHS = 3, // of panels: 1, 2 and all of a kernel's vectors
    EM_GEMM_MC = 96,    // most rows of A in a block
    EM_GEMM_NC = 512,   // most columns of a block whose sums go through memory
};

// One tile of C. The sums start from `start` (NULL: zeros) and go to `sums` while c is NULL; with
// the last steps of K they go through the epilogue to c.
struct em_gemm_tile {
    const void *const *a; // the tile's rows at the first step
    const void *b;        // the panel at the first step; aligned to a vector
    size_t steps;
    const char *next; // its line is fetched into L2, then the one next_step bytes on, one a step
    size_t next_step;
    const float *start;
    float *sums;
    size_t sums_stride; // of start and sums
    float *c;
    size_t c_stride;
    const float *bias, *residual; // at this tile; or NULL
    size_t residual_stride;
    float scale;
    bool accumulate;
};

typedef void em_gemm_tile_kernel(const struct em_gemm_tile *t);

struct em_gemm_set {
    const char *name, *isa;
    bool native;
    unsigned mr, nr, lanes; // tile rows, panel columns, columns of one vector
    unsigned k_per_step;    // 1; 2 or 4 for bf16; divides packing's strips of 8
    unsigned cell_bytes;    // of packed B
    unsigned row_unit; // 1; 2: rows 2i and 2i + 1 of packed A lie together, and tiles begin there
    unsigned a_step_bytes; // of a row of packed A
    bool a_in_place;       // rows of A that are contiguous in k need no packing
    em_gemm_tile_kernel *tile[EM_GEMM_MR_MAX][EM_GEMM_WIDTHS]; // [rows - 1][width index]

    // `iterations` times mr x nr x k_per_step multiply-adds that nothing but the arithmetic units
    // bounds.
    float (*roof)(size_t iterations);

    // t->sums through the epilogue to rows x cols of t->c, for tiles cut off at the right.
    void (*finish)(const struct em_gemm_tile *t, size_t rows, size_t cols);

    // Rows of A, contiguous in k: row i is k values from rows[i] on, written at dst + i * stride
    // bytes, padded to whole steps. With a row_unit of 2, steps of the rows from 2i on take turns
    // there (zeros where the second is missing). NULL with a_in_place.
    void (*pack_a_rows)(void *dst, size_t stride, const float *const *rows, size_t count, size_t k);
    // The same where k strides: element (i, k) is src[k * src_stride + i].
    void (*pack_a_cols)(void *dst, size_t stride, const float *src, size_t src_stride, size_t count,
                        size_t k);

    // One panel, `k` values down and `cols` across, `width` cells a step: element (k, n) is
    // src[k * src_stride + n], or with `rows` src[rows[k] * src_stride + n].
    void (*pack_b_rows)(void *dst, size_t width, const float *src, size_t src_stride,
                        const int32_t *rows, size_t k, size_t cols);
    // Element (k, n) is src[n * src_stride + k].
    void (*pack_b_cols)(void *dst, size_t width, const float *src, size_t src_stride, size_t k,
                        size_t cols);
};

extern const struct em_gemm_set em_gemm_f32__scalar, em_gemm_bf16__scalar;
#if defined(__x86_64__)
extern const struct em_gemm_set em_gemm_f32__avx2, em_gemm_bf16__avx2;
extern const struct em_gemm_set em_gemm_f32__avx512, em_gemm_bf16__avx512, em_gemm_bf16_dot__avx512;
#elif defined(__aarch64__)
extern const struct em_gemm_set em_gemm_f32__neon, em_gemm_bf16__neon, em_gemm_bf16_matrix__neon;
#endif

// The set in force for a type.
const struct em_gemm_set *em_gemm_set(enum em_gemm_type type);

// Geometry of packed B.
static inline size_t em_gemm_steps(const struct em_gemm_set *s, size_t k)
{
    return k / s->k_per_step + (k % s->k_per_step != 0);
}

static inline size_t em_gemm_panels(const struct em_gemm_set *s, size_t n)
{
    return n / s->nr + (n % s->nr != 0);
}

// Index into tile[][] and cells of a panel with `cols` columns in use.
static inline unsigned em_gemm_width_index(const struct em_gemm_set *s, size_t cols)
{
    return cols <= s->lanes ? 0 : cols <= 2 * (size_t)s->lanes ? 1 : 2;
}

static inline size_t em_gemm_width(const struct em_gemm_set *s, size_t cols)
{
    const unsigned i = em_gemm_width_index(s, cols);
    return i < 2 ? (i + 1) * (size_t)s->lanes : s->nr;
}

// Cells of one step over all panels.
static inline size_t em_gemm_row_cells(const struct em_gemm_set *s, size_t n)
{
    return n / s->nr * s->nr + (n % s->nr ? em_gemm_width(s, n % s->nr) : 0);
}

// Rows of x that are packed, and summed into C, at a time where B is packed on the way: a window's
// packed rows stay in L3 and their memory is used again. Depends on the type and n alone, as sums
// do on it.
size_t em_gemm_window_rows(const struct em_gemm_set *s, size_t n, size_t rows);

// Rows [begin, end) of x; `last`: there is no window behind it.
struct em_gemm_window {
    size_t begin, end;
    bool last;
};

// The window's part of group g: rows [begin, end). `first`: no window before it has any of the
// group (an empty group belongs to one window too, so that its C is written).
struct em_gemm_part {
    size_t begin, end;
    bool first;
};

static inline size_t em_gemm_clip(const struct em_gemm_window *w, int32_t offset)
{
    const size_t at = (size_t)offset;
    return at < w->begin ? w->begin : at > w->end ? w->end : at;
}

static inline struct em_gemm_part em_gemm_part(const struct em_gemm_window *w,
                                               const int32_t *offsets, size_t g)
{
    const size_t at = (size_t)offsets[g];
    return (struct em_gemm_part){.begin = em_gemm_clip(w, offsets[g]),
                                 .end = em_gemm_clip(w, offsets[g + 1]),
                                 .first = at >= w->begin && (at < w->end || w->last)};
}

// The step at which a window's packed operand of group g begins, in panels of all groups one behind
// the other; each group may round up by one.
static inline size_t em_gemm_group_step(const struct em_gemm_set *s, const struct em_gemm_window *w,
                                        const struct em_gemm_part *p, size_t g)
{
    return (p->begin - w->begin + (s->k_per_step - 1) * g) / s->k_per_step;
}

// Bytes of the operands of any window of up to `rows` rows, SIZE_MAX where they do not fit.
size_t em_gemm_window_size(const struct em_gemm_set *s, size_t groups, size_t rows, size_t n);

void em_gemm_pack_window(const struct em_gemm_set *s, size_t groups, const int32_t *offsets,
                         const struct em_gemm_window *w, size_t n, const float *x, size_t x_stride,
                         const int32_t *x_rows, void *packed, struct em_pool *pool);

#endif
