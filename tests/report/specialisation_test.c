#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "report/specialisation.h"

static void assert_near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance)) fail_msg("%.17g is not %.17g (within %g)", a, b, tolerance);
}

static void expect_ok(ember_status status)
{
    if (status != EMBER_OK) fail_msg("%s: %s", ember_status_name(status), ember_last_error());
}

static struct em_expert_counts counts(size_t experts, size_t domains, size_t vocabulary)
{
    struct em_expert_counts c;
    expect_ok(em_expert_counts_init(
        &c, &(struct em_counts_shape){
                .experts = experts, .domains = domains, .vocabulary = vocabulary, .pairs = true}));
    return c;
}

// Four tokens, two experts each of four; two domains. By hand:
//   domain 0: tokens go to {0,1} {0,2}; domain 1: {2,3} {2,3}
//   slots: e0 2, e1 1, e2 3, e3 2 of 8.
static void figures_match_a_small_case_by_hand(void **state)
{
    (void)state;
    struct em_expert_counts c = counts(4, 2, 10);
    const int32_t experts[] = {0, 1, 0, 2, 2, 3, 2, 3}, tokens[] = {5, 7, 5, 5};
    const int32_t domains[] = {0, 0, 1, 1};
    expect_ok(em_expert_counts_add(
        &c, &(struct em_routed){
                .T = 4, .k = 2, .experts = experts, .tokens = tokens, .domains = domains}));
    assert_int_equal(c.tokens, 4);
    assert_int_equal(c.slots, 8);
    double f[4], share[8], p[16];
    em_expert_load(&c, f);
    const double load[] = {2 / 8.0, 1 / 8.0, 3 / 8.0, 2 / 8.0};
    for (size_t i = 0; i < 4; i++)
        assert_near(f[i], load[i], 1e-15);
    em_expert_share(c.domain, 2, 4, share);
    const double shares[] = {0.5, 0.25, 0.25, 0, 0, 0, 0.5, 0.5};
    for (size_t i = 0; i < 8; i++)
        assert_near(share[i], shares[i], 1e-15);
    em_expert_coactivation(&c, p);
    assert_near(p[0 * 4 + 1], 0.5, 1e-15); // expert 0's two tokens: one with 1, one with 2
    assert_near(p[1 * 4 + 0], 1, 1e-15);   // expert 1's only token is shared with 0
    assert_near(p[2 * 4 + 3], 2 / 3.0, 1e-15);
    assert_near(p[3 * 4 + 2], 1, 1e-15);
    assert_near(p[0 * 4 + 3], 0, 0);
    assert_near(p[2 * 4 + 2], 1, 1e-15);

    struct em_expert_metrics m;
    expect_ok(em_expert_metrics(&c, 1, &m));
    assert_near(m.max_violation, 4 * 3 / 8.0 - 1, 1e-15);
    // Deviations of f from 1/4: 0, -1/8, 1/8, 0.
    assert_near(m.load_variation, sqrt(2 / 64.0 / 4) / 0.25, 1e-12);
    const double h = -(2 * 0.25 * log(0.25) + 0.125 * log(0.125) + 0.375 * log(0.375));
    assert_near(m.load_entropy, h / log(4), 1e-12);
    assert_int_equal(m.dead, 0);
    assert_true(isnan(m.token_entropy)); // no scores were given
    // I(e; domain) = sum q log(q / (q_e q_d)), q_d = 1/2:
    //   d0: e0 2/8 -> log 2; e1 1/8 -> log 2; e2 1/8 -> log((1/8)/(3/16)); d1: e2 2/8 ->
    //   log((2/8)/(3/16)), e3 2/8 -> log 2.
    const double info = 5 / 8.0 * log(2) + 1 / 8.0 * log(2 / 3.0) + 2 / 8.0 * log(4 / 3.0);
    assert_near(m.domain.value, info / log(2), 1e-12);
    assert_near(m.domain.ceiling, 1, 0); // H(e) > H(domain)
    // Token 5 has slots {0,1}, {2,3}, {2,3}: e0 1, e1 1, e2 2, e3 2; token 7 has {0,2}.
    const double token_info = 1 / 8.0 * log((1 / 8.0) / (6 / 8.0 * 2 / 8.0)) +
                              1 / 8.0 * log((1 / 8.0) / (6 / 8.0 * 1 / 8.0)) +
                              2 / 8.0 * log((2 / 8.0) / (6 / 8.0 * 3 / 8.0)) +
                              2 / 8.0 * log((2 / 8.0) / (6 / 8.0 * 2 / 8.0)) +
                              1 / 8.0 * log((1 / 8.0) / (2 / 8.0 * 2 / 8.0)) +
                              1 / 8.0 * log((1 / 8.0) / (2 / 8.0 * 3 / 8.0));
    const double token_entropy = -(6 / 8.0 * log(6 / 8.0) + 2 / 8.0 * log(2 / 8.0));
    assert_near(m.token.value, token_info / token_entropy, 1e-12);
    em_expert_counts_deinit(&c);
}

static void perfect_dependence_is_one_and_its_shuffle_is_not(void **state)
{
    (void)state;
    struct em_expert_counts c = counts(4, 4, 4);
    for (int32_t d = 0; d < 4; d++)
        for (int i = 0; i < 500; i++)
            expect_ok(em_expert_counts_add(
                &c, &(struct em_routed){.T = 1, .k = 1, .experts = &d, .tokens = &d, .domain = d}));
    struct em_expert_metrics m;
    expect_ok(em_expert_metrics(&c, 1, &m));
    assert_near(m.domain.value, 1, 1e-12);
    assert_near(m.token.value, 1, 1e-12);
    assert_near(m.max_violation, 0, 1e-12);
    assert_near(m.load_entropy, 1, 1e-12);
    // Expected of a shuffle: about (E - 1)(Z - 1) / 2N nats over log 4.
    assert_true(m.domain.shuffled < 0.02);
    assert_true(m.domain.shuffled > 0);
    em_expert_counts_deinit(&c);
}

static void independence_is_near_zero_and_like_its_shuffle(void **state)
{
    (void)state;
    enum { N = 20000, E = 8, Z = 4 };
    struct em_expert_counts c = counts(E, Z, 50);
    struct em_rng rng;
    em_rng_seed(&rng, 3, 0);
    for (size_t i = 0; i < N; i++) {
        // Uneven experts and uneven labels: only the dependence must be missing.
        int32_t e[2] = {(int32_t)(em_rng_below(&rng, E) * em_rng_below(&rng, E) / E), 0};
        do
            e[1] = (int32_t)em_rng_below(&rng, E);
        while (e[1] == e[0]);
        const int32_t d = (int32_t)em_rng_below(&rng, Z), t = (int32_t)em_rng_below(&rng, 50);
        expect_ok(em_expert_counts_add(
            &c, &(struct em_routed){.T = 1, .k = 2, .experts = e, .tokens = &t, .domain = d}));
    }
    struct em_expert_metrics m;
    expect_ok(em_expert_metrics(&c, 7, &m));
    // The bias of finite counts: (E - 1)(Z - 1) / 2N nats.
    const double bias = (E - 1) * (Z - 1) / (2.0 * 2 * N) / log(Z);
    assert_true(m.domain.value < 4 * bias);
    assert_true(m.domain.shuffled < 4 * bias);
    assert_true(m.domain.shuffled > bias / 4);
    const double token_bias = (E - 1) * 49 / (2.0 * 2 * N) / log(50);
    assert_near(m.token.shuffled, token_bias, token_bias / 3);
    assert_true(m.token.value < 2 * token_bias);
    em_expert_counts_deinit(&c);
}

static void shuffles_keep_the_sums_and_follow_the_seed(void **state)
{
    (void)state;
    const uint64_t joint[3][5] = {{90, 3, 0, 1, 40}, {2, 80, 7, 0, 1}, {0, 5, 60, 11, 0}};
    struct em_nmi a, b, other;
    expect_ok(em_nmi(joint[0], 3, 5, 1, &a));
    expect_ok(em_nmi(joint[0], 3, 5, 1, &b));
    expect_ok(em_nmi(joint[0], 3, 5, 2, &other));
    assert_memory_equal(&a, &b, sizeof a);
    assert_true(a.value == other.value && a.shuffled != other.shuffled);
    assert_true(a.shuffled < 0.1 && a.value > 0.5);
    // Dealing leaves nothing to choose where there is one expert: no information, whatever the
    // order.
    const uint64_t one[] = {4, 9};
    expect_ok(em_nmi(one, 2, 1, 5, &a));
    assert_near(a.value, 0, 0);
    assert_near(a.shuffled, 0, 1e-15);
    assert_near(a.ceiling, 0, 0);
    // A label with a single value has no entropy to share.
    expect_ok(em_nmi(one, 1, 2, 5, &a));
    assert_true(isnan(a.value) && isnan(a.shuffled));
}

static void the_ceiling_holds_where_experts_are_fewer_than_labels(void **state)
{
    (void)state;
    // 8 labels, expert = label / 4: all of the expert's one bit is told, a third of the label's
    // three.
    uint64_t joint[8][2] = {{0}};
    for (size_t z = 0; z < 8; z++)
        joint[z][z / 4] = 100;
    struct em_nmi m;
    expect_ok(em_nmi(joint[0], 8, 2, 1, &m));
    assert_near(m.value, 1 / 3.0, 1e-12);
    assert_near(m.ceiling, 1 / 3.0, 1e-12);
}

static void dead_experts_and_scores_are_counted(void **state)
{
    (void)state;
    struct em_expert_counts c = counts(4, 0, 0);
    int32_t e[100];
    float scores[100 * 4];
    for (int i = 0; i < 100; i++) {
        e[i] = i < 2 ? 2 : i % 2; // expert 2: 2 % < 0.1 / 4; expert 3: none
        // Half of the tokens are certain, half undecided between two.
        const float sure[] = {1, 0, 0, 0}, torn[] = {2, 2, 0, 0};
        memcpy(scores + 4 * i, i % 2 ? sure : torn, sizeof sure);
    }
    expect_ok(em_expert_counts_add(
        &c, &(struct em_routed){.T = 100, .k = 1, .experts = e, .domain = -1, .scores = scores}));
    struct em_expert_metrics m;
    expect_ok(em_expert_metrics(&c, 1, &m));
    assert_int_equal(m.dead, 2);
    assert_near(m.token_entropy, 0.5 * log(2) / log(4), 1e-12);
    const double mean = -(0.75 * log(0.75) + 0.25 * log(0.25));
    assert_near(m.marginal_entropy, mean / log(4), 1e-12);
    assert_true(isnan(m.domain.value) && isnan(m.token.value));
    em_expert_counts_reset(&c);
    expect_ok(em_expert_metrics(&c, 1, &m));
    assert_true(isnan(m.max_violation) && isnan(m.token_entropy));
    assert_int_equal(m.dead, 0);
    em_expert_counts_deinit(&c);
}

static void merged_counts_equal_counting_in_one_go(void **state)
{
    (void)state;
    struct em_expert_counts all = counts(5, 3, 100),
                            part[2] = {counts(5, 3, 100), counts(5, 3, 100)};
    struct em_rng rng;
    em_rng_seed(&rng, 9, 0);
    for (int i = 0; i < 1000; i++) {
        const int32_t e[] = {(int32_t)em_rng_below(&rng, 5), -1};
        const int32_t t = (int32_t)em_rng_below(&rng, 100), d = (int32_t)em_rng_below(&rng, 3);
        const struct em_routed r = {.T = 1, .k = 2, .experts = e, .tokens = &t, .domain = d};
        expect_ok(em_expert_counts_add(&all, &r));
        expect_ok(em_expert_counts_add(&part[i % 2], &r));
    }
    expect_ok(em_expert_counts_merge(&part[0], &part[1]));
    struct em_expert_metrics a, b;
    expect_ok(em_expert_metrics(&all, 1, &a));
    expect_ok(em_expert_metrics(&part[0], 1, &b));
    assert_int_equal(a.slots, 1000);
    assert_int_equal(a.slots, b.slots);
    assert_memory_equal(all.domain, part[0].domain, 15 * sizeof *all.domain);
    assert_memory_equal(all.pair, part[0].pair, 25 * sizeof *all.pair);
    assert_near(a.token.value, b.token.value, 1e-12); // rows may be in another order
    struct em_expert_counts other = counts(4, 3, 100);
    assert_int_equal(em_expert_counts_merge(&all, &other), EMBER_E_SHAPE);
    em_expert_counts_deinit(&other);
    em_expert_counts_deinit(&all);
    em_expert_counts_deinit(&part[0]);
    em_expert_counts_deinit(&part[1]);
}

static void token_counts_stay_within_their_memory(void **state)
{
    (void)state;
    struct em_expert_counts c;
    expect_ok(em_expert_counts_init(&c, &(struct em_counts_shape){.experts = 64,
                                                                  .vocabulary = 131072,
                                                                  .token_bytes = 100 * 64 * 8}));
    const int32_t e = 3;
    for (int32_t t = 0; t < 131072; t += 100)
        expect_ok(em_expert_counts_add(
            &c, &(struct em_routed){.T = 1, .k = 1, .experts = &e, .tokens = &t, .domain = -1}));
    assert_int_equal(c.token_rows, 100);
    assert_int_equal(c.tokens_merged, 1311 - 100);
    uint64_t slots = 0;
    for (size_t i = 0; i < c.token_rows * 64; i++)
        slots += c.token[i];
    assert_int_equal(slots, c.slots);
    em_expert_counts_deinit(&c);
}

static void ids_out_of_range_are_refused_and_change_nothing(void **state)
{
    (void)state;
    struct em_expert_counts c = counts(4, 2, 10);
    const int32_t good[] = {1, 2}, bad[] = {1, 4}, token[] = {9}, bad_token[] = {10},
                  negative[] = {-1};
    const struct em_routed ok = {.T = 1, .k = 2, .experts = good, .tokens = token, .domain = 1};
    struct em_routed r = ok;
    r.experts = bad;
    assert_int_equal(em_expert_counts_add(&c, &r), EMBER_E_RANGE);
    assert_string_equal(ember_last_error(), "expert counts: token 0 went to expert 4 of 4");
    r = ok;
    r.tokens = bad_token;
    assert_int_equal(em_expert_counts_add(&c, &r), EMBER_E_RANGE);
    assert_string_equal(ember_last_error(), "expert counts: token id 10 of 10");
    r.tokens = negative;
    assert_int_equal(em_expert_counts_add(&c, &r), EMBER_E_RANGE);
    r = ok;
    r.domain = 2;
    assert_int_equal(em_expert_counts_add(&c, &r), EMBER_E_RANGE);
    assert_string_equal(ember_last_error(), "expert counts: domain 2 of 2");
    r = ok;
    r.k = 5;
    assert_int_equal(em_expert_counts_add(&c, &r), EMBER_E_RANGE);
    assert_int_equal(c.tokens, 0);
    assert_int_equal(c.slots, 0);
    expect_ok(em_expert_counts_add(&c, &ok));
    assert_int_equal(c.slots, 2);
    em_expert_counts_deinit(&c);
    assert_int_equal(em_expert_counts_init(&c, &(struct em_counts_shape){.experts = 0}),
                     EMBER_E_RANGE);
}

static void alarms_are_raised_for_what_went_wrong(void **state)
{
    (void)state;
    char text[EM_ALARM] = "";
    struct em_expert_metrics m = {.max_violation = 0.3, .domain = {0.4, 0.001, 1}};
    assert_false(em_expert_alarm(&m, 3, 1, true, text));
    m.dead = 2;
    m.dead_expert[0] = 1;
    m.dead_expert[1] = 6;
    assert_false(em_expert_alarm(&m, 3, 0.05, true, text)); // the start may be uneven
    assert_string_equal(text, "");
    assert_true(em_expert_alarm(&m, 3, 0.2, true, text));
    assert_string_equal(
        text, "Layer 3: experts 1 and 6 are dead, with less than a tenth of an even share of the "
              "tokens.");
    m.dead = 0;
    m.max_violation = 2.2;
    assert_true(em_expert_alarm(&m, 3, 0.05, true, text));
    assert_string_equal(
        text, "Layer 3 is out of balance: its busiest expert gets 3 times an even share.");
    m.max_violation = (double)NAN; // nothing was counted
    m.domain.value = 0.01;
    assert_false(em_expert_alarm(&m, 3, 0.5, false, text));
    assert_true(em_expert_alarm(&m, 3, 0.5, true, text));
    m.domain.value = (double)NAN;
    assert_false(em_expert_alarm(&m, 3, 0.5, true, text));
}

static void every_failed_allocation_is_reported_without_a_leak(void **state)
{
    (void)state;
    const struct em_counts_shape shape = {
        .experts = 4, .domains = 2, .vocabulary = 10, .pairs = true};
    const int32_t e[] = {1, 2}, t = 3;
    bool done = false;
    for (size_t n = 1; !done; n++) {
        struct em_expert_counts c = {0};
        struct em_expert_metrics m;
        assert_true(n < 100);
        em_alloc_fail_at(n, 0);
        ember_status status = em_expert_counts_init(&c, &shape);
        if (status == EMBER_OK)
            status = em_expert_counts_add(
                &c, &(struct em_routed){.T = 1, .k = 2, .experts = e, .tokens = &t, .domain = 0});
        if (status == EMBER_OK) status = em_expert_metrics(&c, 1, &m);
        em_alloc_fail_at(0, 0);
        em_expert_counts_deinit(&c);
        done = status == EMBER_OK;
        if (!done) assert_int_equal(status, EMBER_E_NOMEM);
        assert_true(done || n < 50);
        if (done) assert_true(n > 5); // it did fail on the way
    }
}

// Three of five experts each, the middle choice of the second token dropped.
static void all_pairs_count_and_dropped_choices_do_not(void **state)
{
    (void)state;
    struct em_expert_counts c;
    expect_ok(em_expert_counts_init(
        &c, &(struct em_counts_shape){.experts = 5, .positions = 2, .classes = 3, .pairs = true}));
    const int32_t experts[] = {4, 0, 2, 1, -1, 3}, positions[] = {0, 1}, classes[] = {2, -1};
    expect_ok(em_expert_counts_add(&c, &(struct em_routed){.T = 2,
                                                           .k = 3,
                                                           .experts = experts,
                                                           .domain = -1,
                                                           .positions = positions,
                                                           .classes = classes}));
    assert_int_equal(c.slots, 5);
    assert_int_equal(c.dropped, 1);
    double p[25], covered[5];
    em_expert_coactivation(&c, p);
    const size_t together[][2] = {{4, 0}, {4, 2}, {0, 2}, {1, 3}}; // {4, 2} are no neighbours
    double sum = 0;
    for (size_t i = 0; i < 25; i++)
        sum += i % 6 ? p[i] : 0;
    assert_near(sum, 8, 1e-15); // these four from both sides, and no others
    for (size_t i = 0; i < 4; i++) {
        assert_near(p[together[i][0] * 5 + together[i][1]], 1, 1e-15);
        assert_near(p[together[i][1] * 5 + together[i][0]], 1, 1e-15);
    }
    const uint64_t by_position[] = {1, 0, 1, 0, 1, 0, 1, 0, 1, 0};
    assert_memory_equal(c.position, by_position, sizeof by_position);
    for (size_t e = 0; e < 5; e++) {
        assert_int_equal(c.token_class[2 * 5 + e], by_position[e]); // token 0's
        assert_int_equal(c.token_class[e] + c.token_class[5 + e], 0);
    }
    em_expert_coverage(&c, covered);
    for (size_t n = 0; n < 5; n++)
        assert_near(covered[n], 0.2 * (double)(n + 1), 1e-15);
    struct em_expert_metrics m;
    expect_ok(em_expert_metrics(&c, 1, &m));
    assert_int_equal(m.dropped, 1);
    assert_near(m.position.value, 1, 1e-12); // each expert had one place only
    const int32_t beyond[] = {0, 2};
    assert_int_equal(em_expert_counts_add(&c, &(struct em_routed){.T = 2,
                                                                  .k = 3,
                                                                  .experts = experts,
                                                                  .domain = -1,
                                                                  .positions = beyond}),
                     EMBER_E_RANGE);
    assert_int_equal(c.slots, 5);
    em_expert_counts_deinit(&c);
}

static void the_dead_are_listed(void **state)
{
    (void)state;
    char text[EM_DEAD_TEXT];
    struct em_expert_metrics m = {.dead_expert = {2, 30, 31, 32, 33, 34, 35, 65535}};
    static const struct {
        size_t dead;
        const char *text;
    } cases[] = {{0, ""},
                 {1, "2"},
                 {2, "2 and 30"},
                 {3, "2, 30 and 31"},
                 {8, "2, 30, 31, 32, 33, 34, 35 and 65535"},
                 {20, "2, 30, 31, 32, 33, 34, 35, 65535 and 12 more"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        m.dead = cases[i].dead;
        assert_string_equal(em_expert_dead_names(&m, text), cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_match_a_small_case_by_hand),
        cmocka_unit_test(perfect_dependence_is_one_and_its_shuffle_is_not),
        cmocka_unit_test(independence_is_near_zero_and_like_its_shuffle),
        cmocka_unit_test(shuffles_keep_the_sums_and_follow_the_seed),
        cmocka_unit_test(the_ceiling_holds_where_experts_are_fewer_than_labels),
        cmocka_unit_test(dead_experts_and_scores_are_counted),
        cmocka_unit_test(merged_counts_equal_counting_in_one_go),
        cmocka_unit_test(token_counts_stay_within_their_memory),
        cmocka_unit_test(ids_out_of_range_are_refused_and_change_nothing),
        cmocka_unit_test(alarms_are_raised_for_what_went_wrong),
        cmocka_unit_test(all_pairs_count_and_dropped_choices_do_not),
        cmocka_unit_test(the_dead_are_listed),
        cmocka_unit_test(every_failed_allocation_is_reported_without_a_leak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
