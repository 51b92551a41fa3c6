// Times of several kernels that a benchmark measures in turn: what elementwise, optimizer and
// cross_entropy report.
#ifndef EM_BENCH_KERNEL_TIMES_H
#define EM_BENCH_KERNEL_TIMES_H

#include "bench/measure.h"

enum { EM_BENCH_KERNELS = 32 };

struct em_bench_kernels {
    struct em_bench_kernel {
        char name[48];
        double bytes; // of one run: read and written, once each
        double seconds[EM_BENCH_MOST];
        double plain_bytes; // of the plain loop beside it; 0: there is none
        double plain_seconds[EM_BENCH_MOST];
    } kernel[EM_BENCH_KERNELS];
    size_t count;
};

// Kernel `name` took so long in this repeat; the same kernels are noted in every repeat. Past
// EM_BENCH_KERNELS names are left out.
void em_bench_kernel_note(struct em_bench_kernels *k, const char *name, double bytes,
                          unsigned repeat, double seconds);

// The same of the plain loop that kernel `name`, noted before, is measured against.
void em_bench_kernel_note_plain(struct em_bench_kernels *k, const char *name, double bytes,
                                unsigned repeat, double seconds);

// kernels: name -> ms, min_ms, max_ms, gbytes_per_s, and beside a plain loop its rate as
// plain_gbytes_per_s and `share`, the median of what the kernel's rate was of that; ms and
// gbytes_per_s of all of them; and what is common. `share` of the peak; negative: the rate's share
// of it.
ember_status em_bench_kernels_report(struct em_bench_kernels *k, const struct em_bench_job *job,
                                     const struct em_bench_measured *measured, double share,
                                     json_t *out) EMBER_CHECKED;

// Values of a vector that caches cannot hold: half as much again as the last one, within reason.
size_t em_bench_uncached_values(void);

#endif
