// What this CPU has, and which instruction set is used.
#ifndef EM_BASE_CPU_H
#define EM_BASE_CPU_H

#include <stdbool.h>
#include <stddef.h>

#include "base/fail.h"

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

bool em_isa_runs(enum em_isa isa); // on this machine
const char *em_isa_name(enum em_isa isa);

// The set to use: the widest that runs, or what EMBER_ISA (scalar, neon, avx2, avx512) names. An
// unknown name, or a set that this machine lacks, is EMBER_E_USAGE with a message that lists what
// runs.
ember_status em_isa_choose(enum em_isa *isa) EMBER_CHECKED;

#endif
