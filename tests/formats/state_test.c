#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/log.h"
#include "formats/manifest.h"
#include "formats/state.h"
#include "support/check.h"

static char notes[8192];

static void keep_note(void *context, enum em_log_level level, const char *line)
{
    (void)context, (void)level;
    const size_t at = strlen(notes);
    snprintf(notes + at, sizeof notes - at, "%s\n", line);
}

static int quiet(void **state)
{
    (void)state;
    *notes = '\0';
    em_log_to(keep_note, NULL);
    return 0;
}

static void put(const char *folder, const char *name, const char *text)
{
    CHECK_OK(em_write_file(test_path(folder, name), text, strlen(text)));
}

static ember_status write_state(struct em_state_writer *w, uint64_t step)
{
    char text[64];
    snprintf(text, sizeof text, "weights of step %llu", (unsigned long long)step);
    char *weights = em_state_file(w, "weights"), *folder = em_state_file(w, "data"),
         *position = em_state_file(w, "data/position");
    ember_status status = weights && folder && position ? EMBER_OK : EMBER_E_NOMEM;
    if (status == EMBER_OK) status = em_write_file(weights, text, strlen(text));
    if (status == EMBER_OK) status = em_make_directories(folder);
    if (status == EMBER_OK) status = em_write_file(position, text + 11, strlen(text + 11));
    em_free(weights);
    em_free(folder);
    em_free(position);
    return status;
}

static ember_status save(const char *dir, uint64_t step)
{
    struct em_state_writer w;
    EM_TRY(em_state_begin(dir, step, &w));
    const ember_status status = write_state(&w, step);
    if (status == EMBER_OK) return em_state_commit(&w);
    em_state_abort(&w);
    return status;
}

// The newest whole state is that of `step`, and holds what was saved (0: there is none).
static void newest_is(const char *dir, uint64_t step)
{
    char *path;
    uint64_t found;
    CHECK_OK(em_state_find(dir, &path, &found));
    if (step == 0) {
        assert_null(path);
        return;
    }
    assert_non_null(path);
    assert_int_equal(found, step);
    struct em_buf b;
    em_buf_init(&b, 0);
    CHECK_OK(em_read_file(test_path(path, "weights"), 0, &b));
    char text[64];
    snprintf(text, sizeof text, "weights of step %llu", (unsigned long long)step);
    assert_string_equal(b.data, text);
    em_buf_deinit(&b);
    em_free(path);
}

static bool there(const char *dir, const char *name)
{
    return em_path_exists(test_path(dir, name));
}

static void two_states_are_kept_and_the_newest_is_found(void **state)
{
    (void)state;
    const char *dir = test_directory();
    newest_is(dir, 0);
    newest_is("nowhere/at/all", 0);
    for (uint64_t step = 9; step <= 12; step++) {
        CHECK_OK(save(dir, step));
        newest_is(dir, step);
    }
    assert_false(there(dir, "training/step-9"));
    assert_false(there(dir, "training/step-10"));
    assert_true(there(dir, "training/step-11/MANIFEST.json"));
    assert_true(there(dir, "training/step-12/data/position"));
    struct em_buf b;
    em_buf_init(&b, 0);
    CHECK_OK(em_read_file(test_path(dir, "training/LATEST"), 0, &b));
    assert_string_equal(b.data, "step-12\n");
    em_buf_deinit(&b);
    assert_string_equal(notes, "");
}

static void a_state_is_judged_by_its_manifest_and_hashes(void **state)
{
    (void)state;
    const char *dir = test_directory();
    CHECK_OK(save(dir, 1));
    CHECK_OK(save(dir, 2));
    CHECK_OK(em_make_directories(test_path(dir, "training/step-900"))); // a name alone is nothing
    newest_is(dir, 2);
    assert_non_null(strstr(notes, "step-900 is not whole"));
    put(dir, "training/step-2/weights", "weights of step 3"); // the same size
    newest_is(dir, 1);
    assert_non_null(strstr(notes, "XXH3"));
    put(dir, "training/step-2/weights", "weights of step 2");
    newest_is(dir, 2);
    put(dir, "training/step-2/weights", "weights of step");
    newest_is(dir, 1);
    assert_int_equal(unlink(test_path(dir, "training/step-2/weights")), 0);
    newest_is(dir, 1);
    put(dir, "training/step-1/weights", "");
    // States that are all damaged are no reason to begin anew, nor to remove what may be saved.
    char *path;
    uint64_t step;
    CHECK_FAILS(em_state_find(dir, &path, &step), EMBER_E_FORMAT,
                "none of 3 training states is whole");
    CHECK_FAILS(em_state_recover(dir, &path, &step), EMBER_E_FORMAT, "step-1/weights");
    assert_true(there(dir, "training/step-1/MANIFEST.json"));
    assert_true(there(dir, "training/step-2/MANIFEST.json"));
}

static void every_flipped_bit_of_a_state_is_found(void **state)
{
    (void)state;
    const char *dir = test_directory();
    CHECK_OK(save(dir, 1));
    CHECK_OK(save(dir, 2));
    static const char *const files[] = {"weights", "data/position", "MANIFEST.json"};
    for (size_t i = 0; i < 3; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/training/step-2/%s", dir, files[i]);
        struct em_buf b;
        em_buf_init(&b, 0);
        CHECK_OK(em_read_file(path, 0, &b));
        FILE *f = fopen(path, "r+b");
        assert_non_null(f);
        for (size_t bit = 0; bit < b.size * 8; bit++) {
            const char flipped = (char)(b.data[bit / 8] ^ 1 << bit % 8);
            assert_int_equal(fseek(f, (long)(bit / 8), SEEK_SET), 0);
            assert_int_equal(fputc(flipped, f), (unsigned char)flipped);
            assert_int_equal(fflush(f), 0);
            *notes = '\0';
            char *found;
            uint64_t step;
            CHECK_OK(em_state_find(dir, &found, &step));
            // In the manifest a flip may leave the same meaning: a space that is a tab would.
            const bool same = i == 2 && step == 2;
            if (!same) assert_int_equal(step, 1);
            if (!same) assert_non_null(strstr(notes, "step-2 is not whole"));
            if (same && strchr(" \n", b.data[bit / 8]) == NULL)
                fail_msg("bit %zu of the manifest", bit);
            em_free(found);
            assert_int_equal(fseek(f, (long)(bit / 8), SEEK_SET), 0);
            assert_int_equal(fputc(b.data[bit / 8], f), (unsigned char)b.data[bit / 8]);
            assert_int_equal(fflush(f), 0);
        }
        fclose(f);
        em_buf_deinit(&b);
        newest_is(dir, 2);
    }
}

static void a_state_of_a_later_version_is_not_passed_over(void **state)
{
    (void)state;
    const char *dir = test_directory();
    CHECK_OK(save(dir, 1));
    CHECK_OK(em_make_directories(test_path(dir, "training/step-2")));
    // The check of "2 2\n", the canonical text of version 2, step 2 without files.
    char text[256];
    snprintf(
        text, sizeof text,
        "{\"format\":\"ember-state\",\"version\":2,\"step\":2,\"check\":\"%016llx\",\"files\":[]}",
        (unsigned long long)em_hash_bytes("2 2\n", 4));
    put(dir, "training/step-2/MANIFEST.json", text);
    char *path;
    uint64_t step;
    CHECK_FAILS(em_state_find(dir, &path, &step), EMBER_E_UNSUPPORTED, "version 2");
}

static void recovery_removes_what_was_left_behind(void **state)
{
    (void)state;
    const char *dir = test_directory();
    CHECK_OK(save(dir, 4));
    CHECK_OK(save(dir, 5));
    CHECK_OK(em_make_directories(test_path(dir, "training/step-6.tmp/data")));
    CHECK_OK(em_make_directories(test_path(dir, "training/step-7")));
    put(dir, "training/step-5/weights", "torn");
    put(dir, "model.safetensors.123-4.tmp", "half");
    put(dir, "training/LATEST.9-0.tmp", "half");
    put(dir, "notes.tmp", "mine");
    put(dir, "training/mine", "too");
    char *path;
    uint64_t step;
    CHECK_OK(em_state_recover(dir, &path, &step));
    assert_int_equal(step, 4);
    em_free(path);
    assert_false(there(dir, "training/step-5"));
    assert_false(there(dir, "training/step-6.tmp"));
    assert_false(there(dir, "training/step-7"));
    assert_false(there(dir, "model.safetensors.123-4.tmp"));
    assert_false(there(dir, "training/LATEST.9-0.tmp"));
    assert_true(there(dir, "notes.tmp"));
    assert_true(there(dir, "training/mine"));
    newest_is(dir, 4);
}

static void a_state_of_the_same_step_is_replaced(void **state)
{
    (void)state;
    const char *dir = test_directory();
    CHECK_OK(save(dir, 7));
    CHECK_OK(save(dir, 8));
    CHECK_OK(save(dir, 8));
    newest_is(dir, 8);
    assert_false(there(dir, "training/step-8.old"));
    assert_true(there(dir, "training/step-7"));
    put(dir, "training/step-8/weights", "torn");
    CHECK_OK(save(dir, 8));
    newest_is(dir, 8);
    // Cut between the two renames: the one that stepped aside is still found.
    assert_int_equal(
        rename(test_path(dir, "training/step-8"), test_path(dir, "training/step-8.old")), 0);
    newest_is(dir, 8);
    CHECK_OK(save(dir, 8));
    assert_false(there(dir, "training/step-8.old"));
    newest_is(dir, 8);
}

static void a_run_that_went_back_keeps_later_states_until_it_gets_there(void **state)
{
    (void)state;
    const char *dir = test_directory();
    CHECK_OK(save(dir, 10));
    CHECK_OK(save(dir, 20));
    CHECK_OK(save(dir, 15));
    assert_true(there(dir, "training/step-20"));
    assert_true(there(dir, "training/step-10"));
    CHECK_OK(save(dir, 25));
    assert_true(there(dir, "training/step-20"));
    assert_false(there(dir, "training/step-15"));
}

static void an_aborted_state_leaves_nothing(void **state)
{
    (void)state;
    const char *dir = test_directory();
    CHECK_OK(save(dir, 1));
    struct em_state_writer w;
    CHECK_OK(em_state_begin(dir, 2, &w));
    CHECK_OK(write_state(&w, 2));
    em_state_abort(&w);
    em_state_abort(&w);
    assert_false(there(dir, "training/step-2.tmp"));
    CHECK_FAILS(em_state_commit(&w), EMBER_E_STATE, "begun");
    newest_is(dir, 1);
}

static void links_are_not_saved(void **state)
{
    (void)state;
    const char *dir = test_directory();
    struct em_state_writer w;
    CHECK_OK(em_state_begin(dir, 1, &w));
    assert_int_equal(symlink("/etc/passwd/nothing", test_path(w.temporary, "link")), 0);
    assert_int_not_equal(em_state_commit(&w), EMBER_OK);
    newest_is(dir, 0);
}

static void manifests_that_lead_outside_are_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"../x", "/x", "a/../x", "a//b", "", ".", "a/", "a/."};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char text[512];
        snprintf(text, sizeof text,
                 "{\"format\":\"ember-state\",\"version\":1,\"step\":1,\"check\":"
                 "\"0000000000000000\",\"files\":"
                 "[{\"name\":\"%s\",\"bytes\":1,\"xxh3\":\"0000000000000000\"}]}",
                 names[i]);
        struct em_manifest m;
        CHECK_FAILS(em_manifest_parse("M", text, strlen(text), &m), EMBER_E_FORMAT,
                    "inside the folder");
    }
    static const char *const broken[] = {
        "",
        "{}",
        "[]",
        "{\"format\":\"ember-state\",\"version\":-1,\"step\":1,\"check\":\"0000000000000000\","
        "\"files\":[]}",
        "{\"format\":\"ember-state\",\"version\":1,\"step\":1,\"check\":\"0\",\"files\":[]}",
        "{\"format\":\"ember-state\",\"version\":1,\"step\":1,\"check\":\"0000000000000000\","
        "\"files\":[]}",
        "{\"format\":\"ember-state\",\"version\":1,\"step\":1,\"check\":\"0000000000000000\","
        "\"files\":[7]}"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct em_manifest m;
        CHECK_FAILS(em_manifest_parse("M", broken[i], strlen(broken[i]), &m), EMBER_E_FORMAT, "M");
    }
}

static void a_folder_receives_the_files_of_a_state(void **state)
{
    (void)state;
    const char *dir = test_directory();
    CHECK_OK(save(dir, 3));
    put(dir, "weights", "old");
    static const char *const names[] = {"config", "weights"};
    CHECK_OK(em_publish_files(test_path(dir, "training/step-3"), dir, names, 2));
    CHECK_OK(em_publish_files(test_path(dir, "training/step-3"), test_path(dir, "best"), names, 2));
    struct em_buf b;
    em_buf_init(&b, 0);
    CHECK_OK(em_read_file(test_path(dir, "weights"), 0, &b));
    CHECK_OK(em_read_file(test_path(dir, "best/weights"), 0, &b));
    assert_string_equal(b.data, "weights of step 3weights of step 3");
    em_buf_deinit(&b);
    assert_false(there(dir, "config"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(two_states_are_kept_and_the_newest_is_found, quiet),
        cmocka_unit_test_setup(a_state_is_judged_by_its_manifest_and_hashes, quiet),
        cmocka_unit_test_setup(every_flipped_bit_of_a_state_is_found, quiet),
        cmocka_unit_test_setup(a_state_of_a_later_version_is_not_passed_over, quiet),
        cmocka_unit_test_setup(recovery_removes_what_was_left_behind, quiet),
        cmocka_unit_test_setup(a_state_of_the_same_step_is_replaced, quiet),
        cmocka_unit_test_setup(a_run_that_went_back_keeps_later_states_until_it_gets_there, quiet),
        cmocka_unit_test_setup(an_aborted_state_leaves_nothing, quiet),
        cmocka_unit_test_setup(links_are_not_saved, quiet),
        cmocka_unit_test(manifests_that_lead_outside_are_refused),
        cmocka_unit_test_setup(a_folder_receives_the_files_of_a_state, quiet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
