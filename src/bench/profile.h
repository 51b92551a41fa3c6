// Seconds per operation of a program's last run, by name.
#ifndef EM_BENCH_PROFILE_H
#define EM_BENCH_PROFILE_H

#include "bench/bench.h"
#include "ops/program.h"

enum { EM_BENCH_NAMES = 64 };

struct em_bench_item {
    const char *name; // static
    double seconds;
};

struct em_bench_profile {
    struct em_bench_item item[EM_BENCH_NAMES];
    size_t count;
};

// More names than there is room for are put together under the last one.
void em_bench_profile_add(struct em_bench_profile *p, const char *name, double seconds);
// Forward and backward of every call since the program's profile was reset.
void em_bench_profile_program(struct em_bench_profile *p, const struct em_program *program);
double em_bench_profile_sum(const struct em_bench_profile *p);
// name -> seconds times `factor`, the longest first, as a new object; NULL: out of memory.
json_t *em_bench_profile_json(struct em_bench_profile *p, double factor);

#endif
