#include "support/op_check.h"

static ember_status inputs_and_more(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                    ember_tensor **out)
{
    ember_tensor *x;
    EM_TRY(ember_inputs(flow, c->width, &x));
    EM_TRY(ember_linear(flow, x, in[0], NULL, NULL, &out[0]));
    out[1] = x;
    return EMBER_OK;
}

static ember_status no_width(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                             ember_tensor **out)
{
    (void)in, (void)c;
    return ember_inputs(flow, 0, &out[0]);
}

static void values_reach_a_layer(void **state)
{
    (void)state;
    check_op(&(struct op_case){.name = "inputs",
                               .record = inputs_and_more,
                               .rows = 7,
                               .by_token = true,
                               .width = 5,
                               .in = {{OP_PARAMETER, {3, 5}, 2}}},
             1);
}

static void a_batch_without_inputs_is_refused(void **state)
{
    (void)state;
    struct em_program *p;
    ember_tensor *y;
    CHECK_OK(em_program_create(
        &(struct em_program_options){.backend = EM_CPU, .max_tokens = 1, .max_sequences = 1}, &p));
    CHECK_OK(ember_inputs(em_program_flow(p), 2, &y));
    CHECK_OK(em_program_allocate(p));
    const ember_batch batch = {
        .n_tokens = 1, .n_sequences = 1, .offset = (size_t[]){0, 1}, .tokens = (int32_t[]){0}};
    CHECK_FAILS(em_program_forward(p, &(struct em_run){.batch = &batch}), EMBER_E_SHAPE,
                "the model reads vectors, and the batch has none");
    em_program_destroy(p);
}

static void no_width_is_refused(void **state)
{
    (void)state;
    check_op_refused(&(struct op_case){.record = no_width, .by_token = true}, EMBER_E_SHAPE,
                     "inputs: a row");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_reach_a_layer),
        cmocka_unit_test(a_batch_without_inputs_is_refused),
        cmocka_unit_test(no_width_is_refused),
    };
    return OP_RUN_TESTS("inputs", tests);
}
