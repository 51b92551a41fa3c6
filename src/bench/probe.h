// A few operations between a source of random rows and, for backward, a loss: what benchmarks of
// single operations time. Source and loss do not count.
#ifndef EM_BENCH_PROBE_H
#define EM_BENCH_PROBE_H

#include <ember/ops.h>

#include "base/rng.h"
#include "bench/bench.h"
#include "bench/measure.h"
#include "nn/build.h"
#include "ops/program.h"

struct em_bench_probe {
    const struct em_bench_job *job;
    const char *name; // of the benchmark, for messages
    bool backward;
    struct em_arena arena;
    struct em_params params;
    struct ember_build build; // declares parameters: ember_param, em_build_at
    struct em_program *program;
    float *memory; // of the parameters and their gradients
    size_t bytes;
    ember_batch batch;
    size_t *offset;
    int32_t *tokens, *targets;
};

// `sequences` of `length` tokens; `width`: of the model, for layers. Always followed by
// em_bench_probe_close.
ember_status em_bench_probe_open(const struct em_bench_job *job, const char *name, size_t sequences,
                                 size_t length, size_t width, bool backward,
                                 struct em_bench_probe *p) EMBER_CHECKED;
void em_bench_probe_close(struct em_bench_probe *p);

// A random activation [T, width] that wants a gradient where backward is measured.
ember_status em_bench_probe_rows(struct em_bench_probe *p, size_t width,
                                 ember_tensor **x) EMBER_CHECKED;
// Parameters declared by ember_param() get their gradients, where backward is measured.
ember_status em_bench_probe_want_gradients(struct em_bench_probe *p) EMBER_CHECKED;
// y is what was measured: [T, ...], or a loss itself. Takes the memory and fills the parameters.
ember_status em_bench_probe_ready(struct em_bench_probe *p, ember_tensor *y) EMBER_CHECKED;

// Runs it; the seconds of what counts.
ember_status em_bench_probe_run(struct em_bench_probe *p, double *seconds) EMBER_CHECKED;
// Runs it for about options->seconds after one that warms up, beside its roof.
ember_status em_bench_probe_measure(struct em_bench_probe *p, enum em_bench_bound bound,
                                    struct em_bench_measured *measured) EMBER_CHECKED;
bool em_bench_probe_counts(const struct em_call *call);

#endif
