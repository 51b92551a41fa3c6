// Products with 8-bit weights by NEON's SMMLA, which multiplies 2 x 8 by 8 x 2 numbers: twice the
// products of SDOT. This file is compiled with that extension, and the driver asks the CPU.
//
// A vector of B is two columns and one of A two rows, eight k each; so a cell is eight weights, and
// in A the cells of two rows take turns. Sums of a block are 2 x 2.
#include "kernels/kernels_isa.h"

#include "base/cpu.h"
#include "kernels/gemm_i8.h"

#if defined(EM_ISA_neon)

#include "kernels/isa/gemm_i8_neon.h"

// 24 sums, and of three vectors of A and four of B one is loaded at a time: 6 x 8 needs fewer loads
// than 4 x 12.
enum { MR = 6, NV = 2, NR = NV * 4, CELL = 8 };

// The upper or lower row of two blocks.
TILE_INLINE int32x4_t row_of(int32x4_t left, int32x4_t right, int row)
{
    const int64x2_t x = vreinterpretq_s64_s32(left), y = vreinterpretq_s64_s32(right);
    return vreinterpretq_s32_s64(row ? vzip2q_s64(x, y) : vzip1q_s64(x, y));
}

TILE_INLINE void tile(const struct em_i8_tile *t, int rows)
{
    float32x4_t sum[MR][NV];
    const int pairs = (rows + 1) / 2;
    const char *b = t->b;
    start_sums(sum[0], NV, t, rows);
    for (size_t k = 0; k < t->blocks; k++) {
        const uint16_t *scale = (const uint16_t *)(const void *)b;
        const int8_t *cells = (const int8_t *)(b + NR * sizeof *scale);
        int32x4_t part[MR / 2][2 * NV];
        TILE_UNROLL
        for (int p = 0; p < pairs; p++)
            TILE_UNROLL
        for (int j = 0; j < 2 * NV; j++)
            part[p][j] = vdupq_n_s32(0);
        TILE_UNROLL
        for (int s = 0; s < EM_I8_BLOCK / CELL; s++) {
            int8x16_t a[MR / 2];
            TILE_UNROLL
            for (int p = 0; p < pairs; p++)
                a[p] =
                    vld1q_s8(t->a + 2 * ((size_t)p * t->a_stride + k * EM_I8_BLOCK) + s * 2 * CELL);
            TILE_UNROLL
            for (int j = 0; j < 2 * NV; j++, cells += 2 * CELL) {
                const int8x16_t of_b = vld1q_s8(cells);
                TILE_UNROLL
                for (int p = 0; p < pairs; p++)
                    part[p][j] = vmmlaq_s32(part[p][j], a[p], of_b);
            }
        }
        TILE_UNROLL
        for (int j = 0; j < NV; j++) {
            const float32x4_t of_b = scales(scale + j * 4);
            TILE_UNROLL
            for (int r = 0; r < rows; r++)
                sum[r][j] =
                    add_part(sum[r][j], row_of(part[r / 2][2 * j], part[r / 2][2 * j + 1], r % 2),
                             of_b, t->a_scale[(size_t)r * t->a_blocks + k]);
        }
        b = (const char *)cells;
    }
    store_sums(t, sum[0], NV, rows);
}

static void tiles(const struct em_i8_tile *t)
{
    switch (t->rows) {
    case 1: tile(t, 1); break;
    case 2: tile(t, 2); break;
    case 3: tile(t, 3); break;
    case 4: tile(t, 4); break;
    case 5: tile(t, 5); break;
    default: tile(t, MR); break;
    }
}

TILE_INLINE int32x4_t one(int32x4_t sum, int8x16_t a, int8x16_t b)
{
    return vmmlaq_s32(sum, a, b);
}
ROOF(one)

const struct em_i8_set em_gemm_i8_matrix__neon = {
    .name = "neon-i8mm",
    .isa = "neon",
    .extra = EM_ISA_I8MM,
    .rows = MR,
    .columns = NR,
    .cell = CELL,
    .offset = 0,
    .paired = true,
    .tile = tiles,
    .roof = roof,
    .roof_operations = (size_t)2 * 32 * ROOF_PARTS,
};

#endif
