#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/io_priv.h"

static int system_open(const char *path, int flags, mode_t mode)
{
    return open(path, flags, mode);
}

static void *system_mmap(size_t n, int fd)
{
    return mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
}

static const struct em_io system_io = {
    .open = system_open,
    .read = read,
    .pread = pread,
    .write = write,
    .fsync = fsync,
    .close = close,
    .rename = rename,
    .unlink = unlink,
    .mkdir = mkdir,
    .rmdir = rmdir,
    .fstat = fstat,
    .stat = stat,
    .mmap = system_mmap,
    .munmap = munmap,
    .ftruncate = ftruncate,
    .statvfs = statvfs,
    .fdopendir = fdopendir,
    .readdir = readdir,
    .closedir = closedir,
    .flock = flock,
};
static const struct em_io *current = &system_io;

const struct em_io *em_io(void)
{
    return current;
}

const struct em_io *em_io_system(void)
{
    return &system_io;
}

void em_io_use(const struct em_io *io)
{
    current = io ? io : &system_io;
}
