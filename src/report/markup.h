// Writing text into HTML, SVG and JSON: nothing reaches a page but through here.
#ifndef EM_REPORT_MARKUP_H
#define EM_REPORT_MARKUP_H

#include <stddef.h>

#include "base/buf.h"
#include "base/fail.h"

// Appends any bytes as clean UTF-8: what is not UTF-8, and control characters but newline and tab,
// become U+FFFD.
ember_status em_text_clean(struct em_buf *out, const char *s, size_t n) EMBER_CHECKED;

// The same with & < > " ' as entities: for element content and quoted attributes.
ember_status em_html_text_n(struct em_buf *out, const char *s, size_t n) EMBER_CHECKED;
ember_status em_html_text(struct em_buf *out, const char *s) EMBER_CHECKED; // NULL is ""

// Length in bytes of the UTF-8 character at s (1..4), or 0 when the n bytes there begin none.
size_t em_utf8_length(const char *s, size_t n);

// Columns that clean text takes on a terminal, one a character.
size_t em_text_columns(const char *s);

#endif
