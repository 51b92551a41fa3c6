// Generation: prompts in, continuations out, several at a time. A request's result depends on the
// request alone, not on what runs beside it.
#ifndef EM_INFER_GENERATION_H
#define EM_INFER_GENERATION_H

#include <ember/infer.h>

#include "infer/engine.h"
#include "infer/sampler.h"
#include "infer/text_stream.h"

// As ember_request, resolved. All borrowed. The functions may be NULL; one that fails ends the
// whole call with its status.
struct em_request {
    const int32_t *ids; // the prompt; at least one
    size_t count;
    size_t max_tokens;
    const struct em_sampler_chain *chain;
    uint64_t seed;
    const int32_t *end; // [end_count] end tokens
    size_t end_count;
    struct em_stops stops;                // need a tokenizer, as text() does
    const struct em_tokenizer *tokenizer; // or NULL
    ember_status (*on_token)(void *context, int32_t id);
    ember_status (*on_text)(void *context, const char *text, size_t n); // whole UTF-8
    ember_status (*on_end)(void *context, const ember_answer *answer);
    void *context;
};

// EMBER_E_RANGE, before anything runs, for a prompt that is empty, longer than the model's context,
// or has a token outside the vocabulary; `name` says which ("prompt", "p.jsonl:3").
ember_status em_request_check(const struct em_model *m, const int32_t *ids, size_t count,
                              const char *name) EMBER_CHECKED;

// Runs all requests, as many at a time as the engine takes. Requests end in any order.
// EMBER_E_INTERRUPTED after a request to stop: what was made has been given to on_text() and
// on_token(), and on_end() was not called for what had not ended.
ember_status em_generate(struct em_engine *e, const struct em_request *requests,
                         size_t n) EMBER_CHECKED;

#endif
