// Batches that a file fixes: `input_ids` [S, B, T] (I32 or I64), one slice a step, in order. For
// comparisons of training runs, and for data tokenised elsewhere.
#ifndef EM_DATA_IDS_H
#define EM_DATA_IDS_H

#include <stddef.h>
#include <stdint.h>

#include "data/packed.h"
#include "formats/safetensors.h"

struct em_ids_source {
    struct em_safetensors *file;
    const struct em_st_tensor *ids;
    size_t steps, batch, seq;
};

// Every id is checked to lie in [0, vocabulary). EMBER_E_FORMAT, EMBER_E_RANGE otherwise.
ember_status em_ids_open(const char *path, size_t vocabulary,
                         struct em_ids_source *out) EMBER_CHECKED;
void em_ids_close(struct em_ids_source *source);

// Rows [first, first + rows) of slice `step`: each is one sequence, its last token has no target
// (-100), as a shifted cross-entropy has it. Labels are 0. EMBER_E_RANGE past the last slice.
ember_status em_ids_fill(const struct em_ids_source *source, uint64_t step, size_t first,
                         size_t rows, struct em_packed *out) EMBER_CHECKED;

#endif
