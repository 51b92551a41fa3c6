#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "support/check.h"

static void pieces_join_and_stay_terminated(void **state)
{
    (void)state;
    struct em_buf b;
    em_buf_init(&b, 0);
    assert_null(b.data);
    CHECK_OK(em_buf_puts(&b, "ab"));
    CHECK_OK(em_buf_putc(&b, 0));
    CHECK_OK(em_buf_printf(&b, "%d", 12345));
    CHECK_OK(em_buf_add(&b, NULL, 0));
    assert_int_equal(b.size, 8);
    assert_memory_equal(b.data, "ab\00012345", 9);
    for (int i = 0; i < 10000; i++)
        CHECK_OK(em_buf_printf(&b, "%04d", i));
    assert_int_equal(b.size, 40008);
    assert_memory_equal(b.data + 40004, "9999", 5);
    em_buf_clear(&b);
    assert_string_equal(b.data, "");
    em_buf_deinit(&b);
    assert_null(b.data);
}

static void the_limit_holds(void **state)
{
    (void)state;
    struct em_buf b;
    em_buf_init(&b, 5);
    CHECK_OK(em_buf_puts(&b, "12345"));
    CHECK_FAILS(em_buf_putc(&b, '6'), EMBER_E_RANGE, "limit of 5 bytes");
    CHECK_FAILS(em_buf_printf(&b, "%s", "long"), EMBER_E_RANGE, "limit of 5 bytes");
    assert_string_equal(b.data, "12345");
    em_buf_clear(&b);
    CHECK_OK(em_buf_puts(&b, "abc"));
    CHECK_FAILS(em_buf_reserve(&b, SIZE_MAX), EMBER_E_NOMEM, "out of memory");
    em_buf_deinit(&b);
}

static void a_taken_text_is_the_callers(void **state)
{
    (void)state;
    struct em_buf b;
    em_buf_init(&b, 0);
    char *empty = em_buf_take(&b);
    assert_string_equal(empty, "");
    CHECK_OK(em_buf_puts(&b, "x"));
    char *text = em_buf_take(&b);
    assert_string_equal(text, "x");
    assert_null(b.data);
    CHECK_OK(em_buf_puts(&b, "fresh"));
    assert_string_equal(b.data, "fresh");
    em_free(empty);
    em_free(text);
    em_buf_deinit(&b);
}

static void without_memory_the_old_bytes_stay(void **state)
{
    (void)state;
    struct em_buf b;
    em_buf_init(&b, 0);
    CHECK_OK(em_buf_puts(&b, "1234567"));
    em_alloc_fail_at(1, 1);
    CHECK_FAILS(em_buf_puts(&b, "89"), EMBER_E_NOMEM, "out of memory");
    em_alloc_fail_at(0, 0);
    assert_string_equal(b.data, "1234567");
    em_buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_join_and_stay_terminated),
        cmocka_unit_test(the_limit_holds),
        cmocka_unit_test(a_taken_text_is_the_callers),
        cmocka_unit_test(without_memory_the_old_bytes_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
