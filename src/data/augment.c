#include "data/augment.h"

#include "base/alloc.h"
#include "base/rng.h"

size_t em_warmup_length(uint64_t step, size_t first, size_t stage, size_t last)
{
    if (!first || first >= last) return last;
    for (uint64_t stages = step / stage; stages > 0; stages--) {
        if (first >= last / 2) return last;
        first *= 2;
    }
    return first;
}

void em_packed_cut(struct em_packed *p, size_t most)
{
    const size_t n = p->batch.n_sequences;
    size_t pieces = 0;
    for (size_t s = 0; s < n; s++)
        pieces += (p->offset[s + 1] - p->offset[s] + most - 1) / most;
    // From the last one on: pieces are never fewer than what they are made from.
    size_t at = pieces;
    for (size_t s = n; s-- > 0;) {
        const size_t begin = p->offset[s], end = p->offset[s + 1];
        const double bytes = p->bytes[s] / (double)(end - begin);
        for (size_t k = (end - begin + most - 1) / most; k-- > 0;) {
            const size_t from = begin + k * most, to = end - from < most ? end : from + most;
            p->offset[at] = to;
            p->bytes[--at] = bytes * (double)(to - from);
        }
    }
    p->batch.n_sequences = pieces;
}

static const struct {
    char base, complement;
} bases[] = {{'A', 'T'}, {'T', 'A'}, {'C', 'G'}, {'G', 'C'}, {'N', 'N'},
             {'a', 't'}, {'t', 'a'}, {'c', 'g'}, {'g', 'c'}, {'n', 'n'}};

ember_status em_complement_open(const struct em_tokenizer *tokenizer, struct em_complement *c)
{
    const size_t size = em_tokenizer_size(tokenizer);
    if (em_tokenizer_merges(tokenizer))
        return em_fail(EMBER_E_CONFIG, "data.reverse_complement: tokens have to be single "
                                       "characters (data.tokenizer \"dna\")");
    for (size_t i = 0; i < 4; i++)
        if (em_tokenizer_find(tokenizer, &bases[i].base, 1) < 0)
            return em_fail(EMBER_E_CONFIG, "data.reverse_complement: the tokenizer has no token %c",
                           bases[i].base);
    c->size = size;
    if (!(c->id = em_calloc(size, sizeof *c->id))) return EMBER_E_NOMEM;
    for (size_t i = 0; i < size; i++)
        c->id[i] = -1;
    for (size_t i = 0; i < sizeof bases / sizeof *bases; i++) {
        const int32_t base = em_tokenizer_find(tokenizer, &bases[i].base, 1);
        if (base >= 0) c->id[base] = em_tokenizer_find(tokenizer, &bases[i].complement, 1);
    }
    return EMBER_OK;
}

void em_complement_close(struct em_complement *c)
{
    em_free(c->id);
    *c = (struct em_complement){0};
}

static int32_t complement_of(const struct em_complement *c, int32_t id)
{
    return id >= 0 && (size_t)id < c->size ? c->id[id] : -1;
}

// A sequence of n tokens is n + 1 tokens long where its last target is known.
struct strand {
    int32_t *tokens, *targets;
    size_t n;
};

static int32_t get(const struct strand *s, size_t i)
{
    return i < s->n ? s->tokens[i] : s->targets[s->n - 1];
}

static void put(const struct strand *s, size_t i, int32_t id)
{
    if (i < s->n) s->tokens[i] = id;
    if (i > 0 && s->targets[i - 1] >= 0) s->targets[i - 1] = id;
}

static void reverse(const struct strand *s, const struct em_complement *c)
{
    const size_t length = s->n + (s->targets[s->n - 1] >= 0 ? 1 : 0);
    for (size_t begin = 0, end; begin < length; begin = end + 1) {
        for (end = begin; end < length && complement_of(c, get(s, end)) >= 0;)
            end++;
        for (size_t i = begin, j = end; i < j; i++) {
            const int32_t left = complement_of(c, get(s, i)), right = complement_of(c, get(s, --j));
            put(s, i, right);
            if (i < j) put(s, j, left);
        }
    }
}

void em_packed_reverse_complement(struct em_packed *p, const struct em_complement *c, double share,
                                  uint64_t seed, uint64_t step, size_t place)
{
    for (size_t s = 0; s < p->batch.n_sequences; s++) {
        const size_t at = p->offset[s];
        const uint64_t draw = em_hash64(seed ^ 0x7374726e64, step, place + at);
        if ((double)(draw >> 11) * 0x1p-53 >= share) continue;
        const struct strand strand = {p->tokens + at, p->targets + at, p->offset[s + 1] - at};
        reverse(&strand, c);
    }
}
