// What LFM2, LFM2-MoE and LFM3 have in common.
#ifndef EM_MODELS_LFM2_COMMON_H
#define EM_MODELS_LFM2_COMMON_H

#include "models/family.h"

// The sizes that every LFM2 config has.
struct em_lfm2_shape {
    size_t width, vocabulary, layers, heads, kv_heads, head_dim, context;
    double norm_eps;
    bool tied;
};
// Reads them; `preset` holds the family's defaults (head_dim 0: width / heads).
struct em_lfm2_shape em_lfm2_read_shape(struct em_reader *r, const struct em_lfm2_shape *preset);

// LFM2's and LFM2-MoE's sequence mixer of a layer: a convolution or full attention, as the config's
// layer types say.
ember_status em_lfm2_mixer(struct em_reader *r, const struct em_lfm2_shape *shape, size_t layer,
                           json_t **mixer) EMBER_CHECKED;

// The config of a gated short convolution, of attention with norms on queries and keys, of a gated
// feed-forward layer, and of a block around a mixer of each kind (both stolen).
json_t *em_lfm2_conv(struct em_reader *r, size_t default_width);
json_t *em_lfm2_attention(const struct em_lfm2_shape *shape, bool bias);
json_t *em_lfm2_ffn(size_t hidden);
json_t *em_lfm2_block(struct em_reader *r, const char *type, double norm_eps, json_t *sequence,
                      json_t *channel);

// The keys of em_lfm2_shape in a written config.
void em_lfm2_complete_shape(struct em_reader *r, const struct em_lfm2_shape *preset,
                            json_t *config);
// The same, and what LFM2 and LFM2-MoE have besides: other programs index these keys without a
// default, or by their older names. `form` as in em_family.
void em_lfm2_complete(struct em_reader *r, const struct em_lfm2_shape *preset, const json_t *form,
                      json_t *config);
// The width of the feed-forward layer in a block of a form.
size_t em_form_ffn_width(const json_t *form, size_t block);

// The width of the feed-forward layers as the file holds it, when it differs from what the config
// says: a note.
size_t em_lfm2_trust_width(const struct em_reader *r, const struct em_weights *weights,
                           size_t layer, size_t width);

// Keys that transformers writes into any config and that do not change what a model computes.
#define EM_COMMON_KEYS                                                                             \
    "architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "use_cache",    \
        "bos_token_id", "eos_token_id", "pad_token_id", "vocab_size", "hidden_size",               \
        "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",             \
        "max_position_embeddings", "original_max_position_embeddings", "initializer_range",        \
        "tie_word_embeddings", "rope_theta", "rope_scaling", "rope_parameters",                    \
        "partial_rotary_factor", "intermediate_size", "output_attentions", "output_hidden_states", \
        "return_dict", "_name_or_path", "auto_map", "is_encoder_decoder", "problem_type",          \
        "id2label", "label2id", "chunk_size_feed_forward", "attn_implementation", "ember"

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
