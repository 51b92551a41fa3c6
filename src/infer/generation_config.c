#include "infer/generation_config.h"

#include "base/alloc.h"
#include "base/log.h"

enum { MAX_END = 1024 };

static ember_status add_end(struct em_generation_config *c, int32_t id)
{
    if (em_generation_ends(c, id)) return EMBER_OK;
    int32_t *end = em_realloc(c->end, (c->end_count + 1) * sizeof *end);
    if (!end) return EMBER_E_NOMEM;
    c->end = end;
    c->end[c->end_count++] = id;
    return EMBER_OK;
}

static ember_status read_end_token(struct em_generation_config *c, const json_t *v,
                                   const char *where, size_t vocabulary)
{
    char found[96];
    if (!json_is_integer(v))
        return em_fail(EMBER_E_CONFIG,
                       "%s: eos_token_id has to be a token id, or a list of them, found %s", where,
                       em_json_text(v, found, sizeof found));
    const json_int_t id = json_integer_value(v);
    if (id == -1) return EMBER_OK; // "none" in some published files
    if (id < 0 || (size_t)id >= vocabulary)
        return em_fail(EMBER_E_CONFIG, "%s: eos_token_id %lld is outside the vocabulary of %zu",
                       where, (long long)id, vocabulary);
    return add_end(c, (int32_t)id);
}

static ember_status read_end(struct em_generation_config *c, const json_t *config,
                             const char *where, size_t vocabulary)
{
    const json_t *v = json_object_get(config, "eos_token_id");
    if (!v || json_is_null(v)) return EMBER_OK;
    if (!json_is_array(v)) return read_end_token(c, v, where, vocabulary);
    if (json_array_size(v) > MAX_END)
        return em_fail(EMBER_E_CONFIG, "%s: eos_token_id lists more than %d tokens", where,
                       MAX_END);
    for (size_t i = 0; i < json_array_size(v); i++)
        EM_TRY(read_end_token(c, json_array_get(v, i), where, vocabulary));
    return EMBER_OK;
}

static bool says(const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key);
    return v && !json_is_null(v);
}

static ember_status read_sampling(struct em_generation_config *c, const json_t *config,
                                  const char *where)
{
    static const char *const keys[] = {"do_sample", "temperature", "top_k",
                                       "top_p",     "min_p",       "repetition_penalty"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        c->sampling_from_file = c->sampling_from_file || says(config, keys[i]);
    if (!c->sampling_from_file) return EMBER_OK;
    ember_sampling s = {.temperature = 1, .top_k = 50, .top_p = 1, .repeat_penalty = 1};
    bool sample = true;
    EM_TRY(em_json_get_bool(config, where, "do_sample", &sample));
    EM_TRY(em_json_get_double(config, where, "temperature", 0, 1000, &s.temperature));
    EM_TRY(em_json_get_size(config, where, "top_k", 0, 1 << 24, &s.top_k));
    EM_TRY(em_json_get_double(config, where, "top_p", 0, 1, &s.top_p));
    EM_TRY(em_json_get_double(config, where, "min_p", 0, 1, &s.min_p));
    EM_TRY(em_json_get_double(config, where, "repetition_penalty", 0.01, 100, &s.repeat_penalty));
    if (!sample) s.temperature = 0;
    c->sampling = s;
    return EMBER_OK;
}

static ember_status read_file(struct em_generation_config *c, const struct em_folder *folder,
                              size_t vocabulary)
{
    bool there;
    json_t *config = NULL;
    EM_TRY(em_folder_has(folder, "generation_config.json", &there));
    if (!there) return EMBER_OK;
    char *name = em_folder_name(folder, "generation_config.json"), found[96];
    if (!name) return EMBER_E_NOMEM;
    ember_status status = em_folder_json(folder, "generation_config.json", 0, 0, &config);
    if (status == EMBER_OK && !json_is_object(config))
        status = em_fail(EMBER_E_CONFIG, "%s: has to be an object, found %s", name,
                         em_json_text(config, found, sizeof found));
    if (status == EMBER_OK) status = read_end(c, config, name, vocabulary);
    if (status == EMBER_OK) status = read_sampling(c, config, name);
    json_decref(config);
    em_free(name);
    return status;
}

ember_status em_generation_config_read_in(const struct em_model *m, const struct em_folder *folder,
                                          const struct em_tokenizer *tokenizer,
                                          struct em_generation_config *out)
{
    struct em_generation_config c = {.sampling = em_sampling_default};
    ember_status status = read_end(&c, m->config, m->name, m->vocabulary);
    if (status == EMBER_OK && folder) status = read_file(&c, folder, m->vocabulary);
    const int32_t eos = tokenizer ? em_tokenizer_eos(tokenizer) : -1;
    if (status == EMBER_OK && !c.end_count && eos >= 0 && (size_t)eos < m->vocabulary)
        status = add_end(&c, eos);
    if (status != EMBER_OK) {
        em_generation_config_deinit(&c);
        return status;
    }
    *out = c;
    return EMBER_OK;
}

ember_status em_generation_config_read(const struct em_model *m, const char *path,
                                       const struct em_tokenizer *tokenizer,
                                       struct em_generation_config *out)
{
    const struct em_folder folder = {.path = path};
    return em_generation_config_read_in(m, path ? &folder : NULL, tokenizer, out);
}

void em_generation_config_deinit(struct em_generation_config *c)
{
    em_free(c->end);
    *c = (struct em_generation_config){0};
}

bool em_generation_ends(const struct em_generation_config *c, int32_t id)
{
    for (size_t i = 0; i < c->end_count; i++)
        if (c->end[i] == id) return true;
    return false;
}
