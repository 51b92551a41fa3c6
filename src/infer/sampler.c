// Chains of samplers, and the draw.
#include "infer/sampler.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/arena.h"

const ember_sampling em_sampling_default = {
    .temperature = 0.8, .top_k = 40, .top_p = 0.95, .min_p = 0.05, .repeat_penalty = 1};

enum { HISTORY = 64, MAX_SAMPLERS = 64 };

struct em_sampler_chain {
    struct em_arena arena;
    json_t *list; // strings of options live in it
    size_t count;
    struct {
        const struct em_sampler_type *type;
        void *options;
    } sampler[MAX_SAMPLERS];
};

static ember_status add(json_t *list, json_t *sampler)
{
    return sampler && json_array_append_new(list, sampler) == 0
               ? EMBER_OK
               : em_fail(EMBER_E_NOMEM, "sampling: out of memory");
}

static ember_status add_filters(json_t *list, const ember_sampling *s)
{
    if (s->top_k)
        EM_TRY(add(list, json_pack("{s:s, s:I}", "type", "top_k", "k", (json_int_t)s->top_k)));
    if (s->top_p < 1) EM_TRY(add(list, json_pack("{s:s, s:f}", "type", "top_p", "p", s->top_p)));
    if (s->min_p > 0) EM_TRY(add(list, json_pack("{s:s, s:f}", "type", "min_p", "p", s->min_p)));
    return EMBER_OK;
}

static ember_status fill_list(json_t *list, const ember_sampling *s)
{
    if (s->repeat_penalty != 1)
        EM_TRY(add(list,
                   json_pack("{s:s, s:f, s:i}", "type", "repeat_penalty", "penalty",
                             s->repeat_penalty, "last", s->order == EMBER_ORDER_HF ? 0 : HISTORY)));
    if (!(s->temperature > 0)) return add(list, json_pack("{s:s}", "type", "greedy"));
    json_t *temperature =
        json_pack("{s:s, s:f}", "type", "temperature", "temperature", s->temperature);
    if (s->order == EMBER_ORDER_HF) {
        EM_TRY(add(list, temperature));
        return add_filters(list, s);
    }
    const ember_status status = add_filters(list, s);
    if (status != EMBER_OK) {
        json_decref(temperature);
        return status;
    }
    return add(list, temperature);
}

ember_status em_sampling_list(const ember_sampling *s, json_t **list)
{
    json_t *l = json_array();
    const ember_status status =
        l ? fill_list(l, s) : em_fail(EMBER_E_NOMEM, "sampling: out of memory");
    if (status != EMBER_OK) {
        json_decref(l);
        return status;
    }
    *list = l;
    return EMBER_OK;
}

static ember_status add_sampler(struct em_sampler_chain *chain, const json_t *config,
                                const char *where, size_t i)
{
    char at[256];
    const struct em_component *component;
    snprintf(at, sizeof at, "%.200s[%zu]", where, i);
    const char *name = json_is_string(config) ? json_string_value(config)
                                              : json_string_value(json_object_get(config, "type"));
    if (!name)
        return em_fail(EMBER_E_CONFIG,
                       "%s has to be a sampler: an object with a \"type\", or its name", at);
    EM_TRY(em_registry_need(EMBER_SAMPLER, name, at, &component));
    void *options = em_arena_alloc(&chain->arena, component->size ? component->size : 1);
    if (!options) return EMBER_E_NOMEM;
    EM_TRY(em_options_read(component->options, config, at, NULL, options));
    chain->sampler[chain->count].type = component->impl;
    chain->sampler[chain->count++].options = options;
    return EMBER_OK;
}

ember_status em_sampler_chain_create(const json_t *list, const char *where,
                                     struct em_sampler_chain **chain)
{
    if (!json_is_array(list) || json_array_size(list) > MAX_SAMPLERS)
        return em_fail(EMBER_E_CONFIG, "%s has to be a list of at most %d samplers", where,
                       MAX_SAMPLERS);
    struct em_sampler_chain *c = em_calloc(1, sizeof *c);
    if (!c) return EMBER_E_NOMEM;
    ember_status status = EMBER_OK;
    if (!(c->list = json_deep_copy(list)))
        status = em_fail(EMBER_E_NOMEM, "%s: out of memory", where);
    for (size_t i = 0; status == EMBER_OK && i < json_array_size(list); i++)
        status = add_sampler(c, json_array_get(c->list, i), where, i);
    if (status != EMBER_OK) {
        em_sampler_chain_destroy(c);
        return status;
    }
    *chain = c;
    return EMBER_OK;
}

void em_sampler_chain_destroy(struct em_sampler_chain *chain)
{
    if (!chain) return;
    json_decref(chain->list);
    em_arena_deinit(&chain->arena);
    em_free(chain);
}

ember_status em_sampler_chain_from(const ember_sampling *s, struct em_sampler_chain **chain)
{
    json_t *list;
    EM_TRY(em_sampling_list(s, &list));
    const ember_status status = em_sampler_chain_create(list, "sampling", chain);
    json_decref(list);
    return status;
}

ember_status em_sampler_work_init(struct em_sampler_work *w, size_t vocabulary)
{
    *w = (struct em_sampler_work){.vocabulary = vocabulary};
    w->item = em_calloc(vocabulary, sizeof *w->item);
    w->mark = em_calloc(vocabulary, 1);
    if (w->item && w->mark) return EMBER_OK;
    em_sampler_work_deinit(w);
    return EMBER_E_NOMEM;
}

void em_sampler_work_deinit(struct em_sampler_work *w)
{
    em_free(w->item);
    em_free(w->mark);
    *w = (struct em_sampler_work){0};
}

ember_status em_sampler_candidates(const struct em_sampler_chain *chain,
                                   struct em_sampler_work *work, const float *logits,
                                   const int32_t *history, size_t length,
                                   struct em_candidates *candidates)
{
    struct em_candidates c = {.item = work->item,
                              .count = work->vocabulary,
                              .history = history,
                              .length = length,
                              .mark = work->mark};
    float max = -INFINITY;
    for (size_t i = 0; i < c.count; i++) {
        if (isnan(logits[i]))
            return em_fail(EMBER_E_NUMERIC,
                           "the model's logit of token %zu after %zu is not a number", i, length);
        if (logits[i] > max) max = logits[i];
        c.item[i] = (struct em_candidate){(int32_t)i, logits[i]};
    }
    if (!isfinite(max))
        return em_fail(EMBER_E_NUMERIC, "the model's largest logit after %zu tokens is %g", length,
                       (double)max);
    for (size_t i = 0; i < chain->count; i++)
        chain->sampler[i].type->apply(chain->sampler[i].options, &c);
    *candidates = c;
    return EMBER_OK;
}

ember_status em_sample(const struct em_sampler_chain *chain, struct em_sampler_work *work,
                       const float *logits, const int32_t *history, size_t length,
                       struct em_rng *rng, int32_t *token)
{
    struct em_candidates c;
    EM_TRY(em_sampler_candidates(chain, work, logits, history, length, &c));
    size_t chosen = 0;
    if (c.count > 1) {
        const double max = (double)em_candidates_max(&c);
        double total = 0, sum = 0;
        for (size_t i = 0; i < c.count; i++)
            total += exp((double)c.item[i].logit - max);
        const double draw = em_rng_uniform(rng) * total;
        for (size_t i = 0; i < c.count; i++) {
            const double p = exp((double)c.item[i].logit - max);
            if (p > 0) chosen = i; // rounding may leave the draw just past the last sum
            sum += p;
            if (draw < sum) break;
        }
    }
    *token = c.item[chosen].id;
    return EMBER_OK;
}
