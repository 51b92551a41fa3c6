#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY // the size of XXH3_state_t, so that it comes from our allocator
#include <xxhash.h>

#include "base/alloc.h"
#include "base/io.h"
#include "formats/hash.h"

enum { PIECE = 1 << 20 };

ember_status em_file_probe(const char *path, bool *exists)
{
    enum em_path_kind kind;
    EM_TRY(em_path_probe(path, &kind));
    *exists = kind != EM_PATH_ABSENT;
    return EMBER_OK;
}

ember_status em_folder_probe(const char *folder, const char *name, bool *exists)
{
    enum em_path_kind kind = EM_PATH_ABSENT;
    if (folder) EM_TRY(em_path_probe_in(folder, name, &kind));
    *exists = kind != EM_PATH_ABSENT;
    return EMBER_OK;
}

uint64_t em_hash_bytes(const void *p, size_t n)
{
    return XXH3_64bits(p, n);
}

static ember_status sync_file(const char *path, int fd)
{
    int failed;
    do
        failed = em_io()->fsync(fd);
    while (failed && errno == EINTR);
    return failed ? em_fail_errno(path, "cannot fsync") : EMBER_OK;
}

static ember_status hash_open_file(const char *path, int fd, XXH3_state_t *state, char *piece,
                                   struct em_file_hash *out)
{
    uint64_t bytes = 0;
    for (;;) {
        const ssize_t n = em_io()->read(fd, piece, PIECE);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return em_fail_errno(path, "cannot read");
        if (n == 0) break;
        XXH3_64bits_update(state, piece, (size_t)n);
        bytes += (uint64_t)n;
    }
    *out = (struct em_file_hash){bytes, XXH3_64bits_digest(state)};
    return EMBER_OK;
}

ember_status em_hash_file(const char *path, bool sync, struct em_file_hash *out)
{
    XXH3_state_t *state = em_alloc_aligned(sizeof *state);
    char *piece = em_alloc(PIECE);
    ember_status status = EMBER_E_NOMEM;
    if (state && piece) {
        XXH3_64bits_reset(state);
        int fd;
        do
            fd = em_io()->open(path, O_RDONLY | O_CLOEXEC, 0);
        while (fd < 0 && errno == EINTR);
        struct stat s;
        if (fd < 0)
            status = em_fail_errno(path, "cannot open");
        else if (em_io()->fstat(fd, &s) != 0)
            status = em_fail_errno(path, "cannot stat");
        else if (!S_ISREG(s.st_mode))
            status = em_fail(EMBER_E_FORMAT, "%s: expected a regular file", path);
        else
            status = sync ? sync_file(path, fd) : EMBER_OK;
        if (status == EMBER_OK) status = hash_open_file(path, fd, state, piece, out);
        // Nothing was written through this descriptor, so its close has nothing to report.
        if (fd >= 0) em_io()->close(fd);
    }
    em_free(piece);
    em_free(state);
    return status;
}
