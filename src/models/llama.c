// Llama: attention and a gated feed-forward layer in every block.
#include <string.h>

#include "models/lfm2_common.h"

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

static const char *const keys[] = {EM_COMMON_KEYS,   "rms_norm_eps",   "hidden_act",
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

static ember_status translate(const json_t *config, const char *where,
                              const struct em_weights *weights, json_t **form)
{
    (void)weights;
    struct em_reader r = {config, where, EMBER_OK};
    const size_t D = em_read_size(&r, "hidden_size", 4096, 1, 1u << 20),
                 V = em_read_size(&r, "vocab_size", 32000, 1, 1u << 24);
    const size_t layers = em_read_size(&r, "num_hidden_layers", 32, 1, 4096),
                 heads = em_read_size(&r, "num_attention_heads", 32, 1, 4096);
    const size_t kv_heads = em_read_size(&r, "num_key_value_heads", heads, 1, 4096);
    const size_t head_dim = em_read_size(&r, "head_dim", heads ? D / heads : 0, 1, 256);
    const size_t f = em_read_size(&r, "intermediate_size", 11008, 1, 1u << 24);
    const size_t context = em_read_size(&r, "max_position_embeddings", 2048, 1, 1u << 30);
    const double eps = em_read_double(&r, "rms_norm_eps", 1e-6, 0, 1);
    const char *name = em_read_string(&r, "hidden_act", "silu"), *act = activation(name);
    const bool tied = em_read_bool(&r, "tie_word_embeddings", false),
               attention_bias = em_read_bool(&r, "attention_bias", false);
    const bool mlp_bias = em_read_bool(&r, "mlp_bias", false);
    if (r.status == EMBER_OK && !act)
        return em_fail(EMBER_E_UNSUPPORTED, "%s: hidden_act \"%s\" is not known", where, name);
    const struct em_lfm2_shape s = {
        .heads = heads, .kv_heads = kv_heads, .head_dim = head_dim, .norm_eps = eps};
    json_t *result = em_form_new(&r, D, V, tied, eps, em_read_padding(&r, -1, V));
    for (size_t i = 0; i < layers && r.status == EMBER_OK; i++) {
        json_t *mixer = em_lfm2_attention(&s, attention_bias), *ffn = em_lfm2_ffn(f);
        em_form_set(&r, mixer, "qk_norm", json_false());
        if (r.status == EMBER_OK) r.status = em_read_rope(&r, NULL, 1e4, head_dim, context, mixer);
        em_form_set(&r, ffn, "activation", json_string(act));
        em_form_set(&r, ffn, "bias", json_boolean(mlp_bias));
        em_form_add_block(&r, result, em_lfm2_block(&r, "pre_norm", eps, mixer, ffn));
    }
    if (r.status != EMBER_OK) {
        json_decref(result);
        return r.status;
    }
    *form = result;
    return EMBER_OK;
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
