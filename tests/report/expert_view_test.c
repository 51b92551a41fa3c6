// What is counted of a routed batch, and what a report shows of it.
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "report/expert_view.h"
#include "report/token_class.h"
#include "support/check.h"

enum { T = 6, K = 2, E = 3, VOCABULARY = 259 };

// Two sequences of a model of bytes, "ab 1" and "a\n", and one router's choices: expert 2 has the
// larger weight of the first token though it is named second; the last token's second choice went
// nowhere.
static const int32_t tokens[T] = {3 + 'a', 3 + 'b', 3 + ' ', 3 + '1', 3 + 'a', 3 + '\n'};
static const size_t offset[] = {0, 4, 6};
static int32_t chosen[T * K] = {0, 2, 0, 1, 1, 2, 1, 0, 0, 2, 2, -1};
static float weight[T * K] = {0.25f, 0.75f, 0.5f, 0.5f, 1, 0, 0.75f, 0.25f, 0.25f, 0.75f, 1, 0};
static float stats[4] = {1, 0, 0.5f, 0.75f}, no_room[1] = {1};

struct routed {
    struct em_model model;
    ember_tensor indices, weights, stats, dropped;
    struct em_router_record record;
    struct em_tokenizer *tokenizer;
    struct em_expert_views views;
    ember_batch batch;
};

static void route(struct routed *r)
{
    *r = (struct routed){
        .batch = {.n_tokens = T, .n_sequences = 2, .offset = offset, .tokens = tokens}};
    CHECK_OK(em_tensor_init(&r->indices, EMBER_I32, (size_t[]){T, K}, 2, chosen));
    CHECK_OK(em_tensor_init(&r->weights, EMBER_F32, (size_t[]){T, K}, 2, weight));
    CHECK_OK(em_tensor_init(&r->stats, EMBER_F32, (size_t[]){4}, 1, stats));
    CHECK_OK(em_tensor_init(&r->dropped, EMBER_F32, (size_t[]){1}, 1, no_room));
    r->record = (struct em_router_record){
        .layer = "blocks.7.channel.router",
        .routing = {.n_experts = E, .k = K, .indices = &r->indices, .weights = &r->weights},
        .dropped = &r->dropped,
        .stats = &r->stats};
    r->model.vocabulary = VOCABULARY;
    CHECK_OK(em_tokenizer_bytes(&r->tokenizer));
    CHECK_OK(em_expert_views_open(&(struct em_expert_views_options){.routers = &r->record,
                                                                    .count = 1,
                                                                    .tokenizer = r->tokenizer,
                                                                    .model = &r->model,
                                                                    .context = 16,
                                                                    .domains = 2,
                                                                    .keep_choices = true},
                                  &r->views));
}

static void close_routed(struct routed *r)
{
    em_expert_views_close(&r->views);
    em_tokenizer_close(r->tokenizer);
}

static void check_row(const double *row, const double expected[E], const char *what)
{
    for (size_t e = 0; e < E; e++)
        CHECK_NEAR(row[e], expected[e], 1e-12, "%s, expert %zu", what, e);
}

static void a_batch_becomes_maps(void **state)
{
    (void)state;
    struct routed r;
    struct em_arena arena = {0};
    struct em_report report = {0};
    struct em_report_layer *layer;
    static const char *const domain[] = {"none", "text"};
    route(&r);
    CHECK_OK(em_expert_views_add(&r.views, &r.record, &r.batch, 1));
    CHECK_OK(em_expert_views_draw(&r.views, domain, 0, &arena, &layer, &report));
    assert_int_equal(report.layer_count, 1);
    assert_int_equal(layer->layer, 7);
    assert_int_equal(layer->metrics.tokens, T);
    assert_int_equal(layer->metrics.dropped, 1);
    check_row(layer->share, (double[]){4 / 11.0, 3 / 11.0, 4 / 11.0}, "load");
    check_row(layer->coverage, (double[]){4 / 11.0, 8 / 11.0, 1}, "coverage");
    check_row(layer->domain_share + E, (double[]){4 / 11.0, 3 / 11.0, 4 / 11.0}, "domain");
    // Places 0 and 1 of both sequences are the first of eight parts of 16.
    assert_int_equal(report.split[EM_SPLIT_POSITION].count, EM_POSITION_BUCKETS);
    assert_string_equal(report.split[EM_SPLIT_POSITION].name[1], "2–3");
    check_row(layer->split[EM_SPLIT_POSITION], (double[]){3 / 7.0, 1 / 7.0, 3 / 7.0}, "0-1");
    check_row(layer->split[EM_SPLIT_POSITION] + E, (double[]){0.25, 0.5, 0.25}, "2-3");
    const double *kinds = layer->split[EM_SPLIT_CLASS];
    check_row(kinds + EM_KIND_LETTERS * E, (double[]){0.5, 1 / 6.0, 2 / 6.0}, "letters");
    check_row(kinds + EM_KIND_NEWLINE * E, (double[]){0, 0, 1}, "newline");
    check_row(kinds + EM_KIND_SPECIAL * E, (double[]){0, 0, 0}, "special");
    // "a" comes twice and is first; then by id: the end of a line with one slot comes last.
    const struct em_report_names *frequent = &report.split[EM_SPLIT_TOKEN];
    assert_int_equal(frequent->count, 5);
    assert_string_equal(frequent->name[0], "a");
    assert_string_equal(frequent->name[1], "␣");
    assert_string_equal(frequent->name[4], "⏎");
    check_row(layer->split[EM_SPLIT_TOKEN], (double[]){0.5, 0, 0.5}, "a");
    CHECK_NEAR(layer->metrics.token_entropy, 0.5, 1e-12, "as the router says");
    CHECK_NEAR(layer->metrics.marginal_entropy, 0.75, 1e-12, "as the router says");
    // The text of the one domain that has some, with the experts of the largest weights.
    assert_int_equal(report.excerpt_count, 1);
    assert_string_equal(report.excerpts[0].domain, "text");
    assert_int_equal(report.excerpts[0].count, T);
    assert_string_equal(report.excerpts[0].piece[3], "1");
    static const int32_t top[T] = {2, 0, 1, 1, 2, 2};
    assert_memory_equal(layer->excerpt[0], top, sizeof top);
    // What was chosen, to be held against other models' choices.
    assert_int_equal(r.views.view[0].choices, T * K);
    assert_memory_equal(r.views.view[0].chosen, chosen, sizeof chosen);
    em_arena_deinit(&arena);
    close_routed(&r);
}

// A router within an expert sees that expert's rows alone: its load counts, but not whose they are.
static void inner_routers_know_no_tokens(void **state)
{
    (void)state;
    struct routed r;
    struct em_arena arena = {0};
    struct em_report report = {0};
    struct em_report_layer *layer;
    struct em_expert_views views;
    static const char *const domain[] = {"text"};
    route(&r);
    ember_tensor few;
    CHECK_OK(em_tensor_init(&few, EMBER_I32, (size_t[]){2, K}, 2, chosen));
    struct em_router_record records[] = {r.record, r.record};
    records[0].layer = "blocks.7.channel.expert.router";
    records[0].routing.indices = &few;
    CHECK_OK(em_expert_views_open(&(struct em_expert_views_options){.routers = records,
                                                                    .count = 2,
                                                                    .model = &r.model,
                                                                    .tokenizer = r.tokenizer,
                                                                    .context = 16,
                                                                    .domains = 1,
                                                                    .keep_choices = true},
                                  &views));
    CHECK_OK(em_expert_views_add(&views, records, &r.batch, 0));
    CHECK_OK(em_expert_views_draw(&views, domain, 0, &arena, &layer, &report));
    assert_int_equal(layer[0].metrics.tokens, 2);
    assert_int_equal(layer[1].metrics.tokens, T);
    assert_string_equal(layer[0].within, records[0].layer);
    assert_null(layer[1].within);
    assert_null(layer[0].excerpt);
    assert_null(layer[0].split[EM_SPLIT_TOKEN]);
    assert_non_null(layer[1].split[EM_SPLIT_TOKEN]);
    assert_int_equal(views.view[0].choices, 0);
    check_row(layer[0].share, (double[]){0.5, 0.25, 0.25}, "load");
    em_expert_views_close(&views);
    em_arena_deinit(&arena);
    close_routed(&r);
}

static void excerpts_end_where_they_are_full(void **state)
{
    (void)state;
    struct routed r;
    route(&r);
    for (size_t i = 0; i < EM_EXCERPT_TOKENS; i++)
        CHECK_OK(em_expert_views_add(&r.views, &r.record, &r.batch, 0));
    assert_int_equal(r.views.excerpt_tokens[0], EM_EXCERPT_TOKENS);
    assert_int_equal(r.views.view[0].counts.tokens, T * EM_EXCERPT_TOKENS);
    close_routed(&r);
}

static void layers_that_go_wrong_are_warned_of(void **state)
{
    (void)state;
    struct routed r;
    struct em_arena arena = {0};
    static const char *const before[] = {"before"};
    struct em_report report = {.warnings = before, .warning_count = 1};
    struct em_report_layer *layer;
    static const char *const domain[] = {"a", "b"};
    route(&r);
    int32_t one[T * K];
    for (size_t i = 0; i < (size_t)T * K; i++)
        one[i] = i % K ? 2 : 0; // expert 1 is dead
    r.indices.data = one;
    CHECK_OK(em_expert_views_add(&r.views, &r.record, &r.batch, 0));
    CHECK_OK(em_expert_views_draw(&r.views, domain, 0, &arena, &layer, &report));
    assert_int_equal(report.warning_count, 2);
    assert_string_equal(report.warnings[0], "before");
    assert_non_null(strstr(report.warnings[1], "Layer 7: expert 1 is dead"));
    em_arena_deinit(&arena);
    close_routed(&r);
}

static int quiet(void **state)
{
    (void)state;
    em_log_threshold((enum em_log_level)(EM_LOG_WARN + 1));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_batch_becomes_maps),
                                       cmocka_unit_test(inner_routers_know_no_tokens),
                                       cmocka_unit_test(excerpts_end_where_they_are_full),
                                       cmocka_unit_test(layers_that_go_wrong_are_warned_of)};
    return cmocka_run_group_tests_name("report/expert_view", tests, quiet, NULL);
}
