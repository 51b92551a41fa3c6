// Reading. jansson holds the values; the text is read here, because jansson's own reader drops
// bytes without a word when memory ends inside a token, and knows neither comments nor trailing
// commas nor the bare words that Python writes.
#include "base/json.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"

enum { DEEPEST = 64, DEFAULT_LIMIT = 64 << 20, LONGEST_SHOWN = 40 };

void em_json_use_seam(void)
{
    json_set_alloc_funcs(em_alloc, em_free);
}

struct reader {
    const char *name, *text;
    size_t size, i;
    bool comments;
    int depth;
    size_t memory;       // bytes that values may still take
    struct em_buf token; // the string or number being read
};

// Columns count characters, not bytes.
static ember_status fail_at(const struct reader *r, size_t position, const char *what)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < position; i++) {
        if (r->text[i] == '\n') {
            line++;
            column = 1;
        } else if (((unsigned char)r->text[i] & 0xc0) != 0x80) {
            column++;
        }
    }
    return em_fail(EMBER_E_FORMAT, "%s:%zu:%zu: %s", r->name, line, column, what);
}

static bool in_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '+' || c == '-' || c == '.';
}

// "WHAT near 'TOKEN'", where TOKEN is the word or the character that begins at `position`.
static ember_status fail_near(const struct reader *r, size_t position, const char *what)
{
    char text[128];
    size_t n = 0;
    while (position + n < r->size && n < LONGEST_SHOWN && in_word(r->text[position + n]))
        n++;
    if (n == 0 && position < r->size) n = 1;
    const bool shown = n > 1 || (n == 1 && (unsigned char)r->text[position] >= 0x20 &&
                                 (unsigned char)r->text[position] < 0x7f);
    if (position >= r->size)
        snprintf(text, sizeof text, "%s near end of file", what);
    else if (shown)
        snprintf(text, sizeof text, "%s near '%.*s'", what, (int)n, r->text + position);
    else
        snprintf(text, sizeof text, "%s at byte 0x%02x", what, (unsigned char)r->text[position]);
    return fail_at(r, position, text);
}

static ember_status no_memory(const struct reader *r)
{
    return em_fail(EMBER_E_NOMEM, "%s: out of memory", r->name);
}

// What jansson and malloc take for a value, about. Arrays and objects start with room for eight.
enum {
    CONTAINER_BYTES = 200,
    NUMBER_BYTES = 32,
    STRING_BYTES = 64,
    SLOT_BYTES = 16,
    PAIR_BYTES = 96
};

static ember_status take_memory(struct reader *r, size_t bytes)
{
    if (bytes > r->memory)
        return fail_at(r, r->i, "more values than this file's size allows memory for");
    r->memory -= bytes;
    return EMBER_OK;
}

static ember_status skip_comment(struct reader *r)
{
    const char *start = r->text + r->i;
    const size_t left = r->size - r->i;
    if (start[1] == '/') {
        const char *newline = memchr(start, '\n', left);
        r->i += newline ? (size_t)(newline - start) : left;
        return EMBER_OK;
    }
    const char *end = left >= 4 ? memmem(start + 2, left - 2, "*/", 2) : NULL;
    if (!end) return fail_at(r, r->i, "this comment has no end");
    r->i += (size_t)(end - start) + 2;
    return EMBER_OK;
}

// To the next token; *c is its first character, 0 at the end of the text.
static ember_status next(struct reader *r, char *c)
{
    while (r->i < r->size) {
        *c = r->text[r->i];
        if (*c == 0) return fail_at(r, r->i, "a NUL byte");
        if (*c == ' ' || *c == '\t' || *c == '\r' || *c == '\n')
            r->i++;
        else if (*c == '/' && r->comments && r->i + 1 < r->size &&
                 (r->text[r->i + 1] == '/' || r->text[r->i + 1] == '*'))
            EM_TRY(skip_comment(r));
        else
            return EMBER_OK;
    }
    *c = 0;
    return EMBER_OK;
}

// Bytes of the UTF-8 character at p, 0 where there is none: cut short, not the shortest form, a
// surrogate, or past U+10FFFF.
static size_t utf8_bytes(const unsigned char *p, size_t left)
{
    if (p[0] < 0x80) return 1;
    const size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || n > left) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

// The four digits of \uXXXX, whose backslash is at `i`; -1: they are not there.
static int hex4(const struct reader *r, size_t i)
{
    int value = 0;
    if (r->size - i < 6 || r->text[i] != '\\' || r->text[i + 1] != 'u') return -1;
    for (size_t k = i + 2; k < i + 6; k++) {
        const char c = r->text[k];
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

static ember_status add_code_point(struct em_buf *out, unsigned u)
{
    const unsigned char bytes[4] = {
        (unsigned char)(u < 0x80      ? u
                        : u < 0x800   ? 0xc0 | u >> 6
                        : u < 0x10000 ? 0xe0 | u >> 12
                                      : 0xf0 | u >> 18),
        (unsigned char)(0x80 | (u < 0x800     ? u & 63
                                : u < 0x10000 ? u >> 6 & 63
                                              : u >> 12 & 63)),
        (unsigned char)(0x80 | (u < 0x10000 ? u & 63 : u >> 6 & 63)),
        (unsigned char)(0x80 | (u & 63)),
    };
    return em_buf_add(out, bytes, u < 0x80 ? 1 : u < 0x800 ? 2 : u < 0x10000 ? 3 : 4);
}

static ember_status read_unicode(struct reader *r)
{
    int u = hex4(r, r->i), low = -1;
    if (u >= 0xd800 && u <= 0xdbff) low = r->size - r->i > 6 ? hex4(r, r->i + 6) : -1;
    if (u < 0) return fail_near(r, r->i, "invalid escape");
    if (u >= 0xd800 && u <= 0xdfff) {
        if (u > 0xdbff || low < 0xdc00 || low > 0xdfff)
            return fail_at(r, r->i, "invalid Unicode: half of a surrogate pair");
        u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);
        r->i += 6;
    }
    r->i += 6;
    return add_code_point(&r->token, (unsigned)u);
}

static ember_status read_escape(struct reader *r)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char c = r->i + 1 < r->size ? r->text[r->i + 1] : 0;
    if (c == 'u') return read_unicode(r);
    const char *at = c ? strchr(from, c) : NULL;
    if (!at) return fail_at(r, r->i, "invalid escape");
    r->i += 2;
    return em_buf_putc(&r->token, to[at - from]);
}

// The string whose opening quote is next, decoded into r->token.
static ember_status read_string(struct reader *r)
{
    const size_t start = r->i++;
    em_buf_clear(&r->token);
    EM_TRY(em_buf_reserve(&r->token, 1));
    for (;;) {
        const size_t plain = r->i;
        size_t n = 1;
        while (r->i < r->size && r->text[r->i] != '"' && r->text[r->i] != '\\' &&
               (unsigned char)r->text[r->i] >= 0x20 && n) {
            n = utf8_bytes((const unsigned char *)r->text + r->i, r->size - r->i);
            r->i += n;
        }
        EM_TRY(em_buf_add(&r->token, r->text + plain, r->i - plain));
        if (r->i == r->size) return fail_at(r, start, "this string has no end");
        const unsigned char c = (unsigned char)r->text[r->i];
        if (!n || c < 0x20) {
            char what[64];
            snprintf(what, sizeof what, n ? "control character 0x%x" : "unable to decode byte 0x%x",
                     c);
            return fail_at(r, r->i, what);
        }
        if (c == '"') {
            r->i++;
            return EMBER_OK;
        }
        EM_TRY(read_escape(r));
    }
}

static size_t digits(const struct reader *r, size_t i)
{
    const size_t start = i;
    while (i < r->size && r->text[i] >= '0' && r->text[i] <= '9')
        i++;
    return i - start;
}

static ember_status read_real(struct reader *r, size_t start, size_t end, json_t **out)
{
    // strtod reads the decimal point of the program's locale.
    const char *point = localeconv()->decimal_point;
    em_buf_clear(&r->token);
    for (size_t i = start; i < end; i++)
        EM_TRY(r->text[i] == '.' ? em_buf_puts(&r->token, point)
                                 : em_buf_putc(&r->token, r->text[i]));
    const double value = strtod(r->token.data, NULL);
    if (value > 0x1.fffffffffffffp1023 || value < -0x1.fffffffffffffp1023)
        return fail_near(r, start, "real number overflow");
    *out = json_real(value);
    return *out ? EMBER_OK : no_memory(r);
}

static ember_status read_number(struct reader *r, json_t **out)
{
    const size_t start = r->i;
    size_t i = start + (r->text[start] == '-');
    const size_t whole = digits(r, i);
    bool real = false, valid = whole == 1 || (whole > 1 && r->text[i] != '0');
    i += whole;
    if (valid && i < r->size && r->text[i] == '.') {
        const size_t n = digits(r, i + 1);
        real = true;
        valid = n > 0;
        i += 1 + n;
    }
    if (valid && i < r->size && (r->text[i] == 'e' || r->text[i] == 'E')) {
        i += 1 + (i + 1 < r->size && (r->text[i + 1] == '+' || r->text[i + 1] == '-'));
        const size_t n = digits(r, i);
        real = true;
        valid = n > 0;
        i += n;
    }
    if (!valid || (i < r->size && in_word(r->text[i]))) return fail_near(r, start, "invalid token");
    r->i = i;
    if (real) return read_real(r, start, i, out);
    const bool negative = r->text[start] == '-';
    json_int_t value = 0;
    for (size_t k = start + negative; k < i; k++) {
        const int digit = r->text[k] - '0';
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, negative ? -digit : digit, &value))
            return fail_near(r, start, negative ? "too big negative integer" : "too big integer");
    }
    *out = json_integer(value);
    return *out ? EMBER_OK : no_memory(r);
}

static ember_status read_word(struct reader *r, json_t **out)
{
    static const char *const words[] = {"true", "false", "null", "NaN", "Infinity", "-Infinity"};
    size_t n = 0, w = 0;
    while (r->i + n < r->size && in_word(r->text[r->i + n]))
        n++;
    while (w < 6 && (strlen(words[w]) != n || memcmp(words[w], r->text + r->i, n) != 0))
        w++;
    switch (w) {
    case 0: *out = json_true(); break;
    case 1: *out = json_false(); break;
    case 2: *out = json_null(); break;
    case 3:
    case 4:
    case 5: *out = json_string_nocheck(words[w]); break;
    default:
        return r->text[r->i] == '-' ? read_number(r, out) : fail_near(r, r->i, "invalid token");
    }
    r->i += n;
    return *out ? EMBER_OK : no_memory(r);
}

static ember_status read_value(struct reader *r, json_t **out);

// What stands after a member: a comma before the next one, or the end. A comma right before the
// end is for texts with comments.
static ember_status after_member(struct reader *r, char close, bool *more)
{
    char c;
    EM_TRY(next(r, &c));
    *more = c == ',';
    if (c != ',' && c != close)
        return fail_near(r, r->i, close == ']' ? "']' expected" : "'}' expected");
    r->i++;
    if (c == close) return EMBER_OK;
    EM_TRY(next(r, &c));
    if (c != close || !r->comments) return EMBER_OK;
    *more = false;
    r->i++;
    return EMBER_OK;
}

// An object or array begins: whether it has members.
static ember_status open(struct reader *r, char close, bool *more)
{
    char c;
    if (r->depth == DEEPEST) return fail_at(r, r->i, "nested deeper than 64");
    r->depth++;
    r->i++;
    EM_TRY(next(r, &c));
    *more = c != close;
    if (c == close) r->i++;
    return EMBER_OK;
}

static ember_status read_members(struct reader *r, json_t *array)
{
    bool more;
    EM_TRY(open(r, ']', &more));
    while (more) {
        json_t *value = NULL;
        EM_TRY(take_memory(r, SLOT_BYTES));
        EM_TRY(read_value(r, &value));
        if (json_array_append_new(array, value)) return no_memory(r);
        EM_TRY(after_member(r, ']', &more));
    }
    r->depth--;
    return EMBER_OK;
}

// jansson's keys are C strings. The key is kept beside r->token, which the value needs.
static ember_status read_member(struct reader *r, json_t *object, char **key)
{
    char c;
    json_t *value = NULL;
    const size_t start = r->i;
    EM_TRY(read_string(r));
    if (memchr(r->token.data, 0, r->token.size))
        return fail_at(r, start, "NUL byte in object key not supported");
    if (json_object_get(object, r->token.data)) {
        char what[96];
        snprintf(what, sizeof what, "duplicate object key \"%.60s\"", r->token.data);
        return fail_at(r, start, what);
    }
    EM_TRY(take_memory(r, PAIR_BYTES + r->token.size));
    if (!(*key = em_strndup(r->token.data, r->token.size))) return EMBER_E_NOMEM;
    EM_TRY(next(r, &c));
    if (c != ':') return fail_near(r, r->i, "':' expected");
    r->i++;
    EM_TRY(read_value(r, &value));
    return json_object_set_new_nocheck(object, *key, value) ? no_memory(r) : EMBER_OK;
}

static ember_status read_object(struct reader *r, json_t *object)
{
    bool more;
    EM_TRY(open(r, '}', &more));
    while (more) {
        char c, *key = NULL;
        EM_TRY(next(r, &c));
        if (c != '"') return fail_near(r, r->i, "string or '}' expected");
        const ember_status status = read_member(r, object, &key);
        em_free(key);
        EM_TRY(status);
        EM_TRY(after_member(r, '}', &more));
    }
    r->depth--;
    return EMBER_OK;
}

static ember_status read_container(struct reader *r, bool object, json_t **out)
{
    EM_TRY(take_memory(r, CONTAINER_BYTES));
    json_t *value = object ? json_object() : json_array();
    if (!value) return no_memory(r);
    const ember_status status = object ? read_object(r, value) : read_members(r, value);
    if (status == EMBER_OK)
        *out = value;
    else
        json_decref(value);
    return status;
}

static ember_status read_value(struct reader *r, json_t **out)
{
    char c;
    EM_TRY(next(r, &c));
    if (c == '{' || c == '[') return read_container(r, c == '{', out);
    if (c == '"') {
        EM_TRY(read_string(r));
        EM_TRY(take_memory(r, STRING_BYTES + r->token.size));
        *out = json_stringn_nocheck(r->token.data, r->token.size);
        return *out ? EMBER_OK : no_memory(r);
    }
    EM_TRY(take_memory(r, NUMBER_BYTES));
    if (c >= '0' && c <= '9') return read_number(r, out);
    if (in_word(c)) return read_word(r, out);
    return fail_near(r, r->i, "a value expected");
}

static ember_status read_all(struct reader *r, json_t **out)
{
    char c;
    if (r->size >= 3 && memcmp(r->text, "\xef\xbb\xbf", 3) == 0) r->i = 3; // a byte order mark
    EM_TRY(read_value(r, out));
    EM_TRY(next(r, &c));
    return r->i == r->size ? EMBER_OK : fail_near(r, r->i, "end of file expected");
}

ember_status em_json_parse(const char *name, const char *text, size_t size, int flags, json_t **out)
{
    struct reader r = {
        .name = name, .text = text, .size = size, .comments = flags & EM_JSON_COMMENTS};
    // The text itself is the other half of "twice its size".
    const size_t values = flags & EM_JSON_DENSE ? 3 : 1;
    if (!em_mul_size(values, size, &r.memory) || !em_add_size(r.memory, 64 << 20, &r.memory))
        r.memory = SIZE_MAX;
    json_t *value = NULL;
    em_buf_init(&r.token, 0);
    const ember_status status = read_all(&r, &value);
    em_buf_deinit(&r.token);
    if (status == EMBER_OK)
        *out = value;
    else
        json_decref(value);
    return status;
}

ember_status em_json_read(const char *path, size_t limit, int flags, json_t **out)
{
    struct em_buf text;
    em_buf_init(&text, 0);
    ember_status status = em_read_file(path, limit ? limit : DEFAULT_LIMIT, &text);
    if (status == EMBER_OK)
        status = em_json_parse(path, text.data ? text.data : "", text.size, flags, out);
    em_buf_deinit(&text);
    return status;
}
