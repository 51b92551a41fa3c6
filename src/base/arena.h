// Many small objects, freed at once. Not thread safe.
#ifndef EM_BASE_ARENA_H
#define EM_BASE_ARENA_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fail.h"

struct em_arena_chunk;
struct em_arena {
    struct em_arena_chunk *chunk; // newest first
    size_t used;                  // bytes of the newest chunk
};

void em_arena_init(struct em_arena *arena); // {0} is the same
void em_arena_deinit(struct em_arena *arena);
void em_arena_reset(struct em_arena *arena); // keeps the newest chunk
void *em_arena_alloc(struct em_arena *arena,
                     size_t bytes); // zeroed, 16-byte aligned; NULL: out of memory
char *em_arena_strdup(struct em_arena *arena, const char *s);
char *em_arena_strndup(struct em_arena *arena, const char *s, size_t n);
char *em_arena_printf(struct em_arena *arena, const char *format, ...) EMBER_PRINTF(2, 3);

// A stack of bytes for one thread's work inside a kernel: mark, take, reset to the mark. Grows only
// between uses, so a taken pointer stays valid until the reset. 128-byte aligned.
enum { EM_SCRATCH_ALIGNMENT = 128 }; // what is taken is rounded up to it
struct em_scratch {
    char *base;
    size_t size, used;
};
ember_status em_scratch_reserve(struct em_scratch *s, size_t bytes) EMBER_CHECKED;
void em_scratch_deinit(struct em_scratch *s);
static inline size_t em_scratch_mark(const struct em_scratch *s)
{
    return s->used;
}
static inline void em_scratch_reset(struct em_scratch *s, size_t mark)
{
    s->used = mark;
}
// Room was reserved beforehand: running out is our own bug (asserted).
void *em_scratch_take(struct em_scratch *s, size_t bytes);

#endif
