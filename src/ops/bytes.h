// Large stretches of memory, filled and copied by all threads.
#ifndef EM_OPS_BYTES_H
#define EM_OPS_BYTES_H

#include <stddef.h>

struct em_pool;

void em_zero_bytes(struct em_pool *pool, void *to, size_t bytes);
void em_copy_bytes(struct em_pool *pool, void *to, const void *from, size_t bytes); // no overlap

#endif
