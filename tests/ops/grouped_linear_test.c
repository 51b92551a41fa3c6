#include "support/op_check.h"
#include "support/op_fixture.h"

enum { X, W, BIAS };

struct with {
    size_t E, used, k;
    bool bias, gather;
};

// Rows are the batch's own, or each of them k.
static ember_status grouped(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                            ember_tensor **out)
{
    const struct with *with = c->context;
    ember_routing routing;
    ember_tensor *x = in[X];
    CHECK_OK(fixture_routing(flow, x, with->E, with->used, with->k, NULL, &routing));
    if (!with->gather) CHECK_OK(fixture_spread(flow, x, with->k, &x));
    return ember_grouped_linear(flow, x, in[W], with->bias ? in[BIAS] : NULL, &routing,
                                with->gather, &out[0]);
}

// As an expert's layers call it: the first product gathers, the second takes what comes in order.
static ember_status two_layers(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                               ember_tensor **out)
{
    const struct with *with = c->context;
    ember_routing routing;
    ember_tensor *h;
    CHECK_OK(fixture_routing(flow, in[X], with->E, with->used, with->k, NULL, &routing));
    ember_experts_begin(flow, &routing, in[X]);
    EM_TRY(ember_linear(flow, in[X], in[1], NULL, NULL, &h));
    EM_TRY(ember_activation(flow, h, EMBER_SILU, &h));
    EM_TRY(ember_linear(flow, h, in[2], in[3], h, &out[0]));
    ember_experts_end(flow);
    return EMBER_OK;
}

static void values_and_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 61;
    for (size_t round = 0; round < op_rounds(16); round++) {
        const size_t E = op_size(&sizes, 9), used = op_size(&sizes, E), k = op_size(&sizes, used),
                     M = op_size(&sizes, 40), N = op_size(&sizes, 40);
        const struct with with = {E, used, k, round & 1, round & 2};
        const size_t width = with.gather ? M : k * M;
        struct op_case c = {.name = "grouped_linear",
                            .record = grouped,
                            .context = &with,
                            .rows = op_size(&sizes, 30),
                            .products = true,
                            .in = {{with.gather && round & 4 ? OP_COLUMNS : OP_ROWS, {width}, 1},
                                   {OP_PARAMETER, {E, N, M}, 3},
                                   {OP_PARAMETER, {E, N}, 2}}};
        c.in[X].constant = round % 7 == 4;
        c.in[W].constant = round % 7 == 5;
        c.in[BIAS].constant = round % 7 == 6;
        check_op(&c, round);
    }
}

static void experts_run_layers(void **state)
{
    (void)state;
    uint64_t sizes = 62;
    for (size_t round = 0; round < op_rounds(4); round++) {
        const size_t E = op_size(&sizes, 5), k = op_size(&sizes, E), M = op_size(&sizes, 20),
                     N = op_size(&sizes, 20);
        check_op(&(struct op_case){.name = "layers of experts",
                                   .record = two_layers,
                                   .context = &(struct with){.E = E, .used = E, .k = k},
                                   .rows = op_size(&sizes, 20),
                                   .in = {{OP_ROWS, {M}, 1},
                                          {OP_PARAMETER, {E, N, M}, 3},
                                          {OP_PARAMETER, {E, N, N}, 3},
                                          {OP_PARAMETER, {E, N}, 2}}},
                 round);
    }
}

static void many_rows_in_parallel(void **state)
{
    (void)state;
    check_op(&(struct op_case){.name = "grouped_linear",
                               .record = grouped,
                               .context = &(struct with){7, 6, 3, true, true},
                               .rows = 150,
                               .products = true,
                               .large = true,
                               .in = {{OP_ROWS, {67}, 1},
                                      {OP_PARAMETER, {7, 133, 67}, 3},
                                      {OP_PARAMETER, {7, 133}, 2}}},
             1);
}

// The bias's gradient of one expert with very many rows keeps its digits: each row adds 1.1.
static void long_sums_keep_their_digits(void **state)
{
    (void)state;
    enum { ROWS = 100000 };
    static float x[ROWS], w[1], bias[1], dbias[1];
    ember_tensor weight, b, gradient, *in, *y, *sum;
    ember_routing routing;
    struct em_program *p;
    CHECK_OK(em_tensor_init(&weight, EMBER_F32, (size_t[]){1, 1, 1}, 3, w));
    CHECK_OK(em_tensor_init(&b, EMBER_F32, (size_t[]){1, 1}, 2, bias));
    CHECK_OK(em_tensor_init(&gradient, EMBER_F32, (size_t[]){1, 1}, 2, dbias));
    b.grad = &gradient;
    bias[0] = 0.55f * ROWS; // the mean of squares has 2 y / n as its gradient
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .backend = EM_CPU, .max_tokens = ROWS, .max_sequences = 1, .gradients = true},
        &p));
    CHECK_OK(ember_inputs(em_program_flow(p), 1, &in));
    CHECK_OK(fixture_routing(em_program_flow(p), in, 1, 1, 1, NULL, &routing));
    CHECK_OK(ember_grouped_linear(em_program_flow(p), in, &weight, &b, &routing, true, &y));
    CHECK_OK(ember_mean_square(em_program_flow(p), y, &sum));
    em_program_loss(p, sum);
    CHECK_OK(em_program_allocate(p));
    CHECK_OK(em_program_forward(
        p, &(struct em_run){.batch = &(ember_batch){.n_tokens = ROWS,
                                                    .n_sequences = 1,
                                                    .offset = (size_t[]){0, ROWS},
                                                    .inputs = x},
                            .gradients = true,
                            .loss_scale = 1.0 / ROWS}));
    CHECK_OK(em_program_backward(p));
    CHECK_NEAR(dbias[0], 1.1 * ROWS, 2e-6, "%d rows", ROWS); // 1e-3 in one chain of sums
    em_program_destroy(p);
}

// ---- refusals ----

struct wrong {
    size_t pairs_of; // choices that the routing claims
    bool gather, no_plan;
};

static ember_status wrong(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                          ember_tensor **out)
{
    const struct wrong *wrong = c->context;
    ember_routing routing;
    CHECK_OK(fixture_routing(flow, in[X], 3, 3, 2, NULL, &routing));
    routing.k = wrong->pairs_of;
    if (wrong->no_plan) routing.plan = NULL;
    return ember_grouped_linear(flow, in[X], in[W], c->in[BIAS].ndim ? in[BIAS] : NULL, &routing,
                                wrong->gather, &out[0]);
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    struct wrong how = {.pairs_of = 2, .gather = true};
    struct op_case c = {
        .record = wrong, .context = &how, .in = {{OP_ROWS, {4}, 1}, {OP_PARAMETER, {3, 2, 5}, 3}}};
    check_op_refused(&c, EMBER_E_SHAPE, "grouped_linear: x is [5, 4], w is [3, 2, 5]");
    c.in[W].dim[2] = 4;
    c.in[W].dim[0] = 2;
    check_op_refused(&c, EMBER_E_SHAPE, "grouped_linear: weights of 2 experts, 3 are routed");
    c.in[W].dim[0] = 3;
    c.in[BIAS] = (struct op_input){.kind = OP_PARAMETER, .dim = {2}, .ndim = 1};
    check_op_refused(&c, EMBER_E_SHAPE, "grouped_linear: bias has to be [3, 2], not [2]");
    c.in[BIAS].ndim = 0;
    how.pairs_of = 3;
    check_op_refused(&c, EMBER_E_SHAPE,
                     "grouped_linear: the plan is not one of 15 rows for 3 experts");
    how.pairs_of = 0;
    check_op_refused(&c, EMBER_E_SHAPE, "grouped_linear: nothing is routed");
    how.pairs_of = 2;
    how.gather = false; // x has one row for each token, not for each pair
    check_op_refused(&c, EMBER_E_SHAPE,
                     "grouped_linear: the plan is not one of 5 rows for 3 experts");
    how.no_plan = true;
    check_op_refused(&c, EMBER_E_SHAPE, "grouped_linear: the routing has no dispatch plan");
    c.in[W] = (struct op_input){.kind = OP_ROWS, .dim = {2, 4}, .ndim = 2};
    c.rows = 3;
    check_op_refused(&c, EMBER_E_SHAPE, "grouped_linear: w has to be a contiguous parameter");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_gradients),     cmocka_unit_test(experts_run_layers),
        cmocka_unit_test(many_rows_in_parallel),    cmocka_unit_test(long_sums_keep_their_digits),
        cmocka_unit_test(other_shapes_are_refused),
    };
    return OP_RUN_TESTS("grouped_linear", tests);
}
