// timeout: 900
// What a full disk, a bad one and a power cut may do to what is written: nothing to what was there
// before.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/log.h"
#include "formats/safetensors.h"
#include "formats/state.h"
#include "formats/weights.h"
#include "support/fault_sweep.h"

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

// ---- a safetensors file: every value is the version ----

static ember_status write_version(const char *dir, int version)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    for (size_t i = 0; i < ELEMENTS; i++)
        values[i] = (float)version;
    const size_t shape[] = {ELEMENTS}, streamed[] = {50000};
    const struct em_st_output t[] = {{"w", shape, values, 1, EM_ST_F32},
                                     {"s", streamed, NULL, 1, EM_ST_U8}};
    return em_safetensors_write(path, &(struct em_st_write){t, 2, NULL, 0, fill, &version, true});
}

static void tensors_before(const char *dir)
{
    CHECK_OK(write_version(dir, 1));
}

static ember_status tensors_call(const char *dir)
{
    return write_version(dir, 2);
}

static int tensors_version(const char *dir)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    struct em_safetensors *f;
    CHECK_OK(em_safetensors_open(path, &f));
    const struct em_st_tensor *w = em_safetensors_find(f, "w"), *s = em_safetensors_find(f, "s");
    CHECK_OK(em_st_tensor_f32(w, values));
    const int version = (int)values[0];
    for (size_t i = 0; i < ELEMENTS; i++)
        if (values[i] != (float)version) fail_msg("value %zu is of another version", i);
    for (size_t i = 8; i < s->bytes; i++)
        if (s->data[i] != version) fail_msg("byte %zu is of another version", i);
    em_safetensors_close(f);
    return version;
}

static const struct fault_scenario tensors = {"safetensors", tensors_before, tensors_call,
                                              tensors_version, NULL};

static void a_tensor_file_survives_a_failing_disk(void **state)
{
    (void)state;
    fault_sweep_calls(&tensors, 60);
}

static void a_tensor_file_survives_a_power_cut(void **state)
{
    (void)state;
    fault_sweep_power(&tensors, 6);
}

static void short_and_interrupted_calls_change_nothing(void **state)
{
    (void)state;
    const char *dir = test_directory();
    faults_begin(
        &(struct fault_plan){.most_written = 4097, .most_read = 511, .interrupt_every = 2});
    const ember_status status = write_version(dir, 2);
    faults_end();
    CHECK_OK(status);
    assert_int_equal(tensors_version(dir), 2);
}

// ---- a training state: the third, so that the first is removed ----

static const char *const state_files[] = {"weights", "moments", "config"};

static ember_status save(const char *dir, uint64_t step)
{
    struct em_state_writer w;
    EM_TRY(em_state_begin(dir, step, &w));
    ember_status status = EMBER_OK;
    for (size_t i = 0; i < 3 && status == EMBER_OK; i++) {
        char text[5000], *path = em_state_file(&w, state_files[i]);
        memset(text, (int)('a' + (step + i) % 26), sizeof text);
        status = path ? em_write_file(path, text, sizeof text - i) : EMBER_E_NOMEM;
        em_free(path);
    }
    if (status == EMBER_OK) return em_state_commit(&w);
    em_state_abort(&w);
    return status;
}

// The step of the newest whole state, and the files are all of that step.
static uint64_t newest(const char *dir)
{
    char *path;
    uint64_t step;
    CHECK_OK(em_state_find(dir, &path, &step));
    if (!path) return 0;
    for (size_t i = 0; i < 3; i++) {
        struct em_buf b = {0};
        char *file = em_path_join(path, state_files[i]);
        CHECK_OK(em_read_file(file, 0, &b));
        em_free(file);
        assert_int_equal(b.size, 5000 - i);
        for (size_t k = 0; k < b.size; k++)
            if (b.data[k] != (char)('a' + (step + i) % 26)) fail_msg("%s is mixed", state_files[i]);
        em_buf_deinit(&b);
    }
    em_free(path);
    return step;
}

static void state_before(const char *dir)
{
    CHECK_OK(save(dir, 7));
    CHECK_OK(save(dir, 8));
}

static ember_status state_call(const char *dir)
{
    return save(dir, 9);
}

static int state_version(const char *dir)
{
    return (int)newest(dir) - 7;
}

// The first state of all.
static int first_state_version(const char *dir)
{
    return newest(dir) == 9 ? 2 : 0;
}

static const struct fault_scenario states = {"training state", state_before, state_call,
                                             state_version, NULL},
                                   first_state = {"first training state", NULL, state_call,
                                                  first_state_version, NULL};

static void a_training_state_survives_a_failing_disk(void **state)
{
    (void)state;
    fault_sweep_calls(&states, 40);
    fault_sweep_calls(&first_state, 10);
}

static void a_training_state_survives_a_power_cut(void **state)
{
    (void)state;
    fault_sweep_power(&states, 2);
    fault_sweep_power(&first_state, 1);
}

// What the owner of the folder does before it goes on, on what faults left.
static void recovery_leaves_two_states_and_no_rest(void **state)
{
    (void)state;
    const char *dir = test_directory();
    state_before(dir);
    faults_begin(&(struct fault_plan){0});
    CHECK_OK(save(dir, 9));
    const size_t calls = faults_calls();
    faults_end();
    uint64_t step = 9;
    for (size_t k = 3; k <= calls; k += 5) {
        fault_sweep_case("the disk is gone from call %zu on", k);
        faults_begin(&(struct fault_plan){.fail_call = k, .for_good = true});
        const ember_status status = save(dir, step + 1);
        faults_end();
        char *path;
        uint64_t found;
        CHECK_OK(em_state_recover(dir, &path, &found));
        em_free(path);
        assert_true(found == step || found == step + 1);
        assert_true(status != EMBER_OK || found == step + 1);
        step = found;
        char *list = fault_list_tree(dir);
        assert_null(strstr(list, ".tmp"));
        free(list);
    }
    fault_sweep_case("%s", "");
}

// ---- files that are copied into the model's own folder ----

static const char *const published[] = {"config.json", "absent.json", "model.safetensors"};

static void publish_version(const char *dir, const char *name, char version)
{
    char folder[1024], path[1100], text[3000];
    snprintf(folder, sizeof folder, "%s/%s", dir, name);
    CHECK_OK(em_make_directories(folder));
    memset(text, version, sizeof text);
    for (size_t i = 0; i < 3; i += 2) {
        snprintf(path, sizeof path, "%s/%s", folder, published[i]);
        CHECK_OK(em_write_file(path, text, sizeof text));
    }
}

static void publish_before(const char *dir)
{
    publish_version(dir, "new", '2');
    publish_version(dir, "model", '1');
}

static ember_status publish_call(const char *dir)
{
    char from[1024], to[1024];
    snprintf(from, sizeof from, "%s/new", dir);
    snprintf(to, sizeof to, "%s/model", dir);
    return em_publish_files(from, to, published, 3);
}

// Each file is whole; the last tells the version, and the ones before it are never older.
static int publish_version_of(const char *dir)
{
    int version[3] = {0};
    for (size_t i = 0; i < 3; i += 2) {
        char path[1024];
        struct em_buf b = {0};
        snprintf(path, sizeof path, "%s/model/%s", dir, published[i]);
        CHECK_OK(em_read_file(path, 0, &b));
        assert_int_equal(b.size, 3000);
        for (size_t k = 0; k < b.size; k++)
            if (b.data[k] != b.data[0]) fail_msg("%s is mixed", published[i]);
        version[i] = b.data[0] - '0';
        em_buf_deinit(&b);
    }
    assert_true(version[0] >= version[2]);
    return version[2];
}

static const struct fault_scenario publication = {"publication", publish_before, publish_call,
                                                  publish_version_of, NULL};

static void a_published_folder_survives_its_disk(void **state)
{
    (void)state;
    fault_sweep_calls(&publication, 40);
    fault_sweep_power(&publication, 3);
}

// ---- reading ----

static const char *read_dir;

// A state that cannot be read is passed over, with a note; that there is one is not forgotten.
static ember_status find_state(uint64_t *read)
{
    char *path;
    uint64_t step;
    EM_TRY(em_state_find(read_dir, &path, &step));
    *read = path != NULL && step >= 7;
    em_free(path);
    return EMBER_OK;
}

// Two shards and their index.
static ember_status open_shards(uint64_t *read)
{
    struct em_weights *w;
    EM_TRY(em_weights_open(read_dir, &w));
    *read = em_weights_bytes(w) * 100 + em_weights_files(w);
    em_weights_close(w);
    return EMBER_OK;
}

static void reading_fails_or_is_right(void **state)
{
    (void)state;
    read_dir = test_directory();
    state_before(read_dir);
    fault_sweep_reads(&(struct fault_reader){"finding a state", find_state, read_dir});
    read_dir = test_directory();
    static const char *const shard[] = {"model-1.safetensors", "model-2.safetensors"};
    static const char index[] = "{\"weight_map\": {\"a\": \"model-1.safetensors\", "
                                "\"b\": \"model-2.safetensors\"}}";
    for (size_t i = 0; i < 2; i++) {
        const size_t shape[] = {30};
        const struct em_st_output t = {i ? "b" : "a", shape, values, 1, EM_ST_F32};
        CHECK_OK(em_safetensors_write(test_path(read_dir, shard[i]),
                                      &(struct em_st_write){.tensors = &t, .count = 1}));
    }
    CHECK_OK(
        em_write_file(test_path(read_dir, "model.safetensors.index.json"), index, strlen(index)));
    fault_sweep_reads(&(struct fault_reader){"opening shards", open_shards, read_dir});
}

static int quiet(void **state)
{
    (void)state;
    em_log_to(drop, NULL);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAULT_TEST(a_tensor_file_survives_a_failing_disk),
        FAULT_TEST(a_tensor_file_survives_a_power_cut),
        cmocka_unit_test(short_and_interrupted_calls_change_nothing),
        FAULT_TEST(a_training_state_survives_a_failing_disk),
        FAULT_TEST(a_training_state_survives_a_power_cut),
        FAULT_TEST(recovery_leaves_two_states_and_no_rest),
        FAULT_TEST(a_published_folder_survives_its_disk),
        FAULT_TEST(reading_fails_or_is_right),
    };
    return cmocka_run_group_tests(tests, quiet, NULL);
}
