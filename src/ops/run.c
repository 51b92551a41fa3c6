// Running a planned program.
#include <float.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "ops/bytes.h"
#include "ops/program_priv.h"
#include "ops/subset.h"

ember_status em_program_allocate(struct em_program *p)
{
    if (p->allocated) return EMBER_OK;
    EM_TRY(em_program_plan(p, NULL));
    EM_TRY(em_packs_allocate(p->packs));
    EM_TRY(em_subset_allocate(p));
    EM_TRY(em_scratch_reserve(&p->exec.scratch, p->memory.scratch + 2 * EM_SCRATCH_ALIGNMENT));
    if (!p->position && !(p->position = em_alloc(p->options.max_tokens * sizeof *p->position)))
        return EMBER_E_NOMEM;
    if (!p->memory.activations) p->memory.activations = 64;
    if (!(p->block = em_block_alloc(p->memory.activations))) return EMBER_E_NOMEM;
    em_place(p, p->block);
    p->allocated = true;
    return EMBER_OK;
}

void em_program_weights_changed(struct em_program *p)
{
    em_packs_changed(p->packs);
}

// A tensor's present number of rows; dispatch plans are filled by the time their rows are asked
// for.
void em_resolve_rows(const struct em_program *p, ember_tensor *t)
{
    const struct em_tensor_info *info = t->info;
    const ember_batch *batch = p->exec.batch;
    switch (info->rows) {
    case EM_ROWS_FIXED: return;
    case EM_ROWS_TOKENS: t->dim[0] = batch->n_tokens * info->multiple; break;
    case EM_ROWS_SEQUENCES: t->dim[0] = batch->n_sequences * info->multiple; break;
    case EM_ROWS_REACH:
        t->dim[0] = p->exec.reach < info->multiple ? p->exec.reach : info->multiple;
        break;
    case EM_ROWS_EXPERT: {
        const int32_t *offset = em_i32(info->plan);
        t->dim[0] = (size_t)(offset[info->expert + 1] - offset[info->expert]) * info->multiple;
        break;
    }
    case EM_ROWS_PLAN: t->dim[0] = (size_t)em_i32(info->plan)[info->expert] * info->multiple; break;
    }
    if (t->grad) t->grad->dim[0] = t->dim[0];
}

static void resolve_call(const struct em_program *p, const struct em_call *c)
{
    for (unsigned i = 0; i < c->n_in; i++)
        if (c->in[i] && c->in[i]->info) em_resolve_rows(p, c->in[i]);
    for (unsigned i = 0; i < c->n_out; i++)
        if (c->out[i]) em_resolve_rows(p, c->out[i]);
    for (unsigned i = 0; i < c->n_saved; i++)
        if (c->saved[i]) em_resolve_rows(p, c->saved[i]);
}

static ember_status check_state(const struct em_program *p, const struct em_run *run, size_t s)
{
    const ember_batch *b = run->batch;
    const ember_state *in = b->state_in ? b->state_in[s] : NULL,
                      *out = b->state_out ? b->state_out[s] : NULL;
    if ((in && !em_state_layouts_equal(&in->layout, &p->layout)) ||
        (out && !em_state_layouts_equal(&out->layout, &p->layout)))
        return em_fail(EMBER_E_STATE, "the state of sequence %zu was made for another model", s);
    if (in && in == out && run->gradients)
        return em_fail(EMBER_E_STATE,
                       "backward needs the state that sequence %zu started from: it cannot be "
                       "overwritten in place",
                       s);
    if (in && in->position > INT32_MAX - (b->offset[s + 1] - b->offset[s]))
        return em_fail(EMBER_E_RANGE, "sequence %zu is longer than %d tokens", s, INT32_MAX);
    if (in && in->claimed && in->claimed != s + 1)
        return em_fail(EMBER_E_STATE,
                       "sequence %zu of the batch overwrites the state that sequence %zu starts "
                       "from",
                       in->claimed - 1, s);
    return EMBER_OK;
}

// A state may be written by one sequence, and then read by no other; many may start from one.
static ember_status check_states(const struct em_program *p, const struct em_run *run)
{
    const ember_batch *b = run->batch;
    const size_t outputs = b->state_out ? b->n_sequences : 0;
    ember_status status = EMBER_OK;
    size_t claimed = 0;
    for (; claimed < outputs && status == EMBER_OK; claimed++) {
        ember_state *out = b->state_out[claimed];
        if (out && out->claimed)
            status = em_fail(EMBER_E_STATE, "sequences %zu and %zu of the batch leave one state",
                             out->claimed - 1, claimed);
        else if (out)
            out->claimed = claimed + 1;
    }
    for (size_t s = 0; s < b->n_sequences && status == EMBER_OK; s++)
        status = check_state(p, run, s);
    for (size_t s = 0; s < claimed; s++)
        if (b->state_out[s]) b->state_out[s]->claimed = 0;
    return status;
}

static ember_status check_timespans(const ember_batch *b)
{
    for (size_t t = 0; b->timespans && t < b->n_tokens; t++)
        if (!(b->timespans[t] > 0) || b->timespans[t] > FLT_MAX)
            return em_fail(EMBER_E_RANGE,
                           "timespans[%zu] is %g; it has to be finite and greater than 0", t,
                           (double)b->timespans[t]);
    return EMBER_OK;
}

static ember_status check_batch(const struct em_program *p, const struct em_run *run)
{
    const ember_batch *b = run->batch;
    if (!b->n_tokens || b->n_tokens > p->options.max_tokens)
        return em_fail(EMBER_E_SHAPE, "the batch has %zu tokens, the program takes 1 to %zu",
                       b->n_tokens, p->options.max_tokens);
    if (!b->n_sequences || b->n_sequences > p->options.max_sequences)
        return em_fail(EMBER_E_SHAPE, "the batch has %zu sequences, the program takes 1 to %zu",
                       b->n_sequences, p->options.max_sequences);
    if (!b->offset || b->offset[0] != 0 || b->offset[b->n_sequences] != b->n_tokens)
        return em_fail(EMBER_E_SHAPE, "the batch's offsets have to begin at 0 and end at %zu",
                       b->n_tokens);
    for (size_t s = 0; s < b->n_sequences; s++)
        if (b->offset[s] >= b->offset[s + 1])
            return em_fail(EMBER_E_SHAPE, "sequence %zu of the batch has no tokens", s);
    EM_TRY(check_timespans(b));
    if (p->values && !run->values)
        return em_fail(EMBER_E_SHAPE, "the loss needs values, and the run has none");
    for (size_t s = 0; p->sequence_tokens && s < b->n_sequences; s++)
        if (b->offset[s + 1] - b->offset[s] != p->sequence_tokens)
            return em_fail(EMBER_E_SHAPE,
                           "sequence %zu of the batch has %zu rows; the model reads images of %zu "
                           "pixels",
                           s, b->offset[s + 1] - b->offset[s], p->sequence_tokens);
    if (p->vocabulary) {
        if (!b->tokens)
            return em_fail(EMBER_E_SHAPE, "the model reads tokens, and the batch has none");
        for (size_t t = 0; t < b->n_tokens; t++)
            if (b->tokens[t] < 0 || (size_t)b->tokens[t] >= p->vocabulary)
                return em_fail(EMBER_E_RANGE,
                               "token %d at place %zu is outside the vocabulary of %zu",
                               b->tokens[t], t, p->vocabulary);
    }
    if (p->inputs && !b->inputs)
        return em_fail(EMBER_E_SHAPE, "the model reads vectors, and the batch has none");
    if (p->targets) {
        if (!b->targets)
            return em_fail(EMBER_E_SHAPE, "the loss needs targets, and the batch has none");
        for (size_t t = 0; t < b->n_tokens; t++)
            if (b->targets[t] >= 0 && (size_t)b->targets[t] >= p->targets)
                return em_fail(EMBER_E_RANGE,
                               "target %d at place %zu is outside the vocabulary of %zu",
                               b->targets[t], t, p->targets);
    }
    return check_states(p, run);
}

// A sequence that continues a state and whose new state nobody wants still needs a place for it:
// operations extend the old one there.
static ember_status give_spare_states(struct em_program *p, const ember_batch *b)
{
    p->batch = *b;
    if (!b->state_in) return EMBER_OK;
    if (!p->state_out) p->state_out = em_calloc(p->options.max_sequences, sizeof *p->state_out);
    if (!p->spare) p->spare = em_calloc(p->options.max_sequences, sizeof *p->spare);
    if (!p->state_out || !p->spare) return EMBER_E_NOMEM;
    for (size_t s = 0; s < b->n_sequences; s++) {
        p->state_out[s] = b->state_out ? b->state_out[s] : NULL;
        if (p->state_out[s] || !b->state_in[s]) continue;
        if (!p->spare[s]) EM_TRY(em_state_create(&p->layout, &p->spare[s]));
        p->state_out[s] = p->spare[s];
    }
    p->batch.state_out = p->state_out;
    return EMBER_OK;
}

// The scratch is the call's; the weights that it packs come first. Returns the mark to go back to.
static size_t begin_call(struct em_exec *x, const struct em_call *c)
{
    const size_t mark = em_scratch_mark(&x->scratch);
    x->n_passing = 0;
    if (c->n_packed) {
        x->passing = em_scratch_take(&x->scratch, c->n_packed * sizeof *x->passing);
        x->passing_space = em_scratch_take(&x->scratch, c->packed);
    }
    return mark;
}

void em_run_call(struct em_program *p, struct em_call *c)
{
    struct em_exec *x = &p->exec;
    const double start = em_clock_seconds();
    const size_t mark = begin_call(x, c);
    c->op->backend[x->backend].forward(c);
    em_scratch_reset(&x->scratch, mark);
    c->seconds[0] += em_clock_seconds() - start;
    if (!p->watched) return;
    struct em_cost forward = {0}, backward = {0};
    c->op->cost(c, &forward, &backward);
    p->work_done += forward.flops;
    p->watched->progress(p->watched->context, p->work_done < p->work ? p->work_done / p->work : 1);
}

// Views that no call names directly (an output kept for the caller) have rows too.
static void resolve_all(const struct em_program *p)
{
    for (size_t i = 0; i < p->n_tensors; i++)
        if (!p->tensor[i]->info->plan) em_resolve_rows(p, p->tensor[i]);
}

static void run_steps(struct em_program *p)
{
    for (size_t s = 0, r = 0; s < p->n_forward;) {
        if (r < p->n_runs && p->run[r].begin == s) {
            em_run_tiles(p, &p->run[r]);
            s = p->run[r++].end;
            continue;
        }
        struct em_call *c = p->step[s++].call;
        if (!em_subset_enter(p, c)) continue;
        resolve_call(p, c);
        em_run_call(p, c);
    }
    if (!p->subsets) return;
    em_subset_leave(p);
    resolve_all(p);
}

ember_status em_program_forward(struct em_program *p, const struct em_run *run)
{
    const ember_batch *b = &p->batch;
    if (!p->allocated) return em_fail(EMBER_E_STATE, "the program has no memory yet");
    p->forward_done = false;
    EM_TRY(check_batch(p, run));
    EM_TRY(give_spare_states(p, run->batch));
    for (size_t s = 0; b->state_out && s < b->n_sequences; s++)
        if (b->state_out[s])
            EM_TRY(em_state_reserve(b->state_out[s], b->state_in ? b->state_in[s] : NULL,
                                    b->offset[s + 1] - b->offset[s]));
    struct em_exec *x = &p->exec;
    x->training = run->training;
    x->gradients = run->gradients && p->n_steps > p->n_forward;
    x->loss_scale = run->loss_scale;
    x->aux_scale = run->aux_scale;
    x->seed = run->seed;
    x->step = run->step;
    x->update = run->update;
    x->batch = b;
    x->values = run->values;
    x->position = p->position;
    x->reach = 0;
    for (size_t s = 0; s < b->n_sequences; s++) {
        const size_t start = b->state_in && b->state_in[s] ? b->state_in[s]->position : 0;
        const size_t length = start + b->offset[s + 1] - b->offset[s];
        // An online convolution prepares sums for as many tokens again.
        const size_t reach = b->state_out && b->state_out[s] ? 2 * length : length;
        if (reach > x->reach) x->reach = reach;
        for (size_t t = b->offset[s]; t < b->offset[s + 1]; t++)
            p->position[t] = (int32_t)(start + t - b->offset[s]);
    }
    em_subset_leave(p);
    resolve_all(p);
    p->watched = run->progress ? run : NULL;
    p->work_done = 0;
    p->work = run->progress ? em_program_cost(p, false).flops : 0;
    run_steps(p);
    p->watched = NULL;
    for (size_t s = 0; b->state_out && s < b->n_sequences; s++)
        if (b->state_out[s])
            b->state_out[s]->position = (size_t)p->position[b->offset[s + 1] - 1] + 1;
    p->forward_done = x->gradients;
    return EMBER_OK;
}

static void zero_root(const struct em_program *p, const ember_tensor *t)
{
    ember_tensor *root = t->info->root;
    em_resolve_rows(p, root);
    em_zero_bytes(p->exec.pool, root->data, em_tensor_bytes(root));
}

// Of all rows, also where the call runs for some of the sequences alone.
static void zero_gradients(struct em_program *p, const struct em_call *c)
{
    if (p->subsets) em_subset_leave(p);
    for (unsigned i = 0; i < c->n_in; i++)
        if (c->zero[i]) zero_root(p, c->in[i]->grad);
    for (unsigned i = 0; i < c->n_out; i++)
        if (c->out[i] && c->out[i]->grad && c->out[i]->grad->info->root->info->unreached)
            zero_root(p, c->out[i]->grad);
}

ember_status em_program_backward(struct em_program *p)
{
    if (!p->loss || p->n_steps == p->n_forward)
        return em_fail(EMBER_E_STATE, "the program was not recorded with a loss and gradients");
    if (!p->forward_done)
        return em_fail(EMBER_E_STATE, "backward needs a forward with gradients before it");
    p->forward_done = false;
    struct em_exec *x = &p->exec;
    for (size_t i = 0, n = ember_tensor_count(p->loss); i < n; i++)
        em_f32(p->loss->grad)[i] = 1;
    for (size_t s = p->n_forward; s < p->n_steps; s++) {
        struct em_call *c = p->step[s].call;
        const double start = em_clock_seconds();
        if (p->step[s].backward) zero_gradients(p, c);
        if (!em_subset_enter(p, c)) continue;
        resolve_call(p, c);
        const size_t mark = begin_call(x, c);
        if (p->step[s].backward)
            c->op->backend[x->backend].backward(c);
        else
            c->op->backend[x->backend].forward(c);
        em_scratch_reset(&x->scratch, mark);
        c->seconds[1] += em_clock_seconds() - start;
    }
    return EMBER_OK;
}

void em_program_visit(const struct em_program *p,
                      void (*visit)(void *context, const struct em_call *call), void *context)
{
    for (size_t i = 0; i < p->n_calls; i++)
        visit(context, p->call[i]);
    // Calls that run a second time in backward have clones with a clock of their own, which is
    // shown with their last step.
    for (size_t s = p->n_forward; s < p->n_steps; s++) {
        const struct em_call *c = p->step[s].call;
        if (c != p->call[c->index] && p->step[s].last) visit(context, c);
    }
}

void em_program_reset_profile(struct em_program *p)
{
    for (size_t i = 0; i < p->n_calls; i++)
        p->call[i]->seconds[0] = p->call[i]->seconds[1] = 0;
    for (size_t s = 0; s < p->n_steps; s++)
        p->step[s].call->seconds[0] = p->step[s].call->seconds[1] = 0;
}
