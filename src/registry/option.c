// Option tables: one line of a table is parsed, checked, written back and described here.
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "registry/registry.h"

static const char *type_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "a boolean";
    case JSON_NULL: return "null";
    }
    return "something else";
}

// What was found instead: its kind and, where that is short, its value.
static const char *found(const json_t *v, char *text, size_t size)
{
    char value[72];
    const bool simple = v && !json_is_object(v) && !json_is_array(v) && !json_is_null(v);
    snprintf(text, size, "%s%s%s", type_of(v), simple ? ": " : "",
             simple ? em_json_text(v, value, sizeof value) : "");
    return text;
}

static void number_text(double v, char *buf, size_t size)
{
    snprintf(buf, size, fabs(v) < 1e15 && v == floor(v) ? "%.0f" : "%g", v);
}

// Length of the i-th of "first|second|third" and its start; 0 past the end.
static size_t choice_at(const char *choices, int i, const char **start)
{
    for (; i > 0; i--) {
        choices = strchr(choices, '|');
        if (!choices) return 0;
        choices++;
    }
    *start = choices;
    return strcspn(choices, "|");
}

static ember_status out_of_range(const ember_option *o, const char *where, const json_t *v)
{
    char low[32], high[32], value[72];
    number_text(o->min, low, sizeof low);
    number_text(o->max, high, sizeof high);
    if (json_is_integer(v))
        em_json_text(v, value, sizeof value);
    else
        number_text(json_number_value(v), value, sizeof value);
    return em_fail(EMBER_E_CONFIG, "%s%s%s is %s; it has to be within %s and %s", where,
                   em_json_joint(where), o->name, value, low, high);
}

static ember_status read_number(const ember_option *o, const json_t *v, const char *where,
                                double *out)
{
    char what[96];
    if (!json_is_number(v) || (o->type == EMBER_OPTION_SIZE && !json_is_integer(v)))
        return em_fail(EMBER_E_CONFIG, "%s%s%s has to be %s, not %s", where, em_json_joint(where),
                       o->name, o->type == EMBER_OPTION_SIZE ? "an integer" : "a number",
                       found(v, what, sizeof what));
    *out = json_number_value(v);
    bool inside = *out >= o->min && *out <= o->max;
    // Past 2^53 a double may round a size down to the range's end.
    if (inside && json_is_integer(v) && o->max < 9e18)
        inside = json_integer_value(v) <= (json_int_t)ceil(o->max);
    return inside ? EMBER_OK : out_of_range(o, where, v);
}

static ember_status read_choice(const ember_option *o, const json_t *v, const char *where, int *out)
{
    const char *text = json_string_value(v), *choice;
    const size_t length = json_string_length(v); // a NUL within ends no choice
    char what[96];
    if (!text)
        return em_fail(EMBER_E_CONFIG, "%s%s%s has to be a string, not %s", where,
                       em_json_joint(where), o->name, found(v, what, sizeof what));
    for (int i = 0;; i++) {
        const size_t n = choice_at(o->text, i, &choice);
        if (!n) break;
        if (length == n && memcmp(text, choice, n) == 0) {
            *out = i;
            return EMBER_OK;
        }
    }
    return em_fail(EMBER_E_CONFIG, "%s%s%s is \"%.60s\"; it has to be one of %s", where,
                   em_json_joint(where), o->name, text, o->text);
}

static ember_status read_option(const ember_option *o, const json_t *v, const char *where,
                                void *field)
{
    char what[96];
    double number;
    switch (o->type) {
    case EMBER_OPTION_END: break;
    case EMBER_OPTION_BOOL:
        if (!json_is_boolean(v))
            return em_fail(EMBER_E_CONFIG, "%s%s%s has to be true or false, not %s", where,
                           em_json_joint(where), o->name, found(v, what, sizeof what));
        *(bool *)field = json_is_true(v);
        break;
    case EMBER_OPTION_SIZE:
        EM_TRY(read_number(o, v, where, &number));
        *(size_t *)field = (size_t)json_integer_value(v);
        break;
    case EMBER_OPTION_FLOAT:
        EM_TRY(read_number(o, v, where, &number));
        *(float *)field = (float)number;
        break;
    case EMBER_OPTION_DOUBLE:
        EM_TRY(read_number(o, v, where, &number));
        *(double *)field = number;
        break;
    case EMBER_OPTION_ENUM: return read_choice(o, v, where, field);
    case EMBER_OPTION_STRING:
        if (!json_is_string(v))
            return em_fail(EMBER_E_CONFIG, "%s%s%s has to be a string, not %s", where,
                           em_json_joint(where), o->name, found(v, what, sizeof what));
        if (strlen(json_string_value(v)) != json_string_length(v))
            return em_fail(EMBER_E_CONFIG, "%s%s%s has a NUL character", where,
                           em_json_joint(where), o->name);
        *(const char **)field = json_string_value(v);
        break;
    case EMBER_OPTION_COMPONENT:
        if (!json_is_object(v) && !json_is_string(v))
            return em_fail(EMBER_E_CONFIG,
                           "%s%s%s has to be a %s: an object with a \"type\", or its name, not %s",
                           where, em_json_joint(where), o->name,
                           ember_kind_name((ember_kind)o->kind), found(v, what, sizeof what));
        *(const ember_config **)field = em_json_config(v);
        break;
    case EMBER_OPTION_COMPONENTS:
        if (!json_is_array(v))
            return em_fail(EMBER_E_CONFIG,
                           "%s%s%s has to be a list of components of kind %s, not %s", where,
                           em_json_joint(where), o->name, ember_kind_name((ember_kind)o->kind),
                           found(v, what, sizeof what));
        *(const ember_config **)field = em_json_config(v);
        break;
    }
    return EMBER_OK;
}

// Default configs of components are text in a const table; they are parsed once and live as long as
// the program. Models may be opened by several threads.
static struct {
    pthread_mutex_t lock;
    struct {
        const char *text;
        json_t *value;
    } * entry;
    size_t count, capacity;
} defaults = {.lock = PTHREAD_MUTEX_INITIALIZER};

static ember_status find_default(const char *text, const ember_config **out)
{
    for (size_t i = 0; i < defaults.count; i++)
        if (defaults.entry[i].text == text) {
            *out = em_json_config(defaults.entry[i].value);
            return EMBER_OK;
        }
    EM_TRY(
        em_grow(&defaults.entry, &defaults.capacity, defaults.count + 1, sizeof *defaults.entry));
    json_t *value;
    EM_TRY(em_json_parse("default", text, strlen(text), 0, &value));
    defaults.entry[defaults.count].text = text;
    defaults.entry[defaults.count++].value = value;
    *out = em_json_config(value);
    return EMBER_OK;
}

static ember_status default_config(const char *text, const ember_config **out)
{
    pthread_mutex_lock(&defaults.lock);
    const ember_status status = find_default(text, out);
    pthread_mutex_unlock(&defaults.lock);
    return status;
}

static ember_status preset(const ember_option *o, void *field)
{
    switch (o->type) {
    case EMBER_OPTION_END: break;
    case EMBER_OPTION_BOOL: *(bool *)field = o->preset != 0; break;
    case EMBER_OPTION_SIZE: *(size_t *)field = (size_t)o->preset; break;
    case EMBER_OPTION_FLOAT: *(float *)field = (float)o->preset; break;
    case EMBER_OPTION_DOUBLE: *(double *)field = o->preset; break;
    case EMBER_OPTION_ENUM: *(int *)field = (int)o->preset; break;
    case EMBER_OPTION_STRING: *(const char **)field = ""; break;
    case EMBER_OPTION_COMPONENTS: *(const ember_config **)field = NULL; break;
    case EMBER_OPTION_COMPONENT:
        *(const ember_config **)field = NULL;
        if (o->text) return default_config(o->text, field);
        break;
    }
    return EMBER_OK;
}

static const ember_option *find_option(const ember_option *options, const char *name)
{
    for (const ember_option *o = options; o && o->name; o++)
        if (strcmp(o->name, name) == 0) return o;
    return NULL;
}

static bool is_listed(const char *const *names, const char *name)
{
    for (; names && *names; names++)
        if (strcmp(*names, name) == 0) return true;
    return false;
}

static ember_status unknown_option(const ember_option *options, const char *where, const char *key)
{
    const char *names[128];
    size_t n = 0;
    for (const ember_option *o = options; o && o->name && n < 128; o++)
        names[n++] = o->name;
    const char *near = em_did_you_mean(key, names, n);
    return em_fail(EMBER_E_CONFIG, "%s%s%.80s is not known%s%s%s", where, em_json_joint(where), key,
                   near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

ember_status em_options_read(const ember_option *options, const json_t *object, const char *where,
                             const char *const *also, void *out)
{
    char what[96];
    for (const ember_option *o = options; o && o->name; o++)
        EM_TRY(preset(o, (char *)out + o->offset));
    if (!object || json_is_string(object)) return EMBER_OK;
    if (!json_is_object(object))
        return em_fail(EMBER_E_CONFIG, "%s has to be an object, not %s", where,
                       found(object, what, sizeof what));
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (strcmp(key, "type") == 0 || is_listed(also, key)) continue;
        const ember_option *o = find_option(options, key);
        if (!o) return unknown_option(options, where, key);
        if (!json_is_null(value)) EM_TRY(read_option(o, value, where, (char *)out + o->offset));
    }
    return EMBER_OK;
}

static json_t *option_value(const ember_option *o, const void *field)
{
    const char *choice = "";
    const ember_config *config;
    switch (o->type) {
    case EMBER_OPTION_END: break;
    case EMBER_OPTION_BOOL: return json_boolean(*(const bool *)field);
    case EMBER_OPTION_SIZE: return json_integer((json_int_t) * (const size_t *)field);
    case EMBER_OPTION_FLOAT: {
        // The shortest decimal that reads back as this float, so that 0.1f is written as 0.1.
        char text[32];
        for (int digits = 6; digits <= 9; digits++) {
            snprintf(text, sizeof text, "%.*g", digits, (double)*(const float *)field);
            float back;
            if (sscanf(text, "%f", &back) == 1 && back == *(const float *)field) break;
        }
        double v = 0;
        sscanf(text, "%lf", &v);
        return json_real(v);
    }
    case EMBER_OPTION_DOUBLE: return json_real(*(const double *)field);
    case EMBER_OPTION_ENUM: {
        const size_t n = choice_at(o->text, *(const int *)field, &choice);
        return json_stringn(choice, n);
    }
    case EMBER_OPTION_STRING: return json_string(*(const char *const *)field);
    case EMBER_OPTION_COMPONENT:
    case EMBER_OPTION_COMPONENTS:
        config = *(const ember_config *const *)field;
        return config ? json_deep_copy(em_config_json(config)) : json_null();
    }
    return NULL;
}

ember_status em_options_write(const ember_option *options, const void *in, json_t **object)
{
    json_t *result = json_object();
    for (const ember_option *o = options; result && o && o->name; o++) {
        if (json_object_set_new(result, o->name, option_value(o, (const char *)in + o->offset)) !=
            0) {
            json_decref(result);
            result = NULL;
        }
    }
    if (!result) return em_fail(EMBER_E_NOMEM, "out of memory");
    *object = result;
    return EMBER_OK;
}

static const char *type_name(ember_option_type type)
{
    static const char *const names[] = {"",       "true/false", "integer",   "number",    "number",
                                        "one of", "string",     "component", "components"};
    return names[type];
}

static void describe(const ember_option *o, char *value, size_t value_size, char *range,
                     size_t range_size)
{
    const char *choice = "";
    value[0] = range[0] = '\0';
    switch (o->type) {
    case EMBER_OPTION_BOOL:
        snprintf(value, value_size, "%s", o->preset != 0 ? "true" : "false");
        break;
    case EMBER_OPTION_SIZE:
    case EMBER_OPTION_FLOAT:
    case EMBER_OPTION_DOUBLE: {
        char low[32], high[32];
        number_text(o->preset, value, value_size);
        number_text(o->min, low, sizeof low);
        number_text(o->max, high, sizeof high);
        snprintf(range, range_size, "%s..%s", low, high);
        break;
    }
    case EMBER_OPTION_ENUM: {
        const size_t n = choice_at(o->text, (int)o->preset, &choice);
        snprintf(value, value_size, "%.*s", (int)n, choice);
        snprintf(range, range_size, "%s", o->text);
        break;
    }
    case EMBER_OPTION_STRING: snprintf(value, value_size, "\"\""); break;
    case EMBER_OPTION_COMPONENT:
    case EMBER_OPTION_COMPONENTS:
        snprintf(value, value_size, "%s", o->text ? o->text : "none");
        snprintf(range, range_size, "%s", ember_kind_name((ember_kind)o->kind));
        break;
    case EMBER_OPTION_END: break;
    }
}

ember_status em_options_json(const ember_option *options, json_t **array)
{
    char value[256], range[256];
    json_t *list = json_array();
    for (const ember_option *o = options; list && o && o->name; o++) {
        describe(o, value, sizeof value, range, sizeof range);
        json_t *entry =
            json_pack("{s:s, s:s, s:s, s:s, s:s}", "name", o->name, "type", type_name(o->type),
                      "default", value, "range", range, "help", o->help);
        if (!entry || json_array_append_new(list, entry) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    if (!list) return em_fail(EMBER_E_NOMEM, "out of memory");
    *array = list;
    return EMBER_OK;
}
