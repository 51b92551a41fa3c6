// What the experts of a layer make of the same inputs. A mixture's inputs are collected while text
// is scored; each expert then runs alone over all of them, whoever they went to.
#ifndef EM_REPORT_EXPERT_PROBE_H
#define EM_REPORT_EXPERT_PROBE_H

#include "models/model.h"

enum { EM_PROBE_ROWS = 256 }; // inputs of a layer that are kept

struct em_probed_layer;

struct em_expert_probe {
    const struct em_model *model;
    size_t count; // of routers, in a program's order
    struct em_probed_layer *layer;
    uint64_t every, seen; // one token of so many is kept; tokens so far
};

// For programs that the model is recorded on, with so many routers; `tokens` are to be seen in all.
ember_status em_expert_probe_open(const struct em_model *model, size_t routers, uint64_t tokens,
                                  struct em_expert_probe *out) EMBER_CHECKED;
void em_expert_probe_close(struct em_expert_probe *p); // {0} is fine

// A program is recorded: what its routers read will be kept readable.
void em_expert_probe_attach(struct em_expert_probe *p, struct em_program *program);
// After a forward pass of it over so many tokens.
void em_expert_probe_collect(struct em_expert_probe *p, size_t tokens);

// Compares layer i's experts: cosines of the weights and CKA of the outputs, both [E][E].
// *known: which of the two could be compared. Experts of unlike shapes have no cosine; inputs that
// could not be collected leave no CKA.
struct em_compared {
    bool weights, outputs;
};
ember_status em_expert_probe_compare(const struct em_expert_probe *p, size_t i, size_t E,
                                     struct em_pool *pool, double *cosine, double *cka,
                                     struct em_compared *known) EMBER_CHECKED;

#endif
