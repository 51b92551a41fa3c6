// Broken files made from good ones: truncated, bits flipped, pieces moved, and, where the file is
// JSON (or has a JSON header, as safetensors does), numbers made extreme, members doubled and
// removed, values nested, strings and values swapped. A case is a function of its seed.
#ifndef FUZZ_MUTATE_H
#define FUZZ_MUTATE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/rng.h"

// A piece of text, [begin, end): a value, and where it is a member's, the member from its key on.
struct mutate_span {
    size_t begin, end, member;
    char kind; // its first character
};

enum { MUTATE_SPANS = 1024, MUTATE_DEPTH = 96 };

struct mutate_json {
    struct mutate_span span[MUTATE_SPANS];
    size_t count;
};

static inline size_t mutate_string_end(const uint8_t *s, size_t n, size_t at)
{
    for (at++; at < n && s[at] != '"'; at++)
        if (s[at] == '\\') at++;
    return at < n ? at + 1 : n;
}

// Finds the values of a text that may be broken already.
static inline void mutate_scan(const uint8_t *s, size_t n, struct mutate_json *json)
{
    size_t open[MUTATE_DEPTH], depth = 0, key = SIZE_MAX;
    json->count = 0;
    for (size_t i = 0; i < n && json->count < MUTATE_SPANS;) {
        const uint8_t c = s[i];
        if (strchr(" \t\r\n,:", c)) {
            i++;
            continue;
        }
        if (c == '}' || c == ']') {
            if (depth > 0) json->span[open[--depth]].end = i + 1;
            i++;
            continue;
        }
        struct mutate_span *v = &json->span[json->count];
        *v = (struct mutate_span){i, n, key == SIZE_MAX ? i : key, (char)c};
        key = SIZE_MAX;
        if (c == '{' || c == '[') {
            if (depth == MUTATE_DEPTH) return;
            open[depth++] = json->count++;
            i++;
        } else if (c == '"') {
            const size_t end = mutate_string_end(s, n, i);
            size_t colon = end;
            while (colon < n && strchr(" \t\r\n", s[colon]) && s[colon])
                colon++;
            if (colon < n && s[colon] == ':') { // a key: its value comes next
                key = i;
                i = colon + 1;
                continue;
            }
            v->end = end;
            json->count++;
            i = end;
        } else {
            while (i < n && s[i] && !strchr(" \t\r\n,:]}", s[i]))
                i++;
            if (i == v->begin) i++;
            v->end = i;
            json->count++;
        }
    }
}

// The case being made.
struct mutate_case {
    uint8_t *data;
    size_t size, capacity;
    struct em_rng rng;
    struct mutate_json json;
};

static inline size_t mutate_below(struct mutate_case *c, size_t n)
{
    return (size_t)em_rng_below(&c->rng, n ? n : 1);
}

// Replaces [begin, end) by `text`; too large a result is left undone.
static inline void mutate_replace(struct mutate_case *c, size_t begin, size_t end, const void *text,
                                  size_t n)
{
    if (c->size - (end - begin) + n > c->capacity) return;
    memmove(c->data + begin + n, c->data + end, c->size - end);
    memcpy(c->data + begin, text, n);
    c->size = c->size - (end - begin) + n;
}

// One of `set`, or NUL.
static inline uint8_t mutate_character(struct mutate_case *c, const char *set)
{
    return (uint8_t)set[mutate_below(c, strlen(set) + 1)];
}

static inline void mutate_bytes(struct mutate_case *c)
{
    uint8_t piece[256];
    const size_t at = mutate_below(c, c->size), left = c->size - at;
    const size_t n = left ? 1 + mutate_below(c, left < sizeof piece ? left : sizeof piece) : 0;
    switch (mutate_below(c, 6)) {
    case 0: c->size = at; break; // truncated
    case 1:
    case 2: // a few bits
        for (size_t k = 1 + mutate_below(c, 8); k > 0 && c->size > 0; k--)
            c->data[mutate_below(c, c->size)] ^= (uint8_t)(1u << mutate_below(c, 8));
        break;
    case 3: // a byte of those that matter
        if (left) c->data[at] = mutate_character(c, "\xff\x80\x7f\"\\{}[]:,0-9.eE\n ");
        break;
    case 4: mutate_replace(c, at, at + n, "", 0); break; // a piece lost
    default:                                             // a piece elsewhere again
        memcpy(piece, c->data + at, n);
        const size_t to = mutate_below(c, c->size + 1);
        mutate_replace(c, to, to, piece, n);
    }
}

static const char *const mutate_values[] = {
    "0",
    "-1",
    "1",
    "2",
    "255",
    "4294967295",
    "4294967296",
    "2147483647",
    "2147483648",
    "-2147483649",
    "4398046511104",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "0.5",
    "-0.0",
    "1e-400",
    "1e308",
    "1e999",
    "1e19",
    "NaN",
    "-Infinity",
    "null",
    "true",
    "false",
    "\"\"",
    "\"..\"",
    "\"../../x\"",
    "\"/etc/passwd\"",
    "\"a\\u0000b\"",
    "\"\\ud800\"",
    "\"\\uffff\"",
    "\"\xc3\x28\"",
    "[]",
    "{}",
    "[[]]",
    "{\"type\":\"moe\"}",
    "00",
    "1.",
    "'x'",
};

// One change to the JSON in [from, from + n); returns its new length.
static inline size_t mutate_json_once(struct mutate_case *c, size_t from, size_t n)
{
    const size_t before = c->size;
    mutate_scan(c->data + from, n, &c->json);
    if (c->json.count == 0) return n;
    const struct mutate_span a = c->json.span[mutate_below(c, c->json.count)],
                             b = c->json.span[mutate_below(c, c->json.count)];
    uint8_t piece[1024];
    const size_t b_size = b.end - b.begin < sizeof piece ? b.end - b.begin : sizeof piece;
    const char *value =
        mutate_values[mutate_below(c, sizeof mutate_values / sizeof *mutate_values)];
    switch (mutate_below(c, 8)) {
    case 0:
    case 1:
    case 2: mutate_replace(c, from + a.begin, from + a.end, value, strlen(value)); break;
    case 3: // one value in the place of another
        memcpy(piece, c->data + from + b.begin, b_size);
        mutate_replace(c, from + a.begin, from + a.end, piece, b_size);
        break;
    case 4: { // a member twice
        const size_t size = a.end - a.member < sizeof piece ? a.end - a.member : sizeof piece - 1;
        memcpy(piece, c->data + from + a.member, size);
        mutate_replace(c, from + a.end, from + a.end, piece, size);
        mutate_replace(c, from + a.end, from + a.end, ",", 1);
        break;
    }
    case 5: { // a member lost, with its comma
        size_t end = a.end;
        while (end < n && strchr(" \t\r\n", c->data[from + end]) && c->data[from + end])
            end++;
        if (end < n && c->data[from + end] == ',') end++;
        mutate_replace(c, from + a.member, from + end, "", 0);
        break;
    }
    case 6: { // nested
        const size_t depth = 1 + mutate_below(c, mutate_below(c, 4) ? 3 : 90);
        memset(piece, ']', depth);
        mutate_replace(c, from + a.end, from + a.end, piece, depth);
        memset(piece, '[', depth);
        mutate_replace(c, from + a.begin, from + a.begin, piece, depth);
        break;
    }
    default: { // a digit of a number, or a letter of a name
        const size_t at = from + a.member + mutate_below(c, a.end - a.member);
        if (at < c->size) c->data[at] = mutate_character(c, "0123456789-eE_aw#@.\"");
    }
    }
    return n + c->size - before;
}

// JSON behind its length, of `bytes` bytes at `at`: the length is kept true, but for one in ten.
// Returns whether there is such a thing.
static inline bool mutate_counted(struct mutate_case *c, size_t at, size_t bytes)
{
    uint64_t length = 0; // little endian, as the machines are that this runs on
    if (c->size < at + bytes + 1 || c->data[at + bytes] != '{') return false;
    memcpy(&length, c->data + at, bytes);
    if (length == 0 || length > c->size - at - bytes) return false;
    length = mutate_json_once(c, at + bytes, (size_t)length);
    if (mutate_below(c, 10)) memcpy(c->data + at, &length, bytes);
    return true;
}

// Where the JSON is: the header of a safetensors file, a config with such a file behind it, or all.
static inline void mutate_structure(struct mutate_case *c)
{
    uint32_t config = 0;
    if (c->size >= 5 && c->data[4] == '{') {
        memcpy(&config, c->data, sizeof config);
        if (config < c->size && mutate_below(c, 2) && mutate_counted(c, 4 + (size_t)config, 8))
            return;
        if (mutate_counted(c, 0, sizeof config)) return;
    }
    if (!mutate_counted(c, 0, 8)) (void)mutate_json_once(c, 0, c->size);
}

// Makes case `number` of `seed` from `base` into `data` (of `capacity` bytes); returns its size.
static inline size_t mutate_make(const uint8_t *base, size_t size, uint64_t seed, uint64_t number,
                                 uint8_t *data, size_t capacity)
{
    static struct mutate_case c;
    c.data = data;
    c.capacity = capacity;
    c.size = size < capacity ? size : capacity;
    memcpy(data, base, c.size);
    em_rng_seed(&c.rng, seed, number);
    for (size_t changes = 1 + mutate_below(&c, mutate_below(&c, 3) ? 2 : 6); changes > 0; changes--)
        if (mutate_below(&c, 3))
            mutate_structure(&c);
        else
            mutate_bytes(&c);
    return c.size;
}

#endif
