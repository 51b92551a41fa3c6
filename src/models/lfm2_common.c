#include "models/lfm2_common.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

json_t *em_lfm2_conv(struct em_reader *r, size_t default_width)
{
    return json_pack("{s:s, s:I, s:b}", "type", "short_conv", "width",
                     (json_int_t)em_read_size(r, "conv_L_cache", default_width, 1, 4096), "bias",
                     em_read_bool(r, "conv_bias", false));
}

ember_status em_lfm2_mixer(struct em_reader *r, const struct em_hf_shape *shape, size_t layer,
                           json_t **mixer)
{
    const char *type;
    EM_TRY(em_read_layer_type(r, layer, &type));
    if (strcmp(type, "conv") == 0) {
        *mixer = em_lfm2_conv(r, 3);
        return r->status;
    }
    if (strcmp(type, "full_attention") != 0)
        return em_fail(EMBER_E_CONFIG,
                       "%s: layer_types[%zu] is \"%.60s\"; it has to be conv or full_attention",
                       r->where, layer, type);
    *mixer = em_hf_attention(shape, false);
    return em_read_rope(r, NULL, 1e6, shape->head_dim, shape->context, *mixer);
}

void em_lfm2_complete(struct em_reader *r, const struct em_hf_shape *preset, const json_t *form,
                      json_t *config)
{
    em_hf_complete_shape(r, preset, config);
    // Both families read the older name first.
    json_t *tied = json_object_get(form, "tie_word_embeddings");
    em_form_set(r, config, "tie_word_embeddings", json_incref(tied));
    em_form_set(r, config, "tie_embedding", json_incref(tied));
    em_form_set(r, config, "conv_L_cache",
                json_integer((json_int_t)em_read_size(r, "conv_L_cache", 3, 1, 4096)));
    em_form_set(r, config, "conv_bias", json_boolean(em_read_bool(r, "conv_bias", false)));
    if (em_read_has(r, "rope_scaling")) return; // the older form, whole
    double theta = em_read_double(r, "rope_theta", 1e6, 1, 1e12);
    if (em_read_has(r, "rope_parameters")) {
        struct em_reader rope = {json_object_get(config, "rope_parameters"), r->where, r->status};
        theta = em_read_double(&rope, "rope_theta", theta, 1, 1e12);
    } else {
        em_form_set(r, config, "rope_parameters",
                    json_pack("{s:s, s:f}", "rope_type", "default", "rope_theta", theta));
    }
    em_form_set(r, config, "rope_theta", json_real(theta));
}

size_t em_lfm2_trust_width(const struct em_reader *r, const struct em_weights *weights,
                           size_t layer, size_t width)
{
    char name[64];
    if (!weights) return width;
    snprintf(name, sizeof name, "model.layers.%zu.feed_forward.w1.weight", layer);
    const struct em_st_tensor *w1 = em_weights_find(weights, name);
    if (!w1 || w1->rank != 2 || w1->shape[0] == width) return width;
    em_warn("%s: the config says feed-forward width %zu, %s has %zu: the file's is taken", r->where,
            width, name, w1->shape[0]);
    return w1->shape[0];
}
