// Small arithmetic on counts.
#ifndef EM_BASE_SIZES_H
#define EM_BASE_SIZES_H

#include <stddef.h>

static inline size_t em_min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t em_max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

// a / b, rounded up; never overflows.
static inline size_t em_ceil_div(size_t a, size_t b)
{
    return a / b + (a % b != 0);
}

#endif
