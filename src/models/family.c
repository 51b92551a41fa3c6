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
        component[i] = (struct em_component){.kind = EMBER_FAMILY,
                                             .name = em_families[i]->name,
                                             .help = em_families[i]->help,
                                             .impl = em_families[i]};
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
