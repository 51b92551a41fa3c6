// Reading. jansson parses a copy of the text in which everything that jansson does not know is
// replaced: comments and trailing commas by spaces, the bare words NaN, Infinity and -Infinity by
// strings. A word grows by its two quotes; `shifts` takes positions in the copy back to the text,
// so that line and column stay true.
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"

enum { DEEPEST = 64, DEFAULT_LIMIT = 64 << 20 };

// jansson reports some failed allocations as bytes that it cannot decode.
static _Thread_local bool starved;

static void *allocate(size_t bytes)
{
    void *p = em_alloc(bytes);
    if (!p) starved = true;
    return p;
}

// Before main: a value that is built before the first one is read is freed by em_free too.
__attribute__((constructor)) static void use_our_allocator(void)
{
    json_set_alloc_funcs(allocate, em_free);
}

struct shifts {
    size_t *at; // positions in the copy where a quote was put in
    size_t count, capacity;
};

struct scan {
    const char *name, *text;
    size_t size, i;
    bool comments;
    struct em_buf copy;
    struct shifts shifts;
    char open[DEEPEST]; // '[' or '{'
    size_t depth;
    char last; // the last character that counts: outside comments and spaces; '"' for a string
    size_t last_comma; // where it is in the copy
};

// Columns count characters, not bytes.
static ember_status fail_at(const char *name, const char *text, size_t position, const char *what)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < position; i++) {
        if (text[i] == '\n') {
            line++;
            column = 1;
        } else if (((unsigned char)text[i] & 0xc0) != 0x80) {
            column++;
        }
    }
    return em_fail(EMBER_E_FORMAT, "%s:%zu:%zu: %s", name, line, column, what);
}

static ember_status fail_here(const struct scan *s, const char *what)
{
    return fail_at(s->name, s->text, s->i, what);
}

static ember_status copy_bytes(struct scan *s, size_t n)
{
    EM_TRY(em_buf_add(&s->copy, s->text + s->i, n));
    s->i += n;
    return EMBER_OK;
}

static ember_status blank(struct scan *s, size_t n)
{
    for (; n > 0; n--, s->i++)
        EM_TRY(em_buf_putc(&s->copy, s->text[s->i] == '\n' ? '\n' : ' '));
    return EMBER_OK;
}

static ember_status scan_string(struct scan *s)
{
    size_t end = s->i + 1;
    while (end < s->size && s->text[end] != '"')
        end += s->text[end] == '\\' && end + 1 < s->size ? 2 : 1;
    s->last = '"';
    return copy_bytes(s, (end < s->size ? end + 1 : s->size) - s->i);
}

static ember_status scan_comment(struct scan *s)
{
    const char *start = s->text + s->i;
    const size_t left = s->size - s->i;
    if (start[1] == '/') {
        const char *newline = memchr(start, '\n', left);
        return blank(s, newline ? (size_t)(newline - start) : left);
    }
    const char *end = left >= 4 ? memmem(start + 2, left - 2, "*/", 2) : NULL;
    if (!end) return fail_here(s, "this comment has no end");
    return blank(s, (size_t)(end - start) + 2);
}

// The length of a bare word that stands for a value here, or 0.
static size_t bare_word(const struct scan *s)
{
    static const char *const words[] = {"NaN", "Infinity", "-Infinity"};
    const bool value = s->depth == 0                  ? s->last == 0
                       : s->open[s->depth - 1] == '{' ? s->last == ':'
                                                      : s->last == '[' || s->last == ',';
    for (size_t w = 0; value && w < sizeof words / sizeof *words; w++) {
        const size_t n = strlen(words[w]);
        if (s->size - s->i < n || memcmp(s->text + s->i, words[w], n) != 0) continue;
        const char after = s->i + n < s->size ? s->text[s->i + n] : ' ';
        if (strchr(" \t\r\n,]}/", after) && after) return n;
    }
    return 0;
}

static ember_status put_quote(struct scan *s)
{
    EM_TRY(em_grow(&s->shifts.at, &s->shifts.capacity, s->shifts.count + 1, sizeof *s->shifts.at));
    s->shifts.at[s->shifts.count++] = s->copy.size;
    return em_buf_putc(&s->copy, '"');
}

static ember_status scan_token(struct scan *s)
{
    const char c = s->text[s->i];
    if (c == '"') return scan_string(s);
    if (c == 0) return fail_here(s, "a NUL byte"); // jansson takes it for the end
    if (c == ' ' || c == '\t' || c == '\r' || c == '\n') return copy_bytes(s, 1);
    if (c == '/' && s->comments && s->i + 1 < s->size &&
        (s->text[s->i + 1] == '/' || s->text[s->i + 1] == '*'))
        return scan_comment(s);
    if (c == 'N' || c == 'I' || c == '-') {
        const size_t n = bare_word(s);
        if (n > 0) {
            EM_TRY(put_quote(s));
            EM_TRY(copy_bytes(s, n));
            s->last = '"';
            return put_quote(s);
        }
    }
    if (c == '[' || c == '{') {
        if (s->depth == DEEPEST) return fail_here(s, "nested deeper than 64");
        s->open[s->depth++] = c;
    } else if (c == ']' || c == '}') {
        if (s->depth > 0) s->depth--; // whether they match is jansson's to say
        if (s->comments && s->last == ',') s->copy.data[s->last_comma] = ' ';
    } else if (c == ',') {
        // A comma that follows nothing is not a trailing one: it stays, and is refused.
        const bool follows = s->last && !strchr("[{,:", s->last);
        s->last_comma = s->copy.size;
        s->last = follows ? ',' : ':';
        return copy_bytes(s, 1);
    }
    s->last = c;
    return copy_bytes(s, 1);
}

static ember_status prepare(struct scan *s)
{
    EM_TRY(em_buf_reserve(&s->copy, s->size));
    if (s->size >= 3 && memcmp(s->text, "\xef\xbb\xbf", 3) == 0)
        EM_TRY(blank(s, 3)); // a byte order mark
    while (s->i < s->size)
        EM_TRY(scan_token(s));
    return EMBER_OK;
}

static size_t position_in_text(const struct shifts *shifts, size_t position)
{
    size_t before = 0;
    while (before < shifts->count && shifts->at[before] < position)
        before++;
    return position - before;
}

// jansson points behind the token that it names ("... near 'TOKEN'"); we point at its first
// character.
static size_t start_of_token(const struct scan *s, const json_error_t *error)
{
    const size_t end = (size_t)error->position;
    const char *near = strstr(error->text, "near '");
    if (!near || end > s->copy.size) return end;
    const char *token = near + strlen("near '");
    const size_t n = strlen(token) - (*token != 0); // without the quote after it
    return n <= end && memcmp(s->copy.data + end - n, token, n) == 0 ? end - n : end;
}

static ember_status fail_as_jansson(const struct scan *s, const json_error_t *error)
{
    if (starved) return em_fail_in(EMBER_E_NOMEM, "%s", s->name);
    if (error->position < 0) return em_fail(EMBER_E_FORMAT, "%s: %s", s->name, error->text);
    size_t position = position_in_text(&s->shifts, start_of_token(s, error));
    if (position > s->size) position = s->size;
    return fail_at(s->name, s->text, position, error->text);
}

ember_status em_json_parse(const char *name, const char *text, size_t size, int flags, json_t **out)
{
    struct scan s = {
        .name = name, .text = text, .size = size, .comments = flags & EM_JSON_COMMENTS};
    em_buf_init(&s.copy, 0);
    ember_status status = prepare(&s);
    if (status == EMBER_OK) {
        json_error_t error;
        starved = false;
        json_t *value =
            json_loadb(s.copy.data, s.copy.size,
                       JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
        if (value && starved) { // it can leave things out and go on
            json_decref(value);
            status = em_fail(EMBER_E_NOMEM, "%s: out of memory", name);
        } else if (value)
            *out = value;
        else
            status = fail_as_jansson(&s, &error);
    }
    em_buf_deinit(&s.copy);
    em_free(s.shifts.at);
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
