// Generation as the public interface has it: texts become ids, settings become chains of samplers.
#include <ember/infer.h>
#include <string.h>

#include "api/model.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "base/interrupt.h"
#include "infer/generation.h"

ember_sampling ember_sampling_default(const ember_model *model)
{
    return model ? model->generation.sampling : em_sampling_default;
}

enum { DEFAULT_TOKENS = 128 };

// A call of ember_generate().
struct job {
    ember_model *model;
    struct em_arena arena;
    struct em_request *request; // [n]
    int32_t **encoded;          // [n]: ids made from texts, owned
    struct {
        ember_sampling sampling;
        struct em_sampler_chain *chain;
    } * chain; // one for all requests that are sampled alike
    size_t n, chains, chains_capacity;
};

static bool same_sampling(const ember_sampling *a, const ember_sampling *b)
{
    return a->temperature == b->temperature && a->top_k == b->top_k && a->top_p == b->top_p &&
           a->min_p == b->min_p && a->repeat_penalty == b->repeat_penalty && a->order == b->order;
}

static ember_status find_chain(struct job *job, const ember_sampling *s,
                               const struct em_sampler_chain **chain)
{
    for (size_t i = 0; i < job->chains; i++) {
        if (!same_sampling(&job->chain[i].sampling, s)) continue;
        *chain = job->chain[i].chain;
        return EMBER_OK;
    }
    EM_TRY(em_grow(&job->chain, &job->chains_capacity, job->chains + 1, sizeof *job->chain));
    EM_TRY(em_sampler_chain_from(s, &job->chain[job->chains].chain));
    job->chain[job->chains].sampling = *s;
    *chain = job->chain[job->chains++].chain;
    return EMBER_OK;
}

// A stop string that is a special token has no text to be found in: it becomes an end token.
static ember_status set_stops(struct job *job, const ember_request *from, struct em_request *r)
{
    const struct em_generation_config *g = &job->model->generation;
    r->end = g->end;
    r->end_count = g->end_count;
    if (!from->n_stop) return EMBER_OK;
    EM_TRY(em_api_need_tokenizer(job->model));
    const char **text = em_arena_alloc(&job->arena, from->n_stop * sizeof *text);
    int32_t *end = em_arena_alloc(&job->arena, (g->end_count + from->n_stop) * sizeof *end);
    if (!text || !end) return EMBER_E_NOMEM;
    if (g->end_count) memcpy(end, g->end, g->end_count * sizeof *end);
    for (size_t i = 0; i < from->n_stop; i++) {
        const char *s = from->stop[i];
        const int32_t id = em_tokenizer_find(job->model->tokenizer, s, strlen(s));
        if (id >= 0 && em_tokenizer_is_special(job->model->tokenizer, id))
            end[r->end_count++] = id;
        else if (*s)
            text[r->stops.count++] = s;
    }
    r->end = end;
    r->stops.text = text;
    return EMBER_OK;
}

static ember_status resolve(struct job *job, size_t i, const ember_request *from)
{
    struct em_request *r = &job->request[i];
    *r = (struct em_request){.ids = from->ids,
                             .count = from->n_ids,
                             .max_tokens = from->max_tokens ? from->max_tokens : DEFAULT_TOKENS,
                             .seed = from->seed,
                             .tokenizer = job->model->tokenizer,
                             .on_token = from->on_token,
                             .on_text = from->on_text,
                             .on_end = from->on_end,
                             .context = from->context};
    if (from->text) {
        struct em_ids ids = {0};
        const ember_status status = em_api_encode(job->model, from->text, from->n_text, &ids);
        job->encoded[i] = ids.ids;
        EM_TRY(status);
        r->ids = ids.ids;
        r->count = ids.count;
    }
    EM_TRY(em_request_check(job->model->model, r->ids, r->count,
                            from->name ? from->name : "the prompt"));
    EM_TRY(find_chain(job, from->sampling ? from->sampling : &job->model->generation.sampling,
                      &r->chain));
    return set_stops(job, from, r);
}

static ember_status run(struct job *job, const ember_request *requests)
{
    struct em_engine *engine;
    job->request = em_calloc(job->n, sizeof *job->request);
    job->encoded = em_calloc(job->n, sizeof *job->encoded);
    if (!job->request || !job->encoded) return EMBER_E_NOMEM;
    for (size_t i = 0; i < job->n; i++)
        EM_TRY(resolve(job, i, &requests[i]));
    EM_TRY(em_api_engine(job->model, job->n, &engine));
    return em_generate(engine, job->request, job->n);
}

ember_status ember_generate(ember_model *model, const ember_request *requests, size_t n)
{
    struct job job = {.model = model, .n = n};
    if (!n) return EMBER_OK;
    const ember_status status = run(&job, requests);
    for (size_t i = 0; job.encoded && i < n; i++)
        em_free(job.encoded[i]);
    for (size_t i = 0; i < job.chains; i++)
        em_sampler_chain_destroy(job.chain[i].chain);
    em_free(job.chain);
    em_free(job.encoded);
    em_free(job.request);
    em_arena_deinit(&job.arena);
    if (status == EMBER_E_INTERRUPTED) em_interrupt_set(false); // heard: the next call may run
    return status;
}

static ember_status add_text(void *context, const char *text, size_t n)
{
    return em_buf_add(context, text, n);
}

ember_status ember_generate_text(ember_model *model, const char *prompt, size_t max_tokens,
                                 char **text)
{
    struct em_buf made = {0};
    const ember_request request = {.text = prompt,
                                   .n_text = strlen(prompt),
                                   .max_tokens = max_tokens,
                                   .on_text = add_text,
                                   .context = &made};
    ember_status status = ember_generate(model, &request, 1);
    char *taken = status == EMBER_OK ? em_buf_take(&made) : NULL;
    if (status == EMBER_OK && !taken) status = EMBER_E_NOMEM;
    em_buf_deinit(&made);
    if (status == EMBER_OK) *text = taken;
    return status;
}
