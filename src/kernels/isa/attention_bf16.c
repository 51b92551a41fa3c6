// Attention with products in bf16 and f32 sums, where a set has dot products of pairs: AVX-512 and
// NEON. This file is compiled with that extension, and callers ask the CPU (em_gemm_native). Other
// sets compute in f32.
#if defined(EM_ISA_avx512) || defined(EM_ISA_neon)

#define PAIRS
#define FORWARD EM_K(attention_bf16)
#define SCRATCH EM_K(attention_bf16_scratch)
#include "kernels/isa/attention_forward.h"

#else

#include "kernels/kernels_isa.h"

size_t EM_K(attention_bf16_scratch)(const struct em_attention *a)
{
    return EM_K(attention_scratch)(a);
}

void EM_K(attention_bf16)(const struct em_attention *a, size_t g, size_t g_end, size_t begin,
                          size_t end, void *scratch)
{
    EM_K(attention_f32)(a, g, g_end, begin, end, scratch);
}

#endif
