#include "train/routing_trace.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"

enum { NOWHERE = -1, MOST_MOMENTS = 32 };

struct em_routing_moment {
    uint64_t step;
    bool *seen;      // [domains]
    int32_t *choice; // [routers][domains][EM_TRACE_TOKENS][k], NOWHERE where there is none
};

static void free_moment(struct em_routing_moment *m)
{
    em_free(m->seen);
    em_free(m->choice);
    *m = (struct em_routing_moment){0};
}

static ember_status lay_out(struct em_routing_trace *t, const struct em_stepper *s, size_t domains)
{
    if (t->begin) return EMBER_OK;
    size_t *begin = em_calloc(s->n_routers + 1, sizeof *begin);
    if (!begin) return EMBER_E_NOMEM;
    for (size_t i = 0; i < s->n_routers; i++)
        begin[i + 1] = begin[i] + domains * EM_TRACE_TOKENS * s->routers[i].routing.k;
    t->begin = begin;
    t->routers = s->n_routers;
    t->domains = domains;
    return EMBER_OK;
}

ember_status em_routing_trace_begin(struct em_routing_trace *t, const struct em_stepper *s,
                                    size_t domains, uint64_t step)
{
    if (!s->n_routers || !domains) return EMBER_OK;
    EM_TRY(lay_out(t, s, domains));
    while (t->count && t->moment[t->count - 1].step >= step)
        free_moment(&t->moment[--t->count]);
    if (t->count == MOST_MOMENTS) { // every other one is enough
        for (size_t i = 0; i < t->count; i++)
            if (i % 2)
                free_moment(&t->moment[i]);
            else
                t->moment[i / 2] = t->moment[i];
        t->count = MOST_MOMENTS / 2;
    }
    EM_TRY(em_grow(&t->moment, &t->capacity, t->count + 1, sizeof *t->moment));
    const size_t n = t->begin[t->routers];
    struct em_routing_moment m = {.step = step};
    m.seen = em_calloc(domains, sizeof *m.seen);
    m.choice = em_calloc(n, sizeof *m.choice);
    if (!m.seen || !m.choice) {
        free_moment(&m);
        return EMBER_E_NOMEM;
    }
    for (size_t i = 0; i < n; i++)
        m.choice[i] = NOWHERE;
    t->moment[t->count++] = m;
    return EMBER_OK;
}

void em_routing_trace_add(struct em_routing_trace *t, const struct em_stepper *s, size_t domain)
{
    if (!t->count) return;
    struct em_routing_moment *m = &t->moment[t->count - 1];
    const size_t tokens = s->packed.batch.n_tokens;
    if (m->seen[domain]) return;
    m->seen[domain] = true;
    for (size_t i = 0; i < t->routers; i++) {
        const ember_routing *r = &s->routers[i].routing;
        const size_t rows = tokens < EM_TRACE_TOKENS ? tokens : EM_TRACE_TOKENS;
        if (r->indices->dim[0] != tokens) continue; // of sequences, or within an expert
        memcpy(m->choice + t->begin[i] + domain * EM_TRACE_TOKENS * r->k, em_i32(r->indices),
               rows * r->k * sizeof *m->choice);
    }
}

void em_routing_trace_close(struct em_routing_trace *t)
{
    while (t->count)
        free_moment(&t->moment[--t->count]);
    em_free(t->moment);
    em_free(t->begin);
    *t = (struct em_routing_trace){0};
}

uint64_t em_routing_trace_step(const struct em_routing_trace *t, size_t moment)
{
    return t->moment[moment].step;
}

double em_routing_trace_agreement(const struct em_routing_trace *t, size_t router, size_t moment)
{
    const size_t begin = t->begin[router], n = t->begin[router + 1] - begin;
    const size_t k = n / (t->domains * EM_TRACE_TOKENS);
    const int32_t *last = t->moment[t->count - 1].choice + begin,
                  *then = t->moment[moment].choice + begin;
    size_t chosen = 0, common = 0;
    for (size_t token = 0; token < n; token += k)
        for (size_t j = 0; j < k; j++) {
            bool again = false;
            for (size_t a = 0; a < k && !again; a++)
                again = last[token + j] != NOWHERE && then[token + a] == last[token + j];
            chosen += last[token + j] != NOWHERE;
            common += again;
        }
    return chosen ? (double)common / (double)chosen : (double)NAN;
}
