#include "support/fault_io.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/io.h"
#include "base/rng.h"
#include "support/check.h"

enum { MOST_CHANGES = 4096, MOST_FILES = 512 };

enum change_kind { CREATED, RENAMED, UNLINKED, MADE, REMOVED };

// A change of names, and what it takes to undo it. Directories are held open: their names may
// change too.
struct change {
    enum change_kind kind;
    int directory, from_directory; // O_PATH
    dev_t device;
    ino_t inode; // of `directory`, whose fsync makes the change last
    char name[256], from[256];
    char saved[64]; // what the change removed, in the store; "" for nothing
    bool saved_directory;
};

// A file that was opened for writing, and the bytes of it that would survive.
struct file {
    int fd;
    dev_t device;
    ino_t inode;
    bool dirty;
    char *durable;
    size_t size;
};

static struct fault_plan plan;
static size_t calls, calls_of[FAULT_CALLS];
static bool struck, dark;
static struct change changes[MOST_CHANGES];
static size_t change_count;
static struct file files[MOST_FILES];
static size_t file_count;
static char store[1200];
static unsigned stored;

static const struct em_io *real;

// A fault of the test's own machinery, not of what is tested.
static void need(bool true_here, const char *what)
{
    if (true_here) return;
    fprintf(stderr, "fault_io: %s: %s\n", what, strerror(errno));
    abort();
}

// Whether this call is to fail; then errno is set.
static bool fault(enum fault_call kind)
{
    calls++;
    calls_of[kind]++;
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
    const size_t of = plan.fail_of[kind];
    if (calls == plan.fail_call || (of && calls_of[kind] == of) ||
        (of && plan.for_good && calls_of[kind] > of)) {
        struck = true;
        errno = plan.error ? plan.error : EIO;
        return true;
    }
    return false;
}

// Splits off the last component and opens the directory before it.
static int parent_of(const char *path, char name[256])
{
    char copy[4096];
    need(strlen(path) < sizeof copy, path);
    strcpy(copy, path);
    size_t n = strlen(copy);
    while (n > 1 && copy[n - 1] == '/')
        copy[--n] = 0;
    char *slash = strrchr(copy, '/');
    need(strlen(slash ? slash + 1 : copy) < 256, path);
    strcpy(name, slash ? slash + 1 : copy);
    if (slash) slash[slash == copy] = 0;
    return open(slash ? copy : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static struct change *add_change(enum change_kind kind, int directory, const char *name)
{
    need(change_count < MOST_CHANGES, "too many changes");
    struct change *c = &changes[change_count++];
    *c = (struct change){.kind = kind, .directory = directory, .from_directory = -1};
    snprintf(c->name, sizeof c->name, "%s", name);
    struct stat s;
    need(fstat(directory, &s) == 0, "fstat");
    c->device = s.st_dev;
    c->inode = s.st_ino;
    return c;
}

static void drop_change(struct change *c)
{
    close(c->directory);
    if (c->from_directory >= 0) close(c->from_directory);
    memmove(c, c + 1, (size_t)(changes + change_count - (c + 1)) * sizeof *c);
    change_count--;
}

// Keeps what `name` is now, as it is about to go.
static void save(int directory, const char *name, char saved[64], bool *is_directory)
{
    struct stat s;
    saved[0] = 0;
    *is_directory = false;
    if (fstatat(directory, name, &s, AT_SYMLINK_NOFOLLOW) != 0) return;
    if (S_ISDIR(s.st_mode)) {
        *is_directory = true; // it can only be empty
        return;
    }
    char path[1300];
    snprintf(saved, 64, "%u", stored++);
    snprintf(path, sizeof path, "%s/%s", store, saved);
    need(linkat(directory, name, AT_FDCWD, path, 0) == 0, "link");
}

static void undo(struct change *c)
{
    char path[1300];
    switch (c->kind) {
    case CREATED:
        need(unlinkat(c->directory, c->name, 0) == 0 || errno == ENOENT, "undo create");
        break;
    case MADE: {
        char tree[64];
        snprintf(tree, sizeof tree, "/proc/self/fd/%d", c->directory);
        need(em_remove_tree(test_path(tree, c->name)) == EMBER_OK, "undo mkdir");
        break;
    }
    case REMOVED: {
        // The same directory comes back, and not a new one: earlier changes hold it open.
        char kept[1300];
        snprintf(kept, sizeof kept, "%s/%s", store, c->saved);
        need(renameat(AT_FDCWD, kept, c->directory, c->name) == 0, "undo rmdir");
        return;
    }
    case RENAMED:
        need(renameat(c->directory, c->name, c->from_directory, c->from) == 0, "undo rename");
        if (c->saved_directory) need(mkdirat(c->directory, c->name, 0777) == 0, "undo rename");
        break;
    case UNLINKED: break;
    }
    if (c->saved[0]) {
        snprintf(path, sizeof path, "%s/%s", store, c->saved);
        need(linkat(AT_FDCWD, path, c->directory, c->name, 0) == 0, "restore");
    }
}

static struct file *find_file(int fd)
{
    struct stat s;
    if (fstat(fd, &s) != 0) return NULL;
    for (size_t i = 0; i < file_count; i++)
        if (files[i].device == s.st_dev && files[i].inode == s.st_ino) return &files[i];
    return NULL;
}

static void remember_durable(struct file *f)
{
    struct stat s;
    need(fstat(f->fd, &s) == 0, "fstat");
    free(f->durable);
    f->size = (size_t)s.st_size;
    f->durable = malloc(f->size + 1);
    need(f->durable && pread(f->fd, f->durable, f->size, 0) == (ssize_t)f->size, "read back");
    f->dirty = false;
}

static void track(const char *path)
{
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    need(fd >= 0, path);
    if (find_file(fd)) {
        close(fd);
        return;
    }
    struct stat s;
    need(file_count < MOST_FILES && fstat(fd, &s) == 0, "too many files");
    struct file *f = &files[file_count++];
    *f = (struct file){.fd = fd, .device = s.st_dev, .inode = s.st_ino};
    remember_durable(f);
}

static int fault_open(const char *path, int flags, mode_t mode)
{
    if (fault(FAULT_OPEN)) return -1;
    const bool writes = (flags & O_ACCMODE) != O_RDONLY;
    struct stat s;
    const bool existed = stat(path, &s) == 0;
    if (writes && existed && S_ISREG(s.st_mode)) track(path); // before O_TRUNC
    const int fd = real->open(path, flags, mode);
    if (fd < 0 || !writes) return fd;
    if (!existed) {
        char name[256];
        const int directory = parent_of(path, name);
        add_change(CREATED, directory, name);
        track(path);
    } else if (flags & O_TRUNC && find_file(fd)) {
        find_file(fd)->dirty = true;
    }
    return fd;
}

static ssize_t fault_read(int fd, void *p, size_t n)
{
    if (fault(FAULT_READ)) return -1;
    return real->read(fd, p, plan.most_read && n > plan.most_read ? plan.most_read : n);
}

static ssize_t fault_pread(int fd, void *p, size_t n, off_t offset)
{
    if (fault(FAULT_PREAD)) return -1;
    return real->pread(fd, p, plan.most_read && n > plan.most_read ? plan.most_read : n, offset);
}

static ssize_t fault_write(int fd, const void *p, size_t n)
{
    if (fault(FAULT_WRITE)) return -1;
    struct file *f = find_file(fd);
    if (f) f->dirty = true;
    return real->write(fd, p, plan.most_written && n > plan.most_written ? plan.most_written : n);
}

static int fault_ftruncate(int fd, off_t size)
{
    if (fault(FAULT_FTRUNCATE)) return -1;
    struct file *f = find_file(fd);
    if (f) f->dirty = true;
    return real->ftruncate(fd, size);
}

// What is fsynced lasts; the disk itself is not troubled.
static int fault_fsync(int fd)
{
    if (fault(FAULT_FSYNC)) return -1;
    struct stat s;
    if (fstat(fd, &s) != 0) return -1;
    if (S_ISDIR(s.st_mode)) {
        for (size_t i = change_count; i-- > 0;)
            if (changes[i].device == s.st_dev && changes[i].inode == s.st_ino)
                drop_change(&changes[i]);
    } else if (find_file(fd)) {
        remember_durable(find_file(fd));
    }
    return 0;
}

static int fault_close(int fd)
{
    const bool fails = fault(FAULT_CLOSE);
    const int error = errno, result = real->close(fd);
    errno = fails ? error : errno;
    return fails ? -1 : result;
}

static int fault_rename(const char *from, const char *to)
{
    if (fault(FAULT_RENAME)) return -1;
    char name[256], from_name[256], saved[64];
    bool saved_directory;
    const int directory = parent_of(to, name), from_directory = parent_of(from, from_name);
    if (directory < 0 || from_directory < 0) {
        const int error = errno;
        if (directory >= 0) close(directory);
        if (from_directory >= 0) close(from_directory);
        errno = error;
        return -1;
    }
    save(directory, name, saved, &saved_directory);
    const int result = real->rename(from, to);
    if (result != 0) {
        const int error = errno;
        close(directory);
        close(from_directory);
        errno = error;
        return result;
    }
    struct change *c = add_change(RENAMED, directory, name);
    c->from_directory = from_directory;
    memcpy(c->from, from_name, sizeof c->from);
    memcpy(c->saved, saved, sizeof c->saved);
    c->saved_directory = saved_directory;
    return 0;
}

// unlink and mkdir: one name in one directory.
static int change_name(enum change_kind kind, const char *path, int (*call)(const char *path))
{
    char name[256], saved[64] = "";
    bool saved_directory = false;
    const int directory = parent_of(path, name);
    if (directory < 0) return -1;
    struct stat s;
    if (kind == UNLINKED && fstatat(directory, name, &s, AT_SYMLINK_NOFOLLOW) == 0 &&
        !S_ISDIR(s.st_mode))
        save(directory, name, saved, &saved_directory);
    const int result = call(path), error = errno;
    if (result != 0) {
        close(directory);
        errno = error;
        return result;
    }
    struct change *c = add_change(kind, directory, name);
    memcpy(c->saved, saved, sizeof c->saved);
    return 0;
}

static int fault_unlink(const char *path)
{
    if (fault(FAULT_UNLINK)) return -1;
    return change_name(UNLINKED, path, real->unlink);
}

static int make_any(const char *path)
{
    return real->mkdir(path, 0777);
}

static int fault_mkdir(const char *path, mode_t mode)
{
    (void)mode;
    if (fault(FAULT_MKDIR)) return -1;
    return change_name(MADE, path, make_any);
}

static bool is_empty_directory(int parent, const char *name)
{
    const int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d) return false;
    size_t entries = 0;
    while (readdir(d))
        entries++;
    closedir(d);
    if (entries > 2) errno = ENOTEMPTY;
    return entries == 2; // "." and ".."
}

// Put aside instead of removed, so that it can come back.
static int fault_rmdir(const char *path)
{
    if (fault(FAULT_RMDIR)) return -1;
    char name[256], kept[1300], saved[64];
    const int directory = parent_of(path, name);
    if (directory < 0) return -1;
    snprintf(saved, sizeof saved, "%u", stored++);
    snprintf(kept, sizeof kept, "%s/%s", store, saved);
    if (!is_empty_directory(directory, name) || renameat(directory, name, AT_FDCWD, kept) != 0) {
        const int error = errno;
        close(directory);
        errno = error;
        return -1;
    }
    struct change *c = add_change(REMOVED, directory, name);
    memcpy(c->saved, saved, sizeof c->saved);
    return 0;
}

static int fault_fstat(int fd, struct stat *s)
{
    return fault(FAULT_FSTAT) ? -1 : real->fstat(fd, s);
}

static int fault_stat(const char *path, struct stat *s)
{
    return fault(FAULT_STAT) ? -1 : real->stat(path, s);
}

static void *fault_mmap(size_t n, int fd)
{
    return fault(FAULT_MMAP) ? MAP_FAILED : real->mmap(n, fd);
}

static int fault_munmap(void *p, size_t n)
{
    return real->munmap(p, n);
}

static int fault_statvfs(const char *path, struct statvfs *s)
{
    return fault(FAULT_STATVFS) ? -1 : real->statvfs(path, s);
}

static const struct em_io fault_io = {
    fault_open,   fault_read,   fault_pread,     fault_write,   fault_fsync, fault_close,
    fault_rename, fault_unlink, fault_mkdir,     fault_rmdir,   fault_fstat, fault_stat,
    fault_mmap,   fault_munmap, fault_ftruncate, fault_statvfs,
};

void faults_begin(const struct fault_plan *wanted)
{
    real = em_io_system();
    em_io_use(NULL);
    if (!store[0]) snprintf(store, sizeof store, "%s", test_directory());
    plan = *wanted;
    calls = 0;
    memset(calls_of, 0, sizeof calls_of);
    struck = dark = false;
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

void faults_end(void)
{
    em_io_use(NULL);
    while (change_count > 0)
        drop_change(&changes[change_count - 1]);
    for (size_t i = 0; i < file_count; i++) {
        close(files[i].fd);
        free(files[i].durable);
    }
    file_count = 0;
}

// How many of the first `now` bytes are those that were made durable: nobody has written to them
// since.
static size_t untouched(const struct file *f, size_t now)
{
    const unsigned char *durable = (const unsigned char *)f->durable;
    unsigned char byte;
    size_t n = 0;
    while (n < now && n < f->size && pread(f->fd, &byte, 1, (off_t)n) == 1 && byte == durable[n])
        n++;
    return n;
}

// What the disk may hold of a file whose new bytes were under way.
static void lose_bytes(struct file *f, struct em_rng *rng)
{
    struct stat s;
    need(fstat(f->fd, &s) == 0, "fstat");
    const size_t now = (size_t)s.st_size, safe = untouched(f, now);
    const size_t kept = safe + (size_t)em_rng_below(rng, now - safe + 1);
    switch (em_rng_below(rng, 3)) {
    case 0: // none of the new
        need(ftruncate(f->fd, 0) == 0 && pwrite(f->fd, f->durable, f->size, 0) == (ssize_t)f->size,
             "lose");
        break;
    case 1: // the first of the new
        need(ftruncate(f->fd, (off_t)kept) == 0, "lose");
        break;
    default: // the new length, and zeros where blocks were not written
        need(ftruncate(f->fd, (off_t)kept) == 0 && ftruncate(f->fd, (off_t)now) == 0, "lose");
    }
}

void faults_power_up(uint64_t seed)
{
    em_io_use(NULL);
    struct em_rng rng;
    em_rng_seed(&rng, seed, 0);
    size_t kept = seed == 0   ? change_count
                  : seed == 1 ? 0
                              : (size_t)em_rng_below(&rng, change_count + 1);
    for (size_t i = change_count; i-- > kept;)
        undo(&changes[i]);
    for (size_t i = 0; i < file_count; i++)
        if (files[i].dirty) lose_bytes(&files[i], &rng);
    faults_end();
}
