#include "support/op_check.h"

static ember_status gate_rows(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                              ember_tensor **out)
{
    return ember_gate_rows(flow, in[0], in[1], *(const ember_activation_kind *)c->context, &out[0]);
}

static void values_and_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 8;
    static const ember_activation_kind kinds[] = {EMBER_SIGMOID, EMBER_SILU, EMBER_TANH,
                                                  EMBER_IDENTITY};
    for (size_t round = 0; round < op_rounds(8); round++) {
        const size_t H = op_size(&sizes, 70), K = op_size(&sizes, 20);
        struct op_case c = {.name = "gate_rows",
                            .record = gate_rows,
                            .context = &kinds[round % 4],
                            .rows = op_size(&sizes, 6),
                            .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {H}, 1, .low = -3, .high = 3},
                                   {round & 2 ? OP_COLUMNS : OP_ROWS, {H, K}, 2}}};
        c.in[0].constant = round == 4;
        c.in[1].constant = round == 5;
        check_op(&c, round);
    }
}

static void many_rows_in_parallel(void **state)
{
    (void)state;
    check_op(&(struct op_case){.name = "gate_rows",
                               .record = gate_rows,
                               .context = &(ember_activation_kind){EMBER_SIGMOID},
                               .rows = 150,
                               .large = true,
                               .in = {{OP_ROWS, {9}, 1}, {OP_ROWS, {9, 33}, 2}}},
             1);
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    const ember_activation_kind kind = EMBER_SIGMOID;
    check_op_refused(&(struct op_case){.record = gate_rows,
                                       .context = &kind,
                                       .in = {{OP_ROWS, {3}, 1}, {OP_ROWS, {4, 2}, 2}}},
                     EMBER_E_SHAPE, "gate_rows: g is [5, 3], u is [5, 4, 2]");
    check_op_refused(&(struct op_case){.record = gate_rows,
                                       .context = &kind,
                                       .in = {{OP_ROWS, {3}, 1}, {OP_ROWS, {3}, 1}}},
                     EMBER_E_SHAPE, "gate_rows: g is [5, 3], u is [5, 3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_gradients),
        cmocka_unit_test(many_rows_in_parallel),
        cmocka_unit_test(other_shapes_are_refused),
    };
    return OP_RUN_TESTS("gate_rows", tests);
}
