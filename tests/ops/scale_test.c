#include "support/op_check.h"

static ember_status scale(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                          ember_tensor **out)
{
    return ember_scale(flow, in[0], *(const float *)c->context, &out[0]);
}

static void values_and_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 2;
    static const float factors[] = {-1.5f, 0, 1, 1e-3f};
    for (size_t round = 0; round < op_rounds(4); round++)
        check_op(
            &(struct op_case){.name = "scale",
                              .record = scale,
                              .context = &factors[round % 4],
                              .rows = op_size(&sizes, 9),
                              .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {op_size(&sizes, 70)}, 1}}},
            round);
}

static void many_rows_in_parallel(void **state)
{
    (void)state;
    check_op(&(struct op_case){.name = "scale",
                               .record = scale,
                               .context = &(float){3},
                               .rows = 150,
                               .large = true,
                               .in = {{OP_ROWS, {277}, 1}}},
             1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_gradients),
        cmocka_unit_test(many_rows_in_parallel),
    };
    return OP_RUN_TESTS("scale", tests);
}
