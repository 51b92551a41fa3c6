// The vocabulary of f32.h for NEON (any 64-bit ARM): four lanes.
#ifndef EM_KERNELS_SIMD_F32_NEON_H
#define EM_KERNELS_SIMD_F32_NEON_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define VF32_LANES 4

typedef float32x4_t vf32;
typedef uint32x4_t vm32; // all bits of a lane, or none

static inline vf32 vf32_zero(void)
{
    return vdupq_n_f32(0.0f);
}
static inline vf32 vf32_set1(float x)
{
    return vdupq_n_f32(x);
}
static inline vf32 vf32_iota(void)
{
    const float lanes[VF32_LANES] = {0, 1, 2, 3};
    return vld1q_f32(lanes);
}
static inline vf32 vf32_load(const float *p)
{
    return vld1q_f32(p);
}
static inline void vf32_store(float *p, vf32 v)
{
    vst1q_f32(p, v);
}
static inline vf32 vf32_load_n(const float *p, size_t n)
{
    if (n >= VF32_LANES) return vld1q_f32(p);
    float buffer[VF32_LANES] = {0};
    memcpy(buffer, p, n * sizeof *p);
    return vld1q_f32(buffer);
}
static inline void vf32_store_n(float *p, vf32 v, size_t n)
{
    if (n >= VF32_LANES) {
        vst1q_f32(p, v);
        return;
    }
    float buffer[VF32_LANES];
    vst1q_f32(buffer, v);
    memcpy(p, buffer, n * sizeof *p);
}
static inline vf32 vf32_add(vf32 a, vf32 b)
{
    return vaddq_f32(a, b);
}
static inline vf32 vf32_sub(vf32 a, vf32 b)
{
    return vsubq_f32(a, b);
}
static inline vf32 vf32_mul(vf32 a, vf32 b)
{
    return vmulq_f32(a, b);
}
static inline vf32 vf32_div(vf32 a, vf32 b)
{
    return vdivq_f32(a, b);
}
static inline vf32 vf32_fma(vf32 a, vf32 b, vf32 c)
{
    return vfmaq_f32(c, a, b);
}
static inline vf32 vf32_fnma(vf32 a, vf32 b, vf32 c)
{
    return vfmsq_f32(c, a, b);
}
static inline vm32 vf32_lt(vf32 a, vf32 b)
{
    return vcltq_f32(a, b);
}
static inline vf32 vf32_select(vm32 m, vf32 a, vf32 b)
{
    return vbslq_f32(m, a, b);
}
// FMAX would give NaN where either is NaN; the vocabulary says b.
static inline vf32 vf32_max(vf32 a, vf32 b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
static inline vf32 vf32_min(vf32 a, vf32 b)
{
    return vbslq_f32(vcltq_f32(a, b), a, b);
}
static inline vf32 vf32_neg(vf32 a)
{
    return vnegq_f32(a);
}
static inline vf32 vf32_abs(vf32 a)
{
    return vabsq_f32(a);
}
static inline vf32 vf32_sqrt(vf32 a)
{
    return vsqrtq_f32(a);
}
static inline vf32 vf32_round(vf32 a)
{
    return vrndnq_f32(a);
}
// In two halves: 2^n alone may lie outside the range of f32 where x * 2^n does not.
static inline vf32 vf32_scale2(vf32 x, vf32 n)
{
    const int32x4_t whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1);
    const int32x4_t bias = vdupq_n_s32(127);
    const int32x4_t a = vshlq_n_s32(vaddq_s32(half, bias), 23);
    const int32x4_t b = vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), bias), 23);
    return vmulq_f32(vmulq_f32(x, vreinterpretq_f32_s32(a)), vreinterpretq_f32_s32(b));
}
static inline float vf32_sum(vf32 a)
{
    return vaddvq_f32(a);
}
static inline float vf32_hmax(vf32 a)
{
    return vmaxvq_f32(a);
}
static inline float vf32_hmin(vf32 a)
{
    return vminvq_f32(a);
}

static inline uint16x4_t vf32_load16_n_(const uint16_t *p, size_t n)
{
    uint16_t buffer[VF32_LANES] = {0};
    memcpy(buffer, p, n * sizeof *p);
    return vld1_u16(buffer);
}
static inline void vf32_store16_n_(uint16_t *p, uint16x4_t v, size_t n)
{
    uint16_t buffer[VF32_LANES];
    vst1_u16(buffer, v);
    memcpy(p, buffer, n * sizeof *p);
}
static inline vf32 vf32_from_bf16_(uint16x4_t h)
{
    return vreinterpretq_f32_u32(vshll_n_u16(h, 16));
}
static inline uint16x4_t vf32_to_bf16_(vf32 v)
{
    const uint32x4_t u = vreinterpretq_u32_f32(v);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    const uint32x4_t nearest = vaddq_u32(vaddq_u32(u, vdupq_n_u32(0x7fff)), odd);
    const uint32x4_t quiet = vorrq_u32(u, vdupq_n_u32(0x400000));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(v, v), nearest, quiet), 16);
}
static inline vf32 vf32_load_bf16(const uint16_t *p)
{
    return vf32_from_bf16_(vld1_u16(p));
}
static inline vf32 vf32_load_bf16_n(const uint16_t *p, size_t n)
{
    return vf32_from_bf16_(vf32_load16_n_(p, n));
}
static inline void vf32_store_bf16(uint16_t *p, vf32 v)
{
    vst1_u16(p, vf32_to_bf16_(v));
}
static inline void vf32_store_bf16_n(uint16_t *p, vf32 v, size_t n)
{
    vf32_store16_n_(p, vf32_to_bf16_(v), n);
}
static inline vf32 vf32_load_f16(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
static inline vf32 vf32_load_f16_n(const uint16_t *p, size_t n)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vf32_load16_n_(p, n)));
}
static inline void vf32_store_f16(uint16_t *p, vf32 v)
{
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v)));
}
static inline void vf32_store_f16_n(uint16_t *p, vf32 v, size_t n)
{
    vf32_store16_n_(p, vreinterpret_u16_f16(vcvt_f16_f32(v)), n);
}

static inline void vf32_transpose(vf32 r[VF32_LANES])
{
    const float32x4_t a = vtrn1q_f32(r[0], r[1]), b = vtrn2q_f32(r[0], r[1]);
    const float32x4_t c = vtrn1q_f32(r[2], r[3]), d = vtrn2q_f32(r[2], r[3]);
    r[0] = vcombine_f32(vget_low_f32(a), vget_low_f32(c));
    r[1] = vcombine_f32(vget_low_f32(b), vget_low_f32(d));
    r[2] = vcombine_f32(vget_high_f32(a), vget_high_f32(c));
    r[3] = vcombine_f32(vget_high_f32(b), vget_high_f32(d));
}

#endif
