// labels: unit slow
// timeout: 3600
// The same seed gives the same bytes: weights, training states, logs without their times, and
// sampled text, from run to run and at any number of threads.
#include <ember/forward.h>
#include <ember/infer.h>
#include <ember/train.h>

#include "faults/fixture.h"
#include "support/full.h"

static const char *dir, *text, *other;

// Wide enough that every kernel has work for several threads; a selection bias that moves, and two
// sources, so that sampling them counts too.
#define MODEL                                                                                      \
    "{\"model_type\": \"lfm2_moe\", \"vocab_size\": 259, \"hidden_size\": 64,"                     \
    " \"intermediate_size\": 96, \"moe_intermediate_size\": 40, \"num_hidden_layers\": 3,"         \
    " \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"num_dense_layers\": 1,"            \
    " \"num_experts\": 4, \"num_experts_per_tok\": 2, \"expert_bias_update_rate\": 0.01,"          \
    " \"router_aux_loss_coef\": 0.01,"                                                             \
    " \"layer_types\": [\"conv\", \"full_attention\", \"conv\"]}"

static const struct variant {
    const char *name, *train;
} variants[] = {
    {"f32", "\"dtype\": \"f32\""},
    {"bf16", "\"dtype\": \"bf16\""},
    {"accumulated", "\"dtype\": \"f32\", \"accumulate\": 3"},
    {"recomputed", "\"dtype\": \"bf16\", \"accumulate\": 2, \"recompute\": true"},
};
enum { VARIANTS = sizeof variants / sizeof *variants };

static void train(const struct variant *v, unsigned threads, const char *out)
{
    char json[2048];
    snprintf(json, sizeof json,
             "{\"model\": " MODEL ", \"data\": {\"sources\": [\"%s\", \"%s\"],"
             " \"tokenizer\": \"bytes\", \"held_out\": 0.1}, \"seed\": 5, \"train\": {\"steps\": 6,"
             " \"batch\": 5, \"seq\": 24, \"lr\": 0.01, \"save_every\": 3, \"eval_every\": 3,"
             " \"eval_tokens\": 128, \"final_eval_tokens\": 128, %s}}",
             text, other, v->train);
    ember_train_result result = {0};
    CHECK_OK(ember_train(&(ember_train_options){.runtime = {.threads = threads},
                                                .recipe = fixture_write(dir, "recipe.json", json),
                                                .out = out},
                         &result));
    ember_train_result_deinit(&result);
}

// A copy of the text without the values of these keys: times, and a log's size, which depends on
// their digits.
static char *without(const char *found, const char *const *keys, size_t n)
{
    struct em_buf b = {0};
    while (*found) {
        size_t cut = 0;
        for (size_t k = 0; k < n && !cut; k++) {
            const size_t length = strlen(keys[k]);
            if (strncmp(found, keys[k], length) == 0)
                cut = length + strcspn(found + length, ",}\n");
        }
        if (cut)
            found += cut;
        else
            CHECK_OK(em_buf_putc(&b, *found++));
    }
    return em_buf_take(&b);
}

static void same_file(const char *what, const char *a, const char *b, const char *name)
{
    static const char *const times[] = {
        "\"seconds\":", "\"tokens_per_s\":", "\"mfu\":", "\"train\":"};
    struct em_buf x = {0}, y = {0};
    CHECK_OK(em_read_file(test_path(a, name), 0, &x));
    CHECK_OK(em_read_file(test_path(b, name), 0, &y));
    bool same = x.size == y.size && memcmp(x.data, y.data, x.size) == 0;
    if (!same && strstr(name, ".json")) {
        char *p = without(x.data, times, 4), *q = without(y.data, times, 4);
        same = strcmp(p, q) == 0;
        em_free(p);
        em_free(q);
    }
    if (!same) fail_msg("%s: %s differs", what, name);
    em_buf_deinit(&x);
    em_buf_deinit(&y);
}

static void runs_are_the_same_to_the_byte(void **state)
{
    (void)state;
    static const char *const files[] = {"model.safetensors",
                                        "best/model.safetensors",
                                        "config.json",
                                        "recipe.json",
                                        "training/step-3/model.safetensors",
                                        "training/step-3/optimizer.safetensors",
                                        "training/step-3/state.json",
                                        "training/step-6/optimizer.safetensors",
                                        "training/step-6/state.json",
                                        "logs/train.jsonl",
                                        "logs/eval.jsonl",
                                        "logs/eval.json"};
    const size_t repeats = em_test_amount(1, 20); // of 1 and 2 threads; half as many of 3
    size_t runs = 0;
    for (size_t v = 0; v < VARIANTS; v++) {
        const char *first = test_path(dir, variants[v].name), *out = test_path(dir, "again");
        train(&variants[v], 1, first);
        for (unsigned threads = 1; threads <= 3; threads++)
            for (size_t i = threads == 1; i < (threads == 3 ? (repeats + 1) / 2 : repeats); i++) {
                char what[64];
                snprintf(what, sizeof what, "%s, %u threads, run %zu", variants[v].name, threads,
                         i);
                train(&variants[v], threads, out);
                for (size_t f = 0; f < sizeof files / sizeof *files; f++)
                    same_file(what, first, out, files[f]);
                CHECK_OK(em_remove_tree(out));
                runs++;
            }
    }
    print_message("%zu runs\n", runs);
}

struct answer {
    char text[1024];
    size_t n;
};

static ember_status keep(void *context, const char *piece, size_t n)
{
    struct answer *a = context;
    assert_true(a->n + n < sizeof a->text);
    memcpy(a->text + a->n, piece, n);
    a->n += n;
    return EMBER_OK;
}

enum { PROMPTS = 3 };

static void generate(unsigned threads, bool together, ember_compute compute,
                     struct answer answer[PROMPTS])
{
    static const char *const prompt[PROMPTS] = {"the state", "a value and", "it"};
    const ember_sampling sampling = {
        .temperature = 1.2, .top_k = 60, .top_p = 0.98, .min_p = 0.001, .repeat_penalty = 1.1};
    const ember_model_options options = {.runtime = {.threads = threads, .compute = compute}};
    ember_model *m;
    ember_request request[PROMPTS];
    memset(answer, 0, PROMPTS * sizeof *answer);
    CHECK_OK(ember_model_open(test_path(dir, "f32"), &options, &m));
    for (size_t i = 0; i < PROMPTS; i++)
        request[i] = (ember_request){.text = prompt[i],
                                     .n_text = strlen(prompt[i]),
                                     .max_tokens = 24,
                                     .sampling = &sampling,
                                     .seed = 9 + i,
                                     .on_text = keep,
                                     .context = &answer[i]};
    if (together)
        CHECK_OK(ember_generate(m, request, PROMPTS));
    else
        for (size_t i = 0; i < PROMPTS; i++)
            CHECK_OK(ember_generate(m, &request[i], 1));
    ember_model_close(m);
}

// Alone or in company, too.
static void sampled_text_is_the_same(void **state)
{
    (void)state;
    static const ember_compute compute[] = {EMBER_COMPUTE_F32, EMBER_COMPUTE_BF16};
    const size_t repeats = em_test_amount(1, 20);
    for (size_t c = 0; c < 2; c++) {
        struct answer first[PROMPTS], again[PROMPTS];
        generate(1, false, compute[c], first);
        assert_true(first[0].n > 0 && memcmp(first[0].text, first[1].text, 24) != 0);
        for (unsigned threads = 1; threads <= 3; threads++)
            for (size_t i = 0; i < repeats; i++) {
                generate(threads, (threads + i) % 2, compute[c], again);
                for (size_t p = 0; p < PROMPTS; p++)
                    assert_string_equal(again[p].text, first[p].text);
            }
    }
}

static void answers_to_files_and_scores_are_the_same(void **state)
{
    (void)state;
    int32_t tokens[3 * 40];
    const size_t shape[] = {3, 40};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++)
        tokens[i] = (int32_t)(i * 31 % 259);
    const char *in = test_path(dir, "in.safetensors"), *model = test_path(dir, "f32");
    CHECK_OK(em_safetensors_write(
        in, &(struct em_st_write){
                .tensors = &(struct em_st_output){"input_ids", shape, tokens, 2, EM_ST_I32},
                .count = 1}));
    double nats = 0;
    for (unsigned threads = 1; threads <= 3; threads++)
        for (size_t i = 0; i < em_test_amount(1, 20); i++) {
            const bool first = threads == 1 && i == 0;
            const char *out = test_path(dir, first ? "first" : "next");
            const ember_forward_options options = {.runtime = {.threads = threads},
                                                   .gradients = true};
            CHECK_OK(ember_forward_file(model, in, out, &options));
            if (!first) {
                struct em_buf a = {0}, b = {0};
                CHECK_OK(em_read_file(test_path(dir, "first"), 0, &a));
                CHECK_OK(em_read_file(out, 0, &b));
                assert_int_equal(a.size, b.size);
                assert_memory_equal(a.data, b.data, a.size);
                em_buf_deinit(&a);
                em_buf_deinit(&b);
            }
            ember_model *m;
            ember_evaluation score;
            const ember_model_options how = {.runtime = {.threads = threads}};
            CHECK_OK(ember_model_open(model, &how, &m));
            CHECK_OK(ember_eval(m, &text, 1, &(ember_eval_options){.context = 50}, &score));
            if (first) nats = score.nats;
            assert_memory_equal(&score.nats, &nats, sizeof nats);
            ember_model_close(m);
        }
}

static int start(void **state)
{
    if (fixture_quietly(state)) return -1;
    dir = test_directory();
    text = fixture_text(dir, "text.txt", 1, 3000);
    other = fixture_text(dir, "other.txt", 2, 2000);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_are_the_same_to_the_byte),
        cmocka_unit_test(sampled_text_is_the_same),
        cmocka_unit_test(answers_to_files_and_scores_are_the_same),
    };
    return cmocka_run_group_tests_name("faults/determinism", tests, start, NULL);
}
