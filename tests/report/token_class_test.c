// What kind of token some bytes are.
#include <string.h>

#include "base/alloc.h"
#include "report/token_class.h"
#include "support/check.h"

static void bytes_have_the_kind_of_their_first_character(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        enum em_token_class class;
    } cases[] = {
        {"the", EM_KIND_LETTERS},    {" the", EM_KIND_LETTERS},  {"é", EM_KIND_LETTERS},
        {"字", EM_KIND_LETTERS},     {"a1", EM_KIND_LETTERS},    {"1a", EM_KIND_DIGITS},
        {" 42", EM_KIND_DIGITS},     {"٣", EM_KIND_DIGITS},      {" ", EM_KIND_SPACE},
        {"\t  ", EM_KIND_SPACE},     {"\n", EM_KIND_NEWLINE},    {"  \r\n  ", EM_KIND_NEWLINE},
        {"\n  x", EM_KIND_LETTERS},  {".", EM_KIND_PUNCTUATION}, {" ->", EM_KIND_PUNCTUATION},
        {"+=", EM_KIND_PUNCTUATION}, {"€", EM_KIND_PUNCTUATION}, {"\xc3", EM_KIND_OTHER},
        {"\xff\xfe", EM_KIND_OTHER}, {"\x01", EM_KIND_OTHER},    {" \xe2\x82", EM_KIND_OTHER},
        {"", EM_KIND_SPECIAL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const enum em_token_class class = em_token_class_of(cases[i].bytes, strlen(cases[i].bytes));
        if (class != cases[i].class)
            fail_msg("\"%s\" is %s, not %s", cases[i].bytes, em_token_class_name[class],
                     em_token_class_name[cases[i].class]);
    }
}

static void ids_of_a_tokenizer_have_kinds(void **state)
{
    (void)state;
    struct em_tokenizer *t;
    int32_t *class;
    CHECK_OK(em_tokenizer_bytes(&t));
    CHECK_OK(em_token_classes(t, 300, &class)); // a model's vocabulary may be larger
    assert_int_equal(class[1], EM_KIND_SPECIAL);
    assert_int_equal(class[3 + 'x'], EM_KIND_LETTERS);
    assert_int_equal(class[3 + '7'], EM_KIND_DIGITS);
    assert_int_equal(class[3 + ' '], EM_KIND_SPACE);
    assert_int_equal(class[3 + ';'], EM_KIND_PUNCTUATION);
    assert_int_equal(class[3 + '\n'], EM_KIND_NEWLINE);
    assert_int_equal(class[3 + 0xe9], EM_KIND_OTHER);
    assert_int_equal(class[299], EM_KIND_SPECIAL);
    em_free(class);
    em_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_have_the_kind_of_their_first_character),
        cmocka_unit_test(ids_of_a_tokenizer_have_kinds)};
    return cmocka_run_group_tests_name("report/token_class", tests, NULL, NULL);
}
