// Samplers against distributions worked out by hand.
#include <math.h>
#include <string.h>

#include "infer/sampler.h"
#include "support/check.h"

#include <ember/runtime.h>

enum { V = 6 };
// Probabilities 0.4, 0.05, 0.3, 0.1, 0.1, 0.05.
static const double probability[V] = {0.4, 0.05, 0.3, 0.1, 0.1, 0.05};

static void set_logits(float *logits)
{
    for (size_t i = 0; i < V; i++)
        logits[i] = (float)log(probability[i]) + 3;
}

static struct em_sampler_chain *chain_of(const char *text)
{
    json_t *list;
    struct em_sampler_chain *chain;
    CHECK_OK(em_json_parse("samplers", text, strlen(text), 0, &list));
    CHECK_OK(em_sampler_chain_create(list, "samplers", &chain));
    json_decref(list);
    return chain;
}

// Probabilities after a chain; 0 for what it removed.
static void distribution(const char *text, const float *logits, const int32_t *history,
                         size_t length, double *p)
{
    struct em_sampler_chain *chain = chain_of(text);
    struct em_sampler_work work;
    struct em_candidates c;
    CHECK_OK(em_sampler_work_init(&work, V));
    CHECK_OK(em_sampler_candidates(chain, &work, logits, history, length, &c));
    assert_true(c.count >= 1 && c.count <= V);
    double total = 0;
    for (size_t i = 0; i < V; i++)
        p[i] = 0;
    for (size_t i = 0; i < c.count; i++)
        total += exp((double)c.item[i].logit);
    for (size_t i = 0; i < c.count; i++) {
        assert_true(p[c.item[i].id] == 0); // nobody twice
        p[c.item[i].id] = exp((double)c.item[i].logit) / total;
    }
    for (size_t i = 0; i < V; i++)
        assert_int_equal(work.mark[i], 0);
    em_sampler_work_deinit(&work);
    em_sampler_chain_destroy(chain);
}

static void check_distribution(const char *text, const double *expected)
{
    float logits[V];
    double p[V];
    set_logits(logits);
    distribution(text, logits, NULL, 0, p);
    for (size_t i = 0; i < V; i++)
        CHECK_NEAR(p[i], expected[i], 1e-6, "%s, token %zu", text, i);
}

static void each_filter_keeps_what_it_says(void **state)
{
    (void)state;
    check_distribution("[]", probability);
    check_distribution("[\"greedy\"]", (double[V]){1});
    check_distribution("[{\"type\": \"top_k\", \"k\": 2}]", (double[V]){4 / 7., 0, 3 / 7.});
    // Of the equal tokens 3 and 4 the smaller id stays.
    check_distribution("[{\"type\": \"top_k\", \"k\": 3}]", (double[V]){0.5, 0, 0.375, 0.125});
    check_distribution("[{\"type\": \"top_k\", \"k\": 100}]", probability);
    // 0.4 and 0.3 hold 0.7; 0.71 needs a third.
    check_distribution("[{\"type\": \"top_p\", \"p\": 0.69}]", (double[V]){4 / 7., 0, 3 / 7.});
    check_distribution("[{\"type\": \"top_p\", \"p\": 0.71}]", (double[V]){0.5, 0, 0.375, 0.125});
    check_distribution("[{\"type\": \"top_p\", \"p\": 0}]", (double[V]){1});
    check_distribution("[{\"type\": \"top_p\", \"p\": 1}]", probability);
    // 0.3 / 0.4 = 0.75.
    check_distribution("[{\"type\": \"min_p\", \"p\": 0.74}]", (double[V]){4 / 7., 0, 3 / 7.});
    check_distribution("[{\"type\": \"min_p\", \"p\": 0.76}]", (double[V]){1});
    check_distribution("[{\"type\": \"min_p\", \"p\": 0}]", probability);
    // Temperature 1/2 squares the probabilities.
    const double squares = 0.16 + 2 * 0.0025 + 0.09 + 2 * 0.01;
    check_distribution("[{\"type\": \"temperature\", \"temperature\": 0.5}]",
                       (double[V]){0.16 / squares, 0.0025 / squares, 0.09 / squares, 0.01 / squares,
                                   0.01 / squares, 0.0025 / squares});
    check_distribution("[{\"type\": \"temperature\", \"temperature\": 0}]", (double[V]){1});
    check_distribution("[{\"type\": \"temperature\", \"temperature\": 1e-30}]", (double[V]){1});
}

static void filters_see_what_earlier_ones_left(void **state)
{
    (void)state;
    // Of the two that top-k leaves the first holds 4/7 = 0.571.
    check_distribution("[{\"type\": \"top_k\", \"k\": 2}, {\"type\": \"top_p\", \"p\": 0.57}]",
                       (double[V]){1});
    check_distribution("[{\"type\": \"top_p\", \"p\": 0.57}, {\"type\": \"top_k\", \"k\": 2}]",
                       (double[V]){4 / 7., 0, 3 / 7.});
    // Temperature 1/2 first makes 0.3 : 0.4 into 0.09 : 0.16 = 0.5625.
    const char *min_p = "{\"type\": \"min_p\", \"p\": 0.6}",
               *cold = "{\"type\": \"temperature\", \"temperature\": 0.5}";
    char text[200];
    snprintf(text, sizeof text, "[%s, %s]", min_p, cold);
    check_distribution(text, (double[V]){0.64, 0, 0.36});
    snprintf(text, sizeof text, "[%s, %s]", cold, min_p);
    check_distribution(text, (double[V]){1});
}

static void a_penalty_falls_once_on_each_token_in_sight(void **state)
{
    (void)state;
    const float logits[V] = {2, -1, 0.5f, 0, -2, 1};
    const int32_t history[] = {5, 0, 1, 1, 0};
    double p[V], total = 0;
    const double changed[V] = {2 / 1.25, -1 * 1.25, 0.5, 0, -2, 1};
    distribution("[{\"type\": \"repeat_penalty\", \"penalty\": 1.25, \"last\": 4}]", logits,
                 history, 5, p);
    for (size_t i = 0; i < V; i++)
        total += exp(changed[i]);
    for (size_t i = 0; i < V; i++)
        CHECK_NEAR(p[i], exp(changed[i]) / total, 1e-6, "token %zu", i);
    // All of the history has token 5 too.
    distribution("[{\"type\": \"repeat_penalty\", \"penalty\": 1.25, \"last\": 0}]", logits,
                 history, 5, p);
    total += exp(1 / 1.25) - exp(1);
    CHECK_NEAR(p[5], exp(1 / 1.25) / total, 1e-6, "the oldest token");
}

// The chain that settings make, as text.
static void check_list(ember_sampling s, const char *expected)
{
    json_t *list;
    struct em_buf text = {0};
    CHECK_OK(em_sampling_list(&s, &list));
    CHECK_OK(em_json_print(list, 0, &text));
    assert_string_equal(text.data, expected);
    json_decref(list);
    em_buf_deinit(&text);
}

static void settings_become_chains_in_either_order(void **state)
{
    (void)state;
    ember_sampling s = {
        .temperature = 0.5, .top_k = 3, .top_p = 0.75, .min_p = 0.25, .repeat_penalty = 1.5};
    check_list(s, "[{\"type\":\"repeat_penalty\",\"penalty\":1.5,\"last\":64},"
                  "{\"type\":\"top_k\",\"k\":3},{\"type\":\"top_p\",\"p\":0.75},"
                  "{\"type\":\"min_p\",\"p\":0.25},"
                  "{\"type\":\"temperature\",\"temperature\":0.5}]");
    s.order = EMBER_ORDER_HF;
    check_list(s, "[{\"type\":\"repeat_penalty\",\"penalty\":1.5,\"last\":0},"
                  "{\"type\":\"temperature\",\"temperature\":0.5},"
                  "{\"type\":\"top_k\",\"k\":3},{\"type\":\"top_p\",\"p\":0.75},"
                  "{\"type\":\"min_p\",\"p\":0.25}]");
    s = (ember_sampling){.temperature = 0, .top_k = 3, .top_p = 0.75, .repeat_penalty = 1};
    check_list(s, "[{\"type\":\"greedy\"}]");
    s = (ember_sampling){.temperature = 1, .top_p = 1, .repeat_penalty = 1};
    check_list(s, "[{\"type\":\"temperature\",\"temperature\":1.0}]");
}

static void draws_follow_the_distribution(void **state)
{
    (void)state;
    enum { DRAWS = 40000 };
    float logits[V];
    size_t seen[V] = {0};
    struct em_sampler_chain *chain = chain_of("[{\"type\": \"top_k\", \"k\": 5}]");
    struct em_sampler_work work;
    struct em_rng rng;
    set_logits(logits);
    CHECK_OK(em_sampler_work_init(&work, V));
    em_rng_seed(&rng, 5, 0);
    for (size_t i = 0; i < DRAWS; i++) {
        int32_t token;
        CHECK_OK(em_sample(chain, &work, logits, NULL, 0, &rng, &token));
        seen[token]++;
    }
    const double expected[V] = {0.4, 0.05, 0.3, 0.1, 0.1, 0};
    for (size_t i = 0; i < V; i++) // five standard deviations
        CHECK_NEAR((double)seen[i] / DRAWS, expected[i] / 0.95, 0.0125, "token %zu", i);
    em_sampler_work_deinit(&work);
    em_sampler_chain_destroy(chain);
}

// Against sorting: candidates with many equal logits, at every number kept.
static void keeping_the_most_likely_is_like_sorting(void **state)
{
    (void)state;
    enum { N = 97 };
    struct em_candidate item[N], sorted[N];
    struct em_rng rng;
    em_rng_seed(&rng, 7, 0);
    for (size_t keep = 1; keep <= N; keep++) {
        const size_t values = 1 + keep % 13 * 9;
        for (size_t i = 0; i < N; i++) {
            const size_t at = (i * 31 + keep) % N; // any order of ids
            item[at] = (struct em_candidate){(int32_t)i, (float)em_rng_below(&rng, values)};
        }
        for (size_t i = 0; i < N; i++) {
            size_t rank = 0;
            for (size_t j = 0; j < N; j++)
                rank += item[j].logit > item[i].logit ||
                        (item[j].logit == item[i].logit && item[j].id < item[i].id);
            sorted[rank] = item[i];
        }
        struct em_candidates c = {.item = item, .count = N};
        em_candidates_keep(&c, keep);
        assert_int_equal(c.count, keep);
        assert_true(c.sorted);
        for (size_t i = 0; i < keep; i++)
            assert_int_equal(item[i].id, sorted[i].id);
    }
}

static void what_is_no_number_is_refused(void **state)
{
    (void)state;
    float logits[V];
    int32_t token;
    struct em_rng rng = {{1, 2, 3, 4}};
    struct em_sampler_chain *chain = chain_of("[]");
    struct em_sampler_work work;
    CHECK_OK(em_sampler_work_init(&work, V));
    set_logits(logits);
    logits[4] = NAN;
    CHECK_FAILS(em_sample(chain, &work, logits, NULL, 9, &rng, &token), EMBER_E_NUMERIC,
                "logit of token 4 after 9");
    logits[4] = INFINITY;
    CHECK_FAILS(em_sample(chain, &work, logits, NULL, 9, &rng, &token), EMBER_E_NUMERIC,
                "largest logit after 9 tokens is inf");
    for (size_t i = 0; i < V; i++)
        logits[i] = -INFINITY;
    CHECK_FAILS(em_sample(chain, &work, logits, NULL, 9, &rng, &token), EMBER_E_NUMERIC, "-inf");
    logits[2] = -5; // the only one there is
    CHECK_OK(em_sample(chain, &work, logits, NULL, 9, &rng, &token));
    assert_int_equal(token, 2);
    em_sampler_work_deinit(&work);
    em_sampler_chain_destroy(chain);
}

static void wrong_chains_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } wrong[] = {
        {"{}", "samplers has to be a list"},
        {"[3]", "samplers[0] has to be a sampler"},
        {"[\"greedy\", \"top_q\"]", "samplers[1]: no sampler is called \"top_q\"; did you mean"},
        {"[{\"type\": \"top_k\", \"k\": 0}]", "samplers[0].k is 0; it has to be within 1 and"},
        {"[{\"type\": \"top_p\", \"p\": 1.5}]", "samplers[0].p is 1.5"},
        {"[{\"type\": \"min_p\", \"q\": 1}]", "samplers[0].q is not known"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        json_t *list;
        struct em_sampler_chain *chain;
        CHECK_OK(em_json_parse("samplers", wrong[i].text, strlen(wrong[i].text), 0, &list));
        CHECK_FAILS(em_sampler_chain_create(list, "samplers", &chain), EMBER_E_CONFIG,
                    wrong[i].message);
        json_decref(list);
    }
}

static int setup(void **state)
{
    (void)state;
    return ember_start() != EMBER_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_filter_keeps_what_it_says),
        cmocka_unit_test(filters_see_what_earlier_ones_left),
        cmocka_unit_test(a_penalty_falls_once_on_each_token_in_sight),
        cmocka_unit_test(settings_become_chains_in_either_order),
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(keeping_the_most_likely_is_like_sorting),
        cmocka_unit_test(what_is_no_number_is_refused),
        cmocka_unit_test(wrong_chains_are_refused),
    };
    return cmocka_run_group_tests_name("sampler", tests, setup, NULL);
}
