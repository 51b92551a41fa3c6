#include "support/op_check.h"
#include "support/op_fixture.h"

enum { ROWS, WEIGHTS };

struct with {
    size_t E, used, k;
};

static ember_status weighted_sum(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                 ember_tensor **out)
{
    const struct with *with = c->context;
    ember_routing routing;
    ember_tensor *rows;
    CHECK_OK(fixture_routing(flow, in[ROWS], with->E, with->used, with->k, in[WEIGHTS], &routing));
    CHECK_OK(fixture_spread(flow, in[ROWS], with->k, &rows));
    return ember_weighted_sum(flow, rows, &routing, &out[0]);
}

static void values_and_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 91;
    for (size_t round = 0; round < op_rounds(12); round++) {
        const size_t E = op_size(&sizes, 9), used = op_size(&sizes, E), k = op_size(&sizes, used);
        struct op_case c = {.name = "weighted_sum",
                            .record = weighted_sum,
                            .context = &(struct with){E, used, k},
                            .rows = op_size(&sizes, 30),
                            .in = {{OP_ROWS, {k * op_size(&sizes, 40)}, 1},
                                   {round & 1 ? OP_COLUMNS : OP_ROWS, {k}, 1}}};
        c.in[ROWS].constant = round % 5 == 3;
        c.in[WEIGHTS].constant = round % 5 == 4;
        check_op(&c, round);
    }
}

static void many_rows_in_parallel(void **state)
{
    (void)state;
    check_op(&(struct op_case){.name = "weighted_sum",
                               .record = weighted_sum,
                               .context = &(struct with){7, 6, 3},
                               .rows = 150,
                               .large = true,
                               .in = {{OP_ROWS, {3 * 133}, 1}, {OP_ROWS, {3}, 1}}},
             1);
}

static ember_status wrong(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                          ember_tensor **out)
{
    const size_t *which = c->context;
    ember_routing routing;
    ember_tensor *rows;
    CHECK_OK(fixture_routing(flow, in[ROWS], 3, 3, 2, in[WEIGHTS], &routing));
    CHECK_OK(fixture_spread(flow, in[ROWS], *which == 0 ? 4 : 2, &rows));
    if (*which == 1) routing.plan = NULL;
    if (*which == 2) routing.weights = NULL;
    if (*which == 3) routing.n_experts = 4;
    return ember_weighted_sum(flow, rows, &routing, &out[0]);
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    static const char *const text[] = {
        "weighted_sum: rows are [20, 2], weights [5, 2]",
        "weighted_sum: the routing has no dispatch plan",
        "weighted_sum: weights has to be a f32 tensor",
        "weighted_sum: the plan is not one of 10 rows for 4 experts",
    };
    for (size_t i = 0; i < sizeof text / sizeof text[0]; i++)
        check_op_refused(&(struct op_case){.record = wrong,
                                           .context = &i,
                                           .in = {{OP_ROWS, {8}, 1}, {OP_ROWS, {2}, 1}}},
                         EMBER_E_SHAPE, text[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_gradients),
        cmocka_unit_test(many_rows_in_parallel),
        cmocka_unit_test(other_shapes_are_refused),
    };
    return OP_RUN_TESTS("weighted_sum", tests);
}
