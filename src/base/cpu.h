// What this CPU has, and which instruction set is used.
#ifndef EM_BASE_CPU_H
#define EM_BASE_CPU_H

#include <stdbool.h>
#include <stddef.h>

// Ordered from plain to wide; a set implies that the operating system saves its registers too.
enum em_isa { EM_ISA_SCALAR, EM_ISA_NEON, EM_ISA_AVX2, EM_ISA_AVX512, EM_ISA_COUNT };

struct em_cpu {
    char model[64];
    bool avx2, fma, f16c; // AVX2 table needs all three
    bool avx512;          // F, BW, DQ, VL all there
    bool avx512_bf16, avx512_vnni;
    bool neon, dotprod, bf16, i8mm;
    size_t l1d, l2, l3; // bytes, 0 where unknown
};
const struct em_cpu *em_cpu(void); // detected once

// Sets that this machine can run, widest last; and the one in force: the widest, or what EMBER_ISA
// (scalar, neon, avx2, avx512) names. A set that the machine lacks is refused (em_isa_choose
// fails).
bool em_isa_runs(enum em_isa isa);
const char *em_isa_name(enum em_isa isa);

#endif
