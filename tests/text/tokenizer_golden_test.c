// labels: golden
// Ids and texts as Hugging Face's tokenizers makes them (tools/make_tokenizer_goldens.py), for a
// tokenizer of every pipeline: adversarial texts, and every code point.
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/json.h"
#include "support/check.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

#define FOLDER EMBER_TESTS_DIR "/golden/tokenizer"

static json_t *texts;

static int read_texts(void **state)
{
    (void)state;
    return em_json_read(FOLDER "/texts.json", 0, 0, &texts) == EMBER_OK ? 0 : 1;
}

static int free_texts(void **state)
{
    (void)state;
    json_decref(texts);
    return 0;
}

static void from_hex(const json_t *hex, struct em_buf *out)
{
    const char *s = json_string_value(hex);
    em_buf_clear(out);
    for (unsigned byte; s[0] && sscanf(s, "%2x", &byte) == 1; s += 2)
        CHECK_OK(em_buf_putc(out, (char)byte));
}

static void check_ids(const char *name, size_t text, const struct em_ids *found,
                      const json_t *expected)
{
    bool equal = found->count == json_array_size(expected);
    for (size_t i = 0; equal && i < found->count; i++)
        equal = found->ids[i] == json_integer_value(json_array_get(expected, i));
    if (equal) return;
    print_error("%s: text %zu: found", name, text);
    for (size_t i = 0; i < found->count; i++)
        print_error(" %d", found->ids[i]);
    print_error("\nexpected");
    for (size_t i = 0; i < json_array_size(expected); i++)
        print_error(" %lld", (long long)json_integer_value(json_array_get(expected, i)));
    print_error("\n");
    fail();
}

static void check_texts(const char *name, const struct em_tokenizer *t, struct em_encoder *e,
                        const json_t *expected)
{
    struct em_buf text, back, repaired;
    struct em_ids ids = {0};
    em_buf_init(&text, 0);
    em_buf_init(&back, 0);
    em_buf_init(&repaired, 0);
    for (size_t i = 0; i < json_array_size(texts); i++) {
        const json_t *with = json_array_get(json_object_get(expected, "ids"), i),
                     *plain = json_array_get(json_object_get(expected, "plain"), i),
                     *decoded = json_array_get(json_object_get(expected, "decoded"), i);
        from_hex(json_array_get(texts, i), &text);
        ids.count = 0;
        CHECK_OK(em_encode(e, text.data, text.size, 0, &ids));
        check_ids(name, i, &ids, json_is_null(plain) ? with : plain);
        ids.count = 0;
        CHECK_OK(em_encode(e, text.data, text.size, EM_ENCODE_DEFAULT, &ids));
        check_ids(name, i, &ids, with);
        if (json_is_false(decoded)) continue;
        em_buf_clear(&repaired);
        em_buf_clear(&back);
        if (json_is_string(decoded))
            from_hex(decoded, &repaired);
        else
            CHECK_OK(em_utf8_repair((const uint8_t *)text.data, text.size, &repaired));
        CHECK_OK(em_decode(t, ids.ids, ids.count, 0, &back));
        assert_int_equal(back.size, repaired.size);
        if (back.size) assert_memory_equal(back.data, repaired.data, back.size);
    }
    em_ids_deinit(&ids);
    em_buf_deinit(&text);
    em_buf_deinit(&back);
    em_buf_deinit(&repaired);
}

static uint64_t fnv(uint64_t h, const struct em_ids *ids)
{
    for (size_t i = 0; i < ids->count; i++)
        for (unsigned b = 0; b < 4; b++)
            h = (h ^ ((uint32_t)ids->ids[i] >> 8 * b & 255)) * 0x100000001B3;
    return h;
}

// Every code point between letters, 4096 at a time.
static void check_planes(const char *name, struct em_encoder *e, const json_t *expected)
{
    struct em_buf text;
    struct em_ids ids = {0};
    em_buf_init(&text, 0);
    size_t block = 0;
    for (uint32_t first = 0; first < 0x110000; first += 4096) {
        em_buf_clear(&text);
        for (uint32_t c = first; c < first + 4096; c++) {
            uint8_t bytes[4];
            if (c >= 0xD800 && c < 0xE000) continue;
            CHECK_OK(em_buf_putc(&text, 'a'));
            CHECK_OK(em_buf_add(&text, bytes, em_utf8_put(c, bytes)));
            CHECK_OK(em_buf_puts(&text, " b"));
        }
        if (text.size == 0) continue;
        uint64_t h = 0xCBF29CE484222325;
        ids.count = 0;
        CHECK_OK(em_encode(e, text.data, text.size, EM_ENCODE_DEFAULT, &ids));
        h = fnv(h, &ids);
        ids.count = 0;
        CHECK_OK(em_encode(e, text.data, text.size, 0, &ids));
        h = fnv(h, &ids);
        char hex[17];
        snprintf(hex, sizeof hex, "%016llx", (unsigned long long)h);
        const char *want = json_string_value(json_array_get(expected, block++));
        if (!want || strcmp(hex, want) != 0)
            fail_msg("%s: other ids for a code point from U+%04X to U+%04X", name, first,
                     first + 4095);
    }
    assert_int_equal(block, json_array_size(expected));
    em_ids_deinit(&ids);
    em_buf_deinit(&text);
}

static void check_tokenizer(const char *name)
{
    char path[512];
    json_t *expected = NULL;
    struct em_tokenizer *t = NULL, *again = NULL;
    struct em_encoder *e = NULL;
    snprintf(path, sizeof path, FOLDER "/%s/expected.json", name);
    CHECK_OK(em_json_read(path, 0, 0, &expected));
    snprintf(path, sizeof path, FOLDER "/%s", name);
    CHECK_OK(em_tokenizer_open(path, &t));
    CHECK_OK(em_encoder_create(t, &e));
    check_texts(name, t, e, expected);
    check_planes(name, e, json_object_get(expected, "planes"));
    em_encoder_destroy(e);
    // What Ember writes of it is the same tokenizer.
    const char *saved = test_directory();
    CHECK_OK(em_tokenizer_save(t, saved));
    CHECK_OK(em_tokenizer_open(saved, &again));
    assert_int_equal(em_tokenizer_hash(again), em_tokenizer_hash(t));
    assert_int_equal(em_tokenizer_bos(again), em_tokenizer_bos(t));
    assert_int_equal(em_tokenizer_eos(again), em_tokenizer_eos(t));
    CHECK_OK(em_encoder_create(again, &e));
    check_texts(name, again, e, expected);
    em_encoder_destroy(e);
    em_tokenizer_close(again);
    em_tokenizer_close(t);
    json_decref(expected);
}

#define GOLDEN(name)                                                                               \
    static void name##_ids_equal_the_reference(void **state)                                       \
    {                                                                                              \
        (void)state;                                                                               \
        check_tokenizer(#name);                                                                    \
    }
GOLDEN(gpt2)
GOLDEN(lfm2)
GOLDEN(qwen2)
GOLDEN(smollm2)
GOLDEN(neox)
GOLDEN(roberta)
GOLDEN(holes)
GOLDEN(dropped)
GOLDEN(cl100k)
GOLDEN(literal)
GOLDEN(pairs_form)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_ids_equal_the_reference),
        cmocka_unit_test(lfm2_ids_equal_the_reference),
        cmocka_unit_test(qwen2_ids_equal_the_reference),
        cmocka_unit_test(smollm2_ids_equal_the_reference),
        cmocka_unit_test(neox_ids_equal_the_reference),
        cmocka_unit_test(roberta_ids_equal_the_reference),
        cmocka_unit_test(holes_ids_equal_the_reference),
        cmocka_unit_test(dropped_ids_equal_the_reference),
        cmocka_unit_test(cl100k_ids_equal_the_reference),
        cmocka_unit_test(literal_ids_equal_the_reference),
        cmocka_unit_test(pairs_form_ids_equal_the_reference),
    };
    return cmocka_run_group_tests(tests, read_texts, free_texts);
}
