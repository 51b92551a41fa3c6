// A small run on text that fills every file a run writes, and what must be true of its folder after
// any fault: states whole, models of one step, logs as the state says, and that it goes on to the
// end of a run that nobody disturbed.
#ifndef EMBER_TESTS_TRAIN_RUN_CHECK_H
#define EMBER_TESTS_TRAIN_RUN_CHECK_H

#include "formats/hash.h"
#include "formats/manifest.h"
#include "formats/state.h"
#include "support/fault_sweep.h"
#include "support/full.h"
#include "train/run.h"

enum { CHECK_STEPS = 6, CHECK_MODELS = 16 };

struct run_check {
    const char *dir, *recipe, *whole;
    char *losses, *evaluations;                       // of the undisturbed run
    uint64_t model[CHECK_MODELS], best[CHECK_MODELS]; // hashes of the weights it ever put in place
    size_t models, bests;
};
static struct run_check check;
static struct em_io check_quick, check_recording; // no fsync; and with a record of weights
static char check_notes[8192];

static inline int check_no_fsync(int fd)
{
    (void)fd;
    return 0;
}

static inline uint64_t check_hash(const char *path)
{
    struct em_file_hash hash;
    CHECK_OK(em_hash_file(path, false, &hash));
    return hash.xxh3;
}

static inline bool check_ends(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static inline int check_record(const char *from, const char *to)
{
    if (check_ends(to, "/best/model.safetensors")) {
        assert_true(check.bests < CHECK_MODELS);
        check.best[check.bests++] = check_hash(from);
    } else if (check_ends(to, "/model.safetensors") && !strstr(to, "/training/")) {
        assert_true(check.models < CHECK_MODELS);
        check.model[check.models++] = check_hash(from);
    }
    return em_io_system()->rename(from, to);
}

static inline void check_listen(void *context, enum em_log_level level, const char *line)
{
    (void)context, (void)level;
    const size_t n = strlen(check_notes);
    snprintf(check_notes + n, sizeof check_notes - n, "%s\n", line);
}

static inline ember_status check_run(const char *out, bool resume)
{
    ember_train_result result = {0};
    *check_notes = '\0';
    const ember_status status = run_train(
        &(struct run){.recipe = check.recipe, .out = out, .resume = resume, .threads = 1}, &result);
    ember_train_result_deinit(&result);
    return status;
}

static inline int check_start(void **state)
{
    (void)state;
    check.dir = test_directory();
    check_quick = check_recording = *em_io_system();
    check_quick.fsync = check_recording.fsync = check_no_fsync;
    check_recording.rename = check_record;
    em_log_to(check_listen, NULL);
    if (ember_start() != EMBER_OK) return -1;
    const char *text = run_text(check.dir, "text.txt", 2, 3000);
    char recipe[2048];
    snprintf(recipe, sizeof recipe,
             "{\"model\": {\"model_type\": \"lfm2_moe\", \"vocab_size\": 259, \"hidden_size\": 16, "
             "\"num_hidden_layers\": 2, \"layer_types\": [\"conv\", \"full_attention\"], "
             "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"num_dense_layers\": 1, "
             "\"intermediate_size\": 24, \"num_experts\": 4, \"num_experts_per_tok\": 2, "
             "\"moe_intermediate_size\": 16, \"max_position_embeddings\": 64, "
             "\"expert_bias_update_rate\": 0.001}, "
             "\"data\": {\"sources\": [\"%s\"], \"tokenizer\": \"bytes\"}, "
             "\"train\": {\"steps\": %d, \"batch\": 2, \"seq\": 16, \"lr\": 0.01, "
             "\"save_every\": 2, \"eval_every\": 3, \"eval_tokens\": 64, "
             "\"final_eval_tokens\": 64}}",
             text, CHECK_STEPS);
    check.recipe = run_write(check.dir, "recipe.json", recipe);
    check.whole = test_path(check.dir, "whole");
    em_io_use(&check_recording);
    const ember_status status = check_run(check.whole, false);
    em_io_use(&check_quick);
    CHECK_OK(status);
    assert_true(check.models >= 3 && check.bests >= 1);
    check.losses = run_losses(check.whole);
    check.evaluations = run_read(check.whole, "logs/eval.jsonl", NULL);
    assert_int_equal(run_count(check.losses), CHECK_STEPS);
    return 0;
}

static inline int check_stop(void **state)
{
    (void)state;
    em_free(check.losses);
    em_free(check.evaluations);
    return 0;
}

// A model file is absent or one that the undisturbed run had there.
static inline void check_model(const char *out, const char *name, const uint64_t *known, size_t n)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", out, name);
    if (!em_path_exists(path)) return;
    const uint64_t hash = check_hash(path);
    for (size_t i = 0; i < n; i++)
        if (known[i] == hash) return;
    fail_msg("%s is of no step of the run", path);
}

// A file of JSON is absent or whole.
static inline void check_json(const char *out, const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", out, name);
    if (em_path_exists(path)) json_decref(run_json(out, name));
}

static inline void check_end(const char *out, const char *name, const char *end)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", out, name);
    if (!em_path_exists(path)) return;
    char *text = run_read(out, name, NULL);
    if (!check_ends(text, end)) fail_msg("%s ends in its middle", path);
    em_free(text);
}

// A log has at least what the state knows, and that is the undisturbed run's.
static inline void check_logs(const char *out, const char *folder, uint64_t step)
{
    json_t *state = run_json(folder, "state.json"), *logs = json_object_get(state, "logs");
    const size_t train = (size_t)json_integer_value(json_object_get(logs, "train")),
                 eval = (size_t)json_integer_value(json_object_get(logs, "eval"));
    size_t n;
    char *text = run_read(out, "logs/train.jsonl", &n);
    assert_true(n >= train);
    text[train] = '\0';
    run_keep_losses(text);
    assert_int_equal(run_count(text), step);
    if (strncmp(text, check.losses, strlen(text)) != 0) fail_msg("the log has other losses");
    em_free(text);
    text = run_read(out, "logs/eval.jsonl", &n);
    assert_true(n >= eval);
    if (strncmp(text, check.evaluations, eval) != 0) fail_msg("the log has other scores");
    em_free(text);
    json_decref(state);
}

// What must be true of a run's folder at any time; returns the step of its newest whole state.
static inline uint64_t check_folder(const char *out)
{
    static const char *const json[] = {"config.json",    "best/config.json",       "recipe.json",
                                       "tokenizer.json", "generation_config.json", "report.json",
                                       "logs/eval.json", "best/tokenizer.json"};
    char *folder;
    uint64_t step;
    CHECK_OK(em_state_find(out, &folder, &step));
    if (folder) {
        assert_true(step > 0 && step <= CHECK_STEPS);
        check_logs(out, folder, step);
    }
    em_free(folder);
    check_model(out, "model.safetensors", check.model, check.models);
    check_model(out, "best/model.safetensors", check.best, check.bests);
    for (size_t i = 0; i < sizeof json / sizeof *json; i++)
        check_json(out, json[i]);
    check_end(out, "report.html", "</html>\n");
    check_end(out, "README.md", "```\n");
    return folder ? step : 0;
}

// A run that says it is done is the undisturbed one.
static inline void check_done(const char *out)
{
    run_same_losses(check.whole, out);
    run_same_file(check.whole, out, "model.safetensors");
    run_same_file(check.whole, out, "best/model.safetensors");
    run_same_file(check.whole, out, "logs/eval.jsonl");
    run_same_file(check.whole, out, "logs/eval.json");
    run_same_file(check.whole, out, "training/LATEST");
    check_end(out, "report.html", "</html>\n");
    check_end(out, "README.md", "```\n");
    assert_true(em_path_exists(test_path(out, "README.md")));
}

// The run goes on from its newest state to the same end, and cleans up.
static inline void check_goes_on(const char *out, uint64_t step)
{
    em_io_use(&check_quick);
    const ember_status status = check_run(out, true);
    if (status != EMBER_OK) fail_msg("the run does not go on: %s", ember_last_error());
    if (step && strstr(check_notes, "from the beginning"))
        fail_msg("the state of step %llu was forgotten", (unsigned long long)step);
    check_done(out);
    char *list = fault_list_tree(out);
    const char *left = strstr(list, ".tmp");
    if (left) fail_msg("a temporary was left behind: %.60s", left > list + 40 ? left - 40 : list);
    free(list);
}

#endif
