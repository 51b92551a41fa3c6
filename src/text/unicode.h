// Code points and their classes, as of Unicode 16; UTF-8.
#ifndef EM_TEXT_UNICODE_H
#define EM_TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/fail.h"

// General categories, in the order of tools/make_unicode_tables.py.
enum em_category {
    EM_LU,
    EM_LL,
    EM_LT,
    EM_LM,
    EM_LO,
    EM_MN,
    EM_MC,
    EM_ME,
    EM_ND,
    EM_NL,
    EM_NO,
    EM_PC,
    EM_PD,
    EM_PS,
    EM_PE,
    EM_PI,
    EM_PF,
    EM_PO,
    EM_SM,
    EM_SC,
    EM_SK,
    EM_SO,
    EM_ZS,
    EM_ZL,
    EM_ZP,
    EM_CC,
    EM_CF,
    EM_CS,
    EM_CO,
    EM_CN
};
enum em_category em_category(uint32_t c);

// What split patterns ask for; the classes do not overlap.
enum em_class {
    EM_LETTER = 1, // \p{L}
    EM_NUMBER = 2, // \p{N}
    EM_MARK = 4,   // \p{M}
    EM_PUNCT = 8,  // \p{P}
    EM_SPACE = 16, // \s: White_Space
};
extern const uint8_t em_ascii_class[128];
unsigned em_class_beyond_ascii(uint32_t c);
static inline unsigned em_class(uint32_t c)
{
    return c < 128 ? em_ascii_class[c] : em_class_beyond_ascii(c);
}

// The Digits pre-tokenizer's numbers: \p{N} and thirteen of Unicode 17.
bool em_is_numeric(uint32_t c);
// \w of Rust's regular expressions, by which added tokens find the ends of words.
bool em_is_word(uint32_t c);

// The code point at *s, which is valid UTF-8 and not at its end; steps over it.
static inline uint32_t em_utf8_next(const uint8_t **s)
{
    const uint8_t *p = *s;
    if (p[0] < 0x80) {
        *s = p + 1;
        return p[0];
    }
    if (p[0] < 0xE0) {
        *s = p + 2;
        return (uint32_t)(p[0] & 0x1F) << 6 | (p[1] & 0x3F);
    }
    if (p[0] < 0xF0) {
        *s = p + 3;
        return (uint32_t)(p[0] & 0x0F) << 12 | (uint32_t)(p[1] & 0x3F) << 6 | (p[2] & 0x3F);
    }
    *s = p + 4;
    return (uint32_t)(p[0] & 0x07) << 18 | (uint32_t)(p[1] & 0x3F) << 12 |
           (uint32_t)(p[2] & 0x3F) << 6 | (p[3] & 0x3F);
}

// The code point that ends right before `s`, which is not the start of the valid UTF-8.
static inline uint32_t em_utf8_previous(const uint8_t **s)
{
    const uint8_t *p = *s - 1;
    while ((*p & 0xC0) == 0x80)
        p--;
    *s = p;
    return em_utf8_next(&p);
}

unsigned em_utf8_put(uint32_t c, uint8_t out[4]); // bytes written, 1 to 4

// How many of the n bytes, from the first, are whole and valid UTF-8 (no surrogates, no overlong
// forms).
size_t em_utf8_valid(const uint8_t *s, size_t n);

// At the first byte that is not valid: the bytes that one U+FFFD stands for (the maximal subpart of
// a sequence, as Python's errors="replace"). *cut: the text ends inside a sequence that more bytes
// may finish.
size_t em_utf8_broken(const uint8_t *s, size_t n, bool *cut);

// Appends s with every broken sequence replaced by U+FFFD.
ember_status em_utf8_repair(const uint8_t *s, size_t n, struct em_buf *out) EMBER_CHECKED;

// Normalisation form C. Whether text already is in it can be told for sure only when it is
// ("true").
bool em_nfc_is_stable(const uint8_t *s, size_t n);
ember_status em_nfc(const uint8_t *s, size_t n, struct em_buf *out) EMBER_CHECKED; // appends

#endif
