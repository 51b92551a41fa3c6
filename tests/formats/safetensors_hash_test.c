// Hashes of tensors in a file's metadata.
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "formats/safetensors.h"
#include "support/check.h"

static const size_t shape[] = {3}, none[] = {0}, streamed[] = {1500000};
static const float values[] = {1, 2, 3};

static ember_status fill(void *context, size_t index, size_t offset, void *to, size_t bytes)
{
    (void)context, (void)index;
    memset(to, (int)(offset >> 20) + 1, bytes);
    return EMBER_OK;
}

// In the data's order: b, streamed, empty; in the names': b, empty, streamed.
static const struct em_st_output outputs[] = {{"streamed", streamed, NULL, 1, EM_ST_U8},
                                              {"b", shape, values, 1, EM_ST_F32},
                                              {"empty", none, NULL, 1, EM_ST_U8}};

static const char *write_file(bool hashes)
{
    const char *path = test_path(test_directory(), "x.safetensors");
    CHECK_OK(em_safetensors_write(
        path,
        &(struct em_st_write){.tensors = outputs, .count = 3, .source = fill, .hashes = hashes}));
    return path;
}

// The file's bytes with `from` replaced by `to` of the same length.
static void replace(const char *path, const char *from, const char *to)
{
    struct em_buf b = {0};
    CHECK_OK(em_read_file(path, 0, &b));
    char *at = memmem(b.data, b.size, from, strlen(from));
    assert_non_null(at);
    memcpy(at, to, strlen(to));
    CHECK_OK(em_write_file(path, b.data, b.size));
    em_buf_deinit(&b);
}

static void every_tensor_is_hashed(void **state)
{
    (void)state;
    const char *path = write_file(true);
    struct em_safetensors *f;
    CHECK_OK(em_safetensors_open(path, &f));
    assert_string_equal(em_safetensors_metadata(f, "format"), "pt");
    assert_int_equal(strlen(em_safetensors_metadata(f, EM_ST_HASHES)), 48);
    for (size_t i = 0; i < 3; i++)
        assert_true(em_safetensors_at(f, i)->hashed);
    CHECK_OK(em_safetensors_verify(f));
    em_safetensors_close(f);
}

static void a_changed_tensor_is_named(void **state)
{
    (void)state;
    const char *path = write_file(true);
    struct em_safetensors *f;
    replace(path, "\2\2\2\2", "\2\2\3\2");
    CHECK_OK(em_safetensors_open(path, &f));
    CHECK_FAILS(em_safetensors_verify(f), EMBER_E_FORMAT, "tensor streamed: expected XXH3");
    CHECK_OK(em_st_tensor_verify(path, em_safetensors_find(f, "b")));
    CHECK_OK(em_st_tensor_verify(path, em_safetensors_find(f, "empty")));
    em_safetensors_close(f);
}

static void a_file_without_hashes_is_not_judged(void **state)
{
    (void)state;
    const char *path = write_file(false);
    struct em_safetensors *f;
    CHECK_OK(em_safetensors_open(path, &f));
    assert_null(em_safetensors_metadata(f, EM_ST_HASHES));
    CHECK_OK(em_safetensors_verify(f));
    em_safetensors_close(f);
}

// Another program took the metadata over into a file of other tensors, or wrote what is no hash.
static void hashes_of_other_tensors_mean_nothing(void **state)
{
    (void)state;
    const char *path = write_file(false), *bad[] = {"", "0123456789abcdef", "0123456789ABCDEF"};
    for (size_t i = 0; i < 3; i++) {
        const struct em_st_pair pair = {EM_ST_HASHES, bad[i]};
        struct em_safetensors *f;
        CHECK_OK(em_safetensors_write(
            path, &(struct em_st_write){outputs, i == 2 ? 1 : 3, &pair, 1, fill, NULL, false}));
        CHECK_OK(em_safetensors_open(path, &f));
        assert_false(em_safetensors_at(f, 0)->hashed);
        CHECK_OK(em_safetensors_verify(f));
        em_safetensors_close(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tensor_is_hashed),
        cmocka_unit_test(a_changed_tensor_is_named),
        cmocka_unit_test(a_file_without_hashes_is_not_judged),
        cmocka_unit_test(hashes_of_other_tensors_mean_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
