// Warm-up, stable, decay: constant, then down to a floor over the last steps. Hu et al. 2024,
// arXiv:2404.06395; the shape 1 - sqrt(x) is the best of those that Hägele et al. 2024
// (arXiv:2405.18392) compare.
#include <math.h>

#include "train/optimizer.h"

enum { SQRT, LINEAR };

struct wsd {
    double min_lr_ratio, decay_ratio;
    int decay_shape;
};

static const ember_option options[] = {
    EMBER_OPT_DOUBLE(struct wsd, min_lr_ratio, 0, 0, 1, "share of the rate at the end"),
    EMBER_OPT_DOUBLE(struct wsd, decay_ratio, 0.2, 0, 1,
                     "share of the steps after the warm-up in which the rate falls"),
    EMBER_OPT_ENUM(struct wsd, decay_shape, SQRT, "sqrt|linear",
                   "how it falls: 1 - sqrt(x), or in a line"),
    {0},
};

static double factor(const void *opaque, double progress)
{
    const struct wsd *o = opaque;
    const double start = 1 - o->decay_ratio;
    if (progress <= start || o->decay_ratio <= 0) return 1;
    const double x = (progress - start) / o->decay_ratio;
    return 1 - (1 - o->min_lr_ratio) * (o->decay_shape == SQRT ? sqrt(x) : x);
}

extern const struct em_schedule em_schedule_wsd;
const struct em_schedule em_schedule_wsd = {
    .name = "wsd",
    .help = "warm-up, stable, decay: constant, then down at the end. arXiv:2404.06395",
    .options = options,
    .size = sizeof(struct wsd),
    .factor = factor,
};
