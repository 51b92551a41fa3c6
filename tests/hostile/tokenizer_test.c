// tokenizer.json, and tokenizer_config.json beside it, with a hostile meaning.
#include "hostile/hostile.h"
#include "text/tokenizer.h"

#define NAME "dir/tokenizer.json"

static ember_status open_text(const char *text, size_t size)
{
    struct em_tokenizer *t;
    const ember_status status = em_tokenizer_parse(NAME, text, size, &t);
    if (status == EMBER_OK) em_tokenizer_close(t);
    return status;
}

static void refuse(const char *text, size_t size, const char *says)
{
    const struct hostile_watch w = hostile_begin(text, NAME, size);
    hostile_end(&w, open_text(text, size), says);
}

// A file of three parts: members of the model, and members beside it.
static char *file_of(const char *model, const char *beside)
{
    static const char format[] =
        "{\"model\":{\"type\":\"BPE\",%s},\"pre_tokenizer\":{\"type\":\"ByteLevel\"}%s%s}";
    const size_t n = sizeof format + strlen(model) + strlen(beside);
    char *text = malloc(n);
    assert_non_null(text);
    snprintf(text, n, format, model, *beside ? "," : "", beside);
    return text;
}

#define VOCAB "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2}"
#define MERGES "\"merges\":[\"a b\"]"

static void models(void **state)
{
    (void)state;
    static const struct hostile_case cases[] = {
        // ids
        {"\"vocab\":{\"a\":-1},\"merges\":[]", "model.vocab|\"a\"|found -1|from 0 to"},
        {"\"vocab\":{\"a\":1000000000},\"merges\":[]",
         "model.vocab|\"a\"|found 1000000000|from 0 to"},
        {"\"vocab\":{\"a\":4398046511104},\"merges\":[]", "\"a\"|found 4398046511104|from 0 to"},
        {"\"vocab\":{\"a\":9223372036854775807},\"merges\":[]", "\"a\"|found 9223372036854775807"},
        {"\"vocab\":{\"a\":2147483648},\"merges\":[]", "\"a\"|found 2147483648"},
        {"\"vocab\":{\"a\":0.5},\"merges\":[]", "\"a\"|found 0.5|from 0 to"},
        {"\"vocab\":{\"a\":\"0\"},\"merges\":[]", "\"a\"|found \"0\"|from 0 to"},
        {"\"vocab\":{\"a\":null},\"merges\":[]", "\"a\"|found null"},
        {"\"vocab\":{\"a\":[0]},\"merges\":[]", "\"a\"|found an array"},
        {"\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]", "model.vocab|\"b\"|id 0|two tokens"},
        {"\"vocab\":[\"a\"],\"merges\":[]", "model.vocab|an object|found an array"},
        {"\"vocab\":null,\"merges\":[]", "model.vocab|an object|found null"},
        {"\"merges\":[]", "model.vocab|an object|found nothing"},
        {"\"vocab\":{},\"merges\":[]", "model.vocab|at least one token"},
        {"\"vocab\":{\"\":0},\"merges\":[]", "model.vocab|at least one token"},
        {"\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]", "duplicate|\"a\""},
        {"\"vocab\":{\"a\\u0000\":0},\"merges\":[]", "NUL"},
        {"\"vocab\":{\"<0x-1>\":0},\"merges\":[],\"byte_fallback\":true",
         "byte_fallback|a token for every byte"},
        {"\"vocab\":{\"<0xZZ>\":0},\"merges\":[],\"byte_fallback\":true",
         "byte_fallback|a token for every byte"},
        {"\"vocab\":{\"<0x00>\":0},\"merges\":[],\"byte_fallback\":true",
         "byte_fallback|a token for every byte"},
        // merges
        {VOCAB, "model.merges|an array|found nothing"},
        {VOCAB ",\"merges\":{}", "model.merges|an array|found an object"},
        {VOCAB ",\"merges\":\"a b\"", "model.merges|an array|found \"a b\""},
        {VOCAB ",\"merges\":[\"ab\"]", "model.merges[0]|two tokens and a space|\"ab\""},
        {VOCAB ",\"merges\":[\"a b c\"]", "model.merges[0]|two tokens and a space|\"a b c\""},
        {VOCAB ",\"merges\":[\"\"]", "model.merges[0]|two tokens and a space"},
        {VOCAB ",\"merges\":[\" \"]", "model.merges[0]|not in the vocabulary"},
        {VOCAB ",\"merges\":[\"a b\",\"a x\"]", "model.merges[1]|\"x\" is not in the vocabulary"},
        {VOCAB ",\"merges\":[\"b a\"]", "model.merges[0]|\"ba\" is not in the vocabulary"},
        {VOCAB ",\"merges\":[[\"a\"]]", "model.merges[0]|[\"a\", \"b\"]"},
        {VOCAB ",\"merges\":[[\"a\",\"b\",\"ab\"]]", "model.merges[0]|[\"a\", \"b\"]"},
        {VOCAB ",\"merges\":[[0,1]]", "model.merges[0]|[\"a\", \"b\"]"},
        {VOCAB ",\"merges\":[[[\"a\"],[\"b\"]]]", "model.merges[0]|[\"a\", \"b\"]"},
        {VOCAB ",\"merges\":[7]", "model.merges[0]|found 7"},
        {VOCAB ",\"merges\":[null]", "model.merges[0]|found null"},
        {VOCAB ",\"merges\":[\"a\\u0000 b\"]", "model.merges[0]|not in the vocabulary"},
        // the rest of the model
        {"\"vocab\":3,\"merges\":[]", "model.vocab|found 3"},
        {VOCAB "," MERGES ",\"unk_token\":\"<unk>\"", "model.unk_token|\"<unk>\"|not in the vocab"},
        {VOCAB "," MERGES ",\"unk_token\":5", "model.unk_token|found 5"},
        {VOCAB "," MERGES ",\"dropout\":\"x\"", "model.dropout|from 0 to 1|found \"x\""},
        {VOCAB "," MERGES ",\"dropout\":7", "model.dropout|from 0 to 1|found 7"},
        {VOCAB "," MERGES ",\"fuse_unk\":1", "model.fuse_unk|true or false|found 1"},
        {VOCAB "," MERGES ",\"ignore_merges\":\"yes\"", "model.ignore_merges|found \"yes\""},
        {VOCAB "," MERGES ",\"byte_fallback\":[]", "model.byte_fallback|found an array"},
        {VOCAB "," MERGES ",\"end_of_word_suffix\":\"</w>\"", "end_of_word_suffix|without affixes"},
        {VOCAB "," MERGES ",\"continuing_subword_prefix\":3", "continuing_subword_prefix|affixes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = file_of(cases[i].text, "");
        refuse(text, strlen(text), cases[i].says);
        free(text);
    }
    hostile_report(45);
}

// 80 of them.
#define ZEROS10 "0,0,0,0,0,0,0,0,0,0,"
#define ZEROS ZEROS10 ZEROS10 ZEROS10 ZEROS10 ZEROS10 ZEROS10 ZEROS10 ZEROS10

static void beside_the_model(void **state)
{
    (void)state;
    static const struct hostile_case cases[] = {
        {"\"added_tokens\":{}", "added_tokens|an array|found an object"},
        {"\"added_tokens\":[3]", "added_tokens[0]|found nothing"},
        {"\"added_tokens\":[{\"id\":3}]", "added_tokens[0].content|a text|found nothing"},
        {"\"added_tokens\":[{\"content\":\"x\"}]", "added_tokens[0].id|from 0 to|found nothing"},
        {"\"added_tokens\":[{\"id\":-1,\"content\":\"x\"}]", "added_tokens[0].id|from 0|found -1"},
        {"\"added_tokens\":[{\"id\":1000000000,\"content\":\"x\"}]",
         "added_tokens[0].id|from 0 to|found 1000000000"},
        {"\"added_tokens\":[{\"id\":9223372036854775807,\"content\":\"x\"}]",
         "added_tokens[0].id|found 9223372036854775807"},
        {"\"added_tokens\":[{\"id\":0,\"content\":\"x\"}]", "added_tokens[0]|id 0|two tokens"},
        {"\"added_tokens\":[{\"id\":3,\"content\":\"x\"},{\"id\":3,\"content\":\"y\"}]",
         "added_tokens[1]|id 3|two tokens"},
        {"\"added_tokens\":[{\"id\":3,\"content\":7}]", "added_tokens[0].content|found 7"},
        {"\"added_tokens\":[{\"id\":3,\"content\":\"x\",\"special\":1}]",
         "added_tokens[0].special|true or false|found 1"},
        {"\"added_tokens\":[{\"id\":3,\"content\":\"x\",\"lstrip\":\"\"}]",
         "added_tokens[0].lstrip|true or false|found \"\""},
        {"\"normalizer\":{\"type\":\"NFD\"}", "normalizer|\"NFD\"|NFC"},
        {"\"normalizer\":{\"type\":7}", "normalizer"},
        {"\"normalizer\":[]", "normalizer"},
        {"\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(a+)+$\"}}", "\"Replace\""},
        {"\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":3}", "normalizers|array|found 3"},
        {"\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"}]}",
         "normalizer|\"Lowercase\"|NFC"},
        {"\"decoder\":{\"type\":\"WordPiece\"}", "decoder|\"WordPiece\"|ByteLevel"},
        {"\"decoder\":{\"type\":\"Sequence\"}", "decoder.decoders|an array|found nothing"},
        {"\"post_processor\":{\"type\":\"BertProcessing\"}", "post-processor|\"BertProcessing\""},
        {"\"post_processor\":{\"type\":\"TemplateProcessing\"}", "post_processor.single|an array"},
        {"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}",
         "post_processor.single|exactly once"},
        {"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":"
         "\"A\"}},{\"Sequence\":{\"id\":\"A\"}}]}",
         "post_processor.single|exactly once"},
        {"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{"
         "\"id\":"
         "\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}]}",
         "post_processor|\"<s>\"|no ids"},
        {"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{"
         "\"id\":"
         "\"a\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"a\":{\"ids\":[99]}}}",
         "post_processor|\"a\"|99"},
        {"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{"
         "\"id\":"
         "\"a\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"a\":{\"ids\":[-1]}}}",
         "post_processor|\"a\"|-1"},
        {"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[7]}",
         "post_processor.single|SpecialToken or Sequence"},
        {"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{"
         "\"id\":"
         "\"a\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"a\":{\"ids\":[" ZEROS
         "0]}}}",
         "post_processor|more than"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = file_of(VOCAB "," MERGES, cases[i].text);
        refuse(text, strlen(text), cases[i].says);
        free(text);
    }
    hostile_report(25);
}

// Patterns are known ones or refused: none of a file's own is ever run.
static void pre_tokenizers(void **state)
{
    (void)state;
    static const struct hostile_case cases[] = {
        {"null", "pre_tokenizer|ByteLevel"},
        {"{\"type\":\"Whitespace\"}", "pre-tokenizer|\"Whitespace\"|Split"},
        {"{\"type\":\"Metaspace\"}", "pre-tokenizer|\"Metaspace\"|Split"},
        {"{\"type\":\"Digits\"}", "pre_tokenizer|ByteLevel"},
        {"{\"type\":\"Sequence\"}", "pretokenizers|an array"},
        {"{\"type\":\"Sequence\",\"pretokenizers\":[]}", "pre_tokenizer|ByteLevel"},
        {"{\"type\":\"ByteLevel\",\"use_regex\":\"no\"}", "use_regex|true or false|\"no\""},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":2}", "add_prefix_space|true or false|2"},
        {"{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":\"Digits\"}]"
         "}",
         "\"Digits\"|ByteLevel as the last one"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a+)+$\"},\"behavior\":\"Isolated\"}",
         "split pattern|(a+)+$|Llama 3"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(x+x+)+y\"},\"behavior\":\"Isolated\"}",
         "split pattern|(x+x+)+y|Llama 3"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"^(([a-z])+.)+[A-Z]([a-z])+$\"},\"behavior\":"
         "\"Removed\"}",
         "split pattern|Llama 3"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\"},\"behavior\":\"Isolated\"}",
         "split pattern"},
        {"{\"type\":\"Split\",\"pattern\":{\"String\":\"\"},\"behavior\":\"Isolated\"}",
         "Split.pattern|String"},
        {"{\"type\":\"Split\",\"pattern\":{},\"behavior\":\"Isolated\"}", "Split.pattern|Regex"},
        {"{\"type\":\"Split\",\"pattern\":\"x\",\"behavior\":\"Isolated\"}", "Split.pattern|Regex"},
        {"{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"},\"behavior\":\"Shredded\"}",
         "Split.behavior|Isolated|found \"Shredded\""},
        {"{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"}}", "Split.behavior|Isolated"},
        {"{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"},\"behavior\":\"Isolated\",\"invert\":"
         "7}",
         "invert|true or false|7"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[1024];
        const int n =
            snprintf(text, sizeof text,
                     "{\"model\":{\"type\":\"BPE\"," VOCAB "," MERGES "},\"pre_tokenizer\":%s}",
                     cases[i].text);
        refuse(text, (size_t)n, cases[i].says);
    }
    // A long one is not repeated in full: what follows it in the message still fits.
    char *regex = hostile_nested(100000, "(", "a", ")+");
    char *text = malloc(strlen(regex) + 400);
    sprintf(text,
            "{\"model\":{\"type\":\"BPE\"," VOCAB "," MERGES
            "},\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":"
            "{\"Regex\":\"%s\"}}}",
            regex);
    refuse(text, strlen(text), "split pattern|Llama 3");
    free(text);
    free(regex);
    hostile_report(20);
}

static void whole_files(void **state)
{
    (void)state;
    static const struct hostile_case cases[] = {
        {"", ":1:1:"},
        {"[]", "an object|found an array"},
        {"null", "an object|found null"},
        {"{}", "model|an object|found nothing"},
        {"{\"model\":[]}", "model|an object|found an array"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",-1e999]]}}", "overflow"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",-1.5]]}}",
         "\"Unigram\"|byte-level BPE"},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "\"WordPiece\"|byte-level BPE"},
        {"{\"model\":{\"type\":9,\"vocab\":{}}}", "model|byte-level BPE"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\xff\":0}}}", "0xff"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\\ud800\":0}}}", "surrogate"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse(cases[i].text, strlen(cases[i].text), cases[i].says);
    static const size_t depths[] = {65, 100000};
    for (size_t i = 0; i < 2; i++) {
        char *deep =
                 hostile_nested(depths[i], "{\"type\":\"Sequence\",\"normalizers\":[", "", "]}"),
             *text = malloc(strlen(deep) + 32);
        sprintf(text, "{\"normalizer\":%s}", deep);
        refuse(text, strlen(text), "deeper than 64");
        free(text);
        free(deep);
    }
    hostile_report(13);
}

// What is strange but has a meaning is accepted, and encoding ends soon: a pair merged twice, both
// orders of two tokens, a token made of itself, ids with a gap.
static void strange_merges_end(void **state)
{
    (void)state;
    static const char *const models[] = {
        "\"vocab\":{\"a\":0,\"aa\":1,\"aaa\":2,\"aaaa\":3},\"merges\":[\"a a\",\"aa a\",\"a aa\","
        "\"aa aa\",\"a a\",\"aa aa\"]",
        "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"ba\":3,\"aba\":4,\"bab\":5},\"merges\":[\"a b\",\"b "
        "a\",\"ab a\",\"b ab\",\"a ba\"]",
        "\"vocab\":{\"a\":0,\"b\":500000,\"ab\":7},\"merges\":[\"a b\"]",
    };
    enum { LONG = 1 << 16 };
    char *input = malloc(LONG);
    memset(input, 'a', LONG);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char *text = file_of(models[i], "");
        struct em_tokenizer *t;
        struct em_encoder *e;
        struct em_ids ids = {0};
        const size_t before = em_alloc_live();
        em_alloc_peak_reset();
        CHECK_OK(em_tokenizer_parse(NAME, text, strlen(text), &t));
        CHECK_OK(em_encoder_create(t, &e));
        const clock_t start = clock();
        for (size_t k = 1; k < LONG && i; k += 2)
            input[k] = 'b';
        CHECK_OK(em_encode(e, input, LONG, 0, &ids));
        assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 2);
        assert_true(ids.count > 0 && ids.count <= LONG + 1);
        assert_true(em_alloc_peak() - before <= (size_t)64 << 20);
        em_ids_deinit(&ids);
        em_encoder_destroy(e);
        em_tokenizer_close(t);
        free(text);
    }
    free(input);
}

// tokenizer_config.json names tokens of the tokenizer, or says so.
static void configs_beside(void **state)
{
    (void)state;
    static const struct hostile_case cases[] = {
        {"[]", "tokenizer_config.json|an object|found an array"},
        {"{\"bos_token\":7}", "tokenizer_config.json|bos_token|found 7"},
        {"{\"eos_token\":{\"content\":3}}", "tokenizer_config.json|eos_token|found 3"},
        {"{\"pad_token\":[\"a\"]}", "tokenizer_config.json|pad_token|found an array"},
        {"{\"bos_token\":\"a\"", "tokenizer_config.json"},
    };
    const char *folder = test_directory();
    char *text = file_of(VOCAB "," MERGES, "");
    CHECK_OK(em_write_file(test_path(folder, "tokenizer.json"), text, strlen(text)));
    free(text);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const size_t n = strlen(cases[i].text);
        CHECK_OK(em_write_file(test_path(folder, "tokenizer_config.json"), cases[i].text, n));
        const struct hostile_watch w = hostile_begin(cases[i].text, folder, n);
        struct em_tokenizer *t;
        const ember_status status = em_tokenizer_open(folder, &t);
        if (status == EMBER_OK) em_tokenizer_close(t);
        hostile_end(&w, status, cases[i].says);
    }
    hostile_report(5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models),
        cmocka_unit_test(beside_the_model),
        cmocka_unit_test(pre_tokenizers),
        cmocka_unit_test(whole_files),
        cmocka_unit_test(strange_merges_end),
        cmocka_unit_test(configs_beside),
    };
    return cmocka_run_group_tests(tests, hostile_setup, NULL);
}
