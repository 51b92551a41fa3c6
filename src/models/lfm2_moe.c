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

static const char *const keys[] = {EM_HF_KEYS,
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

static const struct em_hf_shape preset = {.width = 2048,
                                          .vocabulary = 65536,
                                          .layers = 32,
                                          .heads = 32,
                                          .kv_heads = 8,
                                          .context = 128000,
                                          .norm_eps = 1e-5,
                                          .norm_key = "norm_eps",
                                          .tied = true};

// What the config says of the experts.
struct experts {
    size_t count, chosen, width, dense; // dense: layers before the first with experts
    size_t dense_width;
    bool bias, normalise;
    double scale;
};

static struct experts read_experts(struct em_reader *r)
{
    return (struct experts){
        .count = em_read_size(r, "num_experts", 32, 1, 4096),
        .chosen = em_read_size(r, "num_experts_per_tok", 4, 1, 256),
        .width = em_read_size(r, "moe_intermediate_size", 1792, 1, 1u << 20),
        .dense = em_read_size(r, "num_dense_layers", 2, 0, 4096),
        .dense_width = em_read_size(r, "intermediate_size", 7168, 1, 1u << 24),
        .bias = em_read_bool(r, "use_expert_bias", true),
        .normalise = em_read_bool(r, "norm_topk_prob", true),
        .scale = em_read_double(r, "routed_scaling_factor", 1, 1e-6, 1000),
    };
}

static json_t *moe(struct em_reader *r, const struct experts *e)
{
    return json_pack("{s:s, s:I, s:{s:s, s:I}, s:{s:s, s:I, s:b, s:b, s:b, s:f, s:f, s:f, s:f}}",
                     "type", "moe", "experts", (json_int_t)e->count, "expert", "type", "swiglu",
                     "hidden", (json_int_t)e->width, "router", "type", "sigmoid_topk", "k",
                     (json_int_t)e->chosen, "renormalise", e->normalise, "accept_single",
                     e->chosen == 1 && e->normalise, "selection_bias", e->bias, "scale", e->scale,
                     "aux_loss", em_read_double(r, "router_aux_loss_coef", 0, 0, 100), "z_loss",
                     em_read_double(r, "router_z_loss_coef", 0, 0, 100), "bias_rate",
                     em_read_double(r, "expert_bias_update_rate", 0, 0, 1));
}

static ember_status layer(struct em_reader *r, const struct em_hf_shape *s, const void *own,
                          size_t i, json_t **sequence, json_t **channel)
{
    const struct experts *e = own;
    *channel = i < e->dense ? em_hf_ffn(e->dense_width) : moe(r, e);
    return em_lfm2_mixer(r, s, i, sequence);
}

static ember_status translate(const json_t *config, const char *where,
                              const struct em_weights *weights, json_t **form)
{
    struct em_reader r = {config, where, EMBER_OK};
    struct em_hf_shape s = em_hf_read_shape(&r, &preset);
    s.tied = em_read_bool(&r, "tie_embedding", s.tied);
    struct experts experts = read_experts(&r);
    if (experts.dense)
        experts.dense_width = em_lfm2_trust_width(&r, weights, 0, experts.dense_width);
    EM_TRY(em_check_layer_types(&r, s.layers));
    if (!em_read_has(&r, "layer_types"))
        return em_fail(EMBER_E_CONFIG,
                       "%s: layer_types is needed: \"conv\" or \"full_attention\" for every layer",
                       where);
    return em_hf_layers(&r, &s, "pre_norm", layer, &experts, form);
}

static ember_status complete(json_t *config, const json_t *form)
{
    struct em_reader r = {config, "config.json", EMBER_OK};
    const struct experts e = read_experts(&r);
    const size_t f = e.dense ? em_form_ffn_width(form, 0) : e.dense_width;
    em_lfm2_complete(&r, &preset, form, config);
    em_form_set(&r, config, "intermediate_size", json_integer((json_int_t)f));
    em_form_set(&r, config, "num_experts", json_integer((json_int_t)e.count));
    em_form_set(&r, config, "num_experts_per_tok", json_integer((json_int_t)e.chosen));
    em_form_set(&r, config, "moe_intermediate_size", json_integer((json_int_t)e.width));
    em_form_set(&r, config, "num_dense_layers", json_integer((json_int_t)e.dense));
    em_form_set(&r, config, "use_expert_bias", json_boolean(e.bias));
    em_form_set(&r, config, "norm_topk_prob", json_boolean(e.normalise));
    em_form_set(&r, config, "routed_scaling_factor", json_real(e.scale));
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
