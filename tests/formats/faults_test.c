// timeout: 600
// What a full disk, a bad one and a power cut may do to what is written: nothing to what was there
// before.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/log.h"
#include "formats/safetensors.h"
#include "formats/state.h"
#include "support/check.h"
#include "support/fault_io.h"

static const int errors[] = {ENOSPC, EIO};

enum { ELEMENTS = 70000 }; // past the durable writer's buffer, so that writes are several

static float values[ELEMENTS];

static void drop(void *context, enum em_log_level level, const char *line)
{
    (void)context, (void)level, (void)line;
}

static ember_status fill(void *context, size_t index, size_t offset, void *to, size_t bytes)
{
    (void)index;
    memset(to, *(int *)context, bytes);
    memcpy(to, &offset, sizeof offset < bytes ? sizeof offset : bytes);
    return EMBER_OK;
}

// A file whose every value is `version`.
static ember_status write_version(const char *path, int version)
{
    for (size_t i = 0; i < ELEMENTS; i++)
        values[i] = (float)version;
    const size_t shape[] = {ELEMENTS}, streamed[] = {50000};
    const struct em_st_output t[] = {{"w", shape, values, 1, EM_ST_F32},
                                     {"s", streamed, NULL, 1, EM_ST_U8}};
    return em_safetensors_write(path, &(struct em_st_write){t, 2, NULL, 0, fill, &version});
}

// Without faults, and without waiting for the disk, which a thousand fsyncs would.
static void put_version(const char *path, int version)
{
    faults_begin(&(struct fault_plan){0});
    const ember_status status = write_version(path, version);
    faults_end();
    CHECK_OK(status);
}

// The version of a file, all of it; the file is whole.
static int read_version(const char *path)
{
    struct em_safetensors *f;
    CHECK_OK(em_safetensors_open(path, &f));
    const struct em_st_tensor *w = em_safetensors_find(f, "w"), *s = em_safetensors_find(f, "s");
    CHECK_OK(em_st_tensor_f32(w, values));
    const int version = (int)values[0];
    for (size_t i = 0; i < ELEMENTS; i++)
        if (values[i] != (float)version) fail_msg("value %zu is of another version", i);
    for (size_t i = 0; i < s->bytes; i++)
        if (i % (1 << 20) >= 8 && s->data[i] != version)
            fail_msg("byte %zu is of another version", i);
    em_safetensors_close(f);
    return version;
}

// The k-th call fails once, or writes fail from the k-th on.
static void fail_at(size_t k, int error, bool full)
{
    struct fault_plan plan = {.error = error, .for_good = full};
    if (full)
        plan.fail_of[FAULT_WRITE] = k;
    else
        plan.fail_call = k;
    faults_begin(&plan);
}

static size_t file_count(const char *dir)
{
    char **names;
    size_t count;
    CHECK_OK(em_list_directory(dir, &names, &count));
    em_names_free(names, count);
    return count;
}

static void a_failing_disk_never_harms_the_file_that_was_there(void **state)
{
    (void)state;
    const char *dir = test_directory(), *path = test_path(dir, "model.safetensors");
    put_version(path, 1);
    faults_begin(&(struct fault_plan){0});
    CHECK_OK(write_version(path, 1));
    const size_t calls = faults_calls();
    faults_end();
    assert_true(calls > 8);
    size_t failed = 0;
    for (size_t e = 0; e < sizeof errors / sizeof *errors; e++)
        for (size_t k = 1; k <= calls; k++)
            for (int full = 0; full < 2; full++) {
                fail_at(k, errors[e], full);
                const ember_status status = write_version(path, 2);
                faults_end();
                const int version = read_version(path);
                if (status == EMBER_OK) {
                    assert_int_equal(version, 2);
                } else {
                    failed++;
                    assert_int_equal(status, EMBER_E_IO);
                    assert_non_null(strstr(ember_last_error(), dir));
                    assert_non_null(strstr(ember_last_error(), strerror(errors[e])));
                    // One file and no temporary, unless removing it was what failed.
                    if (!full) assert_int_equal(file_count(dir), 1);
                }
                if (version == 2) put_version(path, 1);
            }
    assert_true(failed > calls);
}

static void short_and_interrupted_calls_change_nothing(void **state)
{
    (void)state;
    const char *path = test_path(test_directory(), "model.safetensors");
    faults_begin(
        &(struct fault_plan){.most_written = 4097, .most_read = 511, .interrupt_every = 2});
    const ember_status status = write_version(path, 3);
    faults_end();
    CHECK_OK(status);
    assert_int_equal(read_version(path), 3);
}

static ember_status save(const char *dir, uint64_t step)
{
    struct em_state_writer w;
    EM_TRY(em_state_begin(dir, step, &w));
    static const char *const names[] = {"weights", "moments", "config"};
    ember_status status = EMBER_OK;
    for (size_t i = 0; i < 3 && status == EMBER_OK; i++) {
        char text[5000], *path = em_state_file(&w, names[i]);
        memset(text, (int)('a' + (step + i) % 26), sizeof text);
        status = path ? em_write_file(path, text, sizeof text - i) : EMBER_E_NOMEM;
        em_free(path);
    }
    if (status == EMBER_OK) return em_state_commit(&w);
    em_state_abort(&w);
    return status;
}

static void put_state(const char *dir, uint64_t step)
{
    faults_begin(&(struct fault_plan){0});
    const ember_status status = save(dir, step);
    faults_end();
    CHECK_OK(status);
}

// The newest whole state; its files are all of its step.
static uint64_t newest(const char *dir)
{
    char *path;
    uint64_t step;
    CHECK_OK(em_state_find(dir, &path, &step));
    if (!path) return 0;
    static const char *const names[] = {"weights", "moments", "config"};
    for (size_t i = 0; i < 3; i++) {
        struct em_buf b;
        em_buf_init(&b, 0);
        CHECK_OK(em_read_file(test_path(path, names[i]), 0, &b));
        assert_int_equal(b.size, 5000 - i);
        for (size_t k = 0; k < b.size; k++)
            assert_int_equal(b.data[k], 'a' + (step + i) % 26);
        em_buf_deinit(&b);
    }
    em_free(path);
    return step;
}

static void a_failing_disk_never_costs_the_last_state(void **state)
{
    (void)state;
    em_log_to(drop, NULL);
    const char *dir = test_directory();
    uint64_t step = 1;
    CHECK_OK(save(dir, step));
    CHECK_OK(save(dir, ++step));
    faults_begin(&(struct fault_plan){0});
    CHECK_OK(save(dir, ++step));
    const size_t calls = faults_calls();
    faults_end();
    size_t failed = 0;
    for (size_t e = 0; e < sizeof errors / sizeof *errors; e++)
        for (size_t k = 1; k <= calls + 4; k++)
            for (int full = 0; full < 2; full++) {
                fail_at(k, errors[e], full);
                const ember_status status = save(dir, step + 1);
                faults_end();
                const uint64_t found = newest(dir);
                if (status == EMBER_OK) {
                    assert_int_equal(found, step + 1);
                } else {
                    failed++;
                    assert_int_equal(status, EMBER_E_IO);
                    assert_non_null(strstr(ember_last_error(), strerror(errors[e])));
                    assert_true(found == step || found == step + 1);
                }
                step = found;
                // What is left behind does not hinder the next one.
                if (k % 7 == 0) put_state(dir, ++step);
            }
    assert_true(failed > calls);
    assert_int_equal(newest(dir), step);
    char *path;
    CHECK_OK(em_state_recover(dir, &path, &step));
    em_free(path);
    assert_true(file_count(test_path(dir, "training")) <=
                4); // two states and LATEST; one may be ahead
    em_log_to(NULL, NULL);
}

// Two saves, cut at every call, with many outcomes of what was not fsynced: the last state that
// was committed, or the one being written, is there whole.
static void a_power_cut_leaves_the_last_state_or_the_next(void **state)
{
    (void)state;
    em_log_to(drop, NULL);
    size_t cuts = 0;
    char *unused;
    uint64_t ignored;
    const char *dir = test_directory();
    for (size_t k = 1;; k++) {
        bool over = false;
        for (int outcome = 0; outcome < 3; outcome++, cuts++) {
            const uint64_t seed = outcome < 2 ? (uint64_t)outcome : k; // all names kept, none, some
            const char *run = test_path(dir, "run");
            CHECK_OK(em_remove_tree(run));
            put_state(run, 1);
            uint64_t committed = 1;
            faults_begin(&(struct fault_plan){.power_cut = k});
            while (committed < 3 && save(run, committed + 1) == EMBER_OK)
                committed++;
            over = !faults_struck();
            faults_power_up(seed);
            const uint64_t found = newest(run);
            if (found != committed && found != committed + 1)
                fail_msg("cut at call %zu, seed %llu: found step %llu, %llu was committed", k,
                         (unsigned long long)seed, (unsigned long long)found,
                         (unsigned long long)committed);
            // And the run goes on from there.
            CHECK_OK(em_state_recover(run, &unused, &ignored));
            em_free(unused);
            put_state(run, found + 1);
            assert_int_equal(newest(run), found + 1);
        }
        if (over) break;
    }
    assert_true(cuts > 150);
    em_log_to(NULL, NULL);
}

static void a_power_cut_leaves_the_old_file_or_the_new(void **state)
{
    (void)state;
    const char *dir = test_directory(), *path = test_path(dir, "model.safetensors");
    for (size_t k = 1;; k++) {
        bool over = false;
        for (uint64_t seed = 0; seed < 4; seed++) {
            put_version(path, 1);
            faults_begin(&(struct fault_plan){.power_cut = k});
            const ember_status status = write_version(path, 2);
            over = !faults_struck();
            faults_power_up(seed);
            const int version = read_version(path);
            if (status == EMBER_OK)
                assert_int_equal(version, 2);
            else
                assert_true(version == 1 || version == 2);
        }
        if (over) break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failing_disk_never_harms_the_file_that_was_there),
        cmocka_unit_test(short_and_interrupted_calls_change_nothing),
        cmocka_unit_test(a_failing_disk_never_costs_the_last_state),
        cmocka_unit_test(a_power_cut_leaves_the_last_state_or_the_next),
        cmocka_unit_test(a_power_cut_leaves_the_old_file_or_the_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
