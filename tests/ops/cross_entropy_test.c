#include "support/op_check.h"

enum { X, W, BIAS };

static ember_status cross_entropy(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                  ember_tensor **out)
{
    return ember_cross_entropy(flow, in[X], in[W], c->in[BIAS].ndim ? in[BIAS] : NULL, &out[0],
                               &out[1]);
}

// Half of the loss, and each token's nll in a loss of its own: neither has the gradient 1.
static ember_status with_other_losses(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                      ember_tensor **out)
{
    ember_tensor *loss, *nll, *half, *square;
    EM_TRY(
        ember_cross_entropy(flow, in[X], in[W], c->in[BIAS].ndim ? in[BIAS] : NULL, &loss, &nll));
    EM_TRY(ember_scale(flow, loss, 0.5f, &half));
    EM_TRY(ember_mean_square(flow, nll, &square));
    return ember_add(flow, half, square, &out[0]);
}

// Tied: the table that tokens are looked up in is the head's matrix.
static ember_status tied(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                         ember_tensor **out)
{
    (void)c;
    ember_tensor *x;
    EM_TRY(ember_embedding(flow, in[0], -1, &x));
    return ember_cross_entropy(flow, x, in[0], NULL, &out[0], &out[1]);
}

static ember_status of_sequences(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                 ember_tensor **out)
{
    ember_tensor *x;
    EM_TRY(ember_last_rows(flow, in[X], &x));
    return ember_cross_entropy(flow, x, in[W], c->in[BIAS].ndim ? in[BIAS] : NULL, &out[0],
                               &out[1]);
}

static struct op_case usual(uint64_t *sizes, size_t round)
{
    const size_t V = op_size(sizes, 70), D = op_size(sizes, 40);
    struct op_case c = {
        .name = "cross_entropy",
        .record = cross_entropy,
        .rows = op_size(sizes, 30),
        .by_token = true,
        .sequences = 3,
        .vocabulary = V,
        .products = true,
        .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {D}, 1}, {OP_PARAMETER, {V, D}, 2}}};
    if (round & 2) c.in[BIAS] = (struct op_input){.kind = OP_PARAMETER, .dim = {V}, .ndim = 1};
    c.in[X].constant = round % 7 == 5;
    c.in[W].constant = round % 7 == 6;
    return c;
}

static void as_the_loss(void **state)
{
    (void)state;
    uint64_t sizes = 13;
    for (size_t round = 0; round < op_rounds(12); round++) {
        struct op_case c = usual(&sizes, round);
        c.loss = true;
        check_op(&c, round);
    }
}

static void as_the_loss_in_evaluation(void **state)
{
    (void)state;
    uint64_t sizes = 14;
    for (size_t round = 0; round < op_rounds(6); round++) {
        struct op_case c = usual(&sizes, round);
        c.loss = c.evaluation = true;
        check_op(&c, round);
    }
}

static void as_a_part_of_another_loss(void **state)
{
    (void)state;
    uint64_t sizes = 15;
    for (size_t round = 0; round < op_rounds(6); round++) {
        struct op_case c = usual(&sizes, round);
        c.evaluation = round & 1;
        check_op(&c, round); // loss and nll, weighted at random
        c.record = with_other_losses;
        c.loss = true;
        check_op(&c, round);
    }
}

static void a_row_for_each_sequence(void **state)
{
    (void)state;
    uint64_t sizes = 16;
    for (size_t round = 0; round < op_rounds(6); round++) {
        struct op_case c = usual(&sizes, round);
        c.record = of_sequences;
        c.loss = true;
        c.evaluation = round & 1;
        check_op(&c, round);
    }
}

// It is scored by the target of the sequence's last place, as a row of that place is.
static void a_sequence_has_the_target_of_its_last_place(void **state)
{
    (void)state;
    static float w[] = {1, 0, 0, 1, -1, 0.5f};
    const float x[] = {9, 9, 1, -2, 0.5f, 2};
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        ember_tensor weight, *in, *last, *loss, *nll[2];
        struct em_program *p;
        CHECK_OK(em_tensor_init(&weight, EMBER_F32, (size_t[]){3, 2}, 2, w));
        CHECK_OK(em_program_create(&(struct em_program_options){.backend = (enum em_backend)backend,
                                                                .max_tokens = 3,
                                                                .max_sequences = 2},
                                   &p));
        CHECK_OK(ember_inputs(em_program_flow(p), 2, &in));
        CHECK_OK(ember_last_rows(em_program_flow(p), in, &last));
        CHECK_OK(ember_cross_entropy(em_program_flow(p), in, &weight, NULL, &loss, &nll[0]));
        CHECK_OK(ember_cross_entropy(em_program_flow(p), last, &weight, NULL, &loss, &nll[1]));
        em_program_output(p, nll[0]);
        em_program_output(p, nll[1]);
        CHECK_OK(em_program_allocate(p));
        const ember_batch batch = {.n_tokens = 3,
                                   .n_sequences = 2,
                                   .offset = (size_t[]){0, 2, 3},
                                   .targets = (int32_t[]){0, 1, 2},
                                   .inputs = x};
        CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch, .loss_scale = 1}));
        assert_true(em_f32(nll[0])[1] != em_f32(nll[0])[2]);
        for (size_t s = 0; s < 2; s++)
            CHECK_NEAR(em_f32(nll[1])[s], em_f32(nll[0])[s + 1], 1e-6, "sequence %zu", s);
        em_program_destroy(p);
    }
}

// Logits are x w^T: (9, 9, -4.5), (1, -2, -2), (0.5, 2, 0.5). A tie with the largest is right.
static void rows_are_right_where_no_logit_is_larger(void **state)
{
    (void)state;
    static float w[] = {1, 0, 0, 1, -1, 0.5f};
    const float x[] = {9, 9, 1, -2, 0.5f, 2, 0.5f, 2};
    const int32_t expected[] = {1, 0, 1, 0};
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        ember_tensor weight, *in, *loss, *nll, *right;
        struct em_program *p;
        CHECK_OK(em_tensor_init(&weight, EMBER_F32, (size_t[]){3, 2}, 2, w));
        CHECK_OK(em_program_create(&(struct em_program_options){.backend = (enum em_backend)backend,
                                                                .max_tokens = 4,
                                                                .max_sequences = 1},
                                   &p));
        CHECK_OK(ember_inputs(em_program_flow(p), 2, &in));
        CHECK_OK(
            ember_cross_entropy_right(em_program_flow(p), in, &weight, NULL, &loss, &nll, &right));
        em_program_output(p, right);
        CHECK_OK(em_program_allocate(p));
        const ember_batch batch = {.n_tokens = 4,
                                   .n_sequences = 1,
                                   .offset = (size_t[]){0, 4},
                                   .targets = (int32_t[]){1, 1, 1, -100},
                                   .inputs = x};
        CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch, .loss_scale = 1}));
        assert_memory_equal(em_i32(right), expected, sizeof expected);
        em_program_destroy(p);
    }
}

static void tied_to_the_embedding(void **state)
{
    (void)state;
    check_op(&(struct op_case){.name = "tied cross_entropy",
                               .record = tied,
                               .rows = 9,
                               .by_token = true,
                               .loss = true,
                               .vocabulary = 13,
                               .products = true,
                               .in = {{OP_PARAMETER, {13, 7}, 2}}},
             1);
}

// 512 rows are one chunk at this vocabulary.
static void several_chunks_in_parallel(void **state)
{
    (void)state;
    check_op(
        &(struct op_case){
            .name = "cross_entropy",
            .record = cross_entropy,
            .rows = 700,
            .by_token = true,
            .loss = true,
            .sequences = 5,
            .vocabulary = 93,
            .products = true,
            .large = true,
            .in = {{OP_ROWS, {21}, 1}, {OP_PARAMETER, {93, 21}, 2}, {OP_PARAMETER, {93}, 1}}},
        1);
}

static void large_logits_stay_finite(void **state)
{
    (void)state;
    check_op(&(struct op_case){.name = "cross_entropy of large logits",
                               .record = cross_entropy,
                               .by_token = true,
                               .loss = true,
                               .vocabulary = 9,
                               .large = true, // too steep for differences
                               .in = {{OP_ROWS, {3}, 1, .low = -60, .high = 60},
                                      {OP_PARAMETER, {9, 3}, 2, .low = -60, .high = 60}}},
             1);
}

static void targets_are_checked(void **state)
{
    (void)state;
    static float w[6];
    ember_tensor weight, *x, *loss;
    struct em_program *p;
    CHECK_OK(em_tensor_init(&weight, EMBER_F32, (size_t[]){3, 2}, 2, w));
    CHECK_OK(em_program_create(
        &(struct em_program_options){.backend = EM_CPU, .max_tokens = 2, .max_sequences = 1}, &p));
    CHECK_OK(ember_inputs(em_program_flow(p), 2, &x));
    CHECK_OK(ember_cross_entropy(em_program_flow(p), x, &weight, NULL, &loss, NULL));
    em_program_output(p, loss);
    CHECK_OK(em_program_allocate(p));
    ember_batch batch = {.n_tokens = 2,
                         .n_sequences = 1,
                         .offset = (size_t[]){0, 2},
                         .inputs = (float[]){1, 2, 3, 4}};
    const struct em_run run = {.batch = &batch, .loss_scale = 1};
    CHECK_FAILS(em_program_forward(p, &run), EMBER_E_SHAPE,
                "the loss needs targets, and the batch has none");
    batch.targets = (int32_t[]){-1, 3};
    CHECK_FAILS(em_program_forward(p, &run), EMBER_E_RANGE,
                "target 3 at place 1 is outside the vocabulary of 3");
    batch.targets = (int32_t[]){-1, -100};
    CHECK_OK(em_program_forward(p, &run));
    CHECK_NEAR(em_f32(loss)[0], 0, 0, "nothing is scored");
    em_program_destroy(p);
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    struct op_case c = {
        .record = cross_entropy,
        .by_token = true,
        .vocabulary = 3,
        .in = {{OP_ROWS, {4}, 1}, {OP_PARAMETER, {3, 5}, 2}, {OP_PARAMETER, {4}, 1}}};
    check_op_refused(&c, EMBER_E_SHAPE, "cross_entropy: x is [5, 4], w is [3, 5]");
    c.in[W].dim[1] = 4;
    check_op_refused(&c, EMBER_E_SHAPE, "cross_entropy: bias [4] has to end in 3");
    c.in[BIAS] = (struct op_input){.kind = OP_PARAMETER, .dim = {1, 3}, .ndim = 2};
    check_op_refused(&c, EMBER_E_SHAPE, "cross_entropy: bias has to be [3], not [1, 3]");
    c.in[W] = (struct op_input){.kind = OP_ROWS, .dim = {4}, .ndim = 1};
    check_op_refused(&c, EMBER_E_SHAPE, "cross_entropy: w has to be a contiguous parameter");
    c.in[X].kind = OP_PARAMETER;
    check_op_refused(&c, EMBER_E_SHAPE,
                     "cross_entropy: x has to be an activation with a row per token (5), not [4]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_the_loss),
        cmocka_unit_test(as_the_loss_in_evaluation),
        cmocka_unit_test(as_a_part_of_another_loss),
        cmocka_unit_test(a_row_for_each_sequence),
        cmocka_unit_test(rows_are_right_where_no_logit_is_larger),
        cmocka_unit_test(a_sequence_has_the_target_of_its_last_place),
        cmocka_unit_test(tied_to_the_embedding),
        cmocka_unit_test(several_chunks_in_parallel),
        cmocka_unit_test(large_logits_stay_finite),
        cmocka_unit_test(targets_are_checked),
        cmocka_unit_test(other_shapes_are_refused),
    };
    return OP_RUN_TESTS("cross_entropy", tests);
}
