#include "infer/generation.h"

#include <stdio.h>

#include "base/alloc.h"

const char *ember_finish_name(ember_finish finish)
{
    static const char *const names[] = {"length", "end", "stop", "context"};
    return (unsigned)finish < sizeof names / sizeof *names ? names[finish] : "?";
}

ember_status em_request_check(const struct em_model *m, const int32_t *ids, size_t count,
                              const char *name)
{
    if (!count) return em_fail(EMBER_E_RANGE, "%s: there is no token to start from", name);
    if (m->context && count > m->context)
        return em_fail(EMBER_E_RANGE,
                       "%s has %zu tokens, and the context of %s is %zu: nothing is cut, so it "
                       "cannot be run",
                       name, count, m->name, m->context);
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= m->vocabulary)
            return em_fail(EMBER_E_RANGE,
                           "%s: token %d at place %zu is outside the vocabulary of %zu", name,
                           ids[i], i, m->vocabulary);
    return EMBER_OK;
}

// A request that runs.
struct slot {
    const struct em_request *request; // NULL: free
    struct em_conversation *conversation;
    struct em_rng rng;
    struct em_text_stream stream;
};

struct run {
    struct em_engine *engine;
    struct em_sampler_work work;
    struct slot *slot; // [slots]
    struct em_conversation **active;
    size_t slots;
};

static ember_status begin(struct slot *s, const struct em_request *r)
{
    em_conversation_reset(s->conversation);
    EM_TRY(em_conversation_append(s->conversation, r->ids, r->count));
    em_rng_seed(&s->rng, r->seed, 0);
    em_text_stream_deinit(&s->stream);
    s->stream = (struct em_text_stream){
        .tokenizer = r->tokenizer, .stops = r->stops, .write = r->on_text, .context = r->context};
    s->request = r;
    return EMBER_OK;
}

static bool ends(const struct em_request *r, int32_t id)
{
    for (size_t i = 0; i < r->end_count; i++)
        if (r->end[i] == id) return true;
    return false;
}

static ember_status finish(struct slot *s, ember_finish why)
{
    const struct em_request *r = s->request;
    const struct em_conversation *c = s->conversation;
    const ember_answer answer = {.prompt_tokens = r->count,
                                 .tokens = c->count - r->count,
                                 .finish = s->stream.stopped ? EMBER_FINISH_STOP : why,
                                 .ids = c->ids};
    s->request = NULL;
    return r->on_end ? r->on_end(r->context, &answer) : EMBER_OK;
}

// Gives what is still held back. A stop string may come to light here.
static ember_status close_text(struct slot *s)
{
    return s->request->tokenizer ? em_text_stream_end(&s->stream) : EMBER_OK;
}

static ember_status draw(struct run *run, struct slot *s, int32_t *id)
{
    const struct em_conversation *c = s->conversation;
    const ember_status status =
        em_sample(s->request->chain, &run->work, c->logits, c->ids, c->count, &s->rng, id);
    if (status != EMBER_E_NUMERIC) return status;
    char why[512], what[256];
    snprintf(what, sizeof what, "%s", ember_last_error());
    em_engine_diagnose(run->engine, c, why, sizeof why);
    return em_fail(status, "%s: %s", what, why);
}

static ember_status step(struct run *run, struct slot *s)
{
    const struct em_request *r = s->request;
    struct em_conversation *c = s->conversation;
    const size_t made = c->count - r->count, context = em_engine_model(run->engine)->context;
    int32_t id;
    if (made == r->max_tokens) { // none were wanted
        EM_TRY(close_text(s));
        return finish(s, EMBER_FINISH_LENGTH);
    }
    EM_TRY(draw(run, s, &id));
    EM_TRY(em_conversation_append(c, &id, 1));
    if (r->on_token) EM_TRY(r->on_token(r->context, id));
    const bool end = ends(r, id);
    if (!end && r->tokenizer) EM_TRY(em_text_stream_push(&s->stream, id));
    ember_finish why;
    if (s->stream.stopped)
        why = EMBER_FINISH_STOP;
    else if (end)
        why = EMBER_FINISH_END;
    else if (made + 1 == r->max_tokens)
        why = EMBER_FINISH_LENGTH;
    else if (context && c->count > context)
        why = EMBER_FINISH_CONTEXT;
    else
        return EMBER_OK;
    EM_TRY(close_text(s));
    return finish(s, why);
}

static ember_status open_slots(struct run *run, size_t n)
{
    const size_t most = em_engine_sequences(run->engine);
    run->slots = n < most ? n : most;
    run->slot = em_calloc(run->slots, sizeof *run->slot);
    run->active = em_calloc(run->slots, sizeof *run->active);
    if (!run->slot || !run->active) return EMBER_E_NOMEM;
    for (size_t i = 0; i < run->slots; i++)
        EM_TRY(em_conversation_create(run->engine, &run->slot[i].conversation));
    return em_sampler_work_init(&run->work, em_engine_model(run->engine)->vocabulary);
}

// What was made before a request to stop is not kept back.
static ember_status stop(struct run *run)
{
    for (size_t i = 0; i < run->slots; i++)
        if (run->slot[i].request) EM_TRY(close_text(&run->slot[i]));
    return em_fail(EMBER_E_INTERRUPTED, "stopped on request");
}

static ember_status loop(struct run *run, const struct em_request *requests, size_t n)
{
    size_t next = 0;
    for (;;) {
        size_t active = 0;
        for (size_t i = 0; i < run->slots; i++) {
            struct slot *s = &run->slot[i];
            if (!s->request && next < n) EM_TRY(begin(s, &requests[next++]));
            if (s->request) run->active[active++] = s->conversation;
        }
        if (!active) return EMBER_OK;
        const ember_status status = em_engine_feed(run->engine, run->active, active);
        if (status == EMBER_E_INTERRUPTED) return stop(run);
        if (status != EMBER_OK) return status;
        for (size_t i = 0; i < run->slots; i++)
            if (run->slot[i].request) EM_TRY(step(run, &run->slot[i]));
    }
}

ember_status em_generate(struct em_engine *e, const struct em_request *requests, size_t n)
{
    struct run run = {.engine = e};
    if (!n) return EMBER_OK;
    for (size_t i = 0; i < n; i++)
        EM_TRY(
            em_request_check(em_engine_model(e), requests[i].ids, requests[i].count, "the prompt"));
    ember_status status = open_slots(&run, n);
    if (status == EMBER_OK) status = loop(&run, requests, n);
    for (size_t i = 0; run.slot && i < run.slots; i++) {
        em_conversation_destroy(run.slot[i].conversation);
        em_text_stream_deinit(&run.slot[i].stream);
    }
    em_sampler_work_deinit(&run.work);
    em_free(run.slot);
    em_free(run.active);
    return status;
}
