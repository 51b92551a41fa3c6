// Repeats a piece of work for a while, with the machine's peak measured between the repeats: on a
// shared machine both then see the same neighbours.
#ifndef EM_BENCH_MEASURE_H
#define EM_BENCH_MEASURE_H

#include "bench/bench.h"
#include "bench/timing.h"

enum em_bench_bound { EM_BENCH_F32, EM_BENCH_BF16, EM_BENCH_I8, EM_BENCH_READING };

enum { EM_BENCH_MOST = 512 }; // repeats

struct em_bench_work {
    // Does the work once and returns the seconds that count. `repeat` is 0, 1, ...
    ember_status (*run)(void *context, unsigned repeat, double *seconds);
    void *context;
    enum em_bench_bound bound;
    double seconds;   // how long to go on; 0: 1
    unsigned repeats; // exactly so many; 0: at least 5, while there is time
};

struct em_bench_measured {
    struct em_bench_time time;
    double peak;                    // FLOP/s or bytes/s: the best measured
    double in_order[EM_BENCH_MOST]; // seconds of each repeat
};

ember_status em_bench_measure(const struct em_bench_work *work, struct em_pool *pool,
                              struct em_bench_measured *out) EMBER_CHECKED;

// median, min, max, repeats, threads, isa and roof: the share of the peak that `rate` (work a
// second at the median) is. Caches and writes that overlap with reads can lift a rate above what
// reading alone reaches; the share then is 1.
ember_status em_bench_add_common(json_t *out, const struct em_bench_job *job,
                                 const struct em_bench_time *time, const char *isa,
                                 double share) EMBER_CHECKED;

// How programs compute: the instruction set of their matrix products, or "reference". Static.
const char *em_bench_isa(const struct em_bench_job *job);

static inline enum em_bench_bound em_bench_flops_bound(const struct em_bench_job *job)
{
    return job->bf16 ? EM_BENCH_BF16 : EM_BENCH_F32;
}

#endif
