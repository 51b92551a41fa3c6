// Learning rates by hand.
#include <math.h>

#include <ember/runtime.h>

#include "base/alloc.h"
#include "support/check.h"
#include "train/optimizer.h"

static double rate(const char *name, const char *options, double peak, uint64_t step,
                   uint64_t steps, uint64_t warmup)
{
    const struct em_component *c = em_registry_find(EMBER_SCHEDULE, name);
    json_t *o = json_loads(options, 0, NULL);
    assert_non_null(c);
    void *read = em_calloc(1, c->size);
    CHECK_OK(em_options_read(c->options, o, name, NULL, read));
    const double lr = em_learning_rate(c->impl, read, peak, step, steps, warmup);
    em_free(read);
    json_decref(o);
    return lr;
}

static void warm_up_is_a_line_that_ends_at_the_peak(void **state)
{
    (void)state;
    static const char *const names[] = {"constant", "cosine", "exponential", "wsd"};
    for (size_t i = 0; i < 3; i++) {
        for (uint64_t s = 0; s < 20; s++)
            CHECK_NEAR(rate(names[i], "{}", 3e-3, s, 200, 20), 3e-3 * (double)(s + 1) / 20, 1e-15,
                       "%s, step %d", names[i], (int)s);
        CHECK_NEAR(rate(names[i], "{}", 3e-3, 20, 200, 20), 3e-3, 1e-15, "%s", names[i]);
    }
}

static void constant_stays(void **state)
{
    (void)state;
    for (uint64_t s = 0; s < 100; s += 9)
        CHECK_NEAR(rate("constant", "{}", 0.5, s, 100, 0), 0.5, 0, "step %d", (int)s);
}

static void exponential_falls_by_the_same_factor(void **state)
{
    (void)state;
    CHECK_NEAR(rate("exponential", "{}", 1, 60, 100, 20), 0.1, 1e-15, "half way");
    CHECK_NEAR(rate("exponential", "{\"final\": 0.0001}", 2, 40, 100, 20), 0.2, 1e-15, "a quarter");
    CHECK_NEAR(rate("exponential", "{}", 1, 100, 100, 20), 0.01, 1e-15, "at the end");
}

static void cosine_falls_to_its_floor(void **state)
{
    (void)state;
    const char *o = "{\"min_lr_ratio\": 0.1}";
    CHECK_NEAR(rate("cosine", o, 1, 60, 100, 20), 0.55, 1e-15, "half way");
    CHECK_NEAR(rate("cosine", o, 1, 40, 100, 20), 0.1 + 0.9 * 0.5 * (1 + sqrt(0.5)), 1e-12,
               "a quarter");
    CHECK_NEAR(rate("cosine", o, 1, 100, 100, 20), 0.1, 1e-15, "at the end");
    CHECK_NEAR(rate("cosine", o, 1, 1000, 100, 20), 0.1, 1e-15, "past it");
}

static void wsd_is_flat_and_then_falls(void **state)
{
    (void)state;
    const char *o = "{\"decay_ratio\": 0.25, \"min_lr_ratio\": 0.2}";
    CHECK_NEAR(rate("wsd", o, 1, 75, 100, 0), 1, 0, "the last of the flat part");
    CHECK_NEAR(rate("wsd", o, 1, 100, 100, 0), 0.2, 1e-12, "the end");
    CHECK_NEAR(rate("wsd", o, 1, 81, 100, 0), 1 - 0.8 * sqrt(0.24), 1e-12, "1 - sqrt");
    const char *line = "{\"decay_ratio\": 0.5, \"decay_shape\": \"linear\"}";
    CHECK_NEAR(rate("wsd", line, 1, 75, 100, 0), 0.5, 1e-12, "in a line");
    CHECK_NEAR(rate("wsd", "{\"decay_ratio\": 0}", 1, 100, 100, 0), 1, 0, "no decay");
}

static int start(void **state)
{
    (void)state;
    return ember_start() == EMBER_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warm_up_is_a_line_that_ends_at_the_peak),
        cmocka_unit_test(constant_stays),
        cmocka_unit_test(exponential_falls_by_the_same_factor),
        cmocka_unit_test(cosine_falls_to_its_floor),
        cmocka_unit_test(wsd_is_flat_and_then_falls),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
