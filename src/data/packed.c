#include "data/packed.h"

#include "base/alloc.h"

void em_packed_deinit(struct em_packed *p)
{
    em_free(p->offset);
    em_free(p->tokens);
    em_free(p->targets);
    em_free(p->labels);
    em_free(p->bytes);
    em_free(p->inputs);
    em_free(p->timespans);
    em_free(p->values);
    *p = (struct em_packed){0};
}

ember_status em_packed_reserve(struct em_packed *p, size_t tokens)
{
    if (tokens > p->capacity) {
        size_t bytes;
        if (!em_mul_size(tokens, sizeof(size_t), &bytes) ||
            !em_add_size(bytes, sizeof(size_t), &bytes))
            return em_fail(EMBER_E_NOMEM, "a batch of %zu tokens is too large", tokens);
        em_packed_deinit(p);
        p->offset = em_alloc(bytes);
        p->tokens = em_alloc_aligned(tokens * sizeof *p->tokens);
        p->targets = em_alloc_aligned(tokens * sizeof *p->targets);
        p->labels = em_alloc(tokens * sizeof *p->labels);
        p->bytes = em_alloc(tokens * sizeof *p->bytes);
        if (!p->bytes || !p->offset || !p->tokens || !p->targets || !p->labels) {
            em_packed_deinit(p);
            return EMBER_E_NOMEM;
        }
        p->capacity = tokens;
    }
    if (p->offset) p->offset[0] = 0;
    p->batch = (ember_batch){
        .offset = p->offset, .tokens = p->tokens, .targets = p->targets, .labels = p->labels};
    return EMBER_OK;
}

ember_status em_packed_reserve_vectors(struct em_packed *p, size_t I, size_t M)
{
    size_t in, made;
    if (p->vectors >= p->capacity) return EMBER_OK;
    if (!em_mul_size(p->capacity, I * sizeof(float), &in) ||
        !em_mul_size(p->capacity, (M ? M : 1) * sizeof(float), &made))
        return em_fail(EMBER_E_NOMEM, "a batch of %zu vectors is too large", p->capacity);
    p->inputs = em_alloc_aligned(in);
    p->timespans = em_alloc_aligned(p->capacity * sizeof *p->timespans);
    p->values = em_alloc_aligned(made);
    if (!p->inputs || !p->timespans || !p->values) {
        em_packed_deinit(p);
        return EMBER_E_NOMEM;
    }
    p->vectors = p->capacity;
    return EMBER_OK;
}

double em_packed_bytes(const struct em_packed *p)
{
    double sum = 0;
    for (size_t s = 0; s < p->batch.n_sequences; s++)
        sum += p->bytes[s];
    return sum;
}
