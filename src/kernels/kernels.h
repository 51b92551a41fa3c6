// Compute on raw pointers. One table of kernels per instruction set; what a kernel does stands at
// its definition in isa/.
#ifndef EM_KERNELS_KERNELS_H
#define EM_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/activation.h"
#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/fft.h"
#include "kernels/rmsprop.h"
#include "kernels/scan.h"

#include "kernels/recurrent.h"
#include "kernels/short_conv.h"

struct em_kernels {
    const char *isa; // scalar, neon, avx2, avx512
#define EM_KERNEL(result, name, parameters) result(*name) parameters;
#include "kernels/list.def"
#undef EM_KERNEL
};

// The table in force: the widest set of this machine, or the one that EMBER_ISA names. Chosen once.
const struct em_kernels *em_kernels(void);
// What is used beside it, chosen with it: bits of em_isa_extra in base/cpu.h.
unsigned em_kernels_extras(void);

// Every table that this machine runs, plainest first; NULL past the last.
const struct em_kernels *em_kernels_at(size_t i);

#endif
