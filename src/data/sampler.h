// Which tokens a step trains on. Nothing is kept from step to step: the batch of step s is a
// function of the data, the seed and s, so a resumed run is where it was at once.
//
// A domain's training documents, in an order shuffled by the seed, make one stream (a ring). Epoch
// e of it is cut into rows of `seq` places from a phase of its own, and the rows come in an order
// of its own; the fewer than `seq` places left over differ from epoch to epoch. Rows of the domains
// are mixed in exact shares. A row is whole: it is never padded, and every piece of a document in
// it is a sequence of its own, starting from a fresh state.
#ifndef EM_DATA_SAMPLER_H
#define EM_DATA_SAMPLER_H

#include "data/dataset.h"
#include "data/packed.h"

struct em_sampler_options {
    size_t batch, seq; // rows a step, places a row
    uint64_t seed;
};

struct em_sampler;

// The dataset is borrowed. EMBER_E_FORMAT: nothing to train on. EMBER_E_RANGE: batch or seq is 0 or
// too large.
ember_status em_sampler_create(const struct em_dataset *dataset,
                               const struct em_sampler_options *options,
                               struct em_sampler **out) EMBER_CHECKED;
void em_sampler_destroy(struct em_sampler *sampler); // NULL is fine

// Rows [first, first + rows) of step `step` (0: the first): rows * seq tokens. A step in several
// pieces gives the same rows as in one.
ember_status em_sampler_fill(const struct em_sampler *sampler, uint64_t step, size_t first,
                             size_t rows, struct em_packed *out) EMBER_CHECKED;

// How often the tokens of a domain have been seen after `steps` steps.
double em_sampler_epochs(const struct em_sampler *sampler, size_t domain, uint64_t steps);

#endif
