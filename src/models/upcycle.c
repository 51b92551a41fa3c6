#include "models/upcycle.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

static ember_status no_memory(void)
{
    return em_fail(EMBER_E_NOMEM, "out of memory");
}

static bool is_chosen(const struct em_upcycle *how, size_t block)
{
    for (size_t i = 0; i < how->layers; i++)
        if (how->layer[i] == block) return true;
    return !how->layers;
}

static bool is_mixture(const json_t *channel)
{
    const json_t *type = json_is_object(channel) ? json_object_get(channel, "type") : channel;
    const char *name = json_is_string(type) ? json_string_value(type) : "";
    return strcmp(name, "moe") == 0 || strcmp(name, "soft_moe") == 0;
}

static ember_status edit_config(struct em_model *m, const struct em_upcycle *how,
                                struct em_buf *said, json_t **config)
{
    size_t changed = 0;
    for (size_t i = 0; i < m->n_blocks; i++) {
        json_t *node = (json_t *)(uintptr_t)m->block_config[i],
               *channel = json_object_get(node, "channel");
        if (!channel || is_mixture(channel) || !is_chosen(how, i)) continue;
        json_t *moe = json_pack("{s:s, s:I, s:O, s:{s:s, s:I}}", "type", "moe", "experts",
                                (json_int_t)how->experts, "expert", channel, "router", "type",
                                "softmax_topk", "k", (json_int_t)how->k);
        if (!moe || json_object_set_new(node, "channel", moe) != 0) return no_memory();
        EM_TRY(em_buf_printf(said, "blocks.%zu.channel: %zu experts, %zu a token\n", i,
                             how->experts, how->k));
        changed++;
    }
    if (!changed)
        return em_fail(EMBER_E_CONFIG, "%s: no block that is named has a dense channel mixer",
                       m->name);
    *config = json_deep_copy(m->form);
    return *config ? EMBER_OK : no_memory();
}

static void copy_expert(float *to, const struct em_param *old, const struct em_upcycle *how,
                        const char *name, size_t expert)
{
    const float *from = em_f32(&old->tensor);
    const size_t n = ember_tensor_count(&old->tensor);
    struct em_rng rng;
    double squares = 0;
    uint64_t stream = expert;
    for (; *name; name++)
        stream = stream * 1099511628211u + (unsigned char)*name;
    em_rng_seed(&rng, how->seed, stream);
    memcpy(to, from, n * sizeof *to);
    for (size_t i = 0; i < n; i++)
        squares += (double)from[i] * (double)from[i];
    const double scale = expert ? how->noise * sqrt(squares / (double)n) : 0;
    for (size_t i = 0; scale > 0 && i < n; i++)
        to[i] += (float)(scale * em_rng_normal(&rng));
}

// "blocks.N.channel.expert.rest" or ".experts.E.rest" from "blocks.N.channel.rest".
static ember_status copy_parameter(const struct em_model *old, struct em_param *now,
                                   const struct em_upcycle *how)
{
    const char *name = now->tensor.name;
    const struct em_param *same = em_params_find(&old->params, name);
    if (same && ember_tensor_count(&same->tensor) == ember_tensor_count(&now->tensor)) {
        memcpy(now->tensor.data, same->tensor.data, em_tensor_bytes(&same->tensor));
        return EMBER_OK;
    }
    size_t block, first = 0;
    int stem = 0, alike = 0, single = 0;
    if (sscanf(name, "blocks.%zu.channel.%n", &block, &stem) != 1 || !stem)
        return em_fail(EMBER_E_INTERNAL, "%s: nothing is known of %s", old->name, name);
    (void)sscanf(name + stem, "expert.%n", &alike);
    if (!alike) (void)sscanf(name + stem, "experts.%zu.%n", &first, &single);
    if (!alike && !single) return EMBER_OK; // the router: at random
    char source[512];
    snprintf(source, sizeof source, "%.*s%s", stem, name, name + stem + alike + single);
    const struct em_param *dense = em_params_find(&old->params, source);
    if (!dense) return em_fail(EMBER_E_INTERNAL, "%s: nothing is known of %s", old->name, source);
    const size_t each = ember_tensor_count(&dense->tensor), copies = alike ? how->experts : 1;
    for (size_t e = 0; e < copies; e++)
        copy_expert(em_f32(&now->tensor) + e * each, dense, how, name, first + e);
    return EMBER_OK;
}

static ember_status build(struct em_model *from, const struct em_upcycle *how, struct em_buf *said,
                          struct em_model **now)
{
    json_t *config = NULL;
    if (strcmp(from->family->name, "ember") != 0)
        return em_fail(EMBER_E_UNSUPPORTED,
                       "%s: of the family %s; mixtures can be made of free block lists (ember)",
                       from->name, from->family->name);
    EM_TRY(edit_config(from, how, said, &config));
    const ember_status status = em_model_create(config, from->name, NULL, now);
    json_decref(config);
    EM_TRY(status);
    EM_TRY(em_model_allocate(*now));
    em_model_init(*now, how->seed, NULL);
    for (size_t i = 0; i < (*now)->params.count; i++)
        EM_TRY(copy_parameter(from, (*now)->params.param[i], how));
    return EMBER_OK;
}

ember_status em_upcycle(struct em_model *from, const struct em_upcycle *how, struct em_buf *said,
                        struct em_model **out)
{
    struct em_model *now = NULL;
    const ember_status status = build(from, how, said, &now);
    if (status != EMBER_OK)
        em_model_close(now);
    else
        *out = now;
    return status;
}
