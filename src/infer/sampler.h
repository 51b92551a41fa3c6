// Samplers: what stands between a model's logits and the next token. Each narrows the candidates or
// reweighs them; a chain of them ends in a draw.
#ifndef EM_INFER_SAMPLER_H
#define EM_INFER_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ember/infer.h>

#include "base/json.h"
#include "base/rng.h"
#include "registry/registry.h"

struct em_candidate {
    int32_t id;
    float logit;
};

// What is left of the vocabulary; never empty.
struct em_candidates {
    struct em_candidate *item; // [count]
    size_t count;
    bool sorted;            // the largest logit first, of equal ones the smaller id
    const int32_t *history; // the sequence so far, prompt included
    size_t length;
    uint8_t *mark; // [vocabulary], all zero between samplers
};

// A sampler's descriptor: const, one per file. Kind EMBER_SAMPLER in the registry.
struct em_sampler_type {
    const char *name, *help;
    const ember_option *options;
    size_t size; // of the options' struct
    void (*apply)(const void *sampler, struct em_candidates *c);
};

ember_status em_infer_register(void) EMBER_CHECKED; // into the registry

// ---- for samplers ----

// The `keep` most likely candidates stay, sorted; the result does not depend on the order before.
void em_candidates_keep(struct em_candidates *c, size_t keep);
float em_candidates_max(const struct em_candidates *c);

// ---- chains ----

extern const ember_sampling em_sampling_default;

// The chain that settings mean, as em_sampler_chain_create() reads it; owned by the caller.
ember_status em_sampling_list(const ember_sampling *s, json_t **list) EMBER_CHECKED;

struct em_sampler_chain;
// From a list of {"type": name, option: value, ..}; `where` names it in messages.
ember_status em_sampler_chain_create(const json_t *list, const char *where,
                                     struct em_sampler_chain **chain) EMBER_CHECKED;
void em_sampler_chain_destroy(struct em_sampler_chain *chain); // NULL is fine
ember_status em_sampler_chain_from(const ember_sampling *s,
                                   struct em_sampler_chain **chain) EMBER_CHECKED;

// Room for one draw at a time.
struct em_sampler_work {
    struct em_candidate *item; // [vocabulary]
    uint8_t *mark;             // [vocabulary]
    size_t vocabulary;
};
ember_status em_sampler_work_init(struct em_sampler_work *w, size_t vocabulary) EMBER_CHECKED;
void em_sampler_work_deinit(struct em_sampler_work *w);

// Draws the token after `history` from logits [vocabulary]. Takes one number from `rng` where more
// than one candidate is left. EMBER_E_NUMERIC: a logit is not a number, or none is finite.
ember_status em_sample(const struct em_sampler_chain *chain, struct em_sampler_work *work,
                       const float *logits, const int32_t *history, size_t length,
                       struct em_rng *rng, int32_t *token) EMBER_CHECKED;

// The chain alone: what em_sample() draws from. Borrowed from `work`.
ember_status em_sampler_candidates(const struct em_sampler_chain *chain,
                                   struct em_sampler_work *work, const float *logits,
                                   const int32_t *history, size_t length,
                                   struct em_candidates *candidates) EMBER_CHECKED;

#endif
