#include <errno.h>
#include <fcntl.h>
#include <string.h>
#ifdef EMBER_HAVE_ZLIB
#include <zlib.h>
#endif
#ifdef EMBER_HAVE_ZSTD
#define ZSTD_STATIC_LINKING_ONLY // an allocator of ours
#include <zstd.h>
#include <zstd_errors.h>
#endif

#include "base/alloc.h"
#include "base/io.h"
#include "data/stream.h"

enum { INPUT_BYTES = 1 << 17 };

enum coding { PLAIN, GZIP, ZSTD };

struct em_stream {
    char *path;
    int fd;
    enum coding coding;
    bool end_of_file;
    bool inside; // a member or frame has begun and not ended
    unsigned char *input;
    size_t at, have; // what of `input` is not used yet
#ifdef EMBER_HAVE_ZLIB
    z_stream gzip;
    bool gzip_open;
#endif
#ifdef EMBER_HAVE_ZSTD
    ZSTD_DStream *zstd;
#endif
};

static ember_status refill(struct em_stream *s)
{
    if (s->at < s->have || s->end_of_file) return EMBER_OK;
    ssize_t n;
    do
        n = em_io()->read(s->fd, s->input, INPUT_BYTES);
    while (n < 0 && errno == EINTR);
    if (n < 0) return em_fail_errno(s->path, "cannot read");
    s->at = 0;
    s->have = (size_t)n;
    s->end_of_file = n == 0;
    return EMBER_OK;
}

#ifdef EMBER_HAVE_ZLIB
static void *gzip_alloc(void *context, unsigned count, unsigned bytes)
{
    (void)context;
    return em_calloc(count, bytes);
}

static void gzip_free(void *context, void *p)
{
    (void)context;
    em_free(p);
}

static ember_status gzip_init(struct em_stream *s)
{
    s->gzip = (z_stream){.zalloc = gzip_alloc, .zfree = gzip_free};
    if (inflateInit2(&s->gzip, 15 + 16) != Z_OK)
        return em_fail(EMBER_E_NOMEM, "%s: out of memory: decompressing", s->path);
    s->gzip_open = true;
    return EMBER_OK;
}

// One call of the decoder; members may follow each other.
static ember_status gzip_read(struct em_stream *s, void *to, size_t n, size_t *got)
{
    if (!s->inside && s->at < s->have) {
        if (inflateReset(&s->gzip) != Z_OK)
            return em_fail(EMBER_E_INTERNAL, "%s: zlib cannot be reset", s->path);
        s->inside = true;
    }
    s->gzip.next_in = s->input + s->at;
    s->gzip.avail_in = (unsigned)(s->have - s->at);
    s->gzip.next_out = to;
    s->gzip.avail_out = (unsigned)n;
    const int code = inflate(&s->gzip, Z_NO_FLUSH);
    s->at = s->have - s->gzip.avail_in;
    *got = n - s->gzip.avail_out;
    if (code == Z_STREAM_END) s->inside = false;
    if (code == Z_OK || code == Z_STREAM_END || code == Z_BUF_ERROR) return EMBER_OK;
    if (code == Z_MEM_ERROR)
        return em_fail(EMBER_E_NOMEM, "%s: out of memory: decompressing", s->path);
    return em_fail(EMBER_E_FORMAT, "%s: damaged gzip data: %s", s->path,
                   s->gzip.msg ? s->gzip.msg : "not gzip");
}
#endif

#ifdef EMBER_HAVE_ZSTD
static void *zstd_alloc(void *context, size_t bytes)
{
    (void)context;
    return em_alloc(bytes);
}

static void zstd_free(void *context, void *p)
{
    (void)context;
    em_free(p);
}

static ember_status zstd_init(struct em_stream *s)
{
    s->zstd = ZSTD_createDStream_advanced((ZSTD_customMem){zstd_alloc, zstd_free, NULL});
    if (!s->zstd) return em_fail(EMBER_E_NOMEM, "%s: out of memory: decompressing", s->path);
    // A window of more than 128 MiB (`zstd --ultra --long=31`) would let a small file ask for
    // gigabytes.
    ZSTD_DCtx_setParameter(s->zstd, ZSTD_d_windowLogMax, 27);
    return EMBER_OK;
}

static ember_status zstd_read(struct em_stream *s, void *to, size_t n, size_t *got)
{
    ZSTD_inBuffer in = {s->input + s->at, s->have - s->at, 0};
    ZSTD_outBuffer out = {to, n, 0};
    const size_t left = ZSTD_decompressStream(s->zstd, &out, &in);
    if (ZSTD_getErrorCode(left) == ZSTD_error_memory_allocation)
        return em_fail(EMBER_E_NOMEM, "%s: out of memory: decompressing", s->path);
    if (ZSTD_isError(left))
        return em_fail(EMBER_E_FORMAT, "%s: damaged zstd data: %s", s->path,
                       ZSTD_getErrorName(left));
    // Called without input at the end of a frame, the decoder expects the next one.
    if (in.pos > 0 || out.pos > 0) s->inside = left != 0;
    s->at += in.pos;
    *got = out.pos;
    return EMBER_OK;
}
#endif

static ember_status decode(struct em_stream *s, void *to, size_t n, size_t *got)
{
    *got = 0;
    switch (s->coding) {
    case PLAIN: {
        const size_t take = s->have - s->at < n ? s->have - s->at : n;
        memcpy(to, s->input + s->at, take);
        s->at += take;
        *got = take;
        return EMBER_OK;
    }
    case GZIP:
#ifdef EMBER_HAVE_ZLIB
        return gzip_read(s, to, n, got);
#else
        break;
#endif
    case ZSTD:
#ifdef EMBER_HAVE_ZSTD
        return zstd_read(s, to, n, got);
#else
        break;
#endif
    }
    return em_fail(EMBER_E_INTERNAL, "%s: no decoder", s->path);
}

ember_status em_stream_read(struct em_stream *s, void *to, size_t n, size_t *got)
{
    const size_t most = n < ((size_t)1 << 30) ? n : (size_t)1 << 30; // zlib counts in unsigned int
    for (;;) {
        EM_TRY(refill(s));
        const bool ended = s->end_of_file && s->at == s->have;
        if (ended && !s->inside) {
            *got = 0;
            return EMBER_OK;
        }
        EM_TRY(decode(s, to, most, got));
        if (*got > 0) return EMBER_OK;
        if (ended)
            return em_fail(EMBER_E_FORMAT, "%s: the compressed data end too early (truncated?)",
                           s->path);
    }
}

static ember_status unsupported(const struct em_stream *s, const char *program)
{
    return em_fail(EMBER_E_UNSUPPORTED,
                   "%s: compressed with %s, which this build cannot read: decompress it first, by "
                   "`%s -d -k`",
                   s->path, program, program);
}

static ember_status choose_coding(struct em_stream *s)
{
    EM_TRY(refill(s));
    const unsigned char *p = s->input;
    if (s->have >= 2 && p[0] == 0x1f && p[1] == 0x8b) {
        s->coding = GZIP;
#ifdef EMBER_HAVE_ZLIB
        return gzip_init(s);
#else
        return unsupported(s, "gzip");
#endif
    }
    if (s->have >= 4 && p[0] == 0x28 && p[1] == 0xb5 && p[2] == 0x2f && p[3] == 0xfd) {
        s->coding = ZSTD;
#ifdef EMBER_HAVE_ZSTD
        return zstd_init(s);
#else
        return unsupported(s, "zstd");
#endif
    }
    if (s->have >= 6 && memcmp(p,
                               "\xfd"
                               "7zXZ",
                               6) == 0)
        return unsupported(s, "xz");
    if (s->have >= 4 && memcmp(p, "BZh", 3) == 0 && p[3] >= '1' && p[3] <= '9')
        return unsupported(s, "bzip2");
    return EMBER_OK;
}

static ember_status open_stream(struct em_stream *s, const char *path)
{
    s->path = em_strdup(path);
    s->input = em_alloc(INPUT_BYTES);
    if (!s->path || !s->input) return EMBER_E_NOMEM;
    do
        s->fd = em_io()->open(path, O_RDONLY | O_CLOEXEC, 0);
    while (s->fd < 0 && errno == EINTR);
    if (s->fd < 0) return em_fail_errno(path, "cannot open");
    return choose_coding(s);
}

ember_status em_stream_open(const char *path, struct em_stream **out)
{
    struct em_stream *s = em_calloc(1, sizeof *s);
    if (!s) return EMBER_E_NOMEM;
    s->fd = -1;
    const ember_status status = open_stream(s, path);
    if (status == EMBER_OK)
        *out = s;
    else
        em_stream_close(s);
    return status;
}

void em_stream_close(struct em_stream *stream)
{
    if (!stream) return;
#ifdef EMBER_HAVE_ZLIB
    if (stream->gzip_open) inflateEnd(&stream->gzip);
#endif
#ifdef EMBER_HAVE_ZSTD
    ZSTD_freeDStream(stream->zstd);
#endif
    if (stream->fd >= 0) em_io()->close(stream->fd);
    em_free(stream->input);
    em_free(stream->path);
    em_free(stream);
}
