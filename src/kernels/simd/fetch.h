// Asking for memory that a later pass will need. Rows are gone through more than once, and only one of
// the passes waits for memory unless each asks for what the next one touches: the lines that will be
// written, and the row after this one. (Rows mostly lie one behind the other; asking for what is not
// there does no harm.) Into the second level: the first has no room for whole rows (rmsnorm, 2 threads of
// Zen 4: 1536 wide 1.04 of a plain copy's rate so, 0.83 into the first level, 0.92 not at all).
#ifndef EM_KERNELS_SIMD_FETCH_H
#define EM_KERNELS_SIMD_FETCH_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/simd/f32.h"

// The line of p[i], once where i grows in steps of VF32_LANES. p may be NULL.
static inline void em_fetch(const float *p, size_t i)
{
    enum { LINE = 64 };
    const uintptr_t at = (uintptr_t)p + i * sizeof *p;
    if (VF32_LANES * sizeof *p >= LINE || at % LINE < VF32_LANES * sizeof *p)
        __builtin_prefetch((const void *)at, 0, 2);
}

#endif
