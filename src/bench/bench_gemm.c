#include "bench/bench_gemm.h"

#include <stdint.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/rng.h"
#include "base/threads.h"
#include "bench/measure.h"
#include "kernels/roof.h"

enum { FEWEST = 5, MOST = 512, PACKS = 5 };

static const double burst_seconds = 0.004; // a repeat of small products holds this much of them
static const double bytes_per_float = 4;

struct operands {
    float *block; // A, B and C
    size_t block_bytes;
    float *a, *b, *c;
    void *packed;
    size_t packed_bytes;
    struct em_gemm_scratch scratch;
};

static void release(struct operands *o)
{
    if (o->block) em_block_free(o->block, o->block_bytes);
    if (o->packed) em_block_free(o->packed, o->packed_bytes);
    if (o->scratch.data) em_block_free(o->scratch.data, o->scratch.bytes);
}

static ember_status prepare(enum em_gemm_type type, size_t M, size_t N, size_t K, unsigned threads,
                            struct operands *o)
{
    size_t a, b, c, floats;
    if (M == 0 || N == 0 || K == 0)
        return em_fail(EMBER_E_RANGE,
                       "bench gemm: M, N and K must be at least 1, not %zu, %zu, %zu", M, N, K);
    if (!em_mul_size(M, K, &a) || !em_mul_size(K, N, &b) || !em_mul_size(M, N, &c) ||
        !em_add_size(a, b, &floats) || !em_add_size(floats, c, &floats) ||
        !em_mul_size(floats, sizeof(float), &o->block_bytes))
        return em_fail(EMBER_E_NOMEM, "bench gemm: %zu x %zu x %zu does not fit into memory", M, N,
                       K);
    o->packed_bytes = em_gemm_packed_size(type, K, N);
    o->scratch.bytes = em_gemm_scratch_size(threads);
    o->block = em_block_alloc(o->block_bytes);
    o->packed = o->block ? em_block_alloc(o->packed_bytes) : NULL;
    o->scratch.data = o->packed ? em_block_alloc(o->scratch.bytes) : NULL;
    if (!o->scratch.data) {
        release(o);
        return EMBER_E_NOMEM;
    }
    o->a = o->block;
    o->b = o->a + a;
    o->c = o->b + b;
    for (size_t i = 0; i < a + b; i++)
        o->block[i] = (float)(int32_t)em_hash64(1, i, 0) * 0x1p-31f;
    return EMBER_OK;
}

ember_status em_bench_product(enum em_gemm_type type, size_t M, size_t N, size_t K, double seconds,
                              struct em_pool *pool, struct em_bench_product *result)
{
    struct operands o = {0};
    const unsigned threads = em_pool_threads(pool);
    double read = 0;
    EM_TRY(em_roof_read(pool, &read));
    EM_TRY(prepare(type, M, N, K, threads, &o));
    if (seconds <= 0) seconds = 1;

    const struct em_matrix a = {o.a, K, 1}, b = {o.b, 1, K}; // B as weights [N, K] have it
    double pack[PACKS], time[MOST], peak = 0;
    for (int i = 0; i < PACKS; i++) {
        const double start = em_clock_seconds();
        em_gemm_pack(type, K, N, b, o.packed, pool);
        pack[i] = em_clock_seconds() - start;
    }
    double start = em_clock_seconds();
    em_gemm_packed(type, M, N, K, a, o.packed, o.c, N, NULL, &o.scratch, pool);
    const double first = em_clock_seconds() - start;
    const unsigned calls =
        first >= burst_seconds ? 1 : (unsigned)(burst_seconds / (first + 1e-7)) + 1;

    unsigned n = 0;
    for (const double end = em_clock_seconds() + seconds;
         n < MOST && (n < FEWEST || em_clock_seconds() < end); n++) {
        // The roof beside the product: on a shared machine both see the same neighbours.
        if (n < FEWEST || n % 16 == 0) {
            const double now = em_roof_flops_now(type, pool);
            if (now > peak) peak = now;
        }
        start = em_clock_seconds();
        for (unsigned i = 0; i < calls; i++)
            em_gemm_packed(type, M, N, K, a, o.packed, o.c, N, NULL, &o.scratch, pool);
        time[n] = (em_clock_seconds() - start) / calls;
    }

    const double flops = 2.0 * (double)M * (double)N * (double)K;
    const double bytes = (double)o.packed_bytes + bytes_per_float * (double)M * (double)(K + N);
    *result = (struct em_bench_product){.time = em_bench_summary(time, n),
                                        .peak = peak,
                                        .pack_seconds = em_bench_summary(pack, PACKS).median,
                                        .isa = em_gemm_name(type),
                                        .threads = threads};
    result->flops = flops / result->time.median;
    result->roof = result->flops / peak;
    if (o.packed_bytes > 2 * em_cpu()->l3 && bytes / read > flops / peak) {
        result->memory_bound = true;
        result->peak = read;
        result->roof = bytes / result->time.median / read;
    }
    release(&o);
    return EMBER_OK;
}

ember_status em_bench_gemm(const struct em_bench_job *job, json_t *out)
{
    const ember_bench_options *o = job->options;
    if (o->dtype == EMBER_BENCH_I8) return em_bench_gemm_i8(job, out);
    // Asked for by name, bf16 is measured without instructions for it too.
    bool bf16 = job->bf16 || o->runtime.compute == EMBER_COMPUTE_BF16;
    if (o->dtype) bf16 = o->dtype == EMBER_BENCH_BF16;
    struct em_bench_product product;
    EM_TRY(em_bench_product(bf16 ? EM_GEMM_BF16 : EM_GEMM_F32, o->m, o->n, o->k, o->seconds,
                            job->pool, &product));
    EM_TRY(em_bench_add(out,
                        json_pack("{s:s, s:f, s:f, s:s}", "dtype", bf16 ? "bf16" : "f32", "gflops",
                                  product.flops / 1e9, "pack_ms", 1e3 * product.pack_seconds,
                                  "bound", product.memory_bound ? "memory" : "arithmetic")));
    return em_bench_add_common(out, job, &product.time, product.isa, product.roof);
}
