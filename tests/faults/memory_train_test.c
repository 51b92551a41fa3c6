// labels: unit slow
// timeout: 3600
// Memory that runs out while training: three steps with their states, scores, report and card end
// with one line, and what is on the disk then goes on to the end of a run that lacked nothing.
#include <ember/train.h>

#include "faults/fixture.h"
#include "formats/state.h"
#include "support/full.h"
#include "support/sweep.h"

static const char *dir, *text, *recipe, *out, *whole;
static unsigned threads = 1;

static ember_status train(const char *to, bool resume)
{
    ember_train_result result = {0};
    const ember_status status = ember_train(
        &(ember_train_options){
            .runtime = {.threads = threads}, .recipe = recipe, .out = to, .resume = resume},
        &result);
    if (status == EMBER_OK)
        assert_true(result.text && result.json);
    else
        assert_true(!result.text && !result.json);
    ember_train_result_deinit(&result);
    return status;
}

static void clear(void *context)
{
    (void)context;
    CHECK_OK(em_remove_tree(out));
}

static ember_status run(void *context)
{
    (void)context;
    return train(out, false);
}

static void same_file(const char *name)
{
    struct em_buf a = {0}, b = {0};
    CHECK_OK(em_read_file(test_path(whole, name), 0, &a));
    CHECK_OK(em_read_file(test_path(out, name), 0, &b));
    if (a.size != b.size || memcmp(a.data, b.data, a.size) != 0)
        fail_msg("%s is not that of a run that lacked nothing", name);
    em_buf_deinit(&a);
    em_buf_deinit(&b);
}

static void check_whole(void)
{
    static const char *const same[] = {"model.safetensors", "best/model.safetensors",
                                       "config.json",       "tokenizer.json",
                                       "logs/eval.jsonl",   "logs/eval.json"};
    static const char *const there[] = {"report.html", "report.json", "README.md",
                                        "logs/train.jsonl"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        same_file(same[i]);
    for (size_t i = 0; i < sizeof there / sizeof *there; i++)
        if (!em_path_exists(test_path(out, there[i]))) fail_msg("%s is missing", there[i]);
}

// No temporary and no half of a state stays; every 32nd time the run is gone on with, to its
// end.
static void goes_on(void *context, ember_status status)
{
    size_t *count = context;
    char *state = NULL;
    uint64_t step;
    if (status == EMBER_OK) {
        check_whole();
        return;
    }
    CHECK_OK(em_state_find(out, &state, &step));
    if (!state && em_path_exists(test_path(out, "training/LATEST")))
        fail_msg("there was a state, and it is not whole");
    em_free(state);
    if ((*count)++ % (em_test_full() ? 1 : 32) != 0) return;
    const ember_status again = train(out, true);
    if (again != EMBER_OK) fail_msg("after it: %s", ember_last_error());
    check_whole();
}

// Under a sanitizer a run takes ten times as long: fewer faults, evenly over the whole of it.
static struct sweep_amount amount(void)
{
#ifdef __SANITIZE_ADDRESS__
    if (!em_test_full()) return (struct sweep_amount){0, 29};
#endif
    return sweep_amount_default();
}

static void a_run_without_memory_can_be_gone_on_with(void **state)
{
    (void)state;
    size_t count = 0;
    sweep(&(struct sweep_scenario){.name = "train",
                                   .context = &count,
                                   .setup = clear,
                                   .call = run,
                                   .after = goes_on,
                                   // Mostly old states that are not looked for, and so stay.
                                   .spares = em_test_full() ? 1000 : 100},
          &sweep_memory, amount());
}

static long long disk; // bytes that going on with the whole run needs; 0: not known yet

static ember_status foresee(void *context)
{
    (void)context;
    ember_train_result result = {0};
    EM_TRY(ember_train(
        &(ember_train_options){
            .runtime = {.threads = threads}, .out = whole, .resume = true, .dry_run = true},
        &result));
    // Without the parser: it would be short of memory as well.
    static const char key[] = "\"disk_bytes\":";
    const char *at = strstr(result.json, key);
    assert_non_null(at);
    const long long bytes = strtoll(at + strlen(key), NULL, 10);
    if (disk == 0) disk = bytes;
    assert_true(disk > 0);
    if (bytes != disk) fail_msg("%lld bytes of disk are foreseen instead of %lld", bytes, disk);
    ember_train_result_deinit(&result);
    return EMBER_OK;
}

// Files that lack of memory hides are not taken for room that the run still needs.
static void a_forecast_of_the_disk_is_whole_or_fails(void **state)
{
    (void)state;
    sweep(&(struct sweep_scenario){.name = "forecast", .call = foresee, .spares = SIZE_MAX},
          &sweep_memory, amount());
}

static int start(void **state)
{
    char json[2048];
    if (fixture_quietly(state)) return -1;
    dir = test_directory();
    text = fixture_text(dir, "text.txt", 1, 900);
    out = test_path(dir, "out");
    whole = test_path(dir, "whole");
    snprintf(
        json, sizeof json,
        "{\"model\": %s, \"data\": {\"sources\": [\"%s\"], \"tokenizer\": \"bytes\","
        " \"held_out\": 0.1}, \"train\": {\"steps\": 3, \"batch\": 2, \"seq\": 8, \"lr\": 0.01,"
        " \"save_every\": 2, \"eval_every\": 2, \"eval_tokens\": 32,"
        " \"final_eval_tokens\": 32}}",
        FIXTURE_CONFIG, text);
    recipe = fixture_write(dir, "recipe.json", json);
    CHECK_OK(train(whole, false));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_without_memory_can_be_gone_on_with),
        cmocka_unit_test(a_forecast_of_the_disk_is_whole_or_fails),
    };
    return cmocka_run_group_tests_name("faults/memory_train", tests, start, NULL);
}
