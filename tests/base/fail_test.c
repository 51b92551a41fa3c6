#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/fail.h"
#include "support/check.h"

static void a_failure_says_what_it_was_told(void **state)
{
    (void)state;
    assert_int_equal(em_fail(EMBER_E_SHAPE, "x has D=%d, w has %d", 3, 4), EMBER_E_SHAPE);
    assert_string_equal(ember_last_error(), "x has D=3, w has 4");
    assert_int_equal(em_fail_in(EMBER_E_SHAPE, "layers[%d]", 7), EMBER_E_SHAPE);
    assert_string_equal(ember_last_error(), "layers[7]: x has D=3, w has 4");
    errno = ENOENT;
    assert_int_equal(em_fail_errno("a/b", "cannot open"), EMBER_E_IO);
    assert_string_equal(ember_last_error(), "a/b: cannot open: No such file or directory");
}

static void a_message_may_quote_the_one_before(void **state)
{
    (void)state;
    (void)em_fail(EMBER_E_IO, "first");
    (void)em_fail(EMBER_E_IO, "%s, then %s", ember_last_error(), "second");
    assert_string_equal(ember_last_error(), "first, then second");
}

static void control_characters_do_not_reach_the_terminal(void **state)
{
    (void)state;
    (void)em_fail(EMBER_E_FORMAT, "name \x1b[31mred\x7f\nnext\tcell \xc3\xa9");
    assert_string_equal(ember_last_error(), "name ?[31mred? next cell \xc3\xa9");
}

static void a_long_message_is_cut_between_characters(void **state)
{
    (void)state;
    char text[3000];
    for (size_t shift = 0; shift < 4; shift++) {
        memset(text, 'a', shift);
        for (size_t i = shift; i + 3 < sizeof text; i += 3)
            memcpy(text + i, "\xe2\x82\xac", 4); // the euro sign has three bytes
        (void)em_fail(EMBER_E_IO, "%s", text);
        const size_t n = strlen(ember_last_error());
        assert_in_range(n, 1021, 1023);
        assert_int_equal((n - shift) % 3, 0);
    }
    (void)em_fail_in(EMBER_E_IO, "%s", text);
    assert_in_range(strlen(ember_last_error()), 1021, 1023);
}

static void *other_thread(void *arg)
{
    assert_string_equal(ember_last_error(), "");
    (void)em_fail(EMBER_E_IO, "theirs");
    return arg;
}

static void each_thread_has_its_own_message(void **state)
{
    (void)state;
    pthread_t id;
    (void)em_fail(EMBER_E_IO, "mine");
    assert_int_equal(pthread_create(&id, NULL, other_thread, NULL), 0);
    pthread_join(id, NULL);
    assert_string_equal(ember_last_error(), "mine");
}

static void every_status_has_its_name(void **state)
{
    (void)state;
    assert_string_equal(ember_status_name(EMBER_OK), "EMBER_OK");
    assert_string_equal(ember_status_name(EMBER_E_NOMEM), "EMBER_E_NOMEM");
    assert_string_equal(ember_status_name(EMBER_E_INTERRUPTED), "EMBER_E_INTERRUPTED");
    assert_string_equal(ember_status_name(EMBER_E_INTERNAL), "EMBER_E_INTERNAL");
    assert_string_equal(ember_status_name((ember_status)13), "EMBER_E_?");
    assert_string_equal(ember_status_name((ember_status)-1), "EMBER_E_?");
}

static ember_status pass_on(ember_status status)
{
    EM_TRY(status);
    return em_fail(EMBER_E_RANGE, "went on");
}

static void a_failure_is_passed_on(void **state)
{
    (void)state;
    assert_int_equal(pass_on(EMBER_E_IO), EMBER_E_IO);
    assert_int_equal(pass_on(EMBER_OK), EMBER_E_RANGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_says_what_it_was_told),
        cmocka_unit_test(a_message_may_quote_the_one_before),
        cmocka_unit_test(control_characters_do_not_reach_the_terminal),
        cmocka_unit_test(a_long_message_is_cut_between_characters),
        cmocka_unit_test(each_thread_has_its_own_message),
        cmocka_unit_test(every_status_has_its_name),
        cmocka_unit_test(a_failure_is_passed_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
