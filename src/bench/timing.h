// Times of a repeated measurement. The median is the figure, the range says how far to trust it.
#ifndef EM_BENCH_TIMING_H
#define EM_BENCH_TIMING_H

struct em_bench_time {
    double median, min, max; // seconds
    unsigned repeats;
};

// Of n >= 1 times, which it sorts.
struct em_bench_time em_bench_summary(double *seconds, unsigned n);

#endif
