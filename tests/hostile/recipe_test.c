// Recipes with a hostile meaning, and every option of every component past its range.
#include <math.h>

#include "hostile/hostile.h"
#include "registry/registry.h"
#include "train/recipe.h"

static const char *recipe_path;

static ember_status open_recipe(const char *text, size_t size)
{
    struct em_recipe r;
    CHECK_OK(em_write_file(recipe_path, text, size));
    const ember_status status =
        em_recipe_open(&(struct em_recipe_request){.file = recipe_path}, &r);
    if (status == EMBER_OK) em_recipe_close(&r);
    return status;
}

static void refuse(const char *text, const char *says)
{
    struct em_recipe r;
    CHECK_OK(em_write_file(recipe_path, text, strlen(text)));
    const struct hostile_watch w = hostile_begin(text, recipe_path, strlen(text));
    const ember_status status =
        em_recipe_open(&(struct em_recipe_request){.file = recipe_path}, &r);
    if (status == EMBER_OK) em_recipe_close(&r);
    hostile_end(&w, status, says);
}

#define MODEL                                                                                      \
    "\"model\":{\"model_type\":\"ember\",\"hidden_size\":8,\"vocab_size\":32,\"blocks\":[{"        \
    "\"type\":"                                                                                    \
    "\"pre_norm\",\"sequence\":\"short_conv\",\"channel\":\"swiglu\"}]}"

static void texts(void **state)
{
    (void)state;
    static const struct hostile_case cases[] = {
        {"", ":1:1:"},
        {"[]", "an object|found an array"},
        {"7", "an object|found 7"},
        {"{\"model\":1e999}", ":1:10:|1e999"},
        {"{\"a\":\"\xff\"}", ":1:7:|0xff"},
        {"{\"a\":\"\\udfff\"}", "surrogate"},
        {"{\"a\":1,\"a\":2}", "duplicate|\"a\""},
        {"{" MODEL "}", "data is needed"},
        {"{\"data\":\"a\"}", "model is needed"},
        {"{\"model\":3,\"data\":\"a\"}", "model|found 3"},
        {"{\"model\":[],\"data\":\"a\"}", "model|found an array"},
        {"{\"model\":\"\",\"data\":\"a\"}", "model|tiny-moe"},
        {"{\"model\":\"tiny-mo\",\"data\":\"a\"}", "model|\"tiny-mo\"|did you mean \"tiny-moe\""},
        {"{\"model\":\"/dev/zero\",\"data\":\"a\"}", "/dev/zero|device"},
        {"{" MODEL ",\"data\":5}", "data|found 5"},
        {"{" MODEL ",\"data\":null}", "data"},
        {"{" MODEL ",\"data\":{}}", "data is needed"},
        {"{" MODEL ",\"data\":{\"sources\":5}}", "data.sources|list|found 5"},
        {"{" MODEL ",\"data\":{\"sources\":[5]}}", "data.sources[0]|path|found 5"},
        {"{" MODEL ",\"data\":[[\"a\"]]}", "data.sources[0]|path|found an array"},
        {"{" MODEL ",\"data\":[{}]}", "data.sources[0].path|needed"},
        {"{" MODEL ",\"data\":[{\"path\":7}]}", "data.sources[0].path|a string|7"},
        {"{" MODEL ",\"data\":[{\"path\":\"a\\u0000b\"}]}", "data.sources[0].path|NUL"},
        {"{" MODEL ",\"data\":[{\"path\":\"a\",\"weight\":-1}]}", "sources[0].weight|-1|0 and 10"},
        {"{" MODEL ",\"data\":[{\"path\":\"a\",\"weight\":NaN}]}", "sources[0].weight|number|NaN"},
        {"{" MODEL ",\"data\":[{\"path\":\"a\",\"wieght\":1}]}", "wieght|did you mean \"weight\""},
        {"{" MODEL ",\"data\":[{\"path\":\"a\",\"format\":\"csv\"}]}", "format|\"csv\"|auto|jsonl"},
        {"{" MODEL ",\"data\":{\"sources\":[\"a\"],\"ids\":\"b\"}}", "sources, ids and tensors exclude"},
        {"{" MODEL ",\"data\":{\"sources\":[\"a\"],\"held_out\":1}}", "data.held_out|1|0 and 0.9"},
        {"{" MODEL ",\"data\":{\"sources\":[\"a\"],\"vocab\":2147483648}}",
         "data.vocab|2147483648|0 and 16777216"},
        {"{" MODEL ",\"data\":{\"sorces\":[\"a\"]}}", "data.sorces|did you mean \"sources\""},
        {"{" MODEL ",\"data\":\"a\",\"seed\":-1}", "seed|from 0 to|found -1"},
        {"{" MODEL ",\"data\":\"a\",\"seed\":\"x\"}", "seed|from 0 to|found \"x\""},
        {"{" MODEL ",\"data\":\"a\",\"seed\":0.5}", "seed|from 0 to|found 0.5"},
        {"{" MODEL ",\"data\":\"a\",\"sead\":1}", "sead|did you mean \"seed\""},
        {"{" MODEL ",\"data\":\"a\",\"train\":[]}", "train|an object|a list"},
        {"{" MODEL ",\"data\":\"a\",\"train\":3}", "train|an object|3"},
        {"{" MODEL ",\"data\":\"a\",\"train\":{\"stepz\":1}}",
         "train.stepz|did you mean \"steps\""},
        {"{" MODEL ",\"data\":\"a\",\"train\":{\"steps\":1e12}}", "train.steps|an integer|10000"},
        {"{" MODEL ",\"data\":\"a\",\"train\":{\"steps\":9223372036854775807}}",
         "train.steps|9223372036854775807|0 and 1000000000000"},
        {"{" MODEL ",\"data\":\"a\",\"train\":{\"batch\":0}}", "train.batch|0|1 and 1048576"},
        {"{" MODEL ",\"data\":\"a\",\"train\":{\"batch\":4398046511104}}",
         "train.batch|4398046511104|1 and 1048576"},
        {"{" MODEL ",\"data\":\"a\",\"train\":{\"seq\":1}}", "train.seq|1|2 and 16777216"},
        {"{" MODEL ",\"data\":\"a\",\"train\":{\"accumulate\":9}}",
         "train.accumulate|9|which is 8"},
        {"{" MODEL ",\"data\":\"a\",\"train\":{\"lr\":-1}}", "train.lr|-1|0 and 10"},
        {"{" MODEL ",\"data\":\"a\",\"train\":{\"lr\":NaN}}", "train.lr|number|NaN"},
        {"{" MODEL ",\"data\":\"a\",\"train\":{\"steps\":1,\"minutes\":1}}", "train|exclude"},
        {"{" MODEL ",\"data\":\"a\",\"train\":{\"dtype\":\"f64\"}}",
         "train.dtype|\"f64\"|auto|bf16"},
        {"{" MODEL ",\"data\":\"a\",\"train\":{\"optimizer\":\"adamv\"}}",
         "train.optimizer|\"adamv\"|did you mean \"adamw\""},
        {"{" MODEL ",\"data\":\"a\",\"train\":{\"optimizer\":7}}", "train.optimizer|7"},
        {"{" MODEL ",\"data\":\"a\",\"train\":{\"optimizer\":{\"type\":7}}}", "train.optimizer|7"},
        {"{" MODEL ",\"data\":\"a\",\"train\":{\"optimizer\":{\"beta3\":0.1}}}",
         "train.optimizer.beta3|did you mean \"beta"},
        {"{" MODEL ",\"data\":\"a\",\"train\":{\"beta2\":1.5}}", "train.optimizer.beta2|1.5"},
        {"{" MODEL ",\"data\":\"a\",\"train\":{\"schedule\":\"cosin\"}}",
         "train.schedule|\"cosin\"|did you mean \"cosine\""},
        {"{" MODEL ",\"data\":\"a\",\"train\":{\"recompute\":1}}",
         "train.recompute|true or false|1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse(cases[i].text, cases[i].says);
    static const size_t depths[] = {65, 100000};
    for (size_t i = 0; i < 2; i++) {
        char *deep = hostile_nested(depths[i], "{\"model\":", "3", "}");
        refuse(deep, "deeper than 64");
        free(deep);
    }
    hostile_report(55);
}

// A value just outside the option's range, or of another type: `where`.NAME, the value and the
// range are named.
static void past_the_range(const ember_option *table, const char *name, const ember_option *o,
                           json_t *value, const char *says)
{
    json_t *object = json_pack("{s:o}", o->name, value);
    char text[512], place[512], where[256];
    const size_t room = 1 << 16;
    void *fields = calloc(1, room);
    assert_non_null(object);
    assert_non_null(fields);
    snprintf(where, sizeof where, "dir/config.json: %s", name);
    snprintf(place, sizeof place, "%s.%s|%s", where, o->name, says);
    struct em_buf b;
    em_buf_init(&b, 0);
    CHECK_OK(em_json_print(object, 0, &b));
    snprintf(text, sizeof text, "%s: %s", name, b.data);
    em_buf_deinit(&b);
    const struct hostile_watch w = hostile_begin(text, "dir/config.json", strlen(text));
    hostile_end(&w, em_options_read(table, object, where, NULL, fields), place);
    json_decref(object);
    free(fields);
}

static void number_options(const ember_option *table, const char *name, const ember_option *o)
{
    char says[128], low[32], high[32];
    snprintf(low, sizeof low, fabs(o->min) < 1e15 && o->min == floor(o->min) ? "%.0f" : "%g",
             o->min);
    snprintf(high, sizeof high, fabs(o->max) < 1e15 && o->max == floor(o->max) ? "%.0f" : "%g",
             o->max);
    const bool whole = o->type == EMBER_OPTION_SIZE;
    snprintf(says, sizeof says, "%s and %s", low, high);
    past_the_range(
        table, name, o,
        whole ? json_integer((json_int_t)o->min - 1) : json_real(o->min - 1 - fabs(o->min)), says);
    if (o->max < 9e18)
        past_the_range(table, name, o,
                       whole ? json_integer((json_int_t)o->max + 1)
                             : json_real(o->max + 1 + fabs(o->max)),
                       says);
    past_the_range(table, name, o, json_string("NaN"), whole ? "NaN" : "number|NaN");
    past_the_range(table, name, o, json_true(), "true");
    if (whole) past_the_range(table, name, o, json_real(1.5), "an integer|1.5");
}

static void options_of(const ember_option *table, const char *name)
{
    void *fields = calloc(1, 1 << 16);
    CHECK_OK(em_options_read(table, NULL, name, NULL, fields)); // defaults are parsed once
    free(fields);
    for (const ember_option *o = table; o && o->name; o++) {
        char near[64];
        switch (o->type) {
        case EMBER_OPTION_END: break;
        case EMBER_OPTION_SIZE:
        case EMBER_OPTION_FLOAT:
        case EMBER_OPTION_DOUBLE: number_options(table, name, o); break;
        case EMBER_OPTION_BOOL:
            past_the_range(table, name, o, json_integer(1), "true or false|1");
            past_the_range(table, name, o, json_string("true"), "true or false|\"true\"");
            break;
        case EMBER_OPTION_ENUM:
            past_the_range(table, name, o, json_string("no such"), "\"no such\"|one of");
            past_the_range(table, name, o, json_integer(0), "a string|0");
            break;
        case EMBER_OPTION_STRING:
            past_the_range(table, name, o, json_integer(7), "a string|7");
            past_the_range(table, name, o, json_stringn("a\0b", 3), "NUL");
            break;
        case EMBER_OPTION_COMPONENT:
            past_the_range(table, name, o, json_integer(7), "7");
            past_the_range(table, name, o, json_array(), "a list");
            break;
        case EMBER_OPTION_COMPONENTS:
            past_the_range(table, name, o, json_integer(7), "a list of components|7");
            break;
        }
        // A letter of its name too many.
        if (strlen(o->name) < 3) continue;
        snprintf(near, sizeof near, "%sx", o->name);
        const ember_option misspelled = {.name = near};
        past_the_range(table, name, &misspelled, json_integer(1), "is not known; did you mean");
    }
}

static void options(void **state)
{
    (void)state;
    const struct em_component *c;
    options_of(em_train_settings_table, "train");
    options_of(em_data_settings_table, "data");
    options_of(em_source_table, "data.sources[0]");
    for (size_t i = 0; (c = em_registry_at(i)); i++)
        options_of(c->options, c->name);
    hostile_report(300);
}

static int setup(void **state)
{
    recipe_path = test_path(test_directory(), "recipe.json");
    hostile_setup(state);
    CHECK_OK(open_recipe("{" MODEL ",\"data\":\"a\"}", strlen("{" MODEL ",\"data\":\"a\"}")));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts),
        cmocka_unit_test(options),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
