#include "base/arena.h"

#include <assert.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

enum { ALIGNMENT = 16, FIRST_CHUNK = 4096, LARGEST_CHUNK = 1 << 20 };

struct em_arena_chunk {
    struct em_arena_chunk *older;
    size_t size; // bytes of data
    alignas(ALIGNMENT) char data[];
};

void em_arena_init(struct em_arena *arena)
{
    *arena = (struct em_arena){0};
}

static void free_from(struct em_arena_chunk *chunk)
{
    while (chunk) {
        struct em_arena_chunk *older = chunk->older;
        em_free(chunk);
        chunk = older;
    }
}

void em_arena_deinit(struct em_arena *arena)
{
    free_from(arena->chunk);
    *arena = (struct em_arena){0};
}

void em_arena_reset(struct em_arena *arena)
{
    if (!arena->chunk) return;
    free_from(arena->chunk->older);
    arena->chunk->older = NULL;
    arena->used = 0;
}

void *em_arena_alloc(struct em_arena *arena, size_t bytes)
{
    size_t need;
    if (!em_add_size(bytes, ALIGNMENT - 1, &need)) {
        (void)em_fail(EMBER_E_NOMEM, "out of memory: %zu bytes", bytes);
        return NULL;
    }
    need = need / ALIGNMENT * ALIGNMENT;
    if (need == 0) need = ALIGNMENT; // unique pointers
    if (!arena->chunk || arena->chunk->size - arena->used < need) {
        size_t size = arena->chunk ? 2 * arena->chunk->size : FIRST_CHUNK, total;
        if (size > LARGEST_CHUNK) size = LARGEST_CHUNK;
        if (size < need) size = need;
        if (!em_add_size(size, sizeof(struct em_arena_chunk), &total)) {
            (void)em_fail(EMBER_E_NOMEM, "out of memory: %zu bytes", bytes);
            return NULL;
        }
        struct em_arena_chunk *chunk = em_alloc(total);
        if (!chunk) return NULL;
        chunk->older = arena->chunk;
        chunk->size = size;
        arena->chunk = chunk;
        arena->used = 0;
    }
    char *p = arena->chunk->data + arena->used;
    arena->used += need;
    return memset(p, 0, need);
}

char *em_arena_strndup(struct em_arena *arena, const char *s, size_t n)
{
    const size_t length = strnlen(s, n);
    char *copy = em_arena_alloc(arena, length + 1);
    if (copy) memcpy(copy, s, length);
    return copy;
}

char *em_arena_strdup(struct em_arena *arena, const char *s)
{
    return em_arena_strndup(arena, s, strlen(s));
}

char *em_arena_printf(struct em_arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = em_arena_alloc(arena, n < 0 ? 1 : (size_t)n + 1);
    if (!text) return NULL;
    va_start(args, format);
    if (n >= 0) (void)vsnprintf(text, (size_t)n + 1, format, args);
    va_end(args);
    return text;
}

ember_status em_scratch_reserve(struct em_scratch *s, size_t bytes)
{
    size_t size;
    if (!em_add_size(bytes, EM_SCRATCH_ALIGNMENT - 1, &size))
        return em_fail(EMBER_E_NOMEM, "out of memory: %zu bytes", bytes);
    size = size / EM_SCRATCH_ALIGNMENT * EM_SCRATCH_ALIGNMENT;
    if (size <= s->size) return EMBER_OK;
    assert(s->used == 0);
    if (s->used) return em_fail(EMBER_E_INTERNAL, "scratch: grown while in use");
    char *base = em_alloc_aligned(size);
    if (!base) return EMBER_E_NOMEM;
    em_free(s->base);
    s->base = base;
    s->size = size;
    return EMBER_OK;
}

void em_scratch_deinit(struct em_scratch *s)
{
    em_free(s->base);
    *s = (struct em_scratch){0};
}

void *em_scratch_take(struct em_scratch *s, size_t bytes)
{
    const size_t left = s->size - s->used;
    assert(bytes <= left);
    if (bytes > left)
        return NULL; // a build without asserts crashes here, and does not write past the end
    char *p = s->base + s->used;
    s->used += (bytes + EM_SCRATCH_ALIGNMENT - 1) / EM_SCRATCH_ALIGNMENT * EM_SCRATCH_ALIGNMENT;
    return p;
}
