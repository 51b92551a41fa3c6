// Names and directories.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/io_priv.h"

enum { DEEPEST_TREE = 128 };

const char *em_path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

char *em_path_join(const char *a, const char *b)
{
    const size_t n = strlen(a);
    return em_asprintf("%s%s%s", a, n == 0 || a[n - 1] == '/' ? "" : "/", b);
}

ember_status em_path_probe(const char *path, enum em_path_kind *kind)
{
    struct stat s;
    if (em_io()->stat(path, &s) == 0)
        *kind = S_ISREG(s.st_mode)   ? EM_PATH_FILE
                : S_ISDIR(s.st_mode) ? EM_PATH_DIRECTORY
                                     : EM_PATH_OTHER;
    else if (errno == ENOENT || errno == ENOTDIR)
        *kind = EM_PATH_ABSENT;
    else
        return em_fail_errno(path, "cannot stat");
    return EMBER_OK;
}

ember_status em_path_probe_in(const char *directory, const char *name, enum em_path_kind *kind)
{
    char *path = em_path_join(directory, name);
    if (!path) return EMBER_E_NOMEM;
    const ember_status status = em_path_probe(path, kind);
    em_free(path);
    return status;
}

bool em_path_exists(const char *path)
{
    struct stat s;
    return em_io()->stat(path, &s) == 0;
}

bool em_path_is_directory(const char *path)
{
    struct stat s;
    return em_io()->stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

ember_status em_sync_directory(const char *path)
{
    const int fd = em_io_open(path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return em_fail_errno(path, "cannot open the directory");
    int failed;
    do
        failed = em_io()->fsync(fd);
    while (failed && errno == EINTR);
    const ember_status status = failed && errno != EINVAL // a file system without such an operation
                                    ? em_fail_errno(path, "cannot fsync the directory")
                                    : EMBER_OK;
    (void)em_io()->close(fd);
    return status;
}

// `path` is made, its parent exists. Once it is known to be new, its name is made to last.
static ember_status make_one(char *path)
{
    if (em_io()->mkdir(path, 0777) != 0) {
        const int error = errno;
        if (em_path_is_directory(path)) return EMBER_OK; // also when it came into being just now
        errno = error;
        return em_fail_errno(path, "cannot make the directory");
    }
    char *slash = strrchr(path, '/');
    if (!slash) return em_sync_directory(".");
    if (slash == path) return em_sync_directory("/");
    *slash = 0;
    const ember_status status = em_sync_directory(path);
    *slash = '/';
    return status;
}

ember_status em_make_directories(const char *path)
{
    char *copy = em_strdup(path);
    if (!copy) return EMBER_E_NOMEM;
    size_t n = strlen(copy);
    while (n > 1 && copy[n - 1] == '/')
        copy[--n] = 0;
    ember_status status = EMBER_OK;
    for (char *p = copy + 1; status == EMBER_OK && n > 0; p++) {
        if (*p && (*p != '/' || p[-1] == '/')) continue;
        const char kept = *p;
        *p = 0;
        // Looked at first: a parent that exists may stand on a file system that refuses mkdir
        // (read-only).
        if (!em_path_is_directory(copy)) status = make_one(copy);
        *p = kept;
        if (!kept) break;
    }
    em_free(copy);
    return status;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void em_names_free(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        em_free(names[i]);
    em_free(names);
}

static ember_status read_names(DIR *directory, const char *path, char ***names, size_t *count)
{
    size_t capacity = 0;
    for (;;) {
        errno = 0;
        const struct dirent *entry = em_io()->readdir(directory);
        if (!entry) return errno ? em_fail_errno(path, "cannot read the directory") : EMBER_OK;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        EM_TRY(em_grow(names, &capacity, *count + 1, sizeof **names));
        char *name = em_strdup(entry->d_name);
        if (!name) return EMBER_E_NOMEM;
        (*names)[(*count)++] = name;
    }
}

static ember_status list(const char *path, int flags, char ***names, size_t *count)
{
    const int fd = em_io_open(path, O_RDONLY | O_DIRECTORY | flags, 0);
    if (fd < 0) return em_fail_errno(path, "cannot open the directory");
    DIR *directory = em_io()->fdopendir(fd);
    if (!directory) {
        const ember_status status = em_fail_errno(path, "cannot read the directory");
        (void)em_io()->close(fd);
        return status;
    }
    char **found = NULL;
    size_t n = 0;
    const ember_status status = read_names(directory, path, &found, &n);
    (void)em_io()->closedir(directory);
    if (status != EMBER_OK) {
        em_names_free(found, n);
        return status;
    }
    if (n > 1) qsort(found, n, sizeof *found, by_bytes);
    *names = found;
    *count = n;
    return EMBER_OK;
}

ember_status em_list_directory(const char *path, char ***names, size_t *count)
{
    return list(path, 0, names, count);
}

static ember_status remove_at(const char *path, int depth)
{
    if (em_io()->unlink(path) == 0 || errno == ENOENT) return EMBER_OK;
    if (errno != EISDIR && errno != EPERM)
        return em_fail_errno(path, "cannot remove"); // EPERM: POSIX's word for it
    if (depth == DEEPEST_TREE) return em_fail(EMBER_E_IO, "%s: too deep to remove", path);
    char **names;
    size_t count;
    EM_TRY(list(path, O_NOFOLLOW, &names, &count));
    ember_status status = EMBER_OK;
    for (size_t i = 0; i < count && status == EMBER_OK; i++) {
        char *child = em_path_join(path, names[i]);
        status = child ? remove_at(child, depth + 1) : EMBER_E_NOMEM;
        em_free(child);
    }
    em_names_free(names, count);
    if (status == EMBER_OK && em_io()->rmdir(path) != 0 && errno != ENOENT)
        status = em_fail_errno(path, "cannot remove the directory");
    return status;
}

ember_status em_remove_tree(const char *path)
{
    return remove_at(path, 0);
}

ember_status em_free_space(const char *path, uint64_t *bytes)
{
    struct statvfs s;
    int failed;
    do
        failed = em_io()->statvfs(path, &s);
    while (failed && errno == EINTR);
    if (failed) return em_fail_errno(path, "cannot ask for free space");
    if (__builtin_mul_overflow((uint64_t)s.f_bavail, (uint64_t)s.f_frsize, bytes))
        *bytes = UINT64_MAX;
    return EMBER_OK;
}
