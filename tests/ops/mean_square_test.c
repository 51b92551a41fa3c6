#include "support/op_check.h"

static ember_status mean_square(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                ember_tensor **out)
{
    (void)c;
    return ember_mean_square(flow, in[0], &out[0]);
}

static void values_and_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 12;
    for (size_t round = 0; round < op_rounds(8); round++)
        check_op(
            &(struct op_case){.name = "mean_square",
                              .record = mean_square,
                              .rows = op_size(&sizes, 50),
                              .loss = round & 1,
                              .in = {{round & 2 ? OP_COLUMNS : OP_ROWS, {op_size(&sizes, 40)}, 1}}},
            round);
}

static void many_rows_in_parallel(void **state)
{
    (void)state;
    check_op(&(struct op_case){.name = "mean_square",
                               .record = mean_square,
                               .rows = 150,
                               .loss = true,
                               .large = true,
                               .in = {{OP_ROWS, {3, 111}, 2}}},
             1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_gradients),
        cmocka_unit_test(many_rows_in_parallel),
    };
    return OP_RUN_TESTS("mean_square", tests);
}
