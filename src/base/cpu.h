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
enum em_isa em_isa_widest(void); // that runs

// What a machine may have beside a set: bits.
enum em_isa_extra {
    EM_ISA_BF16 = 1,    // bf16 dot products: avx512, neon (and matrix products)
    EM_ISA_VNNI = 2,    // int8 dot products: avx512
    EM_ISA_DOTPROD = 4, // int8 dot products: neon
    EM_ISA_I8MM = 8,    // int8 matrix products: neon
};
unsigned em_isa_extras(enum em_isa isa);                  // that this machine has beside the set
bool em_isa_runs_with(const char *name, unsigned extras); // the set of that name, with all of them
// "avx512+bf16+vnni", "avx512+none" where the machine has extras that are left out, "avx2".
const char *em_isa_text(enum em_isa isa, unsigned extras, char text[64]);

// The set to use: the widest that runs with all extras, or what EMBER_ISA names: a set (scalar,
// neon, avx2, avx512) with its extras, or with those named alone ("avx512+vnni"; "avx512+none" is
// the first machines that had it). An unknown name, or what this machine lacks, is EMBER_E_USAGE
// with a message that lists what runs. `extras` may be NULL.
ember_status em_isa_choose(enum em_isa *isa, unsigned *extras) EMBER_CHECKED;

#endif
