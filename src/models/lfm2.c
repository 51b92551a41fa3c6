// LFM2: gated short convolutions and grouped-query attention, each followed by SwiGLU.
#include <math.h>
#include <string.h>

#include "models/lfm2_common.h"

static const struct em_name names[] = {EM_LFM2_NAMES, EM_LFM2_ATTENTION_NAMES, {0}};

static const char *const keys[] = {EM_COMMON_KEYS,
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

static ember_status translate(const json_t *config, const char *where,
                              const struct em_weights *weights, json_t **form)
{
    struct em_reader r = {config, where, EMBER_OK};
    const size_t D = em_read_size(&r, "hidden_size", 2560, 1, 1u << 20),
                 V = em_read_size(&r, "vocab_size", 65536, 1, 1u << 24);
    const size_t layers = em_read_size(&r, "num_hidden_layers", 32, 1, 4096);
    const size_t heads = em_read_size(&r, "num_attention_heads", 32, 1, 4096);
    const size_t kv_heads = em_read_size(&r, "num_key_value_heads", 8, 1, 4096);
    const size_t head_dim = em_read_size(&r, "head_dim", heads ? D / heads : 0, 1, 256);
    const size_t context = em_read_size(&r, "max_position_embeddings", 128000, 1, 1u << 30);
    const double eps = em_read_double(&r, "norm_eps", 1e-5, 0, 1);
    const bool tied =
        em_read_bool(&r, "tie_embedding", em_read_bool(&r, "tie_word_embeddings", true));
    const size_t f = em_lfm2_trust_width(&r, weights, 0, ffn_width(&r));
    json_t *result = em_form_new(&r, D, V, tied, eps, em_read_padding(&r, 0, V));
    for (size_t i = 0; i < layers && r.status == EMBER_OK; i++) {
        const char *type;
        json_t *mixer;
        r.status = em_read_layer_type(&r, i, &type);
        if (r.status != EMBER_OK) break;
        if (strcmp(type, "conv") == 0) {
            mixer = em_lfm2_conv(&r, 3);
        } else if (strcmp(type, "full_attention") == 0) {
            mixer = em_lfm2_attention(&r, heads, kv_heads, head_dim, eps, false);
            r.status = em_read_rope(&r, NULL, 1e6, head_dim, context, mixer);
        } else {
            r.status =
                em_fail(EMBER_E_CONFIG,
                        "%s: layer_types[%zu] is \"%s\"; it has to be conv or full_attention",
                        where, i, type);
            break;
        }
        em_form_add_block(&r, result, em_lfm2_block(&r, "pre_norm", eps, mixer, em_lfm2_ffn(f)));
    }
    if (r.status != EMBER_OK) {
        json_decref(result);
        return r.status;
    }
    *form = result;
    return EMBER_OK;
}

// Other readers index these keys directly: the real width under both names, both ways to say which
// layers attend, both ways to say theta and tying.
static ember_status complete(json_t *config)
{
    struct em_reader r = {config, "config.json", EMBER_OK};
    const size_t f = ffn_width(&r), layers = em_read_size(&r, "num_hidden_layers", 32, 1, 4096);
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
    const bool tied =
        em_read_bool(&r, "tie_embedding", em_read_bool(&r, "tie_word_embeddings", true));
    em_form_set(&r, config, "layer_types", types);
    em_form_set(&r, config, "full_attn_idxs", indices);
    em_form_set(&r, config, "intermediate_size", json_integer((json_int_t)f));
    em_form_set(&r, config, "block_ff_dim", json_integer((json_int_t)f));
    em_form_set(&r, config, "block_auto_adjust_ff_dim", json_false());
    em_form_set(&r, config, "block_ffn_dim_multiplier", json_real(1));
    em_form_set(&r, config, "block_multiple_of", json_integer(256));
    em_form_set(&r, config, "tie_word_embeddings", json_boolean(tied));
    em_form_set(&r, config, "tie_embedding", json_boolean(tied));
    em_form_set(&r, config, "conv_L_cache",
                json_integer((json_int_t)em_read_size(&r, "conv_L_cache", 3, 1, 4096)));
    em_form_set(&r, config, "conv_bias", json_boolean(em_read_bool(&r, "conv_bias", false)));
    em_form_set(&r, config, "norm_eps", json_real(em_read_double(&r, "norm_eps", 1e-5, 0, 1)));
    if (!em_read_has(&r, "rope_parameters") && !em_read_has(&r, "rope_scaling")) {
        const double theta = em_read_double(&r, "rope_theta", 1e6, 1, 1e12);
        em_form_set(&r, config, "rope_parameters",
                    json_pack("{s:s, s:f}", "rope_type", "default", "rope_theta", theta));
    }
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
