#include "base/alloc.h"

#include <assert.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALIGNED = 128, HUGE_PAGE = 2 << 20 };

static atomic_size_t calls;   // allocation calls so far
static atomic_size_t fail_at; // the call that fails; 0: none
static atomic_size_t fail_every;
static _Atomic long long live; // signed: what a foreign library allocated may be freed here
static _Atomic long long peak;

static struct em_allocator embedder;
static bool use_embedder;

static bool injected_fault(void)
{
    const size_t call = atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed) + 1;
    const size_t at = atomic_load_explicit(&fail_at, memory_order_relaxed);
    if (at == 0 || call < at) return false;
    const size_t every = atomic_load_explicit(&fail_every, memory_order_relaxed);
    return call == at || (every > 0 && (call - at) % every == 0);
}

void em_alloc_fail_at(size_t n, size_t every)
{
    atomic_store(&fail_at, 0);
    atomic_store(&fail_every, every);
    if (n > 0) atomic_store(&fail_at, atomic_load(&calls) + n);
}

size_t em_alloc_count(void)
{
    return atomic_load(&calls);
}

static void count_live(size_t added)
{
    const long long now =
        atomic_fetch_add_explicit(&live, (long long)added, memory_order_relaxed) + (long long)added;
    long long seen = atomic_load_explicit(&peak, memory_order_relaxed);
    while (now > seen && !atomic_compare_exchange_weak_explicit(
                             &peak, &seen, now, memory_order_relaxed, memory_order_relaxed)) {
    }
}

static void count_dead(size_t bytes)
{
    atomic_fetch_sub_explicit(&live, (long long)bytes, memory_order_relaxed);
}

size_t em_alloc_live(void)
{
    const long long now = atomic_load(&live);
    return now > 0 ? (size_t)now : 0;
}

size_t em_alloc_peak(void)
{
    return (size_t)atomic_load(&peak);
}

void em_alloc_peak_reset(void)
{
    atomic_store(&peak, (long long)em_alloc_live());
}

void em_alloc_use(const struct em_allocator *allocator)
{
    use_embedder = allocator && allocator->alloc && allocator->free;
    if (use_embedder) embedder = *allocator;
}

// In front of every block from an embedder's allocator, which knows neither sizes nor alignment.
struct header {
    size_t bytes;  // as asked for
    size_t offset; // from the embedder's block to ours
};

static struct header *header_of(void *p)
{
    return (struct header *)((char *)p - sizeof(struct header));
}

static void *embedder_alloc(size_t bytes, size_t alignment)
{
    size_t total;
    if (!em_add_size(bytes, sizeof(struct header) + alignment, &total)) return NULL;
    char *block = embedder.alloc(embedder.context, total);
    if (!block) return NULL;
    const size_t past = (size_t)((uintptr_t)(block + sizeof(struct header)) % alignment);
    char *p = block + sizeof(struct header) + (past ? alignment - past : 0);
    *header_of(p) = (struct header){bytes, (size_t)(p - block)};
    return p;
}

static size_t usable(void *p)
{
    return use_embedder ? header_of(p)->bytes : malloc_usable_size(p);
}

static void raw_free(void *p)
{
    if (use_embedder)
        embedder.free(embedder.context, (char *)p - header_of(p)->offset);
    else
        free(p);
}

static void *allocate(size_t bytes, size_t alignment)
{
    void *p = NULL;
    if (!injected_fault() && bytes <= PTRDIFF_MAX - 2 * ALIGNED) {
        const size_t some = bytes ? bytes : 1; // a valid unique pointer
        if (use_embedder)
            p = embedder_alloc(some, alignment);
        else if (alignment > sizeof(struct header))
            p = aligned_alloc(alignment, (some + alignment - 1) / alignment * alignment);
        else
            p = malloc(some);
    }
    if (p)
        count_live(usable(p));
    else
        (void)em_fail(EMBER_E_NOMEM, "out of memory: %zu bytes", bytes);
    return p;
}

void *em_alloc(size_t bytes)
{
    return allocate(bytes, sizeof(struct header));
}

void *em_alloc_aligned(size_t bytes)
{
    return allocate(bytes, ALIGNED);
}

void *em_calloc(size_t count, size_t bytes)
{
    size_t total;
    if (!em_mul_size(count, bytes, &total)) {
        (void)em_fail(EMBER_E_NOMEM, "out of memory: %zu times %zu bytes", count, bytes);
        return NULL;
    }
    void *p = em_alloc(total);
    if (p) memset(p, 0, total);
    return p;
}

void em_free(void *p)
{
    if (!p) return;
    count_dead(usable(p));
    raw_free(p);
}

void *em_realloc(void *p, size_t bytes)
{
    if (!p) return em_alloc(bytes);
    const size_t old = usable(p);
    if (use_embedder) {
        // The alignment of the payload may not survive the embedder's own realloc.
        void *moved = em_alloc(bytes);
        if (!moved) return NULL;
        memcpy(moved, p, old < bytes ? old : bytes);
        em_free(p);
        return moved;
    }
    void *moved = NULL;
    if (!injected_fault() && bytes <= PTRDIFF_MAX) moved = realloc(p, bytes ? bytes : 1);
    if (!moved) {
        (void)em_fail(EMBER_E_NOMEM, "out of memory: %zu bytes", bytes);
        return NULL;
    }
    count_dead(old);
    count_live(malloc_usable_size(moved));
    return moved;
}

char *em_strndup(const char *s, size_t n)
{
    const size_t length = strnlen(s, n);
    char *copy = em_alloc(length + 1);
    if (!copy) return NULL;
    memcpy(copy, s, length);
    copy[length] = 0;
    return copy;
}

char *em_memdup(const void *p, size_t n)
{
    char *copy = n < SIZE_MAX ? em_alloc(n + 1) : NULL;
    if (!copy) return NULL;
    if (n) memcpy(copy, p, n);
    copy[n] = 0;
    return copy;
}

char *em_strdup(const char *s)
{
    return em_strndup(s, strlen(s));
}

char *em_asprintf(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = em_alloc(n < 0 ? 1 : (size_t)n + 1);
    if (!text) return NULL;
    text[0] = 0;
    va_start(args, format);
    if (n >= 0) (void)vsnprintf(text, (size_t)n + 1, format, args);
    va_end(args);
    return text;
}

static size_t page_round(size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (bytes / page + (bytes % page != 0 || bytes == 0)) * page;
}

void *em_block_alloc(size_t bytes)
{
    if (use_embedder) {
        void *block = em_alloc_aligned(bytes);
        if (block) memset(block, 0, bytes);
        return block;
    }
    char *p = MAP_FAILED;
    size_t mapped = 0;
    const bool fits = bytes <= PTRDIFF_MAX - 2 * HUGE_PAGE;
    const size_t size = fits ? page_round(bytes) : 0;
    if (fits && !injected_fault()) {
        mapped = size + HUGE_PAGE;
        p = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    if (p == MAP_FAILED) {
        (void)em_fail(EMBER_E_NOMEM, "out of memory: %zu bytes", bytes);
        return NULL;
    }
    const size_t past = (uintptr_t)p % HUGE_PAGE;
    const size_t before = past ? HUGE_PAGE - past : 0;
    if (before) munmap(p, before);
    p += before;
    if (mapped - before > size) munmap(p + size, mapped - before - size);
    (void)madvise(p, size, MADV_HUGEPAGE); // slower without, not wrong
    count_live(bytes);
    return p;
}

void em_block_free(void *p, size_t bytes)
{
    if (!p) return;
    if (use_embedder) {
        em_free(p);
        return;
    }
    const int failed = munmap(p, page_round(bytes));
    assert(!failed);
    (void)failed;
    count_dead(bytes);
}

bool em_mul_size(size_t a, size_t b, size_t *out)
{
    size_t product;
    if (__builtin_mul_overflow(a, b, &product)) return false;
    *out = product;
    return true;
}

bool em_add_size(size_t a, size_t b, size_t *out)
{
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum)) return false;
    *out = sum;
    return true;
}

ember_status em_grow(void *array_pointer, size_t *capacity, size_t need, size_t element_bytes)
{
    if (need <= *capacity) return EMBER_OK;
    size_t count = *capacity < 8 ? 8 : *capacity, bytes;
    while (count < need)
        if (!em_mul_size(count, 2, &count)) count = need;
    if (!em_mul_size(count, element_bytes, &bytes))
        return em_fail(EMBER_E_NOMEM, "out of memory: %zu times %zu bytes", count, element_bytes);
    void *array; // the caller's is a pointer to some type: its bits are moved as bytes
    memcpy(&array, array_pointer, sizeof array);
    array = em_realloc(array, bytes);
    if (!array) return EMBER_E_NOMEM;
    memcpy(array_pointer, &array, sizeof array);
    *capacity = count;
    return EMBER_OK;
}
