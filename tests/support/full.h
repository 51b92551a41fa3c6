// EMBER_TEST_FULL=1 runs the full amounts of the tests that CI runs a part of.
#ifndef TEST_FULL_H
#define TEST_FULL_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static inline bool em_test_full(void)
{
    const char *value = getenv("EMBER_TEST_FULL");
    return value && *value && strcmp(value, "0") != 0;
}

// `amount` in CI, `full` by the flag.
static inline size_t em_test_amount(size_t amount, size_t full)
{
    return em_test_full() ? full : amount;
}

#endif
