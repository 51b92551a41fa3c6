// `ember bench optimizer`: every registered optimizer, and what else walks over all parameters once
// a step, on a model whose parameters no cache holds.
#include "base/alloc.h"
#include "base/clock.h"
#include "bench/kernel_times.h"
#include "bench/plain.h"
#include "models/model.h"
#include "train/parameters.h"

enum { WIDTH = 1024, OPTIMIZERS = 16, PIECE = 1 << 16 };

struct optimizer {
    const char *name;
    void *options;
    struct em_trainable trainable;
};

struct bench {
    struct em_pool *pool;
    struct em_model *model;
    size_t largest; // parameter
    struct optimizer optimizer[OPTIMIZERS];
    size_t count;
    uint64_t step;
    struct em_bench_kernels kernels;
};

static const ember_tensor *parameter(const struct bench *b, size_t i)
{
    return &b->model->params.param[i]->tensor;
}

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
    EM_TRY(em_model_allocate(b->model));
    for (size_t i = 1; i < b->model->params.count; i++)
        if (ember_tensor_count(parameter(b, i)) > ember_tensor_count(parameter(b, b->largest)))
            b->largest = i;
    return EMBER_OK;
}

// Gradients like any others: zeros are summed and updated at speeds of their own.
static void fill_gradients(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_trainable *t = arg;
    for (size_t i = begin; i < end; i++) {
        const size_t first = i * PIECE, left = t->bytes / sizeof(float) - first;
        float *g = t->gradients + first;
        for (size_t j = 0; j < PIECE && j < left;
             j++) // odd multiples of the golden ratio, in [-1, 1)
            g[j] = (float)(int32_t)((uint32_t)(first + j) * 0x9e3779b9u) * 0x1p-31f;
    }
}

static void new_gradients(struct bench *b, struct em_trainable *t)
{
    em_parallel(b->pool, (t->bytes / sizeof(float) + PIECE - 1) / PIECE, 1, fill_gradients, t);
}

static ember_status open_optimizers(struct bench *b)
{
    const struct em_component *c;
    for (size_t i = 0; (c = em_registry_at(i)) && b->count < OPTIMIZERS; i++) {
        if (c->kind != EMBER_OPTIMIZER) continue;
        struct optimizer *o = &b->optimizer[b->count++];
        o->name = c->name;
        if (!(o->options = em_calloc(1, c->size ? c->size : 1))) return EMBER_E_NOMEM;
        EM_TRY(em_options_read(c->options, NULL, "bench optimizer", NULL, o->options));
        EM_TRY(em_trainable_open(b->model, c->impl, o->options, b->pool, &o->trainable));
        new_gradients(b, &o->trainable);
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

// As rows of the largest parameter, which is nearly all of the values.
static struct em_strip rows_of(const struct bench *b, float *values)
{
    const size_t n = ember_tensor_count(parameter(b, b->largest));
    return (struct em_strip){values, n / WIDTH, WIDTH, WIDTH};
}

static void note(struct bench *b, const char *name, size_t floats, struct em_bench_plain *plain,
                 unsigned repeat, double since, double *seconds)
{
    const double now = em_clock_seconds();
    const double bytes = (double)sizeof(float) * (double)floats * (double)b->model->n_values;
    em_bench_kernel_note(&b->kernels, name, bytes, repeat, now - since);
    *seconds += now - since;
    em_bench_kernel_note_plain(&b->kernels, name, em_bench_plain_bytes(plain), repeat,
                               em_bench_plain_run(plain, b->pool));
}

// The gradient is read; parameters and moments are read and written.
static void note_update(struct bench *b, struct optimizer *o, unsigned repeat, double *seconds)
{
    const struct em_update_step step = {.number = b->step, .lr = 1e-4, .gradient_scale = 1};
    struct em_trainable *t = &o->trainable;
    const size_t offset = em_trainable_offset(t, b->largest);
    const struct em_strip values = rows_of(b, em_f32(parameter(b, b->largest))),
                          gradients = rows_of(b, t->gradients + offset);
    struct em_bench_plain plain = {.rows = values.count, .width = WIDTH};
    const double start = em_clock_seconds();
    em_trainable_update(t, &step, false);
    em_bench_plain_change(&plain, &values);
    for (size_t m = 0; m < t->optimizer->moments; m++) {
        const struct em_strip moment = rows_of(b, t->moments[m] + offset);
        em_bench_plain_change(&plain, &moment);
    }
    em_bench_plain_read(&plain, &gradients);
    note(b, o->name, 3 + 2 * t->optimizer->moments, &plain, repeat, start, seconds);
}

static ember_status run(void *context, unsigned repeat, double *seconds)
{
    struct bench *b = context;
    struct em_trainable *first = &b->optimizer[0].trainable;
    *seconds = 0;
    b->step++;
    const struct em_strip gradients =
        rows_of(b, first->gradients + em_trainable_offset(first, b->largest));
    struct em_bench_plain reads = {.rows = gradients.count, .width = WIDTH}, writes = reads;
    em_bench_plain_read(&reads, &gradients);
    em_bench_plain_write(&writes, &gradients);
    double start = em_clock_seconds();
    em_trainable_zero_gradients(first);
    note(b, "zero_gradients", 1, &writes, repeat, start, seconds);
    new_gradients(b, first);
    start = em_clock_seconds();
    (void)em_trainable_norm(first);
    note(b, "gradient_norm", 1, &reads, repeat, start, seconds);
    for (size_t i = 0; i < b->count; i++)
        note_update(b, &b->optimizer[i], repeat, seconds);
    return EMBER_OK;
}

ember_status em_bench_optimizer(const struct em_bench_job *job, json_t *out)
{
    struct em_bench_measured measured;
    double first;
    struct bench *b = em_calloc(1, sizeof *b);
    if (!b) return EMBER_E_NOMEM;
    b->pool = job->pool;
    ember_status status = open_model(b, job->options->parameters);
    if (status == EMBER_OK) status = open_optimizers(b);
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
