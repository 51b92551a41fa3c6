#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/json.h"
#include "formats/manifest.h"
#include "formats/safetensors.h"
#include "formats/safetensors_header.h" // em_st_utf8_valid

enum { MANIFEST_LIMIT = 16 << 20, MAX_DEPTH = 16 };

void em_manifest_deinit(struct em_manifest *m)
{
    for (size_t i = 0; i < m->count; i++)
        em_free(m->files[i].name);
    em_free(m->files);
    *m = (struct em_manifest){0};
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct em_manifest_file *)a)->name,
                  ((const struct em_manifest_file *)b)->name);
}

static ember_status add(struct em_manifest *m, const char *name, struct em_file_hash hash)
{
    EM_TRY(em_grow(&m->files, &m->capacity, m->count + 1, sizeof *m->files));
    char *copy = em_strdup(name);
    if (!copy) return EMBER_E_NOMEM;
    m->files[m->count++] = (struct em_manifest_file){copy, hash};
    return EMBER_OK;
}

static ember_status scan(struct em_manifest *m, const char *folder, const char *below, int depth);

static ember_status scan_one(struct em_manifest *m, const char *folder, const char *name, int depth)
{
    char *path = em_path_join(folder, name);
    if (!path) return EMBER_E_NOMEM;
    enum em_path_kind kind = EM_PATH_ABSENT;
    struct em_file_hash hash;
    ember_status status = em_path_probe(path, &kind);
    if (status != EMBER_OK || strcmp(name, EM_MANIFEST_NAME) == 0)
        ;
    else if (kind == EM_PATH_DIRECTORY)
        status = scan(m, folder, name, depth + 1);
    else {
        status = em_hash_file(path, true, &hash);
        if (status == EMBER_OK) status = add(m, name, hash);
    }
    em_free(path);
    return status;
}

// `below` is the folder's part that names carry, "" at the top.
static ember_status scan(struct em_manifest *m, const char *folder, const char *below, int depth)
{
    if (depth > MAX_DEPTH)
        return em_fail(EMBER_E_FORMAT, "%s: folders nest deeper than %d", folder, MAX_DEPTH);
    char *path = *below ? em_path_join(folder, below) : em_strdup(folder);
    if (!path) return EMBER_E_NOMEM;
    char **names = NULL;
    size_t count = 0;
    ember_status status = em_list_directory(path, &names, &count);
    for (size_t i = 0; i < count && status == EMBER_OK; i++) {
        char *name = *below ? em_path_join(below, names[i]) : em_strdup(names[i]);
        status = name ? scan_one(m, folder, name, depth) : EMBER_E_NOMEM;
        em_free(name);
    }
    em_names_free(names, count);
    // The entries of a folder inside are durable only after its own fsync.
    if (status == EMBER_OK) status = em_sync_directory(path);
    em_free(path);
    return status;
}

ember_status em_manifest_scan(const char *folder, uint64_t step, struct em_manifest *out)
{
    struct em_manifest m = {.step = step};
    const ember_status status = scan(&m, folder, "", 0);
    if (status != EMBER_OK) {
        em_manifest_deinit(&m);
        return status;
    }
    if (m.count) qsort(m.files, m.count, sizeof *m.files, by_name);
    *out = m;
    return EMBER_OK;
}

// The hash of all that the manifest says, in one spelling: it guards the step and the version,
// which no file's hash covers. Later versions keep it, so that a later version and a flipped bit
// can be told apart.
static ember_status own_check(const struct em_manifest *m, uint64_t version, uint64_t *check)
{
    struct em_buf b;
    em_buf_init(&b, 0);
    ember_status status =
        em_buf_printf(&b, "%llu %llu\n", (unsigned long long)version, (unsigned long long)m->step);
    for (size_t i = 0; i < m->count && status == EMBER_OK; i++)
        status = em_buf_printf(&b, "%s\n%llu %016llx\n", m->files[i].name,
                               (unsigned long long)m->files[i].hash.bytes,
                               (unsigned long long)m->files[i].hash.xxh3);
    if (status == EMBER_OK) *check = em_hash_bytes(b.data, b.size);
    em_buf_deinit(&b);
    return status;
}

static bool hex_value(const char *text, uint64_t *out)
{
    if (strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16) return false;
    *out = strtoull(text, NULL, 16);
    return true;
}

// jansson spells the name, with its escapes.
static ember_status put_name(const char *folder, const char *text, struct em_buf *b)
{
    if (!em_st_utf8_valid(text, strlen(text)))
        return em_fail(EMBER_E_FORMAT, "%s: \"%s\": a file's name must be valid UTF-8", folder,
                       text);
    json_t *name = json_string(text);
    if (!name) return em_fail(EMBER_E_NOMEM, "%s: out of memory: the manifest", folder);
    const ember_status status = em_json_print(name, 0, b);
    json_decref(name);
    return status;
}

ember_status em_manifest_write(const char *folder, const struct em_manifest *m)
{
    uint64_t check;
    EM_TRY(own_check(m, EM_MANIFEST_VERSION, &check));
    struct em_buf b;
    em_buf_init(&b, 0);
    ember_status status;
    char *path = NULL;
    EM_TRY_GOTO(status, end,
                em_buf_printf(&b,
                              "{\n  \"format\": \"ember-state\",\n  \"version\": %d,\n  \"step\": "
                              "%llu,\n  \"check\": \"%016llx\",\n  \"files\": [",
                              EM_MANIFEST_VERSION, (unsigned long long)m->step,
                              (unsigned long long)check));
    for (size_t i = 0; i < m->count; i++) {
        EM_TRY_GOTO(status, end, em_buf_puts(&b, i ? ",\n    {\"name\": " : "\n    {\"name\": "));
        EM_TRY_GOTO(status, end, put_name(folder, m->files[i].name, &b));
        EM_TRY_GOTO(status, end,
                    em_buf_printf(&b, ", \"bytes\": %llu, \"xxh3\": \"%016llx\"}",
                                  (unsigned long long)m->files[i].hash.bytes,
                                  (unsigned long long)m->files[i].hash.xxh3));
    }
    EM_TRY_GOTO(status, end, em_buf_puts(&b, "\n  ]\n}\n"));
    path = em_path_join(folder, EM_MANIFEST_NAME);
    status = path ? em_write_file(path, b.data, b.size) : EMBER_E_NOMEM;
end:
    em_free(path);
    em_buf_deinit(&b);
    return status;
}

// A relative path that stays in its folder.
static bool safe_name(const char *name)
{
    for (const char *p = name;; p++) {
        const size_t n = strcspn(p, "/");
        if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return false;
        p += n;
        if (*p == '\0') return true;
    }
}

// A member is not what it has to be. `where` is "" or "files[3].".
static ember_status expected(const char *name, const char *where, const char *key, const char *what,
                             const json_t *object)
{
    char found[96];
    return em_fail(EMBER_E_FORMAT, "%s: %s%s: expected %s, found %s", name, where, key, what,
                   em_json_text(json_object_get(object, key), found, sizeof found));
}

static ember_status get_count(const char *name, const char *where, const json_t *object,
                              const char *key, uint64_t *out)
{
    const json_t *v = json_object_get(object, key);
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return expected(name, where, key, "an integer from 0 up", object);
    *out = (uint64_t)json_integer_value(v);
    return EMBER_OK;
}

static ember_status get_hash(const char *name, const char *where, const json_t *object,
                             const char *key, uint64_t *out)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text && hex_value(text, out)
               ? EMBER_OK
               : expected(name, where, key, "16 hexadecimal digits", object);
}

static ember_status parse_root(const char *name, const json_t *root, struct em_manifest *m)
{
    uint64_t version, check, sum;
    const json_t *files = json_object_get(root, "files");
    const char *format = json_string_value(json_object_get(root, "format"));
    if (!format || strcmp(format, "ember-state") != 0)
        return expected(name, "", "format", "\"ember-state\"", root);
    EM_TRY(get_count(name, "", root, "version", &version));
    EM_TRY(get_count(name, "", root, "step", &m->step));
    EM_TRY(get_hash(name, "", root, "check", &check));
    if (!json_is_array(files)) return expected(name, "", "files", "a list", root);
    for (size_t i = 0; i < json_array_size(files); i++) {
        const json_t *f = json_array_get(files, i), *text = json_object_get(f, "name");
        const char *file = json_string_value(text);
        char where[48];
        struct em_file_hash hash;
        snprintf(where, sizeof where, "files[%zu].", i);
        if (!file || strlen(file) != json_string_length(text))
            return expected(name, where, "name", "a text without NUL", f);
        EM_TRY(get_count(name, where, f, "bytes", &hash.bytes));
        EM_TRY(get_hash(name, where, f, "xxh3", &hash.xxh3));
        if (!safe_name(file))
            return em_fail(EMBER_E_FORMAT, "%s: files[%zu]: \"%.80s\" is no path inside the folder",
                           name, i, file);
        EM_TRY(add(m, file, hash));
        if (i > 0 && strcmp(m->files[i - 1].name, file) >= 0)
            return em_fail(EMBER_E_FORMAT,
                           "%s: files[%zu]: \"%.80s\" is out of order or there twice", name, i,
                           file);
    }
    EM_TRY(own_check(m, version, &sum));
    if (check != sum)
        return em_fail(EMBER_E_FORMAT, "%s: its own check does not fit: the manifest is damaged",
                       name);
    if (version != EM_MANIFEST_VERSION)
        return em_fail(EMBER_E_UNSUPPORTED, "%s: version %llu, this Ember reads version %d", name,
                       (unsigned long long)version, EM_MANIFEST_VERSION);
    return EMBER_OK;
}

ember_status em_manifest_parse(const char *name, const char *text, size_t size,
                               struct em_manifest *out)
{
    json_t *root;
    EM_TRY(em_json_parse(name, text, size, 0, &root));
    struct em_manifest m = {0};
    const ember_status status = parse_root(name, root, &m);
    json_decref(root);
    if (status == EMBER_OK)
        *out = m;
    else
        em_manifest_deinit(&m);
    return status;
}

ember_status em_manifest_read(const char *folder, struct em_manifest *out)
{
    char *path = em_path_join(folder, EM_MANIFEST_NAME);
    if (!path) return EMBER_E_NOMEM;
    struct em_buf text;
    em_buf_init(&text, 0);
    enum em_path_kind kind = EM_PATH_ABSENT;
    ember_status status = em_path_probe(path, &kind);
    if (status == EMBER_OK)
        status = kind ? em_read_file(path, MANIFEST_LIMIT, &text)
                      : em_fail(EMBER_E_FORMAT, "%s: missing", path);
    if (status == EMBER_OK)
        status = em_manifest_parse(path, text.data ? text.data : "", text.size, out);
    em_buf_deinit(&text);
    em_free(path);
    return status;
}

// Of a file whose content has changed: fails naming the tensor, where the file knows its tensors.
static ember_status find_damaged_tensor(const char *path)
{
    const size_t n = strlen(path), m = strlen(".safetensors");
    struct em_safetensors *file;
    if (n < m || strcmp(path + n - m, ".safetensors") != 0) return EMBER_OK;
    EM_TRY(em_safetensors_open(path, &file)); // also a header that is none any more
    const ember_status status = em_safetensors_verify(file);
    em_safetensors_close(file);
    return status;
}

static ember_status verify_one(const char *path, const struct em_manifest_file *f, bool content)
{
    struct stat s;
    if (em_io()->stat(path, &s) != 0)
        return errno == ENOENT ? em_fail(EMBER_E_FORMAT, "%s: missing", path)
                               : em_fail_errno(path, "cannot stat");
    if (!S_ISREG(s.st_mode) || (uint64_t)s.st_size != f->hash.bytes)
        return em_fail(EMBER_E_FORMAT, "%s: expected a file of %llu bytes, found %lld", path,
                       (unsigned long long)f->hash.bytes, (long long)s.st_size);
    if (!content) return EMBER_OK;
    struct em_file_hash found;
    EM_TRY(em_hash_file(path, false, &found));
    if (found.bytes == f->hash.bytes && found.xxh3 == f->hash.xxh3) return EMBER_OK;
    EM_TRY(find_damaged_tensor(path));
    return em_fail(EMBER_E_FORMAT,
                   "%s: expected XXH3 %016llx, found %016llx: the content has changed", path,
                   (unsigned long long)f->hash.xxh3, (unsigned long long)found.xxh3);
}

ember_status em_manifest_verify(const char *folder, const struct em_manifest *m, bool content)
{
    for (size_t i = 0; i < m->count; i++) {
        char *path = em_path_join(folder, m->files[i].name);
        if (!path) return EMBER_E_NOMEM;
        const ember_status status = verify_one(path, &m->files[i], content);
        em_free(path);
        EM_TRY(status);
    }
    return EMBER_OK;
}
