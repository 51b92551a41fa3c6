// Exponential decay: the rate is multiplied by the same factor all along.
#include <math.h>

#include "train/optimizer.h"

struct exponential {
    double final;
};

static const ember_option options[] = {
    EMBER_OPT_DOUBLE(struct exponential, final, 0.01, 1e-9, 1,
                     "share of the learning rate at the end"),
    {0},
};

static double factor(const void *opaque, double progress)
{
    return pow(((const struct exponential *)opaque)->final, progress);
}

extern const struct em_schedule em_schedule_exponential;
const struct em_schedule em_schedule_exponential = {
    .name = "exponential",
    .help = "falls by the same factor all along",
    .options = options,
    .size = sizeof(struct exponential),
    .factor = factor,
};
