#include "data/split.h"

#include "base/alloc.h"
#include "base/rng.h"

// Fixed for ever: another value would move documents from one side to the other.
#define SIDE_SEED 0x656d626572686f6cu

enum { SHORTEST_TAIL = 8 }; // places of a document that gives its end

static uint64_t places(const struct em_cache *c, uint64_t document)
{
    return c->documents[document + 1].start - c->documents[document].start - 1;
}

// Inputs [from, to) of a document.
static struct em_span span_of(const struct em_cache *c, uint64_t document, uint64_t from,
                              uint64_t to)
{
    const uint64_t start = c->documents[document].start;
    return (struct em_span){start + from, start + to, 1};
}

static uint64_t target_bytes(const struct em_cache *c, const struct em_span *span,
                             const uint16_t *token_bytes)
{
    uint64_t bytes = 0;
    for (uint64_t i = span->begin; i < span->end; i++)
        bytes += token_bytes[em_cache_token(c, i + 1)];
    return bytes;
}

static void add_train(struct em_domain *d, struct em_span span)
{
    if (span.begin == span.end) return;
    d->train[d->train_count++] = span;
    d->train_tokens += span.end - span.begin;
}

// A tokenizer may change text (NFC, U+FFFD for broken bytes): the document's raw bytes are shared
// among its tokens by their own.
static void add_held_out(struct em_domain *d, uint64_t document, struct em_span span,
                         const uint16_t *token_bytes)
{
    if (span.begin == span.end) return;
    const struct em_cache *c = &d->cache;
    const struct em_span whole = span_of(c, document, 0, places(c, document));
    const uint64_t all = target_bytes(c, &whole, token_bytes);
    span.byte_scale = all ? (double)c->documents[document].bytes / (double)all : 0;
    d->held_out[d->held_out_count++] = span;
    d->held_out_tokens += span.end - span.begin;
    d->held_out_bytes += (double)target_bytes(c, &span, token_bytes) * span.byte_scale;
}

static uint64_t side(const struct em_cache *c, uint64_t document)
{
    return em_hash64(SIDE_SEED, c->documents[document].hash, 0);
}

// The documents whose side is at most `limit` hold how many places?
static uint64_t places_below(const struct em_cache *c, uint64_t limit)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < c->count; i++)
        if (side(c, i) <= limit) sum += places(c, i);
    return sum;
}

static void split_at(struct em_domain *d, uint64_t limit, const uint16_t *token_bytes)
{
    for (uint64_t i = 0; i < d->cache.count; i++) {
        const struct em_span whole = span_of(&d->cache, i, 0, places(&d->cache, i));
        if (side(&d->cache, i) <= limit)
            add_held_out(d, i, whole, token_bytes);
        else
            add_train(d, whole);
    }
}

// Whole documents; false when these would be far from the share, as one document is a good part of
// the domain.
static bool split_documents(struct em_domain *d, double share, uint64_t total,
                            const uint16_t *token_bytes)
{
    const struct em_cache *c = &d->cache;
    uint64_t limit = (uint64_t)(share * 0x1p64), lowest = UINT64_MAX;
    for (uint64_t i = 0; i < c->count; i++)
        lowest = side(c, i) < lowest ? side(c, i) : lowest;
    if (lowest > limit) limit = lowest;
    const uint64_t held_out = places_below(c, limit);
    if ((double)held_out > 4 * share * (double)total || held_out == total) return false;
    split_at(d, limit, token_bytes);
    return true;
}

// The end of each document.
static void split_tails(struct em_domain *d, double share, const uint16_t *token_bytes)
{
    const struct em_cache *c = &d->cache;
    bool any = false;
    for (uint64_t i = 0; i < c->count; i++)
        any = any || places(c, i) >= SHORTEST_TAIL;
    for (uint64_t i = 0; i < c->count; i++) {
        const uint64_t n = places(c, i);
        uint64_t tail = (uint64_t)(share * (double)n + 0.5);
        if (tail == 0) tail = 1;
        if (n < SHORTEST_TAIL) tail = 0;
        if (tail >= n) tail = n ? n - 1 : 0;
        if (!any && i > 0 && i + 1 == c->count) tail = n; // only scraps: the last one
        add_train(d, span_of(c, i, 0, n - tail));
        add_held_out(d, i, span_of(c, i, n - tail, n), token_bytes);
    }
}

ember_status em_split_domain(struct em_domain *d, double share, const uint16_t *token_bytes)
{
    const struct em_cache *c = &d->cache;
    size_t bytes;
    if (c->count > SIZE_MAX || !em_mul_size((size_t)c->count, sizeof(struct em_span), &bytes))
        return em_fail(EMBER_E_NOMEM, "%s: too many documents", d->name);
    d->train = em_alloc(bytes);
    d->held_out = em_alloc(bytes);
    if (!d->train || !d->held_out) return EMBER_E_NOMEM;
    const uint64_t total = c->tokens - c->count;
    if (share >= 1)
        split_at(d, UINT64_MAX, token_bytes);
    else if (share <= 0)
        for (uint64_t i = 0; i < c->count; i++)
            add_train(d, span_of(c, i, 0, places(c, i)));
    else if (c->count < EM_SPLIT_WHOLE_DOCUMENTS || !split_documents(d, share, total, token_bytes))
        split_tails(d, share, token_bytes);
    return EMBER_OK;
}
