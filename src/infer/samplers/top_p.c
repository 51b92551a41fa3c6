// The smallest set of likely tokens that holds p of the probability (nucleus sampling).
// Holtzman et al. 2019, arXiv:1904.09751.
#include <math.h>

#include "infer/sampler.h"

struct top_p {
    double p;
};

static const ember_option options[] = {
    EMBER_OPT_DOUBLE(struct top_p, p, 0.95, 0, 1, "share of the probability that stays"),
    {0},
};

static void apply(const void *sampler, struct em_candidates *c)
{
    const double p = ((const struct top_p *)sampler)->p, max = (double)em_candidates_max(c);
    double total = 0;
    if (p >= 1) return;
    for (size_t i = 0; i < c->count; i++)
        total += exp((double)c->item[i].logit - max);
    if (!c->sorted) {
        // All that are rarer than (1 - p) / count hold less than 1 - p together, so none of them is
        // in the set: most of a vocabulary need not be sorted.
        const double rare = (1 - p) / (double)c->count * total;
        size_t n = 0;
        for (size_t i = 0; i < c->count; i++)
            if (exp((double)c->item[i].logit - max) >= rare) c->item[n++] = c->item[i];
        c->count = n; // at least the most likely one, as rare <= total / count
        em_candidates_keep(c, n);
    }
    double sum = 0;
    for (size_t i = 0; i < c->count; i++) {
        sum += exp((double)c->item[i].logit - max);
        if (sum >= p * total) c->count = i + 1;
    }
}

extern const struct em_sampler_type em_sampler_top_p;
const struct em_sampler_type em_sampler_top_p = {
    .name = "top_p",
    .help = "the fewest tokens that hold p of the probability, the one that crosses p included. "
            "Holtzman et al. 2019, arXiv:1904.09751",
    .options = options,
    .size = sizeof(struct top_p),
    .apply = apply,
};
