// For kernel sources, which are compiled once per instruction set with
// -DEM_ISA=scalar|neon|avx2|avx512: EM_K(name) is em_<name>__<isa>; list.def gives the prototypes.
#ifndef EM_KERNELS_ISA_H
#define EM_KERNELS_ISA_H

#ifndef EM_ISA
#error "kernel sources are compiled with -DEM_ISA=..."
#endif

#include "kernels/kernels.h"

#define EM_K_PASTE(name, isa) em_##name##__##isa
#define EM_K_EXPAND(name, isa) EM_K_PASTE(name, isa)
#define EM_K(name) EM_K_EXPAND(name, EM_ISA)

#define EM_KERNEL(result, name, parameters) result EM_K(name) parameters;
#include "kernels/list.def"
#undef EM_KERNEL

#endif
