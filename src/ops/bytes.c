#include "ops/bytes.h"

#include <string.h>

#include "base/threads.h"

// Worth waking a thread for, and small enough to share.
enum { PIECE = 1 << 18 };

struct job {
    char *to;
    const char *from; // NULL: zeros
    size_t bytes;
};

static void pieces(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct job *job = arg;
    const size_t first = begin * PIECE, last = end * PIECE < job->bytes ? end * PIECE : job->bytes;
    if (job->from)
        memcpy(job->to + first, job->from + first, last - first);
    else
        memset(job->to + first, 0, last - first);
}

static void run(struct em_pool *pool, struct job job)
{
    if (job.bytes) em_parallel(pool, (job.bytes + PIECE - 1) / PIECE, 1, pieces, &job);
}

void em_zero_bytes(struct em_pool *pool, void *to, size_t bytes)
{
    run(pool, (struct job){to, NULL, bytes});
}

void em_copy_bytes(struct em_pool *pool, void *to, const void *from, size_t bytes)
{
    run(pool, (struct job){to, from, bytes});
}
