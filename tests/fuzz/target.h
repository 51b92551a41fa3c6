// The entry of a fuzz target, and what every parser owes besides not crashing: a refusal names the
// file, and memory stays within twice the input and 64 MiB.
#ifndef FUZZ_TARGET_H
#define FUZZ_TARGET_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// What the file that includes this one does with an input.
static void target(const uint8_t *data, size_t size);

#define require(condition) require_at((condition), __FILE__, __LINE__, #condition)
static inline void require_at(bool fine, const char *file, int line, const char *condition)
{
    if (fine) return;
    fprintf(stderr, "%s:%d: not so: %s (last message: %s)\n", file, line, condition,
            ember_last_error());
    abort();
}

// After a refusal: its message names the file and says something about it.
static inline void require_reason(const char *file)
{
    const char *message = ember_last_error();
    require(strstr(message, file) != NULL);
    require(strlen(message) > strlen(file) + 4);
}

__attribute__((constructor)) static void count_json_values(void)
{
    em_json_use_seam();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    em_alloc_peak_reset();
    const size_t before = em_alloc_live();
    target(data, size);
    require(em_alloc_peak() - before <= 2 * size + ((size_t)64 << 20));
    return 0;
}

#endif
