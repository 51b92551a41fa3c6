// Reading Hugging Face's tokenizer.json: the byte-level BPE kind, with what such tokenizers use of
// its normalizers, pre-tokenizers and post-processors. Whatever else a file asks for is refused by
// name.
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "text/tokenizer_priv.h"

struct reader {
    struct em_tokenizer *t;
    const char *path;
    bool byte_level; // the pre-tokenizer ends in ByteLevel
    struct em_buf bytes;
    ember_status status; // the first flag's that is none
};

static ember_status unsupported(const struct reader *r, const char *part, const char *name,
                                const char *can)
{
    return em_fail(EMBER_E_UNSUPPORTED, "%s: %s \"%.60s\" is not supported; Ember reads %s",
                   r->path, part, name ? name : "?", can);
}

static ember_status malformed(const struct reader *r, const char *where, const char *expected,
                              const json_t *found)
{
    char text[96];
    return em_fail(EMBER_E_FORMAT, "%s: %s: expected %s, found %s", r->path, where, expected,
                   em_json_text(found, text, sizeof text));
}

static const char *type_of(const json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : "";
}

// A flag of `where`; one of another type is kept as the reader's failure.
static bool is_true(struct reader *r, const char *where, const json_t *object, const char *key,
                    bool absent)
{
    const json_t *value = json_object_get(object, key);
    char text[96];
    if (value && !json_is_null(value) && !json_is_boolean(value) && r->status == EMBER_OK)
        r->status = em_fail(EMBER_E_FORMAT, "%s: %s.%s: expected true or false, found %s", r->path,
                            where, key, em_json_text(value, text, sizeof text));
    return json_is_boolean(value) ? json_is_true(value) : absent;
}

// A spelling's bytes in r->bytes, and the model token of these bytes, or -1.
static ember_status find_spelling(struct reader *r, const char *spelling, size_t n, int32_t *id)
{
    bool mapped;
    em_buf_clear(&r->bytes);
    EM_TRY(em_spelling_to_bytes(spelling, n, &r->bytes, &mapped));
    *id = mapped ? em_vocab_find(&r->t->vocab, r->bytes.data, r->bytes.size) : -1;
    return EMBER_OK;
}

static ember_status read_vocab(struct reader *r, const json_t *vocab)
{
    if (!json_is_object(vocab)) return malformed(r, "model.vocab", "an object", vocab);
    // Ids are nearly dense in every real file; a lone huge one would only buy memory.
    const size_t limit = json_object_size(vocab) * 2 + ((size_t)1 << 20);
    const char *spelling;
    size_t n;
    json_t *value;
    json_object_keylen_foreach((json_t *)(uintptr_t)vocab, spelling, n, value)
    {
        const json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        char found[96];
        if (id < 0 || (size_t)id >= limit)
            return em_fail(
                EMBER_E_FORMAT,
                "%s: model.vocab: token \"%.40s\": expected an id from 0 to %zu, found %s", r->path,
                spelling, limit - 1, em_json_text(value, found, sizeof found));
        if (n == 0) continue; // no text makes it
        bool mapped = em_is_character(spelling, n);
        em_buf_clear(&r->bytes);
        if (r->t->characters)
            EM_TRY(em_buf_add(&r->bytes, spelling, n));
        else
            EM_TRY(em_spelling_to_bytes(spelling, n, &r->bytes, &mapped));
        const ember_status status =
            em_vocab_add(&r->t->vocab, (int32_t)id, r->bytes.data, r->bytes.size,
                         (mapped ? EM_TOKEN_MODEL : 0) | EM_TOKEN_LISTED);
        if (status != EMBER_OK)
            return em_fail_in(status, "%s: model.vocab: token \"%.40s\"", r->path, spelling);
    }
    return EMBER_OK;
}

static ember_status merge_part(struct reader *r, size_t rank, const char *spelling, size_t n,
                               int32_t *id)
{
    EM_TRY(find_spelling(r, spelling, n, id));
    if (*id < 0)
        return em_fail(EMBER_E_FORMAT, "%s: model.merges[%zu]: \"%.*s\" is not in the vocabulary",
                       r->path, rank, (int)(n < 40 ? n : 40), spelling);
    return EMBER_OK;
}

static ember_status add_merge(struct reader *r, size_t rank, const char *left, size_t left_size,
                              const char *right, size_t right_size)
{
    struct em_merge m;
    EM_TRY(merge_part(r, rank, left, left_size, &m.left));
    EM_TRY(merge_part(r, rank, right, right_size, &m.right));
    size_t n;
    const uint8_t *bytes = em_vocab_bytes(&r->t->vocab, m.left, &n);
    em_buf_clear(&r->bytes);
    EM_TRY(em_buf_add(&r->bytes, bytes, n));
    bytes = em_vocab_bytes(&r->t->vocab, m.right, &n);
    EM_TRY(em_buf_add(&r->bytes, bytes, n));
    m.merged = em_vocab_find(&r->t->vocab, r->bytes.data, r->bytes.size);
    if (m.merged < 0)
        return em_fail(EMBER_E_FORMAT,
                       "%s: model.merges[%zu]: the token \"%.*s%.*s\" is not in the vocabulary",
                       r->path, rank, (int)(left_size < 40 ? left_size : 40), left,
                       (int)(right_size < 40 ? right_size : 40), right);
    return em_bpe_add_merge(&r->t->bpe, m);
}

// "a b", or ["a", "b"].
static ember_status read_merges(struct reader *r, const json_t *merges)
{
    if (!json_is_array(merges)) return malformed(r, "model.merges", "an array", merges);
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const json_t *merge = json_array_get(merges, i);
        char found[96];
        if (json_is_string(merge)) {
            const char *text = json_string_value(merge);
            const size_t n = json_string_length(merge);
            if (strncmp(text, "#version", 8) == 0) continue;
            const char *space = memchr(text, ' ', n);
            if (!space || memchr(space + 1, ' ', n - (size_t)(space + 1 - text)))
                return em_fail(
                    EMBER_E_FORMAT,
                    "%s: model.merges[%zu]: expected two tokens and a space, found \"%.40s\"",
                    r->path, i, text);
            EM_TRY(add_merge(r, i, text, (size_t)(space - text), space + 1,
                             n - (size_t)(space + 1 - text)));
        } else {
            const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
            if (json_array_size(merge) != 2 || !json_is_string(left) || !json_is_string(right))
                return em_fail(
                    EMBER_E_FORMAT,
                    "%s: model.merges[%zu]: expected \"a b\" or [\"a\", \"b\"], found %s", r->path,
                    i, em_json_text(merge, found, sizeof found));
            EM_TRY(add_merge(r, i, json_string_value(left), json_string_length(left),
                             json_string_value(right), json_string_length(right)));
        }
    }
    return EMBER_OK;
}

static ember_status refuse_affix(const struct reader *r, const json_t *model, const char *key)
{
    const json_t *value = json_object_get(model, key);
    if (!value || json_is_null(value) || (json_is_string(value) && json_string_length(value) == 0))
        return EMBER_OK;
    return unsupported(r, "the model's", key, "byte-level BPE without affixes");
}

static ember_status read_model(struct reader *r, const json_t *model)
{
    if (!json_is_object(model)) return malformed(r, "model", "an object", model);
    const char *type = type_of(model);
    if (strcmp(type, "BPE") != 0 && !(type[0] == 0 && json_object_get(model, "merges")))
        return unsupported(r, "the model", type, "byte-level BPE");
    EM_TRY(refuse_affix(r, model, "continuing_subword_prefix"));
    EM_TRY(refuse_affix(r, model, "end_of_word_suffix"));
    EM_TRY(read_vocab(r, json_object_get(model, "vocab")));
    EM_TRY(read_merges(r, json_object_get(model, "merges")));
    struct em_bpe *bpe = &r->t->bpe;
    bpe->ignore_merges = is_true(r, "model", model, "ignore_merges", false);
    bpe->fuse_unknown = is_true(r, "model", model, "fuse_unk", false);
    const json_t *unknown = json_object_get(model, "unk_token");
    if (unknown && !json_is_null(unknown) && !json_is_string(unknown))
        return malformed(r, "model.unk_token", "a token", unknown);
    if (json_is_string(unknown) && json_string_length(unknown) > 0) {
        const json_t *id =
            json_object_getn(json_object_get(model, "vocab"), json_string_value(unknown),
                             json_string_length(unknown));
        if (r->t->characters)
            bpe->unknown = json_is_integer(id) ? (int32_t)json_integer_value(id) : -1;
        else
            EM_TRY(find_spelling(r, json_string_value(unknown), json_string_length(unknown),
                                 &bpe->unknown));
        if (bpe->unknown < 0)
            return em_fail(EMBER_E_FORMAT, "%s: model.unk_token \"%.40s\" is not in the vocabulary",
                           r->path, json_string_value(unknown));
    }
    size_t missing = 0;
    for (unsigned b = 0; b < 256 && !r->t->characters; b++)
        missing += em_vocab_find(&r->t->vocab, &(uint8_t){(uint8_t)b}, 1) < 0;
    if (missing > 0 && is_true(r, "model", model, "byte_fallback", false))
        return unsupported(r, "the model's", "byte_fallback",
                           "byte-level BPE with a token for every byte");
    if (missing > 0 && bpe->unknown < 0)
        em_warn("%s: %zu of 256 bytes have no token; encoding drops them", r->path, missing);
    char where[256];
    double dropout = 0;
    snprintf(where, sizeof where, "%s: model", r->path);
    EM_TRY(em_json_get_double(model, where, "dropout", 0, 1, &dropout));
    if (dropout > 0) em_warn("%s: the model's dropout %g is not applied", r->path, dropout);
    return EMBER_OK;
}

static ember_status read_added(struct reader *r, const json_t *list)
{
    if (!list || json_is_null(list)) return EMBER_OK;
    if (!json_is_array(list)) return malformed(r, "added_tokens", "an array", list);
    const size_t limit = r->t->vocab.size + json_array_size(list) * 2 + ((size_t)1 << 20);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i), *id = json_object_get(item, "id"),
                     *content = json_object_get(item, "content");
        char found[96], where[48];
        snprintf(where, sizeof where, "added_tokens[%zu]", i);
        if (!json_is_string(content))
            return em_fail(EMBER_E_FORMAT, "%s: %s.content: expected a text, found %s", r->path,
                           where, em_json_text(content, found, sizeof found));
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            (size_t)json_integer_value(id) >= limit)
            return em_fail(EMBER_E_FORMAT, "%s: %s.id: expected an id from 0 to %zu, found %s",
                           r->path, where, limit - 1, em_json_text(id, found, sizeof found));
        char *copy = em_memdup(json_string_value(content), json_string_length(content));
        if (!copy) return EMBER_E_NOMEM;
        const struct em_added token = {
            .content = copy,
            .size = json_string_length(content),
            .id = (int32_t)json_integer_value(id),
            .special = is_true(r, where, item, "special", false),
            .normalized = is_true(r, where, item, "normalized", true),
            .lstrip = is_true(r, where, item, "lstrip", false),
            .rstrip = is_true(r, where, item, "rstrip", false),
            .single_word = is_true(r, where, item, "single_word", false),
        };
        const ember_status status = token.size ? em_tokenizer_add(r->t, &token) : EMBER_OK;
        em_free(copy);
        if (status != EMBER_OK) return em_fail_in(status, "%s: added_tokens[%zu]", r->path, i);
    }
    return EMBER_OK;
}

static ember_status read_normalizer(struct reader *r, const json_t *n)
{
    if (!n || json_is_null(n)) return EMBER_OK;
    const char *type = type_of(n);
    if (strcmp(type, "NFC") == 0) {
        r->t->nfc = true;
        return EMBER_OK;
    }
    if (strcmp(type, "Sequence") != 0) return unsupported(r, "the normalizer", type, "NFC");
    const json_t *parts = json_object_get(n, "normalizers");
    if (!json_is_array(parts)) return malformed(r, "normalizer.normalizers", "an array", parts);
    for (size_t i = 0; i < json_array_size(parts); i++)
        EM_TRY(read_normalizer(r, json_array_get(parts, i)));
    return EMBER_OK;
}

static ember_status add_step(struct reader *r, const struct em_step *step)
{
    if (r->t->step_count == EM_STEPS_MOST)
        return em_fail(EMBER_E_UNSUPPORTED, "%s: more than %d pre-tokenizers", r->path,
                       EM_STEPS_MOST);
    r->t->steps[r->t->step_count++] = *step;
    return EMBER_OK;
}

static ember_status read_split(struct reader *r, const json_t *p)
{
    static const char *const behaviors[] = {
        [EM_SPLIT_ISOLATED] = "Isolated",
        [EM_SPLIT_REMOVED] = "Removed",
        [EM_SPLIT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
        [EM_SPLIT_MERGED_WITH_NEXT] = "MergedWithNext",
        [EM_SPLIT_CONTIGUOUS] = "Contiguous",
    };
    const json_t *pattern = json_object_get(p, "pattern"),
                 *regex = json_object_get(pattern, "Regex"),
                 *literal = json_object_get(pattern, "String");
    const char *behavior = json_string_value(json_object_get(p, "behavior"));
    struct em_step step = {.split = {.invert = is_true(r, "pre_tokenizer", p, "invert", false)}};
    size_t b = 0;
    while (b < sizeof behaviors / sizeof *behaviors &&
           (!behavior || strcmp(behavior, behaviors[b]) != 0))
        b++;
    if (b == sizeof behaviors / sizeof *behaviors)
        return malformed(r, "pre_tokenizer: Split.behavior",
                         "Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous",
                         json_object_get(p, "behavior"));
    step.split.behavior = (enum em_split_behavior)b;
    if (json_is_string(regex) && strlen(json_string_value(regex)) != json_string_length(regex))
        return malformed(r, "pre_tokenizer: Split.pattern.Regex", "a text without NUL", regex);
    if (json_is_string(regex)) {
        EM_TRY(em_pattern_find(r->path, json_string_value(regex), &step.split.pattern));
        step.regex = em_strdup(json_string_value(regex));
        if (!step.regex) return EMBER_E_NOMEM;
    } else if (json_is_string(literal) && json_string_length(literal) > 0) {
        step.split.pattern = EM_PATTERN_LITERAL;
        step.split.literal_size = json_string_length(literal);
        step.literal = em_memdup(json_string_value(literal), step.split.literal_size);
        if (!step.literal) return EMBER_E_NOMEM;
        step.split.literal = step.literal;
    } else {
        return malformed(r, "pre_tokenizer: Split.pattern", "{\"Regex\": ..} or {\"String\": ..}",
                         pattern);
    }
    const ember_status status = add_step(r, &step);
    if (status != EMBER_OK) {
        em_free(step.literal);
        em_free(step.regex);
    }
    return status;
}

static ember_status read_pre_tokenizer(struct reader *r, const json_t *p)
{
    const char *type = type_of(p);
    if (strcmp(type, "Sequence") == 0) {
        const json_t *parts = json_object_get(p, "pretokenizers");
        if (!json_is_array(parts))
            return malformed(r, "pre_tokenizer.pretokenizers", "an array", parts);
        for (size_t i = 0; i < json_array_size(parts); i++)
            EM_TRY(read_pre_tokenizer(r, json_array_get(parts, i)));
        return EMBER_OK;
    }
    if (r->byte_level)
        return unsupported(r, "after ByteLevel the pre-tokenizer", type,
                           "ByteLevel as the last one");
    if (strcmp(type, "Split") == 0) return read_split(r, p);
    if (strcmp(type, "Digits") == 0) {
        const bool single = is_true(r, "pre_tokenizer", p, "individual_digits", false);
        return add_step(r, &(struct em_step){.split = {.pattern = EM_PATTERN_NUMERIC,
                                                       .behavior = single ? EM_SPLIT_ISOLATED
                                                                          : EM_SPLIT_CONTIGUOUS}});
    }
    if (strcmp(type, "ByteLevel") == 0) {
        r->byte_level = true;
        const bool regex = is_true(r, "pre_tokenizer", p, "use_regex", true),
                   space = is_true(r, "pre_tokenizer", p, "add_prefix_space", true);
        if (!regex && !space) return EMBER_OK;
        return add_step(
            r, &(struct em_step){.prefix_space = space,
                                 .split = {.pattern = regex ? EM_PATTERN_GPT2 : EM_PATTERN_NONE}});
    }
    return unsupported(r, "the pre-tokenizer", type,
                       "Split, Digits, ByteLevel and sequences of them");
}

static ember_status read_decoder(struct reader *r, const json_t *d)
{
    if (!d || json_is_null(d)) return EMBER_OK;
    const char *type = type_of(d);
    if (strcmp(type, r->t->characters ? "Fuse" : "ByteLevel") == 0) return EMBER_OK;
    if (strcmp(type, "Sequence") != 0)
        return unsupported(r, "the decoder", type, r->t->characters ? "Fuse" : "ByteLevel");
    const json_t *parts = json_object_get(d, "decoders");
    if (!json_is_array(parts)) return malformed(r, "decoder.decoders", "an array", parts);
    for (size_t i = 0; i < json_array_size(parts); i++)
        EM_TRY(read_decoder(r, json_array_get(parts, i)));
    return EMBER_OK;
}

// A template's special token stands for one or more ids.
static ember_status read_template_token(struct reader *r, const json_t *p, const char *name,
                                        int32_t *ids, size_t *count)
{
    const json_t *list =
        json_object_get(json_object_get(json_object_get(p, "special_tokens"), name), "ids");
    if (!json_is_array(list) || json_array_size(list) == 0)
        return em_fail(EMBER_E_FORMAT, "%s: post_processor: special token \"%.40s\" has no ids",
                       r->path, name);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *id = json_array_get(list, i);
        char found[96];
        if (!json_is_integer(id) || !em_vocab_has(&r->t->vocab, json_integer_value(id)))
            return em_fail(
                EMBER_E_FORMAT,
                "%s: post_processor: special token \"%.40s\" has an id without a token, %s",
                r->path, name, em_json_text(id, found, sizeof found));
        if (*count == EM_TEMPLATE_MOST)
            return em_fail(EMBER_E_UNSUPPORTED,
                           "%s: post_processor: more than %d tokens beside the text", r->path,
                           EM_TEMPLATE_MOST);
        ids[(*count)++] = (int32_t)json_integer_value(id);
    }
    return EMBER_OK;
}

// Each template goes around what the ones before it made.
static ember_status read_template(struct reader *r, const json_t *p)
{
    struct em_tokenizer *t = r->t;
    const json_t *single = json_object_get(p, "single");
    if (!json_is_array(single)) return malformed(r, "post_processor.single", "an array", single);
    int32_t before[EM_TEMPLATE_MOST];
    size_t before_count = 0, texts = 0;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i),
                     *special = json_object_get(item, "SpecialToken"),
                     *sequence = json_object_get(item, "Sequence");
        const char *name = json_string_value(json_object_get(special ? special : sequence, "id"));
        if (!name)
            return malformed(r, "post_processor.single", "SpecialToken or Sequence with an id",
                             item);
        if (sequence)
            texts++;
        else if (texts == 0)
            EM_TRY(read_template_token(r, p, name, before, &before_count));
        else
            EM_TRY(read_template_token(r, p, name, t->after, &t->after_count));
    }
    if (texts != 1)
        return malformed(r, "post_processor.single", "the text (Sequence) exactly once", single);
    if (before_count + t->before_count > EM_TEMPLATE_MOST)
        return em_fail(EMBER_E_UNSUPPORTED,
                       "%s: post_processor: more than %d tokens before the text", r->path,
                       EM_TEMPLATE_MOST);
    memmove(t->before + before_count, t->before, t->before_count * sizeof *t->before);
    memcpy(t->before, before, before_count * sizeof *before);
    t->before_count += before_count;
    return EMBER_OK;
}

static ember_status read_post_processor(struct reader *r, const json_t *p)
{
    if (!p || json_is_null(p)) return EMBER_OK;
    const char *type = type_of(p);
    if (strcmp(type, "ByteLevel") == 0) return EMBER_OK; // about offsets only
    if (strcmp(type, "TemplateProcessing") == 0) return read_template(r, p);
    if (strcmp(type, "Sequence") != 0)
        return unsupported(r, "the post-processor", type,
                           "TemplateProcessing, ByteLevel and sequences of them");
    const json_t *parts = json_object_get(p, "processors");
    if (!json_is_array(parts)) return malformed(r, "post_processor.processors", "an array", parts);
    for (size_t i = 0; i < json_array_size(parts); i++)
        EM_TRY(read_post_processor(r, json_array_get(parts, i)));
    return EMBER_OK;
}

// Byte-pair encoding of characters that has nothing to merge, and no steps before it.
static bool is_characters(const json_t *root)
{
    const json_t *model = json_object_get(root, "model"),
                 *pre = json_object_get(root, "pre_tokenizer"),
                 *merges = json_object_get(model, "merges");
    return (!pre || json_is_null(pre)) && strcmp(type_of(model), "BPE") == 0 &&
           json_is_array(merges) && json_array_size(merges) == 0 &&
           !json_is_true(json_object_get(model, "byte_fallback"));
}

static ember_status read_all(struct reader *r, const json_t *root)
{
    if (!json_is_object(root)) return malformed(r, "the file", "an object", root);
    r->t->characters = is_characters(root);
    EM_TRY(read_model(r, json_object_get(root, "model")));
    EM_TRY(read_added(r, json_object_get(root, "added_tokens")));
    EM_TRY(read_normalizer(r, json_object_get(root, "normalizer")));
    const json_t *pre = json_object_get(root, "pre_tokenizer");
    if (pre && !json_is_null(pre)) EM_TRY(read_pre_tokenizer(r, pre));
    EM_TRY(r->status);
    if (!r->byte_level && !r->t->characters)
        return em_fail(EMBER_E_UNSUPPORTED,
                       "%s: pre_tokenizer has no ByteLevel; Ember reads byte-level BPE", r->path);
    EM_TRY(read_decoder(r, json_object_get(root, "decoder")));
    EM_TRY(read_post_processor(r, json_object_get(root, "post_processor")));
    if (r->t->vocab.size == 0)
        return malformed(r, "model.vocab", "at least one token",
                         json_object_get(json_object_get(root, "model"), "vocab"));
    EM_TRY(r->status);
    return em_tokenizer_finish(r->t);
}

ember_status em_tokenizer_from_json(const char *name, const json_t *root,
                                    struct em_tokenizer **tokenizer)
{
    struct reader r = {.path = name};
    em_buf_init(&r.bytes, 0);
    ember_status status = em_tokenizer_new(&r.t);
    if (status == EMBER_OK) status = read_all(&r, root);
    if (status == EMBER_OK)
        *tokenizer = r.t;
    else
        em_tokenizer_close(r.t);
    em_buf_deinit(&r.bytes);
    return status;
}
