// A program's life, its scopes, and the routers seen while recording.
#include "ops/program.h"

#include <string.h>

#include "base/alloc.h"
#include "ops/program_priv.h"
#include "ops/subset.h"

ember_status em_program_create(const struct em_program_options *options,
                               struct em_program **program)
{
    if (!options->max_tokens || !options->max_sequences || options->max_tokens > INT32_MAX)
        return em_fail(EMBER_E_RANGE,
                       "a program needs 1 to %d tokens and at least one sequence, not %zu and %zu",
                       INT32_MAX, options->max_tokens, options->max_sequences);
    if (options->gradients && !EMBER_TRAINING)
        return em_fail(EMBER_E_UNSUPPORTED, "this build has no training, and so no gradients");
    struct em_program *p = em_calloc(1, sizeof *p);
    if (!p) return EMBER_E_NOMEM;
    p->options = *options;
    if (options->backend == EM_REFERENCE) p->options.bf16 = false;
    p->packs = options->packs;
    if (!p->packs) {
        const ember_status status = em_packs_create(&p->packs);
        if (status != EMBER_OK) {
            em_free(p);
            return status;
        }
        p->owns_packs = true;
    }
    p->flow = (struct ember_flow){.program = p, .layer = "", .region = -1};
    p->exec.backend = p->options.backend;
    p->exec.bf16 = p->options.bf16;
    p->exec.pool = p->options.pool;
    *program = p;
    return EMBER_OK;
}

void em_program_destroy(struct em_program *p)
{
    if (!p) return;
    if (p->block) em_block_free(p->block, p->memory.activations);
    em_scratch_deinit(&p->exec.scratch);
    if (p->owns_packs) em_packs_destroy(p->packs);
    em_arena_deinit(&p->arena);
    em_free(p->call);
    em_free(p->tensor);
    em_free(p->router);
    for (size_t s = 0; p->spare && s < p->options.max_sequences; s++)
        em_state_destroy(p->spare[s]);
    em_free(p->spare);
    em_free(p->state_out);
    em_free(p->layout.spec);
    em_free(p->step);
    em_free(p->run);
    em_free(p->tile_offset);
    em_free(p->position);
    em_subset_free(p);
    em_free(p);
}

ember_flow *em_program_flow(struct em_program *p)
{
    return &p->flow;
}

const struct em_program_options *em_flow_options(const ember_flow *flow)
{
    return &flow->program->options;
}

void em_keep(ember_tensor *t)
{
    assert(!t->info || !t->info->root->info->fused);
    if (t->info) t->info->root->info->keep = true;
}

void em_program_output(struct em_program *p, ember_tensor *t)
{
    (void)p;
    em_keep(t);
}

void em_program_loss(struct em_program *p, ember_tensor *loss)
{
    p->loss = loss;
    em_keep(loss);
}

void em_flow_enter(ember_flow *flow, const char *layer, const char **before)
{
    *before = flow->layer;
    flow->layer = layer;
}

void em_flow_leave(ember_flow *flow, const char *before)
{
    flow->layer = before;
}

ember_status em_flow_region_begin(ember_flow *flow)
{
    if (flow->region >= 0)
        return em_fail(EMBER_E_INTERNAL, "recomputation regions do not nest (%s)", flow->layer);
    flow->region = flow->regions++;
    return EMBER_OK;
}

void em_flow_region_end(ember_flow *flow)
{
    flow->region = -1;
}

ember_status em_flow_array(ember_flow *flow, size_t n, ember_tensor ***array)
{
    ember_tensor **a = em_arena_alloc(&flow->program->arena, n * sizeof(ember_tensor *));
    if (!a) return EMBER_E_NOMEM;
    *array = a;
    return EMBER_OK;
}

ember_status em_flow_keep_routing(ember_flow *flow, const ember_routing *routing,
                                  const ember_routing **kept)
{
    ember_routing *r = em_arena_alloc(&flow->program->arena, sizeof *r);
    if (!r) return EMBER_E_NOMEM;
    *r = *routing;
    *kept = r;
    return EMBER_OK;
}

void ember_experts_begin(ember_flow *flow, const ember_routing *routing, const ember_tensor *x)
{
    flow->experts = routing;
    flow->experts_input = x;
}

void ember_experts_end(ember_flow *flow)
{
    flow->experts = NULL;
    flow->experts_input = NULL;
}

const ember_routing *em_flow_experts(const ember_flow *flow, const ember_tensor *x, bool *gather)
{
    *gather = x == flow->experts_input;
    return flow->experts;
}

ember_status em_flow_router(ember_flow *flow, const struct em_router_record *record)
{
    struct em_program *p = flow->program;
    EM_TRY(em_grow(&p->router, &p->routers_capacity, p->n_routers + 1, sizeof *p->router));
    p->router[p->n_routers++] = *record;
    em_keep(record->routing.weights);
    em_keep(record->routing.indices);
    em_keep(record->routing.plan);
    if (record->logits) em_keep(record->logits);
    if (record->stats) em_keep(record->stats);
    return EMBER_OK;
}

size_t em_program_routers(const struct em_program *p, const struct em_router_record **records)
{
    *records = p->router;
    return p->n_routers;
}

const struct em_state_layout *em_program_layout(const struct em_program *p)
{
    return &p->layout;
}
