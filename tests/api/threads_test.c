// Models do not know each other: each thread has its own, and gives what it gives alone.
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ember/infer.h>

#include "base/log.h"
#include "infer/small_model.h"

enum { THREADS = 2, ROUNDS = 3 };

static const char *folder;

struct job {
    const char *prompt;
    unsigned threads; // of the model's own
    char *text[ROUNDS];
    ember_status status;
};

static ember_status generate(struct job *job)
{
    ember_model *model;
    const ember_model_options options = {
        .runtime = {.threads = job->threads, .compute = EMBER_COMPUTE_F32}};
    EM_TRY(ember_model_open(folder, &options, &model));
    ember_status status = EMBER_OK;
    for (size_t r = 0; r < ROUNDS && status == EMBER_OK; r++) {
        em_note("round %zu of %s", r, job->prompt);
        status = ember_generate_text(model, job->prompt, 8 + r, &job->text[r]);
    }
    ember_model_close(model);
    return status;
}

static void *run(void *context)
{
    struct job *job = context;
    job->status = generate(job);
    return NULL;
}

static size_t lines;

static void count(void *context, ember_log_level level, const char *line)
{
    (void)context;
    (void)level;
    (void)line;
    lines++; // sinks are called one at a time: no lock
}

static void two_models_in_two_threads_give_what_each_gives_alone(void **state)
{
    (void)state;
    pthread_t thread[THREADS];
    struct job together[THREADS] = {{.prompt = "one prompt", .threads = 1},
                                    {.prompt = "and another", .threads = 2}};
    ember_log_to(count, NULL);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, run, &together[i]), 0);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    assert_true(lines >= THREADS * ROUNDS);
    for (size_t i = 0; i < THREADS; i++) {
        struct job alone = {.prompt = together[i].prompt, .threads = 1};
        CHECK_OK(together[i].status);
        CHECK_OK(generate(&alone));
        for (size_t r = 0; r < ROUNDS; r++) {
            assert_string_equal(together[i].text[r], alone.text[r]);
            ember_free(together[i].text[r]);
            ember_free(alone.text[r]);
        }
    }
    ember_log_to(NULL, NULL);
}

static void *fail_to_open(void *context)
{
    ember_model *model;
    const char *path = context;
    static char wrong[] = "another message";
    return ember_model_open(path, NULL, &model) == EMBER_E_IO &&
                   strncmp(ember_last_error(), path, strlen(path)) == 0
               ? NULL
               : wrong;
}

static void a_message_stays_with_its_thread(void **state)
{
    (void)state;
    pthread_t thread[THREADS];
    char path[THREADS][32] = {"/no/such/folder", "/nor/this/one"};
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, fail_to_open, path[i]), 0);
    for (size_t i = 0; i < THREADS; i++) {
        void *wrong;
        assert_int_equal(pthread_join(thread[i], &wrong), 0);
        assert_null(wrong);
    }
}

// Another process makes the folder: here both threads are the first to start the library.
static int setup(void **state)
{
    (void)state;
    test_directory();
    const pid_t child = fork();
    if (child == 0) {
        small_folder("model");
        _exit(0);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) return -1;
    folder = test_path(test_directory(), "model"); // the same name in both
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_models_in_two_threads_give_what_each_gives_alone),
        cmocka_unit_test(a_message_stays_with_its_thread),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
