// By the sequence's label, as batches carry it: a task or a domain has an expert of its own.
// Gururangan et al. 2021 (DEMix), arXiv:2108.05036.
#include <ember/ops.h>

struct task {
    ember_layer base;
    int unlabelled;
};

enum { ALL, FIRST };

static const ember_option options[] = {
    EMBER_OPT_ENUM(struct task, unlabelled, ALL, "all|first",
                   "sequences without a label use all experts alike, or the first"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    const size_t E = ember_build_experts(b);
    EMBER_TRY(ember_build_need_tokens(b));
    if (((struct task *)l)->unlabelled == ALL && E > EMBER_TOPK_MAX)
        return ember_build_refuse(b, "", "all of %zu experts cannot run; the most are %d", E,
                                  EMBER_TOPK_MAX);
    ember_build_chooses(b, 1);
    if (((struct task *)l)->unlabelled == ALL) ember_build_may_choose(b, E);
    return EMBER_OK;
}

static ember_status route(const ember_layer *l, ember_flow *f, ember_tensor *x,
                          ember_routing *routing)
{
    return ember_route_label(f, x, ((const struct task *)l)->unlabelled == ALL, routing);
}

extern const ember_layer_type em_layer_task;
const ember_layer_type em_layer_task = {
    .name = "task",
    .kind = EMBER_ROUTER,
    .size = sizeof(struct task),
    .options = options,
    .help = "by the task or domain label that the batch carries. arXiv:2108.05036",
    .build = build,
    .route = route,
};
