#include "support/op_check.h"

static ember_status embedding(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                              ember_tensor **out)
{
    return ember_embedding(flow, in[0], *(const ptrdiff_t *)c->context, &out[0]);
}

static void values_and_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 10;
    for (size_t round = 0; round < op_rounds(8); round++) {
        const size_t V = op_size(&sizes, 12);
        check_op(&(struct op_case){.name = "embedding",
                                   .record = embedding,
                                   .context = &(ptrdiff_t){-1},
                                   .rows = op_size(&sizes, 30),
                                   .by_token = true,
                                   .sequences = 3,
                                   .stateful = true,
                                   .vocabulary = V,
                                   .in = {{OP_PARAMETER, {V, op_size(&sizes, 150)}, 2}}},
                 round);
    }
    check_op(&(struct op_case){.name = "embedding",
                               .record = embedding,
                               .context = &(ptrdiff_t){-1},
                               .rows = 200,
                               .by_token = true,
                               .vocabulary = 50,
                               .large = true,
                               .in = {{OP_PARAMETER, {50, 333}, 2}}},
             1);
}

// A frozen row is looked up like the others, and has no gradient.
static void frozen_row_has_no_gradient(void **state)
{
    (void)state;
    enum { T = 4, V = 3, D = 2 };
    static float table[V * D] = {1, 2, 3, 4, 5, 6};
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        float grad[V * D] = {0};
        ember_tensor weight, gradient, *y, *loss;
        CHECK_OK(em_tensor_init(&weight, EMBER_F32, (size_t[]){V, D}, 2, table));
        CHECK_OK(em_tensor_init(&gradient, EMBER_F32, (size_t[]){V, D}, 2, grad));
        weight.grad = &gradient;
        struct em_program *p;
        CHECK_OK(em_program_create(&(struct em_program_options){.backend = (enum em_backend)backend,
                                                                .max_tokens = T,
                                                                .max_sequences = 1,
                                                                .gradients = true},
                                   &p));
        CHECK_OK(ember_embedding(em_program_flow(p), &weight, 1, &y));
        CHECK_OK(ember_mean_square(em_program_flow(p), y, &loss));
        em_program_output(p, y);
        em_program_loss(p, loss);
        CHECK_OK(em_program_allocate(p));
        const ember_batch batch = {.n_tokens = T,
                                   .n_sequences = 1,
                                   .offset = (size_t[]){0, T},
                                   .tokens = (int32_t[]){1, 2, 2, 1}};
        CHECK_OK(em_program_forward(
            p, &(struct em_run){.batch = &batch, .gradients = true, .loss_scale = 1.0 / T}));
        CHECK_OK(em_program_backward(p));
        CHECK_NEAR(em_row(y, 3)[1], 4, 0, "row 1");
        CHECK_NEAR(grad[2], 0, 0, "frozen");
        CHECK_NEAR(grad[3], 0, 0, "frozen");
        CHECK_NEAR(grad[4], 2 * 2 * 5.0 / 8, 1e-6, "row 2 twice");
        em_program_destroy(p);
    }
}

static void tokens_outside_the_table_are_refused(void **state)
{
    (void)state;
    static float table[6];
    ember_tensor weight, *y;
    struct em_program *p;
    CHECK_OK(em_tensor_init(&weight, EMBER_F32, (size_t[]){3, 2}, 2, table));
    CHECK_OK(em_program_create(
        &(struct em_program_options){.backend = EM_CPU, .max_tokens = 2, .max_sequences = 1}, &p));
    CHECK_OK(ember_embedding(em_program_flow(p), &weight, -1, &y));
    CHECK_OK(em_program_allocate(p));
    ember_batch batch = {
        .n_tokens = 2, .n_sequences = 1, .offset = (size_t[]){0, 2}, .tokens = (int32_t[]){0, 3}};
    CHECK_FAILS(em_program_forward(p, &(struct em_run){.batch = &batch}), EMBER_E_RANGE,
                "token 3 at place 1 is outside the vocabulary of 3");
    batch.tokens = (int32_t[]){-1, 0};
    CHECK_FAILS(em_program_forward(p, &(struct em_run){.batch = &batch}), EMBER_E_RANGE,
                "token -1 at place 0");
    batch.tokens = NULL;
    CHECK_FAILS(em_program_forward(p, &(struct em_run){.batch = &batch}), EMBER_E_SHAPE,
                "the batch has none");
    em_program_destroy(p);
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    struct op_case c = {.record = embedding,
                        .context = &(ptrdiff_t){-1},
                        .by_token = true,
                        .vocabulary = 1,
                        .in = {{OP_PARAMETER, {3}, 1}}};
    check_op_refused(&c, EMBER_E_SHAPE, "embedding: table has to be [V, D], not [3]");
    c.in[0] = (struct op_input){.kind = OP_PARAMETER, .dim = {3, 2}, .ndim = 2};
    c.context = &(ptrdiff_t){3};
    check_op_refused(&c, EMBER_E_RANGE,
                     "embedding: the frozen row 3 is outside the table of 3 rows");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_gradients),
        cmocka_unit_test(frozen_row_has_no_gradient),
        cmocka_unit_test(tokens_outside_the_table_are_refused),
        cmocka_unit_test(other_shapes_are_refused),
    };
    return OP_RUN_TESTS("embedding", tests);
}
