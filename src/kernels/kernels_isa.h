// For kernel sources, which are compiled once per instruction set with -DEM_ISA=scalar|neon|avx2|avx512:
// EM_K(name) is em_<name>__<isa>.
#ifndef EM_KERNELS_ISA_H
#define EM_KERNELS_ISA_H

#ifndef EM_ISA
#error "kernel sources are compiled with -DEM_ISA=..."
#endif

#define EM_K_PASTE(name, isa) em_##name##__##isa
#define EM_K_EXPAND(name, isa) EM_K_PASTE(name, isa)
#define EM_K(name) EM_K_EXPAND(name, EM_ISA)

#endif
