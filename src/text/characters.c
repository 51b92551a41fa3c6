// Tokenizers of single characters: each character of an alphabet is a token, any other is the
// unknown one. In tokenizer.json such a tokenizer is byte-pair encoding without merges and without
// a pre-tokenizer, which Hugging Face's tokenizers reads the same way.
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "text/tokenizer_priv.h"
#include "text/unicode.h"

// Bytes of the character that s begins with; s is valid UTF-8.
static size_t character(const uint8_t *s, size_t n)
{
    size_t size = 1;
    while (size < n && (s[size] & 0xC0) == 0x80)
        size++;
    return size;
}

ember_status em_encode_characters(const struct em_tokenizer *t, const uint8_t *s, size_t n,
                                  struct em_ids *ids)
{
    bool unknown = false;
    while (n > 0) {
        const size_t size = character(s, n);
        const int32_t id = em_vocab_find(&t->vocab, s, size);
        const bool again = id < 0 && unknown && t->bpe.fuse_unknown;
        if (id >= 0)
            EM_TRY(em_ids_push(ids, id));
        else if (t->bpe.unknown >= 0 && !again)
            EM_TRY(em_ids_push(ids, t->bpe.unknown));
        unknown = id < 0;
        s += size;
        n -= size;
    }
    return EMBER_OK;
}

bool em_is_character(const char *text, size_t n)
{
    return n > 0 && n <= 4 && em_utf8_valid((const uint8_t *)text, n) == n &&
           character((const uint8_t *)text, n) == n;
}

static ember_status add_specials(struct em_tokenizer *t)
{
    static const char *const names[] = {"[CLS]", "[SEP]",      "[BOS]", "[MASK]",
                                        "[PAD]", "[RESERVED]", "[UNK]"};
    for (int32_t id = 0; id < 7; id++) {
        char name[16];
        struct em_added token = {.size = strlen(names[id]), .id = id, .special = true};
        memcpy(name, names[id], token.size + 1);
        token.content = name;
        EM_TRY(em_vocab_add(&t->vocab, id, name, token.size, EM_TOKEN_LISTED));
        EM_TRY(em_tokenizer_add(t, &token));
    }
    t->before[t->before_count++] = 0;
    t->after[t->after_count++] = t->eos = 1;
    t->bos = 2;
    t->pad = 4;
    t->bpe.unknown = 6;
    t->characters = true;
    return EMBER_OK;
}

static ember_status fill(struct em_tokenizer *t, const char *alphabet)
{
    const uint8_t *s = (const uint8_t *)alphabet;
    size_t n = strlen(alphabet);
    EM_TRY(add_specials(t));
    if (!n || em_utf8_valid(s, n) != n)
        return em_fail(EMBER_E_RANGE, "an alphabet has to be UTF-8 and not empty");
    for (int32_t id = 7; n > 0; id++) {
        const size_t size = character(s, n);
        if (em_vocab_find(&t->vocab, s, size) >= 0)
            return em_fail(EMBER_E_RANGE, "the alphabet has \"%.*s\" twice", (int)size,
                           (const char *)s);
        EM_TRY(em_vocab_add(&t->vocab, id, s, size, EM_TOKEN_MODEL | EM_TOKEN_LISTED));
        s += size;
        n -= size;
    }
    return em_tokenizer_finish(t);
}

ember_status em_tokenizer_characters(const char *alphabet, struct em_tokenizer **tokenizer)
{
    struct em_tokenizer *t;
    EM_TRY(em_tokenizer_new(&t));
    const ember_status status = fill(t, alphabet);
    if (status == EMBER_OK)
        *tokenizer = t;
    else
        em_tokenizer_close(t);
    return status;
}

// The list of characters in a HyenaDNA folder's tokenizer_config.json; the nucleotides where it
// says none.
static ember_status alphabet_of(const json_t *config, const char *name, struct em_buf *alphabet)
{
    const json_t *list = json_object_get(config, "characters");
    char found[96];
    if (!list || json_is_null(list)) return em_buf_add(alphabet, "ACGTN", 5);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *c = json_array_get(list, i);
        if (!json_is_string(c) || !em_is_character(json_string_value(c), json_string_length(c)))
            return em_fail(EMBER_E_FORMAT, "%s: characters[%zu]: expected one character, found %s",
                           name, i, em_json_text(c, found, sizeof found));
        EM_TRY(em_buf_add(alphabet, json_string_value(c), json_string_length(c)));
    }
    return json_array_size(list)
               ? EMBER_OK
               : em_fail(EMBER_E_FORMAT, "%s: characters: expected a list of them, found %s", name,
                         em_json_text(list, found, sizeof found));
}

ember_status em_tokenizer_from_classes(const json_t *config, const char *name,
                                       struct em_tokenizer **tokenizer)
{
    struct em_buf alphabet;
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    if (!class || (strcmp(class, "HyenaDNATokenizer") && strcmp(class, "CharacterTokenizer")))
        return em_fail(EMBER_E_UNSUPPORTED,
                       "%s: tokenizer_class \"%.60s\" needs a tokenizer.json beside it", name,
                       class ? class : "?");
    em_buf_init(&alphabet, 1 << 20);
    ember_status status = alphabet_of(config, name, &alphabet);
    if (status == EMBER_OK) status = em_tokenizer_characters(alphabet.data, tokenizer);
    em_buf_deinit(&alphabet);
    return status == EMBER_OK ? EMBER_OK : em_fail_in(status, "%s", name);
}
