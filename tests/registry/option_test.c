// Option tables: what fits is read, what does not is refused with its place and range, and every
// registered table holds together.
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "nn/build.h"
#include "support/check.h"

#include <ember/runtime.h>

struct sample {
    size_t size, wide;
    float real;
    double exact;
    bool flag;
    int choice;
    const char *text;
    const ember_config *norm, *list;
};

static const ember_option table[] = {
    EMBER_OPT_SIZE(struct sample, size, 3, 1, 100, "a size"),
    EMBER_OPT_SIZE(struct sample, wide, 7, 0, 9007199254740992.0, "a size of 53 bits"),
    EMBER_OPT_FLOAT(struct sample, real, 0.5, 0, 1, "a number"),
    EMBER_OPT_DOUBLE(struct sample, exact, 1e-3, 1e-9, 1e9, "a number"),
    EMBER_OPT_BOOL(struct sample, flag, true, "a flag"),
    EMBER_OPT_ENUM(struct sample, choice, 1, "red|green|blue", "a choice"),
    EMBER_OPT_STRING(struct sample, text, "a text"),
    EMBER_OPT_COMPONENT(struct sample, norm, EMBER_NORM, "{\"type\": \"rmsnorm\"}", "a component"),
    EMBER_OPT_COMPONENTS(struct sample, list, EMBER_NORM, "components"),
    {0},
};

static ember_status read_text(const char *text, struct sample *s, json_t **kept)
{
    EM_TRY(em_json_parse("f.json", text, strlen(text), 0, kept));
    return em_options_read(table, *kept, "f.json: a[1]", NULL, s);
}

static void absent_and_null_options_have_their_defaults(void **state)
{
    (void)state;
    static const char *const texts[] = {"{}", "{\"size\": null, \"choice\": null, \"norm\": null}",
                                        "\"name\""};
    for (size_t i = 0; i < 3; i++) {
        struct sample s;
        json_t *json;
        memset(&s, 0x5a, sizeof s);
        if (i < 2)
            CHECK_OK(read_text(texts[i], &s, &json));
        else
            CHECK_OK(em_options_read(table, json = json_string("name"), "w", NULL, &s));
        assert_int_equal(s.size, 3);
        assert_int_equal(s.wide, 7);
        assert_true(s.real == 0.5f && s.exact == 1e-3 && s.flag);
        assert_int_equal(s.choice, 1);
        assert_string_equal(s.text, "");
        assert_string_equal(json_string_value(json_object_get(em_config_json(s.norm), "type")),
                            "rmsnorm");
        assert_null(s.list);
        json_decref(json);
    }
}

static void what_fits_is_read(void **state)
{
    (void)state;
    struct sample s;
    json_t *json, *written;
    CHECK_OK(read_text("{\"size\": 100, \"wide\": 9007199254740991, \"real\": 1, \"exact\": 1e9,"
                       " \"flag\": false, \"choice\": \"blue\", \"text\": \"t\","
                       " \"norm\": \"layernorm\", \"list\": []}",
                       &s, &json));
    assert_int_equal(s.size, 100);
    assert_true(s.wide == 9007199254740991u && s.real == 1 && s.exact == 1e9 && !s.flag);
    assert_int_equal(s.choice, 2);
    assert_string_equal(s.text, "t");
    CHECK_OK(em_options_write(table, &s, &written));
    assert_string_equal(json_string_value(json_object_get(written, "choice")), "blue");
    assert_int_equal(json_integer_value(json_object_get(written, "wide")), 9007199254740991);
    json_decref(written);
    json_decref(json);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"{\"size\": 0}", "f.json: a[1].size is 0; it has to be within 1 and 100"},
        {"{\"size\": 101}", "size is 101"},
        {"{\"size\": -1}", "size is -1; it has to be within 1 and 100"},
        {"{\"size\": 9223372036854775807}", "it has to be within 1 and 100"},
        {"{\"size\": -9223372036854775807}", "it has to be within 1 and 100"},
        {"{\"size\": 1.0}", "size has to be an integer, not a number"},
        {"{\"size\": true}", "size has to be an integer, not a boolean"},
        {"{\"size\": \"3\"}", "size has to be an integer, not a string"},
        {"{\"wide\": 9007199254740994}", "wide is 9007199254740994"},
        {"{\"wide\": 9007199254740993}", "wide is 9007199254740993"},
        {"{\"real\": 1.0000001}", "real is 1"},
        {"{\"real\": -1e-300}", "real is -1e-300"},
        {"{\"real\": NaN}", "real has to be a number, not a string"},
        {"{\"real\": Infinity}", "real has to be a number, not a string"},
        {"{\"real\": []}", "real has to be a number, not a list"},
        {"{\"exact\": 0}", "exact is 0; it has to be within 1e-09 and 1000000000"},
        {"{\"flag\": 1}", "flag has to be true or false, not an integer"},
        {"{\"choice\": \"re\"}", "choice is \"re\"; it has to be one of red|green|blue"},
        {"{\"choice\": \"red|green\"}", "it has to be one of"},
        {"{\"choice\": \"\"}", "it has to be one of"},
        {"{\"choice\": 1}", "choice has to be a string, not an integer"},
        {"{\"text\": {}}", "text has to be a string, not an object"},
        {"{\"norm\": 3}", "norm has to be a norm: an object with a \"type\", or its name"},
        {"{\"list\": {}}", "list has to be a list of components of kind norm, not an object"},
        {"{\"sise\": 3}", "sise is not known; did you mean \"size\"?"},
        {"[]", "f.json: a[1] has to be an object, not a list"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sample s;
        json_t *json = NULL;
        CHECK_FAILS(read_text(cases[i].text, &s, &json), EMBER_E_CONFIG, cases[i].message);
        json_decref(json);
    }
    // Numbers that no type holds do not get as far.
    static const char *const huge[] = {"{\"real\": 1e999}", "{\"size\": 9223372036854775808}"};
    for (size_t i = 0; i < 2; i++) {
        json_t *json = NULL;
        struct sample s;
        CHECK_FAILS(read_text(huge[i], &s, &json), EMBER_E_FORMAT, "f.json:1:");
        assert_null(json);
    }
}

static void a_nul_ends_no_text(void **state)
{
    (void)state;
    struct sample s;
    json_t *json = json_pack("{s:o}", "choice", json_stringn_nocheck("red\0x", 5));
    CHECK_FAILS(em_options_read(table, json, "w", NULL, &s), EMBER_E_CONFIG, "has to be one of");
    json_decref(json);
    json = json_pack("{s:o}", "text", json_stringn_nocheck("a\0b", 3));
    CHECK_FAILS(em_options_read(table, json, "w", NULL, &s), EMBER_E_CONFIG, "NUL");
    json_decref(json);
}

// What em_options_check() cannot know: the default component exists.
static void check_default(const struct em_component *c, const ember_option *o)
{
    const struct em_component *found;
    json_t *value;
    if (o->type != EMBER_OPTION_COMPONENT || !o->text) return;
    CHECK_OK(em_json_parse("default", o->text, strlen(o->text), 0, &value));
    CHECK_OK(em_registry_need((ember_kind)o->kind,
                              json_string_value(json_object_get(value, "type")), c->name, &found));
    json_decref(value);
}

static void every_registered_table_holds_together(void **state)
{
    (void)state;
    const struct em_component *c;
    size_t tables = 0;
    CHECK_OK(ember_start());
    for (size_t i = 0; (c = em_registry_at(i)); i++) {
        if (!c->help || !*c->help) fail_msg("%s has no help", c->name);
        const bool layer = c->kind <= EMBER_BLOCK;
        CHECK_OK(em_options_check(c->options, layer ? sizeof(ember_layer) : 0, c->size, c->name));
        if (layer) CHECK_OK(em_layer_type_check(c->impl, "built in"));
        for (const ember_option *o = c->options; o && o->name; o++)
            check_default(c, o);
        tables += c->options && c->options->name;
    }
    assert_true(tables >= 10);
}

static void a_table_that_does_not_hold_together_is_refused(void **state)
{
    (void)state;
    static const struct {
        ember_option option;
        const char *message;
    } cases[] = {
        {EMBER_OPT_SIZE(struct sample, size, 3, 4, 9, "help"),
         "t.size has the default 3, and the range 4 to 9"},
        {EMBER_OPT_SIZE(struct sample, size, 3, 9, 1, "help"), "t.size has the range 9 to 1"},
        {EMBER_OPT_SIZE(struct sample, size, 3, -1, 9, "help"), "t.size has the range -1 to 9"},
        {EMBER_OPT_SIZE(struct sample, size, 3, 1, 1e16, "help"),
         "t.size has the range 1 to 1e+16"},
        {EMBER_OPT_SIZE(struct sample, size, 1.5, 1, 9, "help"), "t.size has the default 1.5"},
        {EMBER_OPT_FLOAT(struct sample, real, NAN, 0, 1, "help"), "t.real has the default nan"},
        {EMBER_OPT_FLOAT(struct sample, real, 0, -1e39, 1, "help"), "t.real has the range -1e+39"},
        {EMBER_OPT_DOUBLE(struct sample, exact, 0, 0, NAN, "help"),
         "t.exact has the range 0 to nan"},
        {EMBER_OPT_ENUM(struct sample, choice, 2, "red|green", "help"),
         "t.choice has the default 2 of 2 choices"},
        {EMBER_OPT_ENUM(struct sample, choice, 0, "red||green", "help"),
         "choice 1 of \"red||green\" has no name"},
        {EMBER_OPT_ENUM(struct sample, choice, 0, NULL, "help"), "t.choice has no choices"},
        {EMBER_OPT_BOOL(struct sample, flag, true, NULL), "t.flag has no help of one line"},
        {EMBER_OPT_BOOL(struct sample, flag, true, "two\nlines"), "t.flag has no help of one line"},
        {EMBER_OPT_COMPONENT(struct sample, norm, EMBER_KINDS, NULL, "help"), "of no kind (14)"},
        {EMBER_OPT_COMPONENT(struct sample, norm, EMBER_NORM, "{\"type\"", "help"), "t.norm: "},
        {{.name = "Size", .type = EMBER_OPTION_SIZE, .help = "help"}, "\"Size\" cannot be"},
        {{.name = "type", .type = EMBER_OPTION_SIZE, .help = "help"}, "\"type\" cannot be"},
        {{.name = "size", .type = (ember_option_type)99, .help = "help"}, "t.size has the type 99"},
        {{.name = "size",
          .type = EMBER_OPTION_SIZE,
          .offset = sizeof(struct sample),
          .help = "help"},
         "t.size lies at"},
        {{.name = "size", .type = EMBER_OPTION_SIZE, .offset = SIZE_MAX - 7, .help = "help"},
         "t.size lies at"},
        {{.name = "size", .type = EMBER_OPTION_SIZE, .offset = 3, .max = 1, .help = "help"},
         "t.size lies at 3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const ember_option one[] = {cases[i].option, {0}};
        CHECK_FAILS(em_options_check(one, 0, sizeof(struct sample), "t"),
                    cases[i].option.type == EMBER_OPTION_COMPONENT && cases[i].option.text
                        ? EMBER_E_FORMAT
                        : EMBER_E_CONFIG,
                    cases[i].message);
    }
    const ember_option twice[] = {table[0], table[1], table[0], {0}};
    CHECK_FAILS(em_options_check(twice, 0, sizeof(struct sample), "t"), EMBER_E_CONFIG,
                "t.size is there twice");
    CHECK_FAILS(em_options_check(table, 9, sizeof(struct sample), "t"), EMBER_E_CONFIG,
                "t.size lies at 0, outside the component's 9 to");
    ember_option endless[80];
    char name[80][8];
    for (size_t i = 0; i < 80; i++) {
        endless[i] = table[0];
        snprintf(name[i], sizeof name[i], "o%zu", i);
        endless[i].name = name[i];
    }
    CHECK_FAILS(em_options_check(endless, 0, sizeof(struct sample), "t"), EMBER_E_CONFIG,
                "does not end with {0}");
}

static void *read_defaults(void *arg)
{
    struct sample s;
    bool *same = arg;
    for (int i = 0; i < 100; i++) {
        *same &= em_options_read(table, NULL, "w", NULL, &s) == EMBER_OK;
        *same &= s.norm && json_is_object(em_config_json(s.norm));
    }
    return NULL;
}

static void threads_share_the_defaults(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    pthread_t thread[THREADS];
    bool same[THREADS];
    for (int i = 0; i < THREADS; i++) {
        same[i] = true;
        assert_int_equal(pthread_create(&thread[i], NULL, read_defaults, &same[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
        assert_true(same[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_share_the_defaults), // first: the defaults are not parsed yet
        cmocka_unit_test(absent_and_null_options_have_their_defaults),
        cmocka_unit_test(what_fits_is_read),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(a_nul_ends_no_text),
        cmocka_unit_test(every_registered_table_holds_together),
        cmocka_unit_test(a_table_that_does_not_hold_together_is_refused),
    };
    return cmocka_run_group_tests_name("registry/option", tests, NULL, NULL);
}
