// LFM2: gated short convolutions and grouped-query attention, each followed by SwiGLU.
#include <math.h>
#include <string.h>

#include "models/lfm2_common.h"

static const struct em_name names[] = {EM_LFM2_NAMES, EM_LFM2_ATTENTION_NAMES, {0}};

static const char *const keys[] = {EM_HF_KEYS,
                                   "block_ff_dim",
                                   "block_auto_adjust_ff_dim",
                                   "block_ffn_dim_multiplier",
                                   "block_multiple_of",
                                   "norm_eps",
                                   "conv_L_cache",
                                   "conv_bias",
                                   "layer_types",
                                   "full_attn_idxs",
                                   "tie_embedding",
                                   "block_dim",
                                   "conv_dim",
                                   "conv_dim_out",
                                   "block_norm_eps",
                                   "block_use_swiglu",
                                   "block_use_xavier_init",
                                   "block_mlp_init_scale",
                                   "block_out_init_scale",
                                   "conv_use_xavier_init",
                                   "num_heads",
                                   "theta",
                                   "use_pos_enc",
                                   NULL};

static const struct em_hf_shape preset = {.width = 2560,
                                          .vocabulary = 65536,
                                          .layers = 32,
                                          .heads = 32,
                                          .kv_heads = 8,
                                          .context = 128000,
                                          .norm_eps = 1e-5,
                                          .norm_key = "norm_eps",
                                          .tied = true};

// The rule of two thirds, in transformers' order of roundings.
static size_t ffn_width(struct em_reader *r)
{
    size_t f = em_read_size(r, "intermediate_size", 12288, 1, 1u << 24);
    f = em_read_size(r, "block_ff_dim", f, 1, 1u << 24);
    if (!em_read_bool(r, "block_auto_adjust_ff_dim", true)) return f;
    const size_t multiple = em_read_size(r, "block_multiple_of", 256, 1, 1u << 20);
    f = (size_t)(2 * (double)f / 3);
    f = (size_t)(em_read_double(r, "block_ffn_dim_multiplier", 1, 0, 1e6) * (double)f);
    return f ? (f + multiple - 1) / multiple * multiple : multiple;
}

static ember_status layer(struct em_reader *r, const struct em_hf_shape *s, const void *own,
                          size_t i, json_t **sequence, json_t **channel)
{
    *channel = em_hf_ffn(*(const size_t *)own);
    return em_lfm2_mixer(r, s, i, sequence);
}

static ember_status translate(const json_t *config, const char *where,
                              const struct em_weights *weights, json_t **form)
{
    struct em_reader r = {config, where, EMBER_OK};
    struct em_hf_shape s = em_hf_read_shape(&r, &preset);
    s.tied = em_read_bool(&r, "tie_embedding", s.tied);
    const size_t f = em_lfm2_trust_width(&r, weights, 0, ffn_width(&r));
    EM_TRY(em_check_layer_types(&r, s.layers));
    return em_hf_layers(&r, &s, "pre_norm", layer, &f, form);
}

// The real width under both names, both ways to say which layers attend, both ways to say theta and
// tying.
static ember_status complete(json_t *config, const json_t *form)
{
    struct em_reader r = {config, "config.json", EMBER_OK};
    const size_t f = em_form_ffn_width(form, 0),
                 layers = json_array_size(json_object_get(form, "blocks"));
    json_t *types = json_array(), *indices = json_array();
    for (size_t i = 0; i < layers && r.status == EMBER_OK; i++) {
        const char *type;
        r.status = em_read_layer_type(&r, i, &type);
        if (r.status != EMBER_OK) break;
        if (json_array_append_new(types, json_string(type)) != 0)
            r.status = em_fail(EMBER_E_NOMEM, "out of memory");
        if (strcmp(type, "conv") != 0 &&
            json_array_append_new(indices, json_integer((json_int_t)i)) != 0)
            r.status = em_fail(EMBER_E_NOMEM, "out of memory");
    }
    em_form_set(&r, config, "layer_types", types);
    em_form_set(&r, config, "full_attn_idxs", indices);
    em_form_set(&r, config, "intermediate_size", json_integer((json_int_t)f));
    em_form_set(&r, config, "block_ff_dim", json_integer((json_int_t)f));
    em_form_set(&r, config, "block_auto_adjust_ff_dim", json_false());
    em_form_set(&r, config, "block_ffn_dim_multiplier", json_real(1));
    em_form_set(&r, config, "block_multiple_of", json_integer(256));
    em_lfm2_complete(&r, &preset, form, config);
    return r.status;
}

extern const struct em_family em_family_lfm2;
const struct em_family em_family_lfm2 = {
    .name = "lfm2",
    .help = "LFM2: gated short convolutions and grouped-query attention, SwiGLU",
    .architecture = "Lfm2ForCausalLM",
    .names = names,
    .keys = keys,
    .translate = translate,
    .complete = complete,
};
