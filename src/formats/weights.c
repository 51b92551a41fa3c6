#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "formats/hash.h"
#include "formats/pickle.h"
#include "formats/weights.h"

#define INDEX "model.safetensors.index.json"
#define SINGLE "model.safetensors"

enum { INDEX_LIMIT = 256 << 20 };

struct em_weights {
    char *path;
    char *index;                   // NULL: there is one file
    struct em_safetensors **files; // sorted by name for shards
    size_t file_count, file_capacity;
    const struct em_st_tensor **tensors; // by file
    size_t count, capacity;
    const struct em_st_tensor **by_name;
};

static int by_name(const void *a, const void *b)
{
    const struct em_st_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static ember_status add_file(struct em_weights *w, const char *path)
{
    EM_TRY(em_grow(&w->files, &w->file_capacity, w->file_count + 1, sizeof *w->files));
    EM_TRY(em_safetensors_open(path, &w->files[w->file_count]));
    w->file_count++;
    return EMBER_OK;
}

static ember_status add_member(struct em_weights *w, const struct em_folder *folder,
                               const char *name)
{
    EM_TRY(em_grow(&w->files, &w->file_capacity, w->file_count + 1, sizeof *w->files));
    EM_TRY(em_folder_safetensors(folder, name, &w->files[w->file_count]));
    w->file_count++;
    return EMBER_OK;
}

static ember_status add_tensor(struct em_weights *w, const struct em_st_tensor *t)
{
    EM_TRY(em_grow(&w->tensors, &w->capacity, w->count + 1, sizeof *w->tensors));
    w->tensors[w->count++] = t;
    return EMBER_OK;
}

static ember_status add_all(struct em_weights *w, const struct em_safetensors *file)
{
    for (size_t i = 0; i < em_safetensors_count(file); i++)
        EM_TRY(add_tensor(w, em_safetensors_at(file, i)));
    return EMBER_OK;
}

// A shard is a plain file name: an index from elsewhere must not open files outside its folder.
static bool plain_name(const char *name)
{
    return *name && strlen(name) <= NAME_MAX && !strchr(name, '/') && !strchr(name, '\\') &&
           strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

// The shards that a weight_map names, each once, sorted; the strings stay the map's.
static ember_status shard_names(const char *index, json_t *map, const char ***out, size_t *count)
{
    const size_t n = json_object_size(map);
    const char **names = em_calloc(n ? n : 1, sizeof *names);
    if (!names) return EMBER_E_NOMEM;
    const char *tensor;
    json_t *file;
    size_t used = 0;
    json_object_foreach(map, tensor, file)
    {
        const char *name = json_string_value(file);
        if (!name || strlen(name) != json_string_length(file) || !plain_name(name)) {
            char found[96];
            em_free(names);
            return em_fail(
                EMBER_E_FORMAT,
                "%s: weight_map.%.80s: expected the name of a file in the same folder, found %s",
                index, tensor, em_json_text(file, found, sizeof found));
        }
        names[used++] = name;
    }
    if (used) qsort(names, used, sizeof *names, by_text);
    size_t unique = 0;
    for (size_t i = 0; i < used; i++)
        if (unique == 0 || strcmp(names[unique - 1], names[i]) != 0) names[unique++] = names[i];
    *out = names;
    *count = unique;
    return EMBER_OK;
}

static ember_status open_shards(struct em_weights *w, const struct em_folder *folder,
                                const char **names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bool there;
        EM_TRY(em_folder_has(folder, names[i], &there));
        if (!there)
            return em_fail(EMBER_E_FORMAT, "%s: shard %s is missing from the folder", w->index,
                           names[i]);
        EM_TRY(add_member(w, folder, names[i]));
    }
    return EMBER_OK;
}

// Where the index puts a tensor, there it is; and nowhere else.
static ember_status take_mapped(struct em_weights *w, const char *index, json_t *map,
                                const char **names)
{
    size_t unlisted = 0;
    const char *example = NULL;
    for (size_t i = 0; i < w->file_count; i++)
        for (size_t k = 0; k < em_safetensors_count(w->files[i]); k++) {
            const struct em_st_tensor *t = em_safetensors_at(w->files[i], k);
            const char *shard = json_string_value(json_object_get(map, t->name));
            if (!shard) {
                if (unlisted++ == 0) example = t->name;
                continue;
            }
            if (strcmp(shard, names[i]) != 0)
                return em_fail(EMBER_E_FORMAT, "%s: tensor %s is placed in %s, but also in %s",
                               index, t->name, shard, names[i]);
            EM_TRY(add_tensor(w, t));
        }
    const char *tensor;
    json_t *file;
    if (w->count != json_object_size(map)) json_object_foreach(map, tensor, file)
        {
            size_t i = 0;
            while (strcmp(names[i], json_string_value(file)) != 0)
                i++;
            if (!em_safetensors_find(w->files[i], tensor))
                return em_fail(EMBER_E_FORMAT, "%s: tensor %s is missing from %s", index, tensor,
                               names[i]);
        }
    if (unlisted)
        em_warn(
            "%s: %zu tensors of its shards are in no weight_map and are not read, for instance %s",
            index, unlisted, example);
    return EMBER_OK;
}

static ember_status read_index(struct em_weights *w, const struct em_folder *folder, json_t *root)
{
    const char *index = w->index;
    json_t *map = json_object_get(root, "weight_map");
    char found[96];
    if (!json_is_object(map))
        return em_fail(EMBER_E_FORMAT, "%s: expected an object \"weight_map\", found %s", index,
                       em_json_text(map, found, sizeof found));
    const char **names;
    size_t count;
    EM_TRY(shard_names(index, map, &names, &count));
    ember_status status = open_shards(w, folder, names, count);
    if (status == EMBER_OK) status = take_mapped(w, index, map, names);
    em_free(names);
    return status;
}

static ember_status open_index(struct em_weights *w, const struct em_folder *folder)
{
    json_t *root;
    w->index = em_folder_name(folder, INDEX);
    if (!w->index) return EMBER_E_NOMEM;
    EM_TRY(em_folder_json(folder, INDEX, INDEX_LIMIT, 0, &root));
    const ember_status status = read_index(w, folder, root);
    json_decref(root);
    return status;
}

// A folder without the usual names: its only *.safetensors, else a line that says what is there.
static ember_status open_other(struct em_weights *w)
{
    char **names;
    size_t count, candidates = 0, chosen = 0, pickle = SIZE_MAX;
    EM_TRY(em_list_directory(w->path, &names, &count));
    for (size_t i = 0; i < count; i++) {
        const char *dot = strrchr(names[i], '.');
        if (dot && strcmp(dot, ".safetensors") == 0) {
            candidates++;
            chosen = i;
        }
        // Only names that hold weights: folders have other .bin files (training_args.bin).
        if (pickle == SIZE_MAX && em_pickle_name(names[i]) &&
            (strstr(names[i], "model") || strstr(names[i], "consolidated")))
            pickle = i;
    }
    ember_status status;
    char *path = NULL;
    if (candidates == 1) {
        path = em_path_join(w->path, names[chosen]);
        status = path ? add_file(w, path) : EMBER_E_NOMEM;
        if (status == EMBER_OK) status = add_all(w, w->files[0]);
    } else if (candidates > 1) {
        status =
            em_fail(EMBER_E_FORMAT, "%s: %zu .safetensors files, but no " SINGLE " and no " INDEX,
                    w->path, candidates);
    } else if (pickle != SIZE_MAX) {
        path = em_path_join(w->path, names[pickle]);
        status = path ? em_pickle_refuse(path, NULL, 0) : EMBER_E_NOMEM;
    } else {
        status = em_fail(EMBER_E_FORMAT, "%s: no weights: expected " SINGLE " or " INDEX, w->path);
    }
    em_free(path);
    em_names_free(names, count);
    return status;
}

static ember_status open_folder(struct em_weights *w, const struct em_folder *folder)
{
    bool sharded, whole = false;
    EM_TRY(em_folder_has(folder, INDEX, &sharded));
    if (sharded) return open_index(w, folder);
    EM_TRY(em_folder_has(folder, SINGLE, &whole));
    if (!whole && folder->path) return open_other(w);
    if (!whole)
        return em_fail(EMBER_E_FORMAT, "%s: no weights: expected " SINGLE " or " INDEX, w->path);
    EM_TRY(add_member(w, folder, SINGLE));
    return add_all(w, w->files[0]);
}

static ember_status index_names(struct em_weights *w)
{
    w->by_name = em_calloc(w->count ? w->count : 1, sizeof *w->by_name);
    if (!w->by_name) return EMBER_E_NOMEM;
    if (w->count) {
        memcpy(w->by_name, w->tensors, w->count * sizeof *w->by_name);
        qsort(w->by_name, w->count, sizeof *w->by_name, by_name);
    }
    return EMBER_OK;
}

static ember_status open_all(struct em_weights *w, const struct em_folder *folder)
{
    w->path = em_strdup(folder->path ? folder->path : "the files in memory");
    if (!w->path) return EMBER_E_NOMEM;
    enum em_path_kind kind = EM_PATH_DIRECTORY;
    if (folder->path) EM_TRY(em_path_probe(folder->path, &kind));
    if (kind == EM_PATH_DIRECTORY) {
        EM_TRY(open_folder(w, folder));
    } else {
        EM_TRY(add_file(w, folder->path));
        EM_TRY(add_all(w, w->files[0]));
    }
    return index_names(w);
}

ember_status em_weights_open(const char *path, struct em_weights **out)
{
    return em_weights_open_in(&(struct em_folder){.path = path}, out);
}

ember_status em_weights_open_in(const struct em_folder *folder, struct em_weights **out)
{
    struct em_weights *w = em_calloc(1, sizeof *w);
    if (!w) return EMBER_E_NOMEM;
    const ember_status status = open_all(w, folder);
    if (status == EMBER_OK)
        *out = w;
    else
        em_weights_close(w);
    return status;
}

void em_weights_close(struct em_weights *weights)
{
    if (!weights) return;
    for (size_t i = 0; i < weights->file_count; i++)
        em_safetensors_close(weights->files[i]);
    em_free(weights->files);
    em_free(weights->tensors);
    em_free(weights->by_name);
    em_free(weights->index);
    em_free(weights->path);
    em_free(weights);
}

size_t em_weights_count(const struct em_weights *weights)
{
    return weights->count;
}

const struct em_st_tensor *em_weights_at(const struct em_weights *weights, size_t i)
{
    return weights->tensors[i];
}

const struct em_st_tensor *em_weights_find(const struct em_weights *weights, const char *name)
{
    if (weights->count == 0) return NULL;
    const struct em_st_tensor key = {.name = name}, *wanted = &key;
    const struct em_st_tensor *const *found =
        bsearch(&wanted, weights->by_name, weights->count, sizeof *weights->by_name, by_name);
    return found ? *found : NULL;
}

const char *em_weights_file_of(const struct em_weights *w, const struct em_st_tensor *tensor)
{
    for (size_t i = 0; tensor && i < w->file_count; i++)
        if (em_safetensors_find(w->files[i], tensor->name) == tensor)
            return em_safetensors_path(w->files[i]);
    if (w->index) return w->index;
    return w->file_count ? em_safetensors_path(w->files[0]) : w->path;
}

static ember_status missing(const struct em_weights *w, const char *name)
{
    const char *file = em_weights_file_of(w, NULL);
    const char **names = em_calloc(w->count ? w->count : 1, sizeof *names);
    if (!names) return EMBER_E_NOMEM;
    for (size_t i = 0; i < w->count; i++)
        names[i] = w->by_name[i]->name;
    const char *near = em_did_you_mean(name, names, w->count);
    const ember_status status =
        near ? em_fail(EMBER_E_FORMAT, "%s: tensor %s is missing (there is %s)", file, name, near)
             : em_fail(EMBER_E_FORMAT, "%s: tensor %s is missing", file, name);
    em_free(names);
    return status;
}

ember_status em_weights_need(const struct em_weights *weights, const char *name,
                             const size_t *shape, size_t rank, const struct em_st_tensor **out)
{
    const struct em_st_tensor *t = em_weights_find(weights, name);
    if (!t) return missing(weights, name);
    if (t->rank != rank || (rank && memcmp(t->shape, shape, rank * sizeof *shape) != 0)) {
        char expected[96], found[96];
        return em_fail(EMBER_E_SHAPE, "%s: tensor %s: expected shape %s, found %s",
                       em_weights_file_of(weights, t), name,
                       em_st_shape_text(shape, rank, expected, sizeof expected),
                       em_st_shape_text(t->shape, t->rank, found, sizeof found));
    }
    *out = t;
    return EMBER_OK;
}

void em_weights_forget(const struct em_weights *w, const void *values, size_t bytes)
{
    for (size_t i = 0; i < w->file_count; i++)
        em_safetensors_forget(w->files[i], values, bytes);
}

const char *em_weights_path(const struct em_weights *weights)
{
    return weights->path;
}

size_t em_weights_files(const struct em_weights *weights)
{
    return weights->file_count;
}

const struct em_safetensors *em_weights_file(const struct em_weights *weights, size_t i)
{
    return weights->files[i];
}

uint64_t em_weights_bytes(const struct em_weights *weights)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < weights->count; i++)
        bytes += weights->tensors[i]->bytes;
    return bytes;
}
