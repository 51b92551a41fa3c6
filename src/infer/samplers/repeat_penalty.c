// Tokens that came before become less likely. Keskar et al. 2019, arXiv:1909.05858.
#include "infer/sampler.h"

struct repeat_penalty {
    float penalty;
    size_t last;
};

static const ember_option options[] = {
    EMBER_OPT_FLOAT(struct repeat_penalty, penalty, 1.1, 0.01, 100,
                    "positive logits are divided by it, others multiplied; 1: nothing changes"),
    EMBER_OPT_SIZE(struct repeat_penalty, last, 64, 0, 1 << 30,
                   "tokens to look back, the prompt included; 0: all"),
    {0},
};

// A token counts once, however often it came.
static void apply(const void *sampler, struct em_candidates *c)
{
    const struct repeat_penalty *o = sampler;
    const size_t n = o->last && o->last < c->length ? o->last : c->length;
    const int32_t *seen = c->history + (c->length - n);
    for (size_t i = 0; i < n; i++)
        c->mark[seen[i]] = 1;
    for (size_t i = 0; i < c->count; i++) {
        struct em_candidate *x = &c->item[i];
        if (c->mark[x->id]) x->logit = x->logit > 0 ? x->logit / o->penalty : x->logit * o->penalty;
    }
    for (size_t i = 0; i < n; i++)
        c->mark[seen[i]] = 0;
    c->sorted = false;
}

extern const struct em_sampler_type em_sampler_repeat_penalty;
const struct em_sampler_type em_sampler_repeat_penalty = {
    .name = "repeat_penalty",
    .help = "makes tokens that came before less likely. Keskar et al. 2019, arXiv:1909.05858",
    .options = options,
    .size = sizeof(struct repeat_penalty),
    .apply = apply,
};
