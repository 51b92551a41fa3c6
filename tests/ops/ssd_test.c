#include "support/op_check.h"

enum { X, DT, A_LOG, B, C, D, BIAS };

static ember_status ssd(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                        ember_tensor **out)
{
    const ember_ssd_inputs i = {.x = in[X],
                                .dt = in[DT],
                                .A_log = in[A_LOG],
                                .B = in[B],
                                .C = in[C],
                                .D = c->in[D].ndim ? in[D] : NULL,
                                .dt_bias = c->in[BIAS].ndim ? in[BIAS] : NULL};
    return ember_ssd(flow, &i, c->context, &out[0]);
}

static struct op_case a_case(const ember_ssd_options *o, size_t P, size_t N, size_t rows,
                             enum op_input_kind kind)
{
    const size_t H = o->heads, G = o->groups;
    return (struct op_case){.name = "ssd",
                            .record = ssd,
                            .context = o,
                            .rows = rows,
                            .by_token = true,
                            .stateful = true,
                            .in = {[X] = {kind, {H * P}, 1},
                                   [DT] = {kind, {H}, 1, .low = -4, .high = 1},
                                   [A_LOG] = {OP_PARAMETER, {H}, 1, .low = -1, .high = 2},
                                   [B] = {kind, {G * N}, 1},
                                   [C] = {kind, {G * N}, 1},
                                   [D] = {OP_PARAMETER, {H}, 1},
                                   [BIAS] = {OP_PARAMETER, {H}, 1}}};
}

static void values_gradients_and_states(void **state)
{
    (void)state;
    uint64_t sizes = 53;
    for (size_t round = 0; round < op_rounds(10); round++) {
        const size_t groups = round % 3 == 2 ? op_size(&sizes, 3) : 1;
        const ember_ssd_options o = {.heads = groups * op_size(&sizes, 5), .groups = groups};
        struct op_case c = a_case(&o, op_size(&sizes, 18), op_size(&sizes, 12), op_size(&sizes, 24),
                                  round & 1 ? OP_COLUMNS : OP_ROWS);
        c.sequences = op_size(&sizes, 4);
        c.in[X].constant = round % 7 == 4;
        c.in[DT].constant = round % 7 == 5;
        c.in[B].constant = round % 7 == 6;
        check_op(&c, round);
    }
}

static void steps_within_limits(void **state)
{
    (void)state;
    static const ember_ssd_options o = {.heads = 3, .groups = 1, .dt_min = 0.15, .dt_max = 0.9};
    struct op_case c = a_case(&o, 5, 4, 20, OP_ROWS);
    c.in[BIAS].constant = true; // of a few tokens the step lies at a limit's kink
    c.difference_tolerance = 5e-3;
    check_op(&c, 3);
}

// More tokens than a chunk.
static void many_chunks(void **state)
{
    (void)state;
    static const ember_ssd_options o = {.heads = 6, .groups = 2};
    struct op_case c = a_case(&o, 21, 19, 220, OP_ROWS);
    c.sequences = 2;
    c.large = true;
    check_op(&c, 1);
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    static const ember_ssd_options two = {.heads = 2, .groups = 1}, five = {.heads = 5};
    static const ember_ssd_options none = {.heads = 2, .groups = 1, .dt_min = 2, .dt_max = 1};
    struct op_case c = a_case(&two, 3, 4, 5, OP_ROWS);
    c.in[C].dim[0] = 3;
    check_op_refused(&c, EMBER_E_SHAPE, "ssd: C has to be [T, 4], not [5, 3]");
    c = a_case(&two, 3, 4, 5, OP_ROWS);
    c.in[A_LOG].dim[0] = 3;
    check_op_refused(&c, EMBER_E_SHAPE, "ssd: A_log has to be a parameter [2], not [3]");
    c = a_case(&two, 3, 4, 5, OP_ROWS);
    c.context = &five;
    check_op_refused(&c, EMBER_E_SHAPE, "ssd: 6 channels cannot be 5 heads in 1 groups");
    c.context = &none;
    check_op_refused(&c, EMBER_E_RANGE, "ssd: steps cannot be limited to 2 .. 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_gradients_and_states),
        cmocka_unit_test(steps_within_limits),
        cmocka_unit_test(many_chunks),
        cmocka_unit_test(other_shapes_are_refused),
    };
    return OP_RUN_TESTS("ssd", tests);
}
