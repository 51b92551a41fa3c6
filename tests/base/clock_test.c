#include "base/clock.h"
#include "support/check.h"

static double frozen(void)
{
    return 42;
}

static void time_goes_forward_and_can_be_replaced(void **state)
{
    (void)state;
    const double start = em_clock_seconds();
    double last = start;
    for (int i = 0; i < 1000; i++) {
        const double now = em_clock_seconds();
        assert_true(now >= last);
        last = now;
    }
    assert_true(last > start);
    assert_true(em_clock_wall() > 1.7e9); // after 2023
    const struct em_clock fake = {frozen, frozen};
    em_clock_use(&fake);
    assert_true(em_clock_seconds() == 42 && em_clock_wall() == 42);
    em_clock_use(NULL);
    assert_true(em_clock_seconds() >= last);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(time_goes_forward_and_can_be_replaced)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
