// The public interface of models and generation, as a program that embeds them uses it.
#include <string.h>

#include <ember/infer.h>

#include "base/alloc.h"
#include "infer/small_model.h"

static const char *folder;

struct heard {
    int32_t ids[256];
    size_t count, ends;
    struct em_buf text;
    ember_finish finish;
};

static ember_status on_token(void *context, int32_t id)
{
    struct heard *h = context;
    h->ids[h->count++ % 256] = id;
    return EMBER_OK;
}

static ember_status on_text(void *context, const char *text, size_t n)
{
    return em_buf_add(&((struct heard *)context)->text, text, n);
}

static ember_status on_end(void *context, const ember_answer *answer)
{
    struct heard *h = context;
    h->ends++;
    h->finish = answer->finish;
    return EMBER_OK;
}

static ember_request request(const char *prompt, struct heard *h)
{
    return (ember_request){.text = prompt,
                           .n_text = strlen(prompt),
                           .max_tokens = 12,
                           .seed = 3,
                           .on_token = on_token,
                           .on_text = on_text,
                           .on_end = on_end,
                           .context = h};
}

static ember_model *open_model(void)
{
    ember_model *model;
    const ember_model_options options = {.runtime = {.threads = 1, .compute = EMBER_COMPUTE_F32}};
    CHECK_OK(ember_model_open(folder, &options, &model));
    return model;
}

static void a_model_says_what_it_is(void **state)
{
    (void)state;
    ember_model *model = open_model();
    size_t total, active, n;
    int32_t *ids;
    assert_int_equal(ember_model_vocabulary(model), 259);
    assert_int_equal(ember_model_context(model), 96);
    assert_true(ember_model_reads_text(model));
    ember_model_parameters(model, &total, &active);
    assert_true(total > active && active > 0);
    CHECK_OK(ember_model_encode(model, "ab", 2, &ids, &n));
    assert_int_equal(n, 3);
    assert_memory_equal(ids, ((int32_t[]){1, 3 + 'a', 3 + 'b'}), 3 * sizeof *ids);
    ember_free(ids);
    const ember_sampling s = ember_sampling_default(model);
    CHECK_NEAR(s.temperature, 0.8, 0, "default");
    assert_int_equal(ember_sampling_default(NULL).top_k, 40);
    assert_string_equal(ember_finish_name(EMBER_FINISH_CONTEXT), "context");
    ember_model_close(model);
    ember_model_close(NULL);
}

static void requests_of_all_sorts_run_together_as_alone(void **state)
{
    (void)state;
    enum { N = 20 }; // more than one pass takes
    ember_model *model = open_model();
    struct heard together[N], alone;
    ember_request r[N];
    const ember_sampling sharp = {.temperature = 0.3,
                                  .top_p = 1,
                                  .repeat_penalty = 1.2,
                                  .order = EMBER_ORDER_HF},
                         likely = {.top_p = 1, .repeat_penalty = 1};
    memset(together, 0, sizeof together);
    for (size_t i = 0; i < N; i++) {
        r[i] = request(&"twenty prompts of all lengths"[i], &together[i]);
        r[i].seed = i / 2;
        r[i].max_tokens = 3 + i;
        if (i % 3) r[i].sampling = i % 3 == 1 ? &sharp : &likely;
    }
    CHECK_OK(ember_generate(model, r, N));
    for (size_t i = 0; i < N; i++) {
        memset(&alone, 0, sizeof alone);
        r[i].context = &alone;
        CHECK_OK(ember_generate(model, &r[i], 1));
        assert_int_equal(together[i].ends, 1);
        assert_int_equal(alone.count, together[i].count);
        assert_memory_equal(alone.ids, together[i].ids, alone.count * sizeof(int32_t));
        assert_int_equal(alone.text.size, together[i].text.size);
        if (alone.text.size)
            assert_memory_equal(alone.text.data, together[i].text.data, alone.text.size);
        em_buf_deinit(&alone.text);
        em_buf_deinit(&together[i].text);
    }
    CHECK_OK(ember_generate(model, NULL, 0));
    ember_model_close(model);
}

// A special token has no text, so its name as a stop string is the token.
static void a_special_token_can_be_a_stop_string(void **state)
{
    (void)state;
    ember_model *model = open_model();
    struct heard h = {0};
    const ember_sampling any = {.temperature = 1000, .top_p = 1, .repeat_penalty = 1};
    ember_request r = request("x", &h);
    r.sampling = &any; // every token as likely as another
    r.max_tokens = 95;
    r.stop = (const char *const[]){"<|pad|>", "<|startoftext|>", ""};
    r.n_stop = 3;
    for (r.seed = 1; h.finish != EMBER_FINISH_END; r.seed++) {
        assert_true(r.seed < 200);
        h.count = 0;
        CHECK_OK(ember_generate(model, &r, 1));
        for (size_t i = 0; i + 1 < h.count; i++)
            assert_true(h.ids[i] > 2);
        if (h.finish == EMBER_FINISH_END && h.ids[h.count - 1] == 2)
            h.finish = EMBER_FINISH_LENGTH; // the model's own end: go on looking
    }
    assert_in_range(h.ids[h.count - 1], 0, 1);
    em_buf_deinit(&h.text);
    ember_model_close(model);
}

static void without_a_tokenizer_only_text_is_refused(void **state)
{
    (void)state;
    const char *bare = EMBER_TESTS_DIR "/golden/models/lfm2", *odd = small_folder("odd");
    ember_model *model;
    struct heard h = {0};
    const int32_t ids[] = {3, 4};
    int32_t *encoded;
    size_t n;
    ember_request text = request("x", &h), by_ids = request("", &h);
    by_ids.text = NULL;
    by_ids.ids = ids;
    by_ids.n_ids = 2;
    by_ids.on_text = NULL;
    CHECK_OK(ember_model_open(bare, NULL, &model));
    assert_false(ember_model_reads_text(model));
    CHECK_FAILS(ember_generate(model, &text, 1), EMBER_E_STATE, "no tokenizer.json");
    CHECK_FAILS(ember_model_encode(model, "x", 1, &encoded, &n), EMBER_E_STATE,
                "no tokenizer.json");
    CHECK_OK(ember_generate(model, &by_ids, 1));
    assert_true(h.count > 0);
    by_ids.stop = (const char *const[]){"x"};
    by_ids.n_stop = 1;
    CHECK_FAILS(ember_generate(model, &by_ids, 1), EMBER_E_STATE, "no tokenizer.json");
    ember_model_close(model);
    // One that cannot be read says why, when it is needed.
    static const char unigram[] = "{\"model\": {\"type\": \"Unigram\", \"vocab\": []}}";
    CHECK_OK(em_write_file(test_path(odd, "tokenizer.json"), unigram, strlen(unigram)));
    CHECK_OK(ember_model_open(odd, NULL, &model));
    CHECK_FAILS(ember_generate(model, &text, 1), EMBER_E_UNSUPPORTED, "Unigram");
    by_ids.n_stop = 0;
    CHECK_OK(ember_generate(model, &by_ids, 1));
    ember_model_close(model);
}

static void a_bad_request_names_its_prompt(void **state)
{
    (void)state;
    ember_model *model = open_model();
    struct heard h = {0};
    char text[300];
    memset(text, 'a', sizeof text);
    ember_request r[2] = {request("fine", &h), request("", &h)};
    r[1].text = text;
    r[1].n_text = sizeof text;
    r[1].name = "the second";
    CHECK_FAILS(ember_generate(model, r, 2), EMBER_E_RANGE, "the second has 301 tokens");
    r[1].name = NULL;
    CHECK_FAILS(ember_generate(model, r, 2), EMBER_E_RANGE, "the prompt has 301 tokens");
    const ember_sampling wrong = {.temperature = 1, .top_p = -1, .repeat_penalty = 1};
    r[0].sampling = &wrong;
    CHECK_FAILS(ember_generate(model, r, 1), EMBER_E_CONFIG, "p is -1");
    assert_int_equal(h.count, 0);
    ember_model_close(model);
}

// The n-th allocation of open, generate and close fails, for every n.
static void running_out_of_memory_is_a_status(void **state)
{
    (void)state;
    const ember_model_options options = {.runtime = {.threads = 1, .compute = EMBER_COMPUTE_F32}};
    for (size_t n = 1;; n++) {
        ember_model *model = NULL;
        struct heard h = {0};
        ember_request r[2] = {request("some text", &h), request("other", &h)};
        r[0].max_tokens = r[1].max_tokens = 2;
        r[0].stop = (const char *const[]){"zzz"};
        r[0].n_stop = 1;
        const size_t live = em_alloc_live();
        em_alloc_fail_at(n, 0);
        ember_status status = ember_model_open(folder, &options, &model);
        if (status == EMBER_OK) status = ember_generate(model, r, 2);
        em_alloc_fail_at(0, 0);
        const bool through = status == EMBER_OK && h.ends == 2;
        // What the tokenizer's file needs is needed only for text: its failure shows there.
        if (!through) assert_int_equal(status, EMBER_E_NOMEM);
        ember_model_close(model);
        em_buf_deinit(&h.text);
        assert_int_equal(em_alloc_live(), live);
        if (through) {
            assert_true(n > 100);
            break;
        }
    }
}

static int setup(void **state)
{
    (void)state;
    folder = small_folder("model");
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_says_what_it_is),
        cmocka_unit_test(requests_of_all_sorts_run_together_as_alone),
        cmocka_unit_test(a_special_token_can_be_a_stop_string),
        cmocka_unit_test(without_a_tokenizer_only_text_is_refused),
        cmocka_unit_test(a_bad_request_names_its_prompt),
        cmocka_unit_test(running_out_of_memory_is_a_status),
    };
    return cmocka_run_group_tests_name("infer", tests, setup, NULL);
}
