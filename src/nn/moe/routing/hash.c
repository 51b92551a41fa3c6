// Hash routing: a table says which experts a token id goes to, the same before and after training.
// Roller et al. 2021, arXiv:2106.04426. Each layer has a table of its own, saved with the model: a
// file's table is taken as it is.
#include <ember/ops.h>

#include <string.h>

#include "base/alloc.h"

struct hash {
    ember_layer base; // param[0]: table [V, K]
    size_t k, vocabulary, experts;
    int table;
};

enum { RANDOM, BALANCED };

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct hash, k, 1, 1, 64, "experts of a token"),
    EMBER_OPT_SIZE(struct hash, vocabulary, 0, 0, 1 << 24, "token ids; 0: the model's"),
    EMBER_OPT_ENUM(
        struct hash, table, BALANCED, "random|balanced",
        "each id's experts at random, or ids dealt out so that experts have equally many"),
    {0},
};

// Balanced: the experts in a random order again and again, so that ids next to each other differ
// and every expert comes equally often. The n-th choice is the n-th after the first.
static void fill(const void *context, ember_random *random, ember_tensor *param)
{
    const struct hash *h = context;
    float *table = param->data;
    int32_t order[4096];
    for (size_t v = 0; v < h->vocabulary; v++) {
        if (h->table == RANDOM || v % h->experts == 0)
            for (size_t e = 0; e < h->experts; e++) { // a shuffle
                const size_t at = (size_t)(ember_random_uniform(random) * (double)(e + 1));
                if (at < e) order[e] = order[at];
                order[at < e ? at : e] = (int32_t)e;
            }
        const size_t first = h->table == RANDOM ? 0 : v % h->experts;
        for (size_t n = 0; n < h->k; n++)
            table[v * h->k + n] = (float)order[(first + n) % h->experts];
    }
}

static ember_status build(ember_layer *l, ember_build *b)
{
    struct hash *h = (struct hash *)l;
    h->experts = ember_build_experts(b);
    EMBER_TRY(ember_build_need_tokens(b));
    if (!h->vocabulary) h->vocabulary = ember_build_vocabulary(b);
    if (!h->vocabulary)
        return ember_build_refuse(b, "vocabulary",
                                  "the model reads no tokens that could be hashed");
    if (h->vocabulary < ember_build_vocabulary(b))
        return ember_build_refuse(b, "vocabulary", "the model's tokens are below %zu",
                                  ember_build_vocabulary(b));
    if (h->k > h->experts)
        return ember_build_refuse(b, "k", "%zu experts cannot be chosen among %zu", h->k,
                                  h->experts);
    ember_build_chooses(b, h->k);
    EMBER_TRY(ember_param(b, &l->param[0], "table", EMBER_INIT_BUFFER, EMBER_ROLE_ROUTER,
                          (size_t[]){h->vocabulary, h->k}, 2));
    ember_param_fill(b, l->param[0], &(ember_filling){.fill = fill, .context = h});
    return EMBER_OK;
}

static ember_status route(const ember_layer *l, ember_flow *f, ember_tensor *x,
                          ember_routing *routing)
{
    return ember_route_table(f, x, l->param[0], routing);
}

extern const ember_layer_type em_layer_hash;
const ember_layer_type em_layer_hash = {
    .name = "hash",
    .kind = EMBER_ROUTER,
    .size = sizeof(struct hash),
    .options = options,
    .help = "by a table of token ids that is drawn once. arXiv:2106.04426",
    .build = build,
    .route = route,
};
