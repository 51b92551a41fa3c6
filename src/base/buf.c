#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

void em_buf_init(struct em_buf *b, size_t limit)
{
    *b = (struct em_buf){.limit = limit};
}

void em_buf_deinit(struct em_buf *b)
{
    em_free(b->data);
    *b = (struct em_buf){.limit = b->limit};
}

void em_buf_clear(struct em_buf *b)
{
    b->size = 0;
    if (b->data) b->data[0] = 0;
}

ember_status em_buf_reserve(struct em_buf *b, size_t more)
{
    size_t need;
    if (!em_add_size(b->size, more, &need) || !em_add_size(need, 1, &need))
        return em_fail(EMBER_E_NOMEM, "out of memory: %zu more bytes", more);
    if (b->limit && need - 1 > b->limit)
        return em_fail(EMBER_E_RANGE, "longer than the limit of %zu bytes", b->limit);
    return em_grow(&b->data, &b->capacity, need, 1);
}

ember_status em_buf_add(struct em_buf *b, const void *bytes, size_t n)
{
    EM_TRY(em_buf_reserve(b, n));
    if (n) memcpy(b->data + b->size, bytes, n);
    b->size += n;
    b->data[b->size] = 0;
    return EMBER_OK;
}

ember_status em_buf_puts(struct em_buf *b, const char *s)
{
    return em_buf_add(b, s, strlen(s));
}

ember_status em_buf_putc(struct em_buf *b, char c)
{
    return em_buf_add(b, &c, 1);
}

ember_status em_buf_printf(struct em_buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0) return em_fail(EMBER_E_INTERNAL, "text that cannot be formatted");
    EM_TRY(em_buf_reserve(b, (size_t)n));
    va_start(args, format);
    (void)vsnprintf(b->data + b->size, (size_t)n + 1, format, args);
    va_end(args);
    b->size += (size_t)n;
    return EMBER_OK;
}

char *em_buf_take(struct em_buf *b)
{
    char *text = b->data ? b->data : em_strdup("");
    *b = (struct em_buf){.limit = b->limit};
    return text;
}
