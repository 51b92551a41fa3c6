// Matrix multiplication in bf16 where the set has no instruction for it: operands are rounded to
// bf16, B is stored so (half the memory), and a step is two f32 FMAs after a shift and a mask.
// Costs what f32 costs. A is packed as f32 again, so that only B needs unpacking.
#include "kernels/kernels_isa.h"

#define PAIRS_ATTRIBUTE
#include "kernels/isa/gemm_bf16_pack.h"

TILE_INLINE void tile(const struct em_gemm_tile *t, int rows, int vecs)
{
    vf acc[MR][NV];
    const float *a[MR];
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
        vf bv[NV];
        TILE_UNROLL
        for (int j = 0; j < vecs; j++)
            bv[j] = (vf)(*(const vu *)(const void *)(b + j * L) << 16);
        TILE_UNROLL
        for (int r = 0; r < rows; r++) {
            const vf x = vf_set(a[r][2 * k]);
            TILE_UNROLL
            for (int j = 0; j < vecs; j++)
                acc[r][j] = vf_fma(x, bv[j], acc[r][j]);
        }
        TILE_UNROLL
        for (int j = 0; j < vecs; j++)
            bv[j] = (vf)(*(const vu *)(const void *)(b + j * L) & 0xffff0000);
        TILE_UNROLL
        for (int r = 0; r < rows; r++) {
            const vf x = vf_set(a[r][2 * k + 1]);
            TILE_UNROLL
            for (int j = 0; j < vecs; j++)
                acc[r][j] = vf_fma(x, bv[j], acc[r][j]);
        }
    }
    tile_end(acc, t, rows, vecs);
}

TILE_KERNELS()

// n floats to floats that are bf16 values; p may be q.
static void round_row(float *p, const float *q, size_t n)
{
    size_t i = 0;
    for (; i + L <= n; i += L)
        vf_store(p + i, (vf)(round_bf16((vu)vf_load(q + i)) & 0xffff0000));
    if (i < n) {
        float part[L] = {0};
        memcpy(part, q + i, (n - i) * sizeof(float));
        const vf v = (vf)(round_bf16((vu)vf_load(part)) & 0xffff0000);
        memcpy(p + i, &v, (n - i) * sizeof(float));
    }
    if (n % 2) p[n] = 0;
}

static void pack_a_rows(void *dst, size_t stride, const float *const *rows, size_t count, size_t k)
{
    for (size_t i = 0; i < count; i++)
        round_row((float *)((char *)dst + i * stride), rows[i], k);
}

static void pack_a_cols(void *dst, size_t stride, const float *src, size_t src_stride, size_t count,
                        size_t k)
{
    transpose_floats(dst, stride / sizeof(float), src, src_stride, k, count);
    for (size_t i = 0; i < count; i++) {
        float *row = (float *)((char *)dst + i * stride);
        round_row(row, row, k);
    }
}

#define STRING(x) #x
#define EXPAND_STRING(x) STRING(x)

const struct em_gemm_set EM_K(gemm_bf16) = {
    .name = EXPAND_STRING(EM_ISA),
    .isa = EXPAND_STRING(EM_ISA),
    .native = false,
    .mr = MR,
    .nr = NR,
    .lanes = L,
    .k_per_step = 2,
    .cell_bytes = sizeof(uint32_t),
    .row_unit = 1,
    .a_step_bytes = 2 * sizeof(float),
    .a_in_place = false,
    .tile = TILE_TABLE,
    .roof = roof_fma,
    .finish = finish_columns,
    .pack_a_rows = pack_a_rows,
    .pack_a_cols = pack_a_cols,
    .pack_b_rows = pack_b_rows,
    .pack_b_cols = pack_b_cols,
};
