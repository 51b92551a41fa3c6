// Linear attention: what its cpu and reference halves share.
#ifndef EM_OPS_LINEAR_ATTENTION_H
#define EM_OPS_LINEAR_ATTENTION_H

#include "ops/rows.h"

enum { EM_LINEAR_Q, EM_LINEAR_K, EM_LINEAR_V, EM_LINEAR_GATE, EM_LINEAR_INPUTS };
enum { EM_LINEAR_CHUNK = 64 }; // tokens

struct em_linear_attention {
    ember_linear_attention_options o;
    size_t H, G, K, V;
    size_t V1; // V, and a column of ones for the denominator where there is one
};

// Whether the state fades, and by which factor's logarithm at a step: a head's own, or by the gate.
static inline bool em_linear_decays(const struct em_call *c, const struct em_linear_attention *a)
{
    return c->in[EM_LINEAR_GATE] || a->o.decay_first > 0;
}
double em_linear_log_decay(const struct em_linear_attention *a, size_t g);
// log(sigmoid(x)), and its derivative.
double em_log_sigmoid(double x);
double em_log_sigmoid_slope(double x);

// Doubles that the reference takes from the scratch, SIZE_MAX where they do not fit.
ember_status em_linear_reference_scratch(const struct em_call *c,
                                         const struct em_linear_attention *a,
                                         size_t *bytes) EMBER_CHECKED;
void em_linear_attention_forward(const struct em_call *c);
void em_linear_attention_backward(const struct em_call *c);
ember_status em_linear_attention_scratch(const struct em_call *c,
                                         const struct em_linear_attention *a,
                                         size_t *bytes) EMBER_CHECKED;
void em_linear_attention_reference(const struct em_call *c);
void em_linear_attention_reference_backward(const struct em_call *c);

#endif
