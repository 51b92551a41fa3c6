// Safetensors files with a hostile meaning.
#include "formats/safetensors.h"
#include "hostile/hostile.h"

#define NAME "dir/model.safetensors"

static void refuse_bytes(const char *what, const unsigned char *data, size_t size, const char *says)
{
    const struct hostile_watch w = hostile_begin(what, NAME, size);
    struct em_safetensors *f;
    const ember_status status = em_safetensors_parse(NAME, data, size, &f);
    if (status == EMBER_OK) em_safetensors_close(f);
    hostile_end(&w, status, says);
}

// The header after its true length, then `bytes` bytes of data.
static void refuse(const char *header, size_t size, size_t bytes, const char *says)
{
    unsigned char *file = calloc(8 + size + bytes, 1);
    assert_non_null(file);
    const uint64_t length = size;
    memcpy(file, &length, sizeof length);
    memcpy(file + 8, header, size);
    refuse_bytes(header, file, 8 + size + bytes, says);
    free(file);
}

struct header_case {
    const char *header;
    size_t bytes; // of data
    const char *says;
};

static void headers(void **state)
{
    (void)state;
    static const struct header_case cases[] = {
        // not an object of tensors
        {"", 0, "header byte 0|'{'|found the end"},
        {" {}", 0, "header byte 0|'{'|found ' '"},
        {"[]", 0, "header byte 0|'{'|found '['"},
        {"null", 0, "header byte 0|'{'|found 'n'"},
        {"{", 0, "header byte 1|found the end"},
        {"{}x", 0, "header byte 2|only spaces|found 'x'"},
        {"{\"a\":3}", 0, "tensor a|'{'|found '3'"},
        {"{\"a\":[]}", 0, "tensor a|'{'|found '['"},
        {"{\"a\":null}", 0, "tensor a|'{'|found 'n'"},
        {"{\"a\":{}}", 0, "tensor a|no dtype"},
        {"{\"a\":{\"dtype\":\"F32\"}}", 0, "tensor a|no shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "tensor a|no data_offsets"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "tensor a|no dtype"},
        {"{\"a\" {}}", 0, "header byte 5|':'"},
        {"{\"a\":{},}", 0, "tensor a|no dtype"},
        {"{a:{}}", 0, "header byte 1|name|found 'a'"},
        // dtypes
        {"{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
         "tensor a|dtype \"F33\"|F32"},
        {"{\"a\":{\"dtype\":\"\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "tensor a|dtype \"\""},
        {"{\"a\":{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
         "tensor a|dtype \"f32\""},
        {"{\"a\":{\"dtype\":4,\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
         "tensor a|dtype|found '4'"},
        {"{\"a\":{\"dtype\":null,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "tensor a|found 'n'"},
        // shapes
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4,
         "tensor a|shape|found '1'"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4,
         "tensor a|non-negative integer|found '-'"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,6]}}", 6,
         "tensor a|found '.'"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1e0],\"data_offsets\":[0,4]}}", 4, "found 'e'"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[01],\"data_offsets\":[0,4]}}", 4,
         "tensor a|non-negative integer"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[[1]],\"data_offsets\":[0,4]}}", 4, "found '['"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[\"1\"],\"data_offsets\":[0,4]}}", 4, "found '\"'"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,],\"data_offsets\":[0,4]}}", 4, "found ']'"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551616],\"data_offsets\":[0,4]}}", 4,
         "tensor a|below 2^64"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551615],\"data_offsets\":[0,4]}}", 4,
         "tensor a|[18446744073709551615]|more than this machine can address"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387905],\"data_offsets\":[0,4]}}", 4,
         "tensor a|[4611686018427387905]|more than this machine can address"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4398046511104,4194304],\"data_offsets\":[0,0]}}", 0,
         "tensor a|[4398046511104, 4194304]|more than this machine can address"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296,0],\"data_offsets\":[0,4]}}", 4,
         "tensor a|takes 0 bytes|[0, 4]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4398046511104],\"data_offsets\":[0,17592186044416]}"
         "}",
         4, "tensor a|byte 17592186044416|the file has 4|truncated"},
        {"{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2,
         "tensor a|F4 [3]|no whole number of bytes"},
        // offsets
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8,
         "tensor a|takes 4 bytes|[0, 8]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
         "tensor a|takes 8 bytes|[0, 4]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "tensor a|[4, 0]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 8,
         "tensor a|data_offsets|found ','"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "found ']'"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":{}}}", 4, "found '{'"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "found '-'"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[18446744073709551612,0]}}", 4,
         "tensor a|18446744073709551612"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[9223372036854775807,"
         "9223372036854775811]}}",
         4, "tensor a|9223372036854775807|hole"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8,
         "tensor a|byte 4|hole|expected 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\","
         "\"shape\":[1],\"data_offsets\":[8,12]}}",
         12, "tensor b|byte 8|hole|expected 4"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\","
         "\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, "tensor b|byte 4|inside another tensor|expected 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\","
         "\"shape\":[1],\"data_offsets\":[0,4]}}",
         4, "tensor b|inside another tensor"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5,
         "end at byte 4|the file has 5"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 3,
         "tensor a|byte 4|the file has 3|truncated"},
        {"{}", 1, "end at byte 0|the file has 1"},
        // twice
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\","
         "\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, "tensor a|twice"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
         "tensor a|each key of a tensor once"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "__metadata__ once"},
        {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "__metadata__|\"a\" twice"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__|found '1'"},
        {"{\"__metadata__\":[]}", 0, "__metadata__|found '['"},
        {"{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}", 0, "__metadata__|found '{'"},
        // texts
        {"{\"\\u0000\":{}}", 0, "escape"},
        {"{\"\\ud800\":{}}", 0, "escape"},
        {"{\"\\udc00\\ud800\":{}}", 0, "escape"},
        {"{\"\xff\":{}}", 0, "UTF-8"},
        {"{\"\xc0\x80\":{}}", 0, "UTF-8"},
        {"{\"a\x01\":{}}", 0, "control characters"},
        {"{\"a", 0, "the end of a string"},
        {"{\"a\\", 0, "the end of a string"},
        {"{\"a\":{\"x\":tru}}", 0, "tensor a|a value|found 't'"},
        {"{\"a\":{\"x\":NaN}}", 0, "tensor a|a value|found 'N'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse(cases[i].header, strlen(cases[i].header), cases[i].bytes, cases[i].says);
    hostile_report(60);
}

static void lengths(void **state)
{
    (void)state;
    static const struct {
        uint64_t length;
        const char *says;
    } cases[] = {
        {3, "3 bytes"},
        {100, "header of 100 bytes|only 10"},
        {100000000, "header of 100000000 bytes|only 10"},
        {100000001, "header of 100000001 bytes|at most 100000000"},
        {(uint64_t)1 << 42, "header of 4398046511104 bytes|at most 100000000"},
        {(uint64_t)1 << 63, "header of 9223372036854775808 bytes|at most 100000000"},
        {UINT64_MAX, "header of 18446744073709551615 bytes|at most 100000000"},
        {UINT64_MAX - 7, "header of 18446744073709551608 bytes|at most 100000000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char file[10] = {0};
        memcpy(file, &cases[i].length, 8);
        memcpy(file + 8, "{}", 2);
        refuse_bytes("a length", file, i ? sizeof file : 3, cases[i].says);
    }
    refuse_bytes("nothing", (const unsigned char *)"", 0, "0 bytes|at least 8");
    static const unsigned char zip[16] = "PK\x03\x04", pickle[16] = "\x80\x02}q";
    refuse_bytes("a zip", zip, sizeof zip, "pickle");
    refuse_bytes("a pickle", pickle, sizeof pickle, "pickle");
    hostile_report(11);
}

static void deep_and_many(void **state)
{
    (void)state;
    static const size_t depths[] = {65, 3000, 100000};
    for (size_t i = 0; i < 3; i++) {
        char *value = hostile_nested(depths[i], "[", "1", "]"),
             *object = hostile_nested(depths[i], "{\"a\":", "1", "}");
        char *header = malloc(strlen(object) + 64);
        sprintf(header, "{\"a\":{\"x\":%s}}", value);
        refuse(header, strlen(header), 0, "tensor a|64 nested values");
        sprintf(header, "{\"a\":{\"x\":%s}}", object);
        refuse(header, strlen(header), 0, "tensor a|64 nested values");
        value[depths[i]] = 0; // and never closed
        sprintf(header, "{\"a\":{\"x\":%s", value);
        refuse(header, strlen(header), 0, "tensor a|64 nested values");
        free(value);
        free(object);
        free(header);
    }
    // A shape of 200,000 dimensions of 1, and one of them 2.
    enum { RANK = 200000 };
    char *shape = malloc(RANK * 2 + 100);
    size_t n =
        (size_t)sprintf(shape, "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1],\"shape\":[2");
    for (size_t i = 0; i < RANK; i++)
        n += (size_t)sprintf(shape + n, ",1");
    n += (size_t)sprintf(shape + n, "]}}");
    refuse(shape, n, 1, "tensor a|takes 2 bytes|[0, 1]");
    free(shape);
    hostile_report(10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers),
        cmocka_unit_test(lengths),
        cmocka_unit_test(deep_and_many),
    };
    return cmocka_run_group_tests(tests, hostile_setup, NULL);
}
