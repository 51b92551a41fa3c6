// What the parts of a tokenizer share: reading, writing, encoding, decoding.
#ifndef EM_TEXT_TOKENIZER_PRIV_H
#define EM_TEXT_TOKENIZER_PRIV_H

#include <jansson.h>

#include "text/added.h"
#include "text/bpe.h"
#include "text/split.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

enum { EM_STEPS_MOST = 8, EM_TEMPLATE_MOST = 64 };

// A pre-tokenizer's step: a space put in front of a piece that lacks one, then a cut.
struct em_step {
    bool prefix_space;
    struct em_split split;
    char *literal; // owned: what split.literal points to
    char *regex;   // owned: the split pattern as the file spells it; NULL otherwise
};

struct em_tokenizer {
    struct em_vocab vocab;
    struct em_bpe bpe;
    struct em_added *added;
    size_t added_count, added_capacity;
    struct em_matcher raw, normalized; // added tokens sought before and after normalisation
    bool characters;                   // a token is a character: no steps, no merges
    bool nfc;
    struct em_step steps[EM_STEPS_MOST];
    size_t step_count;
    int32_t before[EM_TEMPLATE_MOST], after[EM_TEMPLATE_MOST]; // the template around a text
    size_t before_count, after_count;
    int32_t bos, eos, pad;
    uint64_t hash;
};

// An empty one, to be filled; em_tokenizer_close frees it at any stage.
ember_status em_tokenizer_new(struct em_tokenizer **tokenizer) EMBER_CHECKED;

// Adds a token to the list and to the vocabulary (`flags` beside EM_TOKEN_ADDED).
ember_status em_tokenizer_add(struct em_tokenizer *t, const struct em_added *token) EMBER_CHECKED;

// After the last token and merge: lookup tables, matchers, hash.
ember_status em_tokenizer_finish(struct em_tokenizer *t) EMBER_CHECKED;

// From the parsed file; bos, eos and pad stay -1.
ember_status em_tokenizer_from_json(const char *name, const json_t *root,
                                    struct em_tokenizer **tokenizer) EMBER_CHECKED;

// A text between added tokens, character by character.
ember_status em_encode_characters(const struct em_tokenizer *t, const uint8_t *s, size_t n,
                                  struct em_ids *ids) EMBER_CHECKED;
bool em_is_character(const char *text, size_t n); // exactly one, in UTF-8
// A tokenizer that a tokenizer_config.json describes by its class alone; `name` is for messages.
ember_status em_tokenizer_from_classes(const json_t *config, const char *name,
                                       struct em_tokenizer **tokenizer) EMBER_CHECKED;

// LFM2's special tokens at 0, 1, 2, its pattern, and BOS in front of every text: what Ember trains.
ember_status em_tokenizer_lfm2_specials(struct em_tokenizer *t) EMBER_CHECKED;
ember_status em_tokenizer_lfm2_split(struct em_tokenizer *t) EMBER_CHECKED;

// A token as files name it (an added token by its content), and the list of added tokens; NULL: out
// of memory.
json_t *em_tokenizer_name_json(const struct em_tokenizer *t, int32_t id);
json_t *em_tokenizer_added_json(const struct em_tokenizer *t);

#endif
