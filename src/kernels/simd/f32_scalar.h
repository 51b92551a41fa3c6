// The vocabulary of f32.h in plain C: one lane.
#ifndef EM_KERNELS_SIMD_F32_SCALAR_H
#define EM_KERNELS_SIMD_F32_SCALAR_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/half.h"

#define VF32_LANES 1

typedef float vf32;
typedef bool vm32;

static inline vf32 vf32_zero(void)
{
    return 0.0f;
}
static inline vf32 vf32_set1(float x)
{
    return x;
}
static inline vf32 vf32_iota(void)
{
    return 0.0f;
}
static inline vf32 vf32_load(const float *p)
{
    return *p;
}
static inline void vf32_store(float *p, vf32 v)
{
    *p = v;
}
static inline vf32 vf32_load_n(const float *p, size_t n)
{
    return n ? *p : 0.0f;
}
static inline void vf32_store_n(float *p, vf32 v, size_t n)
{
    if (n) *p = v;
}
static inline vf32 vf32_add(vf32 a, vf32 b)
{
    return a + b;
}
static inline vf32 vf32_sub(vf32 a, vf32 b)
{
    return a - b;
}
static inline vf32 vf32_mul(vf32 a, vf32 b)
{
    return a * b;
}
static inline vf32 vf32_div(vf32 a, vf32 b)
{
    return a / b;
}
static inline vf32 vf32_fma(vf32 a, vf32 b, vf32 c)
{
    return a * b + c;
}
static inline vf32 vf32_fnma(vf32 a, vf32 b, vf32 c)
{
    return c - a * b;
}
static inline vf32 vf32_max(vf32 a, vf32 b)
{
    return a > b ? a : b;
}
static inline vf32 vf32_min(vf32 a, vf32 b)
{
    return a < b ? a : b;
}
static inline vf32 vf32_neg(vf32 a)
{
    return -a;
}
static inline vf32 vf32_abs(vf32 a)
{
    return fabsf(a);
}
static inline vf32 vf32_sqrt(vf32 a)
{
    return sqrtf(a);
}
// Adding and taking away 1.5 * 2^23 rounds |a| < 2^22; exp never asks for more.
static inline vf32 vf32_round(vf32 a)
{
    const float big = a < 0 ? -0x1.8p23f : 0x1.8p23f;
    const volatile float shifted = a + big; // volatile: not to be simplified to a
    return fabsf(a) < 0x1p22f ? shifted - big : a;
}
static inline vm32 vf32_lt(vf32 a, vf32 b)
{
    return a < b;
}
static inline vf32 vf32_select(vm32 m, vf32 a, vf32 b)
{
    return m ? a : b;
}
static inline vf32 vf32_scale2(vf32 x, vf32 n)
{
    const int32_t whole = (int32_t)n, half = whole >> 1;
    return x * em_f32_from_bits((uint32_t)(half + 127) << 23) *
           em_f32_from_bits((uint32_t)(whole - half + 127) << 23);
}
static inline float vf32_sum(vf32 a)
{
    return a;
}
static inline float vf32_hmax(vf32 a)
{
    return a;
}
static inline float vf32_hmin(vf32 a)
{
    return a;
}
static inline vf32 vf32_load_bf16(const uint16_t *p)
{
    return em_bf16_to_f32(*p);
}
static inline vf32 vf32_load_bf16_n(const uint16_t *p, size_t n)
{
    return n ? em_bf16_to_f32(*p) : 0.0f;
}
static inline void vf32_store_bf16(uint16_t *p, vf32 v)
{
    *p = em_bf16_from_f32(v);
}
static inline void vf32_store_bf16_n(uint16_t *p, vf32 v, size_t n)
{
    if (n) *p = em_bf16_from_f32(v);
}
static inline vf32 vf32_load_f16(const uint16_t *p)
{
    return em_f16_to_f32(*p);
}
static inline vf32 vf32_load_f16_n(const uint16_t *p, size_t n)
{
    return n ? em_f16_to_f32(*p) : 0.0f;
}
static inline void vf32_store_f16(uint16_t *p, vf32 v)
{
    *p = em_f16_from_f32(v);
}
static inline void vf32_store_f16_n(uint16_t *p, vf32 v, size_t n)
{
    if (n) *p = em_f16_from_f32(v);
}

static inline void vf32_transpose(vf32 r[VF32_LANES])
{
    (void)r;
}

#endif
