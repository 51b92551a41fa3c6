// Inside of check_op(): shared by its comparisons (op_check.c) and what concerns states
// (op_states.c).
#ifndef EMBER_TESTS_OP_CHECK_PRIV_H
#define EMBER_TESTS_OP_CHECK_PRIV_H

#include "base/rng.h"
#include "support/op_check.h"

// What all programs of a case share: parameters, and a batch.
struct op_bench {
    const struct op_case *c;
    size_t n_in, rows;
    ember_tensor param[OP_INPUTS], grad[OP_INPUTS];
    size_t first[OP_INPUTS]; // OP_COLUMNS: where the columns begin
    struct em_rng rng;
    // of the batch
    ember_batch batch;
    size_t *offset, present; // rows of this run
    int32_t *tokens, *targets;
    float *inputs, *timespans;
};

// One program.
struct op_subject {
    struct em_program *program;
    ember_tensor *out[OP_OUTPUTS];
    double weighed; // the random linear function of the outputs
    bool in_region; // the operation is in a region that is recomputed
};

// A copy of a tensor's values.
struct op_values {
    size_t n;
    float *x;
};

// Outputs, then gradients.
struct op_result {
    struct op_values out[OP_OUTPUTS], grad[OP_INPUTS];
};

void *op_alloc(size_t count, size_t bytes);
struct op_values op_values_of(const ember_tensor *t);

// A pass forward over b->batch, in memory that held garbage.
void op_forward(struct op_bench *b, struct op_subject *s, bool training, bool gradients);
// Outputs, then gradients, of `passes` passes.
struct op_result op_run(struct op_bench *b, struct op_subject *s, unsigned passes);
void op_result_free(struct op_result *r);

// |found - factor expected| <= tolerance * the largest expected (at least `least`); bit-equal when
// tolerance is 0.
void op_compare(const struct op_values *found, const struct op_values *expected, double factor,
                double tolerance, double least, const struct op_case *c, const char *what,
                unsigned which, size_t rows, const char *who);
void op_compare_results(const struct op_bench *b, const struct op_result *found,
                        const struct op_result *expected, double tolerance, double least,
                        const char *who);
// Gradients of the reference over b->batch, r, equal differences of its outputs.
void op_check_differences(struct op_bench *b, struct op_subject *reference,
                          const struct op_result *r);

// Each sequence of b->batch by itself, in pieces of random length through its state, gives what the
// packed whole gave; states continue in place, into another one that holds something old, or are
// only read.
void op_check_pieces(struct op_bench *b, struct op_subject *s, const struct op_result *whole,
                     double tolerance);
// The same with the sequences packed: their heads in one batch, then what is left of them in
// another, some of them twice.
void op_check_forks(struct op_bench *b, struct op_subject *s, const struct op_result *whole,
                    double tolerance);
// Gradients of passes that start from a carried state.
void op_check_carried(struct op_bench *b, struct op_subject *inference,
                      struct op_subject *reference, struct op_subject *cpu,
                      struct op_subject *recomputed);

#endif
