// Matrix multiplication in f32, for one instruction set.
#include "kernels/kernels_isa.h"

#include "kernels/isa/gemm_tile.h"

TILE_INLINE void tile(const struct em_gemm_tile *t, int rows, int vecs)
{
    vf acc[MR][NV];
    const float *a[MR];
    const float *b = __builtin_assume_aligned(t->b, VB);
    TILE_UNROLL
    for (int r = 0; r < rows; r++)
        a[r] = t->a[r];
    tile_start(acc, t, rows, vecs);
    const size_t steps = t->steps;
    const char *next = t->next;
    const size_t next_step = t->next_step;
    for (size_t k = 0; k < steps; k++, b += vecs * L, next += next_step) {
        __builtin_prefetch(next, 0, 2);
        vf bv[NV];
        TILE_UNROLL
        for (int j = 0; j < vecs; j++)
            bv[j] = *(const vf *)(const void *)(b + j * L);
        TILE_UNROLL
        for (int r = 0; r < rows; r++) {
            const vf x = vf_set(a[r][k]);
            TILE_UNROLL
            for (int j = 0; j < vecs; j++)
                acc[r][j] = vf_fma(x, bv[j], acc[r][j]);
        }
    }
    tile_end(acc, t, rows, vecs);
}

TILE_KERNELS()

static void pack_a_cols(void *dst, size_t stride, const float *src, size_t src_stride, size_t count,
                        size_t k)
{
    transpose_floats(dst, stride / sizeof(float), src, src_stride, k, count);
}

static void pack_b_rows(void *dst, size_t width, const float *src, size_t src_stride,
                        const int32_t *rows, size_t k, size_t cols)
{
    float *out = dst;
    for (size_t i = 0; i < k; i++, out += width) {
        const float *row = src + (rows ? (size_t)rows[i] : i) * src_stride;
        if (cols == NR && width == NR) {
            TILE_UNROLL
            for (int j = 0; j < NV; j++)
                *(vf *)(void *)(out + j * L) = vf_load(row + j * L);
            continue;
        }
        memcpy(out, row, cols * sizeof(float));
        memset(out + cols, 0, (width - cols) * sizeof(float));
    }
}

static void pack_b_cols(void *dst, size_t width, const float *src, size_t src_stride, size_t k,
                        size_t cols)
{
    transpose_floats(dst, width, src, src_stride, cols, k);
    if (cols < width)
        for (size_t i = 0; i < k; i++)
            memset((float *)dst + i * width + cols, 0, (width - cols) * sizeof(float));
}

#define STRING(x) #x
#define EXPAND_STRING(x) STRING(x)

const struct em_gemm_set EM_K(gemm_f32) = {
    .name = EXPAND_STRING(EM_ISA),
    .isa = EXPAND_STRING(EM_ISA),
    .native = true,
    .mr = MR,
    .nr = NR,
    .lanes = L,
    .k_per_step = 1,
    .cell_bytes = sizeof(float),
    .row_unit = 1,
    .a_step_bytes = sizeof(float),
    .a_in_place = true,
    .tile = TILE_TABLE,
    .roof = roof_fma,
    .finish = finish_columns,
    .pack_a_cols = pack_a_cols,
    .pack_b_rows = pack_b_rows,
    .pack_b_cols = pack_b_cols,
};
