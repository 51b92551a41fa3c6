// Optimizers: how a gradient changes a parameter. One file each, a line in train/list.def.
#ifndef EM_TRAIN_OPTIMIZER_H
#define EM_TRAIN_OPTIMIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "registry/registry.h"

enum { EM_MOMENTS = 2 };

// A block of one parameter's values. Blocks are updated in any order, by any thread.
struct em_update {
    float *value;
    const float *gradient;
    float *moment[EM_MOMENTS]; // zero before the first step; NULL where the optimizer has fewer
    size_t count;
    double lr;           // of this parameter
    bool decay;          // weight decay applies to it
    double weight_decay; // and so much; below 0: what the optimizer's options say
};
// What an update has to use, of an optimizer whose options say `own`.
static inline double em_update_decay(const struct em_update *u, double own)
{
    return !u->decay ? 0 : u->weight_decay >= 0 ? u->weight_decay : own;
}

struct em_update_step {
    uint64_t number; // of the step: 1, 2, ...
    double lr;
    double gradient_scale; // the gradient is multiplied by it (clipping)
    double share;          // of the peak that `lr` is, for parameters with a peak of their own
};

struct em_optimizer {
    const char *name, *help;
    const ember_option *options;
    size_t size;    // of the options' struct
    size_t moments; // floats kept for each value, at most EM_MOMENTS
    // Returns 0, or NaN where a value or moment is not finite afterwards: nobody looks at them
    // again.
    float (*update)(const void *options, const struct em_update_step *step,
                    const struct em_update *u);
};

// A schedule: what share of the learning rate a step uses once the warm-up is over.
struct em_schedule {
    const char *name, *help;
    const ember_option *options;
    size_t size;
    double (*factor)(const void *options, double progress); // progress in [0, 1]
};

// The learning rate of step `step` (0: the first) of `steps`: it rises in a line to `peak`, which
// the last of `warmup` steps reaches, then follows the schedule.
double em_learning_rate(const struct em_schedule *schedule, const void *options, double peak,
                        uint64_t step, uint64_t steps, uint64_t warmup);

// Registers the components of this room. Once.
ember_status em_train_register(void) EMBER_CHECKED;

#endif
