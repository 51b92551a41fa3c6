// Recording: what shape rules and recording functions declare becomes tensors and calls of the
// program.
#include <string.h>

#include "base/alloc.h"
#include "ops/program_priv.h"

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
                                 enum em_rows_source source, size_t units, size_t multiple,
                                 const size_t *dim, unsigned ndim)
{
    assert(ndim < EMBER_MAX_DIMS);
    size_t full[EMBER_MAX_DIMS];
    if (!em_mul_size(units, multiple, &full[0]))
        return em_fail(EMBER_E_SHAPE, "%s: %zu times %zu rows", c->op->name, units, multiple);
    ember_tensor *t;
    if (ndim) memcpy(full + 1, dim, ndim * sizeof *dim);
    EM_TRY(new_tensor(c, dtype, full, ndim + 1, &t));
    t->info->rows = source;
    t->info->multiple = multiple;
    return set_out(c, i, t);
}

ember_status em_out_tokens(struct em_call *c, unsigned i, ember_dtype dtype, const size_t *dim,
                           unsigned ndim)
{
    return counted_rows(c, i, dtype, EM_ROWS_TOKENS, c->program->options.max_tokens, 1, dim, ndim);
}

// Sequences of a given number of tokens: no more than fit into the most tokens.
static size_t most_sequences(const struct em_program *p)
{
    const size_t S = p->options.max_sequences,
                 fit = p->sequence_tokens ? p->options.max_tokens / p->sequence_tokens : S;
    return fit < S ? (fit ? fit : 1) : S;
}

ember_status em_out_sequences(struct em_call *c, unsigned i, ember_dtype dtype, const size_t *dim,
                              unsigned ndim)
{
    return counted_rows(c, i, dtype, EM_ROWS_SEQUENCES, most_sequences(c->program), 1, dim, ndim);
}

ember_status em_out_pixels(struct em_call *c, unsigned i, ember_dtype dtype, size_t each,
                           const size_t *dim, unsigned ndim)
{
    return counted_rows(c, i, dtype, EM_ROWS_SEQUENCES, most_sequences(c->program), each, dim,
                        ndim);
}

ember_status em_out_reach(struct em_call *c, unsigned i, ember_dtype dtype, size_t limit,
                          const size_t *dim, unsigned ndim)
{
    EM_TRY(counted_rows(c, i, dtype, EM_ROWS_REACH, limit, 1, dim, ndim));
    c->out[i]->info->multiple = limit;
    if (c->out[i]->grad) c->out[i]->grad->info->multiple = limit;
    return EMBER_OK;
}

void em_lasting(ember_tensor *t)
{
    t->info->root->info->lasting = true;
}

ember_status em_lasting_shared(struct em_call *c, unsigned i)
{
    const size_t size = sizeof c->op + sizeof i + EM_ATTR_BYTES + c->n_in * sizeof *c->in;
    char *key = em_alloc(size), *to = key;
    if (!key) return EMBER_E_NOMEM;
    memcpy(to, &c->op, sizeof c->op);
    memcpy(to += sizeof c->op, &i, sizeof i);
    memcpy(to += sizeof i, c->attr.bytes, EM_ATTR_BYTES);
    memcpy(to += EM_ATTR_BYTES, c->in, c->n_in * sizeof *c->in);
    em_lasting(c->out[i]);
    const ember_status status =
        em_packs_share(c->program->packs, key, size, em_tensor_bytes(c->out[i]),
                       &c->out[i]->info->root->info->shared);
    em_free(key);
    return status;
}

uint64_t em_weights_version(const struct em_call *c)
{
    return em_packs_version(c->program->packs);
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

ember_status em_out_plan(struct em_call *c, unsigned i, ember_dtype dtype, ember_tensor *plan,
                         size_t n_experts, size_t limit, const size_t *dim, unsigned ndim)
{
    assert(ndim < EMBER_MAX_DIMS);
    ember_tensor *t;
    size_t full[EMBER_MAX_DIMS] = {limit};
    if (ndim) memcpy(full + 1, dim, ndim * sizeof *dim);
    EM_TRY(new_tensor(c, dtype, full, ndim + 1, &t));
    t->info->rows = EM_ROWS_PLAN;
    t->info->plan = plan;
    t->info->expert = n_experts;
    return set_out(c, i, t);
}

bool em_same_rows(const ember_tensor *a, const ember_tensor *b)
{
    const struct em_tensor_info *x = a->info, *y = b->info;
    if (!x || !y) return true;
    return x->rows == y->rows && x->multiple == y->multiple && x->plan == y->plan &&
           (!x->plan || x->expert == y->expert);
}

bool em_has_token_rows(const ember_tensor *x)
{
    return x->info && x->info->rows == EM_ROWS_TOKENS && x->info->multiple == 1;
}

bool em_has_sequence_rows(const ember_tensor *x, size_t *each)
{
    *each = 0;
    if (!x->info) return false;
    if (x->info->rows == EM_ROWS_SEQUENCES) *each = x->info->multiple;
    return *each || em_has_token_rows(x);
}

size_t em_rows_before(const struct em_call *c, const ember_tensor *x)
{
    return x->info && x->info->rows == EM_ROWS_TOKENS ? c->exec->first_token * x->info->multiple
                                                      : 0;
}

size_t em_first_row(const struct em_call *c, const ember_tensor *x, size_t s)
{
    return x->info->rows == EM_ROWS_SEQUENCES ? s * x->info->multiple : c->exec->batch->offset[s];
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
    struct em_call *c = flow->failed ? NULL : em_arena_alloc(&p->arena, sizeof *c);
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
    c->subset = flow->subset;
    return c;
}

ember_status em_record(ember_flow *flow, struct em_call *c)
{
    struct em_program *p = flow->program;
    for (unsigned i = 0; i < c->n_in; i++)
        if (c->in[i] && c->in[i]->info && c->in[i]->info->root->info->fused)
            return em_fail(EMBER_E_STATE, "%s: input %u was planned away", c->op->name, i);
    const ember_status status = c->op->shape(c);
    if (status != EMBER_OK) return *flow->layer ? em_fail_in(status, "%s", flow->layer) : status;
    if (!em_add_size(c->scratch, c->packed, &c->scratch) ||
        !em_add_size(c->scratch,
                     c->n_packed * sizeof(struct em_passing_pack) + EM_SCRATCH_ALIGNMENT,
                     &c->scratch))
        return em_fail(EMBER_E_NOMEM, "%s: its scratch does not fit into memory", c->op->name);
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

bool em_is_reference(const struct em_call *c)
{
    return c->program->options.backend == EM_REFERENCE;
}

size_t em_call_max_tokens(const struct em_call *c)
{
    return c->program->options.max_tokens;
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
    const bool bf16 = c->program->options.bf16 && !f32;
    if (!c->program->options.packs_pass_by) return em_packs_need(c->program->packs, w, which, bf16);
    size_t bytes = em_pack_bytes(w, which, bf16);
    if (!em_add_size(bytes, EM_SCRATCH_ALIGNMENT - 1, &bytes) ||
        !em_add_size(c->packed, bytes / EM_SCRATCH_ALIGNMENT * EM_SCRATCH_ALIGNMENT, &c->packed))
        return em_fail(EMBER_E_NOMEM, "%s is too large to be packed",
                       w->name ? w->name : "a weight");
    c->n_packed++;
    return EMBER_OK;
}

const void *em_packed(const struct em_call *c, ember_tensor *w, enum em_pack which, bool f32)
{
    struct em_exec *x = c->exec;
    const bool bf16 = x->bf16 && !f32;
    if (!c->n_packed) return em_packs_get(c->program->packs, w, which, bf16, x->pool);
    for (unsigned i = 0; i < x->n_passing; i++) {
        const struct em_passing_pack *p = &x->passing[i];
        if (p->tensor == w && p->which == which && p->bf16 == bf16) return p->data;
    }
    assert(x->n_passing < c->n_packed);
    void *data = x->passing_space;
    const size_t bytes = em_pack_bytes(w, which, bf16);
    x->passing_space +=
        (bytes + EM_SCRATCH_ALIGNMENT - 1) / EM_SCRATCH_ALIGNMENT * EM_SCRATCH_ALIGNMENT;
    x->passing[x->n_passing++] = (struct em_passing_pack){w, which, bf16, data};
    em_pack_into(w, which, bf16, data, x->pool);
    return data;
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

void em_need_sequence_tokens(struct em_call *c, size_t tokens)
{
    c->program->sequence_tokens = tokens;
}

void em_need_targets(struct em_call *c, size_t vocabulary)
{
    struct em_program *p = c->program;
    if (!p->targets || vocabulary < p->targets) p->targets = vocabulary;
}
