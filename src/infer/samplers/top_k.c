// The k most likely tokens. Fan et al. 2018, arXiv:1805.04833.
#include "infer/sampler.h"

struct top_k {
    size_t k;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct top_k, k, 40, 1, 1 << 24, "how many stay"),
    {0},
};

static void apply(const void *sampler, struct em_candidates *c)
{
    const struct top_k *o = sampler;
    if (o->k < c->count) em_candidates_keep(c, o->k);
}

extern const struct em_sampler_type em_sampler_top_k;
const struct em_sampler_type em_sampler_top_k = {
    .name = "top_k",
    .help = "the k most likely tokens. Fan et al. 2018, arXiv:1805.04833",
    .options = options,
    .size = sizeof(struct top_k),
    .apply = apply,
};
