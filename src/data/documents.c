#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/log.h"
#include "data/documents.h"
#include "data/stream.h"
#include "formats/safetensors_header.h" // em_st_utf8_valid

enum { READ_BYTES = 1 << 18, LOOK_BYTES = 1 << 16, WARNINGS = 5, NOTES = 3 };

struct em_documents {
    char *const *paths;
    size_t count, next;
    const char *text_key;
    enum em_data_format wanted, format; // format: of the current file
    bool strict;
    struct em_stream *stream; // of the current file, NULL between files
    const char *file;
    uint64_t line;
    uint64_t used, dropped; // in the current file
    char *data;             // bytes read: [at, have)
    size_t at, have, capacity;
    bool end_of_file;
    char *text; // of a JSON line
    size_t text_capacity;
    unsigned warnings;
    struct em_document_stats stats;
};

ember_status em_documents_open(char *const *paths, size_t count,
                               const struct em_document_options *options, bool strict,
                               struct em_documents **out)
{
    struct em_documents *d = em_calloc(1, sizeof *d);
    if (!d) return EMBER_E_NOMEM;
    d->paths = paths;
    d->count = count;
    d->strict = strict;
    d->text_key = options && options->text_key ? options->text_key : "text";
    d->wanted = options ? options->format : EM_DATA_AUTO;
    *out = d;
    return EMBER_OK;
}

void em_documents_close(struct em_documents *documents)
{
    if (!documents) return;
    em_stream_close(documents->stream);
    em_free(documents->data);
    em_free(documents->text);
    em_free(documents);
}

const struct em_document_stats *em_documents_stats(const struct em_documents *documents)
{
    return &documents->stats;
}

static bool ends_with(const char *text, size_t n, const char *ending)
{
    const size_t m = strlen(ending);
    return n >= m && strncasecmp(text + n - m, ending, m) == 0;
}

// By the name's ending; EM_DATA_AUTO where that leaves it open.
static enum em_data_format format_of(const char *path)
{
    size_t n = strlen(path);
    if (ends_with(path, n, ".gz"))
        n -= 3;
    else if (ends_with(path, n, ".zst"))
        n -= 4;
    if (ends_with(path, n, ".jsonl") || ends_with(path, n, ".ndjson")) return EM_DATA_JSONL;
    return ends_with(path, n, ".json") ? EM_DATA_AUTO : EM_DATA_TEXT;
}

// More bytes behind those not used yet.
static ember_status read_more(struct em_documents *d)
{
    if (d->at > 0) {
        memmove(d->data, d->data + d->at, d->have - d->at);
        d->have -= d->at;
        d->at = 0;
    }
    size_t got;
    EM_TRY(em_grow(&d->data, &d->capacity, d->have + READ_BYTES, 1));
    EM_TRY(em_stream_read(d->stream, d->data + d->have, READ_BYTES, &got));
    d->have += got;
    d->end_of_file = got == 0;
    return EMBER_OK;
}

// A NUL byte, or one control character in ten that text does not have.
static bool looks_binary(const char *p, size_t n, size_t *where)
{
    size_t odd = 0;
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)p[i];
        if (c == 0) {
            *where = i;
            return true;
        }
        odd += (c < 0x20 && !strchr("\t\n\v\f\r\b\x1b", c)) || c == 0x7f;
    }
    *where = 0;
    return odd * 10 > n;
}

// The first bytes of the file just opened: a byte order mark goes, a binary file is passed over.
static ember_status check_start(struct em_documents *d, bool *usable)
{
    while (d->have < LOOK_BYTES && !d->end_of_file)
        EM_TRY(read_more(d));
    if (d->have >= 3 && memcmp(d->data, "\xef\xbb\xbf", 3) == 0) d->at = 3;
    size_t where;
    *usable = !looks_binary(d->data, d->have < LOOK_BYTES ? d->have : LOOK_BYTES, &where);
    if (*usable) return EMBER_OK;
    const bool utf16 = d->have >= 2 &&
                       (memcmp(d->data, "\xff\xfe", 2) == 0 || memcmp(d->data, "\xfe\xff", 2) == 0);
    if (d->strict)
        return em_fail(EMBER_E_FORMAT, "%s: expected text, found %s (byte %zu)", d->file,
                       utf16 ? "UTF-16: convert it to UTF-8 first" : "a binary file", where);
    if (d->stats.binary_files++ < NOTES)
        em_note("%s: passed over: %s", d->file,
                utf16 ? "UTF-16 (convert it to UTF-8)" : "a binary file");
    if (d->stats.binary_files == NOTES) em_note("further binary files are only counted");
    return EMBER_OK;
}

// A .json file: lines of documents, or a text like any other. Of an array of documents neither is
// true, so a user who names one is told.
static ember_status settle_json(struct em_documents *d)
{
    const char *text = d->data + d->at, *end = memchr(text, '\n', d->have - d->at);
    const size_t n = end ? (size_t)(end - text) : d->have - d->at;
    json_t *root = NULL;
    size_t i = 0;
    while (i < n && strchr(" \t\r", text[i]))
        i++;
    if (d->strict && i < n && text[i] == '[')
        return em_fail(
            EMBER_E_FORMAT,
            "%s: a JSON array; expected one object per line (JSON lines), for instance by: "
            "jq -c '.[]'",
            d->file);
    const bool object =
        i < n && text[i] == '{' && em_json_parse(d->file, text, n, 0, &root) == EMBER_OK;
    const bool lines = object && json_is_string(json_object_get(root, d->text_key));
    json_decref(root);
    d->format = lines ? EM_DATA_JSONL : EM_DATA_TEXT;
    d->stats.json_as_text += !lines;
    return EMBER_OK;
}

static ember_status open_next(struct em_documents *d)
{
    d->file = d->paths[d->next++];
    d->at = d->have = 0;
    d->line = d->used = d->dropped = 0;
    d->end_of_file = false;
    d->format = d->wanted == EM_DATA_AUTO ? format_of(d->file) : d->wanted;
    EM_TRY(em_stream_open(d->file, &d->stream));
    bool usable;
    EM_TRY(check_start(d, &usable));
    if (!usable) {
        em_stream_close(d->stream);
        d->stream = NULL;
        return EMBER_OK;
    }
    d->stats.files++;
    return d->format == EM_DATA_AUTO ? settle_json(d) : EMBER_OK;
}

static ember_status close_current(struct em_documents *d)
{
    em_stream_close(d->stream);
    d->stream = NULL;
    if (d->format == EM_DATA_JSONL && d->used == 0 && d->dropped > 0)
        return em_fail(EMBER_E_FORMAT,
                       "%s: none of its %llu lines is an object with a string \"%s\"", d->file,
                       (unsigned long long)d->dropped, d->text_key);
    return EMBER_OK;
}

static bool is_blank(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\n\v\f\r", p[i]) || p[i] == '\0') return false;
    return true;
}

// Counts a document and gives it out; false when there is nothing in it.
static bool give(struct em_documents *d, const char *text, size_t size, uint64_t line,
                 struct em_document *out)
{
    if (is_blank(text, size)) {
        d->stats.empty++;
        return false;
    }
    d->used++;
    d->stats.documents++;
    d->stats.bytes += size;
    // NUL is valid UTF-8, which tensor names must not have and texts may.
    for (size_t at = 0; at <= size;) {
        const char *nul = memchr(text + at, 0, size - at);
        const size_t end = nul ? (size_t)(nul - text) : size;
        if (!em_st_utf8_valid(text + at, end - at)) {
            d->stats.invalid_utf8++;
            break;
        }
        at = end + 1;
    }
    *out = (struct em_document){text, size, d->file, line};
    return true;
}

// Where to cut a large text: after the last empty line of its second half, else after a line, else
// before a character.
static size_t cut_place(const char *p, size_t n)
{
    for (size_t i = n; i > n / 2; i--)
        if (p[i - 1] == '\n' && p[i - 2] == '\n') return i;
    for (size_t i = n; i > n / 2; i--)
        if (p[i - 1] == '\n') return i;
    size_t i = n - 1;
    for (int back = 0; back < 3 && ((unsigned char)p[i] & 0xc0) == 0x80; back++)
        i--;
    return i;
}

static ember_status next_text(struct em_documents *d, struct em_document *out, bool *found)
{
    while (!d->end_of_file && d->have - d->at <= EM_DOCUMENT_CUT)
        EM_TRY(read_more(d));
    const char *text = d->data + d->at;
    size_t n = d->have - d->at;
    if (n > EM_DOCUMENT_CUT) {
        n = cut_place(text, EM_DOCUMENT_CUT);
        d->stats.cut++;
    }
    d->at += n;
    *found = give(d, text, n, 0, out);
    if (d->at == d->have && d->end_of_file) return close_current(d);
    return EMBER_OK;
}

// The next line, without its end; false when the file has no more. A line that is too long is
// skipped: *size is then its length, and *text NULL.
static ember_status next_line(struct em_documents *d, const char **text, size_t *size, bool *found)
{
    size_t seen = 0, skipped = 0;
    const char *end = NULL;
    for (;;) {
        end = d->have > d->at + seen ? memchr(d->data + d->at + seen, '\n', d->have - d->at - seen)
                                     : NULL;
        if (end || d->end_of_file) break;
        seen = d->have - d->at;
        if (seen > EM_DOCUMENT_LONGEST) {
            skipped += seen;
            d->at = d->have;
            seen = 0;
        }
        EM_TRY(read_more(d));
    }
    const size_t n = end ? (size_t)(end - (d->data + d->at)) : d->have - d->at;
    *found = end || n > 0 || skipped > 0;
    *text = skipped ? NULL : d->data + d->at;
    *size = skipped + n;
    if (!skipped && n > 0 && d->data[d->at + n - 1] == '\r') (*size)--;
    d->at += n + (end != NULL);
    d->line += *found;
    return EMBER_OK;
}

static ember_status drop(struct em_documents *d, const char *reason)
{
    d->dropped++;
    d->stats.dropped++;
    if (d->warnings < WARNINGS) em_warn("%s", reason);
    if (++d->warnings == WARNINGS) em_warn("further lines that cannot be used are only counted");
    return EMBER_OK;
}

// Keeps the string of a JSON line, which goes with its tree.
static ember_status take_text(struct em_documents *d, const json_t *root, size_t *size)
{
    const json_t *value = json_object_get(root, d->text_key);
    if (!json_is_string(value))
        return em_fail(EMBER_E_FORMAT, "%s:%llu: expected an object with a string \"%s\"%s",
                       d->file, (unsigned long long)d->line, d->text_key,
                       json_is_array(root) ? ", found an array (one object per line is read)" : "");
    *size = json_string_length(value);
    EM_TRY(em_grow(&d->text, &d->text_capacity, *size + 1, 1));
    memcpy(d->text, json_string_value(value), *size + 1);
    return EMBER_OK;
}

static ember_status parse_line(struct em_documents *d, const char *line, size_t n, size_t *size)
{
    if (!line)
        return em_fail(EMBER_E_FORMAT, "%s:%llu: a line of %zu bytes, at most %d are read", d->file,
                       (unsigned long long)d->line, n, EM_DOCUMENT_LONGEST);
    char place[64];
    json_t *root;
    // The parser's own place is "name:1:column"; the line is put in front of it.
    (void)snprintf(place, sizeof place, "%llu", (unsigned long long)d->line);
    ember_status status = em_json_parse(place, line, n, 0, &root);
    if (status != EMBER_OK) {
        char reason[512];
        const char *message = ember_last_error(),
                   *column = strncmp(message, place, strlen(place)) == 0 ? message + strlen(place)
                                                                         : message;
        if (strncmp(column, ":1:", 3) == 0) column += 2;
        (void)snprintf(reason, sizeof reason, "%s", column);
        return em_fail(status, "%s:%llu%s", d->file, (unsigned long long)d->line, reason);
    }
    status = take_text(d, root, size);
    json_decref(root);
    return status;
}

static ember_status next_of_lines(struct em_documents *d, struct em_document *out, bool *found)
{
    const char *line;
    size_t n, size;
    bool more;
    *found = false;
    EM_TRY(next_line(d, &line, &n, &more));
    if (!more) return close_current(d);
    if (line && is_blank(line, n)) { // of JSON lines an empty one is nobody's document
        if (d->format == EM_DATA_LINES) d->stats.empty++;
        return EMBER_OK;
    }
    if (d->format == EM_DATA_LINES && line) {
        *found = give(d, line, n, d->line, out);
        return EMBER_OK;
    }
    const ember_status status = parse_line(d, line, n, &size);
    if (status == EMBER_E_FORMAT) return drop(d, ember_last_error());
    EM_TRY(status);
    *found = give(d, d->text, size, d->line, out);
    if (!*found) d->used++; // an empty text is a line that could be read
    return EMBER_OK;
}

ember_status em_documents_next(struct em_documents *d, struct em_document *out, bool *more)
{
    for (;;) {
        if (!d->stream) {
            if (d->next == d->count) {
                *more = false;
                return EMBER_OK;
            }
            EM_TRY(open_next(d));
            continue;
        }
        bool found;
        EM_TRY(d->format == EM_DATA_TEXT ? next_text(d, out, &found)
                                         : next_of_lines(d, out, &found));
        if (found) {
            *more = true;
            return EMBER_OK;
        }
    }
}
