#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/log.h"
#include "formats/files.h"
#include "formats/weights.h"

#define INDEX "model.safetensors.index.json"

static const float values[] = {1, 2, 3, 4, 5, 6};

// Writes `file` with F32 tensors of shape [2], named by the characters of `names`.
static void put_tensors(const void *folder, const char *file, const char *names)
{
    static const size_t two[] = {2};
    struct em_st_output t[8];
    char text[8][2];
    size_t n = 0;
    for (; names[n]; n++) {
        snprintf(text[n], sizeof text[n], "%c", names[n]);
        t[n] = (struct em_st_output){text[n], two, values + n, 1, EM_ST_F32};
    }
    assert_int_equal(em_safetensors_write(in_folder(folder, file),
                                          &(struct em_st_write){.tensors = t, .count = n}),
                     EMBER_OK);
}

static void refuses(const void *folder, ember_status expected, const char *says)
{
    struct em_weights *w;
    const ember_status status = em_weights_open(folder, &w);
    if (status == EMBER_OK) em_weights_close(w);
    if (status != expected || !strstr(ember_last_error(), says))
        fail_msg("%s (expected \"%s\"): %s", ember_status_name(status), says, ember_last_error());
}

static char warned[1024];

static void keep_warning(void *context, enum em_log_level level, const char *line)
{
    (void)context;
    if (level == EM_LOG_WARN) snprintf(warned, sizeof warned, "%s", line);
}

static void a_folder_with_one_file_opens(void **state)
{
    put_tensors(*state, "model.safetensors", "cab");
    struct em_weights *w;
    assert_int_equal(em_weights_open(*state, &w), EMBER_OK);
    assert_int_equal(em_weights_count(w), 3);
    assert_int_equal(em_weights_bytes(w), 24);
    assert_memory_equal(em_weights_find(w, "c")->data, values, 8);
    assert_null(em_weights_find(w, "d"));
    const struct em_st_tensor *t;
    assert_int_equal(em_weights_need(w, "a", (size_t[]){2}, 1, &t), EMBER_OK);
    assert_string_equal(t->name, "a");
    assert_int_equal(em_weights_need(w, "a", (size_t[]){2, 1}, 2, &t), EMBER_E_SHAPE);
    assert_non_null(strstr(ember_last_error(), "[2, 1]"));
    assert_int_equal(em_weights_need(w, "zebra", (size_t[]){2}, 1, &t), EMBER_E_FORMAT);
    assert_non_null(strstr(ember_last_error(), "zebra"));
    em_weights_close(w);
    // The file itself, and a folder whose only file has another name.
    assert_int_equal(em_weights_open(in_folder(*state, "model.safetensors"), &w), EMBER_OK);
    em_weights_close(w);
    assert_int_equal(
        rename(in_folder(*state, "model.safetensors"), in_folder(*state, "adapter.safetensors")),
        0);
    assert_int_equal(em_weights_open(*state, &w), EMBER_OK);
    em_weights_close(w);
}

static void shards_are_one_set_of_tensors(void **state)
{
    put_tensors(*state, "model-00001-of-00002.safetensors", "bd");
    put_tensors(*state, "model-00002-of-00002.safetensors", "ac");
    put_tensors(*state, "model.safetensors", "x"); // the index goes before it
    put_file(
        *state, INDEX,
        "{\"metadata\":{\"total_size\":32},\"weight_map\":{\"a\":\"model-00002-of-00002."
        "safetensors\",\"b\":\"model-00001-of-00002.safetensors\","
        "\"c\":\"model-00002-of-00002.safetensors\",\"d\":\"model-00001-of-00002.safetensors\"}}");
    struct em_weights *w;
    assert_int_equal(em_weights_open(*state, &w), EMBER_OK);
    assert_int_equal(em_weights_count(w), 4);
    assert_int_equal(em_weights_files(w), 2);
    assert_string_equal(em_weights_at(w, 0)->name, "b");
    assert_memory_equal(em_weights_find(w, "c")->data, values + 1, 8);
    assert_null(em_weights_find(w, "x"));
    em_weights_close(w);
}

static void an_index_that_lies_is_refused(void **state)
{
    put_tensors(*state, "1.safetensors", "ab");
    put_tensors(*state, "2.safetensors", "bc");
    put_file(*state, INDEX, "{\"weight_map\":{\"a\":\"1.safetensors\",\"c\":\"3.safetensors\"}}");
    refuses(*state, EMBER_E_FORMAT, "shard 3.safetensors is missing");
    put_file(*state, INDEX, "{\"weight_map\":{\"a\":\"1.safetensors\",\"z\":\"2.safetensors\"}}");
    refuses(*state, EMBER_E_FORMAT, "tensor z is missing from 2.safetensors");
    put_file(*state, INDEX,
             "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"1.safetensors\",\"c\":\"2."
             "safetensors\"}}");
    refuses(*state, EMBER_E_FORMAT,
            "tensor b is placed in 1.safetensors, but also in 2.safetensors");
    static const char *const outside[] = {
        "../1.safetensors", "/etc/passwd", "x/1.safetensors", "..\\\\1.safetensors", "..", ".", ""};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"weight_map\":{\"a\":\"%s\"}}", outside[i]);
        put_file(*state, INDEX, text);
        refuses(*state, EMBER_E_FORMAT, "same folder");
    }
    put_file(*state, INDEX, "{\"weight_map\":{\"a\":7}}");
    refuses(*state, EMBER_E_FORMAT, "found 7");
    put_file(*state, INDEX, "{\"weight_map\":[]}");
    refuses(*state, EMBER_E_FORMAT, "weight_map");
    put_file(*state, INDEX, "{\"weight_map\":{\"a\":\"1.safetensors\",\"a\":\"2.safetensors\"}}");
    refuses(*state, EMBER_E_FORMAT, INDEX);
    put_file(*state, INDEX, "[");
    refuses(*state, EMBER_E_FORMAT, INDEX);
    put_file(*state, "1.safetensors", "short");
    put_file(*state, INDEX, "{\"weight_map\":{\"a\":\"1.safetensors\"}}");
    refuses(*state, EMBER_E_FORMAT, "1.safetensors");
}

static void tensors_outside_the_index_are_told(void **state)
{
    put_tensors(*state, "1.safetensors", "abc");
    put_file(*state, INDEX, "{\"weight_map\":{\"a\":\"1.safetensors\"}}");
    struct em_weights *w;
    *warned = '\0';
    em_log_to(keep_warning, NULL);
    assert_int_equal(em_weights_open(*state, &w), EMBER_OK);
    em_log_to(NULL, NULL);
    assert_non_null(strstr(warned, "2 tensors"));
    assert_int_equal(em_weights_count(w), 1);
    em_weights_close(w);
}

static void what_a_folder_has_instead_of_weights_is_said(void **state)
{
    refuses(*state, EMBER_E_FORMAT, "no weights");
    put_file(*state, "training_args.bin", "x");
    refuses(*state, EMBER_E_FORMAT, "no weights");
    put_file(*state, "pytorch_model.bin", "x");
    refuses(*state, EMBER_E_UNSUPPORTED, "pytorch_model.bin: a pickle file");
    put_tensors(*state, "a.safetensors", "a");
    put_tensors(*state, "b.safetensors", "b");
    refuses(*state, EMBER_E_FORMAT, "2 .safetensors files");
}

static void running_out_of_memory_is_a_status(void **state)
{
    put_tensors(*state, "model.safetensors", "ab");
    struct em_weights *w;
    size_t n = 0;
    for (ember_status status = EMBER_E_NOMEM; status != EMBER_OK;) {
        em_alloc_fail_at(++n, 0);
        status = em_weights_open(*state, &w);
        em_alloc_fail_at(0, 0);
        if (status != EMBER_OK && status != EMBER_E_NOMEM)
            fail_msg("%zu: %s", n, ember_last_error());
        assert_true(n < 1000);
    }
    assert_true(n > 10);
    em_weights_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_folder_with_one_file_opens, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(shards_are_one_set_of_tensors, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(an_index_that_lies_is_refused, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(tensors_outside_the_index_are_told, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(what_a_folder_has_instead_of_weights_is_said, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(running_out_of_memory_is_a_status, make_folder,
                                        remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
