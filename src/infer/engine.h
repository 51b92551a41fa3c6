// A model ready to run: conversations go in by their new tokens, logits come out. Prompts run in
// chunks, several conversations in one pass; what a conversation gets does not depend on the chunks
// or on its company.
#ifndef EM_INFER_ENGINE_H
#define EM_INFER_ENGINE_H

#include "models/model.h"

struct em_engine_options {
    enum em_backend backend;
    struct em_pool *pool; // borrowed
    bool bf16;
    size_t chunk;     // tokens of a pass; 0: 512
    size_t sequences; // conversations of a pass; 0: 1
};

struct em_engine;
// Borrows the model. EMBER_E_UNSUPPORTED for a model that does not read tokens.
ember_status em_engine_create(const struct em_model *m, const struct em_engine_options *options,
                              struct em_engine **engine) EMBER_CHECKED;
void em_engine_destroy(struct em_engine *e); // NULL is fine; after its conversations
const struct em_model *em_engine_model(const struct em_engine *e);
size_t em_engine_sequences(const struct em_engine *e);

// What an engine takes, without taking it: the model needs no weights. States hold `state_fixed`
// bytes (windows full), and `state_token` for every token.
struct em_engine_plan {
    size_t activations, packed, scratch, state_fixed, state_token;
    // A prompt's token, within a chunk at the beginning, and one that is made; without the older
    // tokens that attention reads.
    double prompt_flops, made_flops;
};
ember_status em_engine_forecast(const struct em_model *m, const struct em_engine_options *options,
                                struct em_engine_plan *plan) EMBER_CHECKED;
// What a sequence's states take, added to the plan.
void em_engine_add_states(const struct em_state_layout *layout, struct em_engine_plan *plan);

// A sequence of tokens and the state that they leave.
struct em_conversation {
    ember_state *state;
    int32_t *ids; // [count]
    size_t count, capacity;
    size_t fed;    // tokens that the state has seen
    float *logits; // [V] after token fed - 1
};
ember_status em_conversation_create(const struct em_engine *e,
                                    struct em_conversation **c) EMBER_CHECKED;
void em_conversation_destroy(struct em_conversation *c); // NULL is fine
void em_conversation_reset(struct em_conversation *c);
ember_status em_conversation_append(struct em_conversation *c, const int32_t *ids,
                                    size_t n) EMBER_CHECKED;

// Runs every token that is not fed yet; afterwards each conversation's logits follow its last
// token. EMBER_E_INTERRUPTED between passes: what is fed stays fed, and a later call goes on.
ember_status em_engine_feed(struct em_engine *e, struct em_conversation *const *c,
                            size_t n) EMBER_CHECKED;

// Why a conversation's logits are not finite, as a clause: see em_model_diagnose().
void em_engine_diagnose(const struct em_engine *e, const struct em_conversation *c, char *text,
                        size_t size);

#endif
