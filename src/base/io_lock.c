// The lock of a folder, and who holds it.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/io_priv.h"

// For people who find the folder taken. The lock is the kernel's and ends with its process, however
// that ends: what is written here decides nothing, so a disk without room for it is no failure.
static void sign(int fd, const char *name)
{
    char host[256] = "", since[32] = "", line[384];
    const time_t now = (time_t)em_clock_wall();
    struct tm utc;
    if (gethostname(host, sizeof host - 1) != 0) strcpy(host, "an unknown host");
    if (gmtime_r(&now, &utc)) strftime(since, sizeof since, "%Y-%m-%d %H:%M:%S UTC", &utc);
    snprintf(line, sizeof line, "process %ld on %s since %s\n", (long)getpid(), host, since);
    if (em_io()->ftruncate(fd, 0) == 0) (void)!em_io_write_all(fd, name, line, strlen(line));
}

// The holder's line, as far as it can be told. What another program left there is shown as text.
static ember_status in_use(const char *path, const char *name)
{
    char line[400];
    if (!em_io_read_small(name, line, sizeof line)) *line = '\0';
    line[strcspn(line, "\n")] = '\0';
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f) *p = '?';
    return em_fail(EMBER_E_STATE, "%s: in use by another run%s%s (which holds %s)", path,
                   *line ? ": " : "", line, name);
}

static int take(int fd)
{
    int failed;
    do
        failed = em_io()->flock(fd, LOCK_EX | LOCK_NB);
    while (failed && errno == EINTR);
    return failed;
}

ember_status em_lock_directory(const char *path, int *fd)
{
    char *name = em_path_join(path, ".lock");
    if (!name) return EMBER_E_NOMEM;
    ember_status status = EMBER_OK;
    const int opened = em_io_open(name, O_RDWR | O_CREAT, 0666);
    if (opened < 0) {
        status = em_fail_errno(name, "cannot open the lock");
    } else if (take(opened) != 0) {
        status = errno == EWOULDBLOCK ? in_use(path, name) : em_fail_errno(name, "cannot lock");
        (void)em_io()->close(opened);
    } else {
        sign(opened, name);
    }
    em_free(name);
    if (status == EMBER_OK) *fd = opened;
    return status;
}

// The file stays: removing it would let two runs hold locks on two files of one name.
void em_unlock_directory(int fd)
{
    if (fd >= 0) (void)em_io()->close(fd);
}
