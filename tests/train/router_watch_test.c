// Warnings of routers that go wrong in training: who, when, and not twice.
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "support/check.h"
#include "train/router_watch.h"

enum { E = 4, SLOTS = 1000 };

// A stepper of one router, whose loads are set by hand; there is no model to look at.
struct bench {
    struct em_router_record record;
    struct em_router_figures figures;
    struct em_stepper stepper;
    struct em_router_watch watch;
    uint64_t load[E], step;
};

static void begin(struct bench *b)
{
    *b = (struct bench){
        .record = {.layer = "blocks.3.channel.router", .routing = {.n_experts = E, .k = 1}}};
    b->figures.load = b->load;
    b->stepper = (struct em_stepper){.routers = &b->record, .figures = &b->figures, .n_routers = 1};
    CHECK_OK(em_router_watch_open(&b->stepper, &b->watch));
}

// So many steps with these loads; the warnings of all of them.
static json_t *steps(struct bench *b, size_t n, const uint64_t load[E], double progress)
{
    memcpy(b->load, load, sizeof b->load);
    b->figures.slots = 0;
    for (size_t e = 0; e < E; e++)
        b->figures.slots += load[e];
    for (size_t i = 0; i < n; i++)
        CHECK_OK(em_router_watch_step(&b->watch, &b->stepper, ++b->step, progress, false));
    return em_router_watch_take(&b->watch);
}

static const uint64_t even[E] = {250, 250, 250, 250}, dying[E] = {320, 330, 0, 350},
                      uneven[E] = {60, 60, 60, 820};

static void a_dying_expert_is_named_once(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    assert_null(steps(&b, 30, even, 0.5));
    assert_null(steps(&b, 20, dying, 0.5)); // the mean still remembers better days
    json_t *w = steps(&b, 60, dying, 0.5);
    assert_int_equal(json_array_size(w), 1);
    const json_t *first = json_array_get(w, 0);
    assert_int_equal(json_integer_value(json_object_get(first, "layer")), 3);
    assert_int_equal(json_integer_value(json_object_get(first, "expert")), 2);
    assert_non_null(strstr(json_string_value(json_object_get(first, "text")), "expert 2 is dying"));
    json_decref(w);
    assert_null(steps(&b, 100, dying, 0.6)); // it has been said
    assert_null(steps(&b, 100, even, 0.7));  // it lives again,
    w = steps(&b, 100, dying, 0.8);          // and dies again
    assert_int_equal(json_array_size(w), 1);
    json_decref(w);
    em_router_watch_close(&b.watch);
}

static void the_first_tenth_may_have_dead_experts(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    assert_null(steps(&b, 200, dying, 0.1));
    json_t *w = steps(&b, 1, dying, 0.11); // as soon as the rule holds
    assert_int_equal(json_array_size(w), 1);
    json_decref(w);
    em_router_watch_close(&b.watch);
}

static void one_step_is_no_reason(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    assert_null(steps(&b, 19, uneven, 0.5)); // too few steps to say
    em_router_watch_close(&b.watch);
    begin(&b);
    assert_null(steps(&b, 40, even, 0.5));
    for (size_t i = 0; i < 20; i++) { // noise that is gone at the next step
        assert_null(steps(&b, 1, uneven, 0.5));
        assert_null(steps(&b, 3, even, 0.5));
    }
    em_router_watch_close(&b.watch);
}

static void imbalance_is_told_at_any_time(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    json_t *w = steps(&b, 40, uneven, 0.02);
    assert_int_equal(json_array_size(w), 1);
    assert_non_null(strstr(json_string_value(json_object_get(json_array_get(w, 0), "text")),
                           "expert 3 gets 3.3 times an even share"));
    json_decref(w);
    em_router_watch_close(&b.watch);
}

static void memory_runs_out_with_a_message(void **state)
{
    (void)state;
    for (size_t n = 1; n < 20; n++) {
        struct bench b;
        begin(&b);
        assert_null(steps(&b, 40, even, 0.5));
        memcpy(b.load, uneven, sizeof b.load);
        em_alloc_fail_at(n, 0);
        ember_status status = EMBER_OK;
        for (size_t i = 0; i < 60 && status == EMBER_OK; i++)
            status = em_router_watch_step(&b.watch, &b.stepper, 100 + i, 0.5, false);
        em_alloc_fail_at(0, 0);
        if (status != EMBER_OK) assert_int_equal(status, EMBER_E_NOMEM);
        em_router_watch_close(&b.watch);
    }
}

static int quiet(void **state)
{
    (void)state;
    em_log_threshold((enum em_log_level)(EM_LOG_WARN + 1));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_dying_expert_is_named_once),
                                       cmocka_unit_test(the_first_tenth_may_have_dead_experts),
                                       cmocka_unit_test(one_step_is_no_reason),
                                       cmocka_unit_test(imbalance_is_told_at_any_time),
                                       cmocka_unit_test(memory_runs_out_with_a_message)};
    return cmocka_run_group_tests_name("train/router_watch", tests, quiet, NULL);
}
