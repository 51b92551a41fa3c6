// Text as it is made: whole characters, and stop strings that never show.
#include <string.h>

#include "infer/text_stream.h"
#include "support/check.h"
#include "text/unicode.h"

static struct em_tokenizer *tokenizer;

struct pieces {
    struct em_buf text, marked; // all of it; and with | after each piece
};

static ember_status collect(void *context, const char *text, size_t n)
{
    struct pieces *p = context;
    assert_true(n > 0);
    assert_int_equal(em_utf8_valid((const uint8_t *)text, n), n);
    CHECK_OK(em_buf_add(&p->text, text, n));
    CHECK_OK(em_buf_add(&p->marked, text, n));
    return em_buf_putc(&p->marked, '|');
}

// Feeds the bytes one by one; `marked` is the pieces that come out, `stopped` whether a stop string
// came.
static void check_stream(const char *bytes, const char *const *stop, size_t n_stop,
                         const char *marked, bool stopped)
{
    struct pieces p = {0};
    struct em_text_stream s = {
        .tokenizer = tokenizer, .stops = {stop, n_stop}, .write = collect, .context = &p};
    for (const char *c = bytes; *c && !s.stopped; c++)
        CHECK_OK(em_text_stream_push(&s, 3 + (uint8_t)*c));
    CHECK_OK(em_text_stream_end(&s));
    assert_string_equal(p.marked.data ? p.marked.data : "", marked);
    assert_int_equal(s.stopped, stopped);
    em_text_stream_deinit(&s);
    em_buf_deinit(&p.text);
    em_buf_deinit(&p.marked);
}

static void characters_come_whole(void **state)
{
    (void)state;
    check_stream("a\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e!", NULL, 0,
                 "a|\xc3\xa9|\xe2\x82\xac|\xf0\x9d\x84\x9e|!|", false);
    // A character that the end, or another one, cuts short.
    check_stream("a\xe2\x82", NULL, 0, "a|\xef\xbf\xbd|", false);
    check_stream("\xe2\x82z", NULL, 0, "\xef\xbf\xbdz|", false);
    check_stream("", NULL, 0, "", false);
}

static void special_tokens_have_no_text(void **state)
{
    (void)state;
    struct pieces p = {0};
    struct em_text_stream s = {.tokenizer = tokenizer, .write = collect, .context = &p};
    CHECK_OK(em_text_stream_push(&s, 3 + 'a'));
    CHECK_OK(em_text_stream_push(&s, 1));
    CHECK_OK(em_text_stream_push(&s, 5000)); // of a padded vocabulary
    CHECK_OK(em_text_stream_push(&s, 3 + 'b'));
    CHECK_OK(em_text_stream_end(&s));
    assert_string_equal(p.marked.data, "a|b|");
    em_text_stream_deinit(&s);
    em_buf_deinit(&p.text);
    em_buf_deinit(&p.marked);
}

static void stop_strings_end_the_text_and_never_show(void **state)
{
    (void)state;
    check_stream("one END two", (const char *[]){"END"}, 1, "o|n|e| |", true);
    // What only looks like one is given as soon as that is known.
    check_stream("a ENx E", (const char *[]){"END"}, 1, "a| |ENx| |E|", false);
    check_stream("EEND", (const char *[]){"END"}, 1, "E|", true);
    check_stream("aabaac", (const char *[]){"aac"}, 1, "aab|", true);
    // The earliest of several, and of those that begin together any.
    check_stream("xyz", (const char *[]){"z", "yz"}, 2, "x|", true);
    check_stream("xyz", (const char *[]){"xyzw", "y"}, 2, "x|", true);
    check_stream("xyz", (const char *[]){"", "q"}, 2, "x|y|z|", false);
    // A stop string within characters of several bytes.
    check_stream("\xe2\x82\xac\xc3\xa9", (const char *[]){"\xc3\xa9"}, 1, "\xe2\x82\xac|", true);
}

// A token of several characters may hold the stop string and what stands around it.
static void a_stop_string_inside_a_token_is_found(void **state)
{
    (void)state;
    static const char file[] =
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2, \"ab\": 3, "
        "\"abc\": 4}, \"merges\": [\"a b\", \"ab c\"]}, \"pre_tokenizer\": {\"type\": "
        "\"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}, \"decoder\": "
        "{\"type\": \"ByteLevel\"}}";
    struct em_tokenizer *t;
    struct pieces p = {0};
    CHECK_OK(em_tokenizer_parse("test", file, strlen(file), &t));
    struct em_text_stream s = {
        .tokenizer = t, .stops = {(const char *[]){"b"}, 1}, .write = collect, .context = &p};
    CHECK_OK(em_text_stream_push(&s, 2));
    CHECK_OK(em_text_stream_push(&s, 4));
    assert_true(s.stopped);
    CHECK_OK(em_text_stream_push(&s, 4)); // nothing more comes
    CHECK_OK(em_text_stream_end(&s));
    assert_string_equal(p.marked.data, "c|a|");
    em_text_stream_deinit(&s);
    em_buf_deinit(&p.text);
    em_buf_deinit(&p.marked);
    em_tokenizer_close(t);
}

static int setup(void **state)
{
    (void)state;
    return em_tokenizer_bytes(&tokenizer) != EMBER_OK;
}

static int teardown(void **state)
{
    (void)state;
    em_tokenizer_close(tokenizer);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(characters_come_whole),
        cmocka_unit_test(special_tokens_have_no_text),
        cmocka_unit_test(stop_strings_end_the_text_and_never_show),
        cmocka_unit_test(a_stop_string_inside_a_token_is_found),
    };
    return cmocka_run_group_tests_name("text_stream", tests, setup, teardown);
}
