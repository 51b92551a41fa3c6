// Added tokens: texts that are cut out before everything else, leftmost first, the longest at a
// place.
#ifndef EM_TEXT_ADDED_H
#define EM_TEXT_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fail.h"

struct em_added {
    char *content; // owned
    size_t size;
    int32_t id;
    bool special, normalized, lstrip, rstrip, single_word;
};

// A trie over the contents of some added tokens.
struct em_matcher {
    struct em_matcher_edge *edges; // open addressing: (node, byte) -> node
    size_t edge_mask, edge_count, node_count;
    int32_t *token; // node -> place in the list of added tokens, -1: none
    size_t token_capacity;
    bool first[256]; // bytes that begin a content
};

// Contents longer than this are refused: a look at one place of a text costs at most so many steps.
enum { EM_ADDED_LONGEST = 1024 };

void em_matcher_deinit(struct em_matcher *m);
// `place` comes back from em_matcher_next. Of equal contents the last one counts.
ember_status em_matcher_add(struct em_matcher *m, const void *content, size_t n,
                            int32_t place) EMBER_CHECKED;

// The first match at or after `from`: [*begin, *end) and its place; -1 without one.
int32_t em_matcher_next(const struct em_matcher *m, const uint8_t *s, size_t n, size_t from,
                        size_t *begin, size_t *end);

// Whether the match [*begin, *end) of text s stands (single_word), widened by the spaces that the
// token takes; not to the left of `floor`, where the match before it ended.
bool em_added_stands(const struct em_added *token, const uint8_t *s, size_t n, size_t floor,
                     size_t *begin, size_t *end);

#endif
