// Byte-pair merging: a table of merges, and one thread's work space to encode pieces with it.
#ifndef EM_TEXT_BPE_H
#define EM_TEXT_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fail.h"
#include "text/vocab.h"

// Ids, appended by encoders. Start from {0}; em_ids_deinit.
struct em_ids {
    int32_t *ids;
    size_t count, capacity;
};
void em_ids_deinit(struct em_ids *ids);
ember_status em_ids_reserve(struct em_ids *ids, size_t more) EMBER_CHECKED;
ember_status em_ids_push(struct em_ids *ids, int32_t id) EMBER_CHECKED;

struct em_merge {
    int32_t left, right, merged;
};

struct em_bpe {
    struct em_merge *merges; // by rank
    size_t merge_count, merge_capacity;
    struct em_merge_slot *table;
    size_t table_mask;
    int32_t byte_id[256]; // the token of every byte, -1: none
    int32_t unknown;      // stands for a byte without a token; -1: such bytes are dropped
    bool fuse_unknown;    // several in a row are one
    bool ignore_merges;   // a piece that is a token as a whole is that token
};

void em_bpe_init(struct em_bpe *bpe);
void em_bpe_deinit(struct em_bpe *bpe);
// A merge of the next rank. A pair given twice has its last rank.
ember_status em_bpe_add_merge(struct em_bpe *bpe, struct em_merge merge) EMBER_CHECKED;
// After the last merge, before the first piece: the lookup table and the bytes' ids.
ember_status em_bpe_finish(struct em_bpe *bpe, const struct em_vocab *vocab) EMBER_CHECKED;

// One thread's work space: buffers that grow to the longest piece, and a cache of short pieces.
struct em_bpe_work;
ember_status em_bpe_work_create(struct em_bpe_work **work) EMBER_CHECKED;
void em_bpe_work_destroy(struct em_bpe_work *work);

// Appends the ids of one piece: the lowest-ranked pair is merged, the leftmost first, until none is
// left. EMBER_E_RANGE: longer than 1 GiB.
ember_status em_bpe_encode(const struct em_bpe *bpe, const struct em_vocab *vocab,
                           struct em_bpe_work *work, const uint8_t *piece, size_t n,
                           struct em_ids *ids) EMBER_CHECKED;

#endif
