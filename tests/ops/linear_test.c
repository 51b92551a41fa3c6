#include "support/op_check.h"

enum { X, W, BIAS, RESIDUAL };

// With a bias where context says so, and a residual where there is a fourth input.
struct with {
    bool bias, f32;
};

static ember_status linear(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                           ember_tensor **out)
{
    const struct with *with = c->context;
    ember_tensor *bias = with->bias ? in[BIAS] : NULL;
    if (with->f32) return ember_linear_f32(flow, in[X], in[W], bias, &out[0]);
    return ember_linear(flow, in[X], in[W], bias, c->in[RESIDUAL].ndim ? in[RESIDUAL] : NULL,
                        &out[0]);
}

// y = x w^T + x: x has a gradient by both ways.
static ember_status onto_itself(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                ember_tensor **out)
{
    (void)c;
    return ember_linear(flow, in[X], in[W], NULL, in[X], &out[0]);
}

static void values_and_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 9;
    for (size_t round = 0; round < op_rounds(16); round++) {
        const size_t N = op_size(&sizes, 70), K = op_size(&sizes, 70);
        const bool bias = round & 1, residual = round & 2;
        struct op_case c = {.name = "linear",
                            .record = linear,
                            .context = &(struct with){.bias = bias},
                            .rows = op_size(&sizes, 40),
                            .products = true,
                            .in = {{round & 4 ? OP_COLUMNS : OP_ROWS, {K}, 1},
                                   {OP_PARAMETER, {N, K}, 2},
                                   {OP_PARAMETER, {N}, 1}}};
        if (residual)
            c.in[RESIDUAL] =
                (struct op_input){.kind = round & 8 ? OP_COLUMNS : OP_ROWS, .dim = {N}, .ndim = 1};
        c.in[X].constant = round % 7 == 5;
        c.in[W].constant = round % 7 == 6;
        c.in[BIAS].constant = round % 7 == 4;
        check_op(&c, round);
    }
}

// 2e-5 where bf16 would be off by 1e-3.
static void routers_stay_in_f32(void **state)
{
    (void)state;
    struct em_program *p;
    enum { T = 4, K = 33, N = 5 };
    static float x[T * K], w[N * K];
    fill_random(x, T * K, 1);
    fill_random(w, N * K, 2);
    ember_tensor weight, *in, *out;
    CHECK_OK(em_tensor_init(&weight, EMBER_F32, (size_t[]){N, K}, 2, w));
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .backend = EM_CPU, .max_tokens = T, .max_sequences = 1, .bf16 = true},
        &p));
    CHECK_OK(ember_inputs(em_program_flow(p), K, &in));
    CHECK_OK(ember_linear_f32(em_program_flow(p), in, &weight, NULL, &out));
    em_program_output(p, out);
    CHECK_OK(em_program_allocate(p));
    const ember_batch batch = {
        .n_tokens = T, .n_sequences = 1, .offset = (size_t[]){0, T}, .inputs = x};
    CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
    for (size_t t = 0; t < T; t++)
        for (size_t n = 0; n < N; n++) {
            double sum = 0;
            for (size_t k = 0; k < K; k++)
                sum += (double)x[t * K + k] * (double)w[n * K + k];
            CHECK_NEAR(em_row(out, t)[n], sum, 2e-6, "row %zu, column %zu", t, n);
        }
    em_program_destroy(p);
}

static void f32_has_gradients_too(void **state)
{
    (void)state;
    check_op(
        &(struct op_case){
            .name = "linear_f32",
            .record = linear,
            .context = &(struct with){.bias = true, .f32 = true},
            .in = {{OP_ROWS, {17}, 1}, {OP_PARAMETER, {6, 17}, 2}, {OP_PARAMETER, {6}, 1}}},
        1);
}

static void input_as_residual(void **state)
{
    (void)state;
    check_op(&(struct op_case){.name = "linear onto itself",
                               .record = onto_itself,
                               .products = true,
                               .in = {{OP_ROWS, {17}, 1}, {OP_PARAMETER, {17, 17}, 2}}},
             1);
}

static void many_rows_in_parallel(void **state)
{
    (void)state;
    check_op(&(struct op_case){.name = "linear",
                               .record = linear,
                               .context = &(struct with){.bias = true},
                               .rows = 97,
                               .products = true,
                               .large = true,
                               .in = {{OP_ROWS, {71}, 1},
                                      {OP_PARAMETER, {157, 71}, 2},
                                      {OP_PARAMETER, {157}, 1},
                                      {OP_ROWS, {157}, 1}}},
             1);
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    struct with with = {.bias = true};
    struct op_case c = {
        .record = linear,
        .context = &with,
        .in = {{OP_ROWS, {4}, 1}, {OP_PARAMETER, {3, 5}, 2}, {OP_PARAMETER, {3}, 1}}};
    check_op_refused(&c, EMBER_E_SHAPE, "linear: x is [5, 4], w is [3, 5]");
    c.in[W].dim[1] = 4;
    c.in[BIAS].dim[0] = 4;
    check_op_refused(&c, EMBER_E_SHAPE, "linear: bias [4] has to end in 3");
    c.in[BIAS] = (struct op_input){.kind = OP_PARAMETER, .dim = {1, 3}, .ndim = 2};
    check_op_refused(&c, EMBER_E_SHAPE, "linear: bias has to be [3], not [1, 3]");
    c.in[BIAS] = (struct op_input){.kind = OP_PARAMETER, .dim = {3}, .ndim = 1};
    c.in[RESIDUAL] = (struct op_input){.kind = OP_PARAMETER, .dim = {4, 3}, .ndim = 2};
    check_op_refused(&c, EMBER_E_SHAPE, "linear: residual has to be [5, 3], not [4, 3]");
    c.in[W] = (struct op_input){.kind = OP_ROWS, .dim = {4}, .ndim = 1};
    c.in[BIAS].dim[0] = 5;
    check_op_refused(&c, EMBER_E_SHAPE, "linear: w has to be a contiguous parameter");
    c.in[W] = (struct op_input){.kind = OP_PARAMETER, .dim = {2, 3, 4}, .ndim = 3};
    check_op_refused(&c, EMBER_E_SHAPE, "linear: x is [5, 4], w is [2, 3, 4]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_gradients),  cmocka_unit_test(routers_stay_in_f32),
        cmocka_unit_test(f32_has_gradients_too), cmocka_unit_test(input_as_residual),
        cmocka_unit_test(many_rows_in_parallel), cmocka_unit_test(other_shapes_are_refused),
    };
    return OP_RUN_TESTS("linear", tests);
}
