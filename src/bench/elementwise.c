// `ember bench elementwise`: operations that memory bounds, forward and backward, on rows that no
// cache holds.
#include <stdio.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "bench/kernel_times.h"
#include "bench/plain.h"
#include "bench/probe.h"
#include "kernels/kernels.h"

enum { WIDTH = 512, HEAD = 64, TAPS = 3, CALLS = 32 };

// Softmax is no operation of its own: its kernels over rows, as routers and losses call them.
struct softmax {
    float *x, *y, *dx; // [rows, width]
    size_t bytes;      // of each
};

struct bench {
    struct em_bench_probe probe;
    struct em_bench_kernels kernels;
    const struct em_call *call[CALLS]; // those that count, in order
    size_t calls;
    struct softmax softmax;
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

static void collect(void *context, const struct em_call *call)
{
    struct bench *b = context;
    if (em_bench_probe_counts(call) && b->calls < CALLS) b->call[b->calls++] = call;
}

// One pass of a call, and the plain loop that reads and writes the same. Rates count what is really
// read and written: a gradient that is set is not read.
static void note(struct bench *b, const struct em_call *call, bool backward, unsigned repeat)
{
    struct em_cost cost[2] = {{0, 0}, {0, 0}};
    struct em_bench_plain plain;
    char name[48];
    if (!(call->seconds[backward] > 0)) return;
    call->op->cost(call, &cost[0], &cost[1]);
    em_bench_plain_of_call(call, backward, &plain);
    const double bytes = plain.rows ? em_bench_plain_bytes(&plain) : cost[backward].bytes;
    snprintf(name, sizeof name, "%s%s", call->op->name, backward ? "_backward" : "");
    em_bench_kernel_note(&b->kernels, name, bytes, repeat, call->seconds[backward]);
    if (plain.rows)
        em_bench_kernel_note_plain(&b->kernels, name, bytes, repeat,
                                   em_bench_plain_run(&plain, b->probe.job->pool));
}

// The plain loops in the order of the calls, so that they find the caches as these did.
static void note_calls(struct bench *b, unsigned repeat)
{
    for (size_t i = 0; i < b->calls; i++)
        note(b, b->call[i], false, repeat);
    for (size_t i = b->calls; i-- > 0;)
        note(b, b->call[i], true, repeat);
}

static struct em_strip softmax_rows(const struct bench *b, float *data)
{
    const size_t width = b->probe.build.width;
    return (struct em_strip){data, b->probe.batch.n_tokens, width, width};
}

static void softmax_forward(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct bench *b = arg;
    const size_t n = b->probe.build.width;
    for (size_t r = begin; r < end; r++)
        (void)em_kernels()->softmax_f32(b->softmax.y + r * n, b->softmax.x + r * n, n);
}

static void softmax_backward(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct bench *b = arg;
    const size_t n = b->probe.build.width;
    for (size_t r = begin; r < end; r++)
        em_kernels()->softmax_backward_f32(b->softmax.dx + r * n, b->softmax.x + r * n,
                                           b->softmax.y + r * n, n);
}

static double note_rows(struct bench *b, const char *name, em_task *task,
                        const struct em_bench_plain *plain, unsigned repeat)
{
    struct em_pool *pool = b->probe.job->pool;
    const double start = em_clock_seconds();
    em_parallel(pool, plain->rows, em_row_grain(plain->width), task, b);
    const double seconds = em_clock_seconds() - start;
    em_bench_kernel_note(&b->kernels, name, em_bench_plain_bytes(plain), repeat, seconds);
    em_bench_kernel_note_plain(&b->kernels, name, em_bench_plain_bytes(plain), repeat,
                               em_bench_plain_run(plain, pool));
    return seconds;
}

static double note_softmax(struct bench *b, unsigned repeat)
{
    const struct em_strip x = softmax_rows(b, b->softmax.x), y = softmax_rows(b, b->softmax.y),
                          dx = softmax_rows(b, b->softmax.dx);
    struct em_bench_plain forward = {.rows = x.count, .width = x.width}, backward = forward;
    em_bench_plain_read(&forward, &x);
    em_bench_plain_write(&forward, &y);
    em_bench_plain_change(&backward, &dx);
    em_bench_plain_read(&backward, &x);
    em_bench_plain_read(&backward, &y);
    return note_rows(b, "softmax", softmax_forward, &forward, repeat) +
           note_rows(b, "softmax_backward", softmax_backward, &backward, repeat);
}

static ember_status open_softmax(struct bench *b)
{
    struct softmax *s = &b->softmax;
    const size_t width = b->probe.build.width, rows = b->probe.batch.n_tokens;
    if (!em_mul_size(rows * sizeof(float), width, &s->bytes))
        return em_fail(EMBER_E_NOMEM, "bench elementwise: the rows do not fit into memory");
    if (!(s->x = em_block_alloc(s->bytes)) || !(s->y = em_block_alloc(s->bytes)) ||
        !(s->dx = em_block_alloc(s->bytes)))
        return EMBER_E_NOMEM;
    for (size_t i = 0; i < rows * width; i++)
        s->x[i] = (float)(int32_t)(uint32_t)em_hash64(4, i, 0) * 0x1p-29f;
    return EMBER_OK;
}

static void close_softmax(struct softmax *s)
{
    if (s->x) em_block_free(s->x, s->bytes);
    if (s->y) em_block_free(s->y, s->bytes);
    if (s->dx) em_block_free(s->dx, s->bytes);
}

static ember_status run(void *context, unsigned repeat, double *seconds)
{
    struct bench *b = context;
    EM_TRY(em_bench_probe_run(&b->probe, seconds));
    note_calls(b, repeat);
    *seconds += note_softmax(b, repeat);
    return EMBER_OK;
}

static ember_status measure(struct bench *b, json_t *out)
{
    const struct em_bench_job *job = b->probe.job;
    struct em_bench_measured measured;
    double first;
    EM_TRY(record(&b->probe));
    EM_TRY(open_softmax(b));
    em_program_visit(b->probe.program, collect, b);
    EM_TRY(run(b, 0, &first));
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
    close_softmax(&b->softmax);
    em_free(b);
    return status;
}
