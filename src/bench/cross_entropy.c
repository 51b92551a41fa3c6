// `ember bench cross_entropy`: the kernels that turn logits into losses and gradients, and the
// whole operation with its matrix products, on its own and with gradients.
#include "base/alloc.h"
#include "base/clock.h"
#include "bench/kernel_times.h"
#include "bench/plain.h"
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
    b->rows = 3 * em_bench_uncached_values() / b->vocabulary + 1;
    if (!em_mul_size(b->rows * sizeof(float), b->vocabulary, &b->bytes))
        return em_fail(EMBER_E_NOMEM, "bench cross_entropy: the logits do not fit into memory");
    if (!(b->logits = em_block_alloc(b->bytes))) return EMBER_E_NOMEM;
    return EMBER_OK;
}

// Logits in [-4, 4).
static void fill_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct bench *b = arg;
    (void)thread;
    for (size_t i = begin * b->vocabulary; i < end * b->vocabulary; i++)
        b->logits[i] = (float)(int32_t)((uint32_t)i * 0x9e3779b9u) * 0x1p-29f;
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

static double time_rows(struct bench *b, const char *name, em_task *task, bool writes,
                        unsigned repeat)
{
    const struct em_strip logits = {b->logits, b->rows, b->vocabulary, b->vocabulary};
    struct em_bench_plain plain = {.rows = b->rows, .width = b->vocabulary};
    if (writes)
        em_bench_plain_change(&plain, &logits);
    else
        em_bench_plain_read(&plain, &logits);
    const double bytes = em_bench_plain_bytes(&plain), start = em_clock_seconds();
    em_parallel(b->job->pool, b->rows, 1, task, b);
    const double seconds = em_clock_seconds() - start;
    em_bench_kernel_note(&b->kernels, name, bytes, repeat, seconds);
    em_bench_kernel_note_plain(&b->kernels, name, bytes, repeat,
                               em_bench_plain_run(&plain, b->job->pool));
    return seconds;
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
    // Gradients become logits again: the first kernel is to meet what a head gives.
    em_parallel(b->job->pool, b->rows, 1, fill_rows, b);
    const double kernels = time_rows(b, "logsumexp", logsumexp_rows, false, repeat) +
                           time_rows(b, "softmax_gradient", gradient_rows, true, repeat);
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

// ns_per_logit: what a logit costs beyond the matrix products, which take products_ms at the peak
// that was measured.
static ember_status add_per_logit(json_t *out, const char *name, double products, double logits)
{
    json_t *kernel = json_object_get(json_object_get(out, "kernels"), name);
    const double ms = json_number_value(json_object_get(kernel, "ms"));
    if (products > 0)
        EM_TRY(em_bench_add(kernel, json_pack("{s:f}", "products_ms", 1e3 * products)));
    return em_bench_add(kernel,
                        json_pack("{s:f}", "ns_per_logit", 1e6 * (ms - 1e3 * products) / logits));
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
    const double product = 2 * (double)b->tokens * (double)b->width * (double)b->vocabulary;
    const double seconds = product / measured.peak;
    const double logits = (double)b->tokens * (double)b->vocabulary,
                 rows = (double)b->rows * (double)b->vocabulary;
    EM_TRY(em_bench_kernels_report(&b->kernels, job, &measured, 4 * seconds / measured.time.median,
                                   out));
    EM_TRY(add_per_logit(out, "logsumexp", 0, rows));
    EM_TRY(add_per_logit(out, "softmax_gradient", 0, rows));
    EM_TRY(add_per_logit(out, "loss", seconds, logits));
    return add_per_logit(out, "loss_with_gradients", 3 * seconds, logits);
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
