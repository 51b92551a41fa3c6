// Cutting text into the pieces within which byte pairs are merged: hand-written matchers for the
// known split patterns, and the pre-tokenizers that cut by literal text or digits.
#ifndef EM_TEXT_SPLIT_H
#define EM_TEXT_SPLIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fail.h"

enum em_pattern_kind {
    EM_PATTERN_NONE,    // no cut
    EM_PATTERN_GPT2,    // 's|'t|..| ?\p{L}+| ?\p{N}+|..
    EM_PATTERN_LLAMA3,  // LFM2's and Llama 3's: case-insensitive contractions, numbers by threes
    EM_PATTERN_QWEN2,   // the same, numbers one by one
    EM_PATTERN_NUMERIC, // one numeric character
    EM_PATTERN_LITERAL, // a fixed text
};

enum em_split_behavior {
    EM_SPLIT_ISOLATED,
    EM_SPLIT_REMOVED,
    EM_SPLIT_MERGED_WITH_PREVIOUS,
    EM_SPLIT_MERGED_WITH_NEXT,
    EM_SPLIT_CONTIGUOUS,
};

struct em_split {
    enum em_pattern_kind pattern;
    enum em_split_behavior behavior;
    bool invert;
    const char *literal; // borrowed
    size_t literal_size;
};

// LFM2's pattern, the one that Ember trains and writes.
extern const char em_pattern_lfm2[];

// The kind of a regular expression, by its exact text. EMBER_E_UNSUPPORTED names an unknown one.
ember_status em_pattern_find(const char *where, const char *regex,
                             enum em_pattern_kind *kind) EMBER_CHECKED;

// The next segment of s (n >= 1, valid UTF-8): its length, and whether the pattern matches it.
size_t em_pattern_next(const struct em_split *split, const uint8_t *s, size_t n, bool *match);

// The next piece at or after *position, by pattern and behavior; false at the end. *position starts
// at 0.
bool em_split_next(const struct em_split *split, const uint8_t *s, size_t n, size_t *position,
                   size_t *begin, size_t *end);

#endif
