// The engine takes the memory that its forecast says; conversations can be interrupted and gone on
// with.
#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "infer/engine.h"
#include "infer/small_model.h"

static void what_is_taken_was_foreseen(void **state)
{
    (void)state;
    static const struct em_engine_options ways[] = {
        {.backend = EM_CPU},
        {.backend = EM_CPU, .sequences = 7, .chunk = 64},
        {.backend = EM_REFERENCE, .sequences = 2, .chunk = 9},
    };
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        struct em_model *m = small_model(), *bare;
        struct em_engine_plan plan;
        struct em_engine *e;
        struct em_conversation *c;
        const int32_t ids[] = {1, 80, 81, 82};
        // The forecast needs no weights.
        CHECK_OK(em_model_create(m->config, "config.json", NULL, &bare));
        CHECK_OK(em_engine_forecast(bare, &ways[w], &plan));
        em_model_close(bare);
        const size_t before = em_alloc_live();
        CHECK_OK(em_engine_create(m, &ways[w], &e));
        CHECK_OK(em_conversation_create(e, &c));
        CHECK_OK(em_conversation_append(c, ids, 4));
        CHECK_OK(em_engine_feed(e, &c, 1));
        // What is left is the states' doubling and the programs themselves.
        const size_t taken = em_alloc_live() - before,
                     foreseen = plan.activations + plan.packed + plan.scratch;
        assert_true(taken >= foreseen);
        assert_in_range(taken - foreseen, 0, (size_t)256 << 10);
        size_t states = 0;
        for (size_t i = 0; i < c->state->layout.count; i++)
            states += c->state->layout.spec[i].fixed * sizeof(float) +
                      c->state->slot[i].length * c->state->layout.spec[i].per_token * sizeof(float);
        assert_int_equal(states, plan.state_fixed + 4 * plan.state_token);
        assert_true(plan.made_flops > 0 && plan.prompt_flops > 0);
        em_conversation_destroy(c);
        em_engine_destroy(e);
        em_model_close(m);
    }
}

// Prompts and tokens one by one are passes of their own, with one filter.
static void a_filter_is_held_once(void **state)
{
    (void)state;
    enum { LAGS = 9000, WIDTH = 32, FILTER = LAGS * WIDTH * (int)sizeof(float), TOKENS = 40 };
    static const char text[] =
        "{\"model_type\": \"ember\", \"vocab_size\": 50, \"hidden_size\": 32, "
        "\"initializer_range\": 0.3, \"blocks\": [{\"repeat\": 2, \"share\": true, \"blocks\": "
        "[{\"type\": \"pre_norm\", \"sequence\": {\"type\": \"hyena\", \"filter_length\": "
        "9000}}]}]}";
    const struct em_engine_options options = {.backend = EM_CPU, .chunk = 16};
    struct em_model *m;
    struct em_engine *e;
    struct em_engine_plan plan;
    struct em_conversation *at_once, *by_one;
    int32_t ids[TOKENS];
    json_t *config = json_loads(text, 0, NULL);
    CHECK_OK(em_model_create(config, "config.json", NULL, &m));
    json_decref(config);
    CHECK_OK(em_model_allocate(m));
    em_model_init(m, 5, NULL);
    CHECK_OK(em_engine_forecast(m, &options, &plan));
    assert_in_range(plan.packed, FILTER, FILTER + FILTER / 4);
    assert_true(plan.activations < FILTER);
    const size_t before = em_alloc_live();
    CHECK_OK(em_engine_create(m, &options, &e));
    CHECK_OK(em_conversation_create(e, &at_once));
    CHECK_OK(em_conversation_create(e, &by_one));
    for (int32_t t = 0; t < TOKENS; t++)
        ids[t] = t * t % 50;
    // By turns, with other weights in between: each finds what the other has left, or what is
    // stale.
    for (size_t t = 0; t < TOKENS; t++) {
        CHECK_OK(em_conversation_append(by_one, ids + t, 1));
        CHECK_OK(em_engine_feed(e, &by_one, 1));
        if (t != TOKENS / 2 && t != TOKENS - 1) continue;
        em_conversation_reset(at_once);
        CHECK_OK(em_conversation_append(at_once, ids, t + 1));
        CHECK_OK(em_engine_feed(e, &at_once, 1));
        for (size_t v = 0; v < 50; v++)
            CHECK_NEAR(by_one->logits[v], at_once->logits[v], 2e-5, "token %zu, %zu", t, v);
        const size_t foreseen = plan.activations + plan.packed + plan.scratch;
        assert_in_range(em_alloc_live() - before, foreseen, foreseen + FILTER - 1);
        if (t == TOKENS - 1) break;
        em_model_init(m, 6, NULL);
        em_conversation_reset(by_one);
        CHECK_OK(em_conversation_append(by_one, ids, t + 1));
        CHECK_OK(em_engine_feed(e, &by_one, 1));
    }
    em_conversation_destroy(at_once);
    em_conversation_destroy(by_one);
    em_engine_destroy(e);
    em_model_close(m);
}

// A prompt that was interrupted between chunks leaves a conversation that goes on.
static void a_prompt_goes_on_after_an_interrupt(void **state)
{
    (void)state;
    struct em_model *m = small_model();
    struct em_engine *e;
    struct em_conversation *a, *b, *both[2];
    int32_t ids[20];
    CHECK_OK(em_engine_create(m, &(struct em_engine_options){.backend = EM_CPU, .chunk = 6}, &e));
    CHECK_OK(em_conversation_create(e, &a));
    CHECK_OK(em_conversation_create(e, &b));
    for (size_t i = 0; i < 20; i++)
        ids[i] = (int32_t)((30 + i * i) % 259);
    CHECK_OK(em_conversation_append(a, ids, 20));
    CHECK_OK(em_conversation_append(b, ids, 13));
    em_interrupt_set(true);
    CHECK_FAILS(em_engine_feed(e, &a, 1), EMBER_E_INTERRUPTED, "before all tokens were read");
    em_interrupt_set(false);
    assert_int_equal(a->fed, 0);
    // More conversations than a pass takes.
    both[0] = a;
    both[1] = b;
    CHECK_OK(em_engine_feed(e, both, 2));
    assert_int_equal(a->fed, 20);
    assert_int_equal(b->fed, 13);
    CHECK_OK(em_conversation_append(b, ids + 13, 7));
    CHECK_OK(em_engine_feed(e, both, 2));
    for (size_t v = 0; v < m->vocabulary; v++)
        CHECK_NEAR(b->logits[v], a->logits[v], 1e-5, "token %zu", v);
    // Nothing to feed is fine, and a reset conversation is a new one.
    CHECK_OK(em_engine_feed(e, both, 2));
    em_conversation_reset(b);
    CHECK_OK(em_conversation_append(b, ids, 20));
    CHECK_OK(em_engine_feed(e, &b, 1));
    for (size_t v = 0; v < m->vocabulary; v++)
        CHECK_NEAR(b->logits[v], a->logits[v], 1e-5, "token %zu", v);
    em_conversation_destroy(a);
    em_conversation_destroy(b);
    em_engine_destroy(e);
    em_model_close(m);
}

static void models_of_vectors_are_refused(void **state)
{
    (void)state;
    static const char config[] = "{\"model_type\": \"ember\", \"hidden_size\": 8, \"input_size\": "
                                 "3, \"blocks\": [{\"type\": \"pre_norm\", \"channel\": \"mlp\"}]}";
    json_t *c;
    struct em_model *m;
    struct em_engine *e;
    CHECK_OK(ember_start());
    CHECK_OK(em_json_parse("config", config, strlen(config), 0, &c));
    CHECK_OK(em_model_create(c, "config", NULL, &m));
    json_decref(c);
    CHECK_FAILS(em_engine_create(m, &(struct em_engine_options){.backend = EM_CPU}, &e),
                EMBER_E_UNSUPPORTED, "config: the model reads vectors, not tokens");
    em_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_taken_was_foreseen),
        cmocka_unit_test(a_filter_is_held_once),
        cmocka_unit_test(a_prompt_goes_on_after_an_interrupt),
        cmocka_unit_test(models_of_vectors_are_refused),
    };
    return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
