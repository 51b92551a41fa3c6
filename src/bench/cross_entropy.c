// `ember bench cross_entropy`: the kernels that turn logits into losses and gradients, and the
// whole operation with its matrix products, on its own and with gradients.
#include "base/alloc.h"
#include "base/clock.h"
#include "bench/kernel_times.h"
#include "bench/probe.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"

enum { TOKENS = 1024, WIDTH = 512, VOCABULARY = 16384 };

struct bench {
    const struct em_bench_job *job;
    size_t tokens, width, vocabulary;
    struct em_bench_probe loss, gradient;
    struct em_bench_kernels kernels;
    float *logits; // [rows, vocabulary], more than caches hold
    size_t bytes, rows;
};

static ember_status open_probe(struct bench *b, bool backward, struct em_bench_probe *p)
{
    ember_tensor *w, *x, *loss;
    EM_TRY(em_bench_probe_open(b->job, "bench cross_entropy", 1, b->tokens, b->width, backward, p));
    EM_TRY(ember_param(&p->build, &w, "head", EMBER_INIT_NORMAL, EMBER_ROLE_HEAD,
                       (size_t[]){b->vocabulary, b->width}, 2));
    EM_TRY(em_bench_probe_rows(p, b->width, &x));
    EM_TRY(ember_cross_entropy(em_program_flow(p->program), x, w, NULL, &loss, NULL));
    for (size_t t = 0; t < b->tokens; t++)
        p->targets[t] = (int32_t)(em_hash64(2, t, 0) % b->vocabulary);
    return em_bench_probe_ready(p, loss);
}

static ember_status open_logits(struct bench *b)
{
    b->rows = em_bench_uncached_values() / b->vocabulary + 1;
    if (!em_mul_size(b->rows * sizeof(float), b->vocabulary, &b->bytes))
        return em_fail(EMBER_E_NOMEM, "bench cross_entropy: the logits do not fit into memory");
    if (!(b->logits = em_block_alloc(b->bytes))) return EMBER_E_NOMEM;
    for (size_t i = 0; i < b->rows * b->vocabulary; i++)
        b->logits[i] = (float)(int32_t)(uint32_t)em_hash64(3, i, 0) * 0x1p-29f;
    return EMBER_OK;
}

static void logsumexp_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct bench *b = arg;
    volatile float sink; // the kernel has no other effect
    (void)thread;
    for (size_t r = begin; r < end; r++)
        sink = em_kernels()->logsumexp_f32(b->logits + r * b->vocabulary, b->vocabulary);
    (void)sink;
}

static void gradient_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct bench *b = arg;
    (void)thread;
    for (size_t r = begin; r < end; r++)
        (void)em_kernels()->cross_entropy_f32(b->logits + r * b->vocabulary, b->vocabulary,
                                              r % b->vocabulary, 1.0f);
}

static void time_rows(struct bench *b, const char *name, em_task *task, size_t passes,
                      unsigned repeat)
{
    const double start = em_clock_seconds();
    em_parallel(b->job->pool, b->rows, 1, task, b);
    em_bench_kernel_note(&b->kernels, name, (double)passes * (double)b->bytes, repeat,
                         em_clock_seconds() - start);
}

static ember_status time_operation(struct bench *b, const char *name, struct em_bench_probe *p,
                                   unsigned repeat, double *seconds)
{
    const struct em_cost forward = em_program_cost(p->program, false),
                         backward =
                             p->backward ? em_program_cost(p->program, true) : (struct em_cost){0};
    EM_TRY(em_bench_probe_run(p, seconds));
    em_bench_kernel_note(&b->kernels, name, forward.bytes + backward.bytes, repeat, *seconds);
    return EMBER_OK;
}

static ember_status run(void *context, unsigned repeat, double *seconds)
{
    struct bench *b = context;
    double loss, gradient;
    const double start = em_clock_seconds();
    time_rows(b, "logsumexp", logsumexp_rows, 1, repeat);
    time_rows(b, "softmax_gradient", gradient_rows, 2, repeat);
    const double kernels = em_clock_seconds() - start;
    EM_TRY(time_operation(b, "loss", &b->loss, repeat, &loss));
    EM_TRY(time_operation(b, "loss_with_gradients", &b->gradient, repeat, &gradient));
    *seconds = kernels + loss + gradient;
    return EMBER_OK;
}

static void release(struct bench *b)
{
    em_bench_probe_close(&b->loss);
    em_bench_probe_close(&b->gradient);
    if (b->logits) em_block_free(b->logits, b->bytes);
    em_free(b);
}

static ember_status measure(struct bench *b, json_t *out)
{
    const struct em_bench_job *job = b->job;
    struct em_bench_measured measured;
    double first;
    EM_TRY(open_probe(b, false, &b->loss));
    EM_TRY(open_probe(b, true, &b->gradient));
    EM_TRY(open_logits(b));
    EM_TRY(run(b, 0, &first));
    EM_TRY(em_bench_measure(&(struct em_bench_work){.run = run,
                                                    .context = b,
                                                    .bound = em_bench_flops_bound(job),
                                                    .seconds = job->options->seconds},
                            job->pool, &measured));
    // One product for the loss alone, three with gradients.
    const double flops = (1 + 3) * 2 * (double)b->tokens * (double)b->width * (double)b->vocabulary;
    return em_bench_kernels_report(&b->kernels, job, &measured,
                                   flops / measured.time.median / measured.peak, out);
}

ember_status em_bench_cross_entropy(const struct em_bench_job *job, json_t *out)
{
    const ember_bench_options *o = job->options;
    struct bench *b = em_calloc(1, sizeof *b);
    if (!b) return EMBER_E_NOMEM;
    b->job = job;
    b->tokens = o->tokens ? o->tokens : TOKENS;
    b->width = o->dim ? o->dim : WIDTH;
    b->vocabulary = o->vocabulary ? o->vocabulary : VOCABULARY;
    const ember_status status = measure(b, out);
    release(b);
    return status;
}
