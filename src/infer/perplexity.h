// How well a model predicts text.
#ifndef EM_INFER_PERPLEXITY_H
#define EM_INFER_PERPLEXITY_H

#include "data/dataset.h"
#include "models/model.h"

struct em_perplexity {
    double nats;     // sum of the negative log-likelihoods
    uint64_t tokens; // scored
    uint64_t windows;
    double bytes; // raw bytes that the scored tokens stand for
};

// Windows share a pass up to so many tokens; longer ones run in chunks through a state.
enum { EM_PERPLEXITY_PASS = 2048 };

struct em_perplexity_options {
    enum em_backend backend;
    struct em_pool *pool;
    bool bf16;
    size_t context; // tokens of a window
    uint64_t limit; // em_perplexity_domain: about so many tokens, spread evenly; 0: all
    // For those who look on, NULL for nobody: once the model is recorded, before memory is taken,
    // and after each pass, all of whose windows are whole where `context` is at most
    // EM_PERPLEXITY_PASS.
    ember_status (*recorded)(void *context, struct em_program *program);
    ember_status (*passed)(void *context, const struct em_program *program,
                           const ember_batch *batch);
    void *onlooker;
};

// Every token of a dataset's domain once, in windows of `context` places that start from an empty
// state: the first token of a window was the last target of the one before. A document's first
// token is scored where the tokenizer puts a BOS in front of it. EMBER_E_INTERRUPTED on request.
ember_status em_perplexity_domain(const struct em_model *m, const struct em_dataset *dataset,
                                  size_t domain, const struct em_perplexity_options *options,
                                  struct em_perplexity *out) EMBER_CHECKED;

// As llama.cpp's perplexity tool scores: windows of `context` tokens side by side, the first of
// each replaced by the BOS if the tokenizer has one in front; scored are the tokens of the second
// half, predictions from place context / 2 on; what does not fill a window is left out.
// EMBER_E_SHAPE: fewer than two windows. `bytes` is that of the scored tokens.
ember_status em_perplexity_llama(const struct em_model *m, const struct em_tokenizer *tokenizer,
                                 const int32_t *ids, size_t count, bool bos,
                                 const struct em_perplexity_options *options,
                                 struct em_perplexity *out) EMBER_CHECKED;

#endif
