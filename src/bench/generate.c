// `ember bench prefill` and `decode`: reading a prompt, and a token at a time after one. Weights
// are random; sampling is left out.
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "bench/busy.h"
#include "bench/measure.h"
#include "models/model.h"

enum { CHUNK = 512 }; // tokens that the context is read in

struct bench {
    const struct em_bench_job *job;
    struct em_model *model;
    struct em_program *read, *decode; // of many tokens, of one
    ember_state *state, *start;       // decode starts from `start`
    int32_t *tokens;
    float *inputs; // [tokens, D] for models that read vectors
    size_t longest;
};

static void release(struct bench *b)
{
    em_state_destroy(b->state);
    em_state_destroy(b->start);
    em_program_destroy(b->read);
    em_program_destroy(b->decode);
    em_model_close(b->model);
    em_free(b->tokens);
    em_free(b->inputs);
}

static ember_status open_program(const struct bench *b, size_t tokens, struct em_program **program)
{
    struct em_model_outputs outputs;
    EM_TRY(em_program_create(&(struct em_program_options){.backend = b->job->backend,
                                                          .pool = b->job->pool,
                                                          .packs = b->model->packs,
                                                          .max_tokens = tokens,
                                                          .max_sequences = 1,
                                                          .bf16 = b->job->bf16},
                             program));
    EM_TRY(em_model_record(b->model, *program, EM_HEAD_LAST, &outputs));
    return em_program_allocate(*program);
}

// The model, and as much random data as its longest pass reads.
static ember_status open_bench(const struct em_bench_job *job, const char *name, size_t longest,
                               struct bench *b)
{
    const ember_bench_options *o = job->options;
    json_t *config;
    *b = (struct bench){.job = job, .longest = longest};
    if (!o->model) return em_fail(EMBER_E_RANGE, "%s: it needs a model", name);
    EM_TRY(em_model_read_config(o->model, &config));
    const ember_status status = em_model_create(config, o->model, NULL, &b->model);
    json_decref(config);
    EM_TRY(status);
    struct em_model *m = b->model;
    EM_TRY(em_model_allocate(m));
    em_model_init(m, o->runtime.seed, job->pool);
    size_t values = 0;
    if (m->vocabulary)
        b->tokens = em_calloc(longest, sizeof *b->tokens);
    else if (em_mul_size(longest, m->input_size, &values))
        b->inputs = em_calloc(values, sizeof *b->inputs);
    if (!b->tokens && !b->inputs)
        return em_fail(EMBER_E_NOMEM, "%s: out of memory: %zu tokens", name, longest);
    struct em_rng rng;
    em_rng_seed(&rng, o->runtime.seed, 1);
    for (size_t t = 0; b->tokens && t < longest; t++)
        b->tokens[t] = (int32_t)em_rng_below(&rng, m->vocabulary);
    for (size_t i = 0; i < values; i++)
        b->inputs[i] = (float)em_rng_normal(&rng);
    return EMBER_OK;
}

// Tokens [at, at + n) of the random data, after what the state holds.
static ember_status pass(const struct bench *b, struct em_program *program, size_t at, size_t n)
{
    const size_t offset[] = {0, n};
    ember_state *const state[] = {b->state};
    const ember_batch batch = {.n_tokens = n,
                               .n_sequences = 1,
                               .offset = offset,
                               .tokens = b->tokens ? b->tokens + at : NULL,
                               .inputs = b->inputs ? b->inputs + at * b->model->input_size : NULL,
                               .state_in = state,
                               .state_out = state};
    return em_program_forward(program, &(struct em_run){.batch = &batch, .loss_scale = 1});
}

// Bytes that a pass of n tokens has to read: the weights that it uses, as they lie in memory, a row
// of the embedding for each token, and each token's past of `past` tokens on average.
static double bytes_read(const struct bench *b, double n, double past)
{
    const struct em_model *m = b->model;
    const struct em_state_layout *layout = em_program_layout(b->decode ? b->decode : b->read);
    double bytes = 0;
    for (size_t i = 0; i < m->params.count; i++) {
        const ember_tensor *t = &m->params.param[i]->tensor;
        const double count = (double)ember_tensor_count(t), each = b->job->bf16 ? 2 : 4;
        if (t == m->embedding) {
            const double row = 4 * (double)m->width;
            bytes += n * row + (t == m->head ? count * each : 0);
            continue;
        }
        double share = 1;
        for (size_t e = 0; m->params.param[i]->expert && e < m->params.moe_count; e++) {
            const struct em_moe_record *moe = &m->params.moe[e];
            const double met = n * (double)moe->k / (double)moe->experts;
            if (!strncmp(t->name, moe->path, strlen(moe->path)) && met < 1) share = met;
        }
        bytes += share * count * (m->params.param[i]->decay ? each : 4);
    }
    for (size_t i = 0; i < layout->count; i++) {
        const struct em_state_spec *s = &layout->spec[i];
        const double seen = s->window && (double)s->window < past ? (double)s->window : past;
        bytes += n * 4 * ((double)s->fixed + seen * (double)s->per_token);
    }
    return bytes;
}

static ember_status add_rates(const struct bench *b, const struct em_bench_measured *measured,
                              double tokens, double bytes, json_t *out)
{
    const double seconds = measured->time.median;
    return em_bench_add(out,
                        json_pack("{s:s, s:f, s:f, s:f}", "dtype", b->job->bf16 ? "bf16" : "f32",
                                  "tokens_per_s", tokens / seconds, "bytes_per_token",
                                  bytes / tokens, "gbytes_per_s", bytes / seconds / 1e9));
}

static ember_status prefill_once(void *context, unsigned repeat, double *seconds)
{
    const struct bench *b = context;
    (void)repeat;
    em_state_reset(b->state);
    const double start = em_clock_seconds();
    EM_TRY(pass(b, b->read, 0, b->longest));
    *seconds = em_clock_seconds() - start;
    return EMBER_OK;
}

static ember_status prefill(struct bench *b, json_t *out)
{
    const struct em_bench_job *job = b->job;
    struct em_bench_measured measured;
    double first;
    EM_TRY(open_program(b, b->longest, &b->read));
    EM_TRY(em_state_create(em_program_layout(b->read), &b->state));
    EM_TRY(prefill_once(b, 0, &first));
    EM_TRY(em_bench_measure(&(struct em_bench_work){.run = prefill_once,
                                                    .context = b,
                                                    .bound = em_bench_flops_bound(job),
                                                    .seconds = job->options->seconds},
                            job->pool, &measured));
    const double n = (double)b->longest;
    const double flops = em_program_cost(b->read, false).flops / measured.time.median;
    EM_TRY(add_rates(b, &measured, n, bytes_read(b, n, n / 2), out));
    return em_bench_add_common(out, job, &measured.time, em_bench_isa(job), flops / measured.peak);
}

ember_status em_bench_prefill(const struct em_bench_job *job, json_t *out)
{
    struct bench b = {0};
    EM_TRY(em_bench_need("prefill", "tokens", job->options->tokens));
    ember_status status = open_bench(job, "bench prefill", job->options->tokens, &b);
    if (status == EMBER_OK) status = prefill(&b, out);
    release(&b);
    return status;
}

static ember_status decode_once(void *context, unsigned repeat, double *seconds)
{
    const struct bench *b = context;
    (void)repeat;
    EM_TRY(em_state_copy(b->start, b->state));
    const double start = em_clock_seconds();
    for (size_t t = 0; t < b->job->options->tokens; t++)
        EM_TRY(pass(b, b->decode, t, 1));
    *seconds = em_clock_seconds() - start;
    return EMBER_OK;
}

static ember_status decode(struct bench *b, size_t context, json_t *out)
{
    const struct em_bench_job *job = b->job;
    struct em_bench_measured measured;
    double first;
    EM_TRY(open_program(b, 1, &b->decode));
    EM_TRY(open_program(b, context < CHUNK ? context : CHUNK, &b->read));
    EM_TRY(em_state_create(em_program_layout(b->decode), &b->state));
    EM_TRY(em_state_create(em_program_layout(b->decode), &b->start));
    for (size_t at = 0; at < context; at += CHUNK)
        EM_TRY(pass(b, b->read, at, context - at < CHUNK ? context - at : CHUNK));
    EM_TRY(em_state_copy(b->state, b->start));
    EM_TRY(decode_once(b, 0, &first));
    const struct em_bench_work work = {.run = decode_once,
                                       .context = b,
                                       .bound = EM_BENCH_READING,
                                       .seconds = job->options->seconds};
    EM_TRY(em_bench_measure(&work, job->pool, &measured));
    const double n = (double)job->options->tokens;
    const double bytes = n * bytes_read(b, 1, (double)context + n / 2);
    EM_TRY(add_rates(b, &measured, n, bytes, out));
    EM_TRY(em_bench_add_common(out, job, &measured.time, em_bench_isa(job),
                               bytes / measured.time.median / measured.peak));
    return em_bench_add_busy(job, &work, out);
}

ember_status em_bench_decode(const struct em_bench_job *job, json_t *out)
{
    enum { DEFAULT_CONTEXT = 512 };
    const ember_bench_options *o = job->options;
    const size_t context = o->context ? o->context : DEFAULT_CONTEXT;
    struct bench b = {0};
    EM_TRY(em_bench_need("decode", "tokens", o->tokens));
    ember_status status =
        open_bench(job, "bench decode", context > o->tokens ? context : o->tokens, &b);
    if (status == EMBER_OK) status = decode(&b, context, out);
    release(&b);
    return status;
}
