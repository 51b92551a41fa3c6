// Top-k routing, as both of its backends see it.
#ifndef EM_OPS_ROUTE_TOPK_H
#define EM_OPS_ROUTE_TOPK_H

#include <math.h>

#include "ops/rows.h"

enum { EM_ROUTE_LOGITS, EM_ROUTE_BIAS, EM_ROUTE_CHOICE, EM_ROUTE_INPUTS };
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

// Choices of a token: the most that there can be, and those that it has now.
static inline size_t em_route_width(const struct em_call *c)
{
    const ember_topk_options *o = em_route_options(c);
    return o->k_steps && o->k_first > o->k ? o->k_first : o->k;
}
static inline size_t em_route_k(const struct em_call *c)
{
    const ember_topk_options *o = em_route_options(c);
    const uint64_t update = c->exec->update;
    if (!c->exec->training || update >= o->k_steps) return o->k;
    const double way = ((double)o->k - (double)o->k_first) * (double)update / (double)o->k_steps;
    return (size_t)(llround((double)o->k_first + way));
}
static inline size_t em_route_chosen(const int32_t *chosen, size_t width)
{
    size_t n = 0;
    while (n < width && chosen[n] >= 0)
        n++;
    return n;
}

// Scores that do not depend on the other experts' logits.
static inline bool em_score_is_single(ember_score score)
{
    return score == EMBER_SCORE_SIGMOID || score == EMBER_SCORE_SQRT_SOFTPLUS;
}
// ds/dh of such a score: log(1 + e^h) is s^2 for the root of softplus.
static inline double em_score_slope(ember_score score, double s)
{
    if (score == EMBER_SCORE_SIGMOID) return s * (1 - s);
    return s > 0 ? -expm1(-s * s) / (2 * s) : 0;
}
// What the choice is by: `choice` where there is one and it counts.
static inline const float *em_route_choice(const struct em_call *c, size_t t)
{
    return c->in[EM_ROUTE_CHOICE] ? em_row(c->in[EM_ROUTE_CHOICE], t) : NULL;
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

// Records the operation, without the dispatch that makes routing->plan: routers may have more to do
// before it. Fills *record but for its routing and layer.
ember_status em_route_topk(ember_flow *flow, ember_tensor *const in[EM_ROUTE_INPUTS],
                           const ember_topk_options *options, ember_routing *routing,
                           struct em_router_record *record) EMBER_CHECKED;

// As ember_capacity(); dropped [1] f32 counts the choices that went nowhere.
ember_status em_capacity(ember_flow *flow, float factor, bool by_weight, ember_routing *routing,
                         ember_tensor **dropped) EMBER_CHECKED;

void em_route_reference_forward(const struct em_call *c);
void em_route_reference_backward(const struct em_call *c);

#endif
