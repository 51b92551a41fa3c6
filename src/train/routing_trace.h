// How far the routers had settled: what they choose for the same held-out tokens is kept at every
// evaluation of a run, and held against the last one's.
#ifndef EM_TRAIN_ROUTING_TRACE_H
#define EM_TRAIN_ROUTING_TRACE_H

#include "train/step.h"

struct em_routing_moment;

// Of the evaluations since the run was begun, or resumed. Start from {0}.
struct em_routing_trace {
    struct em_routing_moment *moment; // [count]
    size_t count, capacity;
    size_t domains, routers;
    size_t *begin; // [routers + 1] where a router's choices begin in a moment's
};

enum { EM_TRACE_TOKENS = 256 }; // of each domain, the first that are scored

// Before an evaluation after so many steps. Steps that were traced before are traced anew.
ember_status em_routing_trace_begin(struct em_routing_trace *t, const struct em_stepper *s,
                                    size_t domains, uint64_t step) EMBER_CHECKED;
// After a pass of it. Only the first of each domain is looked at.
void em_routing_trace_add(struct em_routing_trace *t, const struct em_stepper *s, size_t domain);
void em_routing_trace_close(struct em_routing_trace *t);

uint64_t em_routing_trace_step(const struct em_routing_trace *t, size_t moment);
// The share of the last moment's choices of a router that were chosen at `moment` as well; NAN:
// its rows are not tokens.
double em_routing_trace_agreement(const struct em_routing_trace *t, size_t router, size_t moment);

#endif
