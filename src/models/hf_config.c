#include "models/hf_config.h"

#include <math.h>
#include <string.h>

struct em_hf_shape em_hf_read_shape(struct em_reader *r, const struct em_hf_shape *preset)
{
    struct em_hf_shape s = *preset;
    s.width = em_read_size(r, "hidden_size", preset->width, 1, 1u << 20);
    s.vocabulary = em_read_size(r, "vocab_size", preset->vocabulary, 1, 1u << 24);
    s.layers = em_read_size(r, "num_hidden_layers", preset->layers, 1, 4096);
    s.heads = em_read_size(r, "num_attention_heads", preset->heads, 1, 4096);
    s.kv_heads = em_read_size(r, "num_key_value_heads",
                              preset->kv_heads ? preset->kv_heads : s.heads, 1, 4096);
    s.context = em_read_size(r, "max_position_embeddings", preset->context, 1, 1u << 30);
    s.norm_eps = em_read_double(r, preset->norm_key, preset->norm_eps, 0, 1);
    s.head_dim = em_read_size(r, "head_dim",
                              preset->head_dim ? preset->head_dim : s.width / s.heads, 1, 256);
    s.tied = em_read_bool(r, "tie_word_embeddings", preset->tied);
    return s;
}

ptrdiff_t em_read_padding(struct em_reader *r, ptrdiff_t preset, size_t vocabulary)
{
    const json_t *v = json_object_get(r->config, "pad_token_id");
    char found[96];
    if (!v) return preset < (ptrdiff_t)vocabulary ? preset : -1;
    if (json_is_null(v)) return -1;
    json_int_t row = json_integer_value(v);
    if (row < 0) row += (json_int_t)vocabulary;
    if (!json_is_integer(v) || row < 0 || (size_t)row >= vocabulary) {
        if (r->status == EMBER_OK)
            r->status = em_fail(EMBER_E_CONFIG,
                                "%s: pad_token_id is %s; it has to be a token of the vocabulary of "
                                "%zu (counted from its end where it is negative), or null",
                                r->where, em_json_text(v, found, sizeof found), vocabulary);
        return -1;
    }
    return (ptrdiff_t)row;
}

static ember_status check_object(const struct em_reader *r, const char *key)
{
    const json_t *v = json_object_get(r->config, key);
    char found[96];
    if (!v || json_is_null(v) || json_is_object(v)) return EMBER_OK;
    return em_fail(EMBER_E_CONFIG, "%s: %s has to be an object, found %s", r->where, key,
                   em_json_text(v, found, sizeof found));
}

ember_status em_read_rope(struct em_reader *r, const json_t *parameters, double default_theta,
                          size_t head_dim, size_t context, json_t *attention)
{
    const json_t *scaling = json_object_get(r->config, "rope_scaling"),
                 *flat = json_object_get(r->config, "rope_parameters");
    EM_TRY(check_object(r, "rope_scaling"));
    EM_TRY(check_object(r, "rope_parameters"));
    if (!parameters)
        parameters = json_is_object(scaling) && json_object_size(scaling) ? scaling : flat;
    struct em_reader own = {parameters, r->where, r->status};
    const double theta = em_read_double(
        &own, "rope_theta", em_read_double(r, "rope_theta", default_theta, 1, 1e12), 1, 1e12);
    const char *type = em_read_string(&own, "rope_type", em_read_string(&own, "type", "default"));
    const double partial = em_read_double(
        &own, "partial_rotary_factor", em_read_double(r, "partial_rotary_factor", 1, 0, 1), 0, 1);
    const double factor = em_read_double(&own, "factor", 1, 1e-6, 1e6);
    em_form_set(&own, attention, "rope_theta", json_real(theta));
    if (strcmp(type, "proportional") == 0) {
        const size_t pairs = (size_t)floor(partial * (double)head_dim / 2);
        if (!pairs)
            em_form_set(&own, attention, "rope", json_string("none"));
        else
            em_form_set(&own, attention, "rope_pairs", json_integer((json_int_t)pairs));
    }
    if (strcmp(type, "linear") == 0 || (strcmp(type, "proportional") == 0 && factor != 1)) {
        em_form_set(&own, attention, "rope_scaling", json_string("linear"));
        em_form_set(&own, attention, "rope_factor", json_real(factor));
    } else if (strcmp(type, "llama3") == 0) {
        double original =
            em_read_double(&own, "original_max_position_embeddings", (double)context, 1, 1e9);
        original = em_read_double(r, "original_max_position_embeddings", original, 1, 1e9);
        em_form_set(&own, attention, "rope_scaling", json_string("llama3"));
        em_form_set(&own, attention, "rope_factor", json_real(factor));
        em_form_set(&own, attention, "rope_low_factor",
                    json_real(em_read_double(&own, "low_freq_factor", 1, 1e-6, 1e6)));
        em_form_set(&own, attention, "rope_high_factor",
                    json_real(em_read_double(&own, "high_freq_factor", 4, 1e-6, 1e6)));
        em_form_set(&own, attention, "rope_original_context", json_real(original));
    } else if (strcmp(type, "default") != 0 && strcmp(type, "proportional") != 0 &&
               own.status == EMBER_OK) {
        return em_fail(EMBER_E_UNSUPPORTED,
                       "%s: rope_type \"%.60s\" is not known (there are: default, linear, llama3, "
                       "proportional)",
                       r->where, type);
    }
    if (r->status == EMBER_OK) r->status = own.status;
    return r->status;
}

ember_status em_check_layer_types(const struct em_reader *r, size_t layers)
{
    const json_t *types = json_object_get(r->config, "layer_types"),
                 *indices = json_object_get(r->config, "full_attn_idxs");
    const bool typed = types && !json_is_null(types);
    const json_t *list = typed ? types : indices;
    const char *key = typed ? "layer_types" : "full_attn_idxs";
    char found[96];
    if (r->status != EMBER_OK || !list || json_is_null(list)) return r->status;
    if (!json_is_array(list))
        return em_fail(EMBER_E_CONFIG, "%s: %s has to be a list, found %s", r->where, key,
                       em_json_text(list, found, sizeof found));
    const size_t n = json_array_size(list);
    if (typed ? n != layers : n > layers)
        return em_fail(EMBER_E_CONFIG, "%s: %s is for %zu layers (num_hidden_layers), it has %zu",
                       r->where, key, layers, n);
    for (size_t i = 0; !typed && i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 ||
            (size_t)json_integer_value(v) >= layers)
            return em_fail(EMBER_E_CONFIG,
                           "%s: full_attn_idxs[%zu] has to be a layer, from 0 to %zu; found %s",
                           r->where, i, layers - 1, em_json_text(v, found, sizeof found));
    }
    return EMBER_OK;
}

ember_status em_read_layer_type(struct em_reader *r, size_t layer, const char **type)
{
    const json_t *types = json_object_get(r->config, "layer_types"),
                 *indices = json_object_get(r->config, "full_attn_idxs");
    *type = "full_attention";
    if (json_is_array(types)) {
        const json_t *v = json_array_get(types, layer);
        char found[96];
        *type = json_string_value(v);
        if (!*type || strlen(*type) != json_string_length(v))
            return em_fail(EMBER_E_CONFIG,
                           "%s: layer_types[%zu] has to be the name of a kind of layers, found %s",
                           r->where, layer, em_json_text(v, found, sizeof found));
    } else if (json_is_array(indices)) {
        *type = "conv";
        for (size_t i = 0; i < json_array_size(indices); i++)
            if (json_integer_value(json_array_get(indices, i)) == (json_int_t)layer &&
                json_is_integer(json_array_get(indices, i)))
                *type = "full_attention";
    }
    return EMBER_OK;
}

json_t *em_hf_attention(const struct em_hf_shape *shape, bool bias)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:b, s:f, s:b}", "type", "attention", "heads",
                     (json_int_t)shape->heads, "kv_heads", (json_int_t)shape->kv_heads, "head_dim",
                     (json_int_t)shape->head_dim, "qk_norm", 1, "norm_eps", shape->norm_eps, "bias",
                     bias);
}

json_t *em_hf_ffn(size_t hidden)
{
    return json_pack("{s:s, s:I}", "type", "swiglu", "hidden", (json_int_t)hidden);
}

static json_t *block_of(struct em_reader *r, const char *type, double norm_eps, json_t *sequence,
                        json_t *channel)
{
    json_t *block =
        json_pack("{s:s, s:{s:s, s:f}}", "type", type, "norm", "type", "rmsnorm", "eps", norm_eps);
    em_form_set(r, block, "sequence", sequence);
    if (!json_is_null(channel)) em_form_set(r, block, "channel", channel); // null: none
    return block;
}

ember_status em_hf_layers(struct em_reader *r, const struct em_hf_shape *shape, const char *block,
                          em_hf_layer *layer, const void *own, json_t **form)
{
    json_t *result = em_form_new(
        r, shape->width, shape->vocabulary, shape->tied, shape->norm_eps,
        shape->padding < -1 ? -1 : em_read_padding(r, shape->padding, shape->vocabulary));
    for (size_t i = 0; i < shape->layers && r->status == EMBER_OK; i++) {
        json_t *sequence = NULL, *channel = NULL;
        const ember_status status = layer(r, shape, own, i, &sequence, &channel);
        if (r->status == EMBER_OK) r->status = status;
        em_form_add_block(r, result, block_of(r, block, shape->norm_eps, sequence, channel));
    }
    if (r->status != EMBER_OK) {
        json_decref(result);
        return r->status;
    }
    *form = result;
    return EMBER_OK;
}

static void set_size(struct em_reader *r, json_t *config, const char *key, size_t value)
{
    em_form_set(r, config, key, json_integer((json_int_t)value));
}

void em_hf_complete_shape(struct em_reader *r, const struct em_hf_shape *preset, json_t *config)
{
    const struct em_hf_shape s = em_hf_read_shape(r, preset);
    set_size(r, config, "hidden_size", s.width);
    set_size(r, config, "vocab_size", s.vocabulary);
    set_size(r, config, "num_hidden_layers", s.layers);
    set_size(r, config, "num_attention_heads", s.heads);
    set_size(r, config, "num_key_value_heads", s.kv_heads);
    set_size(r, config, "max_position_embeddings", s.context);
    em_form_set(r, config, preset->norm_key, json_real(s.norm_eps));
    em_form_set(r, config, "tie_word_embeddings", json_boolean(s.tied));
}

size_t em_form_ffn_width(const json_t *form, size_t block)
{
    const json_t *b = json_array_get(json_object_get(form, "blocks"), block);
    return (size_t)json_integer_value(json_object_get(json_object_get(b, "channel"), "hidden"));
}
