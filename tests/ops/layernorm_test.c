#include "support/op_check.h"

static ember_status layernorm(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                              ember_tensor **out)
{
    return ember_layernorm(flow, in[0], in[1], in[2], *(const float *)c->context, &out[0]);
}

static void values_and_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 5;
    for (size_t round = 0; round < op_rounds(16); round++) {
        const size_t D = op_size(&sizes, 70), H = op_size(&sizes, 5);
        struct op_case c = {.name = "layernorm",
                            .record = layernorm,
                            .context = &(float){0.1f}, // so that it is smooth also at D = 1 and 2
                            .rows = op_size(&sizes, 9),
                            .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {D}, 1},
                                   {OP_PARAMETER, {D}, 1},
                                   {OP_PARAMETER, {D}, 1}}};
        if (round & 2) c.in[0] = (struct op_input){.kind = c.in[0].kind, .dim = {H, D}, .ndim = 2};
        if (round & 4) c.in[2].ndim = 0; // no bias
        c.in[0].constant = round % 5 == 3;
        c.in[1].constant = round % 5 == 4;
        check_op(&c, round);
    }
}

static void many_rows_in_parallel(void **state)
{
    (void)state;
    check_op(
        &(struct op_case){
            .name = "layernorm",
            .record = layernorm,
            .context = &(float){1e-5f},
            .rows = 201,
            .large = true,
            .in = {{OP_ROWS, {3, 133}, 2}, {OP_PARAMETER, {133}, 1}, {OP_PARAMETER, {133}, 1}}},
        1);
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    check_op_refused(&(struct op_case){.record = layernorm,
                                       .context = &(float){0},
                                       .in = {{OP_ROWS, {4}, 1}, {OP_PARAMETER, {3}, 1}}},
                     EMBER_E_SHAPE, "layernorm: x is [5, 4], w has 3 elements");
    check_op_refused(
        &(struct op_case){
            .record = layernorm,
            .context = &(float){0},
            .in = {{OP_ROWS, {4}, 1}, {OP_PARAMETER, {4}, 1}, {OP_PARAMETER, {3}, 1}}},
        EMBER_E_SHAPE, "layernorm: w is [4], b is [3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_gradients),
        cmocka_unit_test(many_rows_in_parallel),
        cmocka_unit_test(other_shapes_are_refused),
    };
    return OP_RUN_TESTS("layernorm", tests);
}
