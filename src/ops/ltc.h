// The two halves of the operation ltc: on lanes (ltc.c), and its reference (ltc_reference.c).
#ifndef EM_OPS_LTC_H
#define EM_OPS_LTC_H

#include <math.h>

#include "ops/recurrent.h"

enum {
    LTC_X,
    LTC_CM,
    LTC_GLEAK,
    LTC_VLEAK,
    LTC_SIGMA,
    LTC_MU,
    LTC_W,
    LTC_EREV,
    LTC_MASK,
    LTC_SENSORY_SIGMA,
    LTC_SENSORY_MU,
    LTC_SENSORY_W,
    LTC_SENSORY_EREV,
    LTC_SENSORY_MASK,
    LTC_INPUT_W,
    LTC_INPUT_B,
    LTC_MEMORY,
    LTC_INPUTS = LTC_MEMORY + 3
};

// Within a list of synapses, from its sigma on.
enum { LTC_LIST_SIGMA, LTC_LIST_MU, LTC_LIST_W, LTC_LIST_EREV, LTC_LIST_MASK };

struct em_ltc_attr {
    struct em_recurrent_attr base;
    unsigned unfolds;
    float epsilon;
    size_t outputs;
    bool implicit_constraints;
};

// Doubles: v of every unfold, denominators, gradients of numerators and denominators of the inputs
// and of an unfold, of v; the gradient of c; what the
// senses feel, and its gradient.
static inline size_t em_ltc_reference_work(size_t I, size_t U, size_t unfolds)
{
    return (2 * unfolds + 1) * U + 6 * U + 2 * I;
}
void em_ltc_reference(const struct em_reference_step *s);
void em_ltc_reference_back(const struct em_reference_step *s);

#endif
