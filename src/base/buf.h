// Growable bytes with a hard limit; always NUL-terminated after the last byte.
#ifndef EM_BASE_BUF_H
#define EM_BASE_BUF_H

#include <stddef.h>

#include "base/fail.h"

struct em_buf {
    char *data; // NULL while empty
    size_t size, capacity;
    size_t limit; // 0: none. Past it an append fails with EMBER_E_RANGE.
};

void em_buf_init(struct em_buf *b, size_t limit);
void em_buf_deinit(struct em_buf *b);
void em_buf_clear(struct em_buf *b); // keeps the memory
ember_status em_buf_reserve(struct em_buf *b, size_t more) EMBER_CHECKED;
ember_status em_buf_add(struct em_buf *b, const void *bytes, size_t n) EMBER_CHECKED;
ember_status em_buf_puts(struct em_buf *b, const char *s) EMBER_CHECKED;
ember_status em_buf_putc(struct em_buf *b, char c) EMBER_CHECKED;
ember_status em_buf_printf(struct em_buf *b, const char *format, ...) EMBER_CHECKED
    EMBER_PRINTF(2, 3);
char *em_buf_take(struct em_buf *b); // owned by the caller (em_free); the buffer is empty again;
                                     // never NULL unless out of memory

#endif
