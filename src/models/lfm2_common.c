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

json_t *em_lfm2_attention(const struct em_lfm2_shape *shape, bool bias)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:b, s:f, s:b}", "type", "attention", "heads",
                     (json_int_t)shape->heads, "kv_heads", (json_int_t)shape->kv_heads, "head_dim",
                     (json_int_t)shape->head_dim, "qk_norm", 1, "norm_eps", shape->norm_eps, "bias",
                     bias);
}

struct em_lfm2_shape em_lfm2_read_shape(struct em_reader *r, const struct em_lfm2_shape *preset)
{
    struct em_lfm2_shape s = {
        .width = em_read_size(r, "hidden_size", preset->width, 1, 1u << 20),
        .vocabulary = em_read_size(r, "vocab_size", preset->vocabulary, 1, 1u << 24),
        .layers = em_read_size(r, "num_hidden_layers", preset->layers, 1, 4096),
        .heads = em_read_size(r, "num_attention_heads", preset->heads, 1, 4096),
        .kv_heads = em_read_size(r, "num_key_value_heads", preset->kv_heads, 1, 4096),
        .context = em_read_size(r, "max_position_embeddings", 128000, 1, 1u << 30),
        .norm_eps = em_read_double(r, "norm_eps", preset->norm_eps, 0, 1),
    };
    s.head_dim = em_read_size(r, "head_dim",
                              preset->head_dim ? preset->head_dim : s.width / s.heads, 1, 256);
    s.tied = em_read_bool(r, "tie_word_embeddings", true);
    return s;
}

ember_status em_lfm2_mixer(struct em_reader *r, const struct em_lfm2_shape *shape, size_t layer,
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
                       "%s: layer_types[%zu] is \"%s\"; it has to be conv or full_attention",
                       r->where, layer, type);
    *mixer = em_lfm2_attention(shape, false);
    return em_read_rope(r, NULL, 1e6, shape->head_dim, shape->context, *mixer);
}

static void set_size(struct em_reader *r, json_t *config, const char *key, size_t value)
{
    em_form_set(r, config, key, json_integer((json_int_t)value));
}

void em_lfm2_complete_shape(struct em_reader *r, const struct em_lfm2_shape *preset, json_t *config)
{
    const struct em_lfm2_shape s = em_lfm2_read_shape(r, preset);
    set_size(r, config, "hidden_size", s.width);
    set_size(r, config, "vocab_size", s.vocabulary);
    set_size(r, config, "num_hidden_layers", s.layers);
    set_size(r, config, "num_attention_heads", s.heads);
    set_size(r, config, "num_key_value_heads", s.kv_heads);
    set_size(r, config, "max_position_embeddings", s.context);
    em_form_set(r, config, "norm_eps", json_real(s.norm_eps));
    em_form_set(r, config, "tie_word_embeddings", json_boolean(s.tied));
}

void em_lfm2_complete(struct em_reader *r, const struct em_lfm2_shape *preset, const json_t *form,
                      json_t *config)
{
    em_lfm2_complete_shape(r, preset, config);
    // Both families read the older name first.
    json_t *tied = json_object_get(form, "tie_word_embeddings");
    em_form_set(r, config, "tie_word_embeddings", json_incref(tied));
    em_form_set(r, config, "tie_embedding", json_incref(tied));
    set_size(r, config, "conv_L_cache", em_read_size(r, "conv_L_cache", 3, 1, 4096));
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

size_t em_form_ffn_width(const json_t *form, size_t block)
{
    const json_t *b = json_array_get(json_object_get(form, "blocks"), block);
    return (size_t)json_integer_value(json_object_get(json_object_get(b, "channel"), "hidden"));
}

json_t *em_lfm2_ffn(size_t hidden)
{
    return json_pack("{s:s, s:I}", "type", "swiglu", "hidden", (json_int_t)hidden);
}

json_t *em_lfm2_block(struct em_reader *r, const char *type, double norm_eps, json_t *sequence,
                      json_t *channel)
{
    json_t *block =
        json_pack("{s:s, s:{s:s, s:f}}", "type", type, "norm", "type", "rmsnorm", "eps", norm_eps);
    em_form_set(r, block, "sequence", sequence);
    em_form_set(r, block, "channel", channel);
    return block;
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
