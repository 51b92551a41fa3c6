// A mixture of sequence mixers: each sequence as a whole goes to k of them, and only these run on
// it. By what its first token looks like (causal: the choice is kept in the state), by the mean of
// all of its tokens (not causal), or by its label.
#include <ember/ops.h>

#include "nn/build.h"
#include "ops/program.h"

struct sequence_moe {
    ember_layer base; // param[0]: router.weight [E, D]
    size_t experts, k;
    int by;
    bool renormalise;
    const ember_config *expert, *expert_list;
    ember_layer **single; // [experts]
};

_Static_assert(EMBER_BY_FIRST == 0 && EMBER_BY_MEAN == 1 && EMBER_BY_LABEL == 2, "as in options");

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct sequence_moe, experts, 4, 1, 1024, "how many, all as `expert` says"),
    EMBER_OPT_COMPONENT(struct sequence_moe, expert, EMBER_SEQUENCE_MIXER,
                        "{\"type\": \"short_conv\"}", "any sequence mixer"),
    EMBER_OPT_COMPONENTS(struct sequence_moe, expert_list, EMBER_SEQUENCE_MIXER,
                         "experts that differ, one by one, instead of `experts` and `expert`"),
    EMBER_OPT_ENUM(struct sequence_moe, by, EMBER_BY_FIRST, "first|mean|label",
                   "what a sequence is judged by: its first token, the mean of its tokens (not "
                   "causal), or its label (its number is the expert's; without one, the first)"),
    EMBER_OPT_SIZE(struct sequence_moe, k, 1, 1, 64, "experts of a sequence"),
    EMBER_OPT_BOOL(struct sequence_moe, renormalise, false, "divide the weights by their sum"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    struct sequence_moe *m = (struct sequence_moe *)l;
    if (m->expert_list) m->experts = ember_config_count(m->expert_list);
    if (!m->experts || m->experts > 1024)
        return ember_build_refuse(b, "expert_list", "has %zu members; it has to have 1 to 1024",
                                  m->experts);
    if (m->k > m->experts)
        return ember_build_refuse(b, "k", "%zu experts cannot be chosen among %zu", m->k,
                                  m->experts);
    if (m->by == EMBER_BY_LABEL && m->k > 1)
        return ember_build_refuse(b, "k", "a label stands for one expert");
    if (m->by == EMBER_BY_MEAN && !b->allow_not_causal)
        return ember_build_refuse(b, "by",
                                  "the mean of a sequence's tokens needs the later ones, so a "
                                  "causal model cannot have it; take \"first\"");
    if (m->k == 1 && m->experts > 1 && m->renormalise && m->by != EMBER_BY_LABEL)
        return ember_build_refuse(
            b, "renormalise",
            "one expert's weight over itself is always 1, and the router gets "
            "no gradient");
    if (b->within_sequences)
        return ember_build_refuse(b, "", "a mixture of sequence mixers cannot be an expert of one");
    EMBER_TRY(ember_build_need_tokens(b));
    if (m->by != EMBER_BY_LABEL)
        EMBER_TRY(ember_param(b, &l->param[0], "router.weight", EMBER_INIT_NORMAL,
                              EMBER_ROLE_ROUTER, (size_t[]){m->experts, ember_build_width(b)}, 2));
    m->single = em_arena_alloc(b->arena, m->experts * sizeof *m->single);
    if (!m->single) return EMBER_E_NOMEM;
    b->within_sequences = true;
    for (size_t e = 0; e < m->experts; e++) {
        const char *name = em_arena_printf(b->arena, "experts.%zu", e);
        if (!name) return EMBER_E_NOMEM;
        EMBER_TRY(ember_child(b, name, EMBER_SEQUENCE_MIXER,
                              m->expert_list ? ember_config_at(m->expert_list, e) : m->expert,
                              &m->single[e]));
    }
    b->within_sequences = false;
    return EMBER_OK;
}

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    const struct sequence_moe *m = (const struct sequence_moe *)l;
    ember_routing routing = {.n_experts = m->experts};
    ember_tensor *logits = NULL, **rows;
    if (l->param[0]) EMBER_TRY(ember_linear_f32(f, x, l->param[0], NULL, &logits));
    EMBER_TRY(ember_route_sequences(f, logits, (ember_sequence_route)m->by, m->k, m->renormalise,
                                    &routing));
    EMBER_TRY(em_flow_array(f, m->experts, &rows));
    for (size_t e = 0; e < m->experts; e++) {
        ember_tensor *mine;
        ember_sequences_begin(f, &routing, e);
        ember_status status = ember_expert_sequences(f, x, &mine);
        if (status == EMBER_OK) status = ember_forward(m->single[e], f, mine, &rows[e]);
        ember_sequences_end(f);
        EMBER_TRY(status);
    }
    return ember_merge_sequences(f, x, rows, &routing, y);
}

extern const ember_layer_type em_layer_sequence_moe;
const ember_layer_type em_layer_sequence_moe = {
    .name = "sequence_moe",
    .kind = EMBER_SEQUENCE_MIXER,
    .size = sizeof(struct sequence_moe),
    .options = options,
    .help = "a mixture of sequence mixers: every sequence goes to k of them as a whole",
    .build = build,
    .forward = forward,
};
