#include "formats/folder.h"

#include <string.h>

#include "base/alloc.h"
#include "base/io.h"

enum { DEFAULT_JSON_LIMIT = 64 << 20 };

static const ember_model_file *find(const struct em_folder *f, const char *name)
{
    for (size_t i = 0; i < f->count; i++)
        if (strcmp(f->files[i].name, name) == 0) return &f->files[i];
    return NULL;
}

ember_status em_folder_check(const struct em_folder *f)
{
    if (f->count && !f->files)
        return em_fail(EMBER_E_USAGE, "%zu files in memory, but no list of them", f->count);
    for (size_t i = 0; i < f->count; i++) {
        const ember_model_file *file = &f->files[i];
        if (!file->name || !*file->name || strchr(file->name, '/'))
            return em_fail(EMBER_E_USAGE,
                           "file %zu in memory: expected a name without a folder, "
                           "found %s%s%s",
                           i, file->name ? "\"" : "", file->name ? file->name : "none",
                           file->name ? "\"" : "");
        if (!file->data && file->size)
            return em_fail(EMBER_E_USAGE, "%s: %zu bytes in memory, but no address", file->name,
                           file->size);
        if (find(f, file->name) != file)
            return em_fail(EMBER_E_USAGE, "%s: given twice", file->name);
    }
    return EMBER_OK;
}

char *em_folder_name(const struct em_folder *f, const char *name)
{
    return f->path ? em_path_join(f->path, name) : em_strdup(name);
}

ember_status em_folder_has(const struct em_folder *f, const char *name, bool *has)
{
    if (!f->path) {
        *has = find(f, name) != NULL;
        return EMBER_OK;
    }
    enum em_path_kind kind = EM_PATH_ABSENT;
    char *path = em_folder_name(f, name);
    const ember_status status = path ? em_path_probe(path, &kind) : EMBER_E_NOMEM;
    em_free(path);
    if (status == EMBER_OK) *has = kind != EM_PATH_ABSENT;
    return status;
}

static ember_status need(const struct em_folder *f, const char *name, const ember_model_file **file)
{
    *file = find(f, name);
    return *file ? EMBER_OK
                 : em_fail(EMBER_E_IO, "%s: not among the %zu files in memory", name, f->count);
}

ember_status em_folder_json(const struct em_folder *f, const char *name, size_t limit, int flags,
                            json_t **out)
{
    if (!f->path) {
        const ember_model_file *file;
        if (!limit) limit = DEFAULT_JSON_LIMIT;
        EM_TRY(need(f, name, &file));
        if (file->size > limit)
            return em_fail(EMBER_E_RANGE, "%s: has %zu bytes, the limit is %zu", name, file->size,
                           limit);
        return em_json_parse(name, file->size ? file->data : "", file->size, flags, out);
    }
    char *path = em_folder_name(f, name);
    if (!path) return EMBER_E_NOMEM;
    const ember_status status = em_json_read(path, limit, flags, out);
    em_free(path);
    return status;
}

ember_status em_folder_safetensors(const struct em_folder *f, const char *name,
                                   struct em_safetensors **out)
{
    if (!f->path) {
        const ember_model_file *file;
        EM_TRY(need(f, name, &file));
        return em_safetensors_parse(name, file->data, file->size, out);
    }
    char *path = em_folder_name(f, name);
    if (!path) return EMBER_E_NOMEM;
    const ember_status status = em_safetensors_open(path, out);
    em_free(path);
    return status;
}
