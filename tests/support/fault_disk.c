#include "support/fault_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static struct change changes[MOST_CHANGES];
static size_t change_count;
static struct file files[MOST_FILES];
static size_t file_count;
static char store[1200];
static unsigned stored;

static bool tracking;
static const struct em_io *real;

// Splits off the last component and opens the directory before it.
static int parent_of(const char *path, char name[256])
{
    char copy[4096];
    fault_need(strlen(path) < sizeof copy, path);
    strcpy(copy, path);
    size_t n = strlen(copy);
    while (n > 1 && copy[n - 1] == '/')
        copy[--n] = 0;
    char *slash = strrchr(copy, '/');
    fault_need(strlen(slash ? slash + 1 : copy) < 256, path);
    strcpy(name, slash ? slash + 1 : copy);
    if (slash) slash[slash == copy] = 0;
    return open(slash ? copy : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static struct change *add_change(enum change_kind kind, int directory, const char *name)
{
    fault_need(change_count < MOST_CHANGES, "too many changes");
    struct change *c = &changes[change_count++];
    *c = (struct change){.kind = kind, .directory = directory, .from_directory = -1};
    snprintf(c->name, sizeof c->name, "%s", name);
    struct stat s;
    fault_need(fstat(directory, &s) == 0, "fstat");
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
    fault_need(linkat(directory, name, AT_FDCWD, path, 0) == 0, "link");
}

static void undo(struct change *c)
{
    char path[1300];
    switch (c->kind) {
    case CREATED:
        fault_need(unlinkat(c->directory, c->name, 0) == 0 || errno == ENOENT, "undo create");
        break;
    case MADE: {
        char tree[64];
        snprintf(tree, sizeof tree, "/proc/self/fd/%d", c->directory);
        fault_need(em_remove_tree(test_path(tree, c->name)) == EMBER_OK, "undo mkdir");
        break;
    }
    case REMOVED: {
        // The same directory comes back, and not a new one: earlier changes hold it open.
        char kept[1300];
        snprintf(kept, sizeof kept, "%s/%s", store, c->saved);
        fault_need(renameat(AT_FDCWD, kept, c->directory, c->name) == 0, "undo rmdir");
        return;
    }
    case RENAMED:
        fault_need(renameat(c->directory, c->name, c->from_directory, c->from) == 0, "undo rename");
        if (c->saved_directory)
            fault_need(mkdirat(c->directory, c->name, 0777) == 0, "undo rename");
        break;
    case UNLINKED: break;
    }
    if (c->saved[0]) {
        snprintf(path, sizeof path, "%s/%s", store, c->saved);
        fault_need(linkat(AT_FDCWD, path, c->directory, c->name, 0) == 0, "restore");
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
    fault_need(fstat(f->fd, &s) == 0, "fstat");
    free(f->durable);
    f->size = (size_t)s.st_size;
    f->durable = malloc(f->size + 1);
    fault_need(f->durable && pread(f->fd, f->durable, f->size, 0) == (ssize_t)f->size, "read back");
    f->dirty = false;
}

static void track(const char *path)
{
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    fault_need(fd >= 0, path);
    if (find_file(fd)) {
        close(fd);
        return;
    }
    struct stat s;
    fault_need(file_count < MOST_FILES && fstat(fd, &s) == 0, "too many files");
    struct file *f = &files[file_count++];
    *f = (struct file){.fd = fd, .device = s.st_dev, .inode = s.st_ino};
    remember_durable(f);
}

int disk_open(const char *path, int flags, mode_t mode)
{
    if (!tracking) return real->open(path, flags, mode);
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

void disk_dirty(int fd)
{
    struct file *f = tracking ? find_file(fd) : NULL;
    if (f) f->dirty = true;
}

// What is fsynced lasts; the disk itself is not troubled.
int disk_fsync(int fd)
{
    struct stat s;
    if (!tracking) return 0;
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

int disk_rename(const char *from, const char *to)
{
    if (!tracking) return real->rename(from, to);
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

int disk_unlink(const char *path)
{
    if (!tracking) return real->unlink(path);
    return change_name(UNLINKED, path, real->unlink);
}

static int make_any(const char *path)
{
    return real->mkdir(path, 0777);
}

int disk_mkdir(const char *path, mode_t mode)
{
    if (!tracking) return real->mkdir(path, mode);
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
int disk_rmdir(const char *path)
{
    if (!tracking) return real->rmdir(path);
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

static void lose_blocks(const struct file *f, size_t from, size_t to, struct em_rng *rng)
{
    static const char zeros[512];
    for (size_t at = from, n; at < to; at += n) {
        n = sizeof zeros - at % sizeof zeros;
        if (n > to - at) n = to - at;
        if (em_rng_below(rng, 2))
            fault_need(pwrite(f->fd, zeros, n, (off_t)at) == (ssize_t)n, "lose");
    }
}

// What the disk may hold of a file whose new bytes were under way.
static void lose_bytes(struct file *f, struct em_rng *rng)
{
    struct stat s;
    fault_need(fstat(f->fd, &s) == 0, "fstat");
    const size_t now = (size_t)s.st_size, safe = untouched(f, now);
    const size_t kept = safe + (size_t)em_rng_below(rng, now - safe + 1);
    switch (em_rng_below(rng, 4)) {
    case 0: // none of the new
        fault_need(ftruncate(f->fd, 0) == 0 &&
                       pwrite(f->fd, f->durable, f->size, 0) == (ssize_t)f->size,
                   "lose");
        break;
    case 1: // the first of the new
        fault_need(ftruncate(f->fd, (off_t)kept) == 0, "lose");
        break;
    case 2: // some blocks of the new, zeros where others were not written
        lose_blocks(f, safe, now, rng);
        break;
    default: // the new length, and zeros at the end
        fault_need(ftruncate(f->fd, (off_t)kept) == 0 && ftruncate(f->fd, (off_t)now) == 0, "lose");
    }
}

// Whether two changes touch the same name, or one is in a directory that the other made: then the
// later cannot last without the earlier.
static bool rests_on(const struct change *later, const struct change *earlier)
{
    const struct change *const both[] = {later, earlier};
    struct stat made;
    const bool makes =
        (earlier->kind == MADE || earlier->kind == RENAMED) &&
        fstatat(earlier->directory, earlier->name, &made, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISDIR(made.st_mode);
    if (makes && made.st_dev == later->device && made.st_ino == later->inode) return true;
    if (later->device != earlier->device || later->inode != earlier->inode) return false;
    for (size_t i = 0; i < 2; i++) {
        const struct change *x = both[i], *y = both[1 - i];
        if (strcmp(x->name, y->name) == 0) return true;
        if (x->kind == RENAMED && strcmp(x->from, y->name) == 0) return true;
    }
    return later->kind == RENAMED && earlier->kind == RENAMED &&
           strcmp(later->from, earlier->from) == 0;
}

// Undoes all changes but those that a disk kept: the first few in order, or a part of them.
static void lose_names(uint64_t seed, struct em_rng *rng)
{
    static bool lost[MOST_CHANGES];
    const size_t kept = seed == 0   ? change_count
                        : seed == 1 ? 0
                                    : (size_t)em_rng_below(rng, change_count + 1);
    const bool in_order = seed < 2 || seed % 2 == 0;
    for (size_t i = 0; i < change_count; i++) {
        lost[i] = in_order ? i >= kept : em_rng_below(rng, 2);
        for (size_t j = 0; j < i && !lost[i]; j++)
            lost[i] = lost[j] && rests_on(&changes[i], &changes[j]);
    }
    for (size_t i = change_count; i-- > 0;)
        if (lost[i]) undo(&changes[i]);
}

void disk_begin(void)
{
    real = em_io_system();
    tracking = false;
}

void disk_track(void)
{
    if (!store[0]) snprintf(store, sizeof store, "%s", test_directory());
    tracking = true;
}

void disk_forget(void)
{
    while (change_count > 0)
        drop_change(&changes[change_count - 1]);
    for (size_t i = 0; i < file_count; i++) {
        close(files[i].fd);
        free(files[i].durable);
    }
    file_count = 0;
    if (tracking) fault_need(em_remove_tree(store) == EMBER_OK && !mkdir(store, 0777), "store");
    tracking = false;
}

void disk_power_up(uint64_t seed)
{
    struct em_rng rng;
    em_rng_seed(&rng, seed, 0);
    fault_need(tracking, "the plan has neither a power cut nor lossy");
    lose_names(seed, &rng);
    for (size_t i = 0; i < file_count; i++)
        if (files[i].dirty) lose_bytes(&files[i], &rng);
    disk_forget();
}
