// What `ember bench` measures. One benchmark a file, a line in list.def; each fills a JSON object
// with its own figures, and what all of them have in common comes from one place.
#ifndef EM_BENCH_BENCH_H
#define EM_BENCH_BENCH_H

#include <ember/bench.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/threads.h"
#include "ops/op.h"

struct em_bench_job {
    const ember_bench_options *options;
    enum em_backend backend;
    bool bf16; // asked for, or the default, and the machine has instructions for it
    struct em_pool *pool;
};

// Adds its figures to `out`, an object that has the benchmark's name.
typedef ember_status em_bench_function(const struct em_bench_job *job, json_t *out);

struct em_benchmark {
    const char *name;
    em_bench_function *run; // NULL: the operation is not in this build
    bool bf16_default;
};

// EMBER_E_USAGE where there is none, or none in this build.
ember_status em_bench_find(const char *name, const struct em_benchmark **benchmark) EMBER_CHECKED;
ember_status em_bench_run(const struct em_benchmark *benchmark, const struct em_bench_job *job,
                          json_t **out) EMBER_CHECKED;

// Joins `fields` (taken; NULL where memory was short) to an object.
ember_status em_bench_add(json_t *object, json_t *fields) EMBER_CHECKED;

#define EM_BENCH(name, bf16) em_bench_function em_bench_##name;
#define EM_BENCH_LATER(name)
#include "bench/list.def"
#undef EM_BENCH
#undef EM_BENCH_LATER

// Fails with EMBER_E_RANGE unless the size that `name` stands for was given.
ember_status em_bench_need(const char *benchmark, const char *name, size_t value) EMBER_CHECKED;

// The object as lines for people.
ember_status em_bench_print(const json_t *object, struct em_buf *text) EMBER_CHECKED;

#endif
