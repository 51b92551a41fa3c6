#include "support/op_check.h"

static ember_status sequence_pool(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                  ember_tensor **out)
{
    return ember_sequence_pool(flow, in[0], *(const ember_pool *)c->context, &out[0]);
}

static void values_and_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 5;
    for (ember_pool pool = EMBER_POOL_FIRST; pool <= EMBER_POOL_SUM; pool++)
        for (size_t round = 0; round < op_rounds(3); round++)
            check_op(&(struct op_case){.name = "sequence_pool",
                                       .record = sequence_pool,
                                       .context = &pool,
                                       .rows = 3 + op_size(&sizes, 20),
                                       .sequences = 1 + op_size(&sizes, 3),
                                       .by_token = true,
                                       .in = {{.kind = round & 1 ? OP_COLUMNS : OP_ROWS,
                                               .dim = {op_size(&sizes, 40)},
                                               .ndim = 1}}},
                     round);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(values_and_gradients)};
    return OP_RUN_TESTS("ops/sequence_pool", tests);
}
