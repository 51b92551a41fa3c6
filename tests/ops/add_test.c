#include "support/op_check.h"

static ember_status add(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                        ember_tensor **out)
{
    (void)c;
    return ember_add(flow, in[0], in[1], &out[0]);
}

static ember_status add_to_itself(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                  ember_tensor **out)
{
    (void)c;
    return ember_add(flow, in[0], in[0], &out[0]);
}

// x is used before and after, so its gradient cannot be the sum's.
static ember_status residual_path(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                  ember_tensor **out)
{
    (void)c;
    ember_tensor *doubled, *sum;
    EM_TRY(ember_scale(flow, in[0], 2, &doubled));
    EM_TRY(ember_add(flow, in[0], doubled, &sum));
    EM_TRY(ember_add(flow, sum, in[1], &out[0]));
    return ember_add(flow, in[0], out[0], &out[1]);
}

static void sums_and_gradients(void **state)
{
    (void)state;
    static op_record *const records[] = {add, add_to_itself, residual_path};
    uint64_t sizes = 1;
    for (size_t round = 0; round < op_rounds(3); round++)
        for (size_t i = 0; i < 3; i++)
            for (int columns = 0; columns < 2; columns++) {
                const size_t D = op_size(&sizes, 70);
                check_op(&(struct op_case){.name = "add",
                                           .record = records[i],
                                           .rows = op_size(&sizes, 9),
                                           .in = {{columns ? OP_COLUMNS : OP_ROWS, {D}, 1},
                                                  {OP_ROWS, {D}, 1}}},
                         round);
            }
}

static void many_rows_in_parallel(void **state)
{
    (void)state;
    check_op(&(struct op_case){.name = "add",
                               .record = add,
                               .rows = 137,
                               .large = true,
                               .in = {{OP_ROWS, {3, 111}, 2}, {OP_COLUMNS, {3, 111}, 2}}},
             1);
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    check_op_refused(&(struct op_case){.record = add, .in = {{OP_ROWS, {3}, 1}, {OP_ROWS, {4}, 1}}},
                     EMBER_E_SHAPE, "add: a is [5, 3], b is [5, 4]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_and_gradients),
        cmocka_unit_test(many_rows_in_parallel),
        cmocka_unit_test(other_shapes_are_refused),
    };
    return OP_RUN_TESTS("add", tests);
}
