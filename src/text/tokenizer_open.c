// Opening a tokenizer: which of a folder's files says what it is, and which tokens have a role.
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/json.h"
#include "text/tokenizer_priv.h"

// A token given as "text" or {"content": "text"}; -1 where there is none.
static ember_status named_token(const struct em_tokenizer *t, const char *path,
                                const json_t *config, const char *key, int32_t *id)
{
    const json_t *value = json_object_get(config, key);
    char found[96];
    *id = -1;
    if (json_is_object(value)) value = json_object_get(value, "content");
    if (!value || json_is_null(value)) return EMBER_OK;
    if (!json_is_string(value))
        return em_fail(EMBER_E_FORMAT, "%s: %s: expected a token's text, found %s", path, key,
                       em_json_text(value, found, sizeof found));
    *id = em_tokenizer_find(t, json_string_value(value), json_string_length(value));
    return EMBER_OK;
}

static int32_t first_found(const struct em_tokenizer *t, const char *const *names)
{
    int32_t id = -1;
    for (; id < 0 && *names; names++)
        id = em_tokenizer_find(t, *names, strlen(*names));
    return id;
}

// bos, eos and pad by the names in use.
static void guess_roles(struct em_tokenizer *t)
{
    static const char *const bos[] = {"<|startoftext|>", "<|begin_of_text|>", "<s>", NULL};
    static const char *const eos[] = {"<|im_end|>", "<|end_of_text|>", "<|endoftext|>", "</s>",
                                      NULL};
    static const char *const pad[] = {"<|pad|>", "<pad>", NULL};
    t->bos = t->before_count > 0 && em_tokenizer_is_special(t, t->before[0]) ? t->before[0]
                                                                             : first_found(t, bos);
    t->eos = first_found(t, eos);
    t->pad = first_found(t, pad);
}

// bos, eos and pad as tokenizer_config.json names them; without it, guessed. A failure to look is
// passed on: guessing would give other ids without a word.
static ember_status read_roles(struct em_tokenizer *t, const struct em_folder *folder)
{
    bool there;
    json_t *config = NULL;
    EM_TRY(em_folder_has(folder, "tokenizer_config.json", &there));
    if (!there) {
        guess_roles(t);
        return EMBER_OK;
    }
    char *name = em_folder_name(folder, "tokenizer_config.json"), found[96];
    if (!name) return EMBER_E_NOMEM;
    ember_status status = em_folder_json(folder, "tokenizer_config.json", 0, 0, &config);
    if (status == EMBER_OK && !json_is_object(config))
        status = em_fail(EMBER_E_FORMAT, "%s: expected an object, found %s", name,
                         em_json_text(config, found, sizeof found));
    if (status == EMBER_OK) status = named_token(t, name, config, "bos_token", &t->bos);
    if (status == EMBER_OK) status = named_token(t, name, config, "eos_token", &t->eos);
    if (status == EMBER_OK) status = named_token(t, name, config, "pad_token", &t->pad);
    json_decref(config);
    em_free(name);
    return status;
}

ember_status em_tokenizer_parse(const char *name, const char *text, size_t n,
                                struct em_tokenizer **tokenizer)
{
    json_t *root = NULL;
    EM_TRY(em_json_parse(name, text, n, EM_JSON_DENSE, &root));
    struct em_tokenizer *t = NULL;
    const ember_status status = em_tokenizer_from_json(name, root, &t);
    json_decref(root);
    if (status != EMBER_OK) return status;
    guess_roles(t);
    *tokenizer = t;
    return EMBER_OK;
}

static ember_status open_file(const struct em_folder *folder, const char *file,
                              struct em_tokenizer **tokenizer)
{
    json_t *root = NULL;
    struct em_tokenizer *t = NULL;
    char *name = em_folder_name(folder, file);
    if (!name) return EMBER_E_NOMEM;
    ember_status status = em_folder_json(folder, file, (size_t)256 << 20, EM_JSON_DENSE, &root);
    if (status == EMBER_OK) status = em_tokenizer_from_json(name, root, &t);
    json_decref(root);
    if (status == EMBER_OK) status = read_roles(t, folder);
    if (status == EMBER_OK)
        *tokenizer = t;
    else
        em_tokenizer_close(t);
    em_free(name);
    return status;
}

// A folder without tokenizer.json may name a class that needs none.
static ember_status open_class(const struct em_folder *folder, struct em_tokenizer **tokenizer)
{
    json_t *config = NULL;
    char *name = em_folder_name(folder, "tokenizer_config.json");
    if (!name) return EMBER_E_NOMEM;
    ember_status status = em_folder_json(folder, "tokenizer_config.json", 0, 0, &config);
    if (status == EMBER_OK) status = em_tokenizer_from_classes(config, name, tokenizer);
    json_decref(config);
    em_free(name);
    return status;
}

ember_status em_tokenizer_open_in(const struct em_folder *folder, struct em_tokenizer **tokenizer)
{
    bool file, config;
    EM_TRY(em_folder_has(folder, "tokenizer.json", &file));
    EM_TRY(em_folder_has(folder, "tokenizer_config.json", &config));
    return !file && config ? open_class(folder, tokenizer)
                           : open_file(folder, "tokenizer.json", tokenizer);
}

ember_status em_tokenizer_open(const char *path, struct em_tokenizer **tokenizer)
{
    const size_t n = strlen(path);
    if (n > 5 && strcmp(path + n - 5, ".gguf") == 0)
        return em_fail(EMBER_E_UNSUPPORTED,
                       "%s: Ember reads tokenizers from tokenizer.json, not yet from GGUF", path);
    enum em_path_kind kind;
    EM_TRY(em_path_probe(path, &kind));
    if (kind == EM_PATH_DIRECTORY)
        return em_tokenizer_open_in(&(struct em_folder){.path = path}, tokenizer);
    const char *file = em_path_base(path);
    char *parent = file == path ? em_strdup(".") : em_strndup(path, (size_t)(file - path));
    if (!parent) return EMBER_E_NOMEM;
    const ember_status status = open_file(&(struct em_folder){.path = parent}, file, tokenizer);
    em_free(parent);
    return status;
}
