// The same learning rate throughout.
#include "train/optimizer.h"

static const ember_option options[] = {{0}};

static double factor(const void *opaque, double progress)
{
    (void)opaque;
    (void)progress;
    return 1;
}

extern const struct em_schedule em_schedule_constant;
const struct em_schedule em_schedule_constant = {
    .name = "constant",
    .help = "the same learning rate after the warm-up",
    .options = options,
    .size = 1,
    .factor = factor,
};
