// Models from bytes in memory: the same as from the folder, without a file, and as careful.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ember/infer.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/rng.h"
#include "infer/small_model.h"

enum { FILES = 4 };
static const char *const names[FILES] = {"config.json", "model.safetensors", "tokenizer.json",
                                         "tokenizer_config.json"};
static const char *folder;
static struct em_buf bytes[FILES];
static ember_model_file files[FILES];
static const ember_model_options options = {
    .runtime = {.threads = 1, .compute = EMBER_COMPUTE_F32}};

static int setup(void **state)
{
    (void)state;
    folder = small_folder("model");
    for (size_t i = 0; i < FILES; i++) {
        CHECK_OK(em_read_file(test_path(folder, names[i]), 0, &bytes[i]));
        files[i] = (ember_model_file){names[i], bytes[i].data, bytes[i].size};
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < FILES; i++)
        em_buf_deinit(&bytes[i]);
    return 0;
}

static void check_text(ember_model *model, const char *expected)
{
    char *text;
    CHECK_OK(ember_generate_text(model, "some prompt", 20, &text));
    assert_string_equal(text, expected);
    ember_free(text);
}

static size_t file_calls;

static int counted_open(const char *path, int flags, mode_t mode)
{
    file_calls++;
    return em_io_system()->open(path, flags, mode);
}

static int counted_stat(const char *path, struct stat *s)
{
    file_calls++;
    return em_io_system()->stat(path, s);
}

static void the_same_model_as_from_its_folder(void **state)
{
    (void)state;
    ember_model *from_folder, *from_memory;
    char *text;
    struct em_io io = *em_io_system();
    CHECK_OK(ember_model_open(folder, &options, &from_folder));
    CHECK_OK(ember_generate_text(from_folder, "some prompt", 20, &text));
    assert_true(strlen(text) > 0);
    io.open = counted_open;
    io.stat = counted_stat;
    em_io_use(&io);
    CHECK_OK(ember_model_open_memory(files, FILES, &options, &from_memory));
    check_text(from_memory, text);
    assert_int_equal(file_calls, 0);
    em_io_use(NULL);
    assert_int_equal(ember_model_context(from_memory), ember_model_context(from_folder));
    assert_true(ember_model_reads_text(from_memory));
    ember_free(text);
    ember_model_close(from_folder);
    ember_model_close(from_memory);
}

// Nothing is borrowed past the call: the bytes may be gone, and may have lain at an odd address.
static void bytes_are_borrowed_during_the_call(void **state)
{
    (void)state;
    ember_model *model, *copy;
    ember_model_file odd[FILES];
    char *block[FILES], *text;
    for (size_t i = 0; i < FILES; i++) {
        block[i] = malloc(files[i].size + 1);
        memcpy(block[i] + 1, files[i].data, files[i].size);
        odd[i] = (ember_model_file){names[i], block[i] + 1, files[i].size};
    }
    CHECK_OK(ember_model_open_memory(odd, FILES, &options, &copy));
    for (size_t i = 0; i < FILES; i++)
        free(block[i]);
    CHECK_OK(ember_model_open_memory(files, FILES, &options, &model));
    CHECK_OK(ember_generate_text(model, "some prompt", 20, &text));
    check_text(copy, text);
    ember_free(text);
    ember_model_close(model);
    ember_model_close(copy);
}

static void without_a_tokenizer_it_reads_ids(void **state)
{
    (void)state;
    ember_model *model;
    char *text;
    CHECK_OK(ember_model_open_memory(files, 2, NULL, &model));
    assert_false(ember_model_reads_text(model));
    CHECK_FAILS(ember_generate_text(model, "x", 1, &text), EMBER_E_STATE, "no tokenizer.json");
    const ember_request ids = {.ids = (const int32_t[]){1, 70}, .n_ids = 2, .max_tokens = 3};
    CHECK_OK(ember_generate(model, &ids, 1));
    ember_model_close(model);
}

static void generation_config_counts(void **state)
{
    (void)state;
    const char text[] = "{\"do_sample\": true, \"temperature\": 0.25, \"eos_token_id\": [5]}";
    ember_model *model;
    const ember_model_file all[] = {
        files[0], files[1], {"generation_config.json", text, sizeof text - 1}};
    CHECK_OK(ember_model_open_memory(all, 3, &options, &model));
    CHECK_NEAR(ember_sampling_default(model).temperature, 0.25, 0, "from the file");
    ember_model_close(model);
}

static void shards_are_found_by_their_index(void **state)
{
    (void)state;
    ember_model *model;
    struct em_safetensors *whole;
    struct em_buf index = {0};
    CHECK_OK(
        em_safetensors_parse("whole", (const unsigned char *)bytes[1].data, bytes[1].size, &whole));
    CHECK_OK(em_buf_puts(&index, "{\"weight_map\": {"));
    for (size_t i = 0; i < em_safetensors_count(whole); i++)
        CHECK_OK(em_buf_printf(&index, "%s\"%s\": \"part.safetensors\"", i ? ", " : "",
                               em_safetensors_at(whole, i)->name));
    CHECK_OK(em_buf_puts(&index, "}}"));
    em_safetensors_close(whole);
    ember_model_file all[] = {files[0],
                              {"model.safetensors.index.json", index.data, index.size},
                              {"part.safetensors", bytes[1].data, bytes[1].size}};
    CHECK_OK(ember_model_open_memory(all, 3, &options, &model));
    ember_model_close(model);
    CHECK_FAILS(ember_model_open_memory(all, 2, &options, &model), EMBER_E_FORMAT,
                "model.safetensors.index.json: shard part.safetensors is missing");
    em_buf_deinit(&index);
}

static void faults_name_the_file(void **state)
{
    (void)state;
    ember_model *model = NULL;
    ember_model_file some[FILES + 1];
    memcpy(some, files, sizeof files);
    CHECK_FAILS(ember_model_open_memory(NULL, 0, NULL, &model), EMBER_E_IO,
                "config.json: not among the 0 files in memory");
    CHECK_FAILS(ember_model_open_memory(NULL, 2, NULL, &model), EMBER_E_USAGE, "no list");
    CHECK_FAILS(ember_model_open_memory(files, 1, NULL, &model), EMBER_E_FORMAT,
                "the files in memory: no weights: expected model.safetensors");
    CHECK_FAILS(ember_model_open_memory(files + 1, 1, NULL, &model), EMBER_E_IO, "config.json");
    some[FILES] = files[1];
    CHECK_FAILS(ember_model_open_memory(some, FILES + 1, NULL, &model), EMBER_E_USAGE,
                "model.safetensors: given twice");
    some[1].name = NULL;
    CHECK_FAILS(ember_model_open_memory(some, 2, NULL, &model), EMBER_E_USAGE, "file 1 in memory");
    some[1].name = "../model.safetensors";
    CHECK_FAILS(ember_model_open_memory(some, 2, NULL, &model), EMBER_E_USAGE, "\"../model");
    some[1] = (ember_model_file){"model.safetensors", NULL, 12};
    CHECK_FAILS(ember_model_open_memory(some, 2, NULL, &model), EMBER_E_USAGE,
                "model.safetensors: 12 bytes in memory, but no address");
    some[1].size = 0;
    CHECK_FAILS(ember_model_open_memory(some, 2, NULL, &model), EMBER_E_FORMAT,
                "model.safetensors: 0 bytes");
    some[1] = files[1];
    some[1].size /= 2;
    CHECK_FAILS(ember_model_open_memory(some, 2, NULL, &model), EMBER_E_FORMAT,
                "model.safetensors: ");
    some[0] = (ember_model_file){"config.json", "{\n \"model_type\": 7}", 19};
    CHECK_FAILS(ember_model_open_memory(some, 2, NULL, &model), EMBER_E_FORMAT, "model.safe");
    some[1] = files[1];
    CHECK_FAILS(ember_model_open_memory(some, 2, NULL, &model), EMBER_E_CONFIG, "config.json: ");
    some[0] = (ember_model_file){"config.json", "{\n  oops", 8};
    CHECK_FAILS(ember_model_open_memory(some, 2, NULL, &model), EMBER_E_FORMAT, "config.json:2:3");
    assert_null(model);
}

static char heard[256];

static void hear(void *context, ember_log_level level, const char *line)
{
    (void)context;
    (void)level;
    snprintf(heard, sizeof heard, "%s", line);
}

static void a_file_that_nobody_reads_is_a_line(void **state)
{
    (void)state;
    ember_model *model;
    const ember_model_file all[] = {files[0], files[1], {"tokeniser.json", "{}", 2}};
    ember_log_to(hear, NULL);
    CHECK_OK(ember_model_open_memory(all, 3, &options, &model));
    ember_log_to(NULL, NULL);
    assert_string_equal(heard, "tokeniser.json: a file in memory that no model reads");
    ember_model_close(model);
}

// Cut and damaged files in a block of exactly their size, so that a sanitizer sees every read past
// it: a status, or a model that works.
static void damaged_bytes_are_refused_or_read(void **state)
{
    (void)state;
    enum { CASES = 400 };
    struct em_rng rng;
    em_rng_seed(&rng, 5, 0);
    ember_log_to(hear, NULL);
    size_t refused = 0;
    for (size_t c = 0; c < CASES; c++) {
        ember_model_file some[FILES];
        memcpy(some, files, sizeof files);
        const size_t which = c % FILES, size = files[which].size,
                     kept = c % 8 < 4 ? (size_t)em_rng_below(&rng, size) : size;
        unsigned char *copy = malloc(kept ? kept : 1);
        memcpy(copy, files[which].data, kept);
        const size_t window = which == 1 && kept > 4096 ? 4096 : kept; // where the header is
        if (kept == size) copy[em_rng_below(&rng, window)] ^= (unsigned char)(1u << c / 8 % 8);
        some[which].data = copy;
        some[which].size = kept;
        ember_model *model = NULL;
        const size_t live = em_alloc_live();
        const ember_status status = ember_model_open_memory(some, FILES, &options, &model);
        if (status != EMBER_OK) {
            refused++;
            assert_true(strlen(ember_last_error()) > 0);
        }
        ember_model_close(model);
        assert_int_equal(em_alloc_live(), live);
        free(copy);
    }
    ember_log_to(NULL, NULL);
    assert_true(refused > CASES / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_model_as_from_its_folder),
        cmocka_unit_test(bytes_are_borrowed_during_the_call),
        cmocka_unit_test(without_a_tokenizer_it_reads_ids),
        cmocka_unit_test(generation_config_counts),
        cmocka_unit_test(shards_are_found_by_their_index),
        cmocka_unit_test(faults_name_the_file),
        cmocka_unit_test(a_file_that_nobody_reads_is_a_line),
        cmocka_unit_test(damaged_bytes_are_refused_or_read),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
