// From a config to layers.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "models/model.h"
#include "models/model_priv.h"

enum { POOL_NONE, POOL_MEAN, POOL_FIRST, POOL_LAST, POOL_SUM };

// What a free block list may say besides its blocks; token ids and the like stay as they are.
struct form_options {
    size_t hidden_size, vocab_size, input_size, output_size, max_position_embeddings;
    bool tie_word_embeddings, output_matrix, language_model;
    bool causal, head_bias;
    int pool;
    float initializer_range, embedding_dropout;
    double frozen_row;
    const ember_config *final_norm, *blocks;
};

static const ember_option form_table[] = {
    EMBER_OPT_SIZE(struct form_options, hidden_size, 256, 1, 1 << 20, "the model's width D"),
    EMBER_OPT_SIZE(struct form_options, vocab_size, 0, 0, 1 << 24,
                   "V; 0: the model reads `inputs` instead of tokens"),
    EMBER_OPT_SIZE(struct form_options, input_size, 0, 0, 1 << 20,
                   "width of `inputs`; 0: hidden_size, and no input matrix"),
    EMBER_OPT_SIZE(
        struct form_options, output_size, 0, 0, 1 << 20,
        "width of the outputs; 0: hidden_size, and no output matrix; a language model's is its "
        "vocabulary"),
    EMBER_OPT_SIZE(struct form_options, max_position_embeddings, 0, 0, 1 << 30,
                   "longest sequence that it is meant for; 0: not said"),
    EMBER_OPT_BOOL(struct form_options, tie_word_embeddings, true,
                   "the output matrix is the embedding"),
    EMBER_OPT_BOOL(struct form_options, output_matrix, true,
                   "models of `inputs`: false: their only block makes output_size columns itself"),
    EMBER_OPT_BOOL(struct form_options, causal, true,
                   "false: layers may look at later tokens; the model then takes whole sequences "
                   "only"),
    EMBER_OPT_ENUM(struct form_options, pool, POOL_NONE, "none|mean|first|last|sum",
                   "an output for every row, or one of a sequence: of its rows' mean or sum, or "
                   "of one of them; not of a language model"),
    EMBER_OPT_BOOL(struct form_options, language_model, true,
                   "models of tokens: outputs are logits of the next token; false: output_size "
                   "columns"),
    EMBER_OPT_BOOL(struct form_options, head_bias, false,
                   "a bias beside an output matrix of its "
                   "own"),
    EMBER_OPT_FLOAT(struct form_options, initializer_range, 0.02, 0, 100,
                    "standard deviation of a random start"),
    EMBER_OPT_FLOAT(struct form_options, embedding_dropout, 0, 0, 0.999,
                    "of what goes into the first block, in training"),
    EMBER_OPT_DOUBLE(struct form_options, frozen_row, -1, -1, 1 << 24,
                     "row of the embedding whose look-up has no gradient; -1: none"),
    EMBER_OPT_COMPONENT(struct form_options, final_norm, EMBER_NORM, "{\"type\": \"rmsnorm\"}",
                        "before the output matrix"),
    EMBER_OPT_COMPONENTS(struct form_options, blocks, EMBER_BLOCK,
                         "the blocks in order; a member {\"repeat\": n, \"share\": true, "
                         "\"blocks\": [..]} is a group that runs n times"),
    {0},
};

static const char *const form_also[] = {
    "model_type",   "architectures", "transformers_version", "dtype", "torch_dtype",
    "bos_token_id", "eos_token_id",  "pad_token_id",         "ember", NULL};

const ember_option *em_form_options(void)
{
    return form_table;
}

enum { MAX_DEPTH = 4096, MAX_NESTING = 8, MAX_NOTES = 16 };

struct block_list {
    struct em_model *model;
    struct ember_build *build;
    size_t blocks_capacity, configs_capacity, order_capacity;
};

static ember_status push_order(struct block_list *list, size_t block)
{
    struct em_model *m = list->model;
    if (m->depth == MAX_DEPTH)
        return em_fail(EMBER_E_CONFIG, "%s: more than %d blocks deep", m->name, MAX_DEPTH);
    EM_TRY(em_grow(&m->order, &list->order_capacity, m->depth + 1, sizeof *m->order));
    m->order[m->depth++] = block;
    return EMBER_OK;
}

static ember_status build_one(struct block_list *list, const json_t *config, const char *where)
{
    struct em_model *m = list->model;
    struct ember_build *b = list->build;
    char name[32];
    EM_TRY(em_grow(&m->block, &list->blocks_capacity, m->n_blocks + 1, sizeof(ember_layer *)));
    EM_TRY(em_grow(&m->block_config, &list->configs_capacity, m->n_blocks + 1,
                   sizeof *m->block_config));
    m->block_config[m->n_blocks] = config;
    snprintf(name, sizeof name, "blocks.%zu", m->n_blocks);
    b->block = m->n_blocks;
    b->where = where;
    EM_TRY(
        em_build_at(b, name, where, EMBER_BLOCK, em_json_config(config), &m->block[m->n_blocks]));
    EM_TRY(push_order(list, m->n_blocks));
    m->n_blocks++;
    return EMBER_OK;
}

static ember_status build_list(struct block_list *list, const json_t *blocks, const char *where,
                               unsigned nesting);

static ember_status build_group(struct block_list *list, const json_t *group, const char *where,
                                unsigned nesting)
{
    size_t repeat = 1;
    bool share = false;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)group, key, value)
    {
        if (strcmp(key, "repeat") && strcmp(key, "share") && strcmp(key, "blocks"))
            return em_fail(EMBER_E_CONFIG,
                           "%s.%s is not known; a group of blocks has repeat, share and blocks",
                           where, key);
    }
    EM_TRY(em_json_get_size(group, where, "repeat", 1, MAX_DEPTH, &repeat));
    EM_TRY(em_json_get_bool(group, where, "share", &share));
    struct em_model *m = list->model;
    const size_t first = m->depth;
    EM_TRY(build_list(list, json_object_get(group, "blocks"), where, nesting + 1));
    const size_t last = m->depth;
    for (size_t i = 1; i < repeat; i++) {
        if (!share) {
            EM_TRY(build_list(list, json_object_get(group, "blocks"), where, nesting + 1));
            continue;
        }
        for (size_t j = first; j < last; j++)
            EM_TRY(push_order(list, m->order[j]));
    }
    return EMBER_OK;
}

static ember_status build_list(struct block_list *list, const json_t *blocks, const char *where,
                               unsigned nesting)
{
    if (nesting > MAX_NESTING)
        return em_fail(EMBER_E_CONFIG, "%s: groups of blocks nest deeper than %d", where,
                       MAX_NESTING);
    if (!json_is_array(blocks) || !json_array_size(blocks)) {
        char found[96];
        return em_fail(EMBER_E_CONFIG, "%s%sblocks has to be a list of at least one block, not %s",
                       where, em_json_joint(where),
                       json_is_array(blocks) ? "an empty one"
                                             : em_json_text(blocks, found, sizeof found));
    }
    for (size_t i = 0; i < json_array_size(blocks); i++) {
        const json_t *member = json_array_get(blocks, i);
        const char *at = em_arena_printf(&list->model->arena,
                                         nesting ? "%s.blocks[%zu]" : "%s: blocks[%zu]", where, i);
        if (!at) return EMBER_E_NOMEM;
        if (json_object_get(member, "blocks"))
            EM_TRY(build_group(list, member, at, nesting));
        else
            EM_TRY(build_one(list, member, at));
    }
    return EMBER_OK;
}

const json_t *em_model_config_at(const struct em_model *m, const char *path)
{
    size_t block;
    int n = 0;
    if (sscanf(path, "blocks.%zu%n", &block, &n) != 1 || block >= m->n_blocks) return NULL;
    const json_t *at = m->block_config[block];
    for (path += n; at && *path == '.';) {
        char name[64];
        const size_t length = strcspn(++path, ".");
        if (length >= sizeof name) return NULL;
        memcpy(name, path, length);
        name[length] = '\0';
        path += length;
        if (strcmp(name, "experts") != 0) {
            at = json_object_get(at, name);
            continue;
        }
        // "experts.2": a member of the list, or alike all.
        char *end;
        if (*path != '.') return NULL;
        const unsigned long member = strtoul(path + 1, &end, 10);
        const json_t *list = json_object_get(at, "expert_list");
        at = list ? json_array_get(list, member) : json_object_get(at, "expert");
        path = end;
    }
    return at;
}

static ember_status build_layers(struct em_model *m)
{
    struct form_options o;
    EM_TRY(em_options_read(form_table, m->form, m->name, form_also, &o));
    m->width = o.hidden_size;
    m->vocabulary = o.vocab_size;
    m->input_size = o.input_size ? o.input_size : o.hidden_size;
    m->output_size = o.output_size ? o.output_size : o.hidden_size;
    m->context = o.max_position_embeddings;
    m->init_range = o.initializer_range;
    m->embedding_dropout = o.embedding_dropout;
    m->causal = o.causal;
    static const ember_pool pools[] = {[POOL_MEAN] = EMBER_POOL_MEAN,
                                       [POOL_FIRST] = EMBER_POOL_FIRST,
                                       [POOL_LAST] = EMBER_POOL_LAST,
                                       [POOL_SUM] = EMBER_POOL_SUM};
    m->pooled = o.pool != POOL_NONE;
    m->pool = pools[o.pool];
    m->language_model = m->vocabulary && o.language_model;
    if (m->pooled && m->language_model)
        return em_fail(EMBER_E_CONFIG,
                       "%s: pool makes one output of a sequence, and a language model has one for "
                       "every token; see language_model",
                       m->name);
    m->frozen_row = (ptrdiff_t)o.frozen_row;
    if ((double)m->frozen_row != o.frozen_row)
        return em_fail(EMBER_E_CONFIG, "%s: frozen_row has to be an integer, not %g", m->name,
                       o.frozen_row);
    if (m->vocabulary && o.input_size)
        return em_fail(
            EMBER_E_CONFIG,
            "%s: input_size is for models of `inputs`; this one reads tokens (vocab_size %zu)",
            m->name, m->vocabulary);
    if (m->language_model && o.output_size)
        return em_fail(
            EMBER_E_CONFIG,
            "%s: output_size is not for language models, whose outputs are logits of %zu "
            "tokens; see language_model",
            m->name, m->vocabulary);
    if (m->frozen_row >= (ptrdiff_t)(m->vocabulary ? m->vocabulary : 1))
        return em_fail(EMBER_E_CONFIG, "%s: frozen_row %td is outside the vocabulary of %zu",
                       m->name, m->frozen_row, m->vocabulary);
    struct ember_build b = {.arena = &m->arena,
                            .params = &m->params,
                            .file = m->name,
                            .path = "",
                            .where = m->name,
                            .width = m->width};
    b.max_parameters = (size_t)1 << 42;
    b.allow_not_causal = !o.causal;
    b.vocabulary = m->vocabulary;
    if (m->vocabulary) {
        if (m->language_model) m->output_size = m->vocabulary;
        EM_TRY(ember_param(&b, &m->embedding, "embedding.weight", EMBER_INIT_NORMAL,
                           EMBER_ROLE_EMBEDDING, (size_t[]){m->vocabulary, m->width}, 2));
    } else if (o.input_size) {
        EM_TRY(ember_param(&b, &m->input, "input.weight", EMBER_INIT_NORMAL, EMBER_ROLE_EMBEDDING,
                           (size_t[]){m->width, o.input_size}, 2));
    }
    struct block_list list = {.model = m, .build = &b};
    if (!o.output_matrix) b.output = m->output_size;
    EM_TRY(build_list(&list, em_config_json(o.blocks), m->name, 0));
    if (!o.output_matrix && (m->vocabulary || m->depth != 1))
        return em_fail(EMBER_E_CONFIG,
                       "%s: a model without output_matrix reads `inputs` and has one block",
                       m->name);
    b.output = 0;
    b.where = m->name;
    m->width = b.width; // blocks of images change it
    if (!m->language_model && !o.output_size) m->output_size = m->width;
    const char *norm = em_arena_printf(&m->arena, "%s: final_norm", m->name);
    if (!norm) return EMBER_E_NOMEM;
    EM_TRY(em_build_at(&b, "final_norm", norm, EMBER_NORM, o.final_norm, &m->final_norm));
    // transformers' name for what its models of labels have in place of the logits' matrix.
    const bool score = m->vocabulary && !m->language_model;
    if (m->language_model && o.tie_word_embeddings)
        m->head = m->embedding;
    else if (m->language_model || (o.output_size && o.output_matrix))
        EM_TRY(ember_param(&b, &m->head, score ? "score.weight" : "head.weight", EMBER_INIT_NORMAL,
                           EMBER_ROLE_HEAD, (size_t[]){m->output_size, m->width}, 2));
    if (o.head_bias && m->head && m->head != m->embedding)
        EM_TRY(ember_param(&b, &m->head_bias, score ? "score.bias" : "head.bias", EMBER_INIT_ZEROS,
                           EMBER_ROLE_HEAD, &m->output_size, 1));
    else if (o.head_bias)
        return em_fail(EMBER_E_CONFIG, "%s: head_bias needs an output matrix of its own", m->name);
    for (size_t i = 0; i < m->params.count; i++)
        m->n_values += ember_tensor_count(&m->params.param[i]->tensor);
    return EMBER_OK;
}

static void note_unknown_keys(const struct em_model *m)
{
    const char *key;
    json_t *value;
    size_t unknown = 0;
    if (!m->family->keys) return;
    json_object_foreach(m->config, key, value)
    {
        bool known = false;
        for (size_t i = 0; m->family->keys[i] && !known; i++)
            known = strcmp(m->family->keys[i], key) == 0;
        if (!known && unknown++ < MAX_NOTES)
            em_note("%s: the key \"%.80s\" is not known to the family %s and is ignored", m->name,
                    key, m->family->name);
    }
    if (unknown > MAX_NOTES) em_note("%s: so are %zu more keys", m->name, unknown - MAX_NOTES);
}

static ember_status fill(struct em_model *m, const json_t *config, const char *name,
                         const struct em_weights *weights, bool notes)
{
    m->name = em_arena_strdup(&m->arena, name);
    m->config = json_deep_copy(config);
    if (!m->name || !m->config) return em_fail(EMBER_E_NOMEM, "%s: out of memory", name);
    char found[96];
    if (!json_is_object(config))
        return em_fail(EMBER_E_CONFIG, "%s: a config has to be an object, found %s", name,
                       em_json_text(config, found, sizeof found));
    const char *type = NULL, *where = em_arena_printf(&m->arena, "%s: model_type", name);
    if (!where) return EMBER_E_NOMEM;
    EM_TRY(em_json_get_string(config, name, "model_type", &type));
    if (!type)
        return em_fail(EMBER_E_CONFIG, "%s is needed: the name of a model family; found nothing",
                       where);
    const struct em_component *family;
    EM_TRY(em_registry_need(EMBER_FAMILY, type, where, &family));
    m->family = family->impl;
    if (notes) EM_TRY(em_model_check_plugins(config, name));
    EM_TRY(m->family->translate(m->config, m->name, weights, &m->form));
    if (notes) note_unknown_keys(m);
    EM_TRY(build_layers(m));
    EM_TRY(em_model_name_tensors(m, weights));
    return em_packs_create(&m->packs);
}

static ember_status create(const json_t *config, const char *name, const struct em_weights *weights,
                           bool notes, struct em_model **model)
{
    struct em_model *m = em_calloc(1, sizeof *m);
    if (!m) return EMBER_E_NOMEM;
    const ember_status status = fill(m, config, name, weights, notes);
    if (status != EMBER_OK) {
        em_model_close(m);
        return status;
    }
    *model = m;
    return EMBER_OK;
}

ember_status em_model_create(const json_t *config, const char *name,
                             const struct em_weights *weights, struct em_model **model)
{
    return create(config, name, weights, true, model);
}

ember_status em_model_create_alike(const struct em_model *like, const struct em_weights *weights,
                                   struct em_model **model)
{
    return create(like->config, like->name, weights, false, model);
}

void em_model_close(struct em_model *m)
{
    if (!m) return;
    if (m->memory) em_block_free(m->memory, m->memory_bytes);
    em_packs_destroy(m->packs);
    em_params_deinit(&m->params);
    em_free(m->file_tensor);
    em_free(m->block);
    em_free(m->block_config);
    em_free(m->order);
    json_decref(m->form);
    json_decref(m->config);
    em_arena_deinit(&m->arena);
    em_free(m);
}

ember_status em_model_need_language(const struct em_model *m)
{
    if (m->language_model) return EMBER_OK;
    return em_fail(EMBER_E_UNSUPPORTED, "%s: %s", m->name,
                   m->vocabulary ? "the model's outputs are not logits of the next token"
                                 : "the model reads vectors, not tokens");
}

void em_model_count(const struct em_model *m, size_t *total, size_t *active)
{
    *total = *active = 0;
    for (size_t i = 0; i < m->params.count; i++) {
        const struct em_param *p = m->params.param[i];
        size_t n = ember_tensor_count(&p->tensor);
        *total += n;
        // An expert's parameters count by the share of experts that a token goes to.
        for (size_t e = 0; e < m->params.moe_count; e++) {
            const struct em_moe_record *moe = &m->params.moe[e];
            const size_t length = strlen(moe->path);
            if (strncmp(p->tensor.name, moe->path, length) == 0 &&
                strncmp(p->tensor.name + length, ".expert", 7) == 0)
                n = n * moe->k / moe->experts;
        }
        *active += n;
    }
}
