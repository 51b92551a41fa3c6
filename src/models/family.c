#include "models/family.h"

#include <math.h>
#include <string.h>

#include "registry/registry.h"

#define EM_FAMILY(symbol) extern const struct em_family em_family_##symbol;
#include "models/list.def"
#undef EM_FAMILY

const struct em_family *const em_families[] = {
#define EM_FAMILY(symbol) &em_family_##symbol,
#include "models/list.def"
#undef EM_FAMILY
};
const size_t em_families_count = sizeof em_families / sizeof em_families[0];

const struct em_family *em_family_find(const char *model_type)
{
    for (size_t i = 0; i < em_families_count; i++)
        if (strcmp(em_families[i]->name, model_type) == 0) return em_families[i];
    return NULL;
}

ember_status em_models_register(void)
{
    static struct em_component component[sizeof em_families / sizeof em_families[0]];
    for (size_t i = 0; i < em_families_count; i++)
        component[i] = (struct em_component){
            EMBER_FAMILY, em_families[i]->name, em_families[i]->help, NULL, 0, em_families[i]};
    return em_registry_add(component, em_families_count);
}

bool em_read_has(const struct em_reader *r, const char *key)
{
    const json_t *v = json_object_get(r->config, key);
    return v && !json_is_null(v);
}

size_t em_read_size(struct em_reader *r, const char *key, size_t preset, size_t min, size_t max)
{
    size_t v = preset;
    if (r->status == EMBER_OK) r->status = em_json_get_size(r->config, r->where, key, min, max, &v);
    return v;
}

double em_read_double(struct em_reader *r, const char *key, double preset, double min, double max)
{
    double v = preset;
    if (r->status == EMBER_OK)
        r->status = em_json_get_double(r->config, r->where, key, min, max, &v);
    return v;
}

bool em_read_bool(struct em_reader *r, const char *key, bool preset)
{
    bool v = preset;
    if (r->status == EMBER_OK) r->status = em_json_get_bool(r->config, r->where, key, &v);
    return v;
}

const char *em_read_string(struct em_reader *r, const char *key, const char *preset)
{
    const char *v = preset;
    if (r->status == EMBER_OK) r->status = em_json_get_string(r->config, r->where, key, &v);
    return v;
}

void em_form_set(struct em_reader *r, json_t *object, const char *key, json_t *value)
{
    // Without an object the value is let go all the same.
    if (json_object_set_new(object, key, value) != 0 && r->status == EMBER_OK)
        r->status = em_fail(EMBER_E_NOMEM, "%s: out of memory", r->where);
}

void em_form_add_block(struct em_reader *r, json_t *form, json_t *block)
{
    json_t *blocks = json_object_get(form, "blocks");
    if (json_array_append_new(blocks, block) != 0 && r->status == EMBER_OK)
        r->status = em_fail(EMBER_E_NOMEM, "%s: out of memory", r->where);
}

ptrdiff_t em_read_padding(struct em_reader *r, ptrdiff_t preset, size_t vocabulary)
{
    const json_t *v = json_object_get(r->config, "pad_token_id");
    if (!v) return preset < (ptrdiff_t)vocabulary ? preset : -1;
    if (json_is_null(v)) return -1;
    json_int_t row = json_integer_value(v);
    if (row < 0) row += (json_int_t)vocabulary;
    if (!json_is_integer(v) || row < 0 || (size_t)row >= vocabulary) {
        if (r->status == EMBER_OK)
            r->status =
                em_fail(EMBER_E_CONFIG, "%s: pad_token_id is not a token of the vocabulary of %zu",
                        r->where, vocabulary);
        return -1;
    }
    return (ptrdiff_t)row;
}

json_t *em_form_new(struct em_reader *r, size_t width, size_t vocabulary, bool tied,
                    double norm_eps, ptrdiff_t frozen_row)
{
    json_t *form = json_pack("{s:s, s:I, s:I, s:b, s:{s:s, s:f}, s:I, s:[]}", "model_type", "ember",
                             "hidden_size", (json_int_t)width, "vocab_size", (json_int_t)vocabulary,
                             "tie_word_embeddings", tied, "final_norm", "type", "rmsnorm", "eps",
                             norm_eps, "frozen_row", (json_int_t)frozen_row, "blocks");
    if (!form && r->status == EMBER_OK)
        r->status = em_fail(EMBER_E_NOMEM, "%s: out of memory", r->where);
    em_form_set(r, form, "initializer_range",
                json_real(em_read_double(r, "initializer_range", 0.02, 0, 100)));
    em_form_set(
        r, form, "max_position_embeddings",
        json_integer((json_int_t)em_read_size(r, "max_position_embeddings", 0, 0, 1u << 30)));
    return form;
}

ember_status em_read_rope(struct em_reader *r, const json_t *parameters, double default_theta,
                          size_t head_dim, size_t context, json_t *attention)
{
    const json_t *scaling = json_object_get(r->config, "rope_scaling"),
                 *flat = json_object_get(r->config, "rope_parameters");
    if (!parameters)
        parameters = json_is_object(scaling) && json_object_size(scaling) ? scaling : flat;
    if (parameters && !json_is_null(parameters) && !json_is_object(parameters))
        return em_fail(EMBER_E_CONFIG, "%s: rope_parameters has to be an object", r->where);
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
        return em_fail(
            EMBER_E_UNSUPPORTED,
            "%s: rope_type \"%s\" is not known (there are: default, linear, llama3, proportional)",
            r->where, type);
    }
    if (r->status == EMBER_OK) r->status = own.status;
    return r->status;
}

ember_status em_read_layer_type(struct em_reader *r, size_t layer, const char **type)
{
    const json_t *types = json_object_get(r->config, "layer_types"),
                 *indices = json_object_get(r->config, "full_attn_idxs");
    *type = "full_attention";
    if (json_is_array(types)) {
        *type = json_string_value(json_array_get(types, layer));
        if (!*type)
            return em_fail(EMBER_E_CONFIG,
                           "%s: layer_types[%zu] has to be a string, for every layer", r->where,
                           layer);
    } else if (json_is_array(indices)) {
        *type = "conv";
        for (size_t i = 0; i < json_array_size(indices); i++)
            if (json_integer_value(json_array_get(indices, i)) == (json_int_t)layer &&
                json_is_integer(json_array_get(indices, i)))
                *type = "full_attention";
    }
    return EMBER_OK;
}
