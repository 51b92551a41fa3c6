// Training of a byte-level BPE tokenizer with LFM2's split pattern and special tokens.
#ifndef EM_TEXT_BPE_TRAIN_H
#define EM_TEXT_BPE_TRAIN_H

#include <stddef.h>
#include <stdint.h>

#include "base/fail.h"
#include "base/threads.h"
#include "text/tokenizer.h"
#include "text/word_counts.h"

// Hands out text, one document after the other: *text is borrowed until the next call, NULL at the
// end. A document is cut on its own: no token reaches from one into the next.
struct em_text_source {
    ember_status (*next)(void *context, const char **text, size_t *n);
    void *context;
};

struct em_bpe_train_options {
    size_t vocab;           // tokens in all, 259 to 2^24; 0: 8192
    uint64_t min_frequency; // a pair is merged when it occurs so often; 0: 2
    struct em_pool *pool;   // counts in parallel; NULL: on the caller's thread
};

// Ids: <|pad|> 0, <|startoftext|> 1, <|endoftext|> 2, the 256 bytes (in the order of their
// characters in the byte-level alphabet, as Hugging Face's trainer has them), then merges, the most
// frequent pair first, of equally frequent ones that with the lowest ids. The result depends on the
// documents alone, neither on their order nor on threads. Text that yields fewer merges than asked
// for gives a smaller vocabulary and a line in the log.
ember_status em_bpe_train(const struct em_bpe_train_options *options, struct em_text_source source,
                          struct em_tokenizer **tokenizer) EMBER_CHECKED;

// The counting half: adds the pieces of all documents to `words`.
ember_status em_count_words(const struct em_split *split, struct em_text_source source,
                            struct em_pool *pool, struct em_words *words) EMBER_CHECKED;

// The merging half: appends merges to the tokenizer until its vocabulary has `vocab` tokens or no
// pair occurs `min_frequency` times.
ember_status em_learn_merges(struct em_tokenizer *t, const struct em_words *words, size_t vocab,
                             uint64_t min_frequency) EMBER_CHECKED;

#endif
