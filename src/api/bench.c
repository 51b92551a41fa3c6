#include <ember/bench.h>

#include "api/library.h"
#include "base/alloc.h"
#include "bench/bench.h"

struct ember_bench_result {
    char *json, *text;
};

static ember_status measure(const struct em_benchmark *benchmark,
                            const ember_bench_options *options, json_t **figures)
{
    struct em_runtime runtime;
    EM_TRY(em_runtime_open(&options->runtime, benchmark->bf16_default, &runtime));
    const struct em_bench_job job = {
        .options = options, .backend = runtime.backend, .bf16 = runtime.bf16, .pool = runtime.pool};
    const ember_status status = em_bench_run(benchmark, &job, figures);
    em_runtime_close(&runtime);
    return status;
}

static ember_status render(const json_t *figures, ember_bench_result *result)
{
    struct em_buf json, text;
    em_buf_init(&json, 0);
    em_buf_init(&text, 0);
    ember_status status = em_json_print(figures, 2, &json);
    if (status == EMBER_OK) status = em_bench_print(figures, &text);
    if (status == EMBER_OK) {
        result->json = em_buf_take(&json);
        result->text = em_buf_take(&text);
        if (!result->json || !result->text) status = EMBER_E_NOMEM;
    }
    em_buf_deinit(&json);
    em_buf_deinit(&text);
    return status;
}

ember_status ember_bench(const char *name, const ember_bench_options *options,
                         ember_bench_result **out)
{
    static const ember_bench_options none;
    const struct em_benchmark *benchmark;
    json_t *figures = NULL;
    EM_TRY(ember_start());
    EM_TRY(em_bench_find(name, &benchmark));
    ember_bench_result *result = em_calloc(1, sizeof *result);
    if (!result) return EMBER_E_NOMEM;
    ember_status status = measure(benchmark, options ? options : &none, &figures);
    if (status == EMBER_OK) status = render(figures, result);
    json_decref(figures);
    if (status != EMBER_OK) {
        ember_bench_free(result);
        return status;
    }
    *out = result;
    return EMBER_OK;
}

const char *ember_bench_json(const ember_bench_result *result)
{
    return result->json;
}

const char *ember_bench_text(const ember_bench_result *result)
{
    return result->text;
}

void ember_bench_free(ember_bench_result *result)
{
    if (!result) return;
    em_free(result->json);
    em_free(result->text);
    em_free(result);
}
