// How often each piece of a text occurs: what byte-pair training looks at.
#ifndef EM_TEXT_WORD_COUNTS_H
#define EM_TEXT_WORD_COUNTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/fail.h"
#include "text/split.h"

struct em_word {
    uint64_t count, hash;
    size_t offset; // its bytes, in the pool
    uint32_t size;
};

struct em_words {
    struct em_word *words;
    size_t count, capacity;
    struct em_buf pool;
    uint32_t *table; // open addressing, place + 1; 0: free
    size_t table_mask;
};

void em_words_init(struct em_words *w);
void em_words_deinit(struct em_words *w);
ember_status em_words_add(struct em_words *w, const void *bytes, size_t n,
                          uint64_t count) EMBER_CHECKED;

// Cuts n bytes of valid UTF-8 by the split and counts the pieces.
ember_status em_words_count(struct em_words *w, const struct em_split *split, const uint8_t *text,
                            size_t n) EMBER_CHECKED;

// Adds all counts of `from`.
ember_status em_words_join(struct em_words *w, const struct em_words *from) EMBER_CHECKED;

#endif
