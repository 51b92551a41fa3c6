// Sharper or flatter probabilities: softmax(l / temperature).
#include "infer/sampler.h"

struct temperature {
    float temperature;
};

static const ember_option options[] = {
    EMBER_OPT_FLOAT(struct temperature, temperature, 0.8, 0, 1000,
                    "1: as the model says; below it sharper, above it flatter; 0: the most likely "
                    "token alone"),
    {0},
};

static void apply(const void *sampler, struct em_candidates *c)
{
    const float t = ((const struct temperature *)sampler)->temperature;
    if (!(t > 0)) {
        em_candidates_keep(c, 1);
        return;
    }
    // Below the maximum, so that a small temperature gives -inf at worst, never inf - inf.
    const float max = em_candidates_max(c);
    for (size_t i = 0; i < c->count; i++)
        c->item[i].logit = c->item[i].logit == max ? 0 : (c->item[i].logit - max) / t;
}

extern const struct em_sampler_type em_sampler_temperature;
const struct em_sampler_type em_sampler_temperature = {
    .name = "temperature",
    .help = "divides the logits: sharper or flatter probabilities",
    .options = options,
    .size = sizeof(struct temperature),
    .apply = apply,
};
