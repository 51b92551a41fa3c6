// The table of benchmarks.
#include "bench/bench.h"

#include <string.h>

static const struct em_benchmark benchmarks[] = {
#define EM_BENCH(name, bf16) {#name, em_bench_##name, bf16},
#define EM_BENCH_LATER(name) {#name, NULL, false},
#include "bench/list.def"
#undef EM_BENCH
#undef EM_BENCH_LATER
};

enum { BENCHMARKS = sizeof benchmarks / sizeof *benchmarks };

ember_status em_bench_find(const char *name, const struct em_benchmark **benchmark)
{
    const char *names[BENCHMARKS];
    for (size_t i = 0; i < BENCHMARKS; i++) {
        names[i] = benchmarks[i].name;
        if (strcmp(names[i], name)) continue;
        if (!benchmarks[i].run)
            return em_fail(EMBER_E_USAGE, "bench %s: its operation is not in this build", name);
        *benchmark = &benchmarks[i];
        return EMBER_OK;
    }
    const char *near = em_did_you_mean(name, names, BENCHMARKS);
    return em_fail(EMBER_E_USAGE, "there is no benchmark \"%s\"%s%s%s", name,
                   near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

ember_status em_bench_run(const struct em_benchmark *benchmark, const struct em_bench_job *job,
                          json_t **out)
{
    json_t *object = json_pack("{s:s}", "bench", benchmark->name);
    if (!object) return em_fail(EMBER_E_NOMEM, "bench %s: out of memory", benchmark->name);
    const ember_status status = benchmark->run(job, object);
    if (status != EMBER_OK) {
        json_decref(object);
        return status;
    }
    *out = object;
    return EMBER_OK;
}

ember_status em_bench_add(json_t *object, json_t *fields)
{
    const int failed = fields ? json_object_update(object, fields) : -1;
    json_decref(fields);
    return failed ? em_fail(EMBER_E_NOMEM, "out of memory: the figures") : EMBER_OK;
}

ember_status em_bench_need(const char *benchmark, const char *name, size_t value)
{
    return value ? EMBER_OK
                 : em_fail(EMBER_E_RANGE, "bench %s: %s has to be at least 1", benchmark, name);
}
