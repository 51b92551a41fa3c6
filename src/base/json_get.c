// Members of objects, with messages that say where, what was expected and what was found.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"

enum { LONGEST_NAME = 64 };

const char *em_json_text(const json_t *value, char *text, size_t size)
{
    switch (value ? (int)json_typeof(value) : -1) {
    case JSON_OBJECT: snprintf(text, size, "an object"); break;
    case JSON_ARRAY: snprintf(text, size, "an array"); break;
    case JSON_TRUE: snprintf(text, size, "true"); break;
    case JSON_FALSE: snprintf(text, size, "false"); break;
    case JSON_NULL: snprintf(text, size, "null"); break;
    case JSON_STRING: snprintf(text, size, "\"%.60s\"", json_string_value(value)); break;
    case JSON_INTEGER: snprintf(text, size, "%lld", (long long)json_integer_value(value)); break;
    case JSON_REAL: snprintf(text, size, "%.15g", json_real_value(value)); break;
    default: snprintf(text, size, "nothing");
    }
    return text;
}

// "config.json: train" and "lr" join to "config.json: train.lr", "config.json" and "lr" to
// "config.json: lr".
const char *em_json_joint(const char *where)
{
    const size_t n = strlen(where);
    if (n == 0) return "";
    if (where[n - 1] == ':') return " ";
    if (where[n - 1] == ' ') return "";
    if (where[n - 1] == ']') return "."; // an element of a list: no file's name
    return strstr(where, ": ") ? "." : ": ";
}

static ember_status wrong(const char *where, const char *key, const json_t *value,
                          const char *expected)
{
    char found[96];
    if (!where) where = "";
    return em_fail(EMBER_E_CONFIG, "%s%s%s: expected %s, found %s", where, em_json_joint(where),
                   key, expected, em_json_text(value, found, sizeof found));
}

// NULL when there is nothing to read: absent or null.
static const json_t *member(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return value && !json_is_null(value) ? value : NULL;
}

ember_status em_json_get_size(const json_t *object, const char *where, const char *key, size_t min,
                              size_t max, size_t *out)
{
    const json_t *value = member(object, key);
    if (!value) return EMBER_OK;
    char expected[96];
    if (max == SIZE_MAX)
        snprintf(expected, sizeof expected, "an integer of at least %zu", min);
    else
        snprintf(expected, sizeof expected, "an integer from %zu to %zu", min, max);
    size_t found;
    if (json_is_integer(value)) {
        if (json_integer_value(value) < 0) return wrong(where, key, value, expected);
        found = (size_t)json_integer_value(value);
    } else if (json_is_real(value)) { // 1e6 and 8.0 are integers to everybody but the parser
        const double real = json_real_value(value);
        if (!(real >= 0 && real <= 0x1p53) || real != floor(real))
            return wrong(where, key, value, expected);
        found = (size_t)real;
    } else {
        return wrong(where, key, value, expected);
    }
    if (found < min || found > max) return wrong(where, key, value, expected);
    *out = found;
    return EMBER_OK;
}

ember_status em_json_get_double(const json_t *object, const char *where, const char *key,
                                double min, double max, double *out)
{
    const json_t *value = member(object, key);
    if (!value) return EMBER_OK;
    double found = NAN;
    if (json_is_number(value)) found = json_number_value(value);
    if (json_is_string(
            value)) { // Python's json writes infinities as bare words, which we read as strings
        if (strcmp(json_string_value(value), "Infinity") == 0) found = (double)INFINITY;
        if (strcmp(json_string_value(value), "-Infinity") == 0) found = (double)-INFINITY;
    }
    if (!(found >= min && found <= max)) {
        char expected[96];
        snprintf(expected, sizeof expected, "a number from %g to %g", min, max);
        return wrong(where, key, value, expected);
    }
    *out = found;
    return EMBER_OK;
}

ember_status em_json_get_bool(const json_t *object, const char *where, const char *key, bool *out)
{
    const json_t *value = member(object, key);
    if (!value) return EMBER_OK;
    if (!json_is_boolean(value)) return wrong(where, key, value, "true or false");
    *out = json_is_true(value);
    return EMBER_OK;
}

ember_status em_json_get_string(const json_t *object, const char *where, const char *key,
                                const char **out)
{
    const json_t *value = member(object, key);
    if (!value) return EMBER_OK;
    if (!json_is_string(value)) return wrong(where, key, value, "a string");
    if (strlen(json_string_value(value)) !=
        json_string_length(value)) // what follows would be lost silently
        return wrong(where, key, value, "a string without a NUL character");
    *out = json_string_value(value);
    return EMBER_OK;
}

// Insertions, deletions, replacements and swaps of neighbours (Damerau 1964, optimal string
// alignment).
static size_t edit_distance(const char *a, size_t n, const char *b, size_t m)
{
    size_t rows[3][LONGEST_NAME + 1];
    size_t *older = rows[0], *old = rows[1], *now = rows[2];
    for (size_t j = 0; j <= m; j++)
        old[j] = older[j] = j;
    for (size_t i = 1; i <= n; i++) {
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = old[j - 1] + (a[i - 1] != b[j - 1]);
            if (old[j] + 1 < best) best = old[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                older[j - 2] + 1 < best)
                best = older[j - 2] + 1;
            now[j] = best;
        }
        size_t *spare = older;
        older = old;
        old = now;
        now = spare;
    }
    return old[m];
}

const char *em_did_you_mean(const char *word, const char *const *names, size_t count)
{
    const size_t n = strlen(word);
    if (n == 0 || n > LONGEST_NAME) return NULL;
    const char *nearest = NULL;
    size_t best = n / 3 + 1;
    for (size_t i = 0; i < count; i++) {
        const size_t m = strlen(names[i]);
        if (m > LONGEST_NAME) continue;
        const size_t distance = edit_distance(word, n, names[i], m);
        if (distance < best) {
            best = distance;
            nearest = names[i];
        }
    }
    return nearest;
}
