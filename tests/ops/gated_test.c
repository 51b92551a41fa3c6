#include "support/op_check.h"

static ember_status gated(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                          ember_tensor **out)
{
    return ember_gated(flow, in[0], in[1], *(const ember_activation_kind *)c->context, &out[0]);
}

// Gate and value as the two halves of one tensor.
static ember_status halves(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                           ember_tensor **out)
{
    const size_t F = in[0]->dim[1] / 2;
    ember_tensor *g, *u;
    EM_TRY(ember_columns(flow, in[0], 0, F, &g));
    EM_TRY(ember_columns(flow, in[0], F, 2 * F, &u));
    return ember_gated(flow, g, u, *(const ember_activation_kind *)c->context, &out[0]);
}

static ember_status by_itself(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                              ember_tensor **out)
{
    return ember_gated(flow, in[0], in[0], *(const ember_activation_kind *)c->context, &out[0]);
}

static void every_kind_with_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 7;
    for (size_t round = 0; round < op_rounds(2); round++)
        for (ember_activation_kind kind = EMBER_IDENTITY; kind <= EMBER_TANH; kind++) {
            const size_t D = op_size(&sizes, 70);
            const struct op_input g = {OP_ROWS, {D}, 1, .low = -4, .high = 4, .keep_off = 0.05f};
            struct op_case c = {.name = "gated",
                                .record = gated,
                                .context = &kind,
                                .rows = op_size(&sizes, 9),
                                .in = {g, {round & 1 ? OP_COLUMNS : OP_ROWS, {D}, 1}}};
            c.in[0].constant = kind == EMBER_SILU && round;
            c.in[1].constant = kind == EMBER_GELU && round;
            check_op(&c, round);
            c.in[0].constant = c.in[1].constant = false;
            c.record = by_itself;
            c.in[1].ndim = 0;
            check_op(&c, round);
            c.record = halves;
            c.in[0].dim[0] = 2 * D;
            check_op(&c, round);
        }
}

static void many_rows_in_parallel(void **state)
{
    (void)state;
    check_op(&(struct op_case){.name = "gated",
                               .record = halves,
                               .context = &(ember_activation_kind){EMBER_SILU},
                               .rows = 150,
                               .large = true,
                               .in = {{OP_ROWS, {554}, 1, .low = -5, .high = 5}}},
             1);
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    check_op_refused(&(struct op_case){.record = gated,
                                       .context = &(ember_activation_kind){EMBER_SILU},
                                       .in = {{OP_ROWS, {3}, 1}, {OP_ROWS, {4}, 1}}},
                     EMBER_E_SHAPE, "gated: g is [5, 3], u is [5, 4]");
    check_op_refused(&(struct op_case){.record = gated,
                                       .context = &(ember_activation_kind){-1},
                                       .in = {{OP_ROWS, {3}, 1}, {OP_ROWS, {3}, 1}}},
                     EMBER_E_RANGE, "gated: there is no activation number -1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_with_gradients),
        cmocka_unit_test(many_rows_in_parallel),
        cmocka_unit_test(other_shapes_are_refused),
    };
    return OP_RUN_TESTS("gated", tests);
}
