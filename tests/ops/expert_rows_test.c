#include "support/op_check.h"
#include "support/op_fixture.h"

struct with {
    size_t E, used, k, expert;
};

// The rows of two experts, of which the second may have none.
static ember_status rows_of_experts(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                    ember_tensor **out)
{
    const struct with *with = c->context;
    ember_routing routing;
    CHECK_OK(fixture_routing(flow, in[0], with->E, with->used, with->k, NULL, &routing));
    EM_TRY(ember_expert_rows(flow, in[0], &routing, with->expert, &out[0]));
    return ember_expert_rows(flow, in[0], &routing, with->E - 1, &out[1]);
}

// Experts of experts: rows of rows.
static ember_status nested(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                           ember_tensor **out)
{
    const struct with *with = c->context;
    ember_routing routing, inner;
    ember_tensor *rows;
    CHECK_OK(fixture_routing(flow, in[0], with->E, with->used, with->k, NULL, &routing));
    EM_TRY(ember_expert_rows(flow, in[0], &routing, with->expert, &rows));
    CHECK_OK(fixture_routing(flow, rows, 2, 2, 1, NULL, &inner));
    EM_TRY(ember_expert_rows(flow, rows, &inner, 0, &out[0]));
    return ember_expert_rows(flow, rows, &inner, 1, &out[1]);
}

static void values_and_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 71;
    for (size_t round = 0; round < op_rounds(12); round++) {
        const size_t E = op_size(&sizes, 7), used = op_size(&sizes, E), k = op_size(&sizes, used);
        const struct with with = {E, used, k, op_size(&sizes, E) - 1};
        check_op(
            &(struct op_case){.name = "expert_rows",
                              .record = round & 4 ? nested : rows_of_experts,
                              .context = &with,
                              .rows = op_size(&sizes, 30),
                              .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {op_size(&sizes, 40)}, 1}}},
            round);
    }
}

static void many_rows_in_parallel(void **state)
{
    (void)state;
    check_op(&(struct op_case){.name = "expert_rows",
                               .record = rows_of_experts,
                               .context = &(struct with){3, 2, 2, 0},
                               .rows = 150,
                               .large = true,
                               .in = {{OP_ROWS, {333}, 1}}},
             1);
}

static ember_status without_plan(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                 ember_tensor **out)
{
    (void)c;
    return ember_expert_rows(flow, in[0], &(ember_routing){.n_experts = 2, .k = 1}, 1, &out[0]);
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    struct op_case c = {.record = rows_of_experts,
                        .context = &(struct with){3, 3, 1, 3},
                        .in = {{OP_ROWS, {4}, 1}}};
    check_op_refused(&c, EMBER_E_SHAPE, "expert_rows: expert 3 of 3, x is [5, 4]");
    c.context = &(struct with){3, 3, 1, 0};
    c.in[0] = (struct op_input){.kind = OP_ROWS, .dim = {2, 2}, .ndim = 2};
    check_op_refused(&c, EMBER_E_SHAPE, "expert_rows: expert 0 of 3, x is [5, 2, 2]");
    c.in[0] = (struct op_input){.kind = OP_ROWS, .dim = {2}, .ndim = 1};
    c.record = without_plan;
    check_op_refused(&c, EMBER_E_SHAPE, "expert_rows: the routing has no dispatch plan");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_gradients),
        cmocka_unit_test(many_rows_in_parallel),
        cmocka_unit_test(other_shapes_are_refused),
    };
    return OP_RUN_TESTS("expert_rows", tests);
}
