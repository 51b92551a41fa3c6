// Watches routers while they are trained, and warns as soon as one goes wrong: an expert that is
// dying, one that takes too much, or a router that learns nothing.
#ifndef EM_TRAIN_ROUTER_WATCH_H
#define EM_TRAIN_ROUTER_WATCH_H

#include "base/json.h"
#include "train/step.h"

struct em_watched_router;

struct em_router_watch {
    struct em_watched_router *router; // [count]
    size_t count;
    json_t *warnings; // since they were last taken; NULL: none
};

ember_status em_router_watch_open(const struct em_stepper *s,
                                  struct em_router_watch *w) EMBER_CHECKED;
void em_router_watch_close(struct em_router_watch *w); // {0} is fine

// After a step: `progress` is the share of the training that is done. Loads are running means over
// about 20 steps, and nothing is said before there are as many. What is said is said once, and
// again where it went well in between. `gradients`: looks at these as well, which takes a walk over
// the routers' and experts'.
ember_status em_router_watch_step(struct em_router_watch *w, const struct em_stepper *s,
                                  uint64_t step, double progress, bool gradients) EMBER_CHECKED;

// The warnings since the last call, a list of {"layer", "expert" (of a dead one), "text"}: the
// caller's; NULL: none.
json_t *em_router_watch_take(struct em_router_watch *w);

#endif
