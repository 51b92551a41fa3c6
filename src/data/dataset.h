// Domains of text, tokenised, with a share held out that is never trained on.
//
// A document of tokens d[0..n) (see data/cache.h) gives n - 1 places: input d[i], target d[i + 1].
// Every place has a target, so nothing has to be masked: the last one predicts EOS where the
// tokenizer has one.
//
// Held out are whole documents, chosen by a hash of their text, where a domain has at least 50
// documents: a copy of a held-out document is then held out too, in whatever domain it is, and
// documents added later change no other's side. A domain with fewer gives the end of each of its
// documents. The choice depends on the text alone, never on a seed, so that runs can be compared.
#ifndef EM_DATA_DATASET_H
#define EM_DATA_DATASET_H

#include "data/cache.h"

// What a recipe or a command line names. Start from {0}.
struct em_source {
    const char *path; // a file, a folder or a glob
    const char
        *name; // of the domain; NULL: the path's last component, with "-2", "-3", ... when taken
    double weight; // share of the tokens drawn, relative to the other sources; 0: not given
    struct em_document_options options;
};

struct em_dataset_options {
    const struct em_tokenizer *tokenizer; // outlives the dataset
    const char *cache;                    // folder for token caches; NULL: kept in memory
    bool tidy;       // the folder is this run's own: caches of other texts are removed
    double held_out; // share of the tokens; 0: 2 %; negative: none; >= 1: everything (evaluation)
    bool no_eos;
    struct em_pool *pool;
};

// A piece of a document: inputs d[begin..end), targets d[begin + 1..end]; places in the cache.
struct em_span {
    uint64_t begin, end;
    double byte_scale; // of a held-out span: raw bytes for each byte of its tokens (1 unless the
                       // tokenizer changes the text)
};

struct em_domain {
    char *name;
    double weight;
    struct em_cache cache;
    struct em_span *train, *held_out; // in the order of the text
    size_t train_count, held_out_count;
    uint64_t train_tokens, held_out_tokens; // places
    double held_out_bytes;                  // raw bytes that the held-out targets stand for
};

struct em_dataset {
    const struct em_tokenizer *tokenizer;
    struct em_domain *domains;
    size_t count;
    uint16_t *token_bytes; // [V]: bytes of each token, 0 for special ones
};

// EMBER_E_FORMAT: a source without a document that can be trained on, or as the readers say.
// EMBER_E_CONFIG: two sources given the same name, a weight that is negative or not finite. What
// was dropped or passed over is told in a line per domain.
ember_status em_dataset_open(const struct em_source *sources, size_t count,
                             const struct em_dataset_options *options,
                             struct em_dataset *out) EMBER_CHECKED;
void em_dataset_close(struct em_dataset *dataset);

// The names that the domains of these sources get: owned, as many as sources; em_names_free.
ember_status em_domain_names(const struct em_source *sources, size_t count,
                             char ***out) EMBER_CHECKED;

uint64_t em_dataset_train_tokens(const struct em_dataset *dataset);
uint64_t em_dataset_held_out_tokens(const struct em_dataset *dataset);

// The hash of all that a run's data order depends on but the seed: domains' texts and weights, the
// held-out share. A resumed run compares it.
uint64_t em_dataset_hash(const struct em_dataset *dataset);

#endif
