#include "text/vocab.h"

#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "text/unicode.h"

void em_vocab_deinit(struct em_vocab *v)
{
    em_free(v->tokens);
    em_free(v->table);
    em_buf_deinit(&v->pool);
    memset(v, 0, sizeof *v);
}

static size_t slot_of(const struct em_vocab *v, const void *bytes, size_t n)
{
    size_t slot = (size_t)XXH3_64bits(bytes, n) & v->table_mask;
    for (;; slot = (slot + 1) & v->table_mask) {
        const int32_t id = v->table[slot];
        if (id < 0) return slot;
        size_t size;
        const uint8_t *token = em_vocab_bytes(v, id, &size);
        if (size == n && memcmp(token, bytes, n) == 0) return slot;
    }
}

int32_t em_vocab_find(const struct em_vocab *v, const void *bytes, size_t n)
{
    if (!v->table || n == 0) return -1;
    return v->table[slot_of(v, bytes, n)];
}

static ember_status grow_table(struct em_vocab *v)
{
    const size_t slots = v->table ? (v->table_mask + 1) * 2 : 1024;
    size_t bytes;
    if (!em_mul_size(slots, sizeof *v->table, &bytes))
        return em_fail(EMBER_E_NOMEM, "out of memory: a vocabulary of %zu tokens", v->table_count);
    int32_t *table = em_alloc(bytes);
    if (!table) return EMBER_E_NOMEM;
    memset(table, 0xFF, bytes); // -1 in every slot
    em_free(v->table);
    v->table = table;
    v->table_mask = slots - 1;
    for (size_t id = 0; id < v->size; id++)
        if (v->tokens[id].flags & EM_TOKEN_MODEL) {
            size_t n;
            const uint8_t *token = em_vocab_bytes(v, (int32_t)id, &n);
            table[slot_of(v, token, n)] = (int32_t)id;
        }
    return EMBER_OK;
}

ember_status em_vocab_add(struct em_vocab *v, int32_t id, const void *bytes, size_t n,
                          unsigned flags)
{
    if (id < 0 || (size_t)id >= EM_VOCAB_LIMIT)
        return em_fail(EMBER_E_RANGE, "token id %d is outside of 0 to %zu", id, EM_VOCAB_LIMIT - 1);
    if (em_vocab_has(v, id)) {
        size_t size;
        const uint8_t *token = em_vocab_bytes(v, id, &size);
        if (size != n || memcmp(token, bytes, n) != 0)
            return em_fail(EMBER_E_FORMAT, "id %d is given to two tokens", id);
        v->tokens[id].flags |= (uint8_t)flags;
        return EMBER_OK;
    }
    if (n > UINT32_MAX - v->pool.size)
        return em_fail(EMBER_E_RANGE, "the tokens' texts are longer than 4 GiB");
    if ((flags & EM_TOKEN_MODEL) && (!v->table || (v->table_count + 1) * 2 > v->table_mask))
        EM_TRY(grow_table(v));
    size_t slot = 0;
    if (flags & EM_TOKEN_MODEL) {
        slot = slot_of(v, bytes, n);
        if (v->table[slot] >= 0)
            return em_fail(EMBER_E_FORMAT, "a token has two ids, %d and %d", v->table[slot], id);
    }
    if ((size_t)id >= v->size) {
        EM_TRY(em_grow(&v->tokens, &v->capacity, (size_t)id + 1, sizeof *v->tokens));
        memset(v->tokens + v->size, 0, ((size_t)id + 1 - v->size) * sizeof *v->tokens);
        v->size = (size_t)id + 1;
    }
    const uint32_t offset = (uint32_t)v->pool.size;
    EM_TRY(em_buf_add(&v->pool, bytes, n));
    v->tokens[id] = (struct em_token){offset, (uint32_t)n, (uint8_t)(flags | EM_TOKEN_PRESENT)};
    if (flags & EM_TOKEN_MODEL) {
        v->table[slot] = id;
        v->table_count++;
    }
    return EMBER_OK;
}

static bool is_itself(uint32_t c)
{
    return (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || (c >= 174 && c <= 255);
}

// The 68 bytes without a printable character of their own: 0-32, 127-160, 173.
uint32_t em_byte_to_char(uint8_t byte)
{
    if (is_itself(byte)) return byte;
    return 256u + (byte <= 32 ? byte : byte == 173 ? 67u : byte - 127u + 33u);
}

int em_char_to_byte(uint32_t c)
{
    if (c < 256) return is_itself(c) ? (int)c : -1;
    if (c >= 256 + 68) return -1;
    c -= 256;
    return (int)(c <= 32 ? c : c == 67 ? 173 : c - 33 + 127);
}

uint8_t em_alphabet_byte(unsigned place)
{
    if (place < 94) return (uint8_t)(33 + place);
    if (place < 94 + 12) return (uint8_t)(161 + (place - 94));
    if (place < 188) return (uint8_t)(174 + (place - 106));
    return (uint8_t)em_char_to_byte(256 + (place - 188));
}

ember_status em_spelling_to_bytes(const char *spelling, size_t n, struct em_buf *out, bool *mapped)
{
    const size_t before = out->size;
    const uint8_t *s = (const uint8_t *)spelling, *end = s + n;
    *mapped = true;
    while (s < end) {
        const int byte = em_char_to_byte(em_utf8_next(&s));
        if (byte < 0) {
            *mapped = false;
            break;
        }
        EM_TRY(em_buf_putc(out, (char)byte));
    }
    if (*mapped) return EMBER_OK;
    out->size = before;
    return em_buf_add(out, spelling, n);
}

ember_status em_bytes_to_spelling(const uint8_t *bytes, size_t n, struct em_buf *out)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t c[4];
        EM_TRY(em_buf_add(out, c, em_utf8_put(em_byte_to_char(bytes[i]), c)));
    }
    return EMBER_OK;
}
