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

static const char *const keys[] = {EM_COMMON_KEYS,
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
static struct em_lfm2_shape preset_of(struct em_reader *r)
{
    return (struct em_lfm2_shape){.width = 2048,
                                  .vocabulary = 128000,
                                  .layers = 24,
                                  .heads = 16,
                                  .kv_heads = 4,
                                  .head_dim = 128,
                                  .norm_eps = em_read_double(r, "rms_norm_eps", 1e-5, 0, 1)};
}

static ember_status translate(const json_t *config, const char *where,
                              const struct em_weights *weights, json_t **form)
{
    (void)weights;
    struct em_reader r = {config, where, EMBER_OK};
    const struct em_lfm2_shape preset = preset_of(&r), s = em_lfm2_read_shape(&r, &preset);
    const size_t f = em_read_size(&r, "intermediate_size", 7680, 1, 1u << 24),
                 window = em_read_size(&r, "sliding_window", 256, 0, 1u << 30);
    const bool bias = em_read_bool(&r, "attention_bias", false);
    const char *block = em_read_bool(&r, "use_sandwich_norm", true) ? "sandwich_norm" : "pre_norm";
    const bool gate = em_read_bool(&r, "use_attention_gate", true),
               typed = em_read_has(&r, "layer_types");
    json_t *result = em_form_new(&r, s.width, s.vocabulary, s.tied, s.norm_eps,
                                 em_read_padding(&r, 124893, s.vocabulary));
    for (size_t i = 0; i < s.layers && r.status == EMBER_OK; i++) {
        const char *type = derived_type(i);
        json_t *mixer;
        if (typed) r.status = em_read_layer_type(&r, i, &type);
        if (r.status != EMBER_OK) break;
        const bool sliding = strcmp(type, "sliding_attention") == 0;
        if (strcmp(type, "conv") == 0) {
            mixer = em_lfm2_conv(&r, 7);
        } else if (sliding || strcmp(type, "full_attention") == 0) {
            if (sliding && !window) {
                r.status =
                    em_fail(EMBER_E_CONFIG, "%s: sliding_window has to be at least 1 for layer %zu",
                            where, i);
                break;
            }
            mixer = em_lfm2_attention(&s, bias);
            if (gate) em_form_set(&r, mixer, "output_gate", json_string("head"));
            if (sliding) em_form_set(&r, mixer, "window", json_integer((json_int_t)window));
            if (r.status == EMBER_OK) r.status = rope_of(&r, type, s.head_dim, s.context, mixer);
        } else {
            r.status = em_fail(EMBER_E_CONFIG,
                               "%s: layer_types[%zu] is \"%s\"; it has to be conv, "
                               "sliding_attention or full_attention",
                               where, i, type);
            break;
        }
        em_form_add_block(&r, result, em_lfm2_block(&r, block, s.norm_eps, mixer, em_lfm2_ffn(f)));
    }
    if (r.status != EMBER_OK) {
        json_decref(result);
        return r.status;
    }
    *form = result;
    return EMBER_OK;
}

static ember_status complete(json_t *config, const json_t *form)
{
    (void)form;
    struct em_reader r = {config, "config.json", EMBER_OK};
    const struct em_lfm2_shape preset = preset_of(&r), s = em_lfm2_read_shape(&r, &preset);
    em_lfm2_complete_shape(&r, &preset, config);
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
