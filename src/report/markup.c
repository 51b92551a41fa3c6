#include "report/markup.h"

#include <stdbool.h>
#include <string.h>

size_t em_utf8_length(const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;
    if (!n) return 0;
    if (p[0] < 0x80) return 1;
    size_t length;
    unsigned least;
    unsigned code;
    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        length = 2;
        least = 0x80;
        code = p[0] & 0x1fu;
    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        length = 3;
        least = 0x800;
        code = p[0] & 0x0fu;
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        length = 4;
        least = 0x10000;
        code = p[0] & 0x07u;
    } else {
        return 0;
    }
    if (n < length) return 0;
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0u) != 0x80) return 0;
        code = code << 6 | (p[i] & 0x3fu);
    }
    if (code < least || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return 0;
    return length;
}

// Control characters, C1 ones among them, draw nothing or steer a terminal.
static bool is_control(const char *s, size_t length)
{
    const unsigned char c = (unsigned char)s[0];
    if (length == 1) return (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f;
    return length == 2 && c == 0xc2 && (unsigned char)s[1] < 0xa0;
}

static const char *entity(char c)
{
    switch (c) {
    case '&': return "&amp;";
    case '<': return "&lt;";
    case '>': return "&gt;";
    case '"': return "&quot;";
    case '\'': return "&#39;";
    default: return NULL;
    }
}

static ember_status add_text(struct em_buf *out, const char *s, size_t n, bool html)
{
    size_t plain = 0; // bytes before s that are good as they are
    while (n) {
        const size_t length = em_utf8_length(s, n);
        const char *instead = NULL;
        if (!length || is_control(s, length))
            instead = "\xef\xbf\xbd";
        else if (html && length == 1)
            instead = entity(*s);
        const size_t step = length ? length : 1;
        if (instead) {
            EM_TRY(em_buf_add(out, s - plain, plain));
            EM_TRY(em_buf_puts(out, instead));
            plain = 0;
        } else {
            plain += step;
        }
        s += step;
        n -= step;
    }
    return em_buf_add(out, s - plain, plain);
}

ember_status em_text_clean(struct em_buf *out, const char *s, size_t n)
{
    return add_text(out, s, n, false);
}

ember_status em_html_text_n(struct em_buf *out, const char *s, size_t n)
{
    return add_text(out, s, n, true);
}

ember_status em_html_text(struct em_buf *out, const char *s)
{
    return s ? add_text(out, s, strlen(s), true) : EMBER_OK;
}

size_t em_text_columns(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0u) != 0x80;
    return n;
}
