#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/io_priv.h"

int em_io_open(const char *path, int flags, mode_t mode)
{
    int fd = -1;
    do
        fd = em_io()->open(path, flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static ssize_t read_some(int fd, void *p, size_t n)
{
    ssize_t got;
    do
        got = em_io()->read(fd, p, n);
    while (got < 0 && errno == EINTR);
    return got;
}

bool em_io_read_small(const char *path, char *text, size_t size)
{
    // Past the seam: these are facts about the machine, not files of Ember's, and a test that
    // counts or fails file operations should meet the same number of them everywhere.
    const struct em_io *io = em_io_system();
    const int fd = io->open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return false;
    size_t used = 0;
    ssize_t got = 1;
    while (used + 1 < size && got > 0) {
        got = io->read(fd, text + used, size - 1 - used);
        if (got > 0) used += (size_t)got;
    }
    (void)io->close(fd);
    text[used] = 0;
    return got >= 0;
}

// A device that reads without end, or may never answer. Terminals and /dev/null are what people
// give.
static bool is_endless(int fd, const struct stat *s)
{
    return S_ISBLK(s->st_mode) ||
           (S_ISCHR(s->st_mode) && s->st_rdev != makedev(1, 3) && !isatty(fd));
}

// Opens for reading; `size` is a hint (0 for pipes and /proc).
static ember_status open_to_read(const char *path, bool regular_only, int *fd, size_t *size)
{
    // Non-blocking, or opening a FIFO that nobody writes to would hang before its type is known.
    const int opened = em_io_open(path, O_RDONLY | O_NONBLOCK, 0);
    if (opened < 0) return em_fail_errno(path, "cannot open");
    struct stat s;
    ember_status status = EMBER_OK;
    if (em_io()->fstat(opened, &s) != 0)
        status = em_fail_errno(path, "cannot stat");
    else if (S_ISDIR(s.st_mode))
        status = em_fail(EMBER_E_IO, "%s: expected a file, found a directory", path);
    else if (regular_only && !S_ISREG(s.st_mode))
        status = em_fail(EMBER_E_IO, "%s: expected a regular file", path);
    else if (is_endless(opened, &s))
        status = em_fail(EMBER_E_IO, "%s: expected a file, found a device", path);
    else if (!S_ISREG(s.st_mode) && fcntl(opened, F_SETFL, O_RDONLY) != 0)
        status = em_fail_errno(path, "cannot read"); // a pipe whose writer is slow is waited for
    else if (S_ISREG(s.st_mode) && (uintmax_t)s.st_size > SIZE_MAX)
        status = em_fail(EMBER_E_NOMEM, "%s: does not fit into memory", path);
    if (status != EMBER_OK) {
        (void)em_io()->close(opened);
        return status;
    }
    *fd = opened;
    *size = S_ISREG(s.st_mode) ? (size_t)s.st_size : 0;
    return EMBER_OK;
}

static ember_status read_all(int fd, const char *path, size_t hint, size_t limit,
                             struct em_buf *out)
{
    size_t total = 0;
    for (;;) {
        // One byte past the hint shows the end without growing the buffer again.
        size_t want = hint > total ? hint - total + 1 : 64 * 1024;
        if (limit && want > limit - total + 1) want = limit - total + 1;
        EM_TRY(em_buf_reserve(out, want));
        const ssize_t got = read_some(fd, out->data + out->size, want);
        if (got < 0) return em_fail_errno(path, "cannot read");
        if (got == 0) break;
        total += (size_t)got;
        if (limit && total > limit)
            return em_fail(EMBER_E_RANGE, "%s: longer than the limit of %zu bytes", path, limit);
        out->size += (size_t)got;
    }
    out->data[out->size] = 0;
    return EMBER_OK;
}

ember_status em_read_file(const char *path, size_t limit, struct em_buf *out)
{
    int fd = -1;
    size_t hint = 0;
    EM_TRY(open_to_read(path, false, &fd, &hint));
    if (limit && hint > limit) {
        (void)em_io()->close(fd);
        return em_fail(EMBER_E_RANGE, "%s: has %zu bytes, the limit is %zu", path, hint, limit);
    }
    const size_t before = out->size;
    const ember_status status = read_all(fd, path, hint, limit, out);
    (void)em_io()->close(fd); // nothing was written: a failure loses nothing
    if (status != EMBER_OK && out->data) {
        out->size = before;
        out->data[before] = 0;
    }
    return status;
}

ember_status em_map_open(const char *path, struct em_map *map)
{
    int fd = -1;
    size_t size = 0;
    EM_TRY(open_to_read(path, true, &fd, &size));
    ember_status status = EMBER_OK;
    void *data = NULL;
    if (size > 0 && (data = em_io()->mmap(size, fd)) == MAP_FAILED)
        status = em_fail_errno(path, "cannot map");
    (void)em_io()->close(fd);
    if (status != EMBER_OK) return status;
    *map = (struct em_map){data, size};
    return EMBER_OK;
}

void em_map_forget(const struct em_map *map, const void *p, size_t n)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), base = (uintptr_t)map->data,
                    at = (uintptr_t)p, from = at & ~(page - 1),
                    to = (at + n + page - 1) & ~(page - 1);
    if (n < page || at < base || at - base > map->size || n > map->size - (at - base)) return;
    // The file is behind the pages, so dropping them loses nothing; that it fails, neither.
    (void)madvise((void *)from, to - from, MADV_DONTNEED);
}

void em_map_close(struct em_map *map)
{
    if (map->data) {
        void *data;
        memcpy(&data, &map->data,
               sizeof data); // munmap takes what mmap gave, which nobody may write to
        (void)em_io()->munmap(data, map->size);
    }
    *map = (struct em_map){0};
}
