#include "support/op_check.h"
#include "support/op_fixture.h"

enum { X, WEIGHTS, MATRIX };

struct with {
    size_t E, used, k, absent; // this expert's rows are not there
};

// Each expert's rows, scaled by a factor of its own; experts give them back in strided rows.
static ember_status gather(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                           ember_tensor **out)
{
    const struct with *with = c->context;
    const size_t width = in[X]->dim[1];
    ember_routing routing;
    ember_tensor **rows;
    CHECK_OK(fixture_routing(flow, in[X], with->E, with->used, with->k, in[WEIGHTS], &routing));
    CHECK_OK(em_flow_array(flow, with->E, &rows));
    for (size_t e = 0; e < with->E; e++) {
        if (e == with->absent) continue;
        EM_TRY(ember_expert_rows(flow, in[X], &routing, e, &rows[e]));
        EM_TRY(ember_scale(flow, rows[e], (float)(e + 1), &rows[e]));
        if (e % 2 == 0 && width > 1) EM_TRY(ember_columns(flow, rows[e], 1, width, &rows[e]));
        if (e % 2 == 1 && width > 1) EM_TRY(ember_columns(flow, rows[e], 0, width - 1, &rows[e]));
    }
    return ember_gather_experts(flow, rows, &routing, width > 1 ? width - 1 : 1, &out[0]);
}

// The whole of a mixture whose experts run one by one.
static ember_status mixture(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                            ember_tensor **out)
{
    const struct with *with = c->context;
    ember_routing routing;
    ember_tensor **rows, *gathered;
    CHECK_OK(fixture_routing(flow, in[X], with->E, with->used, with->k, in[WEIGHTS], &routing));
    CHECK_OK(em_flow_array(flow, with->E, &rows));
    for (size_t e = 0; e < with->E; e++) {
        EM_TRY(ember_expert_rows(flow, in[X], &routing, e, &rows[e]));
        EM_TRY(ember_linear(flow, rows[e], in[MATRIX], NULL, rows[e], &rows[e]));
    }
    EM_TRY(ember_gather_experts(flow, rows, &routing, in[X]->dim[1], &gathered));
    EM_TRY(ember_weighted_sum(flow, gathered, &routing, &out[0]));
    return ember_add(flow, out[0], in[X], &out[1]);
}

static void values_and_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 81;
    for (size_t round = 0; round < op_rounds(12); round++) {
        const size_t E = op_size(&sizes, 7), used = op_size(&sizes, E), k = op_size(&sizes, used),
                     width = op_size(&sizes, 30);
        const struct with with = {E, used, k, round & 1 && E > 1 ? op_size(&sizes, E) - 1 : E};
        struct op_case c = {
            .name = "gather_experts",
            .record = round & 2 ? mixture : gather,
            .context = &with,
            .rows = op_size(&sizes, 30),
            .in = {{OP_ROWS, {width}, 1}, {OP_ROWS, {k}, 1}, {OP_PARAMETER, {width, width}, 2}}};
        c.in[MATRIX].ndim = round & 2 ? 2 : 0;
        check_op(&c, round);
    }
}

static void many_rows_in_parallel(void **state)
{
    (void)state;
    check_op(&(struct op_case){.name = "gather_experts",
                               .record = gather,
                               .context = &(struct with){5, 4, 3, 1},
                               .rows = 150,
                               .large = true,
                               .in = {{OP_ROWS, {333}, 1}, {OP_ROWS, {3}, 1, .constant = true}}},
             1);
}

// Rows of another expert, or of all tokens, are not an expert's.
static ember_status wrong_rows(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                               ember_tensor **out)
{
    const size_t *which = c->context;
    ember_routing routing;
    ember_tensor *rows[2];
    CHECK_OK(fixture_routing(flow, in[X], 2, 2, 1, in[WEIGHTS], &routing));
    CHECK_OK(ember_expert_rows(flow, in[X], &routing, 0, &rows[0]));
    CHECK_OK(ember_expert_rows(flow, in[X], &routing, 1, &rows[1]));
    if (*which == 0) rows[1] = rows[0];
    if (*which == 1) rows[1] = in[X];
    if (*which == 2) routing.plan = NULL;
    return ember_gather_experts(flow, rows, &routing, *which == 3 ? 3 : 4, &out[0]);
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    static const char *const text[] = {
        "gather_experts: [5, 4] does not have a row for each of expert 1",
        "gather_experts: [5, 4] does not have a row for each of expert 1",
        "gather_experts: the routing has no dispatch plan",
        "gather_experts: an expert's output [5, 4] has to end in 3",
    };
    for (size_t i = 0; i < sizeof text / sizeof text[0]; i++)
        check_op_refused(&(struct op_case){.record = wrong_rows,
                                           .context = &i,
                                           .in = {{OP_ROWS, {4}, 1}, {OP_ROWS, {1}, 1}}},
                         EMBER_E_SHAPE, text[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_gradients),
        cmocka_unit_test(many_rows_in_parallel),
        cmocka_unit_test(other_shapes_are_refused),
    };
    return OP_RUN_TESTS("gather_experts", tests);
}
