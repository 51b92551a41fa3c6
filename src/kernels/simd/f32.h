// One vocabulary of f32 vectors for every instruction set: a kernel is written once and compiled
// for each. vf32 holds VF32_LANES floats, vm32 one truth value per lane.
//
//   load, store            any alignment
//   load_n, store_n        the first n lanes, 0 <= n <= VF32_LANES; nothing else is read (the other
//                          lanes are 0) or written
//   load_bf16, load_f16, store_bf16, store_f16 (and _n)   converting, nearest-even
//   iota                   0, 1, 2, ...
//   set1, zero, add, sub, mul, div, neg, abs, sqrt, round (to nearest even integer)
//   fma(a, b, c) = a*b + c, fnma(a, b, c) = c - a*b
//   max(a, b), min(a, b)   where one is NaN: b. So max(set1(limit), x) keeps the NaN of x
//   lt(a, b) -> vm32, select(m, a, b) = m ? a : b
//   scale2(x, n) = x * 2^n for integral n in [-252, 254]
//   sum, hmax, hmin        over the lanes, in a fixed order
//   transpose(r)           VF32_LANES vectors as the rows of a square
// f32_math.h has exp and what is built from it.
#ifndef EM_KERNELS_SIMD_F32_H
#define EM_KERNELS_SIMD_F32_H

#if defined(EM_ISA_avx512)
#include "kernels/simd/f32_avx512.h"
#elif defined(EM_ISA_avx2)
#include "kernels/simd/f32_avx2.h"
#elif defined(EM_ISA_neon)
#include "kernels/simd/f32_neon.h"
#else
#include "kernels/simd/f32_scalar.h"
#endif

#include "kernels/simd/f32_math.h"

#endif
