// What this machine can do at best, measured: the figures that speeds are compared with.
#ifndef EM_KERNELS_ROOF_H
#define EM_KERNELS_ROOF_H

#include "base/fail.h"
#include "kernels/gemm.h"

// Floating-point operations per second that all threads of the pool reach together, multiply-adds
// on registers alone, in the instructions em_gemm uses for the type (so bf16 is f32 where the CPU
// has none for it). The best of several bursts, about 20 ms in all.
double em_roof_flops_now(enum em_gemm_type type, struct em_pool *pool);

// Integer operations (a multiply and an add are two) per second, in the instructions of
// em_gemm_i8.
double em_roof_i8_now(struct em_pool *pool);

// Bytes per second that all threads read together, each its own part of a block far bigger than the
// caches. About 50 ms; fails with EMBER_E_NOMEM (the block is 64 to 256 MiB).
ember_status em_roof_read_now(struct em_pool *pool, double *bytes_per_second) EMBER_CHECKED;

// The same, measured once per process and number of threads.
double em_roof_flops(enum em_gemm_type type, struct em_pool *pool);
ember_status em_roof_read(struct em_pool *pool, double *bytes_per_second) EMBER_CHECKED;

#endif
