// Operations that only tests need: where activations come from, and a loss that every output feels.
#ifndef EMBER_TESTS_OP_FIXTURE_H
#define EMBER_TESTS_OP_FIXTURE_H

#include "ops/program.h"

// A dispatch plan of one expert with *present rows, read when the program runs.
ember_status fixture_plan(ember_flow *flow, const size_t *present,
                          ember_tensor **plan) EMBER_CHECKED;

// An activation: the first rows of a parameter [max rows, ..], as many as the batch has tokens, or
// as `plan` (not NULL) says. Its gradient is added to the parameter's.
ember_status fixture_source(ember_flow *flow, ember_tensor *parameter, ember_tensor *plan,
                            ember_tensor **x) EMBER_CHECKED;

// A routing of `like`'s rows: each goes to k different experts of the first `used`, at random; with
// its dispatch.
ember_status fixture_routing(ember_flow *flow, ember_tensor *like, size_t n_experts, size_t used,
                             size_t k, ember_tensor *weights, ember_routing *routing) EMBER_CHECKED;

// The same, but every third choice or so goes nowhere.
ember_status fixture_dropping_routing(ember_flow *flow, ember_tensor *like, size_t n_experts,
                                      size_t used, size_t k, ember_tensor *weights,
                                      ember_routing *routing) EMBER_CHECKED;

// The rows of x [T, k M], cut into k rows each.
ember_status fixture_spread(ember_flow *flow, ember_tensor *x, size_t k,
                            ember_tensor **y) EMBER_CHECKED;

// loss [1]: a linear function of n contiguous f32 tensors (NULL: absent) with random weights in
// [-1, 1). Each forward also puts it into *sum, not rounded to f32.
ember_status fixture_weigh(ember_flow *flow, ember_tensor *const *x, unsigned n, double *sum,
                           ember_tensor **loss) EMBER_CHECKED;

#endif
