#include "text/split.h"

#include <string.h>

#include "text/unicode.h"

// As Hugging Face's tokenizer.json files spell them. Possessive quantifiers and `\s*[\r\n]` without
// the plus match the same text here: what follows them cannot match what they gave up.
const char em_pattern_lfm2[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

static const struct {
    const char *regex;
    enum em_pattern_kind kind;
} known[] = {
    {em_pattern_lfm2, EM_PATTERN_LLAMA3},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
     " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     EM_PATTERN_QWEN2},
    {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
     EM_PATTERN_GPT2},
    {"'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
     EM_PATTERN_GPT2},
    {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| "
     "?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|"
     "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
     EM_PATTERN_LLAMA3},
};

ember_status em_pattern_find(const char *where, const char *regex, enum em_pattern_kind *kind)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].regex, regex) == 0) {
            *kind = known[i].kind;
            return EMBER_OK;
        }
    return em_fail(EMBER_E_UNSUPPORTED,
                   "%s: the split pattern \"%.100s\" is unknown; known are those of GPT-2, Llama 3 "
                   "(LFM2) and Qwen2",
                   where, regex);
}

static const uint8_t *skip_class(const uint8_t *p, const uint8_t *end, unsigned class)
{
    while (p < end) {
        const uint8_t *next = p;
        if (!(em_class(em_utf8_next(&next)) & class)) break;
        p = next;
    }
    return p;
}

// Past characters that are neither spaces nor letters nor numbers.
static const uint8_t *skip_others(const uint8_t *p, const uint8_t *end)
{
    while (p < end) {
        const uint8_t *next = p;
        if (em_class(em_utf8_next(&next)) & (EM_SPACE | EM_LETTER | EM_NUMBER)) break;
        p = next;
    }
    return p;
}

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
}

// What follows an apostrophe in 's 't 're 've 'm 'll 'd: its length, or 0.
static size_t contraction(const uint8_t *p, const uint8_t *end, bool any_case)
{
    if (p == end) return 0;
    const uint8_t a = any_case ? lower(p[0]) : p[0];
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 1;
    if (end - p < 2) return 0;
    if (any_case && p[0] == 0xC5 && p[1] == 0xBF) return 2; // U+017F, the long s, folds to s
    const uint8_t b = any_case ? lower(p[1]) : p[1];
    return ((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l') ? 2 : 0;
}

// \s+(?!\S)|\s+ at a space: the run of spaces without its last one, which belongs to what follows,
// unless the text ends there or it is the only one.
static const uint8_t *space_run(const uint8_t *s, const uint8_t *run_end, const uint8_t *end)
{
    if (run_end == end) return end;
    const uint8_t *last = run_end;
    (void)em_utf8_previous(&last);
    return last > s ? last : run_end;
}

static const uint8_t *next_gpt2(const uint8_t *s, const uint8_t *end)
{
    const uint8_t *p = s;
    const uint32_t c = em_utf8_next(&p);
    unsigned class = em_class(c);
    if (c == '\'') {
        const size_t n = contraction(p, end, false);
        if (n) return p + n;
    }
    if (c == ' ' && p < end) {
        const uint8_t *q = p;
        const unsigned following = em_class(em_utf8_next(&q));
        if (following & EM_SPACE) return space_run(s, skip_class(q, end, EM_SPACE), end);
        class = following;
        p = q;
    }
    if (class & EM_LETTER) return skip_class(p, end, EM_LETTER);
    if (class & EM_NUMBER) return skip_class(p, end, EM_NUMBER);
    if (class & EM_SPACE) return space_run(s, skip_class(p, end, EM_SPACE), end);
    return skip_others(p, end);
}

static const uint8_t *next_llama3(const uint8_t *s, const uint8_t *end, unsigned most_digits)
{
    const uint8_t *p = s;
    const uint32_t c = em_utf8_next(&p);
    const unsigned class = em_class(c);
    if (class & EM_LETTER) return skip_class(p, end, EM_LETTER);
    if (class & EM_NUMBER) {
        for (unsigned digits = 1; digits < most_digits && p < end; digits++) {
            const uint8_t *next = p;
            if (!(em_class(em_utf8_next(&next)) & EM_NUMBER)) break;
            p = next;
        }
        return p;
    }
    if (c == '\'') {
        const size_t n = contraction(p, end, true);
        if (n) return p + n;
    }
    unsigned following = EM_SPACE; // so that at the end of the text none of the next two applies
    const uint8_t *q = p;
    if (p < end) following = em_class(em_utf8_next(&q));
    if (c != '\r' && c != '\n' && (following & EM_LETTER)) return skip_class(q, end, EM_LETTER);
    if (!(class & EM_SPACE) || (c == ' ' && !(following & (EM_SPACE | EM_NUMBER)))) {
        p = skip_others(p, end);
        while (p < end && (*p == '\r' || *p == '\n'))
            p++;
        return p;
    }
    // \s*[\r\n]+ takes the run of spaces up to its last line end; without one the space rules
    // apply.
    const uint8_t *run = s, *line_end = NULL;
    while (run < end) {
        const uint8_t *next = run;
        const uint32_t space = em_utf8_next(&next);
        if (!(em_class(space) & EM_SPACE)) break;
        if (space == '\r' || space == '\n') line_end = next;
        run = next;
    }
    return line_end ? line_end : space_run(s, run, end);
}

static size_t next_numeric(const uint8_t *s, const uint8_t *end, bool *match)
{
    const uint8_t *p = s;
    *match = em_is_numeric(em_utf8_next(&p));
    while (!*match && p < end) {
        const uint8_t *next = p;
        if (em_is_numeric(em_utf8_next(&next))) break;
        p = next;
    }
    return (size_t)(p - s);
}

size_t em_pattern_next(const struct em_split *split, const uint8_t *s, size_t n, bool *match)
{
    const uint8_t *end = s + n;
    *match = true;
    switch (split->pattern) {
    case EM_PATTERN_GPT2: return (size_t)(next_gpt2(s, end) - s);
    case EM_PATTERN_LLAMA3: return (size_t)(next_llama3(s, end, 3) - s);
    case EM_PATTERN_QWEN2: return (size_t)(next_llama3(s, end, 1) - s);
    case EM_PATTERN_NUMERIC: return next_numeric(s, end, match);
    case EM_PATTERN_LITERAL: {
        const uint8_t *found = memmem(s, n, split->literal, split->literal_size);
        if (found == s) return split->literal_size;
        *match = false;
        return found ? (size_t)(found - s) : n;
    }
    case EM_PATTERN_NONE: break;
    }
    *match = false;
    return n;
}

bool em_split_next(const struct em_split *split, const uint8_t *s, size_t n, size_t *position,
                   size_t *begin, size_t *end)
{
    size_t at = *position;
    while (at < n) {
        bool match, following;
        *begin = at;
        at += em_pattern_next(split, s + at, n - at, &match);
        match ^= split->invert;
        if (split->behavior == EM_SPLIT_REMOVED && match) continue;
        // Merging takes the neighbour in: the next segments are looked at until one stays out.
        while (at < n && split->behavior > EM_SPLIT_REMOVED) {
            const size_t length = em_pattern_next(split, s + at, n - at, &following);
            following ^= split->invert;
            const bool joins = split->behavior == EM_SPLIT_CONTIGUOUS ? following == match
                               : split->behavior == EM_SPLIT_MERGED_WITH_PREVIOUS
                                   ? !match && following
                                   : match && !following;
            if (!joins) break;
            at += length;
            if (split->behavior != EM_SPLIT_CONTIGUOUS) break;
        }
        *end = at;
        *position = at;
        return true;
    }
    *position = n;
    return false;
}
