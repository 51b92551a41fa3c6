// Outputs side by side, then linear layers. By slot each expert has columns of its own, so that
// B A [g_1 F_1; ..; g_E F_E] = B sum_e g_e A_e F_e, computed for the chosen ones alone; by rank the
// best choice comes first, whoever it is. Without an activation all of it folds into one matrix per
// expert (or rank): depth changes the way of training, not what can be said.
#include <ember/ops.h>

#include "nn/build.h"

struct concat {
    ember_layer base; // param[0]: into the hidden width; then one for each further layer
    size_t hidden, depth;
    int order, activation;
    bool gated;
};

enum { SLOT, RANK };
enum { NONE, RELU, GELU, SILU };
enum { MOST = EMBER_LAYER_PARAMS - 1 };

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct concat, hidden, 0, 0, 1 << 20,
                   "width after the first matrix; 0: the model's"),
    EMBER_OPT_SIZE(struct concat, depth, 2, 1, MOST, "matrices in all"),
    EMBER_OPT_ENUM(struct concat, order, SLOT, "slot|rank",
                   "columns of each expert, or of the first, second, ... choice"),
    EMBER_OPT_ENUM(struct concat, activation, NONE, "none|relu|gelu|silu",
                   "between the matrices; none: deep linear"),
    EMBER_OPT_BOOL(struct concat, gated, true,
                   "outputs times their weights first: without, the router learns nothing"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    struct concat *c = (struct concat *)l;
    const size_t D = ember_build_width(b), E = b->routed, k = ember_build_choices(b);
    if (!c->hidden) c->hidden = D;
    if (c->order == RANK && !c->gated)
        return ember_build_refuse(b, "gated", "by rank outputs are always weighted");
    size_t from = c->depth == 1 ? D : c->hidden;
    if (c->order == SLOT)
        EMBER_TRY(ember_param(b, &l->param[0], "slots", EMBER_INIT_NORMAL, EMBER_ROLE_FFN,
                              (size_t[]){E, from, D}, 3));
    else
        EMBER_TRY(ember_param(b, &l->param[0], "ranks", EMBER_INIT_NORMAL, EMBER_ROLE_FFN,
                              (size_t[]){from, k * D}, 2));
    for (size_t i = 1; i < c->depth; i++) {
        const char *name = em_arena_printf(b->arena, "layers.%zu", i);
        const size_t to = i + 1 == c->depth ? D : c->hidden;
        if (!name) return EMBER_E_NOMEM;
        EMBER_TRY(ember_param(b, &l->param[i], name, EMBER_INIT_NORMAL, EMBER_ROLE_FFN,
                              (size_t[]){to, from}, 2));
        from = to;
    }
    return EMBER_OK;
}

static ember_status combine(const ember_layer *l, ember_flow *f, ember_tensor *x,
                            ember_tensor *rows, const ember_routing *routing, ember_tensor **y)
{
    static const ember_activation_kind kind[] = {EMBER_IDENTITY, EMBER_RELU, EMBER_GELU,
                                                 EMBER_SILU};
    const struct concat *c = (const struct concat *)l;
    ember_tensor *h;
    (void)x;
    if (c->order == RANK) {
        EMBER_TRY(ember_rank_concat(f, rows, routing, &h));
        EMBER_TRY(ember_linear(f, h, l->param[0], NULL, NULL, &h));
    } else {
        EMBER_TRY(ember_grouped_linear(f, rows, l->param[0], NULL, routing, false, &h));
        EMBER_TRY(c->gated ? ember_weighted_sum(f, h, routing, &h)
                           : ember_expert_sum(f, h, routing, &h));
    }
    for (size_t i = 1; i < c->depth; i++) {
        if (c->activation != NONE) EMBER_TRY(ember_activation(f, h, kind[c->activation], &h));
        EMBER_TRY(ember_linear(f, h, l->param[i], NULL, NULL, &h));
    }
    *y = h;
    return EMBER_OK;
}

extern const ember_layer_type em_layer_concat;
const ember_layer_type em_layer_concat = {
    .name = "concat",
    .kind = EMBER_COMBINER,
    .size = sizeof(struct concat),
    .options = options,
    .help = "the chosen outputs side by side through deep linear layers",
    .build = build,
    .combine = combine,
};
