#include "support/op_check.h"

#include <math.h>

static ember_status dropout(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                            ember_tensor **out)
{
    return ember_dropout(flow, in[0], *(const float *)c->context, &out[0]);
}

static void values_and_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 3;
    for (size_t round = 0; round < op_rounds(4); round++)
        check_op(
            &(struct op_case){.name = "dropout",
                              .record = dropout,
                              .context = &(float){0.3f},
                              .random = true,
                              .rows = op_size(&sizes, 9),
                              .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {op_size(&sizes, 70)}, 1}}},
            round);
    check_op(&(struct op_case){.name = "dropout",
                               .record = dropout,
                               .context = &(float){0.9f},
                               .random = true,
                               .large = true,
                               .rows = 120,
                               .in = {{OP_ROWS, {177}, 1}}},
             1);
}

static void probability_zero_is_the_identity(void **state)
{
    (void)state;
    check_op(&(struct op_case){.name = "dropout",
                               .record = dropout,
                               .context = &(float){0},
                               .in = {{OP_ROWS, {7}, 1}}},
             1);
}

// Zeros in the asked share, everything else scaled; another step or seed gives another mask.
static void mask_follows_probability_step_and_seed(void **state)
{
    (void)state;
    enum { T = 64, D = 64, RUNS = 3 };
    static float x[T * D], y[RUNS][T * D];
    const float p = 0.25f;
    for (size_t i = 0; i < T * D; i++)
        x[i] = 1;
    struct em_program *program;
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .backend = EM_CPU, .max_tokens = T, .max_sequences = 1, .gradients = true},
        &program));
    ember_tensor *in, *out;
    CHECK_OK(ember_inputs(em_program_flow(program), D, &in));
    CHECK_OK(ember_dropout(em_program_flow(program), in, p, &out));
    em_program_output(program, out);
    CHECK_OK(em_program_allocate(program));
    const ember_batch batch = {
        .n_tokens = T, .n_sequences = 1, .offset = (size_t[]){0, T}, .inputs = x};
    for (size_t run = 0; run < RUNS; run++) {
        CHECK_OK(em_program_forward(
            program, &(struct em_run){
                         .batch = &batch, .training = true, .seed = 1 + run / 2, .step = run % 2}));
        for (size_t i = 0; i < T * D; i++)
            y[run][i] = em_f32(out)[i];
    }
    em_program_destroy(program);
    for (size_t run = 0; run < RUNS; run++) {
        size_t zeros = 0, same = 0;
        for (size_t i = 0; i < T * D; i++) {
            if (y[run][i] == 0)
                zeros++;
            else
                CHECK_NEAR(y[run][i], 1 / (1 - p), 1e-6, "element %zu", i);
            same += (y[run][i] == 0) == (y[(run + 1) % RUNS][i] == 0);
        }
        // 4096 draws: five standard deviations of the share are 0.034, of the agreement 0.038.
        CHECK_NEAR((double)zeros / (T * D), p, 0.034, "run %zu", run);
        CHECK_NEAR((double)same / (T * D), p * p + (1 - p) * (1 - p), 0.038,
                   "runs %zu and the next", run);
    }
}

static void other_probabilities_are_refused(void **state)
{
    (void)state;
    static const float bad[] = {-0.1f, 1, 2, NAN};
    for (size_t i = 0; i < 4; i++)
        check_op_refused(
            &(struct op_case){.record = dropout, .context = &bad[i], .in = {{OP_ROWS, {3}, 1}}},
            EMBER_E_RANGE, "dropout: p has to be in [0, 1), not");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_gradients),
        cmocka_unit_test(probability_zero_is_the_identity),
        cmocka_unit_test(mask_follows_probability_step_and_seed),
        cmocka_unit_test(other_probabilities_are_refused),
    };
    return OP_RUN_TESTS("dropout", tests);
}
