#include "support/op_check.h"

static ember_status activation(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                               ember_tensor **out)
{
    return ember_activation(flow, in[0], *(const ember_activation_kind *)c->context, &out[0]);
}

static void every_kind_with_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 6;
    for (size_t round = 0; round < op_rounds(2); round++)
        for (ember_activation_kind kind = EMBER_IDENTITY; kind <= EMBER_TANH; kind++)
            check_op(
                &(struct op_case){
                    .name = "activation",
                    .record = activation,
                    .context = &kind,
                    .rows = op_size(&sizes, 9),
                    // differences of relu reach 2/64 to both sides, and may not cross 0
                    .in = {{round & 1 ? OP_COLUMNS : OP_ROWS,
                            {op_size(&sizes, 70)},
                            1,
                            .low = -4,
                            .high = 4,
                            .keep_off = 0.05f}}},
                round);
}

static void many_rows_in_parallel(void **state)
{
    (void)state;
    check_op(&(struct op_case){.name = "activation",
                               .record = activation,
                               .context = &(ember_activation_kind){EMBER_SILU},
                               .rows = 150,
                               .large = true,
                               .in = {{OP_ROWS, {277}, 1, .low = -30, .high = 30}}},
             1);
}

static void unknown_kinds_are_refused(void **state)
{
    (void)state;
    check_op_refused(&(struct op_case){.record = activation,
                                       .context = &(ember_activation_kind){EMBER_TANH + 1},
                                       .in = {{OP_ROWS, {3}, 1}}},
                     EMBER_E_RANGE, "activation: there is no activation number 8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_with_gradients),
        cmocka_unit_test(many_rows_in_parallel),
        cmocka_unit_test(unknown_kinds_are_refused),
    };
    return OP_RUN_TESTS("activation", tests);
}
