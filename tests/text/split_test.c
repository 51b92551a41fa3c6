// The split patterns on the cases in which their alternatives meet.
#include <string.h>

#include "support/check.h"
#include "text/split.h"

// The pieces, joined by bars.
static void check_split(const struct em_split *split, const char *text, const char *expected)
{
    char joined[512] = "";
    const size_t n = strlen(text);
    size_t position = 0, begin, end;
    while (em_split_next(split, (const uint8_t *)text, n, &position, &begin, &end)) {
        assert_true(begin < end && end <= n);
        if (joined[0]) strcat(joined, "|");
        strncat(joined, text + begin, end - begin);
    }
    assert_string_equal(joined, expected);
}

static void lfm2_pattern(void **state)
{
    (void)state;
    const struct em_split s = {.pattern = EM_PATTERN_LLAMA3};
    check_split(
        &s, "Hello  world\n\n  foo 12345 don'T _x e\xcc\x81 \xe4\xb8\xad\xe6\x96\x87",
        "Hello| | world|\n\n| | foo| |123|45| don|'T| _|x| e|\xcc\x81| \xe4\xb8\xad\xe6\x96\x87");
    check_split(&s, " \t\r\n ", " \t\r\n| ");
    check_split(&s,
                "a\xc2\xa0"
                "b  c   ",
                "a|\xc2\xa0"
                "b| | c|   ");
    check_split(&s, "I'M 'rEx it'\xc5\xbf ''s 'x '", "I|'M| '|rEx| it|'\xc5\xbf| ''|s| '|x| '");
    check_split(&s, "x'rEx''LLy", "x|'rE|x|''|LLy");
    check_split(&s, "x!!\r\n\r\ny", "x|!!\r\n\r\n|y");
    check_split(&s, "  \n \n  x", "  \n \n| | x");
    check_split(&s, "  7  8", " | |7| | |8");
    check_split(&s, "\t\tx\t7", "\t|\tx|\t|7");
    check_split(&s,
                "a \xcc\x81"
                "b",
                "a| \xcc\x81|b");
    check_split(&s, "", "");
}

static void qwen2_pattern_takes_numbers_one_by_one(void **state)
{
    (void)state;
    const struct em_split s = {.pattern = EM_PATTERN_QWEN2};
    check_split(&s, "a1234 b", "a|1|2|3|4| b");
}

static void gpt2_pattern(void **state)
{
    (void)state;
    const struct em_split s = {.pattern = EM_PATTERN_GPT2};
    check_split(&s, "Don't DON'T  x 12345!?\n\ny", "Don|'t| DON|'|T| | x| 12345|!?|\n|\n|y");
    check_split(&s,
                "\xc2\xa0"
                "x \xcc\x81  ",
                "\xc2\xa0|x| \xcc\x81|  ");
    check_split(&s, " 's", " '|s");
}

static void behaviors(void **state)
{
    (void)state;
    struct em_split s = {.pattern = EM_PATTERN_LITERAL, .literal = "-", .literal_size = 1};
    static const struct {
        enum em_split_behavior behavior;
        const char *straight, *inverted;
    } cases[] = {
        {EM_SPLIT_ISOLATED, "The|-|final|-|-|countdown", "The|-|final|-|-|countdown"},
        {EM_SPLIT_REMOVED, "The|final|countdown", "-|-|-"},
        {EM_SPLIT_MERGED_WITH_PREVIOUS, "The-|final-|-|countdown", "The|-final|-|-countdown"},
        {EM_SPLIT_MERGED_WITH_NEXT, "The|-final|-|-countdown", "The-|final-|-|countdown"},
        {EM_SPLIT_CONTIGUOUS, "The|-|final|--|countdown", "The|-|final|--|countdown"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        s.behavior = cases[i].behavior;
        s.invert = false;
        check_split(&s, "The-final--countdown", cases[i].straight);
        s.invert = true;
        check_split(&s, "The-final--countdown", cases[i].inverted);
    }
    const struct em_split digits = {.pattern = EM_PATTERN_NUMERIC, .behavior = EM_SPLIT_CONTIGUOUS};
    check_split(&digits, "a12 34\xc2\xbd", "a|12| |34\xc2\xbd");
}

static void an_unknown_pattern_is_named(void **state)
{
    (void)state;
    enum em_pattern_kind kind;
    CHECK_OK(em_pattern_find("x", em_pattern_lfm2, &kind));
    assert_int_equal(kind, EM_PATTERN_LLAMA3);
    CHECK_FAILS(em_pattern_find("tokenizer.json", "\\d+|\\D+", &kind), EMBER_E_UNSUPPORTED,
                "tokenizer.json: the split pattern \"\\d+|\\D+\" is unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lfm2_pattern),
        cmocka_unit_test(qwen2_pattern_takes_numbers_one_by_one),
        cmocka_unit_test(gpt2_pattern),
        cmocka_unit_test(behaviors),
        cmocka_unit_test(an_unknown_pattern_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
