#include "text/added.h"

#include <string.h>

#include "base/alloc.h"
#include "text/unicode.h"

struct em_matcher_edge {
    uint64_t key; // node << 8 | byte, + 1; 0: free
    uint32_t node;
};

void em_matcher_deinit(struct em_matcher *m)
{
    em_free(m->edges);
    em_free(m->token);
    memset(m, 0, sizeof *m);
}

static size_t slot_of(const struct em_matcher *m, size_t node, uint8_t byte)
{
    const uint64_t key = ((uint64_t)node << 8 | byte) + 1;
    size_t slot = (size_t)((key * 0x9E3779B97F4A7C15u) >> 32) & m->edge_mask;
    while (m->edges[slot].key != key && m->edges[slot].key != 0)
        slot = (slot + 1) & m->edge_mask;
    return slot;
}

static ember_status grow_edges(struct em_matcher *m)
{
    const size_t old = m->edges ? m->edge_mask + 1 : 0, slots = old ? old * 2 : 256;
    struct em_matcher_edge *edges = em_calloc(slots, sizeof *edges), *before = m->edges;
    if (!edges) return EMBER_E_NOMEM;
    m->edges = edges;
    m->edge_mask = slots - 1;
    for (size_t i = 0; i < old; i++)
        if (before[i].key)
            edges[slot_of(m, (size_t)((before[i].key - 1) >> 8), (uint8_t)(before[i].key - 1))] =
                before[i];
    em_free(before);
    return EMBER_OK;
}

static ember_status new_node(struct em_matcher *m)
{
    EM_TRY(em_grow(&m->token, &m->token_capacity, m->node_count + 1, sizeof *m->token));
    m->token[m->node_count++] = -1;
    return EMBER_OK;
}

ember_status em_matcher_add(struct em_matcher *m, const void *content, size_t n, int32_t place)
{
    const uint8_t *s = content;
    if (m->node_count == 0) EM_TRY(new_node(m));
    size_t node = 0;
    for (size_t i = 0; i < n; i++) {
        if (!m->edges || m->edge_count * 2 > m->edge_mask) EM_TRY(grow_edges(m));
        const size_t slot = slot_of(m, node, s[i]);
        if (m->edges[slot].key == 0) {
            EM_TRY(new_node(m));
            m->edges[slot] = (struct em_matcher_edge){((uint64_t)node << 8 | s[i]) + 1,
                                                      (uint32_t)(m->node_count - 1)};
            m->edge_count++;
        }
        node = m->edges[slot].node;
    }
    m->token[node] = place;
    m->first[s[0]] = true;
    return EMBER_OK;
}

int32_t em_matcher_next(const struct em_matcher *m, const uint8_t *s, size_t n, size_t from,
                        size_t *begin, size_t *end)
{
    if (!m->edges) return -1;
    for (size_t i = from; i < n; i++) {
        if (!m->first[s[i]]) continue;
        int32_t found = -1;
        size_t node = 0;
        for (size_t j = i; j < n; j++) {
            const struct em_matcher_edge *edge = &m->edges[slot_of(m, node, s[j])];
            if (edge->key == 0) break;
            node = edge->node;
            if (m->token[node] >= 0) {
                found = m->token[node];
                *end = j + 1;
            }
        }
        if (found >= 0) {
            *begin = i;
            return found;
        }
    }
    return -1;
}

bool em_added_stands(const struct em_added *token, const uint8_t *s, size_t n, size_t floor,
                     size_t *begin, size_t *end)
{
    if (token->single_word) {
        const uint8_t *p = s + *begin;
        if (p > s && em_is_word(em_utf8_previous(&p))) return false;
        p = s + *end;
        if (p < s + n && em_is_word(em_utf8_next(&p))) return false;
    }
    if (token->lstrip) {
        const uint8_t *p = s + *begin;
        while (p > s + floor) {
            const uint8_t *q = p;
            if (!(em_class(em_utf8_previous(&q)) & EM_SPACE)) break;
            p = q;
        }
        *begin = p > s + floor ? (size_t)(p - s) : floor;
    }
    if (token->rstrip) {
        // The match before this one took all spaces up to `floor`: looking at them once keeps it
        // linear.
        const uint8_t *p = s + (*end > floor ? *end : floor);
        while (p < s + n) {
            const uint8_t *q = p;
            if (!(em_class(em_utf8_next(&q)) & EM_SPACE)) break;
            p = q;
        }
        *end = (size_t)(p - s);
    }
    return *begin < *end; // else what it takes is all taken by the match before it
}
