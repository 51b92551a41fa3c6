// Checks of one operation, whatever it computes: say what goes in and how it is recorded, and
// check_op() holds the cpu backend against the reference, and the reference against differences.
#ifndef EMBER_TESTS_OP_CHECK_H
#define EMBER_TESTS_OP_CHECK_H

#include <stdbool.h>

#include "ops/program.h"
#include "support/check.h"

enum op_input_kind {
    OP_PARAMETER, // a tensor of dim
    OP_ROWS,      // an activation, each row of dim
    OP_COLUMNS    // the same, cut out of a wider tensor: its rows are strided
};

struct op_input {
    enum op_input_kind kind;
    size_t dim[4];
    unsigned ndim;   // 0 ends the list
    bool constant;   // no gradient is wanted
    float low, high; // values are uniform in [low, high); both 0: [-1, 1)
    float keep_off;  // and not within this distance of 0 (a kink)
    float apart;     // > 0: the values of a vector along the last dimension lie this far apart
};

enum { OP_INPUTS = 32, OP_OUTPUTS = 4 };

struct op_case;
// Calls the operation. out[] has OP_OUTPUTS places, all NULL before.
typedef ember_status op_record(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                               ember_tensor **out);

struct op_case {
    const char *name;
    struct op_input in[OP_INPUTS + 1];
    op_record *record;
    const void *context; // for record
    size_t rows;         // of OP_ROWS and OP_COLUMNS at most; 0: 5
    // The operation reads the batch, so rows are its tokens. Otherwise they are those of an expert,
    // and may be none at all.
    bool by_token;
    size_t sequences;  // at most; 0: 1
    size_t vocabulary; // of tokens and targets; 0: the batch has none
    size_t width;      // of the batch's inputs; 0: it has none
    bool timespans;    // the batch has them
    bool stateful;     // sequences are also fed in pieces, through states, and one by one
    bool loss;       // out[0] is the loss; otherwise a random linear function of all f32 outputs is
    bool evaluation; // gradients are taken of a pass that is not a training one
    bool random;     // a training pass is not like one for inference
    bool products;   // has matrix products: also checked in bf16, coarsely
    bool large;      // no differences: too slow
    double loss_scale; // 0: 0.75
    double
        tolerance; // of cpu against reference, of a tensor's largest value (at least 0.1); 0: 2e-5
    double difference_tolerance; // of the reference against differences, of the largest gradient;
                                 // 0: 1e-3
};

/*
 * With all rows, some, one and (unless by_token) none:
 *   outputs and gradients of cpu equal those of reference; in bf16 coarsely, with `products`;
 *   they are bit-equal with 1, 2 and 3 threads, and outputs in a program without gradients;
 *   so are gradients when the operation is in a region that is recomputed (nearly, for losses);
 *   gradients add up: a second pass doubles them.
 * With all rows, gradients of reference equal differences of its outputs, at random places.
 * With `stateful`, outputs in pieces and one by one equal those of the packed whole, on both
 * backends, however states are carried on; and gradients of passes that start from a state are
 * those of reference, equal differences, and are the same when recomputed. Before each pass the
 * program's memory is filled with NaN. Data follow `seed`.
 */
void check_op(const struct op_case *c, uint64_t seed);

// Recording fails with this status, and the message contains `text`.
void check_op_refused(const struct op_case *c, ember_status status, const char *text);

// How often tests with random sizes repeat: EMBER_TEST_ROUNDS, or `usual`.
size_t op_rounds(size_t usual);
// A size from 1 to most, often odd and often small; the same for the same state.
size_t op_size(uint64_t *state, size_t most);

// Runs the tests once for each instruction set of this machine, each in a process of its own as the
// set is chosen once; or for the one that EMBER_ISA names.
int op_run_tests(const char *name, const struct CMUnitTest *tests, size_t count);
#define OP_RUN_TESTS(name, tests) op_run_tests(name, tests, sizeof(tests) / sizeof(tests)[0])

#endif
