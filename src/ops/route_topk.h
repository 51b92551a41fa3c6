// Top-k routing, as both of its backends see it.
#ifndef EM_OPS_ROUTE_TOPK_H
#define EM_OPS_ROUTE_TOPK_H

#include "ops/rows.h"

enum { EM_ROUTE_LOGITS, EM_ROUTE_BIAS, EM_ROUTE_INPUTS };
enum { EM_ROUTE_WEIGHTS, EM_ROUTE_INDICES, EM_ROUTE_STATS };

static inline const ember_topk_options *em_route_options(const struct em_call *c)
{
    return em_attr_const(c, ember_topk_options);
}

static inline double em_route_scale(const struct em_call *c)
{
    const float scale = em_route_options(c)->scale;
    return scale != 0 ? (double)scale : 1;
}

// Weights are divided by their sum.
static inline bool em_route_renormalises(const ember_topk_options *o)
{
    return o->score == EMBER_SCORE_SOFTMAX_SELECTED || o->renormalise;
}

// That sum: scores so small that it vanishes give no weight, rather than no number.
static inline double em_route_divisor(const ember_topk_options *o, double sum)
{
    const double z = sum + (o->score == EMBER_SCORE_SOFTMAX_SELECTED ? 0 : (double)o->eps);
    return z > 0x1p-126 ? z : 0x1p-126;
}

// From what was added up over the batch: P [E] mean normalised scores times T, f [E] choices, z the
// squares of logsumexp, the entropies of the tokens. Fills the statistics and what backward needs.
void em_route_finish(const struct em_call *c, const double *P, const double *f, double z,
                     double entropy);

void em_route_reference_forward(const struct em_call *c);
void em_route_reference_backward(const struct em_call *c);

#endif
