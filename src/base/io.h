// The file seam: every file operation of Ember goes through one table, so that a test can stage
// short writes, full disks, failed fsyncs and power cuts at any call.
#ifndef EM_BASE_IO_H
#define EM_BASE_IO_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/fail.h"

// POSIX calls by their own names and contracts (errno included). Tests replace members.
// tests/base/io_seam_test.c refuses direct calls of these elsewhere in src/.
struct em_io {
    int (*open)(const char *path, int flags, mode_t mode);
    ssize_t (*read)(int fd, void *p, size_t n);
    ssize_t (*pread)(int fd, void *p, size_t n, off_t offset);
    ssize_t (*write)(int fd, const void *p, size_t n);
    int (*fsync)(int fd);
    int (*close)(int fd);
    int (*rename)(const char *from, const char *to);
    int (*unlink)(const char *path);
    int (*mkdir)(const char *path, mode_t mode);
    int (*rmdir)(const char *path);
    int (*fstat)(int fd, struct stat *s);
    int (*stat)(const char *path, struct stat *s);
    void *(*mmap)(size_t n, int fd); // read-only, private, whole file; MAP_FAILED on error
    int (*munmap)(void *p, size_t n);
    int (*ftruncate)(int fd, off_t size);
    int (*statvfs)(const char *path, struct statvfs *s);
    DIR *(*fdopendir)(int fd);
    struct dirent *(*readdir)(DIR *directory);
    int (*closedir)(DIR *directory);
    int (*flock)(int fd, int operation);
};
const struct em_io *em_io(void);        // the table in force
void em_io_use(const struct em_io *io); // NULL: the system's. For tests.
const struct em_io *em_io_system(void);

// Everything below retries EINTR, completes short reads and writes, and fails with path and errno.

// Whole file into `out` (appended). More than `limit` bytes (0: none) is EMBER_E_RANGE.
ember_status em_read_file(const char *path, size_t limit, struct em_buf *out) EMBER_CHECKED;

// A file mapped read-only. Regular files only; an empty file maps to size 0.
struct em_map {
    const unsigned char *data;
    size_t size;
};
ember_status em_map_open(const char *path, struct em_map *map) EMBER_CHECKED;
void em_map_close(struct em_map *map);
// The bytes [p, p + n) of the map were used and will hardly be again: they stop counting as this
// process's memory. Reading them again is fine.
void em_map_forget(const struct em_map *map, const void *p, size_t n);

// Replaces `path` durably: a temporary in the same directory, every write checked, fsync, close
// checked, rename, fsync of the directory. Until em_file_commit succeeds, the old file is whole and
// in place; em_file_abort (or a failed commit) removes the temporary.
struct em_file {
    int fd;
    char *path, *temporary;
    char *buffer; // writes are gathered here
    size_t buffered;
    uint64_t written;
};
ember_status em_file_create(const char *path, struct em_file *f) EMBER_CHECKED;
ember_status em_file_write(struct em_file *f, const void *p, size_t n) EMBER_CHECKED;
ember_status em_file_printf(struct em_file *f, const char *format, ...) EMBER_CHECKED
    EMBER_PRINTF(2, 3);
ember_status em_file_commit(struct em_file *f) EMBER_CHECKED;
void em_file_abort(struct em_file *f); // fine after a commit and on {0}
ember_status em_write_file(const char *path, const void *p,
                           size_t n) EMBER_CHECKED; // create, write, commit

// Appending logs: opened once, one whole line a call, no fsync but at em_append_sync, which the first
// time makes the name last too.
struct em_append {
    int fd;
    bool named; // the name lasts
    char *path;
};
ember_status em_append_open(const char *path, struct em_append *a) EMBER_CHECKED;
ember_status em_append_write(struct em_append *a, const void *p, size_t n) EMBER_CHECKED;
ember_status em_append_truncate(struct em_append *a,
                                uint64_t size) EMBER_CHECKED; // back to a state's size
ember_status em_append_sync(struct em_append *a) EMBER_CHECKED;
void em_append_close(struct em_append *a);

ember_status
em_make_directories(const char *path) EMBER_CHECKED; // mkdir -p, and fsync of the parents
ember_status em_sync_directory(const char *path) EMBER_CHECKED;
ember_status
em_remove_tree(const char *path) EMBER_CHECKED; // does not follow links; absent is fine
// What is at `path`, links followed. A failure is not taken for absence: deciding on it, a run
// would start anew or a file be made up because of one bad read.
enum em_path_kind { EM_PATH_ABSENT, EM_PATH_FILE, EM_PATH_DIRECTORY, EM_PATH_OTHER };
ember_status em_path_probe(const char *path, enum em_path_kind *kind) EMBER_CHECKED;
ember_status em_path_probe_in(const char *directory, const char *name,
                              enum em_path_kind *kind) EMBER_CHECKED;
// The same where a wrong answer only costs a better message: a failure reads as false.
bool em_path_exists(const char *path);
bool em_path_is_directory(const char *path);
char *em_path_join(const char *a, const char *b); // owned; NULL: out of memory
const char *em_path_base(const char *path);       // last component, borrowed

// Names in a directory, sorted bytewise, without "." and "..". Owned; em_names_free.
ember_status em_list_directory(const char *path, char ***names, size_t *count) EMBER_CHECKED;
void em_names_free(char **names, size_t count);

// An exclusive lock on DIR/.lock, held until closed; EMBER_E_STATE when another process holds it.
ember_status em_lock_directory(const char *path, int *fd) EMBER_CHECKED;
void em_unlock_directory(int fd);

ember_status em_free_space(const char *path, uint64_t *bytes) EMBER_CHECKED;

#endif
