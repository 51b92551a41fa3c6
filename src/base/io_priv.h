// What the files of the I/O seam share.
#ifndef EM_BASE_IO_PRIV_H
#define EM_BASE_IO_PRIV_H

#include "base/io.h"

// Retries EINTR; fd or -1 and errno.
int em_io_open(const char *path, int flags, mode_t mode);

// All n bytes, or an error with `path`.
ember_status em_io_write_all(int fd, const char *path, const void *p, size_t n) EMBER_CHECKED;

// The beginning of a small file of the system's (/proc, /sys), NUL-terminated; false when there is
// none. Sets no message, as absence is no failure.
bool em_io_read_small(const char *path, char *text, size_t size);

#endif
