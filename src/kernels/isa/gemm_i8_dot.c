// Products with 8-bit weights by AVX-512's dot products of four pairs. This file is compiled with
// that extension, and the driver asks the CPU; other sets have what gemm_i8.c has.
#if defined(EM_ISA_avx512)

#include <immintrin.h>

#define DOT_PRODUCTS
#define TILE EM_K(gemm_i8_dot_tile)
#define ROOF EM_K(gemm_i8_dot_roof)
#include "kernels/isa/gemm_i8_tile.h"

#else

#include "kernels/kernels_isa.h"

void EM_K(gemm_i8_dot_tile)(const struct em_i8_tile *t)
{
    EM_K(gemm_i8_tile)(t);
}

int32_t EM_K(gemm_i8_dot_roof)(size_t iterations)
{
    return EM_K(gemm_i8_roof)(iterations);
}

#endif
