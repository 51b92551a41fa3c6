// Any bytes become clean UTF-8 that a page and a terminal can show; what is clean already stays.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "report/markup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect_clean(const struct em_buf *b)
{
    for (size_t i = 0; i < b->size;) {
        const size_t n = em_utf8_length(b->data + i, b->size - i);
        const unsigned char c = (unsigned char)b->data[i];
        if (!n || (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f) abort();
        i += n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct em_buf clean, again, html;
    em_buf_init(&clean, 0);
    em_buf_init(&again, 0);
    em_buf_init(&html, 0);
    if (em_text_clean(&clean, (const char *)data, size) != EMBER_OK) abort();
    expect_clean(&clean);
    if (em_text_clean(&again, clean.data, clean.size) != EMBER_OK) abort();
    if (again.size != clean.size || (clean.size && memcmp(again.data, clean.data, clean.size)))
        abort();
    if (em_html_text_n(&html, (const char *)data, size) != EMBER_OK) abort();
    expect_clean(&html);
    for (size_t i = 0; i < html.size; i++)
        if (strchr("<>\"'", html.data[i])) abort();
    em_buf_deinit(&clean);
    em_buf_deinit(&again);
    em_buf_deinit(&html);
    return 0;
}
