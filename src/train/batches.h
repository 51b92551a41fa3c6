// Where a step's tokens come from: text that is sampled, or a file that fixes every batch.
#ifndef EM_TRAIN_BATCHES_H
#define EM_TRAIN_BATCHES_H

#include "data/augment.h"
#include "data/ids.h"
#include "data/sampler.h"
#include "data/tensors.h"
#include "models/model.h"
#include "train/recipe.h"

struct em_batches {
    bool text; // from `dataset`; else from `ids`
    struct em_dataset dataset;
    struct em_sampler *sampler;
    struct em_ids_source ids;
    struct em_tensor_source tensors;  // with a file: from this instead,
    struct em_tensor_source held_out; // and with a file: scored, never trained on
    size_t batch, seq;                // rows a step, tokens a row
    size_t seq_start, seq_stage;
    double reverse_share; // of sequences that are read as their other strand
    struct em_complement complement;
    uint64_t seed;
    uint64_t scored; // places of a step that have a target
    uint64_t slices; // steps that there are batches for; 0: as many as wanted
};

// Fills *b where it stays: it must not be moved. `cache`: folder for tokenised text, NULL: kept in
// memory. The recipe and the tokenizer are borrowed.
ember_status em_batches_open(const struct em_recipe *recipe, const struct em_tokenizer *tokenizer,
                             const struct em_model *model, const char *cache, bool tidy,
                             struct em_pool *pool, struct em_batches *b) EMBER_CHECKED;
// Places of a step that are scored.
uint64_t em_batches_scored(const struct em_batches *b, uint64_t step);
void em_batches_close(struct em_batches *b);

// Rows [first, first + rows) of a step.
ember_status em_batches_fill(const struct em_batches *b, uint64_t step, size_t first, size_t rows,
                             struct em_packed *out) EMBER_CHECKED;

// What the data are, for a run that goes on: another hash is other data.
uint64_t em_batches_hash(const struct em_batches *b);

// Sequences of a file that fit a model, and what is learnt of them.
ember_status em_model_tensors_open(const struct em_model *model, const char *path,
                                   struct em_tensor_source *out) EMBER_CHECKED;
enum em_head em_tensors_head(const struct em_tensor_source *source);

#endif
