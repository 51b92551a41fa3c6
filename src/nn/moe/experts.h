// The experts of a mixture, however rows come to them: alike ones as one layer with stacked
// parameters where their type allows it, others one by one.
#ifndef EM_NN_MOE_EXPERTS_H
#define EM_NN_MOE_EXPERTS_H

#include <ember/ops.h>

struct em_experts {
    size_t count;
    ember_layer *group;   // alike experts as one layer, or NULL
    ember_layer **single; // [count] otherwise
};

// `count` experts as `expert` says, or, not NULL, those of `list`, count of them.
ember_status em_experts_build(struct em_experts *experts, ember_build *build, size_t count,
                              const ember_config *expert, const ember_config *list) EMBER_CHECKED;

// rows: what they make of x, in the plan's order. `gather`: x [T, D] is routed by the plan;
// otherwise it is in the plan's order already. `routing` has to live as long as the program.
ember_status em_experts_run(const struct em_experts *experts, ember_flow *flow, ember_tensor *x,
                            bool gather, const ember_routing *routing,
                            ember_tensor **rows) EMBER_CHECKED;

#endif
