// The library inside somebody else's program: what it takes, says and leaves alone.
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ember/infer.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/log.h"
#include "infer/small_model.h"

static const char *folder;

static atomic_size_t held, taken, left; // blocks of theirs; how many they still give

static void *their_alloc(void *context, size_t bytes)
{
    assert_ptr_equal(context, &held);
    if (!atomic_load(&left)) return NULL;
    atomic_fetch_sub(&left, 1);
    char *p = malloc(bytes + 8);
    if (!p) return NULL;
    held++;
    taken++;
    return p + 8; // an alignment that nobody would choose
}

static void their_free(void *context, void *p)
{
    assert_ptr_equal(context, &held);
    assert_non_null(p);
    held--;
    free((char *)p - 8);
}

static const ember_allocator theirs = {their_alloc, their_free, &held, false};

static void *their_json_alloc(size_t bytes)
{
    held++;
    taken++;
    return malloc(bytes);
}

static void their_json_free(void *p)
{
    if (p) held--;
    free(p);
}

static ember_status generate_something(void)
{
    ember_model *model;
    const ember_model_options options = {.runtime = {.threads = 2, .compute = EMBER_COMPUTE_F32}};
    EM_TRY(ember_model_open(folder, &options, &model));
    const ember_request request = {.text = "abc", .n_text = 3, .max_tokens = 4};
    const ember_status status = ember_generate(model, &request, 1);
    ember_model_close(model);
    return status;
}

static void the_version_is_that_of_the_headers(void **state)
{
    (void)state;
    char text[64];
    snprintf(text, sizeof text, "%d.%d.%d", EMBER_VERSION_MAJOR, EMBER_VERSION_MINOR,
             EMBER_VERSION_PATCH);
    assert_string_equal(text, EMBER_VERSION);
    assert_string_equal(ember_version(), EMBER_VERSION);
    assert_int_equal(ember_abi(), EMBER_ABI);
}

// Ember has registered nothing yet, so it holds nothing yet.
static void memory_comes_from_the_embedder(void **state)
{
    (void)state;
    const ember_allocator half = {.alloc = their_alloc};
    assert_int_equal(em_alloc_live(), 0);
    CHECK_FAILS(ember_use_allocator(&half), EMBER_E_USAGE, "both alloc and free");
    CHECK_OK(ember_use_allocator(&theirs));
    left = 1000000;
    CHECK_OK(generate_something());
    assert_true(taken > 100);
    const size_t kept = held; // the registry
    assert_true(kept > 0);
    CHECK_OK(generate_something());
    assert_int_equal(held, kept);
    CHECK_FAILS(ember_use_allocator(NULL), EMBER_E_STATE, "before Ember's first call");
}

static void when_the_embedder_has_no_more_the_call_fails_whole(void **state)
{
    (void)state;
    const size_t kept = held;
    ember_status status = EMBER_E_NOMEM;
    for (size_t give = 0; status != EMBER_OK; give += 1 + give / 4) {
        assert_true(give < 100000);
        left = give;
        status = generate_something();
        if (status != EMBER_OK) {
            assert_int_equal(status, EMBER_E_NOMEM);
            assert_non_null(strstr(ember_last_error(), "memory"));
        }
        assert_int_equal(held, kept);
    }
    left = 1000000;
}

// A host that uses jansson too keeps its own allocator, and its values are its own.
static void the_allocator_of_json_is_the_hosts(void **state)
{
    (void)state;
    json_malloc_t alloc;
    json_free_t release;
    json_set_alloc_funcs(their_json_alloc, their_json_free);
    const size_t before = held;
    json_t *value = json_pack("{s:[i,i]}", "host", 1, 2);
    CHECK_OK(generate_something());
    json_get_alloc_funcs(&alloc, &release);
    assert_ptr_equal(alloc, their_json_alloc);
    assert_ptr_equal(release, their_json_free);
    json_decref(value);
    assert_int_equal(held, before);
    em_json_use_seam();
}

struct heard {
    size_t notes, warnings;
    char last[256];
};

static void hear(void *context, ember_log_level level, const char *line)
{
    struct heard *h = context;
    if (level == EMBER_LOG_WARN)
        h->warnings++;
    else
        h->notes++;
    assert_null(strpbrk(line, "\n\r\033"));
    snprintf(h->last, sizeof h->last, "%s", line);
}

static void lines_go_to_the_embedders_sink(void **state)
{
    (void)state;
    struct heard h = {0};
    ember_log_to(hear, &h);
    em_note("a note\n");
    em_warn("a warning");
    assert_string_equal(h.last, "warning: a warning");
    ember_quiet(true);
    em_note("not wanted");
    ember_quiet(false);
    ember_log_to(NULL, NULL);
    assert_int_equal(h.notes, 1);
    assert_int_equal(h.warnings, 1);
}

// Another process makes the model, so that this one begins with nothing.
static const char *folder_made_elsewhere(void)
{
    test_directory();
    const pid_t child = fork();
    if (child == 0) {
        small_folder("model");
        _exit(0);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) abort();
    return test_path(test_directory(), "model"); // the same name in both
}

int main(void)
{
    folder = folder_made_elsewhere();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_version_is_that_of_the_headers),
        cmocka_unit_test(memory_comes_from_the_embedder),
        cmocka_unit_test(when_the_embedder_has_no_more_the_call_fails_whole),
        cmocka_unit_test(the_allocator_of_json_is_the_hosts),
        cmocka_unit_test(lines_go_to_the_embedders_sink),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
