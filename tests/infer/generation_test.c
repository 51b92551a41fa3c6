// Generation: what comes out is what the whole forward pass says, however it is computed.
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "infer/generation.h"
#include "infer/small_model.h"

enum { MADE = 24, SEQUENCES = 5 };

static struct em_sampler_chain *greedy, *random_chain;

// The most likely token after `n` ids, by one forward pass over all of them without any state.
static int32_t full_forward_argmax(const struct em_model *m, const int32_t *ids, size_t n)
{
    struct em_program *p;
    struct em_model_outputs outputs;
    const size_t offset[] = {0, n};
    const ember_batch batch = {.n_tokens = n, .n_sequences = 1, .offset = offset, .tokens = ids};
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .backend = EM_CPU, .packs = m->packs, .max_tokens = n, .max_sequences = 1},
        &p));
    CHECK_OK(em_model_record(m, p, EM_HEAD_ALL, &outputs));
    CHECK_OK(em_program_allocate(p));
    CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch, .loss_scale = 1}));
    const float *logits = em_f32(outputs.logits) + (n - 1) * m->vocabulary;
    size_t best = 0;
    for (size_t i = 1; i < m->vocabulary; i++)
        if (logits[i] > logits[best]) best = i;
    em_program_destroy(p);
    return (int32_t)best;
}

struct made {
    int32_t ids[256];
    size_t count, prompt, ended;
    ember_finish finish;
    struct em_buf text;
};

static ember_status on_token(void *context, int32_t id)
{
    struct made *m = context;
    assert_true(m->count < 256);
    m->ids[m->count++] = id;
    return EMBER_OK;
}

static ember_status on_text(void *context, const char *text, size_t n)
{
    return em_buf_add(&((struct made *)context)->text, text, n);
}

static ember_status on_end(void *context, const ember_answer *answer)
{
    struct made *m = context;
    m->ended++;
    m->prompt = answer->prompt_tokens;
    m->finish = answer->finish;
    assert_int_equal(answer->tokens, m->count);
    assert_memory_equal(answer->ids + answer->prompt_tokens, m->ids, m->count * sizeof *m->ids);
    return EMBER_OK;
}

static struct em_request request(const int32_t *ids, size_t n, struct made *made)
{
    return (struct em_request){.ids = ids,
                               .count = n,
                               .max_tokens = MADE,
                               .chain = greedy,
                               .on_token = on_token,
                               .on_text = on_text,
                               .on_end = on_end,
                               .context = made};
}

// Prompts of different lengths: some longer than a chunk, one of a single token.
static size_t fill_prompts(size_t vocabulary, int32_t ids[SEQUENCES][48], size_t *length)
{
    static const size_t lengths[SEQUENCES] = {7, 1, 33, 16, 20};
    for (size_t s = 0; s < SEQUENCES; s++) {
        length[s] = lengths[s];
        for (size_t t = 0; t < lengths[s]; t++)
            ids[s][t] = (int32_t)((t * t * 7 + s * 13 + t + 3) % vocabulary);
    }
    return SEQUENCES;
}

static void run_all(const struct em_model *m, size_t chunk, size_t sequences, unsigned threads,
                    bool bf16, const struct em_sampler_chain *chain, struct made made[SEQUENCES])
{
    int32_t ids[SEQUENCES][48];
    size_t length[SEQUENCES];
    struct em_request requests[SEQUENCES];
    struct em_engine *e;
    struct em_pool *pool;
    fill_prompts(m->vocabulary, ids, length);
    CHECK_OK(em_pool_create(threads, &pool));
    CHECK_OK(em_engine_create(
        m,
        &(struct em_engine_options){
            .backend = EM_CPU, .pool = pool, .chunk = chunk, .sequences = sequences, .bf16 = bf16},
        &e));
    memset(made, 0, SEQUENCES * sizeof *made);
    for (size_t s = 0; s < SEQUENCES; s++) {
        requests[s] = request(ids[s], length[s], &made[s]);
        requests[s].chain = chain;
        requests[s].seed = 100 + s;
        requests[s].max_tokens = MADE - s; // they end at different times
    }
    CHECK_OK(em_generate(e, requests, SEQUENCES));
    for (size_t s = 0; s < SEQUENCES; s++) {
        assert_int_equal(made[s].ended, 1);
        assert_int_equal(made[s].count, MADE - s);
        assert_int_equal(made[s].prompt, length[s]);
        assert_int_equal(made[s].finish, EMBER_FINISH_LENGTH);
    }
    em_engine_destroy(e);
    em_pool_destroy(pool);
}

// The same ids from every way of running them.
static void check_ways(const struct em_model *m, bool bf16, const struct em_sampler_chain *chain,
                       const struct made *first)
{
    static const struct {
        size_t chunk, sequences;
        unsigned threads;
    } way[] = {{1, 1, 1}, {5, 1, 2}, {8, 2, 1}, {64, 3, 3}, {5, 8, 1}, {0, 5, 2}};
    struct made other[SEQUENCES];
    for (size_t w = 0; w < sizeof way / sizeof *way; w++) {
        run_all(m, way[w].chunk, way[w].sequences, way[w].threads, bf16, chain, other);
        for (size_t s = 0; s < SEQUENCES; s++)
            assert_memory_equal(other[s].ids, first[s].ids, first[s].count * sizeof(int32_t));
    }
}

static void check_model(const struct em_model *m)
{
    int32_t ids[SEQUENCES][48], sequence[128];
    size_t length[SEQUENCES];
    struct made first[SEQUENCES], drawn[SEQUENCES];
    fill_prompts(m->vocabulary, ids, length);
    run_all(m, 0, 1, 1, false, greedy, first);
    for (size_t s = 0; s < SEQUENCES; s++) {
        memcpy(sequence, ids[s], length[s] * sizeof *sequence);
        for (size_t i = 0; i < MADE - s; i++) {
            const int32_t expected = full_forward_argmax(m, sequence, length[s] + i);
            assert_int_equal(first[s].ids[i], expected);
            sequence[length[s] + i] = expected;
        }
    }
    check_ways(m, false, greedy, first);
    run_all(m, 0, 1, 1, false, random_chain, drawn);
    check_ways(m, false, random_chain, drawn);
    size_t differ = 0;
    for (size_t s = 0; s < SEQUENCES; s++)
        differ += memcmp(drawn[s].ids, first[s].ids, 8 * sizeof(int32_t)) != 0;
    assert_true(differ > 0); // the draw does draw
    run_all(m, 0, 1, 1, true, random_chain, drawn);
    check_ways(m, true, random_chain, drawn);
}

static void greedy_ids_are_those_of_the_whole_pass_in_any_chunks_and_batch(void **state)
{
    (void)state;
    struct em_model *m = small_model();
    m->context = 0;
    check_model(m);
    em_model_close(m);
}

static void so_are_those_of_every_family(void **state)
{
    (void)state;
    static const char *const names[] = {"lfm2", "lfm2_moe", "lfm3", "lfm3-plain", "llama"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct em_model *m;
        const char *folder = test_path(EMBER_TESTS_DIR "/golden/models", names[i]);
        CHECK_OK(em_model_open(folder, &m));
        m->context = 0;
        check_model(m);
        em_model_close(m);
    }
}

// One engine and one prompt for what ends a text.
struct fixture {
    struct em_model *model;
    struct em_engine *engine;
    struct em_tokenizer *tokenizer;
    int32_t prompt[3];
    struct made plain; // greedy, MADE tokens
};

static void open_fixture(struct fixture *f)
{
    *f = (struct fixture){.prompt = {1, 80, 90}};
    f->model = small_model();
    CHECK_OK(em_tokenizer_bytes(&f->tokenizer));
    CHECK_OK(
        em_engine_create(f->model, &(struct em_engine_options){.backend = EM_CPU}, &f->engine));
    struct em_request r = request(f->prompt, 3, &f->plain);
    r.tokenizer = f->tokenizer;
    CHECK_OK(em_generate(f->engine, &r, 1));
    assert_int_equal(f->plain.count, MADE);
}

static void close_fixture(struct fixture *f)
{
    em_buf_deinit(&f->plain.text);
    em_engine_destroy(f->engine);
    em_tokenizer_close(f->tokenizer);
    em_model_close(f->model);
}

static void an_end_token_ends_and_has_no_text(void **state)
{
    (void)state;
    struct fixture f;
    struct made made = {0};
    open_fixture(&f);
    const int32_t end[] = {200000, f.plain.ids[9]};
    size_t first = 0;
    while (f.plain.ids[first] != end[1])
        first++;
    struct em_request r = request(f.prompt, 3, &made);
    r.tokenizer = f.tokenizer;
    r.end = end;
    r.end_count = 2;
    CHECK_OK(em_generate(f.engine, &r, 1));
    assert_int_equal(made.finish, EMBER_FINISH_END);
    assert_int_equal(made.count, first + 1);
    assert_int_equal(made.ids[first], end[1]);
    struct em_buf expected = {0};
    CHECK_OK(em_decode(f.tokenizer, made.ids, first, EM_DECODE_SKIP_SPECIAL, &expected));
    assert_int_equal(made.text.size, expected.size);
    if (expected.size) assert_memory_equal(made.text.data, expected.data, expected.size);
    em_buf_deinit(&expected);
    em_buf_deinit(&made.text);
    close_fixture(&f);
}

static void a_stop_string_ends_where_it_first_comes(void **state)
{
    (void)state;
    struct fixture f;
    struct made made = {0};
    open_fixture(&f);
    assert_true(f.plain.text.size > 8);
    char stop[3] = {0};
    size_t at = 4; // the first place that does not begin inside a character
    while ((f.plain.text.data[at] & 0xc0) == 0x80)
        at++;
    stop[0] = f.plain.text.data[at];
    at = (size_t)(strchr(f.plain.text.data, stop[0]) - f.plain.text.data);
    struct em_request r = request(f.prompt, 3, &made);
    r.tokenizer = f.tokenizer;
    r.stops = (struct em_stops){(const char *[]){stop}, 1};
    CHECK_OK(em_generate(f.engine, &r, 1));
    assert_int_equal(made.finish, EMBER_FINISH_STOP);
    assert_int_equal(made.text.size, at);
    if (at) assert_memory_equal(made.text.data, f.plain.text.data, at);
    assert_true(made.count < f.plain.count);
    em_buf_deinit(&made.text);
    close_fixture(&f);
}

static void the_context_is_an_end_and_a_limit_of_prompts(void **state)
{
    (void)state;
    struct fixture f;
    struct made made = {0};
    open_fixture(&f);
    f.model->context = 10;
    struct em_request r = request(f.prompt, 3, &made);
    CHECK_OK(em_generate(f.engine, &r, 1));
    assert_int_equal(made.finish, EMBER_FINISH_CONTEXT);
    assert_int_equal(made.count, 8); // the last one need not be read any more
    assert_memory_equal(made.ids, f.plain.ids, 8 * sizeof(int32_t));
    int32_t longer[11] = {0};
    made.count = 0;
    r.ids = longer;
    r.count = 11;
    CHECK_FAILS(em_generate(f.engine, &r, 1), EMBER_E_RANGE, "11 tokens");
    CHECK_FAILS(em_generate(f.engine, &r, 1), EMBER_E_RANGE, "the context of config.json is 10");
    assert_int_equal(made.count, 0);
    r.count = 10;
    CHECK_OK(em_generate(f.engine, &r, 1));
    assert_int_equal(made.count, 1);
    close_fixture(&f);
}

static void bad_prompts_are_refused_before_anything_runs(void **state)
{
    (void)state;
    struct fixture f;
    struct made made = {0};
    open_fixture(&f);
    struct em_request r[2] = {request(f.prompt, 3, &made), request(f.prompt, 0, &made)};
    CHECK_FAILS(em_generate(f.engine, r, 2), EMBER_E_RANGE, "no token to start from");
    const int32_t wrong[] = {5, 259}, negative[] = {-1};
    r[1] = request(wrong, 2, &made);
    CHECK_FAILS(em_generate(f.engine, r, 2), EMBER_E_RANGE,
                "token 259 at place 1 is outside the vocabulary of 259");
    r[1] = request(negative, 1, &made);
    CHECK_FAILS(em_generate(f.engine, r, 2), EMBER_E_RANGE, "token -1 at place 0");
    assert_int_equal(made.count, 0);
    close_fixture(&f);
}

static ember_status stop_at_seven(void *context, int32_t id)
{
    CHECK_OK(on_token(context, id));
    if (((struct made *)context)->count == 7) em_interrupt_set(true);
    return EMBER_OK;
}

static ember_status refuse(void *context, int32_t id)
{
    (void)context;
    (void)id;
    return em_fail(EMBER_E_IO, "no more");
}

static void a_request_to_stop_and_a_listener_that_fails_end_it(void **state)
{
    (void)state;
    struct fixture f;
    struct made made = {0};
    open_fixture(&f);
    struct em_request r = request(f.prompt, 3, &made);
    r.on_token = stop_at_seven;
    CHECK_FAILS(em_generate(f.engine, &r, 1), EMBER_E_INTERRUPTED, "stopped on request");
    em_interrupt_set(false);
    assert_int_equal(made.count, 7);
    assert_int_equal(made.ended, 0);
    r.on_token = refuse;
    CHECK_FAILS(em_generate(f.engine, &r, 1), EMBER_E_IO, "no more");
    r = request(f.prompt, 3, &made); // and the engine is as good as before
    made.count = 0;
    CHECK_OK(em_generate(f.engine, &r, 1));
    assert_memory_equal(made.ids, f.plain.ids, sizeof f.plain.ids[0] * MADE);
    close_fixture(&f);
}

static void weights_that_are_no_numbers_are_told(void **state)
{
    (void)state;
    struct fixture f;
    struct made made = {0};
    open_fixture(&f);
    em_f32(f.model->embedding)[80 * f.model->width] = NAN;
    em_packs_changed(f.model->packs);
    struct em_request r = request(f.prompt, 3, &made);
    CHECK_FAILS(em_generate(f.engine, &r, 1), EMBER_E_NUMERIC, "is not a number");
    close_fixture(&f);
}

// The n-th allocation fails, for every n: a status, and nothing leaks.
static void running_out_of_memory_is_a_status(void **state)
{
    (void)state;
    struct em_model *m = small_model();
    const int32_t prompt[] = {1, 80, 90, 91};
    for (size_t n = 1;; n++) {
        struct em_engine *e = NULL;
        struct made made = {0};
        struct em_request r[2] = {request(prompt, 4, &made), request(prompt, 4, &made)};
        r[0].on_end = r[1].on_end = NULL;
        r[0].max_tokens = r[1].max_tokens = 3;
        em_alloc_fail_at(n, 0);
        ember_status status = em_engine_create(
            m, &(struct em_engine_options){.backend = EM_CPU, .sequences = 2, .chunk = 3}, &e);
        if (status == EMBER_OK) status = em_generate(e, r, 2);
        const bool all = status == EMBER_OK;
        em_alloc_fail_at(0, 0);
        em_engine_destroy(e);
        if (all) {
            assert_true(n > 20);
            break;
        }
        assert_int_equal(status, EMBER_E_NOMEM);
    }
    em_model_close(m);
}

static int setup(void **state)
{
    (void)state;
    CHECK_OK(ember_start());
    CHECK_OK(em_sampler_chain_from(&(ember_sampling){.top_p = 1, .repeat_penalty = 1}, &greedy));
    const ember_sampling s = {
        .temperature = 1, .top_k = 20, .top_p = 0.98, .min_p = 0.001, .repeat_penalty = 1.05};
    CHECK_OK(em_sampler_chain_from(&s, &random_chain));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    em_sampler_chain_destroy(greedy);
    em_sampler_chain_destroy(random_chain);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_ids_are_those_of_the_whole_pass_in_any_chunks_and_batch),
        cmocka_unit_test(so_are_those_of_every_family),
        cmocka_unit_test(an_end_token_ends_and_has_no_text),
        cmocka_unit_test(a_stop_string_ends_where_it_first_comes),
        cmocka_unit_test(the_context_is_an_end_and_a_limit_of_prompts),
        cmocka_unit_test(bad_prompts_are_refused_before_anything_runs),
        cmocka_unit_test(a_request_to_stop_and_a_listener_that_fails_end_it),
        cmocka_unit_test(weights_that_are_no_numbers_are_told),
        cmocka_unit_test(running_out_of_memory_is_a_status),
    };
    return cmocka_run_group_tests_name("generation", tests, setup, teardown);
}
