#include "support/op_check.h"

enum { BCX, W, BIAS };

static ember_status short_conv(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                               ember_tensor **out)
{
    return ember_short_conv(flow, in[BCX], in[W], c->in[BIAS].ndim ? in[BIAS] : NULL, &out[0]);
}

static void values_gradients_and_states(void **state)
{
    (void)state;
    uint64_t sizes = 41;
    for (size_t round = 0; round < op_rounds(14); round++) {
        const size_t D = op_size(&sizes, 80), L = round % 4 == 3 ? 1 : op_size(&sizes, 9);
        struct op_case c = {
            .name = "short_conv",
            .record = short_conv,
            .rows = op_size(&sizes, 30),
            .by_token = true,
            .sequences = op_size(&sizes, 5),
            .stateful = true,
            .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {3 * D}, 1}, {OP_PARAMETER, {D, L}, 2}}};
        if (round & 2) c.in[BIAS] = (struct op_input){.kind = OP_PARAMETER, .dim = {D}, .ndim = 1};
        c.in[BCX].constant = round % 7 == 4;
        c.in[W].constant = round % 7 == 5;
        c.in[BIAS].constant = round % 7 == 6;
        check_op(&c, round);
    }
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
    static float w[] = {10, 1}, bias[] = {0.5f};
    static const float bcx[] = {1, 2, 3, /**/ 2, 1, 4, /**/ -1, 1, 5}; // u = 3, 8, -5
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        struct em_program *p;
        ember_tensor weight, b, *x, *y;
        CHECK_OK(em_tensor_init(&weight, EMBER_F32, (size_t[]){1, 2}, 2, w));
        CHECK_OK(em_tensor_init(&b, EMBER_F32, (size_t[]){1}, 1, bias));
        CHECK_OK(em_program_create(&(struct em_program_options){.backend = (enum em_backend)backend,
                                                                .max_tokens = 3,
                                                                .max_sequences = 2},
                                   &p));
        CHECK_OK(ember_inputs(em_program_flow(p), 3, &x));
        CHECK_OK(ember_short_conv(em_program_flow(p), x, &weight, &b, &y));
        em_program_output(p, y);
        CHECK_OK(em_program_allocate(p));
        ember_batch batch = {
            .n_tokens = 3, .n_sequences = 1, .offset = (size_t[]){0, 3}, .inputs = bcx};
        CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
        CHECK_NEAR(em_f32(y)[0], 2 * 3.5, 0, "first");
        CHECK_NEAR(em_f32(y)[1], 1 * (30 + 8 + 0.5), 0, "second");
        CHECK_NEAR(em_f32(y)[2], 1 * (80 - 5 + 0.5), 0, "third");
        batch.n_sequences = 2;
        batch.offset = (size_t[]){0, 2, 3};
        CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
        CHECK_NEAR(em_f32(y)[2], 1 * (-5 + 0.5), 0, "first of another sequence");
        em_program_destroy(p);
    }
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    struct op_case c = {.record = short_conv,
                        .by_token = true,
                        .in = {{OP_ROWS, {7}, 1}, {OP_PARAMETER, {2, 3}, 2}}};
    check_op_refused(&c, EMBER_E_SHAPE, "short_conv: bcx is [5, 7], w is [2, 3]");
    c.in[BCX].dim[0] = 6;
    c.in[BIAS] = (struct op_input){.kind = OP_PARAMETER, .dim = {3}, .ndim = 1};
    check_op_refused(&c, EMBER_E_SHAPE, "short_conv: bias has to be [2], not [3]");
    c.in[BIAS] = (struct op_input){.kind = OP_PARAMETER, .dim = {1, 2}, .ndim = 2};
    check_op_refused(&c, EMBER_E_SHAPE, "short_conv: bias has to be [2], not [1, 2]");
    c.in[BIAS].ndim = 0;
    c.in[W] = (struct op_input){.kind = OP_PARAMETER, .dim = {2}, .ndim = 1};
    check_op_refused(&c, EMBER_E_SHAPE, "short_conv: bcx is [5, 6], w is [2]");
    c.in[BCX].dim[0] = 15;
    c.in[W] = (struct op_input){.kind = OP_ROWS, .dim = {3}, .ndim = 1};
    check_op_refused(&c, EMBER_E_SHAPE, "short_conv: w has to be a contiguous parameter");
    c.in[BCX] = (struct op_input){.kind = OP_PARAMETER, .dim = {5, 6}, .ndim = 2};
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
