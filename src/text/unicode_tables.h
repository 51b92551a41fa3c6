// The generated tables behind unicode.c and nfc.c.
#ifndef EM_TEXT_UNICODE_TABLES_H
#define EM_TEXT_UNICODE_TABLES_H

#include <stddef.h>
#include <stdint.h>

// Runs of one general category, in order: first code point << 5 | category. The index has, for
// every 128 code points below U+20000, the run that holds the first of them, and last the table's
// last run.
#define EM_CATEGORY_BLOCKS 1024
extern const uint32_t em_category_runs[];
extern const uint16_t em_category_index[EM_CATEGORY_BLOCKS + 1];

// Full canonical decompositions without Hangul, sorted: code point << 3 | length, place in the
// pool.
struct em_decomposition {
    uint32_t code_and_length, offset;
};
extern const struct em_decomposition em_decompositions[];
extern const size_t em_decomposition_count;
extern const uint32_t em_decomposition_pool[];

// Canonical compositions, sorted by first and second.
struct em_composition {
    uint32_t first, second, composed;
};
extern const struct em_composition em_compositions[];
extern const size_t em_composition_count;
// The few second halves whose combining class is 0 (vowel signs of Indic scripts).
extern const uint32_t em_composition_tails[];
extern const size_t em_composition_tail_count;

// Canonical combining classes other than 0.
struct em_ccc_range {
    uint32_t first, last, ccc;
};
extern const struct em_ccc_range em_ccc_ranges[];
extern const size_t em_ccc_range_count;

#endif
