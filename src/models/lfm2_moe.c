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
    static const struct em_lfm2_shape preset = {
        .width = 2048, .vocabulary = 65536, .layers = 32, .heads = 32, .kv_heads = 8};
    struct em_lfm2_shape s = em_lfm2_read_shape(&r, &preset);
    s.tied = em_read_bool(&r, "tie_embedding", s.tied);
    const size_t dense = em_read_size(&r, "num_dense_layers", 2, 0, 4096);
    size_t f = em_read_size(&r, "intermediate_size", 7168, 1, 1u << 24);
    if (dense) f = em_lfm2_trust_width(&r, weights, 0, f);
    if (r.status == EMBER_OK && !json_is_array(json_object_get(config, "layer_types")))
        return em_fail(EMBER_E_CONFIG,
                       "%s: layer_types is needed: \"conv\" or \"full_attention\" for every layer",
                       where);
    json_t *result = em_form_new(&r, s.width, s.vocabulary, s.tied, s.norm_eps,
                                 em_read_padding(&r, 0, s.vocabulary));
    for (size_t i = 0; i < s.layers && r.status == EMBER_OK; i++) {
        json_t *mixer = NULL;
        r.status = em_lfm2_mixer(&r, &s, i, &mixer);
        em_form_add_block(
            &r, result,
            em_lfm2_block(&r, "pre_norm", s.norm_eps, mixer, i < dense ? em_lfm2_ffn(f) : moe(&r)));
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
    em_lfm2_complete(&r, config);
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
