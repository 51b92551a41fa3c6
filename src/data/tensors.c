#include "data/tensors.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "formats/hash.h"

static ember_status check_floats(const char *path, const char *name, const struct em_st_tensor *t,
                                 const size_t *shape, size_t rank, bool positive)
{
    char found[96], expected[96];
    if (t->dtype != EM_ST_F32 || t->rank != rank || memcmp(t->shape, shape, rank * sizeof *shape))
        return em_fail(EMBER_E_SHAPE, "%s: %s has to be F32 %s, found %s %s", path, name,
                       em_st_shape_text(shape, rank, expected, sizeof expected),
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

// rank 2: [S, B]; 3: [S, B, T]. `none`: -100 is allowed too.
static ember_status check_integers(const struct em_tensor_source *s, const char *path,
                                   const char *name, const struct em_st_tensor *t, size_t rank,
                                   int64_t most, bool none)
{
    char found[96], expected[96];
    const size_t shape[3] = {s->slices, s->batch, s->seq};
    const int64_t least = strcmp(name, "lengths") == 0;
    if ((t->dtype != EM_ST_I32 && t->dtype != EM_ST_I64) || t->rank != rank ||
        memcmp(t->shape, shape, rank * sizeof *shape))
        return em_fail(EMBER_E_SHAPE, "%s: %s has to be I32 or I64 %s, found %s %s", path, name,
                       em_st_shape_text(shape, rank, expected, sizeof expected),
                       em_st_dtype_name(t->dtype),
                       em_st_shape_text(t->shape, t->rank, found, sizeof found));
    for (size_t i = 0; i < t->elements; i++) {
        const int64_t v = em_st_integer(t, i);
        if ((v < least || v > most) && !(none && v == -100))
            return em_fail(EMBER_E_RANGE, "%s: %s[%zu] is %lld; it has to be %lld to %lld%s", path,
                           name, i, (long long)v, (long long)least, (long long)most,
                           none ? ", or -100" : "");
    }
    return EMBER_OK;
}

static ember_status check_read(struct em_tensor_source *s, const char *path,
                               const struct em_tensor_columns *columns)
{
    const struct em_st_tensor *x = columns->vocabulary ? s->ids : s->inputs;
    const size_t rank = columns->vocabulary ? 3 : 4;
    if (!x || x->rank != rank || !x->elements || s->ids == s->inputs)
        return em_fail(EMBER_E_FORMAT, "%s: expected a tensor %s", path,
                       columns->vocabulary ? "input_ids [steps, batch, places]"
                                           : "inputs [steps, batch, places, columns]");
    s->slices = x->shape[0];
    s->batch = x->shape[1];
    s->seq = x->shape[2];
    s->width = columns->vocabulary ? 0 : columns->in;
    s->made = columns->out;
    if (columns->vocabulary)
        return check_integers(s, path, "input_ids", x, 3, (int64_t)columns->vocabulary - 1, false);
    return check_floats(path, "inputs", x, (size_t[]){s->slices, s->batch, s->seq, s->width}, 4,
                        false);
}

static size_t length_at(const struct em_tensor_source *s, size_t row)
{
    return s->lengths ? (size_t)em_st_integer(s->lengths, row) : s->seq;
}

static bool observed(const struct em_tensor_source *s, size_t place)
{
    return !s->mask || em_st_integer(s->mask, place) != 0;
}

// A sequence of nothing has no output.
static ember_status check_mask(const struct em_tensor_source *s, const char *path)
{
    EM_TRY(check_integers(s, path, "mask", s->mask, 3, 1, false));
    for (size_t row = 0; row < s->slices * s->batch; row++) {
        size_t places = 0;
        for (size_t t = 0; t < length_at(s, row); t++)
            places += observed(s, row * s->seq + t);
        if (!places)
            return em_fail(EMBER_E_RANGE, "%s: mask leaves nothing of sequence %zu of slice %zu",
                           path, row % s->batch, row / s->batch);
    }
    return EMBER_OK;
}

static ember_status check(struct em_tensor_source *s, const char *path,
                          const struct em_tensor_columns *columns)
{
    EM_TRY(check_read(s, path, columns));
    const size_t shape[] = {s->slices, s->batch, s->seq, s->made};
    if (s->timespans) EM_TRY(check_floats(path, "timespans", s->timespans, shape, 3, true));
    if (s->lengths)
        EM_TRY(check_integers(s, path, "lengths", s->lengths, 2, (int64_t)s->seq, false));
    if (s->mask) EM_TRY(check_mask(s, path));
    if (!s->targets == !s->labels || (columns->language_model && !s->labels))
        return em_fail(EMBER_E_FORMAT, "%s: expected %slabels [S, B] or [S, B, T] beside %s", path,
                       columns->language_model ? ""
                                               : "either targets [S, B, M] or [S, B, T, M], or ",
                       columns->vocabulary ? "input_ids" : "inputs");
    if (s->labels)
        return check_integers(s, path, "labels", s->labels, s->labels->rank == 3 ? 3 : 2,
                              (int64_t)s->made - 1, s->labels->rank == 3);
    if (s->targets->rank == 4) return check_floats(path, "targets", s->targets, shape, 4, false);
    return check_floats(path, "targets", s->targets, (size_t[]){s->slices, s->batch, s->made}, 3,
                        false);
}

// A mean over no place is none.
static ember_status check_scored(const struct em_tensor_source *s, const char *path)
{
    for (size_t step = 0; step < s->slices; step++)
        if (!em_tensors_scored(s, step))
            return em_fail(EMBER_E_RANGE, "%s: labels of slice %zu are all -100", path, step);
    return EMBER_OK;
}

ember_status em_tensors_open(const char *path, const struct em_tensor_columns *columns,
                             struct em_tensor_source *out)
{
    struct em_tensor_source s = {0};
    EM_TRY(em_safetensors_open(path, &s.file));
    s.inputs = em_safetensors_find(s.file, "inputs");
    s.ids = em_safetensors_find(s.file, "input_ids");
    s.timespans = em_safetensors_find(s.file, "timespans");
    s.lengths = em_safetensors_find(s.file, "lengths");
    s.mask = em_safetensors_find(s.file, "mask");
    s.targets = em_safetensors_find(s.file, "targets");
    s.labels = em_safetensors_find(s.file, "labels");
    ember_status status = check(&s, path, columns);
    if (status == EMBER_OK) status = check_scored(&s, path);
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

// n floats of a tensor.
static void copy(float *to, const struct em_st_tensor *t, size_t from, size_t n)
{
    memcpy(to, t->data + 4 * from, n * sizeof *to);
}

// Place `from` of the file as place n of the batch, `gap` after those that were left out.
static void fill_place(const struct em_tensor_source *s, size_t from, float gap, size_t n,
                       struct em_packed *out)
{
    const bool places = em_tensors_of_places(s);
    if (s->inputs) {
        float span = 1;
        copy(out->inputs + n * s->width, s->inputs, from * s->width, s->width);
        if (s->timespans) copy(&span, s->timespans, from, 1);
        out->timespans[n] = span + gap;
    }
    if (s->targets && places) copy(out->values + n * s->made, s->targets, from * s->made, s->made);
    out->tokens[n] = s->ids ? (int32_t)em_st_integer(s->ids, from) : 0;
    out->targets[n] = s->targets ? 0 : places ? (int32_t)em_st_integer(s->labels, from) : -100;
}

ember_status em_tensors_fill(const struct em_tensor_source *s, uint64_t step, size_t first,
                             size_t rows, struct em_packed *out)
{
    if (rows == 0 || first >= s->batch || rows > s->batch - first)
        return em_fail(EMBER_E_RANGE, "%s: rows %zu to %zu: a batch has %zu",
                       em_safetensors_path(s->file), first, first + rows, s->batch);
    EM_TRY(em_packed_reserve(out, rows * s->seq));
    if (!s->ids || s->targets)
        EM_TRY(em_packed_reserve_vectors(out, s->width, s->targets ? s->made : 0));
    const size_t at = (size_t)(step % s->slices) * s->batch + first;
    const bool places = em_tensors_of_places(s);
    size_t n = 0;
    for (size_t r = 0; r < rows; r++) {
        float gap = 0;
        for (size_t t = 0; t < length_at(s, at + r); t++) {
            const size_t from = (at + r) * s->seq + t;
            if (observed(s, from)) {
                fill_place(s, from, gap, n++, out);
                gap = 0;
            } else if (s->timespans) {
                float span;
                copy(&span, s->timespans, from, 1);
                gap += span;
            } else {
                gap++;
            }
        }
        if (s->targets && !places)
            copy(out->values + r * s->made, s->targets, (at + r) * s->made, s->made);
        if (s->labels && !places) out->targets[n - 1] = (int32_t)em_st_integer(s->labels, at + r);
        out->labels[r] = 0;
        out->bytes[r] = 0;
        out->offset[r + 1] = n;
    }
    if (!s->ids) {
        out->batch.tokens = NULL;
        out->batch.inputs = out->inputs;
        if (s->timespans || s->mask) out->batch.timespans = out->timespans;
    }
    out->batch.n_tokens = n;
    out->batch.n_sequences = rows;
    return EMBER_OK;
}

uint64_t em_tensors_scored(const struct em_tensor_source *s, uint64_t step)
{
    const size_t at = (size_t)(step % s->slices) * s->batch;
    const bool places = em_tensors_of_places(s);
    uint64_t scored = 0;
    if (!places) return s->batch;
    for (size_t r = 0; r < s->batch; r++)
        for (size_t t = 0; t < length_at(s, at + r); t++)
            scored += observed(s, (at + r) * s->seq + t) &&
                      (!s->labels || em_st_integer(s->labels, (at + r) * s->seq + t) >= 0);
    return scored;
}

uint64_t em_tensors_hash(const struct em_tensor_source *s)
{
    const struct em_st_tensor *const all[] = {s->inputs, s->timespans, s->lengths, s->targets,
                                              s->labels, s->ids,       s->mask};
    uint64_t hash = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        hash = em_hash64(hash, i, all[i] ? em_hash_bytes(all[i]->data, all[i]->bytes) : 0);
    return hash;
}
