// The dispatch plan of an MoE layer: a fixed-size i32 tensor [E + 1 + 2 T K].
//   offset[e]  first row of expert e in the sorted order; offset[E] rows in all: T K, or fewer
//              where pairs go nowhere
//   order[r]   the (token, choice) pair of row r, as token * K + choice; ascending within an expert
//   place[p]   the row of pair p: order[place[p]] = p; -1: it goes nowhere
#ifndef EM_OPS_MOE_PLAN_H
#define EM_OPS_MOE_PLAN_H

#include "ops/op.h"

static inline size_t em_plan_size(size_t n_experts, size_t max_pairs)
{
    return n_experts + 1 + 2 * max_pairs;
}
static inline int32_t *em_plan_offset(const ember_tensor *plan)
{
    return em_i32(plan);
}
static inline int32_t *em_plan_order(const ember_tensor *plan, size_t n_experts)
{
    return em_i32(plan) + n_experts + 1;
}
static inline int32_t *em_plan_place(const ember_tensor *plan, size_t n_experts)
{
    return em_i32(plan) + n_experts + 1 + (plan->dim[0] - n_experts - 1) / 2;
}

// How many pairs a plan has room for; one that is none of n_experts fails em_check_plan().
static inline size_t em_plan_pairs(const ember_tensor *plan, size_t n_experts)
{
    return plan->dim[0] > n_experts ? (plan->dim[0] - n_experts - 1) / 2 : 0;
}

// Fails unless `plan` is one of n_experts with room for this many pairs.
ember_status em_check_plan(const struct em_call *c, const ember_tensor *plan, size_t n_experts,
                           size_t pairs) EMBER_CHECKED;
// Fails unless `rows` are those of this plan, in its order.
ember_status em_check_plan_rows(const struct em_call *c, const ember_tensor *plan, size_t n_experts,
                                const ember_tensor *rows) EMBER_CHECKED;

// The most rows that a routing of these tokens can have.
static inline size_t em_routing_limit(const ember_routing *routing, size_t tokens)
{
    const size_t pairs = tokens * routing->k;
    return routing->max_rows && routing->max_rows < pairs ? routing->max_rows : pairs;
}

#endif
