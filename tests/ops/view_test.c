// Views that do not fit are refused with what was asked for.
#include <ember/ops.h>

#include "ops/program.h"
#include "support/check.h"

static void shapes_that_wrap_are_refused(void **state)
{
    (void)state;
    struct em_program *p;
    CHECK_OK(
        em_program_create(&(struct em_program_options){.max_tokens = 3, .max_sequences = 1}, &p));
    ember_flow *flow = em_program_flow(p);
    ember_tensor *x, *y;
    CHECK_OK(ember_inputs(flow, 4, &x));
    CHECK_FAILS(ember_reshape(flow, x, (size_t[]){(size_t)1 << 62, 4, 4}, 3, &y), EMBER_E_SHAPE,
                "does not fit");
    CHECK_FAILS(ember_reshape(flow, x, (size_t[]){((size_t)1 << 62) + 1, 4}, 2, &y), EMBER_E_SHAPE,
                "does not fit"); // wraps to 4
    CHECK_FAILS(ember_reshape(flow, x, (size_t[]){5}, 1, &y), EMBER_E_SHAPE,
                "no rows of 5 elements");
    CHECK_OK(ember_reshape(flow, x, (size_t[]){2, 2}, 2, &y));
    em_program_destroy(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_that_wrap_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
