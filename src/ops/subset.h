// Subsets: calls that run for those sequences of the batch alone which a routing of sequences gives
// to one expert. To these calls the subset is the batch: packed sequences with states of their own.
#ifndef EM_OPS_SUBSET_H
#define EM_OPS_SUBSET_H

#include "ops/program_priv.h"

struct em_subset {
    const ember_tensor *plan; // of sequences: pairs of sequence and choice
    size_t n_experts, expert, k;
};

// Makes call c's subset (or the whole batch) what the program runs with. False: it has no
// sequences, and there is nothing to run.
bool em_subset_enter(struct em_program *p, const struct em_call *c);
void em_subset_leave(struct em_program *p); // the whole batch again
ember_status em_subset_allocate(struct em_program *p) EMBER_CHECKED;
void em_subset_free(struct em_program *p);

#endif
