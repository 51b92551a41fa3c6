#include "text/unicode.h"
#include "text/unicode_tables.h"

#include <string.h>

static const uint8_t category_class[] = {
    [EM_LU] = EM_LETTER, [EM_LL] = EM_LETTER, [EM_LT] = EM_LETTER, [EM_LM] = EM_LETTER,
    [EM_LO] = EM_LETTER, [EM_MN] = EM_MARK,   [EM_MC] = EM_MARK,   [EM_ME] = EM_MARK,
    [EM_ND] = EM_NUMBER, [EM_NL] = EM_NUMBER, [EM_NO] = EM_NUMBER, [EM_PC] = EM_PUNCT,
    [EM_PD] = EM_PUNCT,  [EM_PS] = EM_PUNCT,  [EM_PE] = EM_PUNCT,  [EM_PI] = EM_PUNCT,
    [EM_PF] = EM_PUNCT,  [EM_PO] = EM_PUNCT,  [EM_ZS] = EM_SPACE,  [EM_ZL] = EM_SPACE,
    [EM_ZP] = EM_SPACE,  [EM_CN] = 0,
};

// clang-format off
#define P EM_PUNCT
#define S EM_SPACE
#define N EM_NUMBER
#define L EM_LETTER
const uint8_t em_ascii_class[128] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, S, S, S, S, S, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    S, P, P, P, 0, P, P, P, P, P, P, 0, P, P, P, P, N, N, N, N, N, N, N, N, N, N, P, P, 0, 0, 0, P,
    P, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, P, P, P, 0, P,
    0, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, P, 0, P, 0, 0,
};
#undef P
#undef S
#undef N
#undef L
// clang-format on

enum em_category em_category(uint32_t c)
{
    if (c > 0x10FFFF) return EM_CN;
    const size_t block = c >> 7 < EM_CATEGORY_BLOCKS ? c >> 7 : EM_CATEGORY_BLOCKS - 1;
    size_t low = em_category_index[block], high = em_category_index[block + 1];
    while (low < high) { // the last run that begins at or before c
        const size_t middle = (low + high + 1) / 2;
        if (em_category_runs[middle] >> 5 <= c)
            low = middle;
        else
            high = middle - 1;
    }
    return (enum em_category)(em_category_runs[low] & 31);
}

unsigned em_class_beyond_ascii(uint32_t c)
{
    if (c == 0x85) return EM_SPACE; // the one control character beyond ASCII that is White_Space
    return category_class[em_category(c)];
}

bool em_is_numeric(uint32_t c)
{
    // Digits follow Rust's char::is_numeric, which is one Unicode ahead of the regular expressions.
    return (em_class(c) & EM_NUMBER) || (c >= 0x11DE0 && c <= 0x11DE9) ||
           (c >= 0x16FF4 && c <= 0x16FF6);
}

bool em_is_word(uint32_t c)
{
    if (em_class(c) & (EM_LETTER | EM_MARK)) return true;
    switch (em_category(c)) {
    case EM_ND:
    case EM_NL:
    case EM_PC: return true;
    default: break;
    }
    return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) || // joiners; circled letters
           (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
           (c >= 0x1F170 && c <= 0x1F189);
}

unsigned em_utf8_put(uint32_t c, uint8_t out[4])
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xC0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xE0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
        out[2] = (uint8_t)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3F));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
    out[3] = (uint8_t)(0x80 | (c & 0x3F));
    return 4;
}

// The length of the sequence at s when it is whole and valid; else 0, with *good the length of its
// valid beginning (at least 1) and *cut when only the end of the text is what it lacks.
static size_t sequence(const uint8_t *s, size_t n, size_t *good, bool *cut)
{
    *good = 1;
    *cut = false;
    const uint8_t b = s[0];
    if (b < 0x80) return 1;
    if (b < 0xC2 || b > 0xF4) return 0;
    const size_t need = b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
    // The second byte has a narrower range after these leads: no overlong forms, surrogates, >
    // U+10FFFF.
    const uint8_t low = b == 0xE0 ? 0xA0 : b == 0xF0 ? 0x90 : 0x80;
    const uint8_t high = b == 0xED ? 0x9F : b == 0xF4 ? 0x8F : 0xBF;
    for (size_t i = 1; i < need; i++) {
        if (i == n) {
            *cut = true;
            return 0;
        }
        if (s[i] < (i == 1 ? low : 0x80) || s[i] > (i == 1 ? high : 0xBF)) return 0;
        *good = i + 1;
    }
    return need;
}

size_t em_utf8_valid(const uint8_t *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        while (n - i >= 8) { // eight ASCII bytes at once
            uint64_t word;
            memcpy(&word, s + i, 8);
            if (word & 0x8080808080808080u) break;
            i += 8;
        }
        if (i == n) break;
        size_t good;
        bool cut;
        const size_t length = sequence(s + i, n - i, &good, &cut);
        if (length == 0) return i;
        i += length;
    }
    return n;
}

size_t em_utf8_broken(const uint8_t *s, size_t n, bool *cut)
{
    size_t good;
    (void)sequence(s, n, &good, cut);
    return good;
}

ember_status em_utf8_repair(const uint8_t *s, size_t n, struct em_buf *out)
{
    while (n > 0) {
        const size_t valid = em_utf8_valid(s, n);
        EM_TRY(em_buf_add(out, s, valid));
        s += valid;
        n -= valid;
        if (n == 0) break;
        bool cut;
        const size_t broken = em_utf8_broken(s, n, &cut);
        EM_TRY(em_buf_add(out, "\xEF\xBF\xBD", 3));
        s += broken;
        n -= broken;
    }
    return EMBER_OK;
}
