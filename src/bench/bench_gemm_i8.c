// `ember bench gemm --dtype i8`: a product with 8-bit weights, activations quantised within the
// time.
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "bench/bench_gemm.h"
#include "bench/measure.h"
#include "kernels/gemm_i8.h"

static const double burst_seconds = 0.004; // a repeat of small products holds this much of them

struct product {
    size_t M, N, K, bytes;
    char *block; // all of the following
    float *a, *c;
    void *packed, *scratch;
    struct em_pool *pool;
    unsigned calls; // of a repeat
};

static void multiply(const struct product *p)
{
    em_gemm_i8(p->M, p->N, p->K, p->a, p->K, p->packed, p->c, p->N, p->scratch, p->pool);
}

static ember_status run(void *context, unsigned repeat, double *seconds)
{
    (void)repeat;
    const struct product *p = context;
    const double start = em_clock_seconds();
    for (unsigned i = 0; i < p->calls; i++)
        multiply(p);
    *seconds = (em_clock_seconds() - start) / p->calls;
    return EMBER_OK;
}

// Adds `count` times `size` bytes, in whole lines.
static bool add(size_t count, size_t size, size_t *sum)
{
    size_t n;
    return em_mul_size(count, size, &n) && em_add_size(n, 127, &n) &&
           em_add_size(*sum, n / 128 * 128, sum);
}

static ember_status fill(struct product *p)
{
    const size_t blocks = em_i8_blocks(p->K);
    size_t bytes = 0, a, packed, scratch, count;
    if (!em_mul_size(p->M, p->K, &count) || !add(count, sizeof(float), &bytes)) bytes = SIZE_MAX;
    a = bytes;
    if (!em_mul_size(p->M, p->N, &count) || !add(count, sizeof(float), &bytes)) bytes = SIZE_MAX;
    packed = bytes;
    if (!add(em_gemm_i8_packed_size(p->K, p->N), 1, &bytes)) bytes = SIZE_MAX;
    scratch = bytes;
    if (bytes == SIZE_MAX ||
        !add(em_gemm_i8_scratch_size(p->K, em_pool_threads(p->pool)), 1, &bytes))
        return em_fail(EMBER_E_NOMEM, "bench gemm: %zu x %zu x %zu does not fit into memory", p->M,
                       p->N, p->K);
    p->block = em_block_alloc(bytes);
    if (!p->block) return EMBER_E_NOMEM;
    p->bytes = bytes;
    p->a = (float *)(void *)p->block;
    p->c = (float *)(void *)(p->block + a);
    p->packed = p->block + packed;
    p->scratch = p->block + scratch;
    for (size_t i = 0; i < p->M * p->K; i++)
        p->a[i] = (float)(int32_t)em_hash64(1, i, 0) * 0x1p-31f;
    int8_t *values = em_alloc(p->N * blocks * EM_I8_BLOCK);
    uint16_t *scales = em_calloc(p->N * blocks, sizeof *scales);
    if (values && scales) {
        for (size_t i = 0; i < p->N * blocks * EM_I8_BLOCK; i++)
            values[i] = (int8_t)(em_hash64(2, i, 0) % 255 - 127);
        for (size_t i = 0; i < p->N * blocks; i++)
            scales[i] = 0x2000; // 2^-7
        em_gemm_i8_pack(p->K, p->N, values, scales, p->packed, p->pool);
    }
    const bool filled = values && scales;
    em_free(values);
    em_free(scales);
    return filled ? EMBER_OK : EMBER_E_NOMEM;
}

static ember_status measure(struct product *p, const struct em_bench_job *job, json_t *out)
{
    struct em_bench_measured measured;
    multiply(p);
    const double start = em_clock_seconds();
    multiply(p);
    const double one = em_clock_seconds() - start;
    p->calls = one >= burst_seconds ? 1 : (unsigned)(burst_seconds / (one + 1e-7)) + 1;
    EM_TRY(em_bench_measure(
        &(struct em_bench_work){
            .run = run, .context = p, .bound = EM_BENCH_I8, .seconds = job->options->seconds},
        p->pool, &measured));
    const double rate = 2 * (double)p->M * (double)p->N * (double)p->K / measured.time.median;
    EM_TRY(em_bench_add(out, json_pack("{s:s, s:f}", "dtype", "i8", "gflops", rate / 1e9)));
    return em_bench_add_common(out, job, &measured.time, em_gemm_i8_name(), rate / measured.peak);
}

ember_status em_bench_gemm_i8(const struct em_bench_job *job, json_t *out)
{
    const ember_bench_options *o = job->options;
    struct product p = {.M = o->m, .N = o->n, .K = o->k, .pool = job->pool};
    if (!p.M || !p.N || !p.K)
        return em_fail(EMBER_E_RANGE,
                       "bench gemm: M, N and K must be at least 1, not %zu, %zu, %zu", p.M, p.N,
                       p.K);
    ember_status status = fill(&p);
    if (status == EMBER_OK) status = measure(&p, job, out);
    if (p.block) em_block_free(p.block, p.bytes);
    return status;
}
