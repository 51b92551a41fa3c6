// Ordering candidates: by logit, of equal ones by id, so that every order is the only one.
#include <stdlib.h>

#include "infer/sampler.h"

static bool before(const struct em_candidate *a, const struct em_candidate *b)
{
    return a->logit != b->logit ? a->logit > b->logit : a->id < b->id;
}

static int compare(const void *a, const void *b)
{
    return before(a, b) ? -1 : before(b, a);
}

static void swap(struct em_candidate *a, struct em_candidate *b)
{
    const struct em_candidate t = *a;
    *a = *b;
    *b = t;
}

// Quickselect (Hoare 1961): afterwards the first `keep` are the largest, in no order.
static void select_largest(struct em_candidate *item, size_t count, size_t keep)
{
    size_t low = 0, high = count; // the boundary is within [low, high)
    while (high - low > 1) {
        // The median of three, so that sorted input is no worst case; never the last of them, which
        // therefore goes to the right.
        struct em_candidate *first = item + low, *middle = item + low + (high - low - 1) / 2,
                            *last = item + high - 1;
        if (before(middle, first)) swap(middle, first);
        if (before(last, first)) swap(last, first);
        if (before(last, middle)) swap(last, middle);
        const struct em_candidate pivot = *middle;
        size_t i = low, j = high - 1;
        for (;;) {
            while (before(&item[i], &pivot))
                i++;
            while (before(&pivot, &item[j]))
                j--;
            if (i >= j) break;
            swap(&item[i++], &item[j--]);
        }
        // [low, i) are not after the pivot, [i, high) not before it.
        if (keep <= j + 1)
            high = j + 1;
        else
            low = j + 1;
        if (keep == low) return;
    }
}

void em_candidates_keep(struct em_candidates *c, size_t keep)
{
    if (keep < c->count) {
        if (!c->sorted) select_largest(c->item, c->count, keep);
        c->count = keep;
    }
    if (!c->sorted) qsort(c->item, c->count, sizeof *c->item, compare);
    c->sorted = true;
}

float em_candidates_max(const struct em_candidates *c)
{
    float max = c->item[0].logit;
    for (size_t i = 1; i < c->count && !c->sorted; i++)
        if (c->item[i].logit > max) max = c->item[i].logit;
    return max;
}
