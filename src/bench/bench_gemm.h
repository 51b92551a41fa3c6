// `ember bench gemm`: C[M,N] = A[M,K] B[K,N] on random data, B packed beforehand.
#ifndef EM_BENCH_GEMM_H
#define EM_BENCH_GEMM_H

#include "bench/bench.h"
#include "bench/timing.h"
#include "kernels/gemm.h"

struct em_bench_product {
    struct em_bench_time time; // of one product
    double flops;              // per second, from the median
    double roof; // its share of the machine's peak, measured between the products; for few rows and
                 // a B bigger than the caches, the share of what reading B alone would take
    double peak; // FLOP/s, or bytes/s where memory_bound
    bool memory_bound;
    double pack_seconds; // packing B once, median
    const char *isa;     // static: em_gemm_name
    unsigned threads;
};

// `seconds`: how long to measure, 0: 1. Fails with EMBER_E_NOMEM, and with EMBER_E_RANGE where M, N
// or K is 0.
ember_status em_bench_product(enum em_gemm_type type, size_t M, size_t N, size_t K, double seconds,
                              struct em_pool *pool, struct em_bench_product *result) EMBER_CHECKED;

// The same of 8-bit weights.
ember_status em_bench_gemm_i8(const struct em_bench_job *job, json_t *out) EMBER_CHECKED;

#endif
