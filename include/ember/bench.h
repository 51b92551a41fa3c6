/** @file bench.h  Measurements: how fast training, inference and single operations are here. */
#ifndef EMBER_BENCH_H
#define EMBER_BENCH_H

#include <stdbool.h>
#include <stddef.h>

#include <ember/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The number format of `gemm`. */
typedef enum ember_bench_dtype {
    EMBER_BENCH_DTYPE_DEFAULT, /**< as runtime.compute says */
    EMBER_BENCH_F32,
    EMBER_BENCH_BF16,
    EMBER_BENCH_I8 /**< weights of 8 bits with a scale for every 32; activations are quantised
                      within the time */
} ember_bench_dtype;

/**
 * What to measure. Start from {0}; each benchmark reads what it needs. Weights and data are random;
 * no tokenizer is read.
 */
typedef struct ember_bench_options {
    ember_runtime runtime; /**< compute: default bf16 where the machine has instructions for it, for
                              attention and fftconv f32 */
    const char *model;     /**< train, prefill, decode: a config file, a folder with config.json, or
                              a preset's name */
    size_t batch;          /**< train, attention, fftconv, recurrent: sequences */
    size_t length;         /**< train, attention, fftconv, recurrent: tokens of
                              each */
    size_t steps;          /**< train: timed steps, after one untimed; default 5 */
    size_t tokens;         /**< prefill, decode, moe; elementwise (default: what no cache holds),
                              cross_entropy (default 1024) */
    size_t context;        /**< decode: tokens already in the state; default 512 */
    size_t m, n, k;        /**< gemm: C [M, N] = A [M, K] B [K, N] */
    ember_bench_dtype dtype;          /**< gemm */
    size_t heads, kv_heads, head_dim; /**< attention */
    size_t channels;                  /**< fftconv */
    bool gated;                       /**< fftconv: a gate before and one after it */
    size_t dim; /**< moe; elementwise (default 1024), cross_entropy (default 512) */
    size_t hidden, experts, chosen; /**< moe */
    size_t states;                  /**< scan: of each channel */
    const char *type;               /**< recurrent: ltc, cfc, lstm or gru */
    const char *wiring;             /**< recurrent: as the layers' option; NULL: none */
    size_t input, units;            /**< recurrent: columns of the input, neurons */
    size_t vocabulary;              /**< cross_entropy; default 16384 */
    size_t parameters;              /**< optimizer; default: what no cache holds */
    bool backward;  /**< attention, fftconv, moe, recurrent: forward and backward together, else
                       forward alone */
    bool busy;      /**< train, decode: also by turns beside a process that spins, started for it */
    double seconds; /**< all but train: how long to measure, about; default 1 */
} ember_bench_options;

/** The figures of one benchmark. Free with ember_bench_free(). Threads: nothing changes it, many
 * may read one. */
typedef struct ember_bench_result ember_bench_result;

/**
 * Measures. Threads: one call at a time, as others would be measured with it. Shares of the
 * machine's peak are taken against a peak measured between the repeats.
 *
 * @param name  train, prefill, decode, gemm, attention, fftconv, recurrent, moe, elementwise,
 * optimizer, cross_entropy.
 * @retval EMBER_E_USAGE   there is no such benchmark in this build.
 * @retval EMBER_E_RANGE   a size that the benchmark needs is 0.
 * @retval EMBER_E_CONFIG  the model's config is not valid.
 * @retval EMBER_E_NOMEM   the sizes do not fit into memory.
 */
EMBER_API EMBER_CHECKED ember_status ember_bench(const char *name,
                                                 const ember_bench_options *options,
                                                 ember_bench_result **result);
/** The figures as one JSON object, and as lines for people. Borrowed from the result. */
EMBER_API const char *ember_bench_json(const ember_bench_result *result);
EMBER_API const char *ember_bench_text(const ember_bench_result *result);
EMBER_API void ember_bench_free(ember_bench_result *result); /**< NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
