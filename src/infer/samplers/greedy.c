// The most likely token, and nothing else.
#include "infer/sampler.h"

static void apply(const void *sampler, struct em_candidates *c)
{
    (void)sampler;
    em_candidates_keep(c, 1);
}

extern const struct em_sampler_type em_sampler_greedy;
const struct em_sampler_type em_sampler_greedy = {
    .name = "greedy",
    .help = "the most likely token alone; of equal ones that with the smallest id",
    .apply = apply,
};
