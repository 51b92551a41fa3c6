// Kinds of tokens, for maps of what experts specialise in.
#ifndef EM_REPORT_TOKEN_CLASS_H
#define EM_REPORT_TOKEN_CLASS_H

#include "text/tokenizer.h"

// A token is of the kind of its first character that is no blank; one of blanks alone is a space,
// unless it breaks the line. Symbols count as punctuation. Bytes that begin no character, marks and
// control characters are `other`.
enum em_token_class {
    EM_KIND_LETTERS,
    EM_KIND_DIGITS,
    EM_KIND_SPACE,
    EM_KIND_PUNCTUATION,
    EM_KIND_NEWLINE,
    EM_KIND_OTHER,
    EM_KIND_SPECIAL,
    EM_TOKEN_KINDS
};
extern const char *const em_token_class_name[EM_TOKEN_KINDS];

enum em_token_class em_token_class_of(const void *bytes, size_t n);

// The class of every id in [0, vocabulary), owned (em_free). Ids without a token are special.
ember_status em_token_classes(const struct em_tokenizer *tokenizer, size_t vocabulary,
                              int32_t **classes) EMBER_CHECKED;

#endif
