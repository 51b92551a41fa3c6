#include "bench/timing.h"

#include <stddef.h>
#include <stdlib.h>

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct em_bench_time em_bench_summary(double *seconds, unsigned n)
{
    qsort(seconds, n, sizeof *seconds, by_size);
    return (struct em_bench_time){.median = (seconds[(n - 1) / 2] + seconds[n / 2]) / 2,
                                  .min = seconds[0],
                                  .max = seconds[n - 1],
                                  .repeats = n};
}
