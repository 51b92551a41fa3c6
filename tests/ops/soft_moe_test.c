#include "support/op_check.h"

enum { X, LOGITS, MATRIX };

struct with {
    size_t E, slots;
};

// Slots through a matrix of each expert, and back to the tokens.
static ember_status soft(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                         ember_tensor **out)
{
    const struct with *with = c->context;
    ember_routing routing = {.n_experts = with->E};
    ember_tensor *slots, *rows;
    EM_TRY(ember_soft_slots(flow, in[X], in[LOGITS], with->slots, &routing, &slots));
    EM_TRY(ember_grouped_linear(flow, slots, in[MATRIX], NULL, &routing, false, &rows));
    return ember_soft_sum(flow, rows, in[LOGITS], with->slots, &routing, &out[0]);
}

static void values_and_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 61;
    for (size_t round = 0; round < op_rounds(10); round++) {
        const struct with with = {op_size(&sizes, 5), op_size(&sizes, 4)};
        const size_t D = op_size(&sizes, 20);
        struct op_case c = {.name = "soft_moe",
                            .record = soft,
                            .context = &with,
                            .by_token = true,
                            .sequences = 3,
                            .rows = 3 + op_size(&sizes, 14),
                            .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {D}, 1},
                                   {OP_ROWS, {with.E * with.slots}, 1, .low = -3, .high = 3},
                                   {OP_PARAMETER, {with.E, D, D}, 3}}};
        c.in[round % 4 == 3 ? X : 3].constant = true;
        c.in[round % 4 == 2 ? LOGITS : 3].constant = true;
        check_op(&c, round);
    }
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    check_op_refused(
        &(struct op_case){
            .record = soft,
            .context = &(struct with){2, 2},
            .by_token = true,
            .in = {{OP_ROWS, {4}, 1}, {OP_ROWS, {5}, 1}, {OP_PARAMETER, {2, 4, 4}, 3}}},
        EMBER_E_SHAPE, "soft_slots: logits [5, 5] has to end in 4");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_gradients),
        cmocka_unit_test(other_shapes_are_refused),
    };
    return OP_RUN_TESTS("soft_moe", tests);
}
