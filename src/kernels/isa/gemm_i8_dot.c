// Products with 8-bit weights by instructions that add four products to each lane: AVX-512's
// VPDPBUSD, NEON's SDOT. This file is compiled with that extension, and the driver asks the CPU.
#include "kernels/kernels_isa.h"

#include "base/cpu.h"
#include "kernels/gemm_i8.h"

#if defined(EM_ISA_avx512)

#include <immintrin.h>

#define DOT_PRODUCTS
#define SET em_gemm_i8_dot__avx512
#define NAME "-vnni"
#define EXTRA EM_ISA_VNNI
#include "kernels/isa/gemm_i8_tile.h"

#elif defined(EM_ISA_neon)

// SDOT takes the four numbers of A from a lane, so a vector of A is half a block; weights are
// signed.
#include "kernels/isa/gemm_i8_neon.h"

enum { MR = 3, NV = 4, NR = NV * 4 };

// sum + the products of b's lanes with lane s of a.
TILE_INLINE int32x4_t dot(int32x4_t sum, int8x16_t b, int8x16_t a, int s)
{
    switch (s) { // the number has to be one in the source
    case 0: return vdotq_laneq_s32(sum, b, a, 0);
    case 1: return vdotq_laneq_s32(sum, b, a, 1);
    case 2: return vdotq_laneq_s32(sum, b, a, 2);
    default: return vdotq_laneq_s32(sum, b, a, 3);
    }
}

TILE_INLINE void tile(const struct em_i8_tile *t, int rows)
{
    float32x4_t sum[MR][NV];
    const char *b = t->b;
    start_sums(sum[0], NV, t, rows);
    for (size_t k = 0; k < t->blocks; k++) {
        const uint16_t *scale = (const uint16_t *)(const void *)b;
        const int8_t *cells = (const int8_t *)(b + NR * sizeof *scale);
        int32x4_t part[MR][NV];
        TILE_UNROLL
        for (int r = 0; r < rows; r++)
            TILE_UNROLL
        for (int j = 0; j < NV; j++)
            part[r][j] = vdupq_n_s32(0);
        TILE_UNROLL
        for (int half = 0; half < 2; half++) {
            int8x16_t a[MR];
            TILE_UNROLL
            for (int r = 0; r < rows; r++)
                a[r] = vld1q_s8(t->a + (size_t)r * t->a_stride + k * EM_I8_BLOCK + half * 16);
            TILE_UNROLL
            for (int s = 0; s < 4; s++)
                TILE_UNROLL
            for (int j = 0; j < NV; j++, cells += 16) {
                const int8x16_t of_b = vld1q_s8(cells);
                TILE_UNROLL
                for (int r = 0; r < rows; r++)
                    part[r][j] = dot(part[r][j], of_b, a[r], s);
            }
        }
        TILE_UNROLL
        for (int j = 0; j < NV; j++) {
            const float32x4_t of_b = scales(scale + j * 4);
            TILE_UNROLL
            for (int r = 0; r < rows; r++)
                sum[r][j] =
                    add_part(sum[r][j], part[r][j], of_b, t->a_scale[(size_t)r * t->a_blocks + k]);
        }
        b = (const char *)cells;
    }
    store_sums(t, sum[0], NV, rows);
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

TILE_INLINE int32x4_t one(int32x4_t sum, int8x16_t a, int8x16_t b)
{
    return vdotq_s32(sum, a, b);
}
ROOF(one)

const struct em_i8_set em_gemm_i8_dot__neon = {
    .name = "neon-dotprod",
    .isa = "neon",
    .extra = EM_ISA_DOTPROD,
    .rows = MR,
    .columns = NR,
    .cell = 4,
    .offset = 0,
    .tile = tiles,
    .roof = roof,
    .roof_operations = (size_t)2 * 16 * ROOF_PARTS,
};

#endif
