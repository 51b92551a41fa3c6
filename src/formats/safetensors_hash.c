// XXH3 of every tensor in a file's metadata: the format has no checksums of its own, and a flipped
// bit in a weight is a weight like any other.
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY // the size of XXH3_state_t, so that it comes from our allocator
#include <xxhash.h>

#include "base/alloc.h"
#include "formats/hash.h"
#include "formats/safetensors_header.h"

enum { PIECE = 1 << 20, DIGITS = 16 };

// ---- reading ----

static bool read_hash(const char *text, uint64_t *out)
{
    uint64_t v = 0;
    for (size_t i = 0; i < DIGITS; i++) {
        const char c = text[i];
        if (c >= '0' && c <= '9')
            v = v << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            v = v << 4 | (uint64_t)(c - 'a' + 10);
        else
            return false;
    }
    *out = v;
    return true;
}

void em_st_take_hashes(const struct em_st_pair *metadata, size_t pairs,
                       struct em_st_tensor *const *by_name, size_t count)
{
    const char *text = NULL;
    for (size_t i = 0; i < pairs; i++)
        if (strcmp(metadata[i].key, EM_ST_HASHES) == 0) text = metadata[i].value;
    if (!text || strlen(text) / DIGITS != count || strlen(text) % DIGITS) return;
    for (size_t i = 0; i < count; i++)
        by_name[i]->hashed = read_hash(text + DIGITS * i, &by_name[i]->xxh3);
}

ember_status em_st_tensor_verify(const char *file, const struct em_st_tensor *tensor)
{
    if (!tensor->hashed) return EMBER_OK;
    const uint64_t found = em_hash_bytes(tensor->data, tensor->bytes);
    if (found == tensor->xxh3) return EMBER_OK;
    return em_fail(EMBER_E_FORMAT,
                   "%s: tensor %s: expected XXH3 %016llx, found %016llx: the file is damaged, or "
                   "another program changed it and kept its __metadata__." EM_ST_HASHES,
                   file, tensor->name, (unsigned long long)tensor->xxh3, (unsigned long long)found);
}

ember_status em_safetensors_verify(const struct em_safetensors *file)
{
    for (size_t i = 0; i < em_safetensors_count(file); i++)
        EM_TRY(em_st_tensor_verify(em_safetensors_path(file), em_safetensors_at(file, i)));
    return EMBER_OK;
}

// ---- writing ----

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct em_st_output *const *)a)->name,
                  (*(const struct em_st_output *const *)b)->name);
}

static ember_status bytes_of(const char *path, const struct em_st_output *t, size_t *bytes)
{
    size_t elements = 1;
    for (size_t d = 0; d < t->rank; d++)
        if (!em_mul_size(elements, t->shape[d], &elements))
            return em_fail(EMBER_E_RANGE, "%s: tensor %s is too large", path, t->name);
    if (!em_st_bytes(t->dtype, elements, bytes))
        return em_fail(EMBER_E_RANGE, "%s: tensor %s is too large", path, t->name);
    return EMBER_OK;
}

static ember_status hash_output(const struct em_st_write *w, const struct em_st_output *t,
                                size_t bytes, XXH3_state_t *state, char *piece, uint64_t *hash)
{
    if (t->data || bytes == 0) {
        *hash = em_hash_bytes(t->data ? t->data : piece, bytes);
        return EMBER_OK;
    }
    XXH3_64bits_reset(state);
    for (size_t at = 0; at < bytes;) {
        const size_t n = bytes - at < PIECE ? bytes - at : PIECE;
        EM_TRY(w->source(w->context, (size_t)(t - w->tensors), at, piece, n));
        XXH3_64bits_update(state, piece, n);
        at += n;
    }
    *hash = XXH3_64bits_digest(state);
    return EMBER_OK;
}

ember_status em_st_put_hashes(const char *path, const struct em_st_write *w, struct em_buf *out)
{
    const struct em_st_output **sorted = em_calloc(w->count ? w->count : 1, sizeof *sorted);
    XXH3_state_t *state = em_alloc_aligned(sizeof *state);
    char *piece = em_alloc(PIECE);
    ember_status status = sorted && state && piece ? EMBER_OK : EMBER_E_NOMEM;
    for (size_t i = 0; i < w->count && status == EMBER_OK; i++)
        sorted[i] = &w->tensors[i];
    if (status == EMBER_OK) qsort(sorted, w->count, sizeof *sorted, by_name);
    for (size_t i = 0; i < w->count && status == EMBER_OK; i++) {
        size_t bytes = 0;
        uint64_t hash = 0;
        status = bytes_of(path, sorted[i], &bytes);
        if (status == EMBER_OK) status = hash_output(w, sorted[i], bytes, state, piece, &hash);
        if (status == EMBER_OK) status = em_buf_printf(out, "%016llx", (unsigned long long)hash);
    }
    em_free(piece);
    em_free(state);
    em_free(sorted);
    return status;
}
