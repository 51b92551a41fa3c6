// The allocation seam: every heap byte of Ember comes from here, so that a test can make the n-th
// allocation fail and embedders can bring their own allocator. jansson's bytes do after
// em_json_use_seam().
#ifndef EM_BASE_ALLOC_H
#define EM_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

#include "base/fail.h"

// NULL on failure, with this thread's message set ("out of memory: N bytes"). em_alloc(0) is a
// valid unique pointer. Alignment as malloc's.
void *em_alloc(size_t bytes);
void *em_calloc(size_t count, size_t bytes); // zeroed; NULL when count * bytes wraps
void *em_realloc(void *p, size_t bytes);     // on failure p stays as it was
void em_free(void *p);                       // NULL is fine
char *em_strdup(const char *s);
char *em_strndup(const char *s, size_t n); // up to a NUL within
char *em_memdup(const void *p, size_t n);  // all n bytes, NULs too, and one more NUL behind them
char *em_asprintf(const char *format, ...) EMBER_PRINTF(1, 2);

// For arrays that kernels read: 128-byte aligned; em_free() frees them.
void *em_alloc_aligned(size_t bytes);

// Big long-lived blocks (parameters, the step's memory): zero-filled pages, 2 MiB-aligned and huge
// where the system has them. Freed with em_block_free and the same size.
void *em_block_alloc(size_t bytes);
void em_block_free(void *p, size_t bytes);

// Bytes now handed out by all of the above, and their maximum so far.
size_t em_alloc_live(void);
size_t em_alloc_peak(void);
void em_alloc_peak_reset(void); // the maximum starts over at what is handed out now

// a * b and a + b into *out; false when it would wrap. Sizes from files go through these.
bool em_mul_size(size_t a, size_t b, size_t *out);
bool em_add_size(size_t a, size_t b, size_t *out);

// Doubles `*capacity` elements until it holds `need`: EM_TRY(em_grow(&v, &cap, n + 1, sizeof *v)).
ember_status em_grow(void *array_pointer, size_t *capacity, size_t need,
                     size_t element_bytes) EMBER_CHECKED;

// For tests: the n-th call from now fails (1 = the next), and again every `every`-th after it when
// every > 0. 0 switches off. em_alloc_count is the number of allocation calls so far.
void em_alloc_fail_at(size_t n, size_t every);
size_t em_alloc_count(void);

// The embedder's allocator; NULL: the C library's. To be set while no block is held. Blocks of
// em_block_alloc come from it too, aligned as those of em_alloc_aligned.
struct em_allocator {
    void *(*alloc)(void *context, size_t bytes);
    void (*free)(void *context, void *p);
    void *context;
};
void em_alloc_use(const struct em_allocator *allocator);

#endif
