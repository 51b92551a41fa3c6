// Which code computes a matrix product: per type, by the instruction set in force and what the CPU
// has beyond it.
#include <string.h>

#include "base/cpu.h"
#include "kernels/gemm_set.h"
#include "kernels/kernels.h"

// Plain to wide.
static const struct em_gemm_set *const f32_sets[] = {
    &em_gemm_f32__scalar,
#if defined(__x86_64__)
    &em_gemm_f32__avx2,
    &em_gemm_f32__avx512,
#elif defined(__aarch64__)
    &em_gemm_f32__neon,
#endif
};

static const struct em_gemm_set *const bf16_sets[] = {
    &em_gemm_bf16__scalar,
#if defined(__x86_64__)
    &em_gemm_bf16__avx2,
    &em_gemm_bf16__avx512,
    &em_gemm_bf16_dot__avx512,
#elif defined(__aarch64__)
    &em_gemm_bf16__neon,
    &em_gemm_bf16_matrix__neon,
#endif
};

static const struct em_gemm_set *set_at(enum em_gemm_type type, size_t i)
{
    if (type == EM_GEMM_F32) return i < sizeof f32_sets / sizeof *f32_sets ? f32_sets[i] : NULL;
    return i < sizeof bf16_sets / sizeof *bf16_sets ? bf16_sets[i] : NULL;
}

// What a set uses beside the instruction set that it is named for.
static unsigned extras_of(const struct em_gemm_set *set)
{
#if defined(__x86_64__)
    if (set == &em_gemm_bf16_dot__avx512) return EM_ISA_BF16;
#elif defined(__aarch64__)
    if (set == &em_gemm_bf16_matrix__neon) return EM_ISA_BF16;
#endif
    (void)set;
    return 0;
}

static bool runs(const struct em_gemm_set *set)
{
    return em_isa_runs_with(set->isa, extras_of(set));
}

// What a test asked for; NULL: the set in force.
static const struct em_gemm_set *forced[2];

bool em_gemm_use_at(enum em_gemm_type type, size_t i)
{
    const struct em_gemm_set *set;
    for (size_t n = 0; (set = set_at(type, n)); n++)
        if (runs(set) && i-- == 0) {
            forced[type] = set;
            return true;
        }
    return false;
}

void em_gemm_use_default(void)
{
    forced[EM_GEMM_F32] = forced[EM_GEMM_BF16] = NULL;
}

const struct em_gemm_set *em_gemm_set(enum em_gemm_type type)
{
    if (forced[type]) return forced[type];
    const char *isa = em_kernels()->isa;
    const struct em_gemm_set *set, *best = set_at(type, 0);
    for (size_t n = 0; (set = set_at(type, n)); n++)
        if (strcmp(set->isa, isa) == 0 && !(extras_of(set) & ~em_kernels_extras())) best = set;
    return best;
}

const char *em_gemm_name(enum em_gemm_type type)
{
    return em_gemm_set(type)->name;
}

bool em_gemm_native(enum em_gemm_type type)
{
    return em_gemm_set(type)->native;
}
