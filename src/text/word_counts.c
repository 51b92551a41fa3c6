#include "text/word_counts.h"

#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"

void em_words_init(struct em_words *w)
{
    memset(w, 0, sizeof *w);
    em_buf_init(&w->pool, 0);
}

void em_words_deinit(struct em_words *w)
{
    em_free(w->words);
    em_free(w->table);
    em_buf_deinit(&w->pool);
    em_words_init(w);
}

static ember_status grow_table(struct em_words *w)
{
    const size_t slots = w->table ? (w->table_mask + 1) * 2 : 4096;
    uint32_t *table = em_calloc(slots, sizeof *table);
    if (!table) return EMBER_E_NOMEM;
    for (size_t i = 0; i < w->count; i++) {
        size_t slot = (size_t)w->words[i].hash & (slots - 1);
        while (table[slot])
            slot = (slot + 1) & (slots - 1);
        table[slot] = (uint32_t)(i + 1);
    }
    em_free(w->table);
    w->table = table;
    w->table_mask = slots - 1;
    return EMBER_OK;
}

static ember_status add_hashed(struct em_words *w, const void *bytes, size_t n, uint64_t hash,
                               uint64_t count)
{
    if (!w->table || w->count * 2 > w->table_mask) EM_TRY(grow_table(w));
    size_t slot = (size_t)hash & w->table_mask;
    for (; w->table[slot]; slot = (slot + 1) & w->table_mask) {
        struct em_word *word = &w->words[w->table[slot] - 1];
        if (word->hash == hash && word->size == n &&
            memcmp(w->pool.data + word->offset, bytes, n) == 0) {
            word->count += count;
            return EMBER_OK;
        }
    }
    if (n > UINT32_MAX || w->count == UINT32_MAX)
        return em_fail(EMBER_E_RANGE,
                       "too much text: more than 2^32 different pieces, or one of 4 GiB");
    EM_TRY(em_grow(&w->words, &w->capacity, w->count + 1, sizeof *w->words));
    const size_t offset = w->pool.size;
    EM_TRY(em_buf_add(&w->pool, bytes, n));
    w->words[w->count++] = (struct em_word){count, hash, offset, (uint32_t)n};
    w->table[slot] = (uint32_t)w->count;
    return EMBER_OK;
}

ember_status em_words_add(struct em_words *w, const void *bytes, size_t n, uint64_t count)
{
    return add_hashed(w, bytes, n, XXH3_64bits(bytes, n), count);
}

ember_status em_words_count(struct em_words *w, const struct em_split *split, const uint8_t *text,
                            size_t n)
{
    size_t position = 0, begin, end;
    while (em_split_next(split, text, n, &position, &begin, &end))
        EM_TRY(em_words_add(w, text + begin, end - begin, 1));
    return EMBER_OK;
}

ember_status em_words_join(struct em_words *w, const struct em_words *from)
{
    for (size_t i = 0; i < from->count; i++) {
        const struct em_word *word = &from->words[i];
        EM_TRY(add_hashed(w, from->pool.data + word->offset, word->size, word->hash, word->count));
    }
    return EMBER_OK;
}
