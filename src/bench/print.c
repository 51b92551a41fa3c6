// Figures as lines for people: a line per figure, a table per object of them.
#include "bench/bench.h"

static double number(const json_t *value)
{
    if (json_is_number(value)) return json_number_value(value);
    return 0;
}

static ember_status print_value(const json_t *value, struct em_buf *text)
{
    if (json_is_string(value)) return em_buf_puts(text, json_string_value(value));
    if (json_is_integer(value))
        return em_buf_printf(text, "%lld", (long long)json_integer_value(value));
    return em_buf_printf(text, "%.4g", number(value));
}

// Members that are objects themselves become a row each.
static ember_status print_row(const json_t *object, struct em_buf *text)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        EM_TRY(em_buf_printf(text, "  %s ", key));
        EM_TRY(print_value(value, text));
    }
    return EMBER_OK;
}

static ember_status print_table(const json_t *object, struct em_buf *text)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        EM_TRY(em_buf_printf(text, "  %-24s", key));
        EM_TRY(json_is_object(value) ? print_row(value, text) : print_value(value, text));
        EM_TRY(em_buf_putc(text, '\n'));
    }
    return EMBER_OK;
}

ember_status em_bench_print(const json_t *object, struct em_buf *text)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (json_is_object(value)) {
            EM_TRY(em_buf_printf(text, "%s\n", key));
            EM_TRY(print_table(value, text));
            continue;
        }
        EM_TRY(em_buf_printf(text, "%-20s", key));
        EM_TRY(print_value(value, text));
        EM_TRY(em_buf_putc(text, '\n'));
    }
    return EMBER_OK;
}
