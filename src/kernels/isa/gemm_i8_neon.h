// What the tiles of NEON's two instructions for 8-bit products share: f32 sums, to which exact sums
// of blocks are added.
#ifndef EM_KERNELS_GEMM_I8_NEON_H
#define EM_KERNELS_GEMM_I8_NEON_H

#include <arm_neon.h>

#include "kernels/gemm_i8.h"

#if defined(__GNUC__) && !defined(__clang__)
// As in gemm_tile.h: GCC 12 would load early and spill sums for it.
#pragma GCC optimize("no-schedule-insns")
#endif

#define TILE_INLINE static inline __attribute__((always_inline))
#define TILE_UNROLL _Pragma("GCC unroll 32")

TILE_INLINE void start_sums(float32x4_t *sum, int vecs, const struct em_i8_tile *t, int rows)
{
    TILE_UNROLL
    for (int r = 0; r < rows; r++)
        TILE_UNROLL
    for (int j = 0; j < vecs; j++)
        sum[r * vecs + j] =
            t->add ? vld1q_f32(t->c + (size_t)r * t->c_stride + j * 4) : vdupq_n_f32(0);
}

TILE_INLINE void store_sums(const struct em_i8_tile *t, const float32x4_t *sum, int vecs, int rows)
{
    TILE_UNROLL
    for (int r = 0; r < rows; r++)
        TILE_UNROLL
    for (int j = 0; j < vecs; j++)
        vst1q_f32(t->c + (size_t)r * t->c_stride + j * 4, sum[r * vecs + j]);
}

TILE_INLINE float32x4_t scales(const uint16_t *f16)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(f16)));
}

// Rounded as in all other sets: the product of the scales, and the sum.
TILE_INLINE float32x4_t add_part(float32x4_t sum, int32x4_t part, float32x4_t of_b, float of_a)
{
    return vfmaq_f32(sum, vcvtq_f32_s32(part), vmulq_n_f32(of_b, of_a));
}

// roof(): `product` on registers alone, ROOF_PARTS times an iteration.
enum { ROOF_PARTS = 24 };
#define ROOF(product)                                                                              \
    static int32_t roof(size_t iterations)                                                         \
    {                                                                                              \
        int32x4_t part[ROOF_PARTS], all = vdupq_n_s32(0);                                          \
        const int8x16_t x = vdupq_n_s8((int8_t)iterations);                                        \
        TILE_UNROLL                                                                                \
        for (int i = 0; i < ROOF_PARTS; i++)                                                       \
            part[i] = vdupq_n_s32(i);                                                              \
        for (size_t k = 0; k < iterations; k++) {                                                  \
            TILE_UNROLL                                                                            \
            for (int i = 0; i < ROOF_PARTS; i++)                                                   \
                part[i] = product(part[i], x, x);                                                  \
        }                                                                                          \
        TILE_UNROLL                                                                                \
        for (int i = 0; i < ROOF_PARTS; i++)                                                       \
            all = vaddq_s32(all, part[i]);                                                         \
        return vgetq_lane_s32(all, 0);                                                             \
    }

#endif
