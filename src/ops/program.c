// Recording: the layers' forward functions turn into a list of calls.
#include "ops/program.h"

#include <string.h>

#include "base/alloc.h"
#include "ops/program_priv.h"

ember_status em_program_create(const struct em_program_options *options,
                               struct em_program **program)
{
    if (!options->max_tokens || !options->max_sequences || options->max_tokens > INT32_MAX)
        return em_fail(EMBER_E_RANGE,
                       "a program needs 1 to %d tokens and at least one sequence, not %zu and %zu",
                       INT32_MAX, options->max_tokens, options->max_sequences);
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
    em_free(p->position);
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

// ---- tensors ----

ember_tensor *em_program_tensor(struct em_program *p)
{
    if (em_grow(&p->tensor, &p->tensors_capacity, p->n_tensors + 1, sizeof *p->tensor) != EMBER_OK)
        return NULL;
    ember_tensor *t = em_arena_alloc(&p->arena, sizeof *t);
    struct em_tensor_info *info = em_arena_alloc(&p->arena, sizeof *info);
    if (!t || !info) return NULL;
    t->info = info;
    info->root = t;
    info->multiple = 1;
    p->tensor[p->n_tensors++] = t;
    return t;
}

// The gradient of a tensor that this program made: for a view, the same view of its root's
// gradient.
ember_tensor *em_grad_for(struct em_program *p, ember_tensor *t)
{
    if (t->grad) return t->grad;
    ember_tensor *g = em_program_tensor(p), *root = t->info->root;
    if (!g) return NULL;
    struct em_tensor_info *info = g->info;
    *g = *t;
    *info = *t->info;
    g->info = info;
    g->grad = NULL;
    info->keep = false;
    info->is_grad = true;
    info->root = g;
    if (root != t) {
        ember_tensor *root_grad = em_grad_for(p, root);
        if (!root_grad) return NULL;
        info->root = root_grad;
    }
    t->grad = g;
    return g;
}

static bool tracks_gradient(const struct em_call *c)
{
    if (!c->program->options.gradients || !c->op->backend[EM_CPU].backward) return false;
    for (unsigned i = 0; i < c->n_in; i++)
        if (c->in[i] && c->in[i]->grad) return true;
    return false;
}

static ember_status new_tensor(struct em_call *c, ember_dtype dtype, const size_t *dim,
                               unsigned ndim, ember_tensor **out)
{
    ember_tensor *t = em_program_tensor(c->program);
    if (!t) return EMBER_E_NOMEM;
    struct em_tensor_info *info = t->info;
    EM_TRY(em_tensor_init(t, dtype, dim, ndim, NULL));
    t->info = info;
    *out = t;
    return EMBER_OK;
}

static ember_status set_out(struct em_call *c, unsigned i, ember_tensor *t)
{
    assert(i < EM_MAX_OUT);
    c->out[i] = t;
    if (i >= c->n_out) c->n_out = i + 1;
    if (t->dtype == EMBER_F32 && tracks_gradient(c) && !em_grad_for(c->program, t))
        return EMBER_E_NOMEM;
    return EMBER_OK;
}

static ember_status rows_like(struct em_call *c, ember_dtype dtype, const ember_tensor *like,
                              size_t rows_per_row, const size_t *dim, unsigned ndim,
                              ember_tensor **out)
{
    assert(ndim < EMBER_MAX_DIMS && like->ndim >= 1);
    size_t full[EMBER_MAX_DIMS];
    if (!em_mul_size(like->dim[0], rows_per_row, &full[0]))
        return em_fail(EMBER_E_SHAPE, "%s: %zu rows times %zu", c->op->name, like->dim[0],
                       rows_per_row);
    if (ndim) memcpy(full + 1, dim, ndim * sizeof *dim);
    EM_TRY(new_tensor(c, dtype, full, ndim + 1, out));
    if (like->info) {
        struct em_tensor_info *info = (*out)->info;
        info->rows = like->info->rows;
        info->multiple = like->info->multiple * rows_per_row;
        info->plan = like->info->plan;
        info->expert = like->info->expert;
    }
    return EMBER_OK;
}

ember_status em_out_rows(struct em_call *c, unsigned i, ember_dtype dtype, const ember_tensor *like,
                         size_t rows_per_row, const size_t *dim, unsigned ndim)
{
    ember_tensor *t;
    EM_TRY(rows_like(c, dtype, like, rows_per_row, dim, ndim, &t));
    return set_out(c, i, t);
}

ember_status em_out_like(struct em_call *c, unsigned i, const ember_tensor *like)
{
    return em_out_rows(c, i, EMBER_F32, like, 1, like->dim + 1, like->ndim - 1);
}

ember_status em_out(struct em_call *c, unsigned i, ember_dtype dtype, const size_t *dim,
                    unsigned ndim)
{
    ember_tensor *t;
    EM_TRY(new_tensor(c, dtype, dim, ndim, &t));
    return set_out(c, i, t);
}

static ember_status counted_rows(struct em_call *c, unsigned i, ember_dtype dtype,
                                 enum em_rows_source source, size_t rows, const size_t *dim,
                                 unsigned ndim)
{
    assert(ndim < EMBER_MAX_DIMS);
    size_t full[EMBER_MAX_DIMS] = {rows};
    ember_tensor *t;
    if (ndim) memcpy(full + 1, dim, ndim * sizeof *dim);
    EM_TRY(new_tensor(c, dtype, full, ndim + 1, &t));
    t->info->rows = source;
    return set_out(c, i, t);
}

ember_status em_out_tokens(struct em_call *c, unsigned i, ember_dtype dtype, const size_t *dim,
                           unsigned ndim)
{
    return counted_rows(c, i, dtype, EM_ROWS_TOKENS, c->program->options.max_tokens, dim, ndim);
}

ember_status em_out_sequences(struct em_call *c, unsigned i, ember_dtype dtype, const size_t *dim,
                              unsigned ndim)
{
    return counted_rows(c, i, dtype, EM_ROWS_SEQUENCES, c->program->options.max_sequences, dim,
                        ndim);
}

ember_status em_out_expert(struct em_call *c, unsigned i, ember_dtype dtype,
                           const ember_tensor *like, ember_tensor *plan, size_t expert,
                           const size_t *dim, unsigned ndim)
{
    ember_tensor *t;
    EM_TRY(rows_like(c, dtype, like, 1, dim, ndim, &t));
    t->info->rows = EM_ROWS_EXPERT;
    t->info->multiple = 1;
    t->info->plan = plan;
    t->info->expert = expert;
    return set_out(c, i, t);
}

static void set_saved(struct em_call *c, unsigned i, ember_tensor *t)
{
    assert(i < EM_MAX_SAVED);
    c->saved[i] = t;
    if (i >= c->n_saved) c->n_saved = i + 1;
}

ember_status em_saved_rows(struct em_call *c, unsigned i, ember_dtype dtype,
                           const ember_tensor *like, size_t rows_per_row, const size_t *dim,
                           unsigned ndim)
{
    if (!tracks_gradient(c)) return EMBER_OK;
    ember_tensor *t;
    EM_TRY(rows_like(c, dtype, like, rows_per_row, dim, ndim, &t));
    set_saved(c, i, t);
    return EMBER_OK;
}

ember_status em_saved(struct em_call *c, unsigned i, ember_dtype dtype, const size_t *dim,
                      unsigned ndim)
{
    if (!tracks_gradient(c)) return EMBER_OK;
    ember_tensor *t;
    EM_TRY(new_tensor(c, dtype, dim, ndim, &t));
    set_saved(c, i, t);
    return EMBER_OK;
}

ember_status em_check_f32(const struct em_call *c, const ember_tensor *t, const char *what,
                          size_t last)
{
    char shape[96];
    if (!t || t->dtype != EMBER_F32 || !t->ndim)
        return em_fail(EMBER_E_SHAPE, "%s: %s has to be a f32 tensor%s%s", c->op->name, what,
                       t ? ", not " : "", t ? ember_dtype_name(t->dtype) : "");
    if (t->stride[t->ndim - 1] != 1 && t->dim[t->ndim - 1] > 1)
        return em_fail(EMBER_E_SHAPE, "%s: %s has to be contiguous in its last dimension",
                       c->op->name, what);
    if (last && em_last_dim(t) != last)
        return em_fail(EMBER_E_SHAPE, "%s: %s %s has to end in %zu", c->op->name, what,
                       em_shape_text(t, shape, sizeof shape), last);
    return EMBER_OK;
}

// ---- calls ----

struct em_call *em_call_new(ember_flow *flow, const struct em_op *op, unsigned n_in)
{
    struct em_program *p = flow->program;
    struct em_call *c = em_arena_alloc(&p->arena, sizeof *c);
    if (!c) return NULL;
    c->in = em_arena_alloc(&p->arena, (n_in ? n_in : 1) * sizeof *c->in);
    c->fresh = em_arena_alloc(&p->arena, (n_in ? n_in : 1) * sizeof *c->fresh);
    c->zero = em_arena_alloc(&p->arena, (n_in ? n_in : 1) * sizeof *c->zero);
    if (!c->in || !c->fresh || !c->zero) return NULL;
    c->op = op;
    c->n_in = n_in;
    c->pass = c->region = c->slot = -1;
    c->program = p;
    c->exec = &p->exec;
    c->layer = flow->layer;
    return c;
}

ember_status em_record(ember_flow *flow, struct em_call *c)
{
    struct em_program *p = flow->program;
    const ember_status status = c->op->shape(c);
    if (status != EMBER_OK) return *flow->layer ? em_fail_in(status, "%s", flow->layer) : status;
    EM_TRY(em_grow(&p->call, &p->calls_capacity, p->n_calls + 1, sizeof *p->call));
    c->region = flow->region;
    c->index = p->n_calls;
    p->call[p->n_calls++] = c;
    p->planned = false;
    return EMBER_OK;
}

bool em_is_training(const struct em_call *c)
{
    return c->program->options.gradients;
}

unsigned em_call_threads(const struct em_call *c)
{
    return em_pool_threads(c->program->options.pool);
}

void em_need_scratch(struct em_call *c, size_t bytes)
{
    if (bytes > c->scratch) c->scratch = bytes;
}

ember_status em_need_packed(struct em_call *c, ember_tensor *w, enum em_pack which, bool f32)
{
    if (c->program->options.backend == EM_REFERENCE) return EMBER_OK;
    return em_packs_need(c->program->packs, w, which, c->program->options.bf16 && !f32);
}

const void *em_packed(const struct em_call *c, ember_tensor *w, enum em_pack which, bool f32)
{
    return em_packs_get(c->program->packs, w, which, c->exec->bf16 && !f32, c->exec->pool);
}

ember_status em_need_state(ember_flow *flow, struct em_call *c, const struct em_state_spec *spec)
{
    struct em_state_layout *l = &flow->program->layout;
    EM_TRY(em_grow(&l->spec, &l->capacity, l->count + 1, sizeof *l->spec));
    c->slot = (int)l->count;
    l->spec[l->count++] = *spec;
    return EMBER_OK;
}

void em_need_vocabulary(struct em_call *c, size_t vocabulary)
{
    struct em_program *p = c->program;
    if (!p->vocabulary || vocabulary < p->vocabulary) p->vocabulary = vocabulary;
}

void em_need_inputs(struct em_call *c)
{
    c->program->inputs = true;
}

void em_need_targets(struct em_call *c, size_t vocabulary)
{
    struct em_program *p = c->program;
    if (!p->targets || vocabulary < p->targets) p->targets = vocabulary;
}

// ---- views ----

static ember_status record_view(ember_flow *flow, const ember_tensor *x, const ember_tensor *shape,
                                ember_tensor **y)
{
    struct em_program *p = flow->program;
    ember_tensor *v = em_program_tensor(p);
    if (!v) return EMBER_E_NOMEM;
    struct em_tensor_info *info = v->info;
    *v = *shape;
    v->data = NULL;
    v->grad = NULL;
    v->name = NULL;
    *info = *x->info;
    v->info = info;
    info->keep = false;
    if (x->grad && !em_grad_for(p, v)) return EMBER_E_NOMEM;
    *y = v;
    return EMBER_OK;
}

ember_status ember_reshape(ember_flow *flow, ember_tensor *x, const size_t *dim, unsigned ndim,
                           ember_tensor **y)
{
    char shape[96];
    if (!x->info) return em_fail(EMBER_E_SHAPE, "reshape: only tensors of the flow");
    size_t rest = 1;
    for (unsigned i = 0; i < ndim; i++)
        rest *= dim[i];
    // Rows stay rows; the rest of a row is cut anew. A row itself has to be contiguous.
    size_t width = 1;
    for (unsigned i = x->ndim; i-- > 1;) {
        if (x->dim[i] != 1 && x->stride[i] != width) width = 0;
        width *= x->dim[i];
    }
    if (ndim >= EMBER_MAX_DIMS || rest != width)
        return em_fail(EMBER_E_SHAPE, "reshape: %s has no rows of %zu elements",
                       em_shape_text(x, shape, sizeof shape), rest);
    ember_tensor v = *x;
    v.ndim = ndim + 1;
    size_t stride = 1;
    for (unsigned i = ndim; i-- > 0;) {
        v.dim[i + 1] = dim[i];
        v.stride[i + 1] = stride;
        stride *= dim[i];
    }
    v.stride[0] = x->stride[0];
    return record_view(flow, x, &v, y);
}

ember_status ember_columns(ember_flow *flow, ember_tensor *x, size_t begin, size_t end,
                           ember_tensor **y)
{
    char shape[96];
    if (!x->info || x->ndim != 2 || begin >= end || end > x->dim[1])
        return em_fail(EMBER_E_SHAPE, "columns: %s has no columns [%zu, %zu)",
                       em_shape_text(x, shape, sizeof shape), begin, end);
    ember_tensor v = *x;
    v.dim[1] = end - begin;
    EM_TRY(record_view(flow, x, &v, y));
    (*y)->info->root_offset += begin * sizeof(float);
    if ((*y)->grad) (*y)->grad->info->root_offset += begin * sizeof(float);
    return EMBER_OK;
}
