// What training does with routers beside their gradients: counting who goes where, and moving
// selection biases.
#ifndef EM_TRAIN_ROUTERS_H
#define EM_TRAIN_ROUTERS_H

#include "ops/program.h"

// What a router did in a step, or over several.
struct em_router_figures {
    uint64_t *load; // [E] slots
    uint64_t slots, tokens;
    uint64_t dropped;                               // choices that went to no expert
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
void em_update_selection_bias(const struct em_router_record *record,
                              const struct em_router_figures *figures, size_t count);

#endif
