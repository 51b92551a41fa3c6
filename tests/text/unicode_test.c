// UTF-8 and character classes. That every class is the reference's is for the golden test, which
// sends all code points through the tokenizers.
#include <string.h>

#include "support/check.h"
#include "text/unicode.h"

// As Python's bytes.decode("utf-8", errors="replace").
static void broken_utf8_becomes_one_replacement_per_maximal_part(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain \xc3\xa9 \xe4\xb8\xad \xf0\x9f\x98\x80",
         "plain \xc3\xa9 \xe4\xb8\xad \xf0\x9f\x98\x80"},
        {"\xff\xfe", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xc3(", "\xef\xbf\xbd("},
        {"\xe2\x82", "\xef\xbf\xbd"},
        {"\xe2(\xa1", "\xef\xbf\xbd(\xef\xbf\xbd"},
        {"\xf0\x9f\x98x", "\xef\xbf\xbdx"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, // a surrogate
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},                 // an overlong slash
        {"\xe0\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, // past U+10FFFF
        {"\x80\xbf", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"abcdefgh\xc3", "abcdefgh\xef\xbf\xbd"}, // past the eight bytes looked at together
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct em_buf out;
        em_buf_init(&out, 0);
        CHECK_OK(em_utf8_repair((const uint8_t *)cases[i].in, strlen(cases[i].in), &out));
        assert_string_equal(out.data ? out.data : "", cases[i].out);
        assert_int_equal(em_utf8_valid((const uint8_t *)(out.data ? out.data : ""), out.size),
                         out.size);
        em_buf_deinit(&out);
    }
}

static void every_code_point_survives_utf8_both_ways(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        uint8_t bytes[4];
        const unsigned n = em_utf8_put(c, bytes);
        const bool surrogate = c >= 0xD800 && c < 0xE000;
        assert_int_equal(em_utf8_valid(bytes, n) == n, !surrogate);
        if (surrogate) continue;
        const uint8_t *p = bytes;
        assert_int_equal(em_utf8_next(&p), c);
        assert_ptr_equal(p, bytes + n);
        assert_int_equal(em_utf8_previous(&p), c);
        assert_ptr_equal(p, bytes);
    }
}

static void classes_are_those_of_unicode_16(void **state)
{
    (void)state;
    static const struct {
        uint32_t c;
        unsigned class;
    } cases[] = {
        {'a', EM_LETTER},
        {'7', EM_NUMBER},
        {'_', EM_PUNCT},
        {'+', 0},
        {0x1F, 0},
        {0x0B, EM_SPACE},
        {0x85, EM_SPACE},
        {0xA0, EM_SPACE},
        {0xE9, EM_LETTER},
        {0x301, EM_MARK},
        {0x663, EM_NUMBER},
        {0x2160, EM_NUMBER},
        {0xBD, EM_NUMBER},
        {0x2019, EM_PUNCT},
        {0x20AC, 0},
        {0x200B, 0},
        {0x3000, EM_SPACE},
        {0x4E2D, EM_LETTER},
        {0xAC00, EM_LETTER},
        {0x1F600, 0},
        {0x31350, EM_LETTER},
        {0x2EBF0, EM_LETTER},
        {0x1C89, EM_LETTER},
        {0x10FFFF, 0},
        {0x1D7CE, EM_NUMBER},
        {0xE0100, EM_MARK},
        {0x1FFFF, 0},
        {0x20000, EM_LETTER},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (em_class(cases[i].c) != cases[i].class)
            fail_msg("U+%04X has class %u, expected %u", cases[i].c, em_class(cases[i].c),
                     cases[i].class);
    for (uint32_t c = 0; c < 128; c++) // the table for ASCII agrees with the large one
        assert_int_equal(em_class(c), (c >= 9 && c <= 13) ? EM_SPACE : em_class_beyond_ascii(c));
    size_t letters = 0, numbers = 0;
    for (uint32_t c = 0; c < 0x110000; c++) {
        letters += em_class(c) == EM_LETTER;
        numbers += em_class(c) == EM_NUMBER;
    }
    assert_int_equal(letters, 141028);
    assert_int_equal(numbers, 1911);
    assert_int_equal(em_category(0x110000), EM_CN);
    assert_true(em_is_numeric(0x11DE0) && !(em_class(0x11DE0) & EM_NUMBER));
    assert_true(em_is_word('_') && em_is_word(0x24B6) && em_is_word(0x200D) && !em_is_word(0xB2));
}

static void check_nfc(const char *in, const char *expected)
{
    struct em_buf out;
    em_buf_init(&out, 0);
    CHECK_OK(em_nfc((const uint8_t *)in, strlen(in), &out));
    assert_string_equal(out.data, expected);
    if (strcmp(in, expected) != 0) assert_false(em_nfc_is_stable((const uint8_t *)in, strlen(in)));
    em_buf_clear(&out);
    CHECK_OK(
        em_nfc((const uint8_t *)expected, strlen(expected), &out)); // done twice changes nothing
    assert_string_equal(out.data, expected);
    em_buf_deinit(&out);
}

static void nfc_composes_orders_and_leaves_exclusions_apart(void **state)
{
    (void)state;
    check_nfc("e\xcc\x81", "\xc3\xa9");
    check_nfc("s\xcc\x87\xcc\xa3", "\xe1\xb9\xa9"); // marks out of order
    check_nfc("\xe1\xb9\xa9", "\xe1\xb9\xa9");
    check_nfc("\xe2\x84\xab", "\xc3\x85");                             // the Angstrom sign
    check_nfc("\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc");             // excluded from composition
    check_nfc("\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81"); // Hangul by arithmetic
    check_nfc("\xea\xb0\x80\xe1\x86\xa8", "\xea\xb0\x81");
    check_nfc("\xcc\x81"
              "abc",
              "\xcc\x81"
              "abc");                                                  // a mark without a letter
    check_nfc("a\xcd\x8f\xcc\x81", "a\xcd\x8f\xcc\x81");               // a joiner blocks
    check_nfc("\xe0\xb3\x86\xe0\xb3\x82\xe0\xb3\x95", "\xe0\xb3\x8b"); // two steps
}

static void nfc_of_a_megabyte_of_marks_is_not_quadratic(void **state)
{
    (void)state;
    enum { PAIRS = 1 << 18 };
    static char text[PAIRS * 4 + 2];
    text[0] = 'a';
    for (size_t i = 0; i < PAIRS; i++) // 230 and 220 by turns: everything moves
        memcpy(text + 1 + i * 4, "\xcc\x80\xcc\x96", 4);
    struct em_buf out;
    em_buf_init(&out, 0);
    CHECK_OK(em_nfc((const uint8_t *)text, sizeof text - 1, &out));
    assert_int_equal(out.size,
                     sizeof text - 1 - 1); // a and its grave accent are one letter of two bytes
    assert_memory_equal(out.data, "\xc3\xa0\xcc\x96\xcc\x96", 6);
    em_buf_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken_utf8_becomes_one_replacement_per_maximal_part),
        cmocka_unit_test(every_code_point_survives_utf8_both_ways),
        cmocka_unit_test(classes_are_those_of_unicode_16),
        cmocka_unit_test(nfc_composes_orders_and_leaves_exclusions_apart),
        cmocka_unit_test(nfc_of_a_megabyte_of_marks_is_not_quadratic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
