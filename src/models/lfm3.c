// LFM3: convolutions, sliding and full attention with a gate per head, norms on both sides of every
// mixer.
#include <string.h>

#include "models/lfm2_common.h"

static const struct em_name names[] = {
    EM_LFM2_NAMES,
    {"blocks.#.sequence_post_norm.weight", "model.layers.#.post_operator_norm.weight", false},
    {"blocks.#.channel_post_norm.weight", "model.layers.#.post_ffn_norm.weight", false},
    {"blocks.#.sequence.o_proj.weight", "model.layers.#.self_attn.o_proj.weight", false},
    {"blocks.#.sequence.q_proj.bias", "model.layers.#.self_attn.q_proj.bias", false},
    {"blocks.#.sequence.k_proj.bias", "model.layers.#.self_attn.k_proj.bias", false},
    {"blocks.#.sequence.v_proj.bias", "model.layers.#.self_attn.v_proj.bias", false},
    {"blocks.#.sequence.o_proj.bias", "model.layers.#.self_attn.o_proj.bias", false},
    {"blocks.#.sequence.q_norm.weight", "model.layers.#.self_attn.q_norm.weight", false},
    {"blocks.#.sequence.k_norm.weight", "model.layers.#.self_attn.k_norm.weight", false},
    {"blocks.#.sequence.gate_proj.weight", "model.layers.#.self_attn.gate_proj.weight", false},
    {0},
};

static const char *const keys[] = {EM_HF_KEYS,
                                   "norm_eps",
                                   "rms_norm_eps",
                                   "conv_L_cache",
                                   "conv_bias",
                                   "layer_types",
                                   "sliding_window",
                                   "use_sandwich_norm",
                                   "use_attention_gate",
                                   "attention_bias",
                                   "attention_dropout",
                                   "hidden_act",
                                   NULL};

static const char *derived_type(size_t layer)
{
    if (layer % 4 == 2) return "full_attention";
    return layer % 4 == 0 && layer > 0 ? "sliding_attention" : "conv";
}

// The rotary parameters of one kind of attention layer: nested by kind, or the defaults as a whole.
static ember_status rope_of(struct em_reader *r, const char *type, size_t head_dim, size_t context,
                            json_t *attention)
{
    const json_t *scaling = json_object_get(r->config, "rope_scaling"),
                 *all = json_object_get(r->config, "rope_parameters");
    if (json_is_object(scaling) && json_object_size(scaling)) all = scaling;
    if (!all || json_is_null(all)) {
        const bool full = strcmp(type, "full_attention") == 0;
        em_form_set(r, attention, "rope_theta", json_real(full ? 1e6 : 1e4));
        const size_t pairs = head_dim / 4;
        if (full && pairs)
            em_form_set(r, attention, "rope_pairs", json_integer((json_int_t)pairs));
        else if (full)
            em_form_set(r, attention, "rope", json_string("none"));
        return r->status;
    }
    const json_t *own = json_object_get(all, type);
    if (!json_is_object(own))
        return em_fail(EMBER_E_CONFIG,
                       "%s: rope_parameters.%s is needed: an object with the rotary parameters of "
                       "these layers",
                       r->where, type);
    return em_read_rope(r, own, 1e6, head_dim, context, attention);
}

// LFM3's norm_eps goes by two names.
static struct em_hf_shape preset_of(struct em_reader *r)
{
    return (struct em_hf_shape){.width = 2048,
                                .vocabulary = 128000,
                                .layers = 24,
                                .heads = 16,
                                .kv_heads = 4,
                                .head_dim = 128,
                                .context = 128000,
                                .norm_eps = em_read_double(r, "rms_norm_eps", 1e-5, 0, 1),
                                .norm_key = "norm_eps",
                                .tied = true,
                                .padding = 124893};
}

// What the config says of the layers besides their shape.
struct layers {
    size_t ffn, window;
    bool bias, gate, typed; // typed: layer_types is there
};

static ember_status attention(struct em_reader *r, const struct em_hf_shape *s,
                              const struct layers *l, const char *type, json_t **sequence)
{
    json_t *mixer = *sequence = em_hf_attention(s, l->bias);
    if (l->gate) em_form_set(r, mixer, "output_gate", json_string("head"));
    if (strcmp(type, "sliding_attention") == 0)
        em_form_set(r, mixer, "window", json_integer((json_int_t)l->window));
    return r->status == EMBER_OK ? rope_of(r, type, s->head_dim, s->context, mixer) : r->status;
}

static ember_status layer(struct em_reader *r, const struct em_hf_shape *s, const void *own,
                          size_t i, json_t **sequence, json_t **channel)
{
    const struct layers *l = own;
    const char *type = derived_type(i);
    *channel = em_hf_ffn(l->ffn);
    if (l->typed) EM_TRY(em_read_layer_type(r, i, &type));
    if (strcmp(type, "conv") == 0) {
        *sequence = em_lfm2_conv(r, 7);
        return r->status;
    }
    const bool sliding = strcmp(type, "sliding_attention") == 0;
    if (!sliding && strcmp(type, "full_attention") != 0)
        return em_fail(EMBER_E_CONFIG,
                       "%s: layer_types[%zu] is \"%.60s\"; it has to be conv, sliding_attention or "
                       "full_attention",
                       r->where, i, type);
    if (sliding && !l->window)
        return em_fail(EMBER_E_CONFIG, "%s: sliding_window has to be at least 1 for layer %zu",
                       r->where, i);
    return attention(r, s, l, type, sequence);
}

static ember_status translate(const json_t *config, const char *where,
                              const struct em_weights *weights, json_t **form)
{
    (void)weights;
    struct em_reader r = {config, where, EMBER_OK};
    const struct em_hf_shape preset = preset_of(&r), s = em_hf_read_shape(&r, &preset);
    const struct layers layers = {
        .ffn = em_read_size(&r, "intermediate_size", 7680, 1, 1u << 24),
        .window = em_read_size(&r, "sliding_window", 256, 0, 1u << 30),
        .bias = em_read_bool(&r, "attention_bias", false),
        .gate = em_read_bool(&r, "use_attention_gate", true),
        .typed = em_read_has(&r, "layer_types"),
    };
    if (layers.typed) EM_TRY(em_check_layer_types(&r, s.layers));
    const bool sandwich = em_read_bool(&r, "use_sandwich_norm", true);
    return em_hf_layers(&r, &s, sandwich ? "sandwich_norm" : "pre_norm", layer, &layers, form);
}

static ember_status complete(json_t *config, const json_t *form)
{
    (void)form;
    struct em_reader r = {config, "config.json", EMBER_OK};
    const struct em_hf_shape preset = preset_of(&r), s = em_hf_read_shape(&r, &preset);
    em_hf_complete_shape(&r, &preset, config);
    json_object_del(config, "rms_norm_eps"); // another name of norm_eps
    em_form_set(&r, config, "head_dim", json_integer((json_int_t)s.head_dim));
    return r.status;
}

extern const struct em_family em_family_lfm3;
const struct em_family em_family_lfm3 = {
    .name = "lfm3",
    .help = "LFM3: convolutions, sliding and full attention with output gates, sandwich norms",
    .architecture = "Lfm3ForCausalLM",
    .names = names,
    .keys = keys,
    .translate = translate,
    .complete = complete,
};
