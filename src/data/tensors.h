// Training on sequences from a file: `inputs` [S, B, T, I] (f32), or `input_ids` [S, B, T] (I32 or
// I64) for models that read tokens; one slice a step, over and over; `timespans` [S, B, T] (> 0; 1
// where absent); `lengths` [S, B] (I32 or I64, 1 to T; T where absent); `mask` [S, B, T] (I32 or
// I64: 0 where nothing was observed: the place is left out, and its time is added to the next one's
// span, so that states go on over it); and what is to be learnt:
// `targets`, what outputs are to be (f32; squared errors), or `labels`, the class that an output is
// to tell (I32 or I64; -100 where none is scored): [S, B, M] and [S, B] those of a sequence, pooled
// or at its last place; [S, B, T, M] and [S, B, T] those of places.
#ifndef EM_DATA_TENSORS_H
#define EM_DATA_TENSORS_H

#include "data/packed.h"
#include "formats/safetensors.h"

struct em_tensor_source {
    struct em_safetensors *file;
    const struct em_st_tensor *inputs, *ids, *timespans, *lengths, *mask, *targets, *labels;
    size_t slices, batch, seq, width, made; // made: M, or the classes that there are
};

// What a model reads and makes: tokens, or vectors of so many columns.
struct em_tensor_columns {
    size_t vocabulary, in, out; // vocabulary 0: `in` columns; out: columns, or classes
    bool language_model;        // they are logits of tokens, which have no targets but labels
};
// Checked against them.
ember_status em_tensors_open(const char *path, const struct em_tensor_columns *columns,
                             struct em_tensor_source *out) EMBER_CHECKED;
// Whether labels or targets are those of places.
static inline bool em_tensors_of_places(const struct em_tensor_source *s)
{
    return s->labels ? s->labels->rank == 3 : s->targets->rank == 4;
}
void em_tensors_close(struct em_tensor_source *source);

// Rows [first, first + rows) of slice `step` modulo the slices: a sequence each. batch.targets are
// labels where there are some and -100 elsewhere, or 0 everywhere beside `values`.
ember_status em_tensors_fill(const struct em_tensor_source *source, uint64_t step, size_t first,
                             size_t rows, struct em_packed *out) EMBER_CHECKED;
// Places of a slice that are scored.
uint64_t em_tensors_scored(const struct em_tensor_source *source, uint64_t step);
uint64_t em_tensors_hash(const struct em_tensor_source *source);

#endif
