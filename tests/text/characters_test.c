// Tokenizers of single characters: ids, unknown ones, files, folders that name a class alone.
#include <string.h>

#include "base/io.h"
#include "support/check.h"
#include "text/tokenizer_priv.h"

static void check_ids(const struct em_tokenizer *t, const char *text, unsigned flags,
                      const int32_t *expected, size_t count)
{
    struct em_encoder *e;
    struct em_ids ids = {0};
    CHECK_OK(em_encoder_create(t, &e));
    CHECK_OK(em_encode(e, text, strlen(text), flags, &ids));
    assert_int_equal(ids.count, count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(ids.ids[i], expected[i]);
    em_ids_deinit(&ids);
    em_encoder_destroy(e);
}

#define IDS(t, text, flags, ...)                                                                   \
    check_ids(t, text, flags, (const int32_t[]){__VA_ARGS__},                                      \
              sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void check_nucleotides(const struct em_tokenizer *t)
{
    assert_int_equal(em_tokenizer_size(t), 12);
    assert_int_equal(em_tokenizer_pad(t), 4);
    assert_int_equal(em_tokenizer_bos(t), 2);
    assert_int_equal(em_tokenizer_eos(t), 1);
    IDS(t, "ACGTN", EM_ENCODE_DEFAULT, 0, 7, 8, 9, 10, 11, 1);
    IDS(t, "AacX\n", 0, 7, 6, 6, 6, 6); // lower case is not upper case
    IDS(t,
        "A\xc3\xa9\xe2\x82\xac"
        "C\xff",
        0, 7, 6, 6, 8, 6); // a character, not a byte
    IDS(t, "[MASK]A", EM_ENCODE_PARSE_SPECIAL, 3, 7);
    IDS(t, "[C", 0, 6, 8);
    struct em_buf text;
    em_buf_init(&text, 0);
    CHECK_OK(em_decode(t, (const int32_t[]){0, 10, 9, 6, 7, 1}, 6, EM_DECODE_SKIP_SPECIAL, &text));
    assert_string_equal(text.data, "TGA");
    em_buf_deinit(&text);
}

static void nucleotides_have_their_ids(void **state)
{
    (void)state;
    struct em_tokenizer *t, *again;
    const char *folder = test_directory();
    CHECK_OK(em_tokenizer_characters("ACGTN", &t));
    check_nucleotides(t);
    CHECK_OK(em_tokenizer_save(t, folder));
    CHECK_OK(em_tokenizer_open(folder, &again));
    check_nucleotides(again);
    assert_true(em_tokenizer_hash(t) == em_tokenizer_hash(again));
    em_tokenizer_close(t);
    em_tokenizer_close(again);
}

static void other_alphabets(void **state)
{
    (void)state;
    struct em_tokenizer *t, *again;
    const char *folder = test_directory();
    CHECK_OK(em_tokenizer_characters("x\xc3\xa9\xe2\x82\xac", &t));
    IDS(t, "\xe2\x82\xac\xc3\xa9xA", 0, 9, 8, 7, 6);
    CHECK_OK(em_tokenizer_save(t, folder));
    CHECK_OK(em_tokenizer_open(folder, &again));
    IDS(again, "\xe2\x82\xac\xc3\xa9xA", 0, 9, 8, 7, 6);
    assert_true(em_tokenizer_hash(t) == em_tokenizer_hash(again));
    em_tokenizer_close(t);
    em_tokenizer_close(again);
    CHECK_FAILS(em_tokenizer_characters("", &t), EMBER_E_RANGE, "not empty");
    CHECK_FAILS(em_tokenizer_characters("\xc3", &t), EMBER_E_RANGE, "UTF-8");
    CHECK_FAILS(em_tokenizer_characters("AbA", &t), EMBER_E_RANGE, "\"A\" twice");
}

static void write_config(const char *folder, const char *text)
{
    CHECK_OK(em_write_file(test_path(folder, "tokenizer_config.json"), text, strlen(text)));
}

static void published_folders_name_a_class_alone(void **state)
{
    (void)state;
    struct em_tokenizer *t;
    const char *folder = test_directory();
    write_config(folder, "{\"tokenizer_class\": \"HyenaDNATokenizer\", \"characters\": [\"A\", "
                         "\"C\", \"G\", \"T\", \"N\"]}");
    CHECK_OK(em_tokenizer_open(folder, &t));
    check_nucleotides(t);
    em_tokenizer_close(t);
    write_config(folder, "{\"tokenizer_class\": \"HyenaDNATokenizer\"}");
    CHECK_OK(em_tokenizer_open(folder, &t));
    check_nucleotides(t);
    em_tokenizer_close(t);
    write_config(folder, "{\"tokenizer_class\": \"HyenaDNATokenizer\", \"characters\": [\"AC\"]}");
    CHECK_FAILS(em_tokenizer_open(folder, &t), EMBER_E_FORMAT, "characters[0]");
    write_config(folder, "{\"tokenizer_class\": \"OtherTokenizer\"}");
    CHECK_FAILS(em_tokenizer_open(folder, &t), EMBER_E_UNSUPPORTED, "OtherTokenizer");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nucleotides_have_their_ids),
                                       cmocka_unit_test(other_alphabets),
                                       cmocka_unit_test(published_folders_name_a_class_alone)};
    return cmocka_run_group_tests_name("text/characters", tests, NULL, NULL);
}
