// `ember bench optimizer`: every registered optimizer, and what else walks over all parameters once
// a step, on a model whose parameters no cache holds.
#include "base/alloc.h"
#include "base/clock.h"
#include "bench/kernel_times.h"
#include "models/model.h"
#include "train/parameters.h"

enum { WIDTH = 1024, OPTIMIZERS = 16 };

struct optimizer {
    const char *name;
    void *options;
    struct em_trainable trainable;
};

struct bench {
    struct em_model *model;
    struct optimizer optimizer[OPTIMIZERS];
    size_t count;
    uint64_t step;
    struct em_bench_kernels kernels;
};

static ember_status open_model(struct bench *b, size_t parameters)
{
    if (!parameters) parameters = em_bench_uncached_values();
    const size_t vocabulary = parameters / WIDTH + 1;
    json_t *config =
        json_pack("{s:s, s:I, s:I, s:[{s:s, s:{s:s, s:i}}]}", "model_type", "ember", "hidden_size",
                  (json_int_t)WIDTH, "vocab_size", (json_int_t)vocabulary, "blocks", "type",
                  "pre_norm", "channel", "type", "swiglu", "hidden", 64);
    if (!config) return em_fail(EMBER_E_NOMEM, "bench optimizer: out of memory");
    const ember_status status = em_model_create(config, "bench optimizer", NULL, &b->model);
    json_decref(config);
    EM_TRY(status);
    return em_model_allocate(b->model);
}

static ember_status open_optimizers(struct bench *b, struct em_pool *pool)
{
    const struct em_component *c;
    for (size_t i = 0; (c = em_registry_at(i)) && b->count < OPTIMIZERS; i++) {
        if (c->kind != EMBER_OPTIMIZER) continue;
        struct optimizer *o = &b->optimizer[b->count++];
        o->name = c->name;
        if (!(o->options = em_calloc(1, c->size ? c->size : 1))) return EMBER_E_NOMEM;
        EM_TRY(em_options_read(c->options, NULL, "bench optimizer", NULL, o->options));
        EM_TRY(em_trainable_open(b->model, c->impl, o->options, pool, &o->trainable));
    }
    return b->count ? EMBER_OK : em_fail(EMBER_E_INTERNAL, "no optimizer is registered");
}

static void release(struct bench *b)
{
    for (size_t i = 0; i < b->count; i++) {
        em_trainable_close(&b->optimizer[i].trainable);
        em_free(b->optimizer[i].options);
    }
    em_model_close(b->model);
    em_free(b);
}

static double lap(struct bench *b, const char *name, size_t floats, unsigned repeat, double since)
{
    const double now = em_clock_seconds();
    em_bench_kernel_note(&b->kernels, name,
                         (double)sizeof(float) * (double)floats * (double)b->model->n_values,
                         repeat, now - since);
    return now;
}

static ember_status run(void *context, unsigned repeat, double *seconds)
{
    struct bench *b = context;
    const struct em_update_step step = {.number = ++b->step, .lr = 1e-4, .gradient_scale = 1};
    const double start = em_clock_seconds();
    em_trainable_zero_gradients(&b->optimizer[0].trainable);
    double now = lap(b, "zero_gradients", 1, repeat, start);
    (void)em_trainable_norm(&b->optimizer[0].trainable);
    now = lap(b, "gradient_norm", 1, repeat, now);
    for (size_t i = 0; i < b->count; i++) {
        struct em_trainable *t = &b->optimizer[i].trainable;
        em_trainable_update(t, &step, false);
        // The gradient is read; parameters and moments are read and written.
        now = lap(b, b->optimizer[i].name, 3 + 2 * t->optimizer->moments, repeat, now);
    }
    *seconds = now - start;
    return EMBER_OK;
}

ember_status em_bench_optimizer(const struct em_bench_job *job, json_t *out)
{
    struct em_bench_measured measured;
    double first;
    struct bench *b = em_calloc(1, sizeof *b);
    if (!b) return EMBER_E_NOMEM;
    ember_status status = open_model(b, job->options->parameters);
    if (status == EMBER_OK) status = open_optimizers(b, job->pool);
    if (status == EMBER_OK) status = run(b, 0, &first);
    if (status == EMBER_OK)
        status = em_bench_measure(&(struct em_bench_work){.run = run,
                                                          .context = b,
                                                          .bound = EM_BENCH_READING,
                                                          .seconds = job->options->seconds},
                                  job->pool, &measured);
    if (status == EMBER_OK) status = em_bench_kernels_report(&b->kernels, job, &measured, -1, out);
    release(b);
    return status;
}
