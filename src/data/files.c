#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "data/files.h"

enum { MAX_DEPTH = 64 };

void em_file_list_deinit(struct em_file_list *list)
{
    em_names_free(list->paths, list->count);
    *list = (struct em_file_list){0};
}

// Takes `path`.
static ember_status add(struct em_file_list *list, char *path)
{
    if (!path) return EMBER_E_NOMEM;
    const ember_status status =
        em_grow(&list->paths, &list->capacity, list->count + 1, sizeof *list->paths);
    if (status != EMBER_OK) {
        em_free(path);
        return status;
    }
    list->paths[list->count++] = path;
    return EMBER_OK;
}

enum kind { MISSING, FILE_KIND, FOLDER, LINK, SPECIAL };

// What is at `path`, by opening it: without following a link, and without waiting for a pipe's
// other end.
static ember_status look(const char *path, bool follow, enum kind *kind)
{
    int fd;
    do
        fd = em_io()->open(
            path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (follow ? 0 : O_NOFOLLOW), 0);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        const int error = errno;
        *kind = error == ELOOP && !follow ? LINK : error == ENXIO ? SPECIAL : MISSING;
        if (*kind != MISSING || error == ENOENT || error == ENOTDIR) return EMBER_OK;
        return em_fail_errno(path, "cannot open");
    }
    struct stat s;
    const ember_status status =
        em_io()->fstat(fd, &s) == 0 ? EMBER_OK : em_fail_errno(path, "cannot stat");
    em_io()->close(fd);
    EM_TRY(status);
    *kind = S_ISREG(s.st_mode) ? FILE_KIND : S_ISDIR(s.st_mode) ? FOLDER : SPECIAL;
    return EMBER_OK;
}

static ember_status walk(const char *folder, int depth, struct em_file_list *list);

// Takes `path`, which lies in a folder that is walked.
static ember_status walk_entry(char *path, int depth, struct em_file_list *list)
{
    if (!path) return EMBER_E_NOMEM;
    enum kind kind = MISSING;
    ember_status status = look(path, false, &kind);
    if (status == EMBER_OK && kind == FILE_KIND) return add(list, path);
    if (status == EMBER_OK && kind == FOLDER) status = walk(path, depth + 1, list);
    if (kind == LINK) list->links++;
    if (kind == SPECIAL) list->special++;
    em_free(path);
    return status;
}

static ember_status walk(const char *folder, int depth, struct em_file_list *list)
{
    if (depth > MAX_DEPTH)
        return em_fail(EMBER_E_RANGE, "%s: folders nest deeper than %d", folder, MAX_DEPTH);
    char **names;
    size_t count;
    EM_TRY(em_list_directory(folder, &names, &count));
    ember_status status = EMBER_OK;
    for (size_t i = 0; i < count && status == EMBER_OK; i++) {
        if (names[i][0] == '.')
            list->hidden++;
        else
            status = walk_entry(em_path_join(folder, names[i]), depth, list);
    }
    em_names_free(names, count);
    return status;
}

static ember_status expand_folder(const char *path, struct em_file_list *list)
{
    const size_t before = list->count;
    EM_TRY(walk(path, 0, list));
    if (list->count > before) return EMBER_OK;
    return em_fail(EMBER_E_FORMAT,
                   "%s: a folder without files to read (%zu symbolic links and %zu hidden names "
                   "are passed over)",
                   path, list->links, list->hidden);
}

static bool is_pattern(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (text[i] == '*' || text[i] == '?' || text[i] == '[') return true;
    return false;
}

// Matches of `pattern` below `folder` ("" for the current one, "/" for the root).
static ember_status match(const char *folder, const char *pattern, struct em_file_list *list)
{
    while (*pattern == '/')
        pattern++;
    const size_t n = strcspn(pattern, "/");
    const char *rest = pattern + n;
    char *component = em_strndup(pattern, n), **names = NULL;
    size_t count = 0;
    ember_status status = component ? EMBER_OK : EMBER_E_NOMEM;
    const bool wild = is_pattern(pattern, n);
    if (status == EMBER_OK && wild && (*folder == '\0' || em_path_is_directory(folder)))
        status = em_list_directory(*folder ? folder : ".", &names, &count);
    for (size_t i = 0; status == EMBER_OK && i < (wild ? count : 1); i++) {
        const char *name = wild ? names[i] : component;
        if (wild && fnmatch(component, name, FNM_PERIOD) != 0) continue;
        char *path = *folder ? em_path_join(folder, name) : em_strdup(name);
        enum kind kind = MISSING;
        status = path ? look(path, true, &kind) : EMBER_E_NOMEM;
        if (status != EMBER_OK)
            ;
        else if (*rest && kind == FOLDER)
            status = match(path, rest, list);
        else if (!*rest && kind == FOLDER)
            status = walk(path, 0, list);
        else if (!*rest && kind == FILE_KIND) {
            status = add(list, path);
            path = NULL;
        }
        em_free(path);
    }
    em_names_free(names, count);
    em_free(component);
    return status;
}

ember_status em_files_expand(const char *path, struct em_file_list *list)
{
    enum kind kind;
    EM_TRY(look(path, true, &kind));
    if (kind == FILE_KIND) return add(list, em_strdup(path));
    if (kind == FOLDER) return expand_folder(path, list);
    if (kind == SPECIAL)
        return em_fail(EMBER_E_FORMAT,
                       "%s: expected a file or a folder, found a device, pipe or socket", path);
    if (!is_pattern(path, strlen(path))) {
        errno = ENOENT;
        return em_fail_errno(path, "cannot open");
    }
    const size_t before = list->count;
    EM_TRY(match(*path == '/' ? "/" : "", path, list));
    if (list->count == before) return em_fail(EMBER_E_FORMAT, "%s: no file matches", path);
    return EMBER_OK;
}

char *em_domain_name(const char *path)
{
    size_t end = strlen(path);
    for (;;) {
        while (end > 1 && path[end - 1] == '/')
            end--;
        size_t begin = end;
        while (begin > 0 && path[begin - 1] != '/')
            begin--;
        if (begin == end) return em_strdup("data"); // the root
        if (begin == 0 || !is_pattern(path + begin, end - begin))
            return em_strndup(path + begin, end - begin);
        end = begin;
    }
}
