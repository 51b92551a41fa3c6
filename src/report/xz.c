#include "report/xz.h"

#ifdef EMBER_HAVE_LZMA
#include <lzma.h>

#include "base/alloc.h"

bool em_xz_available(void)
{
    return true;
}

static void *alloc(void *context, size_t count, size_t bytes)
{
    (void)context;
    size_t n;
    return em_mul_size(count, bytes, &n) ? em_alloc(n) : NULL;
}

static void release(void *context, void *p)
{
    (void)context;
    em_free(p);
}

ember_status em_xz_size(const void *p, size_t n, uint64_t *size)
{
    enum { CHUNK = 1 << 16 };
    const lzma_allocator allocator = {alloc, release, NULL};
    lzma_stream stream = LZMA_STREAM_INIT;
    stream.allocator = &allocator;
    lzma_ret ret = lzma_easy_encoder(&stream, 9 | LZMA_PRESET_EXTREME, LZMA_CHECK_CRC64);
    unsigned char *out = ret == LZMA_OK ? em_alloc(CHUNK) : NULL; // counted, not kept
    if (ret == LZMA_OK && !out) ret = LZMA_MEM_ERROR;
    stream.next_in = p;
    stream.avail_in = n;
    while (ret == LZMA_OK) {
        stream.next_out = out;
        stream.avail_out = CHUNK;
        ret = lzma_code(&stream, LZMA_FINISH);
    }
    const uint64_t total = stream.total_out;
    lzma_end(&stream);
    em_free(out);
    if (ret == LZMA_MEM_ERROR)
        return em_fail(EMBER_E_NOMEM, "xz -9e of %zu bytes: out of memory", n);
    if (ret != LZMA_STREAM_END)
        return em_fail(EMBER_E_INTERNAL, "xz -9e of %zu bytes: liblzma's error %d", n, (int)ret);
    *size = total;
    return EMBER_OK;
}

// The preset's hash tables, which are cleared, and for each byte of text its place in the window
// and in the search tree. What else is asked for is never touched.
size_t em_xz_memory(size_t n)
{
    return ((size_t)66 << 20) + 9 * n;
}

#else

bool em_xz_available(void)
{
    return false;
}

ember_status em_xz_size(const void *p, size_t n, uint64_t *size)
{
    (void)p;
    (void)size;
    return em_fail(EMBER_E_UNSUPPORTED, "xz -9e of %zu bytes: this build has no liblzma", n);
}

size_t em_xz_memory(size_t n)
{
    (void)n;
    return 0;
}

#endif
