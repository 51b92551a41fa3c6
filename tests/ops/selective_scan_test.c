#include "support/op_check.h"

enum { X, DELTA, A_LOG, B, C, D, BIAS, Z };

static ember_status scan(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                         ember_tensor **out)
{
    const size_t groups = *(const size_t *)c->context;
    ember_scan_inputs i = {.x = in[X],
                           .delta = in[DELTA],
                           .A_log = in[A_LOG],
                           .B = in[B],
                           .C = in[C],
                           .D = in[D],
                           .delta_bias = in[BIAS]};
    if (c->in[Z].ndim) i.z = in[Z];
    return ember_selective_scan(flow, &i, groups, &out[0]);
}

static struct op_case a_case(const size_t *groups, size_t per_group, size_t N, size_t rows,
                             enum op_input_kind kind, bool gate)
{
    const size_t E = *groups * per_group, GN = *groups * N;
    struct op_case c = {.name = "selective_scan",
                        .record = scan,
                        .context = groups,
                        .rows = rows,
                        .by_token = true,
                        .stateful = true,
                        .in = {[X] = {kind, {E}, 1},
                               [DELTA] = {kind, {E}, 1, .low = -4, .high = 2},
                               [A_LOG] = {OP_PARAMETER, {E, N}, 2, .low = -1, .high = 2},
                               [B] = {kind, {GN}, 1},
                               [C] = {kind, {GN}, 1},
                               [D] = {OP_PARAMETER, {E}, 1},
                               [BIAS] = {OP_PARAMETER, {E}, 1}}};
    if (gate) c.in[Z] = (struct op_input){.kind = kind, .dim = {E}, .ndim = 1};
    return c;
}

static void values_gradients_and_states(void **state)
{
    (void)state;
    uint64_t sizes = 47;
    for (size_t round = 0; round < op_rounds(12); round++) {
        const size_t groups = round % 3 == 2 ? op_size(&sizes, 4) : 1;
        const size_t N = round % 4 == 1 ? 1 : op_size(&sizes, 19);
        struct op_case c = a_case(&groups, op_size(&sizes, 40), N, op_size(&sizes, 20),
                                  round & 1 ? OP_COLUMNS : OP_ROWS, round & 2);
        c.sequences = op_size(&sizes, 5);
        c.in[X].constant = round % 9 == 4;
        c.in[DELTA].constant = round % 9 == 5;
        c.in[A_LOG].constant = round % 9 == 6;
        c.in[B].constant = round % 9 == 7;
        c.in[C].constant = round % 9 == 8;
        c.in[Z].constant = round % 5 == 3;
        check_op(&c, round);
    }
}

// More tokens than a chunk of backward, and more channels than a span.
static void long_and_wide(void **state)
{
    (void)state;
    static const size_t one = 1, four = 4;
    struct op_case c = a_case(&one, 150, 16, 200, OP_ROWS, true);
    c.sequences = 3;
    c.large = true;
    check_op(&c, 1);
    c = a_case(&four, 70, 1, 150, OP_ROWS, false);
    c.sequences = 2;
    c.large = true;
    check_op(&c, 2);
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    static const size_t one = 1, two = 2;
    struct op_case c = a_case(&two, 3, 4, 5, OP_ROWS, true);
    c.in[X].dim[0] = 7;
    check_op_refused(&c, EMBER_E_SHAPE, "selective_scan: x has to be [T, 6], not [5, 7]");
    c = a_case(&two, 3, 4, 5, OP_ROWS, true);
    c.in[C].dim[0] = 4;
    check_op_refused(&c, EMBER_E_SHAPE, "selective_scan: C has to be [T, 8], not [5, 4]");
    c = a_case(&two, 3, 4, 5, OP_ROWS, true);
    c.in[A_LOG].dim[0] = 5;
    check_op_refused(&c, EMBER_E_SHAPE,
                     "selective_scan: A_log is [5, 4]; it has to be a parameter "
                     "[E, N], N at most 256, E a multiple of the 2 groups");
    c = a_case(&one, 3, 257, 5, OP_ROWS, true);
    check_op_refused(&c, EMBER_E_SHAPE, "selective_scan: A_log is [3, 257]");
    c = a_case(&one, 3, 4, 5, OP_ROWS, true);
    c.in[BIAS].dim[0] = 4;
    check_op_refused(&c, EMBER_E_SHAPE,
                     "selective_scan: delta_bias has to be a parameter [3], not [4]");
    c = a_case(&one, 3, 4, 5, OP_ROWS, true);
    c.in[X] = (struct op_input){.kind = OP_PARAMETER, .dim = {5, 3}, .ndim = 2};
    check_op_refused(&c, EMBER_E_SHAPE, "has to be an activation with a row per token (5)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_gradients_and_states),
        cmocka_unit_test(long_and_wide),
        cmocka_unit_test(other_shapes_are_refused),
    };
    return OP_RUN_TESTS("selective_scan", tests);
}
