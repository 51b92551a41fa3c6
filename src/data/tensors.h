// Training on float sequences from a file: `inputs` [S, B, T, I] (f32), one slice a step, over and
// over; `timespans` [S, B, T] (> 0; 1 where absent); `lengths` [S, B] (I32 or I64, 1 to T; T where
// absent); and what is to be learnt: `targets` [S, B, T, M] (squared errors at every place), or
// `labels` [S, B] (I32 or I64: the class that the one output of a sequence, pooled or at its last
// place, is to tell).
#ifndef EM_DATA_TENSORS_H
#define EM_DATA_TENSORS_H

#include "data/packed.h"
#include "formats/safetensors.h"

struct em_tensor_source {
    struct em_safetensors *file;
    const struct em_st_tensor *inputs, *timespans, *lengths, *targets, *labels;
    size_t slices, batch, seq, width, made; // made: M, or the classes that there are
};

// Checked against a model of `width` columns in and `made` out.
ember_status em_tensors_open(const char *path, size_t width, size_t made,
                             struct em_tensor_source *out) EMBER_CHECKED;
void em_tensors_close(struct em_tensor_source *source);

// Rows [first, first + rows) of slice `step` modulo the slices: a sequence each. batch.targets are
// labels at last places and -100 elsewhere, or 0 everywhere beside `values`.
ember_status em_tensors_fill(const struct em_tensor_source *source, uint64_t step, size_t first,
                             size_t rows, struct em_packed *out) EMBER_CHECKED;
// Places of a slice that are scored.
uint64_t em_tensors_scored(const struct em_tensor_source *source, uint64_t step);
uint64_t em_tensors_hash(const struct em_tensor_source *source);

#endif
