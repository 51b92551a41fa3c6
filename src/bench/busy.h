// Work beside a process that spins: how much of its speed it keeps.
#ifndef EM_BENCH_BUSY_H
#define EM_BENCH_BUSY_H

#include "bench/measure.h"

// Where the job asks for it (options->busy), repeats the work in windows of at least a second, by
// turns with and without another process that spins at the same priority and on no processor in
// particular, and adds to `out`: "kept", the mean speed of the windows beside it as a share of the
// mean speed without; "kept_least" and "kept_most", the same of the slowest and the fastest of
// those windows.
ember_status em_bench_add_busy(const struct em_bench_job *job, const struct em_bench_work *work,
                               json_t *out) EMBER_CHECKED;

#endif
