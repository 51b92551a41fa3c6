#include "support/op_check.h"

struct network {
    size_t hidden;
    float shift;
    bool normalise;
};

// in: z, t, deltas, frequency, skip, then weights and biases by turns.
static ember_status implicit_filter(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                    ember_tensor **out)
{
    const struct network *n = c->context;
    ember_filter_network f = {.z = in[0],
                              .t = in[1],
                              .deltas = in[2],
                              .frequency = in[3],
                              .skip = in[4],
                              .hidden = n->hidden,
                              .shift = n->shift,
                              .normalise = n->normalise};
    for (size_t i = 0; i <= n->hidden; i++) {
        f.weight[i] = in[5 + 2 * i];
        if (i < n->hidden) f.bias[i] = in[6 + 2 * i];
    }
    return ember_implicit_filter(flow, &f, &out[0]);
}

static struct op_case filter_case(const struct network *n, size_t L, size_t E, size_t W, size_t C)
{
    struct op_case c = {.name = "implicit_filter",
                        .record = implicit_filter,
                        .context = n,
                        .by_token = true,
                        .in = {{OP_PARAMETER, {L, E}, 2},
                               {OP_PARAMETER, {L, 1}, 2, .constant = true, .low = 0, .high = 1},
                               {OP_PARAMETER, {C}, 1, .constant = true, .low = -9, .high = 9},
                               {OP_PARAMETER, {W}, 1, .low = -3, .high = 3},
                               {OP_PARAMETER, {C}, 1}}};
    for (size_t i = 0; i <= n->hidden; i++) {
        c.in[5 + 2 * i] = (struct op_input){.kind = OP_PARAMETER,
                                            .dim = {i < n->hidden ? W : C, i ? W : E},
                                            .ndim = 2,
                                            .low = -0.7f,
                                            .high = 0.7f};
        if (i < n->hidden)
            c.in[6 + 2 * i] = (struct op_input){.kind = OP_PARAMETER, .dim = {W}, .ndim = 1};
    }
    return c;
}

static void values_and_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 3;
    for (size_t round = 0; round < op_rounds(6); round++) {
        const struct network n = {1 + round % 3, round & 1 ? 0.05f : 0, false};
        struct op_case c = filter_case(&n, 4 + op_size(&sizes, 20), op_size(&sizes, 9),
                                       op_size(&sizes, 40), op_size(&sizes, 40));
        c.rows = 1 + op_size(&sizes, 12);
        check_op(&c, round);
    }
}

// Dividing by a sum of magnitudes has kinks, which differences must not meet: few numbers.
static void rows_divided_by_their_sum(void **state)
{
    (void)state;
    const struct network n = {2, 0.05f, true};
    struct op_case c = filter_case(&n, 4, 3, 5, 3);
    c.rows = 3;
    check_op(&c, 5);
    c = filter_case(&n, 60, 5, 16, 33);
    c.rows = 50;
    c.large = true;
    check_op(&c, 6);
}

static void more_rows_than_a_block(void **state)
{
    (void)state;
    const struct network n = {2, 0.05f, false};
    struct op_case c = filter_case(&n, 2500, 3, 8, 5);
    c.rows = 2400;
    c.large = true;
    check_op(&c, 1);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    const struct network n = {1, 0, false}, none = {0};
    struct op_case c = filter_case(&n, 7, 3, 8, 5);
    c.in[7].dim[1] = 9;
    check_op_refused(&c, EMBER_E_SHAPE, "a weight [5, 9] has to end in 8");
    c = filter_case(&n, 7, 3, 8, 5);
    c.in[2].dim[0] = 4;
    check_op_refused(&c, EMBER_E_SHAPE, "deltas has to be [5], not [4]");
    c = filter_case(&n, 7, 3, 8, 5);
    c.in[1].dim[0] = 6;
    check_op_refused(&c, EMBER_E_SHAPE, "t has to be [7, 1], not [6, 1]");
    c = filter_case(&none, 7, 3, 8, 5);
    check_op_refused(&c, EMBER_E_RANGE, "1 to 16 layers of sines, not 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_gradients), cmocka_unit_test(rows_divided_by_their_sum),
        cmocka_unit_test(more_rows_than_a_block), cmocka_unit_test(what_does_not_fit_is_refused)};
    return OP_RUN_TESTS("ops/implicit_filter", tests);
}
