// What training does with routers beside their gradients: counting who goes where, and moving
// selection biases.
#ifndef EM_TRAIN_ROUTERS_H
#define EM_TRAIN_ROUTERS_H

#include "ops/program.h"

// What a router did in a step, or over several.
struct em_router_figures {
    uint64_t *load;   // [E] slots
    double *observed; // [E] sums weighted by tokens of what thresholds should be; NULL: not kept
    uint64_t slots, tokens, dropped;
    double aux, z, token_entropy, marginal_entropy; // sums weighted by tokens; unscaled
};

void em_router_figures_reset(struct em_router_figures *f, size_t experts);
// Adds what a router did in the program's last forward pass.
void em_router_figures_add(struct em_router_figures *f, const struct em_router_record *r,
                           uint64_t tokens);
double em_max_violation(const struct em_router_figures *f, size_t experts); // E max f - 1

// Moves selection biases towards balance by the loads of the last step: b += rate sign(mean load -
// load). A bias that several layers share sees the sum of their loads. Wang et al. 2024,
// "Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts", arXiv:2408.15664.
// And what else routers have that no gradient moves: thresholds follow what was observed, with a
// moving mean, and the coefficient of sparsity grows or shrinks by a fifth until the target is met
// (arXiv:2412.14711).
void em_update_routers(const struct em_router_record *record,
                       const struct em_router_figures *figures, size_t count);

#endif
