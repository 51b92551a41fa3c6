#include "bench/measure.h"

#include "base/clock.h"
#include "kernels/roof.h"

enum { FEWEST = 5, ROOF_EVERY = 16 };

static ember_status roof(enum em_bench_bound bound, struct em_pool *pool, double *peak)
{
    double now;
    if (bound == EM_BENCH_READING)
        EM_TRY(em_roof_read_now(pool, &now));
    else if (bound == EM_BENCH_I8)
        now = em_roof_i8_now(pool);
    else
        now = em_roof_flops_now(bound == EM_BENCH_BF16 ? EM_GEMM_BF16 : EM_GEMM_F32, pool);
    if (now > *peak) *peak = now;
    return EMBER_OK;
}

ember_status em_bench_measure(const struct em_bench_work *work, struct em_pool *pool,
                              struct em_bench_measured *out)
{
    unsigned n = 0;
    double sorted[EM_BENCH_MOST];
    const unsigned most = work->repeats ? work->repeats : EM_BENCH_MOST;
    const double length = work->seconds > 0 ? work->seconds : 1;
    if (most > EM_BENCH_MOST)
        return em_fail(EMBER_E_RANGE, "at most %d repeats, not %u", EM_BENCH_MOST, most);
    out->peak = 0;
    for (const double end = em_clock_seconds() + length;
         n < most && (work->repeats || n < FEWEST || em_clock_seconds() < end); n++) {
        if (n < FEWEST || n % ROOF_EVERY == 0) EM_TRY(roof(work->bound, pool, &out->peak));
        EM_TRY(work->run(work->context, n, &out->in_order[n]));
        sorted[n] = out->in_order[n];
    }
    out->time = em_bench_summary(sorted, n);
    return EMBER_OK;
}

ember_status em_bench_add_common(json_t *out, const struct em_bench_job *job,
                                 const struct em_bench_time *time, const char *isa, double share)
{
    return em_bench_add(
        out, json_pack("{s:f, s:f, s:f, s:i, s:i, s:s, s:f}", "median", time->median, "min",
                       time->min, "max", time->max, "repeats", (int)time->repeats, "threads",
                       (int)em_pool_threads(job->pool), "isa", isa, "roof", share < 1 ? share : 1));
}

const char *em_bench_isa(const struct em_bench_job *job)
{
    if (job->backend == EM_REFERENCE) return "reference";
    return em_gemm_name(job->bf16 ? EM_GEMM_BF16 : EM_GEMM_F32);
}
