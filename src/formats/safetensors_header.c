#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "formats/safetensors_header.h"

// Reading position, and what messages need.
struct reader {
    const char *file;
    const char *tensor; // the one being read, or NULL
    const char *start, *at, *end;
    struct em_st_header *header;
    size_t *dims; // the shape being read
    size_t dims_capacity;
    char *string; // the string being read, unescaped and NUL-terminated
    size_t string_capacity;
};

enum { MAX_DEPTH = 64 };

static ember_status bad(const struct reader *r, const char *expected)
{
    char found[16] = "the end";
    const unsigned char c = r->at < r->end ? (unsigned char)*r->at : 0;
    if (r->at < r->end)
        snprintf(found, sizeof found, c >= 0x20 && c < 0x7f ? "'%c'" : "byte 0x%02x", c);
    return em_fail(EMBER_E_FORMAT, "%s: %s%.200s%sheader byte %zu: expected %s, found %s", r->file,
                   r->tensor ? "tensor " : "", r->tensor ? r->tensor : "", r->tensor ? ": " : "",
                   (size_t)(r->at - r->start), expected, found);
}

static void skip_space(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\t' || *r->at == '\r'))
        r->at++;
}

// Takes `c` if it is next.
static bool take(struct reader *r, char c)
{
    skip_space(r);
    if (r->at == r->end || *r->at != c) return false;
    r->at++;
    return true;
}

bool em_st_utf8_valid(const char *text, size_t size)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + size;
    while (p < end) {
        const unsigned c = *p;
        if (c == 0) return false;
        if (c < 0x80) {
            p++;
            continue;
        }
        const size_t more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        if (c < 0xc2 || c > 0xf4 || (size_t)(end - p) <= more) return false;
        for (size_t i = 1; i <= more; i++)
            if ((p[i] & 0xc0) != 0x80) return false;
        if ((c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] > 0x9f) ||
            (c == 0xf0 && p[1] < 0x90) || (c == 0xf4 && p[1] > 0x8f))
            return false;
        p += more + 1;
    }
    return true;
}

static bool hex4(const char *p, const char *end, unsigned *out)
{
    if (end - p < 4) return false;
    unsigned v = 0;
    for (int i = 0; i < 4; i++) {
        const char c = p[i];
        unsigned digit;
        if (c >= '0' && c <= '9')
            digit = (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (unsigned)(c - 'a') + 10;
        else if (c >= 'A' && c <= 'F')
            digit = (unsigned)(c - 'A') + 10;
        else
            return false;
        v = v * 16 + digit;
    }
    *out = v;
    return true;
}

static size_t put_utf8(char *to, unsigned code)
{
    if (code < 0x80) {
        to[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        to[0] = (char)(0xc0 | code >> 6);
        to[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        to[0] = (char)(0xe0 | code >> 12);
        to[1] = (char)(0x80 | (code >> 6 & 0x3f));
        to[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    to[0] = (char)(0xf0 | code >> 18);
    to[1] = (char)(0x80 | (code >> 12 & 0x3f));
    to[2] = (char)(0x80 | (code >> 6 & 0x3f));
    to[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

// One escape after its backslash into `to`; returns the bytes written, 0 for a broken one.
static size_t unescape(struct reader *r, char *to)
{
    if (r->at == r->end) return 0;
    const char c = *r->at++;
    switch (c) {
    case '"': *to = '"'; return 1;
    case '\\': *to = '\\'; return 1;
    case '/': *to = '/'; return 1;
    case 'b': *to = '\b'; return 1;
    case 'f': *to = '\f'; return 1;
    case 'n': *to = '\n'; return 1;
    case 'r': *to = '\r'; return 1;
    case 't': *to = '\t'; return 1;
    case 'u': break;
    default: return 0;
    }
    unsigned code, low;
    if (!hex4(r->at, r->end, &code)) return 0;
    r->at += 4;
    if (code >= 0xd800 && code < 0xdc00) {
        if (r->end - r->at < 6 || r->at[0] != '\\' || r->at[1] != 'u' ||
            !hex4(r->at + 2, r->end, &low) || low < 0xdc00 || low > 0xdfff)
            return 0;
        r->at += 6;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    if (code == 0 || (code >= 0xdc00 && code <= 0xdfff)) return 0;
    return put_utf8(to, code);
}

// A string into r->string.
static ember_status read_string(struct reader *r, const char *expected, size_t *length)
{
    if (!take(r, '"')) return bad(r, expected);
    const char *quote = r->at;
    while (quote < r->end && *quote != '"')
        quote += *quote == '\\' && quote + 1 < r->end ? 2 : 1;
    if (quote >= r->end) return bad(r, "the end of a string");
    EM_TRY(em_grow(&r->string, &r->string_capacity, (size_t)(quote - r->at) + 1, 1));
    size_t n = 0; // unescaping never lengthens
    while (r->at < quote) {
        const char c = *r->at;
        if ((unsigned char)c < 0x20) return bad(r, "a string without control characters");
        r->at++;
        if (c != '\\') {
            r->string[n++] = c;
            continue;
        }
        const size_t put = unescape(r, r->string + n);
        if (put == 0) return bad(r, "a valid escape (and not NUL)");
        n += put;
    }
    r->string[n] = '\0';
    if (!em_st_utf8_valid(r->string, n)) return bad(r, "a string of valid UTF-8 before this");
    r->at = quote + 1;
    *length = n;
    return EMBER_OK;
}

// A string kept in the header's arena.
static ember_status keep_string(struct reader *r, const char *expected, const char **out)
{
    size_t n;
    EM_TRY(read_string(r, expected, &n));
    *out = em_arena_strndup(&r->header->arena, r->string, n);
    return *out ? EMBER_OK : EMBER_E_NOMEM;
}

static ember_status read_integer(struct reader *r, uint64_t *out)
{
    skip_space(r);
    const char *first = r->at;
    uint64_t v = 0;
    for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++) {
        const uint64_t digit = (uint64_t)(*r->at - '0');
        if (v > (UINT64_MAX - digit) / 10) return bad(r, "an integer below 2^64");
        v = v * 10 + digit;
    }
    if (r->at == first || (*first == '0' && r->at > first + 1))
        return bad(r, "a non-negative integer");
    *out = v;
    return EMBER_OK;
}

static bool number_character(char c)
{
    return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E';
}

// Any value: keys of an entry that this version does not know.
static ember_status skip_value(struct reader *r, int depth)
{
    if (depth > MAX_DEPTH) return bad(r, "at most 64 nested values");
    skip_space(r);
    if (r->at == r->end) return bad(r, "a value");
    size_t n;
    if (*r->at == '"') return read_string(r, "a string", &n);
    if (take(r, '{')) {
        if (take(r, '}')) return EMBER_OK;
        do {
            EM_TRY(read_string(r, "a key", &n));
            if (!take(r, ':')) return bad(r, "':'");
            EM_TRY(skip_value(r, depth + 1));
        } while (take(r, ','));
        return take(r, '}') ? EMBER_OK : bad(r, "',' or '}'");
    }
    if (take(r, '[')) {
        if (take(r, ']')) return EMBER_OK;
        do
            EM_TRY(skip_value(r, depth + 1));
        while (take(r, ','));
        return take(r, ']') ? EMBER_OK : bad(r, "',' or ']'");
    }
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < 3; i++) {
        const size_t length = strlen(words[i]);
        if ((size_t)(r->end - r->at) >= length && memcmp(r->at, words[i], length) == 0) {
            r->at += length;
            return EMBER_OK;
        }
    }
    const char *first = r->at;
    while (r->at < r->end && number_character(*r->at))
        r->at++;
    return r->at > first ? EMBER_OK : bad(r, "a value");
}

static ember_status read_shape(struct reader *r, struct em_st_tensor *t)
{
    if (!take(r, '[')) return bad(r, "'[' of a shape");
    size_t rank = 0;
    if (!take(r, ']')) {
        do {
            uint64_t v;
            EM_TRY(read_integer(r, &v));
            if (v > SIZE_MAX) return bad(r, "a dimension that fits this machine");
            EM_TRY(em_grow(&r->dims, &r->dims_capacity, rank + 1, sizeof *r->dims));
            r->dims[rank++] = (size_t)v;
        } while (take(r, ','));
        if (!take(r, ']')) return bad(r, "',' or ']' in a shape");
    }
    size_t *shape = em_arena_alloc(&r->header->arena, (rank ? rank : 1) * sizeof *shape);
    if (!shape) return EMBER_E_NOMEM;
    if (rank) memcpy(shape, r->dims, rank * sizeof *shape);
    t->shape = shape;
    t->rank = rank;
    return EMBER_OK;
}

static ember_status read_offsets(struct reader *r, struct em_st_entry *e)
{
    if (!take(r, '[')) return bad(r, "'[' of data_offsets");
    EM_TRY(read_integer(r, &e->begin));
    if (!take(r, ',')) return bad(r, "',' in data_offsets");
    EM_TRY(read_integer(r, &e->end));
    return take(r, ']') ? EMBER_OK : bad(r, "']' after two data_offsets");
}

static ember_status read_dtype(struct reader *r, struct em_st_tensor *t)
{
    size_t n;
    EM_TRY(read_string(r, "a dtype's name", &n));
    if (!em_st_dtype_parse(r->string, n, &t->dtype))
        return em_fail(EMBER_E_UNSUPPORTED,
                       "%s: tensor %.200s: dtype \"%.60s\" is not known (F32, BF16, F16, ... are)",
                       r->file, t->name, r->string);
    return EMBER_OK;
}

static ember_status read_entry(struct reader *r, const char *name)
{
    struct em_st_header *h = r->header;
    EM_TRY(em_grow(&h->entries, &h->capacity, h->count + 1, sizeof *h->entries));
    struct em_st_entry e = {.tensor.name = name};
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4, ALL = 7 };
    unsigned seen = 0;
    if (!take(r, '{')) return bad(r, "'{' of a tensor");
    if (!take(r, '}')) {
        do {
            size_t n;
            EM_TRY(read_string(r, "a key of a tensor", &n));
            if (!take(r, ':')) return bad(r, "':'");
            const unsigned key = strcmp(r->string, "dtype") == 0          ? DTYPE
                                 : strcmp(r->string, "shape") == 0        ? SHAPE
                                 : strcmp(r->string, "data_offsets") == 0 ? OFFSETS
                                                                          : 0;
            if (seen & key) return bad(r, "each key of a tensor once");
            seen |= key;
            if (key == DTYPE)
                EM_TRY(read_dtype(r, &e.tensor));
            else if (key == SHAPE)
                EM_TRY(read_shape(r, &e.tensor));
            else if (key == OFFSETS)
                EM_TRY(read_offsets(r, &e));
            else
                EM_TRY(skip_value(r, 1));
        } while (take(r, ','));
        if (!take(r, '}')) return bad(r, "',' or '}' in a tensor");
    }
    if (seen != ALL)
        return em_fail(EMBER_E_FORMAT, "%s: tensor %s has no %s", r->file, name,
                       !(seen & DTYPE)   ? "dtype"
                       : !(seen & SHAPE) ? "shape"
                                         : "data_offsets");
    h->entries[h->count++] = e;
    return EMBER_OK;
}

static ember_status read_metadata(struct reader *r)
{
    struct em_st_header *h = r->header;
    if (!take(r, '{')) return bad(r, "'{' of __metadata__");
    if (take(r, '}')) return EMBER_OK;
    do {
        struct em_st_pair pair;
        EM_TRY(keep_string(r, "a key of __metadata__", &pair.key));
        if (!take(r, ':')) return bad(r, "':'");
        EM_TRY(keep_string(r, "a string in __metadata__", &pair.value));
        EM_TRY(em_grow(&h->metadata, &h->metadata_capacity, h->metadata_count + 1, sizeof pair));
        h->metadata[h->metadata_count++] = pair;
    } while (take(r, ','));
    return take(r, '}') ? EMBER_OK : bad(r, "',' or '}' in __metadata__");
}

static ember_status read_header(struct reader *r)
{
    bool metadata = false;
    // The first byte is '{' and not a space, so that no other format's magic fits in front.
    if (r->at == r->end || *r->at != '{') return bad(r, "'{'");
    r->at++;
    if (!take(r, '}')) {
        do {
            const char *name;
            EM_TRY(keep_string(r, "a tensor's name", &name));
            if (!take(r, ':')) return bad(r, "':'");
            r->tensor = name;
            if (strcmp(name, "__metadata__") == 0) {
                r->tensor = NULL;
                if (metadata) return bad(r, "__metadata__ once");
                metadata = true;
                EM_TRY(read_metadata(r));
            } else {
                EM_TRY(read_entry(r, name));
            }
            r->tensor = NULL;
        } while (take(r, ','));
        if (!take(r, '}')) return bad(r, "',' or '}'");
    }
    skip_space(r);
    return r->at == r->end ? EMBER_OK : bad(r, "only spaces after the header's object");
}

ember_status em_st_header_parse(const char *file, const char *text, size_t size,
                                struct em_st_header *out)
{
    struct em_st_header header = {0};
    struct reader r = {
        .file = file, .start = text, .at = text, .end = text + size, .header = &header};
    const ember_status status = read_header(&r);
    em_free(r.dims);
    em_free(r.string);
    if (status != EMBER_OK) em_st_header_deinit(&header);
    *out = header;
    return status;
}

void em_st_header_deinit(struct em_st_header *header)
{
    em_arena_deinit(&header->arena);
    em_free(header->entries);
    em_free(header->metadata);
    *header = (struct em_st_header){0};
}
