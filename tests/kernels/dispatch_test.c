// The tables: which of them run here, and that EMBER_ISA picks one.
#include "base/cpu.h"
#include "kernels/check.h"

static void tables_are_those_that_run_here(void **state)
{
    (void)state;
    size_t found = 0;
    for (int isa = 0; isa < EM_ISA_COUNT; isa++) {
        if (!em_isa_runs((enum em_isa)isa)) continue;
        assert_non_null(em_kernels_at(found));
        assert_string_equal(em_kernels_at(found)->isa, em_isa_name((enum em_isa)isa));
        found++;
    }
    assert_true(found >= 1);
    assert_null(em_kernels_at(found));
}

static void ember_isa_names_the_table_in_force(void **state)
{
    (void)state;
    assert_string_equal(em_kernels()->isa, "scalar"); // set in main, before the first call
    setenv("EMBER_ISA", "", 1);
    assert_ptr_equal(em_kernels(), em_kernels_at(0)); // chosen once
}

int main(void)
{
    setenv("EMBER_ISA", "scalar", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_those_that_run_here),
        cmocka_unit_test(ember_isa_names_the_table_in_force),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
