// Durable replacement of files, and logs that are appended to.
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/io_priv.h"

enum { BUFFER_BYTES = 256 * 1024 };

ember_status em_io_write_all(int fd, const char *path, const void *p, size_t n)
{
    const char *bytes = p;
    while (n > 0) {
        const ssize_t written = em_io()->write(fd, bytes, n);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return em_fail_errno(path, "cannot write");
        if (written == 0) { // POSIX leaves it open; looping on it would not end
            errno = ENOSPC;
            return em_fail_errno(path, "cannot write");
        }
        bytes += written;
        n -= (size_t)written;
    }
    return EMBER_OK;
}

static ember_status sync_file(int fd, const char *path)
{
    int failed;
    do
        failed = em_io()->fsync(fd);
    while (failed && errno == EINTR);
    return failed ? em_fail_errno(path, "cannot fsync") : EMBER_OK;
}

// Linux has released the descriptor when close returns EINTR: a second try could close somebody
// else's.
static ember_status close_file(int fd, const char *path)
{
    if (em_io()->close(fd) != 0 && errno != EINTR) return em_fail_errno(path, "cannot close");
    return EMBER_OK;
}

// Cuts the path and mends it: behind the rename nothing may fail for want of memory.
static ember_status sync_parent(char *path)
{
    char *base = path + (em_path_base(path) - path);
    if (base == path) return em_sync_directory(".");
    const char first = *base;
    *base = 0;
    const ember_status status = em_sync_directory(path);
    *base = first;
    return status;
}

// The mode for the new file: that of the file it replaces, as a private file should stay so. A
// device or a pipe would be lost under the rename.
static ember_status mode_for(const char *path, mode_t *mode)
{
    struct stat s;
    *mode = 0666;
    if (em_io()->stat(path, &s) != 0)
        return errno == ENOENT ? EMBER_OK : em_fail_errno(path, "cannot stat");
    if (S_ISDIR(s.st_mode))
        return em_fail(EMBER_E_IO, "%s: expected a file, found a directory", path);
    if (!S_ISREG(s.st_mode))
        return em_fail(EMBER_E_IO, "%s: is not a regular file, so it is not replaced", path);
    *mode = s.st_mode & 0777;
    return EMBER_OK;
}

ember_status em_file_create(const char *path, struct em_file *f)
{
    static atomic_uint serial;
    mode_t mode;
    EM_TRY(mode_for(path, &mode));
    struct em_file made = {.fd = -1, .path = em_strdup(path), .buffer = em_alloc(BUFFER_BYTES)};
    ember_status status = made.path && made.buffer ? EMBER_OK : EMBER_E_NOMEM;
    while (status == EMBER_OK && made.fd < 0) {
        em_free(made.temporary);
        made.temporary =
            em_asprintf("%s.%ld-%u.tmp", path, (long)getpid(), atomic_fetch_add(&serial, 1));
        if (!made.temporary) {
            status = EMBER_E_NOMEM;
            break;
        }
        made.fd = em_io_open(made.temporary, O_WRONLY | O_CREAT | O_EXCL, mode);
        if (made.fd < 0 && errno != EEXIST) status = em_fail_errno(made.temporary, "cannot create");
    }
    if (status != EMBER_OK) {
        em_free(made.path);
        em_free(made.temporary);
        em_free(made.buffer);
        return status;
    }
    *f = made;
    return EMBER_OK;
}

static ember_status flush(struct em_file *f)
{
    const size_t n = f->buffered;
    f->buffered = 0;
    return em_io_write_all(f->fd, f->temporary, f->buffer, n);
}

ember_status em_file_write(struct em_file *f, const void *p, size_t n)
{
    if (n == 0) return EMBER_OK;
    if (n > BUFFER_BYTES - f->buffered) {
        EM_TRY(flush(f));
        if (n >= BUFFER_BYTES) {
            EM_TRY(em_io_write_all(f->fd, f->temporary, p, n));
            f->written += n;
            return EMBER_OK;
        }
    }
    memcpy(f->buffer + f->buffered, p, n);
    f->buffered += n;
    f->written += n;
    return EMBER_OK;
}

ember_status em_file_printf(struct em_file *f, const char *format, ...)
{
    char text[512], *longer = NULL;
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n < 0) return em_fail(EMBER_E_INTERNAL, "text that cannot be formatted");
    if ((size_t)n >= sizeof text) {
        longer = em_alloc((size_t)n + 1);
        if (!longer) return EMBER_E_NOMEM;
        va_start(args, format);
        (void)vsnprintf(longer, (size_t)n + 1, format, args);
        va_end(args);
    }
    const ember_status status = em_file_write(f, longer ? longer : text, (size_t)n);
    em_free(longer);
    return status;
}

static void forget(struct em_file *f)
{
    em_free(f->path);
    em_free(f->temporary);
    em_free(f->buffer);
    *f = (struct em_file){.fd = -1};
}

void em_file_abort(struct em_file *f)
{
    if (!f->path) return;
    if (f->fd >= 0) (void)em_io()->close(f->fd);
    (void)em_io()->unlink(f->temporary);
    forget(f);
}

static ember_status commit(struct em_file *f)
{
    EM_TRY(flush(f));
    EM_TRY(sync_file(f->fd, f->temporary));
    const int fd = f->fd;
    f->fd = -1;
    EM_TRY(close_file(fd, f->temporary));
    if (em_io()->rename(f->temporary, f->path) != 0)
        return em_fail_errno(f->path, "cannot replace");
    return sync_parent(f->path);
}

ember_status em_file_commit(struct em_file *f)
{
    const ember_status status = commit(f);
    if (status != EMBER_OK)
        em_file_abort(f);
    else
        forget(f);
    return status;
}

ember_status em_write_file(const char *path, const void *p, size_t n)
{
    struct em_file f;
    EM_TRY(em_file_create(path, &f));
    const ember_status status = em_file_write(&f, p, n);
    if (status != EMBER_OK) {
        em_file_abort(&f);
        return status;
    }
    return em_file_commit(&f);
}

ember_status em_append_open(const char *path, struct em_append *a)
{
    char *copy = em_strdup(path);
    if (!copy) return EMBER_E_NOMEM;
    const int fd = em_io_open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd < 0) {
        em_free(copy);
        return em_fail_errno(path, "cannot open for appending");
    }
    *a = (struct em_append){.fd = fd, .path = copy};
    return EMBER_OK;
}

ember_status em_append_write(struct em_append *a, const void *p, size_t n)
{
    return em_io_write_all(a->fd, a->path, p, n);
}

ember_status em_append_truncate(struct em_append *a, uint64_t size)
{
    if (size > INT64_MAX)
        return em_fail(EMBER_E_RANGE, "%s: cannot have %llu bytes", a->path,
                       (unsigned long long)size);
    struct stat s;
    if (em_io()->fstat(a->fd, &s) != 0) return em_fail_errno(a->path, "cannot stat");
    if ((uint64_t)s.st_size < size) // growing would fill the gap with zeros
        return em_fail(EMBER_E_FORMAT, "%s: expected at least %llu bytes, found %llu", a->path,
                       (unsigned long long)size, (unsigned long long)s.st_size);
    int failed;
    do
        failed = em_io()->ftruncate(a->fd, (off_t)size);
    while (failed && errno == EINTR);
    return failed ? em_fail_errno(a->path, "cannot truncate") : EMBER_OK;
}

ember_status em_append_sync(struct em_append *a)
{
    EM_TRY(sync_file(a->fd, a->path));
    if (!a->named) EM_TRY(sync_parent(a->path));
    a->named = true;
    return EMBER_OK;
}

void em_append_close(struct em_append *a)
{
    if (!a->path) return;
    (void)em_io()->close(a->fd);
    em_free(a->path);
    *a = (struct em_append){.fd = -1};
}
