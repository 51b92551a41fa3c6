// What an option table has to be: looked at once, before anything is read by it.
#include <math.h>
#include <string.h>

#include "registry/registry.h"

enum { MAX_OPTIONS = 64, MAX_NAME = 63, MAX_HELP = 1000 };

bool em_name_is_plain(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    return name && *name && strchr(letters, *name) && strnlen(name, MAX_NAME + 1) <= MAX_NAME &&
           name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0';
}

static size_t field_bytes(ember_option_type type)
{
    switch (type) {
    case EMBER_OPTION_END: break;
    case EMBER_OPTION_BOOL: return sizeof(bool);
    case EMBER_OPTION_SIZE: return sizeof(size_t);
    case EMBER_OPTION_FLOAT: return sizeof(float);
    case EMBER_OPTION_DOUBLE: return sizeof(double);
    case EMBER_OPTION_ENUM: return sizeof(int);
    case EMBER_OPTION_STRING: return sizeof(const char *);
    case EMBER_OPTION_COMPONENT:
    case EMBER_OPTION_COMPONENTS: return sizeof(const ember_config *);
    }
    return 0;
}

static ember_status check_choices(const ember_option *o, const char *where)
{
    size_t n = 0;
    for (const char *at = o->text; at; n++) {
        const size_t length = strcspn(at, "|");
        if (!length || length > MAX_NAME)
            return em_fail(EMBER_E_CONFIG, "%s.%s: choice %zu of \"%s\" has no name", where,
                           o->name, n, o->text);
        at = at[length] ? at + length + 1 : NULL;
    }
    if (!n) return em_fail(EMBER_E_CONFIG, "%s.%s has no choices", where, o->name);
    if (!(o->preset >= 0 && o->preset < (double)n) || o->preset != floor(o->preset))
        return em_fail(EMBER_E_CONFIG, "%s.%s has the default %g of %zu choices", where, o->name,
                       o->preset, n);
    return EMBER_OK;
}

static ember_status check_numbers(const ember_option *o, const char *where)
{
    const double most = o->type == EMBER_OPTION_FLOAT  ? 3.4e38
                        : o->type == EMBER_OPTION_SIZE ? 9007199254740992.0 // exact in a double
                                                       : 1.7e308,
                 least = o->type == EMBER_OPTION_SIZE ? 0 : -most;
    if (!(o->min >= least && o->max <= most && o->min <= o->max))
        return em_fail(EMBER_E_CONFIG, "%s.%s has the range %g to %g", where, o->name, o->min,
                       o->max);
    if (!(o->preset >= o->min && o->preset <= o->max) ||
        (o->type == EMBER_OPTION_SIZE && o->preset != floor(o->preset)))
        return em_fail(EMBER_E_CONFIG, "%s.%s has the default %g, and the range %g to %g", where,
                       o->name, o->preset, o->min, o->max);
    return EMBER_OK;
}

static ember_status check_component(const ember_option *o, const char *where)
{
    json_t *value = NULL;
    if (o->kind < 0 || o->kind >= EMBER_KINDS)
        return em_fail(EMBER_E_CONFIG, "%s.%s takes components of no kind (%d)", where, o->name,
                       o->kind);
    if (o->type != EMBER_OPTION_COMPONENT || !o->text) return EMBER_OK;
    const ember_status status = em_json_parse("default", o->text, strlen(o->text), 0, &value);
    json_decref(value);
    return status == EMBER_OK ? status : em_fail_in(status, "%s.%s", where, o->name);
}

static ember_status check_option(const ember_option *o, size_t head, size_t size, const char *where)
{
    const size_t bytes = field_bytes(o->type);
    if (!em_name_is_plain(o->name) || strcmp(o->name, "type") == 0)
        return em_fail(EMBER_E_CONFIG, "%s: \"%.64s\" cannot be an option's name", where, o->name);
    if (!bytes)
        return em_fail(EMBER_E_CONFIG, "%s.%s has the type %d, which there is not", where, o->name,
                       (int)o->type);
    if (!o->help || !*o->help || strnlen(o->help, MAX_HELP) == MAX_HELP || strchr(o->help, '\n'))
        return em_fail(EMBER_E_CONFIG, "%s.%s has no help of one line", where, o->name);
    if (o->offset < head || o->offset > size || bytes > size - o->offset || o->offset % bytes)
        return em_fail(EMBER_E_CONFIG, "%s.%s lies at %zu, outside the component's %zu to %zu",
                       where, o->name, o->offset, head, size);
    switch (o->type) {
    case EMBER_OPTION_SIZE:
    case EMBER_OPTION_FLOAT:
    case EMBER_OPTION_DOUBLE: return check_numbers(o, where);
    case EMBER_OPTION_ENUM: return check_choices(o, where);
    case EMBER_OPTION_COMPONENT:
    case EMBER_OPTION_COMPONENTS: return check_component(o, where);
    case EMBER_OPTION_BOOL:
    case EMBER_OPTION_STRING:
    case EMBER_OPTION_END: break;
    }
    return EMBER_OK;
}

ember_status em_options_check(const ember_option *options, size_t head, size_t size,
                              const char *where)
{
    for (size_t i = 0; options && options[i].name; i++) {
        if (i == MAX_OPTIONS)
            return em_fail(EMBER_E_CONFIG,
                           "%s has more than %d options, or its table does not end with {0}", where,
                           MAX_OPTIONS);
        EM_TRY(check_option(&options[i], head, size, where));
        for (size_t j = 0; j < i; j++)
            if (strcmp(options[i].name, options[j].name) == 0)
                return em_fail(EMBER_E_CONFIG, "%s.%s is there twice", where, options[i].name);
    }
    return EMBER_OK;
}
