// A folder of its own for targets whose parser opens files by name; removed at the end.
#ifndef FUZZ_FOLDER_H
#define FUZZ_FOLDER_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/io.h"
#include "fuzz/target.h"

static char fuzz_folder[256];

static void fuzz_remove_folder(void)
{
    if (*fuzz_folder && em_remove_tree(fuzz_folder) != EMBER_OK)
        fprintf(stderr, "%s\n", ember_last_error());
    *fuzz_folder = '\0';
}

// Made at the first call.
static inline const char *fuzz_the_folder(void)
{
    if (*fuzz_folder) return fuzz_folder;
    // In memory if that can be: a file is written for every input.
    const char *parent = getenv("TMPDIR");
    if (!parent || !*parent) parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(fuzz_folder, sizeof fuzz_folder, "%s/ember-fuzz-XXXXXX", parent);
    require(mkdtemp(fuzz_folder) != NULL);
    atexit(fuzz_remove_folder);
    return fuzz_folder;
}

// The path of a file in it, until the next call.
static inline const char *fuzz_path(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", fuzz_the_folder(), name);
    return path;
}

// Writes such a file, not durably: it is to be fast.
static inline void fuzz_put(const char *name, const void *data, size_t size)
{
    const char *path = fuzz_path(name);
    (void)unlink(path); // a new file: some file systems write a truncated one to the disk
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    require(fd >= 0 && write(fd, data, size) == (ssize_t)size && close(fd) == 0);
}

#endif
