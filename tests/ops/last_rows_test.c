#include "support/op_check.h"

static ember_status last_rows(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                              ember_tensor **out)
{
    (void)c;
    return ember_last_rows(flow, in[0], &out[0]);
}

static void values_and_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 11;
    for (size_t round = 0; round < op_rounds(6); round++)
        check_op(
            &(struct op_case){.name = "last_rows",
                              .record = last_rows,
                              .rows = op_size(&sizes, 20),
                              .by_token = true,
                              .sequences = op_size(&sizes, 5),
                              .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {op_size(&sizes, 40)}, 1}}},
            round);
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    check_op_refused(
        &(struct op_case){.record = last_rows, .by_token = true, .in = {{OP_ROWS, {2, 3}, 2}}},
        EMBER_E_SHAPE, "last_rows: x has to be [T, D], not [5, 2, 3]");
    check_op_refused(
        &(struct op_case){.record = last_rows, .by_token = true, .in = {{OP_PARAMETER, {5, 3}, 2}}},
        EMBER_E_SHAPE, "last_rows: x has to be an activation with a row per token (5), not [5, 3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_gradients),
        cmocka_unit_test(other_shapes_are_refused),
    };
    return OP_RUN_TESTS("last_rows", tests);
}
