#include "text/bpe.h"

#include <string.h>

#include "base/alloc.h"

struct em_merge_slot {
    uint64_t pair; // left << 32 | right; NO_PAIR: free
    uint32_t rank;
    int32_t merged;
};

#define NO_PAIR UINT64_MAX
#define NO_MERGE UINT64_MAX

// Pieces up to this length are merged by scanning an array of ranks, longer ones by a heap.
enum { SHORT_PIECE = 160, CACHED_BYTES = 31, CACHED_IDS = 7, CACHE_SLOTS = 1 << 14 };

// One cache line: the piece with its length, zero-padded, and its ids.
struct cached {
    uint64_t key[4];
    int32_t count;
    int32_t ids[CACHED_IDS];
};

struct symbol {
    int32_t id, previous, next; // next -1: the last one
    uint32_t rank;              // of the pair it begins; UINT32_MAX: none, or it was merged away
    int32_t merged;             // what that pair becomes
};

struct candidate {
    uint32_t rank, position;
};

struct em_bpe_work {
    struct cached *cache;
    struct symbol *symbols;
    size_t symbol_capacity;
    struct candidate *heap;
    size_t heap_capacity;
};

void em_ids_deinit(struct em_ids *ids)
{
    em_free(ids->ids);
    *ids = (struct em_ids){0};
}

ember_status em_ids_reserve(struct em_ids *ids, size_t more)
{
    if (more <= ids->capacity - ids->count) return EMBER_OK;
    size_t need;
    if (!em_add_size(ids->count, more, &need))
        return em_fail(EMBER_E_NOMEM, "out of memory: %zu token ids", more);
    return em_grow(&ids->ids, &ids->capacity, need, sizeof *ids->ids);
}

ember_status em_ids_push(struct em_ids *ids, int32_t id)
{
    EM_TRY(em_ids_reserve(ids, 1));
    ids->ids[ids->count++] = id;
    return EMBER_OK;
}

void em_bpe_init(struct em_bpe *bpe)
{
    memset(bpe, 0, sizeof *bpe);
    memset(bpe->byte_id, 0xFF, sizeof bpe->byte_id);
    bpe->unknown = -1;
}

void em_bpe_deinit(struct em_bpe *bpe)
{
    em_free(bpe->merges);
    em_free(bpe->table);
    em_bpe_init(bpe);
}

ember_status em_bpe_add_merge(struct em_bpe *bpe, struct em_merge merge)
{
    if (bpe->merge_count == INT32_MAX) return em_fail(EMBER_E_RANGE, "more than 2^31 merges");
    EM_TRY(em_grow(&bpe->merges, &bpe->merge_capacity, bpe->merge_count + 1, sizeof *bpe->merges));
    bpe->merges[bpe->merge_count++] = merge;
    return EMBER_OK;
}

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static size_t slot_of(const struct em_bpe *bpe, uint64_t pair)
{
    size_t slot = (size_t)((pair * 0x9E3779B97F4A7C15u) >> 32) & bpe->table_mask;
    while (bpe->table[slot].pair != pair && bpe->table[slot].pair != NO_PAIR)
        slot = (slot + 1) & bpe->table_mask;
    return slot;
}

// rank << 32 | merged id, or NO_MERGE: compared as one number, the rank decides.
static uint64_t find_merge(const struct em_bpe *bpe, int32_t left, int32_t right)
{
    const struct em_merge_slot *slot = &bpe->table[slot_of(bpe, pair_of(left, right))];
    return slot->pair == NO_PAIR ? NO_MERGE : (uint64_t)slot->rank << 32 | (uint32_t)slot->merged;
}

ember_status em_bpe_finish(struct em_bpe *bpe, const struct em_vocab *vocab)
{
    for (unsigned b = 0; b < 256; b++)
        bpe->byte_id[b] = em_vocab_find(vocab, &(uint8_t){(uint8_t)b}, 1);
    size_t slots = 16, bytes;
    while (slots / 4 < bpe->merge_count)
        slots *= 2; // a quarter full: most lookups are of absent pairs
    if (!em_mul_size(slots, sizeof *bpe->table, &bytes))
        return em_fail(EMBER_E_NOMEM, "out of memory: %zu merges", bpe->merge_count);
    bpe->table = em_alloc(bytes);
    if (!bpe->table) return EMBER_E_NOMEM;
    bpe->table_mask = slots - 1;
    for (size_t i = 0; i < slots; i++)
        bpe->table[i].pair = NO_PAIR;
    for (size_t rank = 0; rank < bpe->merge_count; rank++) {
        const struct em_merge *m = &bpe->merges[rank];
        const uint64_t pair = pair_of(m->left, m->right);
        bpe->table[slot_of(bpe, pair)] = (struct em_merge_slot){pair, (uint32_t)rank, m->merged};
    }
    return EMBER_OK;
}

ember_status em_bpe_work_create(struct em_bpe_work **work)
{
    struct em_bpe_work *w = em_calloc(1, sizeof *w);
    if (!w) return EMBER_E_NOMEM;
    w->cache = em_alloc_aligned(CACHE_SLOTS * sizeof *w->cache);
    if (!w->cache) {
        em_free(w);
        return EMBER_E_NOMEM;
    }
    memset(w->cache, 0, CACHE_SLOTS * sizeof *w->cache); // length 0 matches no piece
    *work = w;
    return EMBER_OK;
}

void em_bpe_work_destroy(struct em_bpe_work *work)
{
    if (!work) return;
    em_free(work->cache);
    em_free(work->symbols);
    em_free(work->heap);
    em_free(work);
}

// The tokens of the piece's bytes, before any merge.
static size_t start_ids(const struct em_bpe *bpe, const uint8_t *piece, size_t n, int32_t *ids)
{
    size_t count = 0;
    bool unknown_before = false;
    for (size_t i = 0; i < n; i++) {
        const int32_t id = bpe->byte_id[piece[i]];
        if (id >= 0) {
            ids[count++] = id;
            unknown_before = false;
        } else if (bpe->unknown >= 0 && !(unknown_before && bpe->fuse_unknown)) {
            ids[count++] = bpe->unknown;
            unknown_before = true;
        }
    }
    return count;
}

static int32_t rank_of(const struct em_bpe *bpe, int32_t left, int32_t right)
{
    return (int32_t)(find_merge(bpe, left, right) >> 32 & INT32_MAX);
}

static size_t merge_short(const struct em_bpe *bpe, int32_t *ids, size_t count)
{
    int32_t rank[SHORT_PIECE]; // of the pair that begins at a place; INT32_MAX: not mergeable
    for (size_t i = 0; i + 1 < count; i++)
        rank[i] = rank_of(bpe, ids[i], ids[i + 1]);
    while (count > 1) {
        int32_t lowest = INT32_MAX; // two passes: the first one is vector code
        for (size_t i = 0; i < count - 1; i++)
            lowest = rank[i] < lowest ? rank[i] : lowest;
        if (lowest == INT32_MAX) break;
        size_t best = 0;
        while (rank[best] != lowest)
            best++;
        ids[best] = bpe->merges[lowest].merged;
        count--;
        memmove(ids + best + 1, ids + best + 2, (count - best - 1) * sizeof *ids);
        if (best + 1 < count) {
            memmove(rank + best + 1, rank + best + 2, (count - best - 2) * sizeof *rank);
            rank[best] = rank_of(bpe, ids[best], ids[best + 1]);
        }
        if (best > 0) rank[best - 1] = rank_of(bpe, ids[best - 1], ids[best]);
    }
    return count;
}

static bool before(struct candidate a, struct candidate b)
{
    return a.rank < b.rank || (a.rank == b.rank && a.position < b.position);
}

static void sift_down(struct candidate *heap, size_t count, size_t i)
{
    const struct candidate moving = heap[i];
    for (size_t child; (child = 2 * i + 1) < count; i = child) {
        if (child + 1 < count && before(heap[child + 1], heap[child])) child++;
        if (!before(heap[child], moving)) break;
        heap[i] = heap[child];
    }
    heap[i] = moving;
}

static ember_status heap_push(struct em_bpe_work *w, size_t *count, struct candidate c)
{
    EM_TRY(em_grow(&w->heap, &w->heap_capacity, *count + 1, sizeof *w->heap));
    size_t i = (*count)++;
    for (; i > 0 && before(c, w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
    return EMBER_OK;
}

static void rank_pair(const struct em_bpe *bpe, struct symbol *symbols, size_t i)
{
    const uint64_t merge = symbols[i].next < 0
                               ? NO_MERGE
                               : find_merge(bpe, symbols[i].id, symbols[symbols[i].next].id);
    symbols[i].rank = (uint32_t)(merge >> 32);
    symbols[i].merged = (int32_t)(uint32_t)merge;
}

// A linked list of symbols and a heap of its mergeable pairs: n log n where scanning would be n^2.
// A heap entry is stale when the symbol's pair has another rank by now.
static ember_status merge_long(const struct em_bpe *bpe, struct em_bpe_work *w, int32_t *ids,
                               size_t *count)
{
    const size_t n = *count;
    if (n > (size_t)1 << 30)
        return em_fail(EMBER_E_RANGE,
                       "a piece of text without a cut is %zu bytes long; the limit is 1 GiB", n);
    EM_TRY(em_grow(&w->symbols, &w->symbol_capacity, n, sizeof *w->symbols));
    struct symbol *symbols = w->symbols;
    for (size_t i = 0; i < n; i++)
        symbols[i] = (struct symbol){
            .id = ids[i], .previous = (int32_t)i - 1, .next = i + 1 < n ? (int32_t)i + 1 : -1};
    size_t entries = 0;
    EM_TRY(em_grow(&w->heap, &w->heap_capacity, n, sizeof *w->heap));
    for (size_t i = 0; i < n; i++) {
        rank_pair(bpe, symbols, i);
        if (symbols[i].rank != UINT32_MAX)
            w->heap[entries++] = (struct candidate){symbols[i].rank, (uint32_t)i};
    }
    for (size_t i = entries / 2; i-- > 0;)
        sift_down(w->heap, entries, i);
    while (entries > 0) {
        const struct candidate top = w->heap[0];
        w->heap[0] = w->heap[--entries];
        if (entries > 0) sift_down(w->heap, entries, 0);
        struct symbol *left = &symbols[top.position];
        if (left->rank != top.rank) continue;
        struct symbol *right = &symbols[left->next];
        left->id = left->merged;
        left->next = right->next;
        right->rank = UINT32_MAX;
        if (left->next >= 0) symbols[left->next].previous = (int32_t)top.position;
        rank_pair(bpe, symbols, top.position);
        if (left->rank != UINT32_MAX)
            EM_TRY(heap_push(w, &entries, (struct candidate){left->rank, top.position}));
        if (left->previous >= 0) {
            const size_t p = (size_t)left->previous;
            rank_pair(bpe, symbols, p);
            if (symbols[p].rank != UINT32_MAX)
                EM_TRY(heap_push(w, &entries, (struct candidate){symbols[p].rank, (uint32_t)p}));
        }
    }
    *count = 0;
    for (int32_t i = 0; i >= 0; i = symbols[i].next)
        ids[(*count)++] = symbols[i].id;
    return EMBER_OK;
}

static ember_status encode_uncached(const struct em_bpe *bpe, struct em_bpe_work *work,
                                    const uint8_t *piece, size_t n, struct em_ids *ids)
{
    int32_t *out = ids->ids + ids->count; // room for n was reserved
    size_t count = start_ids(bpe, piece, n, out);
    if (bpe->merge_count > 0 && count > 1) {
        if (count <= SHORT_PIECE)
            count = merge_short(bpe, out, count);
        else
            EM_TRY(merge_long(bpe, work, out, &count));
    }
    ids->count += count;
    return EMBER_OK;
}

ember_status em_bpe_encode(const struct em_bpe *bpe, const struct em_vocab *vocab,
                           struct em_bpe_work *work, const uint8_t *piece, size_t n,
                           struct em_ids *ids)
{
    EM_TRY(em_ids_reserve(ids, n));
    if (n == 1 || n > CACHED_BYTES || bpe->merge_count == 0) {
        if (bpe->ignore_merges && n > 1) {
            const int32_t whole = em_vocab_find(vocab, piece, n);
            if (whole >= 0) {
                ids->ids[ids->count++] = whole;
                return EMBER_OK;
            }
        }
        return encode_uncached(bpe, work, piece, n, ids);
    }
    uint64_t key[4] = {0};
    ((uint8_t *)key)[0] = (uint8_t)n;
    memcpy((uint8_t *)key + 1, piece, n);
    uint64_t hash = (key[0] ^ (key[1] << 7 | key[1] >> 57)) * 0x9E3779B97F4A7C15u;
    hash = (hash ^ hash >> 29 ^ key[2] ^ (key[3] << 13 | key[3] >> 51)) * 0xD1B54A32D192ED03u;
    struct cached *slot = &work->cache[hash >> 32 & (CACHE_SLOTS - 1)];
    if (memcmp(slot->key, key, sizeof key) == 0) {
        memcpy(ids->ids + ids->count, slot->ids, (size_t)slot->count * sizeof *slot->ids);
        ids->count += (size_t)slot->count;
        return EMBER_OK;
    }
    const size_t first = ids->count;
    const int32_t whole = bpe->ignore_merges ? em_vocab_find(vocab, piece, n) : -1;
    if (whole >= 0)
        ids->ids[ids->count++] = whole;
    else
        EM_TRY(encode_uncached(bpe, work, piece, n, ids));
    const size_t count = ids->count - first;
    if (count <= CACHED_IDS) {
        memcpy(slot->key, key, sizeof key);
        slot->count = (int32_t)count;
        memcpy(slot->ids, ids->ids + first, count * sizeof *slot->ids);
    }
    return EMBER_OK;
}
