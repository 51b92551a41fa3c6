// The tokens of a tokenizer: id -> bytes, and bytes -> id by a hash table.
#ifndef EM_TEXT_VOCAB_H
#define EM_TEXT_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/fail.h"

enum em_token_flags {
    EM_TOKEN_PRESENT = 1, // the id is taken
    EM_TOKEN_MODEL = 2,   // of the model's vocabulary: pieces of text and merges may find it
    EM_TOKEN_ADDED = 4,   // listed in added_tokens
    EM_TOKEN_SPECIAL = 8, // a control token: not text
    EM_TOKEN_LISTED = 16, // in the file's model.vocab, even if with characters that no byte has
};

struct em_token {
    uint32_t offset, size; // its bytes, in the pool
    uint8_t flags;
};

struct em_vocab {
    struct em_token *tokens; // by id; gaps have no EM_TOKEN_PRESENT
    size_t size, capacity;   // size: the largest id + 1
    struct em_buf pool;
    int32_t *table; // open addressing over tokens of the model, -1: free
    size_t table_mask, table_count;
};

// Ids reach from 0 to 2^24 - 1.
#define EM_VOCAB_LIMIT ((size_t)1 << 24)

void em_vocab_deinit(struct em_vocab *v);

// Adds a token, or more flags to one that is there with the same bytes. EMBER_E_FORMAT: the id is
// taken by another token, or (for EM_TOKEN_MODEL) the bytes have another id.
ember_status em_vocab_add(struct em_vocab *v, int32_t id, const void *bytes, size_t n,
                          unsigned flags) EMBER_CHECKED;

// The model token with these bytes, or -1.
int32_t em_vocab_find(const struct em_vocab *v, const void *bytes, size_t n);

static inline const uint8_t *em_vocab_bytes(const struct em_vocab *v, int32_t id, size_t *n)
{
    const struct em_token *t = &v->tokens[id];
    *n = t->size;
    return (const uint8_t *)v->pool.data + t->offset;
}

static inline bool em_vocab_has(const struct em_vocab *v, int64_t id)
{
    return id >= 0 && (uint64_t)id < v->size && (v->tokens[id].flags & EM_TOKEN_PRESENT);
}

// The byte-level alphabet: every byte as a printable character. Bytes 33-126, 161-172 and 174-255
// are themselves, the other 68 are U+0100 and on, in order.
uint32_t em_byte_to_char(uint8_t byte);
int em_char_to_byte(uint32_t c); // -1: not in the alphabet
// A byte's place in the order of these characters, which is the order of ids in trained
// vocabularies.
uint8_t em_alphabet_byte(unsigned place);

// A token's spelling in that alphabet as bytes. When a character is outside of it, `out` gets the
// spelling as it is and *mapped is false.
ember_status em_spelling_to_bytes(const char *spelling, size_t n, struct em_buf *out,
                                  bool *mapped) EMBER_CHECKED;
ember_status em_bytes_to_spelling(const uint8_t *bytes, size_t n, struct em_buf *out) EMBER_CHECKED;

#endif
