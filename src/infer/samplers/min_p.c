// Tokens that are not too rare beside the likeliest one. Nguyen et al. 2024, arXiv:2407.01082.
#include <math.h>

#include "infer/sampler.h"

struct min_p {
    double p;
};

static const ember_option options[] = {
    EMBER_OPT_DOUBLE(struct min_p, p, 0.05, 0, 1, "least probability, as a share of the largest"),
    {0},
};

// p_i >= p max_j p_j  <=>  l_i >= max_j l_j + log p: the sum of the softmax is not needed.
static void apply(const void *sampler, struct em_candidates *c)
{
    const double least = (double)em_candidates_max(c) + log(((const struct min_p *)sampler)->p);
    size_t n = 0;
    for (size_t i = 0; i < c->count; i++)
        if ((double)c->item[i].logit >= least) c->item[n++] = c->item[i];
    c->count = n;
}

extern const struct em_sampler_type em_sampler_min_p;
const struct em_sampler_type em_sampler_min_p = {
    .name = "min_p",
    .help = "tokens of at least p times the largest probability. Nguyen et al. 2024, "
            "arXiv:2407.01082",
    .options = options,
    .size = sizeof(struct min_p),
    .apply = apply,
};
