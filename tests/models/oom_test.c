// Memory that runs out, at every allocation in turn: opening a model, building one from its config,
// and a forward pass with gradients fail with EMBER_E_NOMEM, give back all that they took, and
// leave what the caller has as it was.
#include <ember/forward.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "models/model.h"
#include "support/check.h"

#define MODELS EMBER_TESTS_DIR "/golden/models"

struct job {
    const char *name, *folder, *out;
    json_t *config;
};

static ember_status open_model(const struct job *job)
{
    struct em_model *const before = (struct em_model *)(uintptr_t)&before, *m = before;
    const ember_status status = em_model_open(job->folder, &m);
    if (status != EMBER_OK)
        assert_ptr_equal(m, before);
    else
        em_model_close(m);
    return status;
}

static ember_status create_model(const struct job *job)
{
    struct em_model *const before = (struct em_model *)(uintptr_t)&before, *m = before;
    const ember_status status = em_model_create(job->config, "config.json", NULL, &m);
    if (status != EMBER_OK)
        assert_ptr_equal(m, before);
    else
        em_model_close(m);
    return status;
}

static ember_status save_config(const struct job *job)
{
    struct em_model *m;
    const ember_status status = em_model_create(job->config, "config.json", NULL, &m);
    if (status != EMBER_OK) return status;
    const ember_status saved = em_model_save_config(m, job->out, EM_ST_F32);
    em_model_close(m);
    return saved;
}

static const char old_answer[] = "what was there before";

static ember_status forward(const struct job *job)
{
    char in[600];
    snprintf(in, sizeof in, "%s/in.safetensors", job->folder);
    // One thread: a pool that gets no memory for its threads could do with fewer.
    const ember_forward_options options = {.runtime = {.backend = EMBER_BACKEND_CPU, .threads = 1},
                                           .gradients = true};
    const ember_status status = ember_forward_file(job->folder, in, job->out, &options);
    if (status != EMBER_OK) {
        // Looking at the file must not be what fails.
        FILE *f = fopen(job->out, "r");
        char text[64] = "";
        assert_non_null(f);
        assert_int_equal(fread(text, 1, sizeof text, f), strlen(old_answer));
        fclose(f);
        assert_string_equal(text, old_answer);
    }
    return status;
}

// Runs the job with its n-th allocation failing, for n = first, first + step, ... until it passes.
static void run_out(const char *what, ember_status (*run)(const struct job *),
                    const struct job *job, size_t step)
{
    em_alloc_fail_at(0, 0);
    CHECK_OK(run(job)); // what is made once for the whole process is made here
    if (run == forward) CHECK_OK(em_write_file(job->out, old_answer, strlen(old_answer)));
    const size_t live = em_alloc_live();
    size_t failures = 0;
    for (size_t n = 1;; n += step) {
        em_alloc_fail_at(n, 0);
        const size_t start = em_alloc_count();
        const ember_status status = run(job);
        const bool reached = em_alloc_count() - start >= n;
        em_alloc_fail_at(0, 0);
        if (!reached) {
            CHECK_OK(status);
            break;
        }
        if (status != EMBER_E_NOMEM)
            fail_msg("%s %s: allocation %zu fails, and the status is %d (%s)", what, job->name, n,
                     (int)status, status == EMBER_OK ? "" : ember_last_error());
        if (!strstr(ember_last_error(), "memory"))
            fail_msg("%s %s: allocation %zu fails, and the message is \"%s\"", what, job->name, n,
                     ember_last_error());
        if (em_alloc_live() != live)
            fail_msg("%s %s: allocation %zu fails, and %td bytes are lost", what, job->name, n,
                     (ptrdiff_t)(em_alloc_live() - live));
        failures++;
    }
    assert_true(failures > 10);
}

static void over_models(const char *what, ember_status (*run)(const struct job *), size_t step)
{
    char **names, folder[512], path[600];
    size_t count;
    CHECK_OK(ember_start());
    CHECK_OK(em_list_directory(MODELS, &names, &count));
    assert_true(count >= 16);
    for (size_t i = 0; i < count; i++) {
        snprintf(folder, sizeof folder, MODELS "/%s", names[i]);
        snprintf(path, sizeof path, "%s/config.json", folder);
        struct job job = {.name = names[i], .folder = folder, .out = test_directory()};
        CHECK_OK(em_json_read(path, 0, 0, &job.config));
        // A wired network's layers come from its tensors: the config alone makes none.
        if (!json_is_true(json_object_get(job.config, "wired"))) run_out(what, run, &job, step);
        json_decref(job.config);
    }
    em_names_free(names, count);
}

static void a_model_that_cannot_be_opened_leaves_nothing(void **state)
{
    (void)state;
    static const char *const names[] = {"lfm2-sharded", "lfm2_moe"};
    CHECK_OK(ember_start());
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char folder[512];
        snprintf(folder, sizeof folder, MODELS "/%s", names[i]);
        run_out("open", open_model, &(struct job){.name = names[i], .folder = folder}, 1);
    }
}

static void a_model_that_cannot_be_built_leaves_nothing(void **state)
{
    (void)state;
    over_models("create", create_model, 3);
}

static void a_config_that_cannot_be_written_leaves_nothing(void **state)
{
    (void)state;
    over_models("save_config", save_config, 7);
}

static void a_forward_pass_without_memory_leaves_the_answer_as_it_was(void **state)
{
    (void)state;
    CHECK_OK(ember_start());
    const struct job job = {.name = "lfm2_moe",
                            .folder = MODELS "/lfm2_moe",
                            .out = test_path(test_directory(), "out.safetensors")};
    run_out("forward", forward, &job, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_that_cannot_be_opened_leaves_nothing),
        cmocka_unit_test(a_model_that_cannot_be_built_leaves_nothing),
        cmocka_unit_test(a_config_that_cannot_be_written_leaves_nothing),
        cmocka_unit_test(a_forward_pass_without_memory_leaves_the_answer_as_it_was),
    };
    return cmocka_run_group_tests_name("models/oom", tests, NULL, NULL);
}
