// Reading safetensors: everything is checked here, once, so that nobody checks it again.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "formats/pickle.h"
#include "formats/safetensors_header.h"

struct em_safetensors {
    char *path;
    struct em_map map; // not open for a file in memory
    struct em_st_header header;
    struct em_st_tensor **by_name;
};

const char *em_st_shape_text(const size_t *shape, size_t rank, char *out, size_t size)
{
    size_t at = (size_t)snprintf(out, size, "[");
    for (size_t i = 0; i < rank && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, i ? ", %zu" : "%zu", shape[i]);
    if (at < size) snprintf(out + at, size - at, "]");
    return out;
}

static int by_begin(const void *a, const void *b)
{
    const struct em_st_entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return strcmp(x->tensor.name, y->tensor.name);
}

static int by_name(const void *a, const void *b)
{
    const struct em_st_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct em_st_pair *)a)->key, ((const struct em_st_pair *)b)->key);
}

// The tensor's bytes by its shape and dtype are those between its offsets.
static ember_status check_size(const char *file, struct em_st_entry *e)
{
    struct em_st_tensor *t = &e->tensor;
    char shape[128];
    bool fits = true, empty = false;
    t->elements = 1;
    for (size_t i = 0; i < t->rank; i++) {
        empty = empty || t->shape[i] == 0;
        fits = fits && em_mul_size(t->elements, t->shape[i], &t->elements);
    }
    if (empty)
        t->elements = 0; // whatever the other dimensions are
    else if (!fits || !em_st_bytes(t->dtype, t->elements, &t->bytes))
        return em_fail(EMBER_E_FORMAT,
                       "%s: tensor %s: %s %s is more than this machine can address, or no whole "
                       "number of bytes",
                       file, t->name, em_st_dtype_name(t->dtype),
                       em_st_shape_text(t->shape, t->rank, shape, sizeof shape));
    if (e->end < e->begin || e->end - e->begin != t->bytes)
        return em_fail(EMBER_E_FORMAT,
                       "%s: tensor %s: %s %s takes %zu bytes, data_offsets are [%llu, %llu]", file,
                       t->name, em_st_dtype_name(t->dtype),
                       em_st_shape_text(t->shape, t->rank, shape, sizeof shape), t->bytes,
                       (unsigned long long)e->begin, (unsigned long long)e->end);
    return EMBER_OK;
}

// Tensors one after the other from the data's first byte to the file's last.
static ember_status place(const char *file, struct em_st_header *h, const unsigned char *data,
                          size_t size)
{
    if (h->count) qsort(h->entries, h->count, sizeof *h->entries, by_begin);
    uint64_t at = 0;
    for (size_t i = 0; i < h->count; i++) {
        struct em_st_entry *e = &h->entries[i];
        EM_TRY(check_size(file, e));
        if (e->begin != at)
            return em_fail(
                EMBER_E_FORMAT, "%s: tensor %s begins at byte %llu of the data, %s (expected %llu)",
                file, e->tensor.name, (unsigned long long)e->begin,
                e->begin < at ? "inside another tensor" : "after a hole", (unsigned long long)at);
        if (e->end > size)
            return em_fail(
                EMBER_E_FORMAT,
                "%s: tensor %s ends at byte %llu of the data, the file has %zu (truncated?)", file,
                e->tensor.name, (unsigned long long)e->end, size);
        e->tensor.data = data + e->begin;
        at = e->end;
    }
    if (at != size)
        return em_fail(EMBER_E_FORMAT, "%s: tensors end at byte %llu of the data, the file has %zu",
                       file, (unsigned long long)at, size);
    return EMBER_OK;
}

static ember_status index_names(struct em_safetensors *f)
{
    struct em_st_header *h = &f->header;
    size_t bytes;
    if (!em_mul_size(h->count, sizeof *f->by_name, &bytes))
        return em_fail(EMBER_E_NOMEM, "%s: too many tensors", f->path);
    f->by_name = em_alloc(bytes);
    if (!f->by_name) return EMBER_E_NOMEM;
    for (size_t i = 0; i < h->count; i++)
        f->by_name[i] = &h->entries[i].tensor;
    if (h->count) qsort(f->by_name, h->count, sizeof *f->by_name, by_name);
    for (size_t i = 1; i < h->count; i++)
        if (strcmp(f->by_name[i - 1]->name, f->by_name[i]->name) == 0)
            return em_fail(EMBER_E_FORMAT, "%s: tensor %s is there twice", f->path,
                           f->by_name[i]->name);
    if (h->metadata_count) qsort(h->metadata, h->metadata_count, sizeof *h->metadata, by_key);
    for (size_t i = 1; i < h->metadata_count; i++)
        if (strcmp(h->metadata[i - 1].key, h->metadata[i].key) == 0)
            return em_fail(EMBER_E_FORMAT, "%s: __metadata__ has \"%s\" twice", f->path,
                           h->metadata[i].key);
    em_st_take_hashes(h->metadata, h->metadata_count, f->by_name, h->count);
    return EMBER_OK;
}

static ember_status parse(struct em_safetensors *f, const unsigned char *data, size_t size)
{
    EM_TRY(em_pickle_refuse(f->path, data, size));
    if (size < 8)
        return em_fail(EMBER_E_FORMAT, "%s: %zu bytes, a safetensors file has at least 8", f->path,
                       size);
    uint64_t length;
    memcpy(&length, data, sizeof length);
    if (length > EM_ST_HEADER_LIMIT)
        return em_fail(EMBER_E_FORMAT,
                       "%s: header of %llu bytes, at most %d are allowed (is it safetensors?)",
                       f->path, (unsigned long long)length, EM_ST_HEADER_LIMIT);
    if (length > size - 8)
        return em_fail(EMBER_E_FORMAT,
                       "%s: header of %llu bytes, the file has only %zu (truncated?)", f->path,
                       (unsigned long long)length, size);
    EM_TRY(em_st_header_parse(f->path, (const char *)data + 8, (size_t)length, &f->header));
    EM_TRY(place(f->path, &f->header, data + 8 + length, size - 8 - (size_t)length));
    return index_names(f);
}

ember_status em_safetensors_parse(const char *name, const unsigned char *data, size_t size,
                                  struct em_safetensors **out)
{
    struct em_safetensors *f = em_calloc(1, sizeof *f);
    if (!f) return EMBER_E_NOMEM;
    f->path = em_strdup(name);
    const ember_status status = f->path ? parse(f, data, size) : EMBER_E_NOMEM;
    if (status != EMBER_OK) {
        em_safetensors_close(f);
        return status;
    }
    *out = f;
    return EMBER_OK;
}

ember_status em_safetensors_open(const char *path, struct em_safetensors **out)
{
    struct em_map map;
    EM_TRY(em_map_open(path, &map));
    struct em_safetensors *f;
    const ember_status status = em_safetensors_parse(path, map.data, map.size, &f);
    if (status != EMBER_OK) {
        em_map_close(&map);
        return status;
    }
    f->map = map;
    *out = f;
    return EMBER_OK;
}

void em_safetensors_close(struct em_safetensors *file)
{
    if (!file) return;
    if (file->map.data) em_map_close(&file->map);
    em_st_header_deinit(&file->header);
    em_free(file->by_name);
    em_free(file->path);
    em_free(file);
}

void em_safetensors_forget(const struct em_safetensors *file, const void *values, size_t bytes)
{
    if (file->map.data) em_map_forget(&file->map, values, bytes);
}

const char *em_safetensors_path(const struct em_safetensors *file)
{
    return file->path;
}

size_t em_safetensors_count(const struct em_safetensors *file)
{
    return file->header.count;
}

const struct em_st_tensor *em_safetensors_at(const struct em_safetensors *file, size_t i)
{
    return &file->header.entries[i].tensor;
}

const struct em_st_tensor *em_safetensors_find(const struct em_safetensors *file, const char *name)
{
    if (file->header.count == 0) return NULL;
    const struct em_st_tensor key = {.name = name}, *wanted = &key;
    const struct em_st_tensor *const *found =
        bsearch(&wanted, file->by_name, file->header.count, sizeof *file->by_name, by_name);
    return found ? *found : NULL;
}

size_t em_safetensors_metadata_count(const struct em_safetensors *file)
{
    return file->header.metadata_count;
}

struct em_st_pair em_safetensors_metadata_at(const struct em_safetensors *file, size_t i)
{
    return file->header.metadata[i];
}

const char *em_safetensors_metadata(const struct em_safetensors *file, const char *key)
{
    for (size_t i = 0; i < file->header.metadata_count; i++)
        if (strcmp(file->header.metadata[i].key, key) == 0) return file->header.metadata[i].value;
    return NULL;
}
