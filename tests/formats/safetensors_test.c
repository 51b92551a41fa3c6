#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/io.h"
#include "formats/files.h"
#include "formats/safetensors.h"
#include "formats/safetensors_header.h"

// A file of this header and `data` bytes 0, 1, 2, ...
static unsigned char *build(const char *header, size_t data, size_t *size)
{
    const uint64_t n = strlen(header);
    *size = 8 + (size_t)n + data;
    unsigned char *p = em_alloc(*size);
    assert_non_null(p);
    memcpy(p, &n, 8);
    memcpy(p + 8, header, (size_t)n);
    for (size_t i = 0; i < data; i++)
        p[8 + n + i] = (unsigned char)i;
    return p;
}

static ember_status parse(const char *header, size_t data, struct em_safetensors **f)
{
    size_t size;
    unsigned char *p = build(header, data, &size);
    // A copy of the exact size, so that the sanitizer sees one byte too far.
    ember_status status = em_safetensors_parse("t.safetensors", p, size, f);
    if (status == EMBER_OK && em_safetensors_count(*f) > 0) {
        // The data go with `p`: tests of accepted files look at headers only.
        assert_true(em_safetensors_at(*f, 0)->data >= p);
    }
    em_free(p);
    return status;
}

static void accepts(const char *header, size_t data, size_t count)
{
    struct em_safetensors *f = NULL;
    const ember_status status = parse(header, data, &f);
    if (status != EMBER_OK) fail_msg("%s: %s", header, ember_last_error());
    assert_int_equal(em_safetensors_count(f), count);
    em_safetensors_close(f);
}

static void refuses(const char *header, size_t data, ember_status expected, const char *says)
{
    struct em_safetensors *f = NULL;
    const ember_status status = parse(header, data, &f);
    if (status == EMBER_OK) em_safetensors_close(f);
    if (status != expected)
        fail_msg("%.80s: status %s: %s", header, ember_status_name(status), ember_last_error());
    if (!strstr(ember_last_error(), says))
        fail_msg("%.80s: \"%s\" does not say \"%s\"", header, ember_last_error(), says);
    assert_non_null(strstr(ember_last_error(), "t.safetensors"));
}

#define TWO                                                                                        \
    "{\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"a\":{\"dtype\":\"BF16\","   \
    "\"shape\":[1,2],\"data_offsets\":[8,12]}}"

static void tensors_are_found_by_name_and_listed_in_the_order_of_their_data(void **state)
{
    (void)state;
    size_t size;
    unsigned char *p = build("{\"a\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[8,12]},"
                             "\"__metadata__\":{\"format\":\"pt\",\"x\":\"\"},"
                             "\"b\":{\"data_offsets\":[0,8],\"shape\":[2],\"dtype\":\"F32\"}}   ",
                             12, &size);
    struct em_safetensors *f;
    assert_int_equal(em_safetensors_parse("x", p, size, &f), EMBER_OK);
    assert_int_equal(em_safetensors_count(f), 2);
    assert_string_equal(em_safetensors_at(f, 0)->name, "b");
    const struct em_st_tensor *a = em_safetensors_find(f, "a");
    assert_non_null(a);
    assert_int_equal(a->dtype, EM_ST_BF16);
    assert_int_equal(a->rank, 2);
    assert_int_equal(a->shape[0], 1);
    assert_int_equal(a->shape[1], 2);
    assert_int_equal(a->elements, 2);
    assert_int_equal(a->bytes, 4);
    assert_ptr_equal(a->data, p + size - 4);
    assert_null(em_safetensors_find(f, "c"));
    assert_string_equal(em_safetensors_metadata(f, "format"), "pt");
    assert_int_equal(em_safetensors_metadata_count(f), 2);
    assert_null(em_safetensors_metadata(f, "y"));
    em_safetensors_close(f);
    em_free(p);
}

static void legal_oddities_are_accepted(void **state)
{
    (void)state;
    accepts("{}", 0, 0);
    accepts("{ }  ", 0, 0);
    accepts("{\"__metadata__\":{}}", 0, 0);
    accepts("{\"s\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]}}", 8, 1); // rank 0
    accepts("{\"z\":{\"dtype\":\"I64\",\"shape\":[0,7],\"data_offsets\":[0,0]}}", 0, 1);
    accepts("{\"z\":{\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[2,2]},\"y\":{\"dtype\":"
            "\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
            2, 2);
    accepts(
        "{\"z\":{\"dtype\":\"U8\",\"shape\":[18446744073709551615,0,4],\"data_offsets\":[0,0]}}", 0,
        1);
    accepts("{\"f\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]}}", 2, 1);
    accepts("{\"f\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"later\":{\"a\":[1,-2."
            "5e3,true,null,\"\\u0041\"]}}}",
            1, 1);
    accepts("{\"\\u00e9\\ud83d\\ude00\\n\\\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,"
            "1]}}",
            1, 1);
    accepts("{\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, 1);
}

static void hostile_headers_are_refused_with_their_reason(void **state)
{
    (void)state;
    // Dimensions that multiply to the size announced only after wrapping.
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[4398046511104,4398046511104,2],\"data_offsets\":["
            "0,8]}}",
            8, EMBER_E_FORMAT, "tensor a");
    refuses("{\"a\":{\"dtype\":\"F64\",\"shape\":[2305843009213693953],\"data_offsets\":[0,8]}}", 8,
            EMBER_E_FORMAT, "tensor a");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[18446744073709551616],\"data_offsets\":[0,8]}}", 8,
            EMBER_E_FORMAT, "2^64");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,8]}}", 8, EMBER_E_FORMAT,
            "non-negative");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1e3],\"data_offsets\":[0,8]}}", 8, EMBER_E_FORMAT,
            "shape");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[08],\"data_offsets\":[0,8]}}", 8, EMBER_E_FORMAT,
            "integer");
    refuses("{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, EMBER_E_FORMAT,
            "tensor a");
    // Places.
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 3, EMBER_E_FORMAT,
            "truncated");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 5, EMBER_E_FORMAT,
            "the file has 5");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[1,5]}}", 5, EMBER_E_FORMAT,
            "hole");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,0]}}", 4, EMBER_E_FORMAT,
            "data_offsets");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[18446744073709551612,"
            "18446744073709551615]}}",
            4, EMBER_E_FORMAT, "tensor a");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"b\":{\"dtype\":"
            "\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}",
            6, EMBER_E_FORMAT, "inside another");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"b\":{\"dtype\":"
            "\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
            4, EMBER_E_FORMAT, "inside another");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"b\":{\"dtype\":"
            "\"U8\",\"shape\":[4],\"data_offsets\":[6,10]}}",
            10, EMBER_E_FORMAT, "hole");
    refuses("{}", 1, EMBER_E_FORMAT, "the file has 1");
    // Names.
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"a\":{\"dtype\":"
            "\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
            2, EMBER_E_FORMAT, "twice");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"\\u0061\":{\"dtype\":"
            "\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
            2, EMBER_E_FORMAT, "twice");
    refuses("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, EMBER_E_FORMAT, "twice");
    refuses("{\"__metadata__\":{},\"__metadata__\":{}}", 0, EMBER_E_FORMAT, "once");
    refuses("{\"__metadata__\":{\"k\":1}}", 0, EMBER_E_FORMAT, "string");
    refuses("{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
            EMBER_E_FORMAT, "NUL");
    refuses("{\"\xff\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, EMBER_E_FORMAT,
            "UTF-8");
    refuses("{\"\xed\xa0\x80\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
            EMBER_E_FORMAT, "UTF-8");
    refuses("{\"\\ud800\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
            EMBER_E_FORMAT, "escape");
    refuses("{\"a\nb\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, EMBER_E_FORMAT,
            "control");
    // Members.
    refuses("{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, EMBER_E_FORMAT, "no dtype");
    refuses("{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, EMBER_E_FORMAT, "no shape");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, EMBER_E_FORMAT, "no data_offsets");
    refuses("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
            EMBER_E_FORMAT, "once");
    refuses("{\"a\":{\"dtype\":\"Q3\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
            EMBER_E_UNSUPPORTED, "Q3");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", 1, EMBER_E_FORMAT,
            "two");
    // JSON.
    refuses(" {}", 0, EMBER_E_FORMAT, "'{'");
    refuses("", 0, EMBER_E_FORMAT, "'{'");
    refuses("{}x", 0, EMBER_E_FORMAT, "only spaces");
    refuses("{\"a\"", 0, EMBER_E_FORMAT, "':'");
    refuses("{\"a", 0, EMBER_E_FORMAT, "end of a string");
    refuses("{\"a\\", 0, EMBER_E_FORMAT, "end of a string");
    refuses("{\"a\":{\"dtype\":\"U8\",},}", 0, EMBER_E_FORMAT, "key");
    refuses("[]", 0, EMBER_E_FORMAT, "'{'");
}

static void nesting_is_limited(void **state)
{
    (void)state;
    struct em_buf b;
    em_buf_init(&b, 0);
    assert_int_equal(em_buf_puts(&b, "{\"a\":{\"x\":"), EMBER_OK);
    for (int i = 0; i < 100000; i++)
        assert_int_equal(em_buf_putc(&b, '['), EMBER_OK);
    refuses(b.data, 0, EMBER_E_FORMAT, "nested");
    em_buf_deinit(&b);
}

static void header_lengths_beyond_the_file_or_the_limit_are_refused(void **state)
{
    (void)state;
    struct em_safetensors *f;
    for (size_t n = 0; n < 8; n++) {
        unsigned char *p = em_calloc(1, n + 1);
        assert_int_equal(em_safetensors_parse("t", p, n, &f), EMBER_E_FORMAT);
        em_free(p);
    }
    const uint64_t lengths[] = {3,          100000000,      100000001,
                                UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        unsigned char p[10] = {0};
        memcpy(p, &lengths[i], 8);
        p[8] = '{';
        p[9] = '}';
        assert_int_equal(em_safetensors_parse("t", p, sizeof p, &f), EMBER_E_FORMAT);
        assert_non_null(strstr(ember_last_error(), "header of"));
    }
}

// Every truncation, and every bit: refused, or accepted and consistent.
static void truncations_and_flipped_bits_never_get_past_the_checks(void **state)
{
    (void)state;
    size_t size, accepted = 0;
    unsigned char *p = build(TWO, 12, &size);
    struct em_safetensors *f;
    for (size_t n = 0; n < size; n++) {
        unsigned char *cut = em_alloc(n + 1);
        memcpy(cut, p, n);
        assert_int_not_equal(em_safetensors_parse("t", cut, n, &f), EMBER_OK);
        em_free(cut);
    }
    for (size_t bit = 0; bit < size * 8; bit++) {
        p[bit / 8] ^= (unsigned char)(1u << bit % 8);
        if (em_safetensors_parse("t", p, size, &f) == EMBER_OK) {
            accepted++;
            size_t total = 0;
            for (size_t i = 0; i < em_safetensors_count(f); i++) {
                const struct em_st_tensor *t = em_safetensors_at(f, i);
                assert_true(t->data >= p && t->data + t->bytes <= p + size);
                total += t->bytes;
            }
            assert_int_equal(total, 12);
            em_safetensors_close(f);
        }
        p[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    assert_true(accepted >= 12 * 8); // flips in the data are not the header's to find
    em_free(p);
}

static void values_become_floats(void **state)
{
    (void)state;
    const uint16_t bf16[] = {0x3f80, 0xc000, 0x7f80, 0x0001};
    float f[4];
    unsigned char odd[33]; // unaligned on purpose
    memcpy(odd + 1, bf16, sizeof bf16);
    assert_int_equal(em_st_to_f32(EM_ST_BF16, odd + 1, f, 4), EMBER_OK);
    assert_true(f[0] == 1 && f[1] == -2 && isinf(f[2]) && f[3] == 0x1p-133f);
    const uint16_t f16[] = {0x3c00, 0xfbff, 0x0001, 0x03ff};
    memcpy(odd + 1, f16, sizeof f16);
    assert_int_equal(em_st_to_f32(EM_ST_F16, odd + 1, f, 4), EMBER_OK);
    assert_true(f[0] == 1 && f[1] == -65504 && f[2] == 0x1p-24f && f[3] == 1023 * 0x1p-24f);
    const double f64[] = {0.1, -3, 1e300, 0};
    memcpy(odd + 1, f64, sizeof f64);
    assert_int_equal(em_st_to_f32(EM_ST_F64, odd + 1, f, 4), EMBER_OK);
    assert_true(f[0] == 0.1f && f[1] == -3 && isinf(f[2]));
    const float f32[] = {1.5f, -2};
    memcpy(odd + 1, f32, sizeof f32);
    assert_int_equal(em_st_to_f32(EM_ST_F32, odd + 1, f, 2), EMBER_OK);
    assert_true(f[0] == 1.5f && f[1] == -2);
    assert_int_equal(em_st_to_f32(EM_ST_I32, odd, f, 1), EMBER_E_UNSUPPORTED);
}

static const float ones[6] = {1, 2, 3, 4, 5, 6};
static const int64_t wide[2] = {-1, 7};

// Tensor 2's values: its own offset, one byte each.
static ember_status counting(void *context, size_t index, size_t offset, void *to, size_t bytes)
{
    assert_int_equal(index, 2);
    assert_int_equal(offset % 8, 0);
    *(size_t *)context += bytes;
    for (size_t i = 0; i < bytes; i++)
        ((unsigned char *)to)[i] = (unsigned char)((offset + i) % 251);
    return EMBER_OK;
}

enum { STREAMED = (5 << 20) / 2 + 3 };

static const size_t two_three[] = {2, 3}, two[] = {2}, streamed[] = {STREAMED}, none[] = {0};
static const struct em_st_output outputs[] = {
    {"w.b", two_three, ones, 2, EM_ST_F32}, {"ids", two, wide, 1, EM_ST_I64},
    {"bytes", streamed, NULL, 1, EM_ST_U8}, {"w.a", two_three, ones, 2, EM_ST_F32},
    {"scalar", NULL, ones, 0, EM_ST_F32},   {"empty \"\\\n", none, NULL, 1, EM_ST_BF16},
};

static void what_is_written_is_read_back(void **state)
{
    const char *path = in_folder(*state, "model.safetensors");
    size_t asked = 0;
    assert_int_equal(em_safetensors_write(
                         path, &(struct em_st_write){outputs, 6, NULL, 0, counting, &asked, false}),
                     EMBER_OK);
    assert_int_equal(asked, STREAMED);
    struct em_safetensors *f;
    assert_int_equal(em_safetensors_open(path, &f), EMBER_OK);
    // The order of the reference writer.
    static const char *const order[] = {"ids", "scalar", "w.a", "w.b", "empty \"\\\n", "bytes"};
    assert_int_equal(em_safetensors_count(f), 6);
    for (size_t i = 0; i < 6; i++)
        assert_string_equal(em_safetensors_at(f, i)->name, order[i]);
    assert_int_equal((uintptr_t)em_safetensors_at(f, 0)->data % 8, 0); // the header is padded
    assert_memory_equal(em_safetensors_find(f, "ids")->data, wide, sizeof wide);
    assert_memory_equal(em_safetensors_find(f, "w.b")->data, ones, sizeof ones);
    const struct em_st_tensor *t = em_safetensors_find(f, "bytes");
    for (size_t i = 0; i < STREAMED; i++)
        if (t->data[i] != i % 251) fail_msg("byte %zu", i);
    assert_int_equal(em_safetensors_find(f, "scalar")->rank, 0);
    assert_string_equal(em_safetensors_metadata(f, "format"), "pt");
    assert_string_equal(em_safetensors_path(f), path);
    em_safetensors_close(f);
}

static void metadata_are_written(void **state)
{
    const char *path = in_folder(*state, "m.safetensors");
    const struct em_st_pair metadata[] = {{"format", "pt"}, {"tab\t", "caf\xc3\xa9"}};
    assert_int_equal(em_safetensors_write(
                         path, &(struct em_st_write){outputs, 1, metadata, 2, NULL, NULL, false}),
                     EMBER_OK);
    struct em_safetensors *f;
    assert_int_equal(em_safetensors_open(path, &f), EMBER_OK);
    assert_string_equal(em_safetensors_metadata(f, "tab\t"), "caf\xc3\xa9");
    em_safetensors_close(f);
}

static void names_that_no_reader_takes_are_refused(void **state)
{
    const char *path = in_folder(*state, "n.safetensors");
    const struct em_st_output twice[] = {outputs[0], outputs[1], outputs[0]},
                              reserved[] = {{"__metadata__", two, wide, 1, EM_ST_I64}},
                              broken[] = {{"a\xff", two, wide, 1, EM_ST_I64}},
                              huge[] = {{"h", (size_t[]){SIZE_MAX / 2, 3}, wide, 2, EM_ST_I64}};
    assert_int_equal(
        em_safetensors_write(path, &(struct em_st_write){.tensors = twice, .count = 3}),
        EMBER_E_FORMAT);
    assert_non_null(strstr(ember_last_error(), "w.b"));
    assert_int_equal(
        em_safetensors_write(path, &(struct em_st_write){.tensors = reserved, .count = 1}),
        EMBER_E_FORMAT);
    assert_int_equal(
        em_safetensors_write(path, &(struct em_st_write){.tensors = broken, .count = 1}),
        EMBER_E_FORMAT);
    assert_int_equal(em_safetensors_write(path, &(struct em_st_write){.tensors = huge, .count = 1}),
                     EMBER_E_RANGE);
    assert_false(em_path_exists(path));
}

static ember_status refusing(void *context, size_t index, size_t offset, void *to, size_t bytes)
{
    (void)context, (void)index, (void)to, (void)bytes;
    return offset < (2 << 20) ? EMBER_OK : em_fail(EMBER_E_NUMERIC, "tensor bytes: not a number");
}

static void a_source_that_fails_leaves_the_old_file(void **state)
{
    const char *path = in_folder(*state, "s.safetensors");
    assert_int_equal(
        em_safetensors_write(path, &(struct em_st_write){.tensors = outputs, .count = 2}),
        EMBER_OK);
    assert_int_equal(em_safetensors_write(
                         path, &(struct em_st_write){outputs, 6, NULL, 0, refusing, NULL, false}),
                     EMBER_E_NUMERIC);
    struct em_safetensors *f;
    assert_int_equal(em_safetensors_open(path, &f), EMBER_OK);
    assert_int_equal(em_safetensors_count(f), 2);
    em_safetensors_close(f);
    assert_int_equal(count_files(*state), 1); // and no temporary
}

static void pickle_is_not_read(void **state)
{
    struct em_safetensors *f;
    const char *path = in_folder(*state, "pytorch_model.bin");
    assert_int_equal(em_write_file(path, "x", 1), EMBER_OK);
    assert_int_equal(em_safetensors_open(path, &f), EMBER_E_UNSUPPORTED);
    assert_non_null(strstr(ember_last_error(), "torch.load"));
    assert_non_null(strstr(ember_last_error(), "pytorch_model.bin"));
    path = in_folder(*state, "model.safetensors"); // by content, whatever the name
    assert_int_equal(em_write_file(path, "PK\3\4abcdefghijklmnop", 20), EMBER_OK);
    assert_int_equal(em_safetensors_open(path, &f), EMBER_E_UNSUPPORTED);
    assert_int_equal(em_write_file(path, "\x80\2}q\0(X\5\0\0\0", 12), EMBER_OK);
    assert_int_equal(em_safetensors_open(path, &f), EMBER_E_UNSUPPORTED);
}

static void a_missing_file_is_named(void **state)
{
    struct em_safetensors *f;
    assert_int_equal(em_safetensors_open(in_folder(*state, "nowhere.safetensors"), &f), EMBER_E_IO);
    assert_non_null(strstr(ember_last_error(), "nowhere.safetensors"));
}

// Every allocation in turn fails while a file is opened.
static void running_out_of_memory_is_a_status(void **state)
{
    (void)state;
    size_t size;
    unsigned char *p = build(TWO, 12, &size);
    struct em_safetensors *f;
    ember_status status = EMBER_E_NOMEM;
    size_t n = 0;
    while (status != EMBER_OK) {
        em_alloc_fail_at(++n, 0);
        status = em_safetensors_parse("t", p, size, &f);
        em_alloc_fail_at(0, 0);
        if (status != EMBER_OK && status != EMBER_E_NOMEM)
            fail_msg("%zu: %s", n, ember_last_error());
        assert_true(n < 1000);
    }
    assert_true(n > 3);
    em_safetensors_close(f);
    em_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_are_found_by_name_and_listed_in_the_order_of_their_data),
        cmocka_unit_test(legal_oddities_are_accepted),
        cmocka_unit_test(hostile_headers_are_refused_with_their_reason),
        cmocka_unit_test(nesting_is_limited),
        cmocka_unit_test(header_lengths_beyond_the_file_or_the_limit_are_refused),
        cmocka_unit_test(truncations_and_flipped_bits_never_get_past_the_checks),
        cmocka_unit_test(values_become_floats),
        cmocka_unit_test(running_out_of_memory_is_a_status),
        cmocka_unit_test_setup_teardown(what_is_written_is_read_back, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(metadata_are_written, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(names_that_no_reader_takes_are_refused, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(a_source_that_fails_leaves_the_old_file, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(pickle_is_not_read, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_missing_file_is_named, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
