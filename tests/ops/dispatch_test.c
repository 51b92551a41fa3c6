#include <stdlib.h>

#include "ops/moe_plan.h"
#include "support/op_check.h"
#include "support/op_fixture.h"

// A routing of rows by itself, and its plan.
struct subject {
    struct em_program *program;
    ember_routing routing;
};

static struct subject open_subject(enum em_backend backend, struct em_pool *pool, size_t T,
                                   size_t E, size_t used, size_t k)
{
    struct subject s;
    ember_tensor *x;
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .backend = backend, .pool = pool, .max_tokens = T, .max_sequences = 1},
        &s.program));
    CHECK_OK(ember_inputs(em_program_flow(s.program), 1, &x));
    CHECK_OK(fixture_routing(em_program_flow(s.program), x, E, used, k, NULL, &s.routing));
    em_program_output(s.program, s.routing.indices);
    CHECK_OK(em_program_allocate(s.program));
    return s;
}

static void run_subject(struct subject *s, size_t tokens)
{
    float *inputs = calloc(tokens, sizeof *inputs);
    assert_non_null(inputs);
    CHECK_OK(em_program_forward(
        s->program, &(struct em_run){.batch = &(ember_batch){.n_tokens = tokens,
                                                             .n_sequences = 1,
                                                             .offset = (size_t[]){0, tokens},
                                                             .inputs = inputs}}));
    free(inputs);
}

// Counted by a walk over all pairs for each expert.
static void check_plan(const ember_routing *r, size_t tokens)
{
    const size_t pairs = tokens * r->k;
    const int32_t *index = em_i32(r->indices), *offset = em_plan_offset(r->plan),
                  *order = em_plan_order(r->plan, r->n_experts),
                  *place = em_plan_place(r->plan, r->n_experts);
    size_t row = 0;
    for (size_t e = 0; e < r->n_experts; e++) {
        assert_int_equal(offset[e], row);
        for (size_t p = 0; p < pairs; p++) { // ascending: the sort is stable
            if ((size_t)index[p] != e) continue;
            assert_int_equal(order[row], p);
            assert_int_equal(place[p], row);
            row++;
        }
    }
    assert_int_equal(offset[r->n_experts], pairs);
    assert_int_equal(row, pairs);
}

static void rows_are_sorted_by_expert_stably(void **state)
{
    (void)state;
    uint64_t sizes = 51;
    struct em_pool *pool;
    CHECK_OK(em_pool_create(3, &pool));
    for (size_t round = 0; round < op_rounds(40); round++) {
        const size_t E = op_size(&sizes, 40), used = op_size(&sizes, E), k = op_size(&sizes, used),
                     T = round % 8 == 7 ? 3000 + op_size(&sizes, 3000) : op_size(&sizes, 90);
        struct subject s =
            open_subject(round & 1 ? EM_CPU : EM_REFERENCE, round & 2 ? pool : NULL, T, E, used, k);
        run_subject(&s, T);
        check_plan(&s.routing, T);
        if (T > 1) {
            run_subject(&s, T - 1);
            check_plan(&s.routing, T - 1);
            run_subject(&s, 1);
            check_plan(&s.routing, 1);
        }
        em_program_destroy(s.program);
    }
    em_pool_destroy(pool);
}

static void impossible_choices_are_refused(void **state)
{
    (void)state;
    struct subject s = open_subject(EM_CPU, NULL, 3, 4, 3, 2);
    ember_flow *flow = em_program_flow(s.program);
    ember_tensor *indices = s.routing.indices, *x, wide;
    ember_routing r = {.n_experts = 1, .k = 2, .indices = indices};
    CHECK_FAILS(ember_dispatch(flow, &r), EMBER_E_SHAPE,
                "dispatch: indices have to be [T, K] of i32 with K of 1 experts, not [3, 2]");
    r.n_experts = 0;
    CHECK_FAILS(ember_dispatch(flow, &r), EMBER_E_SHAPE, "K of 0 experts");
    r = (ember_routing){.n_experts = 4, .k = 2};
    CHECK_FAILS(ember_dispatch(flow, &r), EMBER_E_SHAPE, "not absent");
    CHECK_OK(ember_inputs(flow, 2, &x));
    r.indices = x;
    CHECK_FAILS(ember_dispatch(flow, &r), EMBER_E_SHAPE, "[3, 2]");
    CHECK_OK(em_tensor_init(&wide, EMBER_I32, (size_t[]){1 << 20, 1 << 11}, 2, NULL));
    r = (ember_routing){.n_experts = 1 << 11, .k = 1 << 11, .indices = &wide};
    CHECK_FAILS(ember_dispatch(flow, &r), EMBER_E_SHAPE, "dispatch: more than 2147483647 pairs");
    em_program_destroy(s.program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_sorted_by_expert_stably),
        cmocka_unit_test(impossible_choices_are_refused),
    };
    return OP_RUN_TESTS("dispatch", tests);
}
