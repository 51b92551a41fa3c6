// `ember bench train`: whole training steps of a model with random weights on random data, made of
// the parts that training is made of.
#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/rng.h"
#include "bench/busy.h"
#include "bench/measure.h"
#include "bench/profile.h"
#include "models/model.h"
#include "train/parameters.h"

#include <stdlib.h>
#include <string.h>

enum { DEFAULT_STEPS = 5 };

static const double clip = 1, learning_rate = 1e-4;

struct bench {
    const struct em_bench_job *job;
    struct em_model *model;
    struct em_trainable trainable;
    void *optimizer_options;
    struct em_program *program;
    struct em_model_outputs outputs;
    ember_batch batch;
    size_t *offset;
    int32_t *tokens, *targets;
    float *inputs;
    struct em_rng rng;
    size_t scored;
    uint64_t steps_done;
    struct em_bench_profile *profile; // [steps]
};

static void release(struct bench *b)
{
    em_trainable_close(&b->trainable);
    em_program_destroy(b->program);
    em_model_close(b->model);
    em_free(b->optimizer_options);
    em_free(b->offset);
    em_free(b->tokens);
    em_free(b->targets);
    em_free(b->inputs);
    em_free(b->profile);
}

static ember_status open_model(struct bench *b)
{
    const char *path = b->job->options->model;
    json_t *config;
    EM_TRY(em_model_read_config(path, &config));
    const ember_status status = em_model_create(config, path, NULL, &b->model);
    json_decref(config);
    EM_TRY(status);
    EM_TRY(em_model_allocate(b->model));
    em_model_init(b->model, b->job->options->runtime.seed, b->job->pool);
    return EMBER_OK;
}

static ember_status open_optimizer(struct bench *b)
{
    const struct em_component *adamw;
    EM_TRY(em_registry_need(EMBER_OPTIMIZER, "adamw", "bench train", &adamw));
    if (!(b->optimizer_options = em_calloc(1, adamw->size))) return EMBER_E_NOMEM;
    EM_TRY(em_options_read(adamw->options, NULL, "bench train", NULL, b->optimizer_options));
    return em_trainable_open(b->model, adamw->impl, b->optimizer_options, b->job->pool,
                             &b->trainable);
}

static ember_status open_program(struct bench *b, size_t tokens)
{
    const ember_bench_options *o = b->job->options;
    EM_TRY(em_program_create(&(struct em_program_options){.backend = b->job->backend,
                                                          .pool = b->job->pool,
                                                          .packs = b->model->packs,
                                                          .max_tokens = tokens,
                                                          .max_sequences = o->batch,
                                                          .gradients = true,
                                                          .recompute = EM_RECOMPUTE_CHEAP,
                                                          .packs_pass_by = true,
                                                          .bf16 = b->job->bf16},
                             &b->program));
    EM_TRY(em_model_record(b->model, b->program, EM_HEAD_LOSS, &b->outputs));
    return em_program_allocate(b->program);
}

static ember_status open_batch(struct bench *b, size_t tokens)
{
    const ember_bench_options *o = b->job->options;
    const struct em_model *m = b->model;
    if (!(b->offset = em_calloc(o->batch + 1, sizeof *b->offset))) return EMBER_E_NOMEM;
    for (size_t s = 0; s <= o->batch; s++)
        b->offset[s] = s * o->length;
    b->batch = (ember_batch){.n_tokens = tokens, .n_sequences = o->batch, .offset = b->offset};
    b->scored = 1; // the loss of other models is a mean already
    em_rng_seed(&b->rng, o->runtime.seed, 1);
    if (m->vocabulary) {
        if (m->language_model) b->scored = o->batch * (o->length - 1);
        b->tokens = em_calloc(tokens, sizeof *b->tokens);
        b->targets = em_calloc(tokens, sizeof *b->targets);
        b->batch.tokens = b->tokens;
        b->batch.targets = b->targets;
        return b->tokens && b->targets ? EMBER_OK : EMBER_E_NOMEM;
    }
    size_t values;
    if (!em_mul_size(tokens, m->input_size, &values) ||
        !(b->inputs = em_calloc(values, sizeof *b->inputs)))
        return em_fail(EMBER_E_NOMEM, "bench train: out of memory: %zu inputs", tokens);
    b->batch.inputs = b->inputs;
    return EMBER_OK;
}

static void next_batch(struct bench *b)
{
    const struct em_model *m = b->model;
    const size_t length = b->job->options->length, T = b->batch.n_tokens;
    for (size_t t = 0; b->tokens && t < T; t++)
        b->tokens[t] = (int32_t)em_rng_below(&b->rng, m->vocabulary);
    for (size_t t = 0; b->tokens && t < T; t++)
        b->targets[t] = (t + 1) % length ? b->tokens[t + 1] : -1;
    for (size_t i = 0; b->inputs && i < T * m->input_size; i++)
        b->inputs[i] = (float)em_rng_normal(&b->rng);
}

static double lap(struct em_bench_profile *p, const char *name, double since)
{
    const double now = em_clock_seconds();
    em_bench_profile_add(p, name, now - since);
    return now;
}

static ember_status step(struct bench *b, struct em_bench_profile *p, double *seconds)
{
    next_batch(b);
    em_program_reset_profile(b->program);
    const double start = em_clock_seconds();
    em_trainable_zero_gradients(&b->trainable);
    lap(p, "zero_gradients", start);
    const struct em_run run = {.batch = &b->batch,
                               .training = true,
                               .gradients = true,
                               .loss_scale = 1 / (double)b->scored,
                               .aux_scale = 1,
                               .seed = b->job->options->runtime.seed,
                               .step = b->steps_done};
    EM_TRY(em_program_forward(b->program, &run));
    EM_TRY(em_program_backward(b->program));
    double now = em_clock_seconds();
    const double norm = em_trainable_norm(&b->trainable);
    now = lap(p, "gradient_norm", now);
    const struct em_update_step update = {.number = ++b->steps_done,
                                          .lr = learning_rate,
                                          .gradient_scale = norm > clip ? clip / norm : 1};
    em_trainable_update(&b->trainable, &update, false);
    now = lap(p, "adamw", now);
    *seconds = now - start;
    em_bench_profile_program(p, b->program);
    em_bench_profile_add(p, "other", *seconds - em_bench_profile_sum(p));
    return EMBER_OK;
}

static ember_status run(void *context, unsigned repeat, double *seconds)
{
    struct bench *b = context;
    return step(b, &b->profile[repeat], seconds);
}

// The largest resident size so far.
static ember_status peak_bytes(json_int_t *bytes)
{
    struct em_buf text;
    em_buf_init(&text, 0);
    ember_status status = em_read_file("/proc/self/status", (size_t)1 << 20, &text);
    const char *line = status == EMBER_OK ? strstr(text.data, "VmHWM:") : NULL;
    if (line)
        *bytes = (json_int_t)strtoll(line + strlen("VmHWM:"), NULL, 10) * 1024;
    else if (status == EMBER_OK)
        status = em_fail(EMBER_E_UNSUPPORTED, "/proc/self/status has no VmHWM");
    em_buf_deinit(&text);
    return status;
}

// The profile of the step that the median is (of the two that it lies between).
static json_t *median_profile(const struct bench *b, const struct em_bench_measured *measured)
{
    const unsigned n = measured->time.repeats;
    unsigned order[EM_BENCH_MOST];
    for (unsigned i = 0; i < n; i++) {
        unsigned at = i;
        for (; at > 0 && measured->in_order[order[at - 1]] > measured->in_order[i]; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    struct em_bench_profile sum = b->profile[order[(n - 1) / 2]];
    const struct em_bench_profile *other = &b->profile[order[n / 2]];
    for (size_t i = 0; i < other->count; i++)
        em_bench_profile_add(&sum, other->item[i].name, other->item[i].seconds);
    return em_bench_profile_json(&sum, 0.5);
}

static ember_status report(const struct bench *b, const struct em_bench_measured *measured,
                           json_t *out)
{
    const double step_s = measured->time.median, rate = (double)b->batch.n_tokens / step_s;
    size_t total, active;
    json_int_t bytes;
    EM_TRY(peak_bytes(&bytes));
    em_model_count(b->model, &total, &active);
    const double flops = 6 * (double)active * rate;
    EM_TRY(em_bench_add(out,
                        json_pack("{s:s, s:f, s:f, s:I, s:f, s:I, s:I}", "dtype",
                                  b->job->bf16 ? "bf16" : "f32", "tokens_per_s", rate, "step_s",
                                  step_s, "peak_bytes", bytes, "gflops", flops / 1e9, "parameters",
                                  (json_int_t)total, "active_parameters", (json_int_t)active)));
    EM_TRY(em_bench_add(out, json_pack("{s:o}", "profile", median_profile(b, measured))));
    return em_bench_add_common(out, b->job, &measured->time, em_bench_isa(b->job),
                               flops / measured->peak);
}

static ember_status check(const ember_bench_options *o, size_t *tokens)
{
    if (!o->model) return em_fail(EMBER_E_RANGE, "bench train: it needs a config");
    EM_TRY(em_bench_need("train", "batch", o->batch));
    EM_TRY(em_bench_need("train", "seq", o->length));
    if (o->length < 2)
        return em_fail(EMBER_E_RANGE, "bench train: a sequence needs at least 2 tokens");
    if (o->steps > EM_BENCH_MOST)
        return em_fail(EMBER_E_RANGE, "bench train: at most %d steps, not %zu", EM_BENCH_MOST,
                       o->steps);
    if (!em_mul_size(o->batch, o->length, tokens))
        return em_fail(EMBER_E_NOMEM, "bench train: %zu x %zu tokens do not fit into memory",
                       o->batch, o->length);
    return EMBER_OK;
}

ember_status em_bench_train(const struct em_bench_job *job, json_t *out)
{
    const ember_bench_options *o = job->options;
    const unsigned steps = o->steps ? (unsigned)o->steps : DEFAULT_STEPS;
    struct bench b = {.job = job};
    struct em_bench_measured measured;
    struct em_bench_profile untimed = {0};
    double seconds;
    size_t tokens;
    ember_status status;
    EM_TRY(check(o, &tokens));
    EM_TRY_GOTO(status, done, open_model(&b));
    EM_TRY_GOTO(status, done, open_optimizer(&b));
    EM_TRY_GOTO(status, done, open_program(&b, tokens));
    EM_TRY_GOTO(status, done, open_batch(&b, tokens));
    if (!(b.profile = em_calloc(steps, sizeof *b.profile))) {
        status = EMBER_E_NOMEM;
        goto done;
    }
    EM_TRY_GOTO(status, done, step(&b, &untimed, &seconds));
    const struct em_bench_work work = {
        .run = run, .context = &b, .bound = em_bench_flops_bound(job), .repeats = steps};
    EM_TRY_GOTO(status, done, em_bench_measure(&work, job->pool, &measured));
    EM_TRY_GOTO(status, done, report(&b, &measured, out));
    status = em_bench_add_busy(job, &work, out); // last, as it overwrites profiles
done:
    release(&b);
    return status;
}
