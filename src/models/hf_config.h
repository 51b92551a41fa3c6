// What the configs of Hugging Face's families have in common: sizes, rotary parameters, layer
// types, and the layers that are made of them.
#ifndef EM_MODELS_HF_CONFIG_H
#define EM_MODELS_HF_CONFIG_H

#include "models/family.h"

// The sizes that every such config has.
struct em_hf_shape {
    size_t width, vocabulary, layers, heads, kv_heads, head_dim, context;
    double norm_eps;
    bool tied;
    const char *norm_key; // what the family calls norm_eps
    ptrdiff_t padding;    // default of pad_token_id, -1: none; -2: its row is like any other
};
// Reads them; `preset` holds the family's defaults (kv_heads 0: heads; head_dim 0: width / heads).
struct em_hf_shape em_hf_read_shape(struct em_reader *r, const struct em_hf_shape *preset);
// Puts them into a written config.
void em_hf_complete_shape(struct em_reader *r, const struct em_hf_shape *preset, json_t *config);

// The form of a model of shape->layers blocks of type `block`: layer() says what mixes sequences
// and channels (json_null(): nothing does) in layer i (stolen); `own` is handed to it. Returns the
// reader's first failure.
typedef ember_status em_hf_layer(struct em_reader *r, const struct em_hf_shape *shape,
                                 const void *own, size_t i, json_t **sequence, json_t **channel);
ember_status em_hf_layers(struct em_reader *r, const struct em_hf_shape *shape, const char *block,
                          em_hf_layer *layer, const void *own, json_t **form) EMBER_CHECKED;

// The configs of attention with norms on queries and keys, and of a gated feed-forward layer.
json_t *em_hf_attention(const struct em_hf_shape *shape, bool bias);
json_t *em_hf_ffn(size_t hidden);
// The width of the feed-forward layer in a block of a form.
size_t em_form_ffn_width(const json_t *form, size_t block);

// Rotary options of an attention config, from rope_scaling, rope_parameters and rope_theta as
// transformers reads them; `parameters` NULL: those of the config itself. Adds rope_* keys to
// `attention`.
ember_status em_read_rope(struct em_reader *r, const json_t *parameters, double default_theta,
                          size_t head_dim, size_t context, json_t *attention) EMBER_CHECKED;

// A row of the embedding that pad_token_id names, as transformers reads it; `preset` when absent.
ptrdiff_t em_read_padding(struct em_reader *r, ptrdiff_t preset, size_t vocabulary);
// Whether layer_types or full_attn_idxs, where they are there, speak of so many layers.
ember_status em_check_layer_types(const struct em_reader *r, size_t layers) EMBER_CHECKED;
// Attention layers of an LFM2 config: layer_types, full_attn_idxs, or all. `kinds` lists the
// allowed types.
ember_status em_read_layer_type(struct em_reader *r, size_t layer, const char **type) EMBER_CHECKED;

// Keys that transformers writes into any config and that do not change what a model computes.
#define EM_HF_KEYS                                                                                 \
    "architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "use_cache",    \
        "bos_token_id", "eos_token_id", "pad_token_id", "vocab_size", "hidden_size",               \
        "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",             \
        "max_position_embeddings", "original_max_position_embeddings", "initializer_range",        \
        "tie_word_embeddings", "rope_theta", "rope_scaling", "rope_parameters",                    \
        "partial_rotary_factor", "intermediate_size", "output_attentions", "output_hidden_states", \
        "return_dict", "_name_or_path", "auto_map", "is_encoder_decoder", "problem_type",          \
        "id2label", "label2id", "chunk_size_feed_forward", "attn_implementation", "ember"

#endif
