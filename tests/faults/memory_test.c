// labels: unit slow
// timeout: 1800
// Memory that runs out, at every allocation in turn, the JSON library's included: what was asked
// for ends with one line, gives back all that it took, leaves the files as they were, and can be
// asked for again.
#include <ember/describe.h>
#include <ember/forward.h>
#include <ember/infer.h>
#include <ember/tokenizer.h>

#include "faults/fixture.h"
#include "formats/safetensors.h"
#include "support/full.h"
#include "support/sweep.h"

static const char *folder, *model, *text, *ids, *out;
static const char old[] = "what was there before";

static const ember_model_options one = {.runtime = {.threads = 1}};

static ember_status open_model(void *context)
{
    ember_model *const before = (ember_model *)(uintptr_t)&before, *m = before;
    (void)context;
    const ember_status status = ember_model_open(model, &one, &m);
    if (status == EMBER_OK)
        ember_model_close(m);
    else
        assert_ptr_equal(m, before);
    return status;
}

static void a_model_is_opened_or_not(void **state)
{
    (void)state;
    sweep(&(struct sweep_scenario){.name = "open", .call = open_model}, &sweep_memory,
          sweep_amount_default());
}

// A model that is open goes on after a call that failed, so it stays open for all of them.
struct session {
    ember_model *m;
    char answer[256], first[256];
    size_t n;
};

static ember_status keep_text(void *context, const char *piece, size_t n)
{
    struct session *s = context;
    assert_true(s->n + n < sizeof s->answer);
    memcpy(s->answer + s->n, piece, n);
    s->n += n;
    return EMBER_OK;
}

static void open_session(void *context)
{
    struct session *s = context;
    s->n = 0;
    memset(s->answer, 0, sizeof s->answer);
    CHECK_OK(ember_model_open(model, &one, &s->m));
}

static ember_status generate(struct session *s)
{
    static const char *const stop[] = {"zzzz", "<|im_end|>"};
    return ember_generate(s->m,
                          &(ember_request){.text = "the state of",
                                           .n_text = 12,
                                           .max_tokens = 6,
                                           .seed = 3,
                                           .stop = stop,
                                           .n_stop = 2,
                                           .on_text = keep_text,
                                           .context = s},
                          1);
}

static ember_status first_generate(void *context)
{
    return generate(context);
}

// The same model, the same question: the answer of before.
static void ask_again(void *context, ember_status status)
{
    struct session *s = context;
    if (status != EMBER_OK) {
        s->n = 0;
        memset(s->answer, 0, sizeof s->answer);
        CHECK_OK(generate(s));
    }
    if (!*s->first) memcpy(s->first, s->answer, sizeof s->first);
    assert_memory_equal(s->answer, s->first, sizeof s->first);
    ember_model_close(s->m);
    s->m = NULL;
}

static void a_model_answers_after_it_could_not(void **state)
{
    (void)state;
    struct session s = {0};
    sweep(&(struct sweep_scenario){.name = "generate",
                                   .context = &s,
                                   .setup = open_session,
                                   .call = first_generate,
                                   .after = ask_again},
          &sweep_memory, sweep_amount_default());
}

static ember_status evaluate(void *context)
{
    const struct session *s = context;
    ember_evaluation score;
    return ember_eval(s->m, &text, 1, &(ember_eval_options){.context = 32}, &score);
}

static void close_session(void *context, ember_status status)
{
    struct session *s = context;
    (void)status;
    ember_model_close(s->m);
}

static void a_text_is_scored_or_not(void **state)
{
    (void)state;
    struct session s = {0};
    sweep(&(struct sweep_scenario){.name = "eval",
                                   .context = &s,
                                   .setup = open_session,
                                   .call = evaluate,
                                   .after = close_session},
          &sweep_memory, sweep_amount_default());
}

static void put_old(void *context)
{
    (void)context;
    CHECK_OK(em_write_file(out, old, strlen(old)));
}

static void check_old(void *context, ember_status status)
{
    (void)context;
    if (status != EMBER_OK) fixture_check_file(out, old);
}

static ember_status forward(void *context)
{
    return ember_forward_file(model, ids, out, context);
}

static void answers_to_files_are_whole_or_old(void **state)
{
    (void)state;
    ember_forward_options gradients = {.runtime = {.threads = 1}, .gradients = true},
                          pieces = {.runtime = {.threads = 1}, .chunk = 3};
    sweep(&(struct sweep_scenario){.name = "forward --grad",
                                   .context = &gradients,
                                   .setup = put_old,
                                   .call = forward,
                                   .after = check_old},
          &sweep_memory, sweep_amount_default());
    sweep(&(struct sweep_scenario){.name = "forward --chunk",
                                   .context = &pieces,
                                   .setup = put_old,
                                   .call = forward,
                                   .after = check_old},
          &sweep_memory, sweep_amount_default());
}

static ember_status train_tokenizer(void *context)
{
    ember_tokenizer *t;
    const ember_tokenizer_training how = {.vocab = 300, .threads = *(const unsigned *)context};
    EMBER_TRY(ember_tokenizer_train(&text, 1, &how, &t, NULL));
    const ember_status status = ember_tokenizer_save(t, folder);
    ember_tokenizer_close(t);
    return status;
}

static void put_old_tokenizer(void *context)
{
    (void)context;
    fixture_write(folder, "tokenizer.json", old);
}

static bool is_old(const char *path)
{
    char found[sizeof old] = "";
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    const size_t n = fread(found, 1, sizeof found, f);
    fclose(f);
    return n == strlen(old) && memcmp(found, old, n) == 0;
}

// The old file or the new one, whole: that has been replaced before tokenizer_config.json failed.
static void check_tokenizer(void *context, ember_status status)
{
    (void)context;
    if (status != EMBER_OK && is_old(test_path(folder, "tokenizer.json"))) return;
    ember_tokenizer *t;
    CHECK_OK(ember_tokenizer_open(test_path(folder, "tokenizer.json"), &t));
    assert_true(ember_tokenizer_size(t) > 259);
    ember_tokenizer_close(t);
}

static void a_tokenizer_is_trained_or_not(void **state)
{
    (void)state;
    unsigned threads = 1;
    struct sweep_scenario train = {.name = "tokenizer train",
                                   .context = &threads,
                                   .setup = put_old_tokenizer,
                                   .call = train_tokenizer,
                                   .after = check_tokenizer};
    sweep(&train, &sweep_memory, sweep_amount_default());
    threads = 3;
    train.name = "tokenizer train by threads";
    sweep(&train, &sweep_memory, (struct sweep_amount){0, em_test_full() ? 1 : 9});
    sweep(&train, &sweep_threads, sweep_amount_default());
}

static ember_status inspect_model(void *context)
{
    char *answer;
    const ember_status status = ember_model_inspect(model, *(const bool *)context, &answer);
    if (status == EMBER_OK) ember_free(answer);
    return status;
}

static ember_status plan_model(void *context)
{
    char *answer;
    const ember_plan_options options = {
        .runtime = {.threads = 1}, .batch = 1, .seq = 16, .data = &text, .n_data = 1};
    const ember_status status =
        ember_plan_describe(model, &options, *(const bool *)context, &answer);
    if (status == EMBER_OK) ember_free(answer);
    return status;
}

static void descriptions_are_whole_or_not(void **state)
{
    (void)state;
    bool json[] = {false, true};
    for (size_t i = 0; i < 2; i++) {
        sweep(
            &(struct sweep_scenario){.name = "inspect", .context = &json[i], .call = inspect_model},
            &sweep_memory, sweep_amount_default());
        sweep(&(struct sweep_scenario){.name = "plan", .context = &json[i], .call = plan_model},
              &sweep_memory, sweep_amount_default());
    }
}

// ---- threads that cannot be started, and memory that threads lack ----

static ember_status open_with_threads(void *context)
{
    ember_model *m;
    const ember_model_options options = {.runtime = {.threads = *(const unsigned *)context}};
    EMBER_TRY(ember_model_open(model, &options, &m));
    ember_evaluation score;
    const ember_status status =
        ember_eval(m, &text, 1, &(ember_eval_options){.context = 32}, &score);
    ember_model_close(m);
    return status;
}

static void threads_may_not_start(void **state)
{
    (void)state;
    unsigned threads = 5;
    const struct sweep_figures f = sweep(
        &(struct sweep_scenario){.name = "threads", .context = &threads, .call = open_with_threads},
        &sweep_threads, sweep_amount_default());
    assert_int_equal(f.failures, 4); // the caller is the fifth
}

static void workers_may_lack_memory(void **state)
{
    (void)state;
    unsigned threads = 3;
    sweep(&(struct sweep_scenario){.name = "eval by threads",
                                   .context = &threads,
                                   .call = open_with_threads},
          &sweep_memory, (struct sweep_amount){0, em_test_full() ? 1 : 5});
}

static int start(void **state)
{
    if (fixture_quietly(state)) return -1;
    folder = test_directory();
    model = fixture_folder(folder, "model");
    text = fixture_text(folder, "text.txt", 1, 600);
    out = test_path(folder, "out.safetensors");
    ids = test_path(folder, "in.safetensors");
    const int32_t tokens[] = {4, 9, 200, 33, 7, 1, 90, 90, 3, 258};
    const size_t shape[] = {2, 5};
    const struct em_st_output tensor = {
        .name = "input_ids", .shape = shape, .rank = 2, .dtype = EM_ST_I32, .data = tokens};
    CHECK_OK(em_safetensors_write(ids, &(struct em_st_write){.tensors = &tensor, .count = 1}));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_is_opened_or_not),
        cmocka_unit_test(a_model_answers_after_it_could_not),
        cmocka_unit_test(a_text_is_scored_or_not),
        cmocka_unit_test(answers_to_files_are_whole_or_old),
        cmocka_unit_test(a_tokenizer_is_trained_or_not),
        cmocka_unit_test(descriptions_are_whole_or_not),
        cmocka_unit_test(threads_may_not_start),
        cmocka_unit_test(workers_may_lack_memory),
    };
    return cmocka_run_group_tests_name("faults/memory", tests, start, NULL);
}
