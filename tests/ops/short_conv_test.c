#include "support/conv_check.h"

static ember_status short_conv(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                               ember_tensor **out)
{
    return ember_short_conv(flow, in[CONV_X], in[CONV_W],
                            c->in[CONV_BIAS].ndim ? in[CONV_BIAS] : NULL, &out[0]);
}

static void values_gradients_and_states(void **state)
{
    (void)state;
    check_conv_rounds(&(struct conv_form){.name = "short_conv", .record = short_conv, .columns = 3},
                      41);
}

static void many_tokens_in_parallel(void **state)
{
    (void)state;
    check_op(
        &(struct op_case){
            .name = "short_conv",
            .record = short_conv,
            .rows = 600, // backward sums the weights' gradient in pieces of 256
            .by_token = true,
            .sequences = 7,
            .stateful = true,
            .large = true,
            .in = {{OP_ROWS, {3 * 101}, 1}, {OP_PARAMETER, {101, 3}, 2}, {OP_PARAMETER, {101}, 1}}},
        1);
}

// y[t] = C[t] (w0 u[t-1] + w1 u[t] + bias), u = B X, by hand.
static void values_by_hand(void **state)
{
    (void)state;
    static const float bcx[] = {1, 2, 3, /**/ 2, 1, 4, /**/ -1, 1, 5}; // u = 3, 8, -5
    check_conv_by_hand(
        &(struct conv_by_hand){.record = short_conv,
                               .columns = 3,
                               .first = 2,
                               .x = bcx,
                               .w = {10, 1},
                               .bias = 0.5f,
                               .whole = {2 * 3.5f, 1 * (30 + 8 + 0.5f), 1 * (80 - 5 + 0.5f)},
                               .cut = {2 * 3.5f, 1 * (30 + 8 + 0.5f), 1 * (-5 + 0.5f)}});
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    struct op_case c = {.record = short_conv,
                        .by_token = true,
                        .in = {{OP_ROWS, {7}, 1}, {OP_PARAMETER, {2, 3}, 2}}};
    check_op_refused(&c, EMBER_E_SHAPE, "short_conv: bcx is [5, 7], w is [2, 3]");
    c.in[CONV_X].dim[0] = 6;
    c.in[CONV_BIAS] = (struct op_input){.kind = OP_PARAMETER, .dim = {3}, .ndim = 1};
    check_op_refused(&c, EMBER_E_SHAPE, "short_conv: bias has to be [2], not [3]");
    c.in[CONV_BIAS] = (struct op_input){.kind = OP_PARAMETER, .dim = {1, 2}, .ndim = 2};
    check_op_refused(&c, EMBER_E_SHAPE, "short_conv: bias has to be [2], not [1, 2]");
    c.in[CONV_BIAS].ndim = 0;
    c.in[CONV_W] = (struct op_input){.kind = OP_PARAMETER, .dim = {2}, .ndim = 1};
    check_op_refused(&c, EMBER_E_SHAPE, "short_conv: bcx is [5, 6], w is [2]");
    c.in[CONV_X].dim[0] = 15;
    c.in[CONV_W] = (struct op_input){.kind = OP_ROWS, .dim = {3}, .ndim = 1};
    check_op_refused(&c, EMBER_E_SHAPE, "short_conv: w has to be a contiguous parameter");
    c.in[CONV_X] = (struct op_input){.kind = OP_PARAMETER, .dim = {5, 6}, .ndim = 2};
    check_op_refused(&c, EMBER_E_SHAPE, "has to be an activation with a row per token (5)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_gradients_and_states),
        cmocka_unit_test(many_tokens_in_parallel),
        cmocka_unit_test(values_by_hand),
        cmocka_unit_test(other_shapes_are_refused),
    };
    return OP_RUN_TESTS("short_conv", tests);
}
