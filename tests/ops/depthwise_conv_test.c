#include "support/conv_check.h"

static ember_status depthwise_conv(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                   ember_tensor **out)
{
    return ember_depthwise_conv(flow, in[CONV_X], in[CONV_W],
                                c->in[CONV_BIAS].ndim ? in[CONV_BIAS] : NULL,
                                *(const ember_activation_kind *)c->context, &out[0]);
}

static void values_gradients_and_states(void **state)
{
    (void)state;
    static const ember_activation_kind identity = EMBER_IDENTITY, silu = EMBER_SILU,
                                       gelu = EMBER_GELU;
    static const void *const kinds[] = {&identity, &silu, &silu, &gelu};
    check_conv_rounds(&(struct conv_form){.name = "depthwise_conv",
                                          .record = depthwise_conv,
                                          .columns = 1,
                                          .contexts = kinds,
                                          .n_contexts = 4},
                      43);
}

static void many_tokens_in_parallel(void **state)
{
    (void)state;
    static const ember_activation_kind silu = EMBER_SILU;
    for (size_t L = 4; L <= 40; L += 36) // some taps, and more than a chunk has on each side
        check_op(
            &(struct op_case){
                .name = "depthwise_conv",
                .record = depthwise_conv,
                .context = &silu,
                .rows = 600, // backward works in pieces of 256 tokens
                .by_token = true,
                .sequences = 7,
                .stateful = true,
                .large = true,
                .in = {{OP_ROWS, {37}, 1}, {OP_PARAMETER, {37, L}, 2}, {OP_PARAMETER, {37}, 1}}},
            L);
}

// y[t] = relu(w0 x[t-1] + w1 x[t] + bias), by hand: the last tap is the current token's.
static void values_by_hand(void **state)
{
    (void)state;
    static const ember_activation_kind relu = EMBER_RELU;
    check_conv_by_hand(&(struct conv_by_hand){.record = depthwise_conv,
                                              .context = &relu,
                                              .columns = 1,
                                              .first = 1,
                                              .x = (const float[]){3, 8, -95},
                                              .w = {10, 1},
                                              .bias = 0.5f,
                                              .whole = {3.5f, 30 + 8 + 0.5f, 0},
                                              .cut = {3.5f, 8.5f, 0}});
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    static const ember_activation_kind none = EMBER_IDENTITY, unknown = (ember_activation_kind)99;
    struct op_case c = {.record = depthwise_conv,
                        .context = &none,
                        .by_token = true,
                        .in = {{OP_ROWS, {7}, 1}, {OP_PARAMETER, {2, 3}, 2}}};
    check_op_refused(&c, EMBER_E_SHAPE,
                     "depthwise_conv: x is [5, 7], w is [2, 3]; they have to be [T, D] and [D, L]");
    c.in[CONV_X].dim[0] = 2;
    c.in[CONV_BIAS] = (struct op_input){.kind = OP_PARAMETER, .dim = {3}, .ndim = 1};
    check_op_refused(&c, EMBER_E_SHAPE, "depthwise_conv: bias has to be [2], not [3]");
    c.in[CONV_BIAS].ndim = 0;
    c.context = &unknown;
    check_op_refused(&c, EMBER_E_RANGE, "depthwise_conv: there is no activation number 99");
    c.context = &none;
    c.in[CONV_X] = (struct op_input){.kind = OP_PARAMETER, .dim = {5, 2}, .ndim = 2};
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
    return OP_RUN_TESTS("depthwise_conv", tests);
}
