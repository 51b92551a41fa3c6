// The gradients of attention with products in bf16 and f32 sums; see attention_bf16.c.
#if defined(EM_ISA_avx512) || defined(EM_ISA_neon)

#define PAIRS
#define BACKWARD EM_K(attention_backward_bf16)
#define SCRATCH EM_K(attention_backward_bf16_scratch)
#include "kernels/isa/attention_backward.h"

#else

#include "kernels/kernels_isa.h"

size_t EM_K(attention_backward_bf16_scratch)(const struct em_attention *a)
{
    return EM_K(attention_backward_scratch)(a);
}

void EM_K(attention_backward_bf16)(const struct em_attention *a,
                                   const struct em_attention_gradient *d, size_t g, void *scratch)
{
    EM_K(attention_backward_f32)(a, d, g, scratch);
}

#endif
