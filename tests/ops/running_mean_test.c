#include "support/op_check.h"

static ember_status running_mean(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                 ember_tensor **out)
{
    (void)c;
    return ember_running_mean(flow, in[0], &out[0]);
}

static void values_gradients_and_states(void **state)
{
    (void)state;
    uint64_t sizes = 3;
    for (size_t round = 0; round < op_rounds(6); round++)
        check_op(
            &(struct op_case){
                .name = "running_mean",
                .record = running_mean,
                .rows = op_size(&sizes, 40),
                .by_token = true,
                .sequences = op_size(&sizes, 4),
                .stateful = true,
                .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {op_size(&sizes, 150)}, 1}}},
            round);
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    struct op_case c = {.record = running_mean, .by_token = true, .in = {{OP_ROWS, {2, 3}, 2}}};
    check_op_refused(&c, EMBER_E_SHAPE, "running_mean: x has to be [T, D], not [5, 2, 3]");
    c.in[0] = (struct op_input){.kind = OP_PARAMETER, .dim = {5, 6}, .ndim = 2};
    check_op_refused(&c, EMBER_E_SHAPE, "has to be an activation with a row per token (5)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(values_gradients_and_states),
                                       cmocka_unit_test(other_shapes_are_refused)};
    return OP_RUN_TESTS("running_mean", tests);
}
