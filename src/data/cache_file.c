#include <string.h>
#define XXH_STATIC_LINKING_ONLY // the size of XXH3_state_t, so that it comes from our allocator
#include <xxhash.h>

#include "base/alloc.h"
#include "data/cache_file.h"

enum { VERSION = 1 };

static const char magic[8] = "EMBTOKEN";

static ember_status put(struct em_cache_writer *w, const void *p, size_t n)
{
    XXH3_64bits_update(w->hash, p, n);
    w->written += n;
    return w->to_file ? em_file_write(&w->file, p, n) : em_buf_add(&w->memory, p, n);
}

ember_status em_cache_writer_open(const char *path, size_t vocabulary, struct em_cache_writer *w)
{
    struct em_cache_writer made = {
        .file.fd = -1, .to_file = path != NULL, .token_bytes = vocabulary <= 65536 ? 2 : 4};
    em_buf_init(&made.memory, 0);
    made.hash = em_alloc_aligned(sizeof(XXH3_state_t));
    if (!made.hash) return EMBER_E_NOMEM;
    XXH3_64bits_reset(made.hash);
    const ember_status status = path ? em_file_create(path, &made.file) : EMBER_OK;
    if (status == EMBER_OK)
        *w = made;
    else
        em_free(made.hash);
    return status;
}

ember_status em_cache_writer_add(struct em_cache_writer *w, const int32_t *ids, size_t n,
                                 uint64_t bytes, uint64_t hash)
{
    EM_TRY(em_grow(&w->documents, &w->capacity, w->count + 2, sizeof *w->documents));
    w->documents[w->count++] = (struct em_cache_document){w->tokens, bytes, hash};
    w->tokens += n;
    if (w->token_bytes == sizeof *ids) return put(w, ids, n * sizeof *ids);
    while (n > 0) {
        uint16_t piece[4096];
        const size_t take = n < 4096 ? n : 4096;
        for (size_t i = 0; i < take; i++)
            piece[i] = (uint16_t)ids[i];
        EM_TRY(put(w, piece, take * sizeof *piece));
        ids += take;
        n -= take;
    }
    return EMBER_OK;
}

void em_cache_writer_abort(struct em_cache_writer *w)
{
    if (w->to_file) em_file_abort(&w->file);
    em_buf_deinit(&w->memory);
    em_free(w->hash);
    em_free(w->documents);
    *w = (struct em_cache_writer){.file.fd = -1};
}

static ember_status finish(struct em_cache_writer *w, uint64_t key,
                           const struct em_document_stats *stats)
{
    static const char zeros[8];
    EM_TRY(put(w, zeros, (8 - w->written % 8) % 8));
    EM_TRY(em_grow(&w->documents, &w->capacity, w->count + 1, sizeof *w->documents));
    w->documents[w->count] = (struct em_cache_document){.start = w->tokens};
    EM_TRY(put(w, w->documents, (w->count + 1) * sizeof *w->documents));
    struct em_cache_footer footer = {.version = VERSION,
                                     .token_bytes = w->token_bytes,
                                     .key = key,
                                     .count = w->count,
                                     .tokens = w->tokens,
                                     .payload_hash = XXH3_64bits_digest(w->hash),
                                     .stats = *stats};
    memcpy(footer.magic, magic, sizeof magic);
    footer.footer_hash = XXH3_64bits(&footer, offsetof(struct em_cache_footer, footer_hash));
    return put(w, &footer, sizeof footer);
}

ember_status em_cache_writer_finish(struct em_cache_writer *w, uint64_t key,
                                    const struct em_document_stats *stats, void **memory,
                                    size_t *size)
{
    ember_status status = finish(w, key, stats);
    if (status == EMBER_OK && w->to_file) status = em_file_commit(&w->file);
    *memory = NULL;
    if (status == EMBER_OK && !w->to_file) {
        *size = w->memory.size;
        *memory = em_buf_take(&w->memory);
    }
    em_cache_writer_abort(w);
    return status;
}

// The largest token, in one pass over all of them.
static uint32_t largest(const struct em_cache *c)
{
    uint32_t most = 0;
    for (uint64_t i = 0; c->narrow && i < c->tokens; i++)
        most = c->narrow[i] > most ? c->narrow[i] : most;
    for (uint64_t i = 0; c->wide && i < c->tokens; i++)
        most = c->wide[i] > most ? c->wide[i] : most;
    return most;
}

ember_status em_cache_view(const char *name, const unsigned char *data, size_t size, uint64_t key,
                           size_t vocabulary, struct em_cache *out)
{
    struct em_cache_footer f;
    if (size < sizeof f || size % 8 != 0)
        return em_fail(EMBER_E_FORMAT, "%s: %zu bytes are no token cache", name, size);
    memcpy(&f, data + size - sizeof f, sizeof f);
    if (memcmp(f.magic, magic, sizeof magic) != 0 ||
        f.footer_hash != XXH3_64bits(&f, offsetof(struct em_cache_footer, footer_hash)))
        return em_fail(EMBER_E_FORMAT, "%s: no token cache, or a damaged one", name);
    if (f.version != VERSION || f.key != key || f.token_bytes != (vocabulary <= 65536 ? 2u : 4u))
        return em_fail(EMBER_E_FORMAT,
                       "%s: made of other text, by another tokenizer or by another version", name);
    const size_t payload = size - sizeof f;
    size_t tokens, table;
    if (f.tokens > SIZE_MAX || f.count >= SIZE_MAX ||
        !em_mul_size((size_t)f.tokens, f.token_bytes, &tokens) ||
        !em_add_size(tokens, (8 - tokens % 8) % 8, &tokens) ||
        !em_mul_size((size_t)f.count + 1, sizeof *out->documents, &table) || tokens > payload ||
        payload - tokens != table)
        return em_fail(EMBER_E_FORMAT, "%s: %zu bytes do not hold what its footer says", name,
                       size);
    if (f.payload_hash != XXH3_64bits(data, payload))
        return em_fail(EMBER_E_FORMAT, "%s: its checksum does not fit", name);
    struct em_cache c = {.count = f.count, .tokens = f.tokens, .stats = f.stats};
    // The map is page-aligned and both parts are multiples of 8, so these views are aligned.
    c.documents = (const struct em_cache_document *)(const void *)(data + tokens);
    if (f.token_bytes == 2)
        c.narrow = (const uint16_t *)(const void *)data;
    else
        c.wide = (const uint32_t *)(const void *)data;
    for (uint64_t i = 0; i < c.count; i++)
        if (c.documents[i].start >= c.documents[i + 1].start)
            return em_fail(EMBER_E_FORMAT, "%s: its documents are out of order", name);
    if (c.documents[0].start != 0 || c.documents[c.count].start != c.tokens ||
        (c.tokens > 0 && largest(&c) >= vocabulary))
        return em_fail(EMBER_E_FORMAT, "%s: its tokens are out of range", name);
    *out = c;
    return EMBER_OK;
}
