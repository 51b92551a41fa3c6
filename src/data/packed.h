// A batch and the memory that it points into.
#ifndef EM_DATA_PACKED_H
#define EM_DATA_PACKED_H

#include <ember/batch.h>

#include "base/fail.h"

struct em_packed {
    ember_batch batch; // tokens, targets, offset, labels (the domain) are set; the rest is NULL
    size_t capacity;   // tokens
    size_t *offset;
    int32_t *tokens, *targets, *labels;
    // of models that read vectors, [T, I], [T], and what is to be learnt [T, M]; NULL: none
    float *inputs, *timespans, *values;
    size_t vectors; // places that these have room for
    double *bytes;  // [S]: raw bytes that each sequence's targets stand for, for bits per byte
};

// Empties it and makes room for `tokens` tokens, in as many sequences at most.
ember_status em_packed_reserve(struct em_packed *p, size_t tokens) EMBER_CHECKED;
// And for vectors of I and M columns at each place (always the same ones), after em_packed_reserve.
ember_status em_packed_reserve_vectors(struct em_packed *p, size_t I, size_t M) EMBER_CHECKED;
void em_packed_deinit(struct em_packed *p);

// The sum of `bytes`.
double em_packed_bytes(const struct em_packed *p);

#endif
