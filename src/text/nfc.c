// Normalisation form C (Unicode Standard Annex 15): decompose, order marks, compose.
#include <string.h>

#include "base/alloc.h"
#include "text/unicode.h"
#include "text/unicode_tables.h"

// Hangul syllables are composed by arithmetic (The Unicode Standard, 3.12).
enum {
    S_BASE = 0xAC00,
    L_BASE = 0x1100,
    V_BASE = 0x1161,
    T_BASE = 0x11A7,
    L_COUNT = 19,
    V_COUNT = 21,
    T_COUNT = 28
};
#define S_COUNT (L_COUNT * V_COUNT * T_COUNT)

static unsigned combining_class(uint32_t c)
{
    if (c < 0x300) return 0;
    size_t low = 0, high = em_ccc_range_count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (em_ccc_ranges[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < em_ccc_range_count && em_ccc_ranges[low].first <= c ? em_ccc_ranges[low].ccc : 0;
}

static const struct em_decomposition *decomposition(uint32_t c)
{
    size_t low = 0, high = em_decomposition_count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (em_decompositions[middle].code_and_length >> 3 < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < em_decomposition_count && em_decompositions[low].code_and_length >> 3 == c
               ? &em_decompositions[low]
               : NULL;
}

// The composition of two code points, or 0.
static uint32_t compose(uint32_t a, uint32_t b)
{
    if (a >= L_BASE && a < L_BASE + L_COUNT && b >= V_BASE && b < V_BASE + V_COUNT)
        return S_BASE + ((a - L_BASE) * V_COUNT + (b - V_BASE)) * T_COUNT;
    if (a >= S_BASE && a < S_BASE + S_COUNT && (a - S_BASE) % T_COUNT == 0 && b > T_BASE &&
        b < T_BASE + T_COUNT)
        return a + (b - T_BASE);
    size_t low = 0, high = em_composition_count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        const struct em_composition *m = &em_compositions[middle];
        if (m->first < a || (m->first == a && m->second < b))
            low = middle + 1;
        else
            high = middle;
    }
    const struct em_composition *m = &em_compositions[low];
    return low < em_composition_count && m->first == a && m->second == b ? m->composed : 0;
}

// Whether c, wherever it stands, is left alone: it neither decomposes, moves, nor joins what is
// before it.
static bool inert(uint32_t c)
{
    if (c < 0x300 || (c >= 0x3400 && c < 0xA000) || (c >= 0x2010 && c < 0x2020)) return true;
    if (c >= V_BASE && c < T_BASE + T_COUNT) return false;
    if (c >= S_BASE && c < S_BASE + S_COUNT) return true;
    if (combining_class(c) != 0) return false;
    const struct em_decomposition *d = decomposition(c);
    if (d) { // fine when it composes to itself again, and that cannot be undone by its neighbours
        const uint32_t *part = em_decomposition_pool + d->offset;
        uint32_t whole = part[0];
        for (unsigned i = 1; whole && i < (d->code_and_length & 7); i++)
            whole = compose(whole, part[i]);
        if (whole != c) return false;
    }
    for (size_t i = 0; i < em_composition_tail_count; i++)
        if (em_composition_tails[i] == c) return false;
    return true;
}

bool em_nfc_is_stable(const uint8_t *s, size_t n)
{
    const uint8_t *end = s + n;
    while (s < end) {
        if (*s < 0xCC) { // below U+0300
            s += *s < 0x80 ? 1 : 2;
            continue;
        }
        if (!inert(em_utf8_next(&s))) return false;
    }
    return true;
}

struct points {
    uint32_t *c;
    uint8_t *ccc;
    size_t count, capacity;
};

static ember_status push(struct points *p, uint32_t c)
{
    if (p->count == p->capacity) {
        size_t capacity = p->capacity;
        EM_TRY(em_grow(&p->c, &capacity, p->count + 1, sizeof *p->c));
        uint8_t *ccc = em_realloc(p->ccc, capacity);
        if (!ccc) return EMBER_E_NOMEM;
        p->ccc = ccc;
        p->capacity = capacity;
    }
    p->c[p->count] = c;
    p->ccc[p->count++] = (uint8_t)combining_class(c);
    return EMBER_OK;
}

static ember_status decompose(struct points *p, uint32_t c)
{
    if (c >= S_BASE && c < S_BASE + S_COUNT) {
        const uint32_t s = c - S_BASE;
        EM_TRY(push(p, L_BASE + s / (V_COUNT * T_COUNT)));
        EM_TRY(push(p, V_BASE + s % (V_COUNT * T_COUNT) / T_COUNT));
        return s % T_COUNT ? push(p, T_BASE + s % T_COUNT) : EMBER_OK;
    }
    const struct em_decomposition *d = c < 0xC0 ? NULL : decomposition(c);
    if (!d) return push(p, c);
    for (unsigned i = 0; i < (d->code_and_length & 7); i++)
        EM_TRY(push(p, em_decomposition_pool[d->offset + i]));
    return EMBER_OK;
}

// Stable order of a run of marks by class. Counting, not insertion: a run may be megabytes long.
static ember_status order_run(struct points *p, size_t begin, size_t end)
{
    size_t start[257] = {0};
    bool sorted = true;
    for (size_t i = begin; i < end; i++) {
        start[p->ccc[i] + 1]++;
        sorted = sorted && (i == begin || p->ccc[i - 1] <= p->ccc[i]);
    }
    if (sorted) return EMBER_OK;
    uint32_t *copy = em_alloc((end - begin) * sizeof *copy);
    if (!copy) return EMBER_E_NOMEM;
    for (unsigned k = 0; k < 256; k++)
        start[k + 1] += start[k];
    for (size_t i = begin; i < end; i++)
        copy[start[p->ccc[i]]++] = p->c[i];
    for (size_t i = begin; i < end; i++) {
        p->c[i] = copy[i - begin];
        p->ccc[i] = (uint8_t)combining_class(p->c[i]);
    }
    em_free(copy);
    return EMBER_OK;
}

static ember_status order(struct points *p)
{
    for (size_t i = 0; i < p->count; i++) {
        if (p->ccc[i] == 0) continue;
        const size_t begin = i;
        while (i < p->count && p->ccc[i] != 0)
            i++;
        EM_TRY(order_run(p, begin, i));
    }
    return EMBER_OK;
}

// Joins each code point to the last starter before it unless something of its class or higher
// stands between.
static void recompose(struct points *p)
{
    size_t starter = SIZE_MAX, out = 0;
    for (size_t i = 0; i < p->count; i++) {
        const uint32_t c = p->c[i];
        const uint8_t ccc = p->ccc[i];
        if (starter != SIZE_MAX) {
            const bool adjacent = out == starter + 1;
            const bool blocked = !adjacent && p->ccc[out - 1] >= ccc;
            const uint32_t whole = blocked ? 0 : compose(p->c[starter], c);
            if (whole) {
                p->c[starter] = whole;
                continue;
            }
        }
        p->c[out] = c;
        p->ccc[out] = ccc;
        if (ccc == 0) starter = out;
        out++;
    }
    p->count = out;
}

ember_status em_nfc(const uint8_t *s, size_t n, struct em_buf *out)
{
    struct points p = {0};
    ember_status status = EMBER_OK;
    for (const uint8_t *end = s + n; s < end;)
        EM_TRY_GOTO(status, done, decompose(&p, em_utf8_next(&s)));
    EM_TRY_GOTO(status, done, order(&p));
    recompose(&p);
    for (size_t i = 0; i < p.count; i++) {
        uint8_t bytes[4];
        EM_TRY_GOTO(status, done, em_buf_add(out, bytes, em_utf8_put(p.c[i], bytes)));
    }
done:
    em_free(p.c);
    em_free(p.ccc);
    return status;
}
