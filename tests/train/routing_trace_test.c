// What routers chose at earlier evaluations, held against the last one.
#include <math.h>

#include "support/check.h"
#include "train/routing_trace.h"

enum { TOKENS = 4, K = 2, DOMAINS = 2 };

static int32_t chosen[TOKENS * K];

struct traced {
    ember_tensor indices;
    struct em_router_record record;
    struct em_stepper stepper;
    struct em_routing_trace trace;
};

static void begin(struct traced *t)
{
    *t = (struct traced){0};
    CHECK_OK(em_tensor_init(&t->indices, EMBER_I32, (size_t[]){TOKENS, K}, 2, chosen));
    t->record =
        (struct em_router_record){.layer = "blocks.0.channel.router",
                                  .routing = {.n_experts = 8, .k = K, .indices = &t->indices}};
    t->stepper = (struct em_stepper){.routers = &t->record, .n_routers = 1};
    t->stepper.packed.batch.n_tokens = TOKENS;
}

// An evaluation where the first `moved` of a domain's choices went to other experts.
static void evaluate(struct traced *t, uint64_t step, size_t moved)
{
    CHECK_OK(em_routing_trace_begin(&t->trace, &t->stepper, DOMAINS, step));
    for (size_t domain = 0; domain < DOMAINS; domain++) {
        for (size_t i = 0; i < (size_t)TOKENS * K; i++)
            chosen[i] = (int32_t)(i % K + (i < moved ? 4 : 0));
        em_routing_trace_add(&t->trace, &t->stepper, domain);
        chosen[0] = 7; // a second pass of the domain is not looked at
        em_routing_trace_add(&t->trace, &t->stepper, domain);
    }
}

static void choices_that_stay_are_counted(void **state)
{
    (void)state;
    struct traced t;
    begin(&t);
    evaluate(&t, 10, 8);
    evaluate(&t, 20, 3);
    evaluate(&t, 30, 0);
    assert_int_equal(t.trace.count, 3);
    assert_int_equal(em_routing_trace_step(&t.trace, 1), 20);
    CHECK_NEAR(em_routing_trace_agreement(&t.trace, 0, 0), 0, 0, "all moved");
    CHECK_NEAR(em_routing_trace_agreement(&t.trace, 0, 1), 5 / 8.0, 1e-15, "three of eight");
    CHECK_NEAR(em_routing_trace_agreement(&t.trace, 0, 2), 1, 0, "itself");
    evaluate(&t, 20, 0); // the run went back
    assert_int_equal(t.trace.count, 2);
    em_routing_trace_close(&t.trace);
}

static void rows_that_are_no_tokens_are_left_out(void **state)
{
    (void)state;
    struct traced t;
    begin(&t);
    t.stepper.packed.batch.n_tokens = TOKENS + 1;
    evaluate(&t, 1, 0);
    assert_true(isnan(em_routing_trace_agreement(&t.trace, 0, 0)));
    em_routing_trace_close(&t.trace);
}

static void many_evaluations_are_thinned(void **state)
{
    (void)state;
    struct traced t;
    begin(&t);
    for (uint64_t step = 1; step <= 1000; step++)
        evaluate(&t, step, 0);
    assert_in_range(t.trace.count, 10, 40);
    assert_int_equal(em_routing_trace_step(&t.trace, 0), 1);
    assert_int_equal(em_routing_trace_step(&t.trace, t.trace.count - 1), 1000);
    for (size_t i = 1; i < t.trace.count; i++)
        assert_true(em_routing_trace_step(&t.trace, i) > em_routing_trace_step(&t.trace, i - 1));
    em_routing_trace_close(&t.trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(choices_that_stay_are_counted),
                                       cmocka_unit_test(rows_that_are_no_tokens_are_left_out),
                                       cmocka_unit_test(many_evaluations_are_thinned)};
    return cmocka_run_group_tests_name("train/routing_trace", tests, NULL, NULL);
}
