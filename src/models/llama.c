// Llama: attention and a gated feed-forward layer in every block.
#include <string.h>

#include "models/hf_config.h"

static const struct em_name names[] = {
    {"embedding.weight", "model.embed_tokens.weight", false},
    {"final_norm.weight", "model.norm.weight", false},
    {"head.weight", "lm_head.weight", false},
    {"blocks.#.sequence_norm.weight", "model.layers.#.input_layernorm.weight", false},
    {"blocks.#.channel_norm.weight", "model.layers.#.post_attention_layernorm.weight", false},
    {"blocks.#.sequence.q_proj.weight", "model.layers.#.self_attn.q_proj.weight", false},
    {"blocks.#.sequence.k_proj.weight", "model.layers.#.self_attn.k_proj.weight", false},
    {"blocks.#.sequence.v_proj.weight", "model.layers.#.self_attn.v_proj.weight", false},
    {"blocks.#.sequence.o_proj.weight", "model.layers.#.self_attn.o_proj.weight", false},
    {"blocks.#.sequence.q_proj.bias", "model.layers.#.self_attn.q_proj.bias", false},
    {"blocks.#.sequence.k_proj.bias", "model.layers.#.self_attn.k_proj.bias", false},
    {"blocks.#.sequence.v_proj.bias", "model.layers.#.self_attn.v_proj.bias", false},
    {"blocks.#.sequence.o_proj.bias", "model.layers.#.self_attn.o_proj.bias", false},
    {"blocks.#.channel.gate.weight", "model.layers.#.mlp.gate_proj.weight", false},
    {"blocks.#.channel.up.weight", "model.layers.#.mlp.up_proj.weight", false},
    {"blocks.#.channel.down.weight", "model.layers.#.mlp.down_proj.weight", false},
    {"blocks.#.channel.gate.bias", "model.layers.#.mlp.gate_proj.bias", false},
    {"blocks.#.channel.up.bias", "model.layers.#.mlp.up_proj.bias", false},
    {"blocks.#.channel.down.bias", "model.layers.#.mlp.down_proj.bias", false},
    {0},
};

static const char *const keys[] = {EM_HF_KEYS,       "rms_norm_eps",   "hidden_act",
                                   "attention_bias", "mlp_bias",       "attention_dropout",
                                   "pretraining_tp", "sliding_window", NULL};

// transformers' names of activations; ours are the option's choices.
static const char *activation(const char *name)
{
    static const char *const table[][2] = {
        {"silu", "silu"},       {"swish", "silu"},
        {"gelu", "gelu"},       {"gelu_pytorch_tanh", "gelu_tanh"},
        {"relu", "relu"},       {"relu2", "relu2"},
        {"sigmoid", "sigmoid"}, {"tanh", "tanh"},
        {"linear", "identity"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i][0], name) == 0) return table[i][1];
    return NULL;
}

static const struct em_hf_shape preset = {.width = 4096,
                                          .vocabulary = 32000,
                                          .layers = 32,
                                          .heads = 32,
                                          .context = 2048,
                                          .norm_eps = 1e-6,
                                          .norm_key = "rms_norm_eps",
                                          .padding = -1};

// What the config says of the layers besides their shape.
struct layers {
    size_t ffn;
    const char *activation;
    bool attention_bias, mlp_bias;
};

static ember_status layer(struct em_reader *r, const struct em_hf_shape *s, const void *own,
                          size_t i, json_t **sequence, json_t **channel)
{
    (void)i;
    const struct layers *l = own;
    *sequence = em_hf_attention(s, l->attention_bias);
    *channel = em_hf_ffn(l->ffn);
    em_form_set(r, *sequence, "qk_norm", json_false());
    em_form_set(r, *channel, "activation", json_string(l->activation));
    em_form_set(r, *channel, "bias", json_boolean(l->mlp_bias));
    return r->status == EMBER_OK ? em_read_rope(r, NULL, 1e4, s->head_dim, s->context, *sequence)
                                 : r->status;
}

static ember_status translate(const json_t *config, const char *where,
                              const struct em_weights *weights, json_t **form)
{
    (void)weights;
    struct em_reader r = {config, where, EMBER_OK};
    const struct em_hf_shape s = em_hf_read_shape(&r, &preset);
    const char *name = em_read_string(&r, "hidden_act", "silu");
    const struct layers layers = {
        .ffn = em_read_size(&r, "intermediate_size", 11008, 1, 1u << 24),
        .activation = activation(name),
        .attention_bias = em_read_bool(&r, "attention_bias", false),
        .mlp_bias = em_read_bool(&r, "mlp_bias", false),
    };
    if (r.status == EMBER_OK && !layers.activation)
        return em_fail(EMBER_E_UNSUPPORTED,
                       "%s: hidden_act \"%.60s\" is not known (there are: silu, swish, gelu, "
                       "gelu_pytorch_tanh, relu, relu2, sigmoid, tanh, linear)",
                       where, name);
    return em_hf_layers(&r, &s, "pre_norm", layer, &layers, form);
}

extern const struct em_family em_family_llama;
const struct em_family em_family_llama = {
    .name = "llama",
    .help = "Llama: grouped-query attention and SwiGLU in every block",
    .architecture = "LlamaForCausalLM",
    .names = names,
    .keys = keys,
    .translate = translate,
};
