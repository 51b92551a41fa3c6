// Half a cosine from the peak to a floor. Loshchilov and Hutter 2016, arXiv:1608.03983, without
// restarts.
#include <math.h>

#include "train/optimizer.h"

struct cosine {
    double min_lr_ratio;
};

static const ember_option options[] = {
    EMBER_OPT_DOUBLE(struct cosine, min_lr_ratio, 0.1, 0, 1, "share of the rate at the end"),
    {0},
};

static double factor(const void *opaque, double progress)
{
    const double floor_ratio = ((const struct cosine *)opaque)->min_lr_ratio;
    return floor_ratio + (1 - floor_ratio) * 0.5 * (1 + cos(3.14159265358979323846 * progress));
}

extern const struct em_schedule em_schedule_cosine;
const struct em_schedule em_schedule_cosine = {
    .name = "cosine",
    .help = "half a cosine down to min_lr_ratio. arXiv:1608.03983",
    .options = options,
    .size = sizeof(struct cosine),
    .factor = factor,
};
