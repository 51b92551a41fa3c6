// LFM2-MoE: LFM2 whose later layers have sparse experts instead of one feed-forward layer.
#include <string.h>

#include "models/lfm2_common.h"

static const struct em_name names[] = {
    EM_LFM2_NAMES,
    EM_LFM2_ATTENTION_NAMES,
    {"blocks.#.channel.router.weight", "model.layers.#.feed_forward.gate.weight", false},
    {"blocks.#.channel.router.bias", "model.layers.#.feed_forward.expert_bias", false},
    {"blocks.#.channel.expert.gate.weight", "model.layers.#.feed_forward.experts.@.w1.weight",
     false},
    {"blocks.#.channel.expert.up.weight", "model.layers.#.feed_forward.experts.@.w3.weight", false},
    {"blocks.#.channel.expert.down.weight", "model.layers.#.feed_forward.experts.@.w2.weight",
     false},
    {0},
};

static const char *const keys[] = {EM_COMMON_KEYS,
                                   "norm_eps",
                                   "conv_L_cache",
                                   "conv_bias",
                                   "layer_types",
                                   "tie_embedding",
                                   "moe_intermediate_size",
                                   "num_dense_layers",
                                   "num_experts",
                                   "num_experts_per_tok",
                                   "use_expert_bias",
                                   "norm_topk_prob",
                                   "routed_scaling_factor",
                                   "output_router_logits",
                                   "router_aux_loss_coef",
                                   "router_z_loss_coef",
                                   "expert_bias_update_rate",
                                   NULL};

static json_t *moe(struct em_reader *r)
{
    const json_int_t experts = (json_int_t)em_read_size(r, "num_experts", 32, 1, 4096);
    const size_t k = em_read_size(r, "num_experts_per_tok", 4, 1, 256);
    const bool normalise = em_read_bool(r, "norm_topk_prob", true);
    return json_pack("{s:s, s:I, s:{s:s, s:I}, s:{s:s, s:I, s:b, s:b, s:b, s:f, s:f, s:f, s:f}}",
                     "type", "moe", "experts", experts, "expert", "type", "swiglu", "hidden",
                     (json_int_t)em_read_size(r, "moe_intermediate_size", 1792, 1, 1u << 20),
                     "router", "type", "sigmoid_topk", "k", (json_int_t)k, "renormalise", normalise,
                     "accept_single", k == 1 && normalise, "selection_bias",
                     em_read_bool(r, "use_expert_bias", true), "scale",
                     em_read_double(r, "routed_scaling_factor", 1, 0, 1000), "aux_loss",
                     em_read_double(r, "router_aux_loss_coef", 0, 0, 100), "z_loss",
                     em_read_double(r, "router_z_loss_coef", 0, 0, 100), "bias_rate",
                     em_read_double(r, "expert_bias_update_rate", 0, 0, 1));
}

static ember_status translate(const json_t *config, const char *where,
                              const struct em_weights *weights, json_t **form)
{
    struct em_reader r = {config, where, EMBER_OK};
    const size_t D = em_read_size(&r, "hidden_size", 2048, 1, 1u << 20),
                 V = em_read_size(&r, "vocab_size", 65536, 1, 1u << 24);
    const size_t layers = em_read_size(&r, "num_hidden_layers", 32, 1, 4096),
                 dense = em_read_size(&r, "num_dense_layers", 2, 0, 4096);
    const size_t heads = em_read_size(&r, "num_attention_heads", 32, 1, 4096);
    const size_t kv_heads = em_read_size(&r, "num_key_value_heads", 8, 1, 4096);
    const size_t head_dim = em_read_size(&r, "head_dim", heads ? D / heads : 0, 1, 256);
    const size_t context = em_read_size(&r, "max_position_embeddings", 128000, 1, 1u << 30);
    const double eps = em_read_double(&r, "norm_eps", 1e-5, 0, 1);
    const bool tied =
        em_read_bool(&r, "tie_embedding", em_read_bool(&r, "tie_word_embeddings", true));
    size_t f = em_read_size(&r, "intermediate_size", 7168, 1, 1u << 24);
    if (dense) f = em_lfm2_trust_width(&r, weights, 0, f);
    if (r.status == EMBER_OK && !json_is_array(json_object_get(config, "layer_types")))
        return em_fail(EMBER_E_CONFIG,
                       "%s: layer_types is needed: \"conv\" or \"full_attention\" for every layer",
                       where);
    json_t *result = em_form_new(&r, D, V, tied, eps, em_read_padding(&r, 0, V));
    for (size_t i = 0; i < layers && r.status == EMBER_OK; i++) {
        const char *type;
        json_t *mixer;
        r.status = em_read_layer_type(&r, i, &type);
        if (r.status != EMBER_OK) break;
        if (strcmp(type, "conv") == 0) {
            mixer = em_lfm2_conv(&r, 3);
        } else if (strcmp(type, "full_attention") == 0) {
            mixer = em_lfm2_attention(&r, heads, kv_heads, head_dim, eps, false);
            r.status = em_read_rope(&r, NULL, 1e6, head_dim, context, mixer);
        } else {
            r.status =
                em_fail(EMBER_E_CONFIG,
                        "%s: layer_types[%zu] is \"%s\"; it has to be conv or full_attention",
                        where, i, type);
            break;
        }
        em_form_add_block(
            &r, result,
            em_lfm2_block(&r, "pre_norm", eps, mixer, i < dense ? em_lfm2_ffn(f) : moe(&r)));
    }
    if (r.status != EMBER_OK) {
        json_decref(result);
        return r.status;
    }
    *form = result;
    return EMBER_OK;
}

static ember_status complete(json_t *config)
{
    struct em_reader r = {config, "config.json", EMBER_OK};
    em_form_set(&r, config, "tie_word_embeddings",
                json_boolean(em_read_bool(&r, "tie_embedding",
                                          em_read_bool(&r, "tie_word_embeddings", true))));
    em_form_set(&r, config, "conv_L_cache",
                json_integer((json_int_t)em_read_size(&r, "conv_L_cache", 3, 1, 4096)));
    em_form_set(&r, config, "conv_bias", json_boolean(em_read_bool(&r, "conv_bias", false)));
    em_form_set(&r, config, "norm_eps", json_real(em_read_double(&r, "norm_eps", 1e-5, 0, 1)));
    if (!em_read_has(&r, "rope_parameters") && !em_read_has(&r, "rope_scaling")) {
        const double theta = em_read_double(&r, "rope_theta", 1e6, 1, 1e12);
        em_form_set(&r, config, "rope_parameters",
                    json_pack("{s:s, s:f}", "rope_type", "default", "rope_theta", theta));
    }
    return r.status;
}

extern const struct em_family em_family_lfm2_moe;
const struct em_family em_family_lfm2_moe = {
    .name = "lfm2_moe",
    .help = "LFM2-MoE: LFM2 with sparse experts, sigmoid top-k routing and a selection bias",
    .architecture = "Lfm2MoeForCausalLM",
    .names = names,
    .keys = keys,
    .translate = translate,
    .complete = complete,
};
