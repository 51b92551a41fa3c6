#include "api/describe.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "formats/safetensors_header.h" // em_st_utf8_valid

ember_status em_put(json_t *object, const char *key, json_t *value)
{
    return value && json_object_set_new(object, key, value) == 0
               ? EMBER_OK
               : em_fail(EMBER_E_NOMEM, "out of memory: describing %s", key);
}

ember_status em_put_size(json_t *object, const char *key, size_t value)
{
    return em_put(object, key, json_integer((json_int_t)value));
}

// What comes from files may not be UTF-8.
ember_status em_put_text(json_t *object, const char *key, const char *value)
{
    return em_put(object, key,
                  em_st_utf8_valid(value, strlen(value)) ? json_string(value) : json_string("?"));
}

ember_status em_push(json_t *list, json_t *value)
{
    return value && json_array_append_new(list, value) == 0
               ? EMBER_OK
               : em_fail(EMBER_E_NOMEM, "out of memory: describing a list");
}

static ember_status put_new(json_t *parent, const char *key, json_t *value, json_t **out)
{
    EM_TRY(key ? em_put(parent, key, value) : em_push(parent, value));
    *out = value;
    return EMBER_OK;
}

ember_status em_put_object(json_t *parent, const char *key, json_t **object)
{
    return put_new(parent, key, json_object(), object);
}

ember_status em_put_list(json_t *parent, const char *key, json_t **list)
{
    return put_new(parent, key, json_array(), list);
}

size_t em_size_of(const json_t *object, const char *key)
{
    return (size_t)json_integer_value(json_object_get(object, key));
}

const char *em_text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static ember_status print_json(const json_t *object, struct em_buf *out)
{
    EM_TRY(em_json_print(object, 2, out));
    return em_buf_putc(out, '\n');
}

ember_status em_describe(ember_status status, json_t *object, bool json,
                         ember_status (*print)(const json_t *object, struct em_buf *out),
                         char **text)
{
    struct em_buf out = {0};
    if (status == EMBER_OK) status = (json ? print_json : print)(object, &out);
    json_decref(object);
    char *taken = status == EMBER_OK ? em_buf_take(&out) : NULL;
    em_buf_deinit(&out);
    EM_TRY(status);
    if (!taken) return EMBER_E_NOMEM;
    *text = taken;
    return EMBER_OK;
}

const char *em_count_text(size_t n, char text[32])
{
    char digits[24];
    const int length = snprintf(digits, sizeof digits, "%zu", n);
    char *to = text;
    for (int i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0) *to++ = ',';
        *to++ = digits[i];
    }
    *to = 0;
    return text;
}

const char *em_bytes_text(double bytes, char text[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    for (; bytes >= 1024 && unit < 4; unit++)
        bytes /= 1024;
    snprintf(text, 32, "%.*f %s", unit ? 1 : 0, bytes, units[unit]);
    return text;
}
