#include "support/fault_io.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/fault_priv.h"

enum { MOST_DESCRIPTORS = 1024, PATH_KEPT = 120 };

static const char *const kind_name[FAULT_CALLS] = {
    "open",    "read",      "pread",   "write",    "fsync", "close", "rename",
    "unlink",  "mkdir",     "rmdir",   "fstat",    "stat",  "mmap",  "ftruncate",
    "statvfs", "fdopendir", "readdir", "closedir", "flock",
};

struct traced {
    enum fault_call kind;
    char path[PATH_KEPT]; // its end
};

static struct fault_plan plan;
static size_t calls, calls_of[FAULT_CALLS], matched;
static bool struck, dark, counting;
static struct traced *trace;
static size_t traced_capacity;
static char descriptor[MOST_DESCRIPTORS][PATH_KEPT];
static const struct em_io *real;

void fault_need(bool true_here, const char *what)
{
    if (true_here) return;
    fprintf(stderr, "fault_io: %s: %s\n", what, strerror(errno));
    abort();
}

// The end of a path, which tells more than its beginning.
static void keep_path(char to[PATH_KEPT], const char *path)
{
    const size_t n = strlen(path), kept = n < PATH_KEPT ? n : PATH_KEPT - 1;
    memcpy(to, path + n - kept, kept);
    to[kept] = 0;
}

static void trace_call(enum fault_call kind, const char *path)
{
    if (calls >= traced_capacity) {
        traced_capacity = traced_capacity ? 2 * traced_capacity : 1024;
        trace = realloc(trace, traced_capacity * sizeof *trace);
        fault_need(trace, "no memory for the trace");
    }
    trace[calls].kind = kind;
    keep_path(trace[calls].path, path);
}

static const char *path_of(int fd)
{
    return fd >= 0 && fd < MOST_DESCRIPTORS ? descriptor[fd] : "";
}

static bool takes_space(enum fault_call kind)
{
    return kind == FAULT_WRITE || kind == FAULT_MKDIR || kind == FAULT_FSYNC ||
           kind == FAULT_RENAME;
}

static bool strike(int error)
{
    struck = true;
    errno = error ? error : EIO;
    return true;
}

// Whether this call is to fail; then errno is set.
static bool fault_at(enum fault_call kind, const char *path, bool creates)
{
    if (!counting) {
        if (kind == FAULT_MKDIR && strstr(path, plan.after)) matched++;
        if (matched < plan.nth) return false;
        counting = true;
    }
    trace_call(kind, path);
    calls++;
    calls_of[kind]++;
    if (calls == plan.kill_call && kind != FAULT_WRITE) raise(SIGKILL);
    if (plan.power_cut && calls >= plan.power_cut) struck = dark = true;
    if (dark) {
        errno = EIO;
        return true;
    }
    const bool interruptible =
        kind == FAULT_OPEN || kind == FAULT_READ || kind == FAULT_WRITE || kind == FAULT_FSYNC;
    if (interruptible && plan.interrupt_every && calls % plan.interrupt_every == 0) {
        errno = EINTR;
        return true;
    }
    if (plan.full_from && calls >= plan.full_from && (takes_space(kind) || creates))
        return strike(ENOSPC);
    if (plan.only_half) {
        if (calls == plan.fail_call) struck = true;
        return false;
    }
    const size_t of = plan.fail_of[kind], k = plan.fail_call;
    if ((k && calls == k) || (k && plan.for_good && calls > k) || (of && calls_of[kind] == of) ||
        (of && plan.for_good && calls_of[kind] > of))
        return strike(plan.error);
    return false;
}

static bool fault(enum fault_call kind, const char *path)
{
    return fault_at(kind, path, false);
}

// How many of n bytes this call does.
static size_t limited(size_t n, size_t most)
{
    if (plan.only_half && calls == plan.fail_call && n > 1) n /= 2;
    return most && n > most ? most : n;
}

static int fault_open(const char *path, int flags, mode_t mode)
{
    struct stat s;
    const bool creates = flags & O_CREAT && real->stat(path, &s) != 0;
    if (fault_at(FAULT_OPEN, path, creates)) return -1;
    const int fd = disk_open(path, flags, mode);
    if (fd >= 0 && fd < MOST_DESCRIPTORS) keep_path(descriptor[fd], path);
    return fd;
}

static ssize_t fault_read(int fd, void *p, size_t n)
{
    if (fault(FAULT_READ, path_of(fd))) return -1;
    return real->read(fd, p, limited(n, plan.most_read));
}

static ssize_t fault_pread(int fd, void *p, size_t n, off_t offset)
{
    if (fault(FAULT_PREAD, path_of(fd))) return -1;
    return real->pread(fd, p, limited(n, plan.most_read), offset);
}

static ssize_t fault_write(int fd, const void *p, size_t n)
{
    if (fault(FAULT_WRITE, path_of(fd))) return -1;
    disk_dirty(fd);
    if (plan.kill_call && calls == plan.kill_call) {
        (void)real->write(fd, p, n / 2);
        raise(SIGKILL);
    }
    return real->write(fd, p, limited(n, plan.most_written));
}

static int fault_ftruncate(int fd, off_t size)
{
    if (fault(FAULT_FTRUNCATE, path_of(fd))) return -1;
    disk_dirty(fd);
    return real->ftruncate(fd, size);
}

static int fault_fsync(int fd)
{
    return fault(FAULT_FSYNC, path_of(fd)) ? -1 : disk_fsync(fd);
}

static int fault_close(int fd)
{
    const bool fails = fault(FAULT_CLOSE, path_of(fd));
    const int error = errno, result = real->close(fd);
    errno = fails ? error : errno;
    return fails ? -1 : result;
}

static int fault_rename(const char *from, const char *to)
{
    return fault(FAULT_RENAME, to) ? -1 : disk_rename(from, to);
}

static int fault_unlink(const char *path)
{
    return fault(FAULT_UNLINK, path) ? -1 : disk_unlink(path);
}

static int fault_mkdir(const char *path, mode_t mode)
{
    return fault(FAULT_MKDIR, path) ? -1 : disk_mkdir(path, mode);
}

static int fault_rmdir(const char *path)
{
    return fault(FAULT_RMDIR, path) ? -1 : disk_rmdir(path);
}

static int fault_fstat(int fd, struct stat *s)
{
    return fault(FAULT_FSTAT, path_of(fd)) ? -1 : real->fstat(fd, s);
}

static int fault_stat(const char *path, struct stat *s)
{
    return fault(FAULT_STAT, path) ? -1 : real->stat(path, s);
}

static void *fault_mmap(size_t n, int fd)
{
    return fault(FAULT_MMAP, path_of(fd)) ? MAP_FAILED : real->mmap(n, fd);
}

static int fault_munmap(void *p, size_t n)
{
    return real->munmap(p, n);
}

static int fault_statvfs(const char *path, struct statvfs *s)
{
    return fault(FAULT_STATVFS, path) ? -1 : real->statvfs(path, s);
}

static DIR *fault_fdopendir(int fd)
{
    return fault(FAULT_FDOPENDIR, path_of(fd)) ? NULL : real->fdopendir(fd);
}

static struct dirent *fault_readdir(DIR *directory)
{
    return fault(FAULT_READDIR, path_of(dirfd(directory))) ? NULL : real->readdir(directory);
}

static int fault_closedir(DIR *directory)
{
    const bool fails = fault(FAULT_CLOSEDIR, path_of(dirfd(directory)));
    const int error = errno, result = real->closedir(directory);
    errno = fails ? error : errno;
    return fails ? -1 : result;
}

static int fault_flock(int fd, int operation)
{
    return fault(FAULT_FLOCK, path_of(fd)) ? -1 : real->flock(fd, operation);
}

static const struct em_io fault_io = {
    .open = fault_open,
    .read = fault_read,
    .pread = fault_pread,
    .write = fault_write,
    .fsync = fault_fsync,
    .close = fault_close,
    .rename = fault_rename,
    .unlink = fault_unlink,
    .mkdir = fault_mkdir,
    .rmdir = fault_rmdir,
    .fstat = fault_fstat,
    .stat = fault_stat,
    .mmap = fault_mmap,
    .munmap = fault_munmap,
    .ftruncate = fault_ftruncate,
    .statvfs = fault_statvfs,
    .fdopendir = fault_fdopendir,
    .readdir = fault_readdir,
    .closedir = fault_closedir,
    .flock = fault_flock,
};

static void free_trace(void)
{
    free(trace);
}

void faults_begin(const struct fault_plan *wanted)
{
    static bool registered;
    if (!registered) atexit(free_trace);
    registered = true;
    real = em_io_system();
    em_io_use(NULL);
    disk_begin();
    if (wanted->power_cut || wanted->lossy) disk_track();
    plan = *wanted;
    calls = matched = 0;
    memset(calls_of, 0, sizeof calls_of);
    struck = dark = false;
    counting = !plan.after;
    em_io_use(&fault_io);
}

size_t faults_calls(void)
{
    return calls;
}

bool faults_struck(void)
{
    return struck;
}

enum fault_call faults_kind(size_t k)
{
    return k > 0 && k <= calls ? trace[k - 1].kind : FAULT_CALLS;
}

const char *faults_describe(size_t k)
{
    static char text[PATH_KEPT + 64];
    if (k > 0 && k <= calls)
        snprintf(text, sizeof text, "call %zu (%s %s)", k, kind_name[trace[k - 1].kind],
                 trace[k - 1].path);
    else
        snprintf(text, sizeof text, "call %zu, which did not come", k);
    return text;
}

size_t faults_find(size_t from, enum fault_call kind, const char *part)
{
    for (size_t k = from ? from : 1; k <= calls; k++)
        if (trace[k - 1].kind == kind && strstr(trace[k - 1].path, part)) return k;
    return 0;
}

void faults_end(void)
{
    em_io_use(NULL);
    disk_forget();
}

void faults_power_up(uint64_t seed)
{
    em_io_use(NULL);
    disk_power_up(seed);
}
