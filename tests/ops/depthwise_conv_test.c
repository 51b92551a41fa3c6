#include "support/op_check.h"

enum { X, W, BIAS };

static ember_status depthwise_conv(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                   ember_tensor **out)
{
    return ember_depthwise_conv(flow, in[X], in[W], c->in[BIAS].ndim ? in[BIAS] : NULL,
                                *(const ember_activation_kind *)c->context, &out[0]);
}

static void values_gradients_and_states(void **state)
{
    (void)state;
    static const ember_activation_kind kinds[] = {EMBER_IDENTITY, EMBER_SILU, EMBER_SILU,
                                                  EMBER_GELU};
    uint64_t sizes = 43;
    for (size_t round = 0; round < op_rounds(14); round++) {
        const size_t D = op_size(&sizes, 80), L = round % 5 == 3 ? 1 : op_size(&sizes, 9);
        struct op_case c = {
            .name = "depthwise_conv",
            .record = depthwise_conv,
            .context = &kinds[round % 4],
            .rows = op_size(&sizes, 30),
            .by_token = true,
            .sequences = op_size(&sizes, 5),
            .stateful = true,
            .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {D}, 1}, {OP_PARAMETER, {D, L}, 2}}};
        if (round & 2) c.in[BIAS] = (struct op_input){.kind = OP_PARAMETER, .dim = {D}, .ndim = 1};
        c.in[X].constant = round % 7 == 4;
        c.in[W].constant = round % 7 == 5;
        c.in[BIAS].constant = round % 7 == 6;
        check_op(&c, round);
    }
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
    static float w[] = {10, 1}, bias[] = {0.5f};
    static const float inputs[] = {3, 8, -95};
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        struct em_program *p;
        ember_tensor weight, b, *x, *y;
        CHECK_OK(em_tensor_init(&weight, EMBER_F32, (size_t[]){1, 2}, 2, w));
        CHECK_OK(em_tensor_init(&b, EMBER_F32, (size_t[]){1}, 1, bias));
        CHECK_OK(em_program_create(&(struct em_program_options){.backend = (enum em_backend)backend,
                                                                .max_tokens = 3,
                                                                .max_sequences = 2},
                                   &p));
        CHECK_OK(ember_inputs(em_program_flow(p), 1, &x));
        CHECK_OK(ember_depthwise_conv(em_program_flow(p), x, &weight, &b, EMBER_RELU, &y));
        em_program_output(p, y);
        CHECK_OK(em_program_allocate(p));
        ember_batch batch = {
            .n_tokens = 3, .n_sequences = 1, .offset = (size_t[]){0, 3}, .inputs = inputs};
        CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
        CHECK_NEAR(em_f32(y)[0], 3.5, 0, "first");
        CHECK_NEAR(em_f32(y)[1], 30 + 8 + 0.5, 0, "second");
        CHECK_NEAR(em_f32(y)[2], 0, 0, "third");
        batch.n_sequences = 2;
        batch.offset = (size_t[]){0, 1, 3};
        CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
        CHECK_NEAR(em_f32(y)[1], 8.5, 0, "first of another sequence");
        em_program_destroy(p);
    }
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
    c.in[X].dim[0] = 2;
    c.in[BIAS] = (struct op_input){.kind = OP_PARAMETER, .dim = {3}, .ndim = 1};
    check_op_refused(&c, EMBER_E_SHAPE, "depthwise_conv: bias has to be [2], not [3]");
    c.in[BIAS].ndim = 0;
    c.context = &unknown;
    check_op_refused(&c, EMBER_E_RANGE, "depthwise_conv: there is no activation number 99");
    c.context = &none;
    c.in[X] = (struct op_input){.kind = OP_PARAMETER, .dim = {5, 2}, .ndim = 2};
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
