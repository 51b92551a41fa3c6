#include "nn/moe/experts.h"

#include "nn/build.h"
#include "ops/program.h"

static ember_status build(struct em_experts *x, ember_build *b, const ember_config *expert,
                          const ember_config *list)
{
    bool groupable = false;
    if (!list) EMBER_TRY(ember_config_groupable(b, expert, &groupable));
    if (groupable) return ember_child_group(b, "expert", expert, x->count, &x->group);
    x->single = em_arena_alloc(b->arena, x->count * sizeof(ember_layer *));
    if (!x->single) return EMBER_E_NOMEM;
    for (size_t e = 0; e < x->count; e++) {
        const char *name = em_arena_printf(b->arena, "experts.%zu", e);
        if (!name) return EMBER_E_NOMEM;
        EMBER_TRY(ember_child(b, name, EMBER_CHANNEL_MIXER,
                              list ? ember_config_at(list, e) : expert, &x->single[e]));
    }
    return EMBER_OK;
}

ember_status em_experts_build(struct em_experts *x, ember_build *b, size_t count,
                              const ember_config *expert, const ember_config *list)
{
    const bool apart = b->apart;
    x->count = count;
    b->apart = true;
    EMBER_TRY(build(x, b, expert, list));
    b->apart = apart;
    return EMBER_OK;
}

ember_status em_experts_run(const struct em_experts *m, ember_flow *f, ember_tensor *x, bool gather,
                            const ember_routing *routing, ember_tensor **rows)
{
    ember_tensor **y;
    if (m->group) {
        ember_experts_begin(f, routing, gather ? x : NULL);
        const ember_status status = ember_forward(m->group, f, x, rows);
        ember_experts_end(f);
        return status;
    }
    EMBER_TRY(em_flow_array(f, m->count, &y));
    for (size_t e = 0; e < m->count; e++) {
        ember_tensor *mine;
        EMBER_TRY(ember_expert_rows(f, x, routing, e, &mine));
        EMBER_TRY(ember_forward(m->single[e], f, mine, &y[e]));
    }
    return ember_gather_experts(f, y, routing, x->dim[x->ndim - 1], rows);
}
