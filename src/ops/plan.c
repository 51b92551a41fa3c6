// The dry run: the schedule of a step, every buffer's lifetime, and its offset in one block.
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "ops/program_priv.h"

ember_status em_push_step(struct em_program *p, struct em_call *c, bool backward)
{
    EM_TRY(em_grow(&p->step, &p->steps_capacity, p->n_steps + 1, sizeof *p->step));
    p->step[p->n_steps++] = (struct step){.call = c, .backward = backward};
    return EMBER_OK;
}

static ember_status schedule(struct em_program *p)
{
    p->n_steps = 0;
    for (size_t i = 0; i < p->n_calls; i++)
        EM_TRY(em_push_step(p, p->call[i], false));
    p->n_forward = p->n_steps;
    if (!p->options.gradients || !p->loss) return EMBER_OK;
    struct em_call **backward = em_alloc(p->n_calls * sizeof *backward);
    if (!backward) return EMBER_E_NOMEM;
    if (p->options.recompute == EM_RECOMPUTE_CHEAP) em_find_repeats(p);
    memcpy(backward, p->call, p->n_calls * sizeof *backward);
    ember_status status = EMBER_OK;
    for (size_t i = p->n_calls; i-- > 0 && status == EMBER_OK;) {
        const int region = p->call[i]->region;
        if (p->options.recompute == EM_RECOMPUTE_REGIONS && region >= 0 &&
            (i + 1 == p->n_calls || p->call[i + 1]->region != region)) {
            size_t begin = i;
            while (begin > 0 && p->call[begin - 1]->region == region)
                begin--;
            status = em_recompute_region(p, backward, begin, i + 1);
        }
        if (!backward[i]->op->backend[EM_CPU].backward) continue;
        if (status == EMBER_OK) status = em_repeat_inputs(p, &backward[i]);
        if (status == EMBER_OK) status = em_push_step(p, backward[i], true);
    }
    em_free(backward);
    return status;
}

// ---- gradients: who writes first, who only passes on, who is never reached ----

static struct em_tensor_info *root_info(const ember_tensor *t)
{
    return t && t->info ? t->info->root->info : NULL;
}

static bool is_whole(const ember_tensor *t)
{
    return t->info && t->info->root_offset == 0 && em_is_contiguous(t) &&
           em_tensor_bytes(t) == em_tensor_bytes(t->info->root);
}

static bool may_pass(const struct em_call *c)
{
    if (c->pass < 0 || !c->in[c->pass] || !c->in[c->pass]->grad || !c->in[c->pass]->grad->info)
        return false;
    const ember_tensor *to = c->in[c->pass]->grad, *from = c->out[0]->grad;
    const struct em_tensor_info *root = root_info(to);
    if (!is_whole(to) || !is_whole(from) || root->first != EM_NEVER || root->alias) return false;
    if (root->rows != root_info(from)->rows || root_info(from)->keep) return false;
    for (unsigned i = 0; i < c->n_in; i++)
        if ((int)i != c->pass && c->in[i] && c->in[i]->grad && root_info(c->in[i]->grad) == root)
            return false;
    return true;
}

// Marks first writes in the order of backward steps; drops steps that no gradient reaches. Uses
// `first` of gradient roots as "already written" until lifetimes are computed.
static void find_first_writes(struct em_program *p)
{
    if (p->n_steps == p->n_forward) return;
    root_info(p->loss->grad)->first = 0;
    size_t kept = p->n_forward;
    for (size_t s = p->n_forward; s < p->n_steps; s++) {
        struct em_call *c = p->step[s].call;
        if (p->step[s].backward) {
            bool reached = false;
            for (unsigned i = 0; i < c->n_out; i++)
                reached = reached || (c->out[i] && c->out[i]->grad &&
                                      root_info(c->out[i]->grad)->first != EM_NEVER);
            if (!reached) continue;
            if (may_pass(c)) {
                struct em_tensor_info *to = root_info(c->in[c->pass]->grad);
                to->first = s;
                to->alias = c->out[0]->grad->info->root;
                c->passed = true;
            }
            for (unsigned i = 0; i < c->n_in; i++) {
                struct em_tensor_info *info = em_wants(c, i) ? root_info(c->in[i]->grad) : NULL;
                if (!info || info->first != EM_NEVER) continue;
                info->first = s;
                const bool sets = (c->op->flags & EM_OP_SETS_FRESH) && is_whole(c->in[i]->grad);
                c->fresh[i] = sets;
                c->zero[i] = !sets;
            }
            for (unsigned i = 0; i < c->n_out; i++) {
                struct em_tensor_info *info =
                    c->out[i] && c->out[i]->grad ? root_info(c->out[i]->grad) : NULL;
                if (info && info->first == EM_NEVER) info->unreached = true;
            }
        }
        p->step[kept++] = p->step[s];
    }
    p->n_steps = kept;
}

// A call's last step is its backward; without one, the only step of its forward.
static void find_last_steps(struct em_program *p)
{
    for (size_t s = 0; s < p->n_steps; s++)
        if (p->step[s].backward) p->step[s].call->has_backward = true;
    for (size_t s = 0; s < p->n_steps; s++)
        p->step[s].last = p->step[s].backward || !p->step[s].call->has_backward;
}

// ---- lifetimes and offsets ----

static ember_tensor *home(ember_tensor *root)
{
    while (root->info->alias)
        root = root->info->alias;
    return root;
}

static void touch(const ember_tensor *t, size_t step)
{
    if (!t || !t->info) return;
    struct em_tensor_info *info = home(t->info->root)->info;
    if (info->first == EM_NEVER || step < info->first) info->first = step;
    if (info->last == EM_NEVER || step > info->last) info->last = step;
}

static void touch_rows(const ember_tensor *t, size_t step)
{
    if (t && t->info && t->info->plan) touch(t->info->plan, step);
}

static void find_lifetimes(struct em_program *p)
{
    for (size_t i = 0; i < p->n_tensors; i++)
        p->tensor[i]->info->first = p->tensor[i]->info->last = EM_NEVER;
    if (p->n_steps > p->n_forward) touch(p->loss->grad, p->n_forward);
    for (size_t s = 0; s < p->n_steps; s++) {
        const struct em_call *c = p->step[s].call;
        const bool backward = p->step[s].backward;
        for (unsigned i = 0; i < c->n_in; i++) {
            if (!c->in[i]) continue;
            touch_rows(c->in[i], s);
            if (!backward || em_reads_in(c->op, i)) touch(c->in[i], s);
            if (backward) touch(c->in[i]->grad, s);
        }
        for (unsigned i = 0; i < c->n_out; i++) {
            if (!c->out[i]) continue;
            touch_rows(c->out[i], s);
            if (!backward || (c->op->backward_reads & EM_READS_OUT(i))) touch(c->out[i], s);
            if (backward) touch(c->out[i]->grad, s);
        }
        for (unsigned i = 0; i < c->n_saved; i++)
            touch(c->saved[i], s);
    }
    for (size_t i = 0; i < p->n_tensors; i++) {
        const ember_tensor *t = p->tensor[i];
        if (t->info->root != t || !(t->info->keep || t->info->lasting)) continue;
        touch(t, p->n_steps - 1);
        if (t->info->lasting) touch(t, 0);
    }
}

static int larger_first(const void *a, const void *b)
{
    const struct em_tensor_info *x = (*(ember_tensor *const *)a)->info,
                                *y = (*(ember_tensor *const *)b)->info;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    if (x->first != y->first) return x->first < y->first ? -1 : 1;
    return x->last < y->last ? -1 : x->last > y->last;
}

static int lower_first(const void *a, const void *b)
{
    const struct em_tensor_info *x = (*(ember_tensor *const *)a)->info,
                                *y = (*(ember_tensor *const *)b)->info;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

// Greedy by size: each buffer goes to the lowest gap that is free during its life.
static ember_status assign_offsets(struct em_program *p)
{
    ember_tensor **buffer = em_alloc((p->n_tensors + 1) * 2 * sizeof(ember_tensor *));
    if (!buffer) return EMBER_E_NOMEM;
    ember_tensor **conflict = buffer + p->n_tensors + 1;
    size_t n = 0;
    p->memory.activations = p->memory.sum_of_buffers = 0;
    for (size_t i = 0; i < p->n_tensors; i++) {
        ember_tensor *t = p->tensor[i];
        if (t->info->root != t || t->info->alias || t->info->shared || t->info->first == EM_NEVER)
            continue;
        t->info->bytes = (em_tile_bytes(p, t) + 127) / 128 * 128;
        buffer[n++] = t;
        p->memory.sum_of_buffers += t->info->bytes;
    }
    qsort(buffer, n, sizeof *buffer, larger_first);
    for (size_t i = 0; i < n; i++) {
        struct em_tensor_info *info = buffer[i]->info;
        size_t conflicts = 0, at = 0;
        for (size_t j = 0; j < i; j++) {
            const struct em_tensor_info *other = buffer[j]->info;
            if (other->first <= info->last && info->first <= other->last)
                conflict[conflicts++] = buffer[j];
        }
        qsort(conflict, conflicts, sizeof *conflict, lower_first);
        for (size_t j = 0; j < conflicts; j++) {
            const struct em_tensor_info *other = conflict[j]->info;
            if (at + info->bytes <= other->offset) break;
            if (other->offset + other->bytes > at) at = other->offset + other->bytes;
        }
        info->offset = at;
        if (at + info->bytes > p->memory.activations) p->memory.activations = at + info->bytes;
    }
    em_free(buffer);
    return EMBER_OK;
}

// What an earlier plan of fewer calls found out.
static void forget_plan(struct em_program *p)
{
    for (size_t i = 0; i < p->n_tensors; i++) {
        struct em_tensor_info *info = p->tensor[i]->info;
        info->first = info->last = EM_NEVER;
        info->tiled = false;
        info->alias = info->copy = NULL;
        info->repeats = NULL;
        info->unreached = false;
    }
    for (size_t i = 0; i < p->n_calls; i++) {
        struct em_call *c = p->call[i];
        c->passed = c->has_backward = false;
        c->carry = NULL;
        for (unsigned j = 0; j < c->n_in; j++)
            c->fresh[j] = c->zero[j] = false;
    }
}

ember_status em_program_plan(struct em_program *p, struct em_memory_plan *plan)
{
    if (!p->planned) {
        if (p->allocated)
            return em_fail(EMBER_E_STATE,
                           "a program cannot be planned again after it was allocated");
        if (p->options.gradients && p->loss && (!p->loss->grad || !p->loss->info))
            return em_fail(EMBER_E_STATE,
                           "the loss does not depend on any parameter that has a gradient");
        if (p->options.gradients && p->loss &&
            (!is_whole(p->loss) || ember_tensor_count(p->loss) != 1))
            return em_fail(EMBER_E_SHAPE, "the loss has to be one number, and no part of a tensor");
        EM_TRY(em_fuse_residuals(p));
        forget_plan(p);
        EM_TRY(schedule(p));
        for (size_t i = 0; i < p->n_tensors; i++) // clones used `last` as a mark
            p->tensor[i]->info->last = EM_NEVER;
        find_first_writes(p);
        find_last_steps(p);
        find_lifetimes(p);
        EM_TRY(em_find_tiles(p));
        EM_TRY(assign_offsets(p));
        p->carries = p->memory.activations;
        p->memory.activations += em_carries_bytes(p);
        p->memory.packed = em_packs_bytes(p->packs);
        p->memory.scratch = 0;
        for (size_t i = 0; i < p->n_calls; i++)
            if (p->call[i]->scratch > p->memory.scratch) p->memory.scratch = p->call[i]->scratch;
        p->memory.state = 0;
        for (size_t i = 0; i < p->layout.count; i++) {
            const struct em_state_spec *s = &p->layout.spec[i];
            const size_t tokens =
                s->window && s->window < p->options.max_tokens ? s->window : p->options.max_tokens;
            p->memory.state += (s->fixed + s->per_token * tokens) * sizeof(float);
        }
        p->planned = true;
    }
    if (plan) *plan = p->memory;
    return EMBER_OK;
}

struct em_cost em_program_cost(const struct em_program *p, bool backward)
{
    struct em_cost sum = {0};
    for (size_t i = 0; i < p->n_calls; i++) {
        struct em_cost f = {0}, b = {0};
        p->call[i]->op->cost(p->call[i], &f, &b);
        sum.flops += backward ? b.flops : f.flops;
        sum.bytes += backward ? b.bytes : f.bytes;
    }
    return sum;
}

// Points every tensor into the block.
void em_place(struct em_program *p, char *block)
{
    for (size_t i = 0; i < p->n_tensors; i++) {
        ember_tensor *t = p->tensor[i];
        const struct em_tensor_info *at = home(t->info->root)->info;
        char *memory = at->shared ? em_packs_shared(p->packs, at->shared) : block + at->offset;
        t->data = memory + t->info->root_offset;
    }
    em_place_carries(p, block + p->carries);
}
