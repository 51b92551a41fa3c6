// Computing twice instead of keeping: what backward reads may be made again when it is wanted, so
// that its memory is free in between. Two kinds. A *region* (a block, where the options say so)
// keeps its input alone and runs again before its backward. And an operation that says
// EM_OP_REPEATS, cheap and with inputs that its own backward keeps anyway, is always run again for
// the matrix products' gradients that read its output: a norm's rows, a gate's product. Either way
// the same kernels see the same numbers, so not a bit changes.
#include <string.h>

#include "base/alloc.h"
#include "ops/program_priv.h"

static ember_tensor *second_life(struct em_program *p, ember_tensor *t)
{
    struct em_tensor_info *from = t->info;
    if (from->copy) return from->copy;
    ember_tensor *copy = em_program_tensor(p);
    if (!copy) return NULL;
    struct em_tensor_info *info = copy->info;
    *copy = *t; // the gradient is shared: there is one
    *info = *from;
    copy->info = info;
    info->keep = false;
    info->last = EM_NEVER;
    info->repeats = NULL;
    info->root = copy;
    from->copy = copy;
    if (from->root != t && !(info->root = second_life(p, from->root))) return NULL;
    return copy;
}

// The same call, with inputs and a clock of its own.
static struct em_call *copy_call(struct em_program *p, const struct em_call *c)
{
    struct em_call *d = em_arena_alloc(&p->arena, sizeof *d);
    if (!d) return NULL;
    *d = *c;
    const size_t n = c->n_in ? c->n_in : 1;
    d->in = em_arena_alloc(&p->arena, n * sizeof *d->in);
    d->fresh = em_arena_alloc(&p->arena, n * sizeof *d->fresh);
    d->zero = em_arena_alloc(&p->arena, n * sizeof *d->zero);
    if (!d->in || !d->fresh || !d->zero) return NULL;
    memcpy(d->in, c->in, c->n_in * sizeof *d->in);
    memset(d->fresh, 0, n * sizeof *d->fresh);
    memset(d->zero, 0, n * sizeof *d->zero);
    return d;
}

// ---- regions: a block's calls run again ----

static struct em_call *clone_call(struct em_program *p, const struct em_call *c)
{
    struct em_call *d = copy_call(p, c);
    if (!d) return NULL;
    for (unsigned i = 0; i < c->n_in; i++) {
        ember_tensor *t = c->in[i];
        // Made in this region (its root has a second life already): read the copy.
        if (t && t->info && t->info->root->info->copy) t = second_life(p, t);
        if (c->in[i] && !t) return NULL;
        d->in[i] = t;
    }
    for (unsigned i = 0; i < c->n_out; i++)
        if (c->out[i] && !(d->out[i] = second_life(p, c->out[i]))) return NULL;
    for (unsigned i = 0; i < c->n_saved; i++)
        if (c->saved[i] && !(d->saved[i] = second_life(p, c->saved[i]))) return NULL;
    // What runs by a plan of the region runs by its copy.
    for (unsigned i = 0; i < c->n_out + c->n_saved; i++) {
        ember_tensor *t = i < c->n_out ? d->out[i] : d->saved[i - c->n_out];
        if (t && t->info->plan && t->info->plan->info->copy)
            t->info->plan = t->info->plan->info->copy;
    }
    return d;
}

ember_status em_recompute_region(struct em_program *p, struct em_call **backward, size_t begin,
                                 size_t end)
{
    for (size_t i = begin; i < end; i++)
        if (!(backward[i] = clone_call(p, p->call[i]))) return EMBER_E_NOMEM;
    bool *needed = em_calloc(end - begin, sizeof *needed);
    if (!needed) return EMBER_E_NOMEM;
    // A root is needed when backward reads it, or a needed call does. `last` serves as the mark for
    // now.
    for (size_t i = begin; i < end; i++) {
        const struct em_call *c = backward[i];
        for (unsigned j = 0; j < c->n_in; j++)
            if (c->in[j] && c->in[j]->info && em_reads_in(c->op, j))
                c->in[j]->info->root->info->last = 1;
        for (unsigned j = 0; j < c->n_out; j++)
            if (c->out[j] && (c->op->backward_reads & EM_READS_OUT(j)))
                c->out[j]->info->root->info->last = 1;
        for (unsigned j = 0; j < c->n_out + c->n_saved; j++) {
            const ember_tensor *t = j < c->n_out ? c->out[j] : c->saved[j - c->n_out];
            if (t && t->info->plan) t->info->plan->info->root->info->last = 1;
        }
    }
    for (size_t i = end; i-- > begin;) {
        const struct em_call *c = backward[i];
        bool need = c->n_saved > 0;
        for (unsigned j = 0; j < c->n_out; j++)
            need = need || (c->out[j] && c->out[j]->info->root->info->last == 1);
        needed[i - begin] = need;
        for (unsigned j = 0; need && j < c->n_in; j++)
            if (c->in[j] && c->in[j]->info) c->in[j]->info->root->info->last = 1;
    }
    ember_status status = EMBER_OK;
    for (size_t i = begin; i < end && status == EMBER_OK; i++)
        if (needed[i - begin]) status = em_push_step(p, backward[i], false);
    em_free(needed);
    // The originals' copies belong to this region: nobody else may pick them up.
    for (size_t i = 0; i < p->n_tensors; i++)
        p->tensor[i]->info->copy = NULL;
    return status;
}

// ---- single calls ----

// Reading nothing but what its own backward keeps, and making one tensor that its backward does not
// read, and nobody after the pass.
static bool may_repeat(const struct em_call *c)
{
    if (!(c->op->flags & EM_OP_REPEATS) || !c->op->backend[EM_CPU].backward || c->n_out != 1)
        return false;
    const ember_tensor *y = c->out[0];
    if (!y || !y->grad || y->info->root != y || y->info->keep || y->grad->info->keep) return false;
    if (c->op->backward_reads & EM_READS_OUT(0)) return false;
    for (unsigned i = 0; i < c->n_in; i++)
        if (c->in[i] && c->in[i]->info && !em_reads_in(c->op, i)) return false;
    return true;
}

void em_find_repeats(struct em_program *p)
{
    for (size_t i = 0; i < p->n_calls; i++)
        if (may_repeat(p->call[i])) p->call[i]->out[0]->info->repeats = p->call[i];
}

static ember_status repeat(struct em_program *p, const struct em_call *c)
{
    struct em_call *d = copy_call(p, c);
    if (!d) return EMBER_E_NOMEM;
    EM_TRY(em_repeat_inputs(p, &d)); // may be made again themselves
    if (!(d->out[0] = second_life(p, c->out[0]))) return EMBER_E_NOMEM;
    return em_push_step(p, d, false);
}

ember_status em_repeat_inputs(struct em_program *p, struct em_call **call)
{
    struct em_call *c = *call, *d = NULL;
    for (unsigned i = 0; i < c->n_in; i++) {
        ember_tensor *t = c->in[i];
        if (!t || !t->info || !em_reads_in(c->op, i)) continue;
        const struct em_tensor_info *root = t->info->root->info;
        if (!root->repeats) continue;
        if (!root->copy) EM_TRY(repeat(p, root->repeats));
        if (!d && !(d = copy_call(p, c))) return EMBER_E_NOMEM;
        if (!(d->in[i] = second_life(p, t))) return EMBER_E_NOMEM;
    }
    if (d) *call = d;
    return EMBER_OK;
}
