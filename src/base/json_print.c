// Writing. Not jansson's own: it prints real numbers with one fixed precision, so either 0.1
// becomes 0.10000000000000001 or some numbers do not read back equal.
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/json.h"

enum { DEEPEST = 1000 }; // of values that we built; what we read is far flatter

static ember_status print_string(const char *s, size_t n, struct em_buf *out)
{
    EM_TRY(em_buf_putc(out, '"'));
    size_t plain = 0; // start of the characters that go through as they are
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)s[i];
        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) continue;
        EM_TRY(em_buf_add(out, s + plain, i - plain));
        plain = i + 1;
        switch (c) {
        case '"': EM_TRY(em_buf_puts(out, "\\\"")); break;
        case '\\': EM_TRY(em_buf_puts(out, "\\\\")); break;
        case '\n': EM_TRY(em_buf_puts(out, "\\n")); break;
        case '\r': EM_TRY(em_buf_puts(out, "\\r")); break;
        case '\t': EM_TRY(em_buf_puts(out, "\\t")); break;
        case '\b': EM_TRY(em_buf_puts(out, "\\b")); break;
        case '\f': EM_TRY(em_buf_puts(out, "\\f")); break;
        default: EM_TRY(em_buf_printf(out, "\\u%04x", c));
        }
    }
    EM_TRY(em_buf_add(out, s + plain, n - plain));
    return em_buf_putc(out, '"');
}

// The shortest of 15, 16 and 17 digits that reads back equal; 17 always do.
static ember_status print_real(double value, struct em_buf *out)
{
    char text[64];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        const double back = strtod(text, NULL);
        if (memcmp(&back, &value, sizeof back) == 0) break;
    }
    // A program that embeds us may have set a locale with another decimal point.
    const char *point = localeconv()->decimal_point;
    char *found = strcmp(point, ".") == 0 ? NULL : strstr(text, point);
    if (found) {
        *found = '.';
        memmove(found + 1, found + strlen(point), strlen(found + strlen(point)) + 1);
    }
    EM_TRY(em_buf_puts(out, text));
    return strpbrk(text, ".e") ? EMBER_OK
                               : em_buf_puts(out, ".0"); // or it would come back an integer
}

static ember_status new_line(int indent, int depth, struct em_buf *out)
{
    if (indent == 0) return EMBER_OK;
    return em_buf_printf(out, "\n%*s", indent * depth, "");
}

static ember_status print(const json_t *value, int indent, int depth, struct em_buf *out);

static ember_status print_array(const json_t *array, int indent, int depth, struct em_buf *out)
{
    const size_t n = json_array_size(array);
    EM_TRY(em_buf_putc(out, '['));
    for (size_t i = 0; i < n; i++) {
        if (i > 0) EM_TRY(em_buf_putc(out, ','));
        EM_TRY(new_line(indent, depth + 1, out));
        EM_TRY(print(json_array_get(array, i), indent, depth + 1, out));
    }
    if (n > 0) EM_TRY(new_line(indent, depth, out));
    return em_buf_putc(out, ']');
}

static ember_status print_object(const json_t *object, int indent, int depth, struct em_buf *out)
{
    json_t *walked; // jansson's iterators take a pointer to what they do not change
    memcpy(&walked, &object, sizeof walked);
    const char *key;
    size_t length;
    json_t *member;
    bool first = true;
    EM_TRY(em_buf_putc(out, '{'));
    for (void *i = json_object_iter(walked); i; i = json_object_iter_next(walked, i)) {
        key = json_object_iter_key(i);
        length = strlen(key);
        member = json_object_iter_value(i);
        if (!first) EM_TRY(em_buf_putc(out, ','));
        first = false;
        EM_TRY(new_line(indent, depth + 1, out));
        EM_TRY(print_string(key, length, out));
        EM_TRY(em_buf_puts(out, indent ? ": " : ":"));
        EM_TRY(print(member, indent, depth + 1, out));
    }
    if (!first) EM_TRY(new_line(indent, depth, out));
    return em_buf_putc(out, '}');
}

static ember_status print(const json_t *value, int indent, int depth, struct em_buf *out)
{
    if (depth > DEEPEST) return em_fail(EMBER_E_INTERNAL, "JSON nested deeper than %d", DEEPEST);
    if (!value) return em_fail(EMBER_E_INTERNAL, "JSON without a value");
    switch (json_typeof(value)) {
    case JSON_OBJECT: return print_object(value, indent, depth, out);
    case JSON_ARRAY: return print_array(value, indent, depth, out);
    case JSON_STRING: return print_string(json_string_value(value), json_string_length(value), out);
    case JSON_INTEGER: return em_buf_printf(out, "%lld", (long long)json_integer_value(value));
    case JSON_REAL: return print_real(json_real_value(value), out);
    case JSON_TRUE: return em_buf_puts(out, "true");
    case JSON_FALSE: return em_buf_puts(out, "false");
    case JSON_NULL: return em_buf_puts(out, "null");
    }
    return em_fail(EMBER_E_INTERNAL, "JSON value of an unknown type");
}

ember_status em_json_print(const json_t *value, int indent, struct em_buf *out)
{
    return print(value, indent, 0, out);
}

ember_status em_json_write(const char *path, const json_t *value, int indent)
{
    struct em_buf text;
    em_buf_init(&text, 0);
    ember_status status = em_json_print(value, indent, &text);
    if (status == EMBER_OK) status = em_buf_putc(&text, '\n');
    if (status == EMBER_OK) status = em_write_file(path, text.data, text.size);
    em_buf_deinit(&text);
    return status;
}
