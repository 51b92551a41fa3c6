#include "ops/subset.h"

#include <string.h>

#include "base/alloc.h"
#include "ops/moe_plan.h"

ember_status em_subset_allocate(struct em_program *p)
{
    const size_t S = p->options.max_sequences, T = p->options.max_tokens;
    struct em_subset_space *m = &p->subset;
    if (!p->subsets || m->offset) return EMBER_OK;
    m->offset = em_calloc(S + 1, sizeof *m->offset);
    m->sequence = em_calloc(S, sizeof *m->sequence);
    m->state_in = em_calloc(S, sizeof *m->state_in);
    m->state_out = em_calloc(S, sizeof *m->state_out);
    m->labels = em_calloc(S, sizeof *m->labels);
    m->tokens = em_calloc(T, sizeof *m->tokens);
    m->position = em_calloc(T, sizeof *m->position);
    m->timespans = em_calloc(T, sizeof *m->timespans);
    const bool whole = m->offset && m->sequence && m->state_in && m->state_out && m->labels &&
                       m->tokens && m->position && m->timespans;
    return whole ? EMBER_OK : EMBER_E_NOMEM;
}

void em_subset_free(struct em_program *p)
{
    struct em_subset_space *m = &p->subset;
    em_free(m->offset);
    em_free(m->sequence);
    em_free(m->state_in);
    em_free(m->state_out);
    em_free(m->labels);
    em_free(m->tokens);
    em_free(m->position);
    em_free(m->timespans);
    *m = (struct em_subset_space){0};
}

void em_subset_leave(struct em_program *p)
{
    p->exec.batch = &p->batch;
    p->exec.position = p->position;
    p->exec.sequence = NULL;
    p->subset.present = NULL;
}

static void add_sequence(struct em_program *p, size_t s)
{
    struct em_subset_space *m = &p->subset;
    const ember_batch *b = &p->batch;
    const size_t n = m->batch.n_sequences++, at = m->offset[n], first = b->offset[s],
                 length = b->offset[s + 1] - first;
    m->offset[n + 1] = at + length;
    m->sequence[n] = s;
    if (b->state_in) m->state_in[n] = b->state_in[s];
    if (b->state_out) m->state_out[n] = b->state_out[s];
    if (b->labels) m->labels[n] = b->labels[s];
    if (b->tokens) memcpy(m->tokens + at, b->tokens + first, length * sizeof *m->tokens);
    if (b->timespans)
        memcpy(m->timespans + at, b->timespans + first, length * sizeof *m->timespans);
    memcpy(m->position + at, p->position + first, length * sizeof *m->position);
    m->batch.n_tokens += length;
}

bool em_subset_enter(struct em_program *p, const struct em_call *c)
{
    const struct em_subset *subset = c->subset;
    struct em_subset_space *m = &p->subset;
    if (!subset) {
        if (m->present) em_subset_leave(p);
        return true;
    }
    if (m->present != subset) {
        const ember_batch *b = &p->batch;
        const int32_t *offset = em_plan_offset(subset->plan),
                      *order = em_plan_order(subset->plan, subset->n_experts);
        m->batch = (ember_batch){.offset = m->offset,
                                 .tokens = b->tokens ? m->tokens : NULL,
                                 .timespans = b->timespans ? m->timespans : NULL,
                                 .labels = b->labels ? m->labels : NULL,
                                 .state_in = b->state_in ? m->state_in : NULL,
                                 .state_out = b->state_out ? m->state_out : NULL};
        for (int32_t r = offset[subset->expert]; r < offset[subset->expert + 1]; r++)
            add_sequence(p, (size_t)order[r] / subset->k);
        p->exec.batch = &m->batch;
        p->exec.position = m->position;
        p->exec.sequence = m->sequence;
        m->present = subset;
    }
    return m->batch.n_sequences > 0;
}

void ember_sequences_begin(ember_flow *flow, const ember_routing *routing, size_t expert)
{
    struct em_subset *s = em_arena_alloc(&flow->program->arena, sizeof *s);
    if (!s) { // the next call finds no memory either
        flow->failed = true;
        return;
    }
    *s = (struct em_subset){routing->plan, routing->n_experts, expert, routing->k};
    flow->subset = s;
    flow->program->subsets = true;
}

void ember_sequences_end(ember_flow *flow)
{
    flow->subset = NULL;
}
