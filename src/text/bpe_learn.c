// Learning merges: the most frequent pair of neighbours becomes a symbol, again and again. Every
// place of a pair is in that pair's list, so a merge costs what it changes, also inside one word of
// megabytes.
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "text/bpe_train.h"
#include "text/tokenizer_priv.h"

// A place where a symbol is, or was (id -1) before its left neighbour took it in. Links are places,
// -1: none.
struct place {
    int32_t id, previous, next; // neighbours in the word
    uint32_t word;
    int32_t pair;                     // the pair that begins here, -1: none
    int32_t list_previous, list_next; // in that pair's list
};

struct pair {
    uint64_t key; // left << 32 | right
    int64_t count;
    int32_t head; // of its list of places
    bool touched; // gained places in this merge
};

struct candidate {
    int64_t count;
    uint64_t key;
    int32_t pair;
};

struct learner {
    struct em_tokenizer *t;
    const struct em_words *words;
    struct place *places;
    size_t place_count;
    struct pair *pairs;
    size_t pair_count, pair_capacity;
    int32_t *table; // open addressing over pairs, -1: free
    size_t table_mask;
    struct candidate *heap;
    size_t heap_count, heap_capacity;
    int32_t *touched, *merging; // pairs; places
    size_t touched_count, touched_capacity, merging_capacity;
};

static size_t slot_of(const struct learner *l, uint64_t key)
{
    size_t slot = (size_t)((key * 0x9E3779B97F4A7C15u) >> 32) & l->table_mask;
    while (l->table[slot] >= 0 && l->pairs[l->table[slot]].key != key)
        slot = (slot + 1) & l->table_mask;
    return slot;
}

static ember_status grow_table(struct learner *l)
{
    const size_t slots = l->table ? (l->table_mask + 1) * 2 : (size_t)1 << 16;
    int32_t *table = em_alloc(slots * sizeof *table);
    if (!table) return EMBER_E_NOMEM;
    memset(table, 0xFF, slots * sizeof *table);
    em_free(l->table);
    l->table = table;
    l->table_mask = slots - 1;
    for (size_t i = 0; i < l->pair_count; i++)
        table[slot_of(l, l->pairs[i].key)] = (int32_t)i;
    return EMBER_OK;
}

static ember_status find_pair(struct learner *l, int32_t left, int32_t right, int32_t *pair)
{
    const uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    if (!l->table || l->pair_count * 2 > l->table_mask) EM_TRY(grow_table(l));
    const size_t slot = slot_of(l, key);
    if (l->table[slot] < 0) {
        if (l->pair_count == INT32_MAX)
            return em_fail(EMBER_E_RANGE, "tokenizer: the text has more than 2^31 different pairs");
        EM_TRY(em_grow(&l->pairs, &l->pair_capacity, l->pair_count + 1, sizeof *l->pairs));
        l->pairs[l->pair_count] = (struct pair){.key = key, .head = -1};
        l->table[slot] = (int32_t)l->pair_count++;
    }
    *pair = l->table[slot];
    return EMBER_OK;
}

static int64_t weight(const struct learner *l, int32_t at)
{
    return (int64_t)l->words->words[l->places[at].word].count;
}

// Puts the place, whose right neighbour is known, into its pair's list.
static ember_status enter(struct learner *l, int32_t at)
{
    struct place *p = &l->places[at];
    int32_t index;
    EM_TRY(find_pair(l, p->id, l->places[p->next].id, &index));
    struct pair *pair = &l->pairs[index];
    if (!pair->touched) {
        EM_TRY(
            em_grow(&l->touched, &l->touched_capacity, l->touched_count + 1, sizeof *l->touched));
        l->touched[l->touched_count++] = index;
        pair->touched = true;
    }
    p->pair = index;
    p->list_previous = -1;
    p->list_next = pair->head;
    if (pair->head >= 0) l->places[pair->head].list_previous = at;
    pair->head = at;
    pair->count += weight(l, at);
    return EMBER_OK;
}

static void leave(struct learner *l, int32_t at)
{
    struct place *p = &l->places[at];
    struct pair *pair = &l->pairs[p->pair];
    if (p->list_previous >= 0)
        l->places[p->list_previous].list_next = p->list_next;
    else
        pair->head = p->list_next;
    if (p->list_next >= 0) l->places[p->list_next].list_previous = p->list_previous;
    pair->count -= weight(l, at);
    p->pair = -1;
}

// The most frequent first; of equals the one with the lowest ids, left before right.
static bool before(const struct candidate *a, const struct candidate *b)
{
    return a->count > b->count || (a->count == b->count && a->key < b->key);
}

static ember_status heap_push(struct learner *l, int32_t pair)
{
    EM_TRY(em_grow(&l->heap, &l->heap_capacity, l->heap_count + 1, sizeof *l->heap));
    const struct candidate c = {l->pairs[pair].count, l->pairs[pair].key, pair};
    size_t i = l->heap_count++;
    for (; i > 0 && before(&c, &l->heap[(i - 1) / 2]); i = (i - 1) / 2)
        l->heap[i] = l->heap[(i - 1) / 2];
    l->heap[i] = c;
    return EMBER_OK;
}

static struct candidate heap_pop(struct learner *l)
{
    const struct candidate top = l->heap[0], moving = l->heap[--l->heap_count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < l->heap_count; i = child) {
        if (child + 1 < l->heap_count && before(&l->heap[child + 1], &l->heap[child])) child++;
        if (!before(&l->heap[child], &moving)) break;
        l->heap[i] = l->heap[child];
    }
    l->heap[i] = moving;
    return top;
}

static ember_status push_touched(struct learner *l)
{
    for (size_t i = 0; i < l->touched_count; i++) {
        l->pairs[l->touched[i]].touched = false;
        if (l->pairs[l->touched[i]].count > 0) EM_TRY(heap_push(l, l->touched[i]));
    }
    l->touched_count = 0;
    return EMBER_OK;
}

static ember_status lay_out(struct learner *l)
{
    size_t count = 0;
    for (size_t w = 0; w < l->words->count; w++)
        if (!em_add_size(count, l->words->words[w].size, &count)) count = SIZE_MAX;
    if (count > INT32_MAX)
        return em_fail(EMBER_E_RANGE,
                       "tokenizer: the text has %zu bytes in different pieces; the limit is %d",
                       count, INT32_MAX);
    l->place_count = count;
    l->places = em_alloc((count ? count : 1) * sizeof *l->places);
    if (!l->places) return EMBER_E_NOMEM;
    int32_t at = 0;
    for (size_t w = 0; w < l->words->count; w++) {
        const struct em_word *word = &l->words->words[w];
        const uint8_t *bytes = (const uint8_t *)l->words->pool.data + word->offset;
        for (uint32_t i = 0; i < word->size; i++, at++)
            l->places[at] = (struct place){.id = em_vocab_find(&l->t->vocab, bytes + i, 1),
                                           .previous = i ? at - 1 : -1,
                                           .next = i + 1 < word->size ? at + 1 : -1,
                                           .word = (uint32_t)w,
                                           .pair = -1};
    }
    for (at = 0; (size_t)at < count; at++)
        if (l->places[at].next >= 0) EM_TRY(enter(l, at));
    return push_touched(l);
}

// The pair at a place becomes one symbol; the pairs on both sides change with it.
static ember_status merge_at(struct learner *l, int32_t at, int32_t merged)
{
    struct place *left = &l->places[at], *right = &l->places[left->next];
    leave(l, at);
    if (left->previous >= 0) leave(l, left->previous);
    if (right->next >= 0) leave(l, left->next);
    left->id = merged;
    left->next = right->next;
    right->id = -1;
    if (left->next >= 0) {
        l->places[left->next].previous = at;
        EM_TRY(enter(l, at));
    }
    return left->previous >= 0 ? enter(l, left->previous) : EMBER_OK;
}

static int by_place(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static ember_status merge_everywhere(struct learner *l, int32_t pair, int32_t merged)
{
    size_t count = 0;
    for (int32_t at = l->pairs[pair].head; at >= 0; at = l->places[at].list_next) {
        EM_TRY(em_grow(&l->merging, &l->merging_capacity, count + 1, sizeof *l->merging));
        l->merging[count++] = at;
    }
    const uint64_t key = l->pairs[pair].key;
    // In "aaa" the pairs overlap: left to right, as encoding does it.
    if (key >> 32 == (uint32_t)key) qsort(l->merging, count, sizeof *l->merging, by_place);
    for (size_t i = 0; i < count; i++)
        if (l->places[l->merging[i]].pair == pair) EM_TRY(merge_at(l, l->merging[i], merged));
    return push_touched(l);
}

// The token of both parts' bytes: a new id, or that of another way to the same bytes.
static ember_status join(struct learner *l, uint64_t key, struct em_buf *bytes, struct em_merge *m)
{
    struct em_vocab *v = &l->t->vocab;
    size_t n;
    m->left = (int32_t)(key >> 32);
    m->right = (int32_t)(uint32_t)key;
    em_buf_clear(bytes);
    const uint8_t *part = em_vocab_bytes(v, m->left, &n);
    EM_TRY(em_buf_add(bytes, part, n));
    part = em_vocab_bytes(v, m->right, &n);
    EM_TRY(em_buf_add(bytes, part, n));
    m->merged = em_vocab_find(v, bytes->data, bytes->size);
    if (m->merged >= 0) return EMBER_OK;
    m->merged = (int32_t)v->size;
    return em_vocab_add(v, m->merged, bytes->data, bytes->size, EM_TOKEN_MODEL | EM_TOKEN_LISTED);
}

static ember_status learn(struct learner *l, size_t vocab, uint64_t min_frequency,
                          struct em_buf *bytes)
{
    EM_TRY(lay_out(l));
    while (l->t->vocab.size < vocab && l->heap_count > 0) {
        const struct candidate top = heap_pop(l);
        const int64_t count = l->pairs[top.pair].count;
        if (count < top.count) { // it lost places since: back with what it has
            if (count > 0) EM_TRY(heap_push(l, top.pair));
            continue;
        }
        if (count > top.count) continue; // it gained some, and was pushed again then
        if ((uint64_t)count < min_frequency) break;
        struct em_merge m;
        EM_TRY(join(l, top.key, bytes, &m));
        EM_TRY(em_bpe_add_merge(&l->t->bpe, m));
        EM_TRY(merge_everywhere(l, top.pair, m.merged));
    }
    return EMBER_OK;
}

ember_status em_learn_merges(struct em_tokenizer *t, const struct em_words *words, size_t vocab,
                             uint64_t min_frequency)
{
    struct learner l = {.t = t, .words = words};
    struct em_buf bytes;
    em_buf_init(&bytes, 0);
    const ember_status status = learn(&l, vocab, min_frequency ? min_frequency : 1, &bytes);
    em_buf_deinit(&bytes);
    em_free(l.places);
    em_free(l.pairs);
    em_free(l.table);
    em_free(l.heap);
    em_free(l.touched);
    em_free(l.merging);
    return status;
}
