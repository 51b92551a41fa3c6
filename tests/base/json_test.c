#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/json.h"
#include "support/check.h"

static json_t *parse(const char *text, int flags)
{
    json_t *value = NULL;
    CHECK_OK(em_json_parse("t", text, strlen(text), flags, &value));
    return value;
}

static void refuse(const char *text, int flags, const char *said)
{
    json_t *value = NULL;
    CHECK_FAILS(em_json_parse("dir/x.json", text, strlen(text), flags, &value), EMBER_E_FORMAT,
                said);
    assert_null(value);
}

static void check_print(const char *text, int flags, int indent, const char *expected)
{
    json_t *value = parse(text, flags);
    struct em_buf b;
    em_buf_init(&b, 0);
    CHECK_OK(em_json_print(value, indent, &b));
    assert_string_equal(b.data, expected);
    em_buf_deinit(&b);
    json_decref(value);
}

static void values_read_back_as_written(void **state)
{
    (void)state;
    check_print("{\"z\": [1, -2, true, false, null], \"a\": {\"b\": \"c\"}, \"e\": [], \"f\": {}}",
                0, 0, "{\"z\":[1,-2,true,false,null],\"a\":{\"b\":\"c\"},\"e\":[],\"f\":{}}");
    check_print(
        "{\"z\": [1, 2], \"e\": [], \"f\": {\"g\": 1}}", 0, 2,
        "{\n  \"z\": [\n    1,\n    2\n  ],\n  \"e\": [],\n  \"f\": {\n    \"g\": 1\n  }\n}");
    check_print(" \"a\\u0001\\\"\\\\\\/\\n\\t\\u20ac\\u0000b\" ", 0, 0,
                "\"a\\u0001\\\"\\\\/\\n\\t\xe2\x82\xac\\u0000"
                "b\"");
    check_print("\xef\xbb\xbf[9223372036854775807, -9223372036854775808]", 0, 0,
                "[9223372036854775807,-9223372036854775808]");
}

static void real_numbers_are_short_and_exact(void **state)
{
    (void)state;
    check_print(
        "[0.1, 1e-06, 1.0, 2.5, 1e300, -0.0, 100000000000000000000.0, 0.30000000000000004, 3e5]", 0,
        0, "[0.1,1e-06,1.0,2.5,1e+300,-0.0,1e+20,0.30000000000000004,300000.0]");
    const double hard[] = {DBL_MIN, DBL_MAX,         DBL_TRUE_MIN,
                           1.0 / 3, nextafter(1, 2), 123456789012345678.0};
    for (size_t i = 0; i < sizeof hard / sizeof *hard; i++) {
        json_t *real = json_real(hard[i]), *back = NULL;
        struct em_buf b;
        em_buf_init(&b, 0);
        CHECK_OK(em_json_print(real, 0, &b));
        CHECK_OK(em_json_parse("t", b.data, b.size, 0, &back));
        assert_true(json_is_real(back) && json_real_value(back) == hard[i]);
        em_buf_deinit(&b);
        json_decref(real);
        json_decref(back);
    }
}

static void another_decimal_point_changes_nothing(void **state)
{
    (void)state;
    if (!setlocale(LC_NUMERIC, "de_DE.UTF-8") && !setlocale(LC_NUMERIC, "fr_FR.UTF-8")) skip();
    check_print("[0.5, 1e-06]", 0, 0, "[0.5,1e-06]");
    setlocale(LC_NUMERIC, "C");
}

static void comments_and_trailing_commas_are_for_recipes(void **state)
{
    (void)state;
    const char *text = "// first\n{ /* a,b] */ \"a\": [1, 2, /* x */ ], // \"quoted\n \"u\": "
                       "\"http://x/*y*/\",\n}\n//";
    check_print(text, EM_JSON_COMMENTS, 0, "{\"a\":[1,2],\"u\":\"http://x/*y*/\"}");
    refuse(text, 0, "dir/x.json:1:");
    refuse("[1,]", 0, "dir/x.json:1:4: ");
    refuse("[,]", EM_JSON_COMMENTS, "dir/x.json:1:");
    refuse("[1,,]", EM_JSON_COMMENTS, "dir/x.json:1:");
    refuse("{\"a\":,}", EM_JSON_COMMENTS, "dir/x.json:1:");
    refuse("{,}", EM_JSON_COMMENTS, "dir/x.json:1:");
    refuse("[1],", EM_JSON_COMMENTS, "dir/x.json:1:");
    refuse("[1] /* open", EM_JSON_COMMENTS, "dir/x.json:1:5: this comment has no end");
    refuse("[1] /*/", EM_JSON_COMMENTS, "dir/x.json:1:5: this comment has no end");
    refuse("[1 / 2]", EM_JSON_COMMENTS, "dir/x.json:1:");
}

static void line_and_column_are_those_of_the_text(void **state)
{
    (void)state;
    refuse("{\n  \"a\": 1,\n  \"b\": oops\n}", 0, "dir/x.json:3:8: invalid token near 'oops'");
    refuse("{\n/* \n\n */ \"a\": 1,, \n}", EM_JSON_COMMENTS, "dir/x.json:4:");
    // Characters, not bytes; and the quotes put around bare words do not count.
    refuse("[\"\xe2\x82\xac\xe2\x82\xac\", NaN, -Infinity, x]", 0,
           "dir/x.json:1:24: invalid token near 'x'");
    refuse("", 0, "dir/x.json:1:1: ");
    refuse("[1", 0, "dir/x.json:1:3: ");
    refuse("[\"open\n\"]", 0, "dir/x.json:1:");
}

static void hostile_texts_are_refused(void **state)
{
    (void)state;
    refuse("{\"a\": 1, \"a\": 2}", 0, "duplicate object key");
    refuse("[1] x", 0, "end of file expected");
    refuse("[\"\xff\xfe\"]", 0, "dir/x.json:1:3: unable to decode byte 0xff");
    refuse("[\"\xed\xa0\x80\"]", 0, "unable to decode byte 0xed"); // half a surrogate pair
    refuse("[1e999]", 0, "overflow");
    refuse("[99999999999999999999]", 0, "too big");
    refuse("{\"a\\u0000b\": 1}", 0, "NUL");
    refuse("{NaN: 1}", 0, "string or '}' expected");
    refuse("[NaNs]", 0, "invalid token");
    json_t *value = NULL;
    CHECK_FAILS(em_json_parse("x", "[1\0]", 4, 0, &value), EMBER_E_FORMAT, "x:1:");

    enum { DEEP = 100000 };
    char *deep = malloc(2 * DEEP + 1);
    for (size_t depth = 63; depth <= 66; depth++) {
        memset(deep, '[', depth);
        memset(deep + depth, ']', depth);
        deep[2 * depth] = 0;
        if (depth <= 64)
            json_decref(parse(deep, 0));
        else
            refuse(deep, 0, "dir/x.json:1:65: nested deeper than 64");
    }
    memset(deep, '[', 2 * DEEP);
    deep[2 * DEEP] = 0;
    refuse(deep, 0, "nested deeper than 64");
    free(deep);
    json_t *flat = parse("[\"[[[[\\\"[[[\", \"{{{{{{\"]", 0); // brackets in strings are text
    json_decref(flat);
}

// `[[],[],..` is forty times as large in memory; a limit that a vocabulary fits in.
static void values_take_no_more_memory_than_the_text_allows(void **state)
{
    (void)state;
    enum { MEMBERS = 1 << 20, BYTES = 3 * MEMBERS };
    char *text = malloc(BYTES + 1);
    for (size_t i = 0; i < MEMBERS; i++)
        memcpy(text + 1 + 3 * i, "[],", 3);
    text[0] = '[';
    text[BYTES] = ']';
    json_t *v;
    em_alloc_peak_reset();
    const size_t before = em_alloc_live();
    CHECK_FAILS(em_json_parse("dense.json", text, BYTES + 1, 0, &v), EMBER_E_FORMAT,
                "more values than this file's size allows memory for");
    assert_true(em_alloc_peak() - before <= BYTES + (64 << 20));
    assert_int_equal(em_alloc_live(), before);
    for (size_t i = 0; i < MEMBERS; i++)
        memcpy(text + 1 + 3 * i, "12,", 3); // numbers are small
    text[BYTES] = ']';
    CHECK_OK(em_json_parse("dense.json", text, BYTES + 1, EM_JSON_COMMENTS, &v));
    assert_true(em_alloc_peak() - before <= BYTES + (64 << 20));
    json_decref(v);
    free(text);
}

static void bare_words_become_strings(void **state)
{
    (void)state;
    check_print("[NaN, Infinity,-Infinity ,{\"a\":NaN, \"b\": [ Infinity]}]", 0, 0,
                "[\"NaN\",\"Infinity\",\"-Infinity\",{\"a\":\"NaN\",\"b\":[\"Infinity\"]}]");
    check_print("Infinity", 0, 0, "\"Infinity\"");
    check_print("[NaN/* x */, -1]", EM_JSON_COMMENTS, 0, "[\"NaN\",-1]");
}

static void files_are_read_and_written(void **state)
{
    (void)state;
    const char *path = test_path(test_directory(), "c.json");
    json_t *value = parse("{\"a\": [1.5]}", 0), *back = NULL;
    CHECK_OK(em_json_write(path, value, 2));
    CHECK_OK(em_json_read(path, 0, 0, &back));
    assert_true(json_equal(value, back));
    json_decref(back);
    json_decref(value);
    back = NULL;
    CHECK_FAILS(em_json_read(path, 5, 0, &back), EMBER_E_RANGE, "the limit is 5");
    CHECK_OK(em_write_file(path, "{\n]", 3));
    CHECK_FAILS(em_json_read(path, 0, 0, &back), EMBER_E_FORMAT, "c.json:2:1: ");
    CHECK_OK(em_write_file(path, "", 0));
    CHECK_FAILS(em_json_read(path, 0, 0, &back), EMBER_E_FORMAT, "c.json:1:1: ");
}

static void members_are_checked(void **state)
{
    (void)state;
    json_t *o = parse(
        "{\"n\": 8, \"r\": 1e3, \"x\": 0.5, \"neg\": -1, \"s\": \"text\", \"t\": true, \"z\": null,"
        " \"inf\": Infinity, \"nan\": NaN, \"nul\": \"a\\u0000b\", \"big\": 1e19, \"l\": []}",
        0);
    size_t n = 5;
    double d = 5;
    bool b = false;
    const char *s = "unset";
    CHECK_OK(em_json_get_size(o, "f", "n", 1, 10, &n));
    assert_int_equal(n, 8);
    CHECK_OK(em_json_get_size(o, "f", "r", 0, SIZE_MAX, &n));
    assert_int_equal(n, 1000);
    CHECK_OK(em_json_get_size(o, "f", "absent", 1, 10, &n));
    CHECK_OK(em_json_get_size(o, "f", "z", 1, 10, &n));
    assert_int_equal(n, 1000);
    CHECK_FAILS(em_json_get_size(o, "c.json: blocks[3].router", "n", 1, 7, &n), EMBER_E_CONFIG,
                "c.json: blocks[3].router.n: expected an integer from 1 to 7, found 8");
    CHECK_FAILS(em_json_get_size(o, "c.json", "neg", 1, SIZE_MAX, &n), EMBER_E_CONFIG,
                "c.json: neg: expected an integer of at least 1, found -1");
    CHECK_FAILS(em_json_get_size(o, "f", "x", 0, 7, &n), EMBER_E_CONFIG, "found 0.5");
    CHECK_FAILS(em_json_get_size(o, "f", "s", 0, 7, &n), EMBER_E_CONFIG, "found \"text\"");
    CHECK_FAILS(em_json_get_size(o, "f", "t", 0, 7, &n), EMBER_E_CONFIG, "found true");
    CHECK_FAILS(em_json_get_size(o, "f", "big", 0, SIZE_MAX, &n), EMBER_E_CONFIG, "found 1e+19");
    assert_int_equal(n, 1000);
    CHECK_OK(em_json_get_double(o, "f", "x", 0, 1, &d));
    CHECK_NEAR(d, 0.5, 0, "x");
    CHECK_OK(em_json_get_double(o, "f", "n", 0, 10, &d));
    CHECK_NEAR(d, 8, 0, "n");
    CHECK_OK(em_json_get_double(o, "f", "inf", 0, INFINITY, &d));
    assert_true(isinf(d));
    CHECK_FAILS(em_json_get_double(o, "f", "inf", 0, 10, &d), EMBER_E_CONFIG,
                "expected a number from 0 to 10");
    CHECK_FAILS(em_json_get_double(o, "f", "nan", -INFINITY, INFINITY, &d), EMBER_E_CONFIG,
                "found \"NaN\"");
    CHECK_FAILS(em_json_get_double(o, "f", "l", 0, 10, &d), EMBER_E_CONFIG, "found an array");
    CHECK_OK(em_json_get_bool(o, "f", "t", &b));
    assert_true(b);
    CHECK_FAILS(em_json_get_bool(o, "f", "n", &b), EMBER_E_CONFIG,
                "f: n: expected true or false, found 8");
    CHECK_OK(em_json_get_string(o, "f", "s", &s));
    assert_string_equal(s, "text");
    CHECK_FAILS(em_json_get_string(o, "f", "nul", &s), EMBER_E_CONFIG, "without a NUL character");
    CHECK_FAILS(em_json_get_string(o, "f", "n", &s), EMBER_E_CONFIG, "expected a string, found 8");
    json_decref(o);
}

static void a_slip_of_the_finger_is_guessed(void **state)
{
    (void)state;
    const char *names[] = {"rmsnorm", "layernorm", "attention", "short_conv", "moe", "softmax"};
    const struct {
        const char *word, *meant;
    } cases[] = {
        {"rmsnrom", "rmsnorm"},
        {"atention", "attention"},
        {"short-conv", "short_conv"},
        {"mo", NULL},
        {"moes", "moe"},
        {"convolution", NULL},
        {"", NULL},
        {"sofmtax", "softmax"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *found = em_did_you_mean(cases[i].word, names, 6);
        if (cases[i].meant)
            assert_string_equal(found, cases[i].meant);
        else
            assert_null(found);
    }
    char long_word[300];
    memset(long_word, 'a', sizeof long_word - 1);
    long_word[sizeof long_word - 1] = 0;
    assert_null(em_did_you_mean(long_word, names, 6));
}

static void without_memory_parsing_fails_and_nothing_leaks(void **state)
{
    (void)state;
    const char *text = "{\"a\": [1, 2.5, NaN, \"x\"], /* c */ \"b\": {\"c\": true,},}";
    for (size_t k = 1;; k++) {
        const size_t live = em_alloc_live(), before = em_alloc_count();
        json_t *value = NULL;
        struct em_buf b;
        em_buf_init(&b, 0);
        em_alloc_fail_at(k, 0);
        ember_status status = em_json_parse("t", text, strlen(text), EM_JSON_COMMENTS, &value);
        if (status == EMBER_OK) status = em_json_print(value, 2, &b);
        const bool struck = em_alloc_count() - before >= k;
        em_alloc_fail_at(0, 0);
        json_decref(value);
        em_buf_deinit(&b);
        assert_int_equal(em_alloc_live(), live);
        if (!struck) {
            CHECK_OK(status);
            assert_true(k > 20);
            break;
        }
        assert_int_equal(status, EMBER_E_NOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_take_no_more_memory_than_the_text_allows),
        cmocka_unit_test(values_read_back_as_written),
        cmocka_unit_test(real_numbers_are_short_and_exact),
        cmocka_unit_test(another_decimal_point_changes_nothing),
        cmocka_unit_test(comments_and_trailing_commas_are_for_recipes),
        cmocka_unit_test(line_and_column_are_those_of_the_text),
        cmocka_unit_test(hostile_texts_are_refused),
        cmocka_unit_test(bare_words_become_strings),
        cmocka_unit_test(files_are_read_and_written),
        cmocka_unit_test(members_are_checked),
        cmocka_unit_test(a_slip_of_the_finger_is_guessed),
        cmocka_unit_test(without_memory_parsing_fails_and_nothing_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
