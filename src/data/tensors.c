#include "data/tensors.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "formats/hash.h"

static int64_t integer_at(const struct em_st_tensor *t, size_t i)
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

static ember_status check_floats(const char *path, const char *name, const struct em_st_tensor *t,
                                 const size_t *shape, size_t rank, bool positive)
{
    char found[96];
    if (t->dtype != EM_ST_F32 || t->rank != rank || memcmp(t->shape, shape, rank * sizeof *shape))
        return em_fail(EMBER_E_SHAPE, "%s: %s has to be F32 %s, found %s %s", path, name,
                       rank == 3 ? "[S, B, T] as inputs are" : "[S, B, T, columns of the model]",
                       em_st_dtype_name(t->dtype),
                       em_st_shape_text(t->shape, t->rank, found, sizeof found));
    for (size_t i = 0; i < t->elements; i++) {
        float v;
        memcpy(&v, t->data + 4 * i, sizeof v);
        if (!isfinite(v) || (positive && !(v > 0)))
            return em_fail(EMBER_E_RANGE, "%s: %s[%zu] is %g; it has to be finite%s", path, name, i,
                           (double)v, positive ? " and greater than 0" : "");
    }
    return EMBER_OK;
}

static ember_status check_integers(const struct em_tensor_source *s, const char *path,
                                   const char *name, const struct em_st_tensor *t, int64_t least,
                                   int64_t most)
{
    char found[96];
    if ((t->dtype != EM_ST_I32 && t->dtype != EM_ST_I64) || t->rank != 2 ||
        t->shape[0] != s->slices || t->shape[1] != s->batch)
        return em_fail(EMBER_E_SHAPE, "%s: %s has to be I32 or I64 [%zu, %zu], found %s %s", path,
                       name, s->slices, s->batch, em_st_dtype_name(t->dtype),
                       em_st_shape_text(t->shape, t->rank, found, sizeof found));
    for (size_t i = 0; i < t->elements; i++)
        if (integer_at(t, i) < least || integer_at(t, i) > most)
            return em_fail(EMBER_E_RANGE, "%s: %s[%zu] is %lld; it has to be %lld to %lld", path,
                           name, i, (long long)integer_at(t, i), (long long)least, (long long)most);
    return EMBER_OK;
}

static ember_status check(struct em_tensor_source *s, const char *path, size_t width, size_t made)
{
    const struct em_st_tensor *x = s->inputs;
    if (!x || x->rank != 4 || !x->elements)
        return em_fail(EMBER_E_FORMAT,
                       "%s: expected a tensor inputs [steps, batch, places, columns]", path);
    s->slices = x->shape[0];
    s->batch = x->shape[1];
    s->seq = x->shape[2];
    s->width = width;
    s->made = made;
    EM_TRY(
        check_floats(path, "inputs", x, (size_t[]){s->slices, s->batch, s->seq, width}, 4, false));
    if (s->timespans) EM_TRY(check_floats(path, "timespans", s->timespans, x->shape, 3, true));
    if (s->lengths) EM_TRY(check_integers(s, path, "lengths", s->lengths, 1, (int64_t)s->seq));
    if (!s->targets == !s->labels)
        return em_fail(EMBER_E_FORMAT,
                       "%s: expected either targets [S, B, T, M] or labels [S, B] beside inputs",
                       path);
    if (s->labels) return check_integers(s, path, "labels", s->labels, 0, (int64_t)made - 1);
    return check_floats(path, "targets", s->targets, (size_t[]){s->slices, s->batch, s->seq, made},
                        4, false);
}

ember_status em_tensors_open(const char *path, size_t width, size_t made,
                             struct em_tensor_source *out)
{
    struct em_tensor_source s = {0};
    EM_TRY(em_safetensors_open(path, &s.file));
    s.inputs = em_safetensors_find(s.file, "inputs");
    s.timespans = em_safetensors_find(s.file, "timespans");
    s.lengths = em_safetensors_find(s.file, "lengths");
    s.targets = em_safetensors_find(s.file, "targets");
    s.labels = em_safetensors_find(s.file, "labels");
    const ember_status status = check(&s, path, width, made);
    if (status != EMBER_OK) {
        em_safetensors_close(s.file);
        return status;
    }
    *out = s;
    return EMBER_OK;
}

void em_tensors_close(struct em_tensor_source *source)
{
    em_safetensors_close(source->file);
    *source = (struct em_tensor_source){0};
}

static size_t length_at(const struct em_tensor_source *s, size_t row)
{
    return s->lengths ? (size_t)integer_at(s->lengths, row) : s->seq;
}

// n floats of a row's places, packed behind each other.
static void copy(float *to, const struct em_st_tensor *t, size_t from, size_t n)
{
    memcpy(to, t->data + 4 * from, n * sizeof *to);
}

ember_status em_tensors_fill(const struct em_tensor_source *s, uint64_t step, size_t first,
                             size_t rows, struct em_packed *out)
{
    if (rows == 0 || first >= s->batch || rows > s->batch - first)
        return em_fail(EMBER_E_RANGE, "%s: rows %zu to %zu: a batch has %zu",
                       em_safetensors_path(s->file), first, first + rows, s->batch);
    EM_TRY(em_packed_reserve(out, rows * s->seq));
    EM_TRY(em_packed_reserve_vectors(out, s->width, s->targets ? s->made : 0));
    const size_t at = (size_t)(step % s->slices) * s->batch + first;
    size_t n = 0;
    for (size_t r = 0; r < rows; r++) {
        const size_t length = length_at(s, at + r), from = (at + r) * s->seq;
        copy(out->inputs + n * s->width, s->inputs, from * s->width, length * s->width);
        if (s->timespans) copy(out->timespans + n, s->timespans, from, length);
        if (s->targets)
            copy(out->values + n * s->made, s->targets, from * s->made, length * s->made);
        for (size_t t = 0; t < length; t++) {
            out->tokens[n + t] = 0;
            out->targets[n + t] = s->targets ? 0 : -100;
        }
        n += length;
        if (s->labels) out->targets[n - 1] = (int32_t)integer_at(s->labels, at + r);
        out->labels[r] = 0;
        out->bytes[r] = 0;
        out->offset[r + 1] = n;
    }
    out->batch.tokens = NULL;
    out->batch.inputs = out->inputs;
    if (s->timespans) out->batch.timespans = out->timespans;
    out->batch.n_tokens = n;
    out->batch.n_sequences = rows;
    return EMBER_OK;
}

uint64_t em_tensors_scored(const struct em_tensor_source *s, uint64_t step)
{
    const size_t at = (size_t)(step % s->slices) * s->batch;
    uint64_t scored = 0;
    if (s->labels) return s->batch;
    for (size_t r = 0; r < s->batch; r++)
        scored += length_at(s, at + r);
    return scored;
}

uint64_t em_tensors_hash(const struct em_tensor_source *s)
{
    const struct em_st_tensor *const all[] = {s->inputs, s->timespans, s->lengths, s->targets,
                                              s->labels};
    uint64_t hash = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        hash = em_hash64(hash, i, all[i] ? em_hash_bytes(all[i]->data, all[i]->bytes) : 0);
    return hash;
}
