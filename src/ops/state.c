#include "ops/state.h"

#include <string.h>

#include "base/alloc.h"

bool em_state_layouts_equal(const struct em_state_layout *a, const struct em_state_layout *b)
{
    if (a->count != b->count) return false;
    for (size_t i = 0; i < a->count; i++) {
        const struct em_state_spec *x = &a->spec[i], *y = &b->spec[i];
        if (x->fixed != y->fixed || x->per_token != y->per_token || x->window != y->window ||
            strcmp(x->name, y->name) != 0)
            return false;
    }
    return true;
}

static ember_status fill_slots(ember_state *s, const struct em_state_layout *layout)
{
    EM_TRY(em_grow(&s->layout.spec, &s->layout.capacity, layout->count, sizeof *s->layout.spec));
    s->slot = em_calloc(layout->count ? layout->count : 1, sizeof *s->slot);
    if (!s->slot) return EMBER_E_NOMEM;
    for (size_t i = 0; i < layout->count; i++) {
        size_t bytes;
        s->layout.spec[i] = layout->spec[i];
        s->layout.count = i + 1;
        if (!layout->spec[i].fixed) continue;
        if (!em_mul_size(layout->spec[i].fixed, sizeof(float), &bytes))
            return em_fail(EMBER_E_NOMEM, "%s: a state of %zu floats does not fit into memory",
                           layout->spec[i].name, layout->spec[i].fixed);
        if (!(s->slot[i].fixed = em_alloc_aligned(bytes))) return EMBER_E_NOMEM;
    }
    return EMBER_OK;
}

ember_status em_state_create(const struct em_state_layout *layout, ember_state **state)
{
    ember_state *s = em_calloc(1, sizeof *s);
    if (!s) return EMBER_E_NOMEM;
    const ember_status status = fill_slots(s, layout);
    if (status != EMBER_OK) {
        em_state_destroy(s);
        return status;
    }
    em_state_reset(s);
    *state = s;
    return EMBER_OK;
}

void em_state_destroy(ember_state *state)
{
    if (!state) return;
    for (size_t i = 0; i < state->layout.count; i++) {
        em_free(state->slot[i].fixed);
        em_free(state->slot[i].tokens);
    }
    em_free(state->slot);
    em_free(state->layout.spec);
    em_free(state);
}

void em_state_reset(ember_state *state)
{
    state->position = 0;
    for (size_t i = 0; i < state->layout.count; i++) {
        if (state->slot[i].fixed)
            memset(state->slot[i].fixed, 0, state->layout.spec[i].fixed * sizeof(float));
        state->slot[i].length = 0;
    }
}

static ember_status grow_slot(struct em_slot *slot, size_t per_token, size_t tokens)
{
    size_t bytes;
    if (tokens <= slot->capacity) return EMBER_OK;
    if (!em_mul_size(tokens, per_token, &bytes) || !em_mul_size(bytes, sizeof(float), &bytes))
        return em_fail(EMBER_E_NOMEM, "a state of %zu tokens does not fit into memory", tokens);
    float *grown = em_alloc_aligned(bytes);
    if (!grown) return EMBER_E_NOMEM;
    if (slot->length) memcpy(grown, slot->tokens, slot->length * per_token * sizeof(float));
    em_free(slot->tokens);
    slot->tokens = grown;
    slot->capacity = tokens;
    return EMBER_OK;
}

ember_status em_state_copy(const ember_state *from, ember_state *to)
{
    if (from == to) return EMBER_OK;
    if (!em_state_layouts_equal(&from->layout, &to->layout))
        return em_fail(EMBER_E_STATE, "the states belong to different models");
    for (size_t i = 0; i < to->layout.count; i++) {
        const size_t per_token = to->layout.spec[i].per_token;
        if (per_token) EM_TRY(grow_slot(&to->slot[i], per_token, from->slot[i].length));
    }
    for (size_t i = 0; i < to->layout.count; i++) {
        const struct em_state_spec *spec = &to->layout.spec[i];
        if (spec->fixed)
            memcpy(to->slot[i].fixed, from->slot[i].fixed, spec->fixed * sizeof(float));
        to->slot[i].length = from->slot[i].length;
        if (from->slot[i].length)
            memcpy(to->slot[i].tokens, from->slot[i].tokens,
                   from->slot[i].length * spec->per_token * sizeof(float));
    }
    to->position = from->position;
    return EMBER_OK;
}

size_t em_state_bytes(const ember_state *state)
{
    size_t bytes = 0;
    for (size_t i = 0; i < state->layout.count; i++)
        bytes += (state->layout.spec[i].fixed +
                  state->slot[i].capacity * state->layout.spec[i].per_token) *
                 sizeof(float);
    return bytes;
}

// Room doubles, so that a token at a time costs no more than all at once.
ember_status em_state_reserve(ember_state *state, const ember_state *in, size_t more)
{
    for (size_t i = 0; i < state->layout.count; i++) {
        const struct em_state_spec *spec = &state->layout.spec[i];
        struct em_slot *slot = &state->slot[i];
        if (!spec->per_token) continue;
        size_t keep = in ? in->slot[i].length : 0, need;
        if (spec->window && keep > spec->window - 1) keep = spec->window - 1;
        if (!em_add_size(keep, more, &need))
            return em_fail(EMBER_E_NOMEM, "a state of that many tokens does not fit into memory");
        if (need <= slot->capacity) continue;
        size_t capacity = slot->capacity < 32 ? 64 : slot->capacity * 2;
        if (spec->window && capacity > 2 * spec->window) capacity = 2 * spec->window;
        EM_TRY(grow_slot(slot, spec->per_token, capacity > need ? capacity : need));
    }
    return EMBER_OK;
}

const struct em_slot *em_slot_in(const struct em_call *c, size_t sequence)
{
    const ember_batch *b = c->exec->batch;
    if (c->slot < 0) return NULL;
    if (c->carry && c->exec->cut_before && sequence == 0) return c->carry;
    return b->state_in && b->state_in[sequence] ? &b->state_in[sequence]->slot[c->slot] : NULL;
}

struct em_slot *em_slot_out(const struct em_call *c, size_t sequence)
{
    const ember_batch *b = c->exec->batch;
    if (c->slot < 0) return NULL;
    if (c->carry && c->exec->cut_after && sequence + 1 == b->n_sequences) return c->carry;
    return b->state_out && b->state_out[sequence] ? &b->state_out[sequence]->slot[c->slot] : NULL;
}
