// What LFM2, LFM2-MoE and LFM3 have in common.
#ifndef EM_MODELS_LFM2_COMMON_H
#define EM_MODELS_LFM2_COMMON_H

#include "models/hf_config.h"

// LFM2's and LFM2-MoE's sequence mixer of a layer: a convolution or full attention, as the config's
// layer types say.
ember_status em_lfm2_mixer(struct em_reader *r, const struct em_hf_shape *shape, size_t layer,
                           json_t **mixer) EMBER_CHECKED;

// The config of a gated short convolution.
json_t *em_lfm2_conv(struct em_reader *r, size_t default_width);

// What a written config of LFM2 and LFM2-MoE has besides its layers: other programs index these
// keys without a default, or by their older names. `form` as in em_family.
void em_lfm2_complete(struct em_reader *r, const struct em_hf_shape *preset, const json_t *form,
                      json_t *config);
// The width of the feed-forward layers as the file holds it, when it differs from what the config
// says: a note.
size_t em_lfm2_trust_width(const struct em_reader *r, const struct em_weights *weights,
                           size_t layer, size_t width);

#define EM_LFM2_NAMES                                                                              \
    {"embedding.weight", "model.embed_tokens.weight", false},                                      \
        {"final_norm.weight", "model.embedding_norm.weight", false},                               \
        {"head.weight", "lm_head.weight", false},                                                  \
        {"blocks.#.sequence_norm.weight", "model.layers.#.operator_norm.weight", false},           \
        {"blocks.#.channel_norm.weight", "model.layers.#.ffn_norm.weight", false},                 \
        {"blocks.#.sequence.in_proj.weight", "model.layers.#.conv.in_proj.weight", false},         \
        {"blocks.#.sequence.in_proj.bias", "model.layers.#.conv.in_proj.bias", false},             \
        {"blocks.#.sequence.conv.weight", "model.layers.#.conv.conv.weight", true},                \
        {"blocks.#.sequence.conv.bias", "model.layers.#.conv.conv.bias", false},                   \
        {"blocks.#.sequence.out_proj.weight", "model.layers.#.conv.out_proj.weight", false},       \
        {"blocks.#.sequence.out_proj.bias", "model.layers.#.conv.out_proj.bias", false},           \
        {"blocks.#.sequence.q_proj.weight", "model.layers.#.self_attn.q_proj.weight", false},      \
        {"blocks.#.sequence.k_proj.weight", "model.layers.#.self_attn.k_proj.weight", false},      \
        {"blocks.#.sequence.v_proj.weight", "model.layers.#.self_attn.v_proj.weight", false},      \
        {"blocks.#.channel.gate.weight", "model.layers.#.feed_forward.w1.weight", false},          \
        {"blocks.#.channel.up.weight", "model.layers.#.feed_forward.w3.weight", false},            \
    {                                                                                              \
        "blocks.#.channel.down.weight", "model.layers.#.feed_forward.w2.weight", false             \
    }

#define EM_LFM2_ATTENTION_NAMES                                                                    \
    {"blocks.#.sequence.o_proj.weight", "model.layers.#.self_attn.out_proj.weight", false},        \
        {"blocks.#.sequence.q_norm.weight", "model.layers.#.self_attn.q_layernorm.weight", false}, \
    {                                                                                              \
        "blocks.#.sequence.k_norm.weight", "model.layers.#.self_attn.k_layernorm.weight", false    \
    }

#endif
