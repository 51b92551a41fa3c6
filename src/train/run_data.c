// data.json of a run's folder: what it is trained on, file by file. It names what is no longer the
// same when a run goes on, and it is the source of the model card's data.
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "formats/hash.h"
#include "train/run.h"

#define NAME "data.json"

// ---- writing ----

// A path as JSON text: bytes that are no UTF-8 become question marks.
static json_t *path_json(const char *path)
{
    json_t *text = json_string(path);
    if (text) return text;
    char *copy = em_strdup(path);
    for (char *p = copy; copy && *p; p++)
        if ((unsigned char)*p >= 0x80) *p = '?';
    text = copy ? json_string(copy) : NULL;
    em_free(copy);
    return text;
}

static json_t *file_json(const struct em_cache_file *f)
{
    char hash[24];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)f->xxh3);
    return json_pack("{s:o, s:I, s:s}", "path", path_json(f->path), "bytes", (json_int_t)f->bytes,
                     "xxh3", hash);
}

static json_t *files_json(const struct em_cache_file *files, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < count; i++)
        list = em_json_add(list, file_json(&files[i]));
    return list;
}

static json_t *domain_json(const struct em_domain *d, const char *source)
{
    return json_pack("{s:s, s:o, s:I, s:I, s:I, s:I, s:o}", "domain", d->name, "source",
                     path_json(source), "documents", (json_int_t)d->cache.count, "text_bytes",
                     (json_int_t)d->cache.stats.bytes, "train_tokens", (json_int_t)d->train_tokens,
                     "held_out_tokens", (json_int_t)d->held_out_tokens, "files",
                     files_json(d->cache.files, d->cache.file_count));
}

static ember_status add_file(json_t **list, const char *domain, uint64_t tokens, const char *path)
{
    struct em_file_hash hash;
    EM_TRY(em_hash_file(path, false, &hash));
    const struct em_cache_file file = {(char *)(uintptr_t)path, hash.bytes, hash.xxh3};
    *list = em_json_add(*list, json_pack("{s:s, s:I, s:o}", "domain", domain, "train_tokens",
                                         (json_int_t)tokens, "files", files_json(&file, 1)));
    return EMBER_OK;
}

// What the run is trained on now.
static ember_status describe(const struct em_training *t, json_t **out)
{
    json_t *list = json_array();
    if (t->batches.text) {
        for (size_t d = 0; list && d < t->batches.dataset.count; d++)
            list = em_json_add(
                list, domain_json(&t->batches.dataset.domains[d], t->recipe.sources[d].path));
    } else {
        const struct em_batches *b = &t->batches;
        const uint64_t tokens = b->slices * b->scored;
        ember_status status = b->tensors.file
                                  ? add_file(&list, "tensors", tokens, t->recipe.data.tensors)
                                  : add_file(&list, "ids", tokens, t->recipe.data.ids);
        if (status == EMBER_OK && b->held_out.file)
            status = add_file(&list, "held out", 0, t->recipe.data.tensors_held_out);
        if (status != EMBER_OK) {
            json_decref(list);
            return status;
        }
    }
    *out = list;
    return list ? EMBER_OK : em_fail(EMBER_E_NOMEM, "out of memory");
}

ember_status em_run_write_data(const struct em_training *t)
{
    char *path = em_path_join(t->run.dir, NAME);
    json_t *list = NULL;
    ember_status status = path ? describe(t, &list) : EMBER_E_NOMEM;
    if (status == EMBER_OK) status = em_json_write(path, list, 1);
    json_decref(list);
    em_free(path);
    return status;
}

ember_status em_run_read_data(const struct em_training *t, json_t **list)
{
    char *path = em_path_join(t->run.dir, NAME);
    if (!path) return EMBER_E_NOMEM;
    const ember_status status = em_json_read(path, (size_t)1 << 30, 0, list);
    em_free(path);
    return status;
}

// ---- what is no longer the same ----

static bool same_text(const json_t *a, const json_t *b, const char *key)
{
    const json_t *x = json_object_get(a, key), *y = json_object_get(b, key);
    return x && y && json_equal(x, y);
}

// The first member of `files` whose content is in none of `others`, or NULL.
static const json_t *odd_one(const json_t *files, const json_t *others)
{
    for (size_t i = 0; i < json_array_size(files); i++) {
        const json_t *f = json_array_get(files, i);
        bool known = same_text(f, json_array_get(others, i), "xxh3");
        for (size_t j = 0; j < json_array_size(others) && !known; j++)
            known = same_text(f, json_array_get(others, j), "xxh3");
        if (!known) return f;
    }
    return NULL;
}

static const json_t *of_path(const json_t *files, const json_t *file)
{
    for (size_t i = 0; i < json_array_size(files); i++)
        if (same_text(json_array_get(files, i), file, "path")) return json_array_get(files, i);
    return NULL;
}

static const char *path_of(const json_t *file)
{
    const char *path = json_string_value(json_object_get(file, "path"));
    return path ? path : "a file";
}

static long long bytes_of(const json_t *file)
{
    return (long long)json_integer_value(json_object_get(file, "bytes"));
}

// The difference between two lists of files in words; false where there is none.
static bool tell_files(const json_t *before, const json_t *now, char *text, size_t size)
{
    if (!json_array_size(now)) return false; // a dry run keeps texts in memory, without their files
    const json_t *added = odd_one(now, before), *gone = odd_one(before, now);
    const json_t *old = added ? of_path(before, added) : NULL;
    if (old)
        snprintf(text, size, "%s was changed: it had %lld bytes and has %lld now, of other content",
                 path_of(added), bytes_of(old), bytes_of(added));
    else if (added)
        snprintf(text, size, "%s was not there", path_of(added));
    else if (gone)
        snprintf(text, size, "%s is not there any more", path_of(gone));
    return added || gone;
}

void em_run_find_change(const struct em_training *t, char *text, size_t size)
{
    json_t *before = NULL, *now = NULL;
    bool found = false;
    if (em_run_read_data(t, &before) == EMBER_OK && describe(t, &now) == EMBER_OK)
        for (size_t d = 0; d < json_array_size(now) && !found; d++)
            found = tell_files(json_object_get(json_array_get(before, d), "files"),
                               json_object_get(json_array_get(now, d), "files"), text, size);
    if (!found) snprintf(text, size, "their documents, tokens or shares differ");
    json_decref(before);
    json_decref(now);
}
