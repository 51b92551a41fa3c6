#include "report/token_class.h"

#include "base/alloc.h"
#include "report/markup.h"
#include "text/unicode.h"

const char *const em_token_class_name[EM_TOKEN_KINDS] = {
    [EM_KIND_LETTERS] = "letters", [EM_KIND_DIGITS] = "digits",
    [EM_KIND_SPACE] = "space",     [EM_KIND_PUNCTUATION] = "punctuation",
    [EM_KIND_NEWLINE] = "newline", [EM_KIND_OTHER] = "other bytes",
    [EM_KIND_SPECIAL] = "special",
};

static bool is_symbol(uint32_t c)
{
    const enum em_category category = em_category(c);
    return category == EM_SM || category == EM_SC || category == EM_SK || category == EM_SO;
}

enum em_token_class em_token_class_of(const void *bytes, size_t n)
{
    const uint8_t *s = bytes;
    const uint8_t *const end = s + n;
    bool newline = false;
    if (!n) return EM_KIND_SPECIAL;
    while (s < end) {
        if (!em_utf8_length((const char *)s, (size_t)(end - s))) return EM_KIND_OTHER;
        const uint32_t c = em_utf8_next(&s);
        const unsigned class = em_class(c);
        newline = newline || c == '\n' || c == '\r';
        if (class & EM_SPACE) continue;
        if (class & EM_LETTER) return EM_KIND_LETTERS;
        if (class & EM_NUMBER) return EM_KIND_DIGITS;
        return class & EM_PUNCT || is_symbol(c) ? EM_KIND_PUNCTUATION : EM_KIND_OTHER;
    }
    return newline ? EM_KIND_NEWLINE : EM_KIND_SPACE;
}

ember_status em_token_classes(const struct em_tokenizer *tokenizer, size_t vocabulary,
                              int32_t **classes)
{
    int32_t *class = em_calloc(vocabulary ? vocabulary : 1, sizeof *class);
    if (!class) return EMBER_E_NOMEM;
    for (size_t id = 0; id < vocabulary; id++) {
        size_t n = 0;
        const uint8_t *bytes = em_tokenizer_token(tokenizer, (int64_t)id, &n);
        class[id] = !bytes || em_tokenizer_is_special(tokenizer, (int64_t)id)
                        ? EM_KIND_SPECIAL
                        : (int32_t)em_token_class_of(bytes, n);
    }
    *classes = class;
    return EMBER_OK;
}
