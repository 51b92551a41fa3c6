#include "data/ids.h"

#include <string.h>

#include "base/alloc.h"

static int64_t id_at(const struct em_st_tensor *t, size_t i)
{
    int32_t narrow;
    int64_t wide;
    if (t->dtype == EM_ST_I64) {
        memcpy(&wide, t->data + 8 * i, sizeof wide);
        return wide;
    }
    memcpy(&narrow, t->data + 4 * i, sizeof narrow);
    return narrow;
}

static ember_status check(const char *path, const struct em_st_tensor *t, size_t vocabulary)
{
    char shape[96];
    if (!t)
        return em_fail(EMBER_E_FORMAT, "%s: expected a tensor input_ids [steps, batch, tokens]",
                       path);
    if ((t->dtype != EM_ST_I32 && t->dtype != EM_ST_I64) || t->rank != 3 || t->elements == 0 ||
        t->shape[2] < 2)
        return em_fail(
            EMBER_E_FORMAT,
            "%s: input_ids: expected I32 or I64 [steps, batch, tokens >= 2], found %s %s", path,
            em_st_dtype_name(t->dtype), em_st_shape_text(t->shape, t->rank, shape, sizeof shape));
    for (size_t i = 0; i < t->elements; i++) {
        const int64_t id = id_at(t, i);
        if (id < 0 || (uint64_t)id >= vocabulary)
            return em_fail(EMBER_E_RANGE,
                           "%s: input_ids: step %zu has the token %lld, the vocabulary is [0, %zu)",
                           path, i / (t->shape[1] * t->shape[2]), (long long)id, vocabulary);
    }
    return EMBER_OK;
}

ember_status em_ids_open(const char *path, size_t vocabulary, struct em_ids_source *out)
{
    struct em_ids_source s = {0};
    EM_TRY(em_safetensors_open(path, &s.file));
    s.ids = em_safetensors_find(s.file, "input_ids");
    const ember_status status = check(path, s.ids, vocabulary);
    if (status != EMBER_OK) {
        em_safetensors_close(s.file);
        return status;
    }
    s.steps = s.ids->shape[0];
    s.batch = s.ids->shape[1];
    s.seq = s.ids->shape[2];
    *out = s;
    return EMBER_OK;
}

void em_ids_close(struct em_ids_source *source)
{
    em_safetensors_close(source->file);
    *source = (struct em_ids_source){0};
}

ember_status em_ids_fill(const struct em_ids_source *s, uint64_t step, size_t first, size_t rows,
                         struct em_packed *out)
{
    if (step >= s->steps)
        return em_fail(EMBER_E_RANGE, "%s: step %llu: the file has batches for %zu steps",
                       em_safetensors_path(s->file), (unsigned long long)step, s->steps);
    if (rows == 0 || first >= s->batch || rows > s->batch - first)
        return em_fail(EMBER_E_RANGE, "%s: rows %zu to %zu: a batch has %zu",
                       em_safetensors_path(s->file), first, first + rows, s->batch);
    EM_TRY(em_packed_reserve(out, rows * s->seq));
    const size_t from = ((size_t)step * s->batch + first) * s->seq;
    for (size_t r = 0; r < rows; r++) {
        int32_t *tokens = out->tokens + r * s->seq, *targets = out->targets + r * s->seq;
        for (size_t i = 0; i < s->seq; i++)
            tokens[i] = (int32_t)id_at(s->ids, from + r * s->seq + i);
        memcpy(targets, tokens + 1, (s->seq - 1) * sizeof *targets);
        targets[s->seq - 1] = -100;
        out->labels[r] = 0;
        out->bytes[r] = 0;
        out->offset[r + 1] = (r + 1) * s->seq;
    }
    out->batch.n_tokens = rows * s->seq;
    out->batch.n_sequences = rows;
    return EMBER_OK;
}
