#include "infer/perplexity.h"

#include <math.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "data/windows.h"
#include "models/diagnose.h"

struct scorer {
    const struct em_model *model;
    const struct em_perplexity_options *options;
    struct em_program *program;
    struct em_model_outputs outputs;
    ember_state *state;
    size_t max_tokens;
};

static ember_status open_scorer(const struct em_model *m,
                                const struct em_perplexity_options *options, struct scorer *s)
{
    *s = (struct scorer){.model = m, .options = options, .max_tokens = EM_PERPLEXITY_PASS};
    EM_TRY(em_model_need_language(m));
    EM_TRY(em_program_create(&(struct em_program_options){.backend = options->backend,
                                                          .pool = options->pool,
                                                          .packs = m->packs,
                                                          .max_tokens = EM_PERPLEXITY_PASS,
                                                          .max_sequences = EM_PERPLEXITY_PASS,
                                                          .bf16 = options->bf16},
                             &s->program));
    EM_TRY(em_model_record(m, s->program, EM_HEAD_LOSS, &s->outputs));
    if (options->recorded) EM_TRY(options->recorded(options->onlooker, s->program));
    EM_TRY(em_program_allocate(s->program));
    return em_state_create(em_program_layout(s->program), &s->state);
}

static void close_scorer(struct scorer *s)
{
    em_state_destroy(s->state);
    em_program_destroy(s->program);
}

static ember_status not_finite(const struct scorer *s, const struct em_run *run)
{
    char why[512] = "in a window that is too long to be looked at";
    if (!run->batch->state_in)
        em_model_diagnose(s->model,
                          &(struct em_diagnosis){.backend = s->options->backend,
                                                 .pool = s->options->pool,
                                                 .bf16 = s->options->bf16,
                                                 .head = EM_HEAD_LOSS,
                                                 .run = run},
                          why, sizeof why);
    return em_fail(EMBER_E_NUMERIC, "the loss is not finite: %s", why);
}

// The step's sum in double, token by token: it does not depend on how windows share passes.
static ember_status run(struct scorer *s, const ember_batch *batch, struct em_perplexity *sum)
{
    if (em_interrupted()) return em_fail(EMBER_E_INTERRUPTED, "stopped on request");
    const struct em_run pass = {.batch = batch, .loss_scale = 1};
    EM_TRY(em_program_forward(s->program, &pass));
    const float *nll = em_f32(s->outputs.nll);
    for (size_t t = 0; t < batch->n_tokens; t++) {
        if (batch->targets[t] < 0) continue;
        sum->nats += (double)nll[t];
        sum->tokens++;
    }
    if (!isfinite(sum->nats)) return not_finite(s, &pass);
    const struct em_perplexity_options *o = s->options;
    return o->passed ? o->passed(o->onlooker, s->program, batch) : EMBER_OK;
}

static ember_status score(struct scorer *s, const ember_batch *b, struct em_perplexity *sum)
{
    sum->windows += b->n_sequences;
    if (b->n_tokens <= s->max_tokens) return run(s, b, sum);
    em_state_reset(s->state); // one long window
    for (size_t at = 0, n; at < b->n_tokens; at += n) {
        n = b->n_tokens - at < s->max_tokens ? b->n_tokens - at : s->max_tokens;
        const size_t offset[] = {0, n};
        const ember_batch part = {.n_tokens = n,
                                  .n_sequences = 1,
                                  .offset = offset,
                                  .tokens = b->tokens + at,
                                  .targets = b->targets + at,
                                  .state_in = &s->state,
                                  .state_out = &s->state};
        EM_TRY(run(s, &part, sum));
    }
    return EMBER_OK;
}

static void show(const char *name, const struct em_perplexity *sum, double total, double start)
{
    const double seconds = em_clock_seconds() - start;
    em_progress((double)sum->tokens >= total, "%s: %llu of %.0f tokens, %.0f tokens/s", name,
                (unsigned long long)sum->tokens, total,
                seconds > 0 ? (double)sum->tokens / seconds : 0.0);
}

ember_status em_perplexity_domain(const struct em_model *m, const struct em_dataset *dataset,
                                  size_t domain, const struct em_perplexity_options *options,
                                  struct em_perplexity *out)
{
    struct em_perplexity sum = {0};
    struct em_windows windows;
    struct em_packed packed = {0};
    struct scorer s;
    const struct em_domain *d = &dataset->domains[domain];
    const double start = em_clock_seconds();
    const double all = options->limit && options->limit < d->held_out_tokens
                           ? (double)options->limit
                           : (double)d->held_out_tokens;
    bool more = true;
    ember_status status = open_scorer(m, options, &s);
    em_windows_init(&windows, dataset, domain,
                    &(struct em_windows_options){.context = options->context,
                                                 .batch_tokens = EM_PERPLEXITY_PASS,
                                                 .limit = options->limit});
    while (status == EMBER_OK && more) {
        status = em_windows_next(&windows, &packed, &more);
        if (status != EMBER_OK || !more) break;
        status = score(&s, &packed.batch, &sum);
        sum.bytes += em_packed_bytes(&packed);
        if (status == EMBER_OK) show(d->name, &sum, all, start);
    }
    em_packed_deinit(&packed);
    close_scorer(&s);
    if (status == EMBER_OK) *out = sum;
    return status;
}

static void fill_llama_window(const struct em_tokenizer *tokenizer, const int32_t *ids, bool bos,
                              size_t context, int32_t *tokens, int32_t *targets,
                              struct em_perplexity *sum)
{
    for (size_t t = 0; t + 1 < context; t++) {
        tokens[t] = t == 0 && bos ? em_tokenizer_bos(tokenizer) : ids[t];
        targets[t] = t >= context / 2 ? ids[t + 1] : -1;
        size_t n;
        if (targets[t] >= 0 && em_tokenizer_token(tokenizer, targets[t], &n) &&
            !em_tokenizer_is_special(tokenizer, targets[t]))
            sum->bytes += (double)n;
    }
}

static ember_status llama_windows(struct scorer *s, const struct em_tokenizer *tokenizer,
                                  const int32_t *ids, size_t count, bool bos, size_t context,
                                  struct em_perplexity *sum)
{
    int32_t *tokens = em_calloc(2 * context, sizeof *tokens), *targets = tokens + context;
    if (!tokens) return EMBER_E_NOMEM;
    ember_status status = EMBER_OK;
    const double start = em_clock_seconds(),
                 total = (double)(count / context) * (double)(context - context / 2 - 1);
    for (size_t i = 0; status == EMBER_OK && i < count / context; i++) {
        const size_t offset[] = {0, context - 1};
        fill_llama_window(tokenizer, ids + i * context, bos, context, tokens, targets, sum);
        status = score(s,
                       &(ember_batch){.n_tokens = context - 1,
                                      .n_sequences = 1,
                                      .offset = offset,
                                      .tokens = tokens,
                                      .targets = targets},
                       sum);
        if (status == EMBER_OK) show("llama windows", sum, total, start);
    }
    em_free(tokens);
    return status;
}

ember_status em_perplexity_llama(const struct em_model *m, const struct em_tokenizer *tokenizer,
                                 const int32_t *ids, size_t count, bool bos,
                                 const struct em_perplexity_options *options,
                                 struct em_perplexity *out)
{
    struct em_perplexity sum = {0};
    struct scorer s;
    if (options->context < 4)
        return em_fail(EMBER_E_RANGE, "windows of %zu tokens have no second half to score",
                       options->context);
    if (count / 2 < options->context)
        return em_fail(EMBER_E_SHAPE,
                       "has %zu tokens, and windows of %zu need at least two of them", count,
                       options->context);
    ember_status status = open_scorer(m, options, &s);
    if (status == EMBER_OK)
        status = llama_windows(&s, tokenizer, ids, count, bos, options->context, &sum);
    close_scorer(&s);
    if (status == EMBER_OK) *out = sum;
    return status;
}
