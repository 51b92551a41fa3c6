// `ember bench elementwise`: operations that memory bounds, forward and backward, on rows that no
// cache holds.
#include <stdio.h>

#include "base/alloc.h"
#include "bench/kernel_times.h"
#include "bench/probe.h"

enum { WIDTH = 1024, HEAD = 64, TAPS = 3 };

struct bench {
    struct em_bench_probe probe;
    struct em_bench_kernels kernels;
    unsigned repeat;
};

static ember_status param(struct em_bench_probe *p, const char *name, size_t rows, size_t columns,
                          ember_tensor **t)
{
    const size_t dim[] = {rows, columns};
    return ember_param(&p->build, t, name, EMBER_INIT_NORMAL, EMBER_ROLE_OTHER,
                       rows ? dim : dim + 1, rows ? 2 : 1);
}

// One after the other, each reading what the one before wrote: by then it has left the caches.
static ember_status record(struct em_bench_probe *p)
{
    ember_flow *flow = em_program_flow(p->program);
    const size_t D = p->build.width, heads[] = {D / HEAD, HEAD};
    ember_tensor *taps, *w[3], *bcx, *first, *x, *y;
    EM_TRY(param(p, "taps", D, TAPS, &taps));
    EM_TRY(param(p, "rmsnorm", 0, D, &w[0]));
    EM_TRY(param(p, "layernorm", 0, D, &w[1]));
    EM_TRY(param(p, "layernorm_bias", 0, D, &w[2]));
    EM_TRY(em_bench_probe_rows(p, 3 * D, &bcx));
    EM_TRY(ember_short_conv(flow, bcx, taps, NULL, &first));
    EM_TRY(ember_rmsnorm(flow, first, w[0], 1e-5f, &y));
    EM_TRY(ember_layernorm(flow, y, w[1], w[2], 1e-5f, &x));
    EM_TRY(ember_activation(flow, x, EMBER_GELU, &y));
    EM_TRY(ember_reshape(flow, y, heads, 2, &y));
    EM_TRY(ember_rope(flow, y, &(ember_rope_options){.theta = 10000}, &y));
    EM_TRY(ember_reshape(flow, y, &D, 1, &y));
    EM_TRY(ember_scale(flow, y, 0.5f, &y));
    EM_TRY(ember_add(flow, y, x, &x));
    EM_TRY(ember_gated(flow, x, first, EMBER_SILU, &y));
    return em_bench_probe_ready(p, y);
}

static void note(void *context, const struct em_call *call)
{
    struct bench *b = context;
    struct em_cost forward = {0}, backward = {0};
    char name[48];
    if (!em_bench_probe_counts(call)) return;
    call->op->cost(call, &forward, &backward);
    em_bench_kernel_note(&b->kernels, call->op->name, forward.bytes, b->repeat, call->seconds[0]);
    snprintf(name, sizeof name, "%s_backward", call->op->name);
    if (call->seconds[1] > 0)
        em_bench_kernel_note(&b->kernels, name, backward.bytes, b->repeat, call->seconds[1]);
}

static ember_status run(void *context, unsigned repeat, double *seconds)
{
    struct bench *b = context;
    EM_TRY(em_bench_probe_run(&b->probe, seconds));
    b->repeat = repeat;
    em_program_visit(b->probe.program, note, b);
    return EMBER_OK;
}

static ember_status measure(struct bench *b, json_t *out)
{
    const struct em_bench_job *job = b->probe.job;
    struct em_bench_measured measured;
    double first;
    EM_TRY(record(&b->probe));
    EM_TRY(em_bench_probe_run(&b->probe, &first));
    EM_TRY(em_bench_measure(
        &(struct em_bench_work){
            .run = run, .context = b, .bound = EM_BENCH_READING, .seconds = job->options->seconds},
        job->pool, &measured));
    return em_bench_kernels_report(&b->kernels, job, &measured, -1, out);
}

ember_status em_bench_elementwise(const struct em_bench_job *job, json_t *out)
{
    const size_t width = job->options->dim ? job->options->dim : WIDTH;
    if (width % HEAD || width > 1 << 20)
        return em_fail(EMBER_E_RANGE,
                       "bench elementwise: dim has to be a multiple of %d up to %d, not %zu", HEAD,
                       1 << 20, width);
    size_t rows = job->options->tokens;
    if (!rows) rows = em_bench_uncached_values() / width + 1;
    struct bench *b = em_calloc(1, sizeof *b);
    if (!b) return EMBER_E_NOMEM;
    ember_status status =
        em_bench_probe_open(job, "bench elementwise", 1, rows, width, true, &b->probe);
    if (status == EMBER_OK) status = measure(b, out);
    em_bench_probe_close(&b->probe);
    em_free(b);
    return status;
}
