// The tokenizer as an object: bytes, streaming, roles, refusals, long runs, running out of memory.
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "support/check.h"
#include "text/tokenizer_priv.h"

#define GOLDEN EMBER_TESTS_DIR "/golden/tokenizer"

static struct em_ids encode(const struct em_tokenizer *t, const char *text, size_t n,
                            unsigned flags)
{
    struct em_encoder *e;
    struct em_ids ids = {0};
    CHECK_OK(em_encoder_create(t, &e));
    CHECK_OK(em_encode(e, text, n, flags, &ids));
    em_encoder_destroy(e);
    return ids;
}

static void a_byte_is_its_value_plus_three(void **state)
{
    (void)state;
    struct em_tokenizer *t;
    CHECK_OK(em_tokenizer_bytes(&t));
    assert_int_equal(em_tokenizer_size(t), 259);
    assert_int_equal(em_tokenizer_pad(t), 0);
    assert_int_equal(em_tokenizer_bos(t), 1);
    assert_int_equal(em_tokenizer_eos(t), 2);
    assert_int_equal(em_tokenizer_find(t, "<|endoftext|>", 13), 2);
    assert_int_equal(em_tokenizer_find(t, "\n", 1), 3 + '\n');
    struct em_ids ids = encode(t, "a\0\n\xc3\xa9", 5, EM_ENCODE_DEFAULT);
    const int32_t expected[] = {1, 3 + 'a', 3, 3 + '\n', 3 + 0xC3, 3 + 0xA9};
    assert_int_equal(ids.count, 6);
    assert_memory_equal(ids.ids, expected, sizeof expected);
    em_ids_deinit(&ids);
    ids = encode(t, "<|endoftext|>", 13, EM_ENCODE_PARSE_SPECIAL);
    assert_int_equal(ids.count, 1);
    assert_int_equal(ids.ids[0], 2);
    em_ids_deinit(&ids);
    ids = encode(t, "<|endoftext|>", 13, 0);
    assert_int_equal(ids.count, 13);
    em_ids_deinit(&ids);
    em_tokenizer_close(t);
}

// The file that Ember writes for it gives the same tokenizer.
static void the_byte_tokenizer_survives_its_file(void **state)
{
    (void)state;
    struct em_tokenizer *t, *again;
    const char *folder = test_directory();
    CHECK_OK(em_tokenizer_bytes(&t));
    CHECK_OK(em_tokenizer_save(t, folder));
    CHECK_OK(em_tokenizer_open(folder, &again));
    assert_int_equal(em_tokenizer_hash(again), em_tokenizer_hash(t));
    assert_int_equal(em_tokenizer_pad(again), 0);
    assert_int_equal(em_tokenizer_bos(again), 1);
    assert_int_equal(em_tokenizer_eos(again), 2);
    em_tokenizer_close(again);
    em_tokenizer_close(t);
}

static void a_stream_gives_whole_characters_only(void **state)
{
    (void)state;
    static const char text[] = "a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80z";
    struct em_tokenizer *t;
    CHECK_OK(em_tokenizer_bytes(&t));
    struct em_ids ids = encode(t, text, sizeof text - 1, 0);
    struct em_decode_stream stream = {0};
    struct em_buf out;
    em_buf_init(&out, 0);
    static const size_t size_after[] = {1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11};
    for (size_t i = 0; i < ids.count; i++) {
        CHECK_OK(em_decode_next(t, &stream, ids.ids[i], 0, &out));
        assert_int_equal(out.size, size_after[i]);
    }
    CHECK_OK(em_decode_end(&stream, &out));
    assert_string_equal(out.data, text);
    em_ids_deinit(&ids);
    em_buf_deinit(&out);
    em_tokenizer_close(t);
}

// Over broken bytes, cut anywhere, a stream says what decoding at once says.
static void a_stream_equals_decoding_at_once(void **state)
{
    (void)state;
    struct em_tokenizer *t;
    CHECK_OK(em_tokenizer_bytes(&t));
    static const uint8_t alphabet[] = {'a',  0x80, 0xBF, 0xC3, 0xE2, 0x82, 0xED,
                                       0xA0, 0xF0, 0x9F, 0xF4, 0x90, 0xFF};
    uint64_t seed = 1;
    for (unsigned round = 0; round < 3000; round++) {
        int32_t ids[12];
        struct em_buf whole, streamed;
        struct em_decode_stream stream = {0};
        em_buf_init(&whole, 0);
        em_buf_init(&streamed, 0);
        for (size_t i = 0; i < 12; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            ids[i] = 3 + alphabet[(seed >> 33) % sizeof alphabet];
            CHECK_OK(em_decode_next(t, &stream, ids[i], 0, &streamed));
        }
        CHECK_OK(em_decode_end(&stream, &streamed));
        CHECK_OK(em_decode(t, ids, 12, 0, &whole));
        assert_int_equal(whole.size, streamed.size);
        assert_memory_equal(whole.data, streamed.data, whole.size);
        em_buf_deinit(&whole);
        em_buf_deinit(&streamed);
    }
    em_tokenizer_close(t);
}

static void decoding_skips_special_tokens_and_refuses_unknown_ids(void **state)
{
    (void)state;
    struct em_tokenizer *t;
    struct em_buf out;
    em_buf_init(&out, 0);
    CHECK_OK(em_tokenizer_bytes(&t));
    const int32_t ids[] = {1, 3 + 'h', 3 + 'i', 3 + 0xFF, 2};
    CHECK_OK(em_decode(t, ids, 5, 0, &out));
    assert_string_equal(out.data, "<|startoftext|>hi\xef\xbf\xbd<|endoftext|>");
    em_buf_clear(&out);
    CHECK_OK(em_decode(t, ids, 5, EM_DECODE_SKIP_SPECIAL | EM_DECODE_RAW, &out));
    assert_string_equal(out.data, "hi\xff");
    const int32_t wrong[] = {3 + 'x', 259};
    CHECK_FAILS(em_decode(t, wrong, 2, 0, &out), EMBER_E_RANGE, "id 259 is not a token");
    assert_string_equal(out.data, "hi\xff"); // as it was
    CHECK_FAILS(em_decode(t, &(int32_t){-1}, 1, 0, &out), EMBER_E_RANGE, "id -1");
    em_buf_deinit(&out);
    em_tokenizer_close(t);
}

static void a_config_beside_the_file_names_the_roles(void **state)
{
    (void)state;
    struct em_tokenizer *t;
    struct em_buf file;
    em_buf_init(&file, 0);
    const char *folder = test_directory(), *config = test_path(folder, "tokenizer_config.json");
    CHECK_OK(em_read_file(GOLDEN "/lfm2/tokenizer.json", 0, &file));
    CHECK_OK(em_write_file(test_path(folder, "tokenizer.json"), file.data, file.size));
    em_buf_deinit(&file);
    CHECK_OK(em_tokenizer_open(folder, &t)); // no config: by the names in use
    assert_int_equal(em_tokenizer_bos(t), 1);
    assert_int_equal(em_tokenizer_eos(t), 4); // <|im_end|>
    em_tokenizer_close(t);
    static const char text[] =
        "{\"bos_token\": {\"content\": \"<|im_start|>\"}, \"eos_token\": \"<|endoftext|>\"}";
    CHECK_OK(em_write_file(config, text, sizeof text - 1));
    CHECK_OK(em_tokenizer_open(folder, &t));
    assert_int_equal(em_tokenizer_bos(t), 3);
    assert_int_equal(em_tokenizer_eos(t), 2);
    assert_int_equal(em_tokenizer_pad(t), -1);
    em_tokenizer_close(t);
    CHECK_OK(em_write_file(config, "{", 1));
    CHECK_FAILS(em_tokenizer_open(folder, &t), EMBER_E_FORMAT, "tokenizer_config.json:1:");
    CHECK_FAILS(em_tokenizer_open(test_directory(), &t), EMBER_E_IO, "tokenizer.json");
}

static void refuse(const char *text, ember_status status, const char *message)
{
    struct em_tokenizer *t = NULL;
    CHECK_FAILS(em_tokenizer_parse("t.json", text, strlen(text), &t), status, message);
    assert_null(t);
}

#define BYTE_LEVEL "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}"
#define VOCAB "\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}"
#define MODEL "\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": [\"a b\"]}"

static void every_refusal_names_its_place(void **state)
{
    (void)state;
    em_log_threshold(EM_LOG_WARN + 1);
    refuse("[]", EMBER_E_FORMAT, "t.json: the file: expected an object");
    refuse("{", EMBER_E_FORMAT, "t.json:1:");
    refuse("{\"model\": 3}", EMBER_E_FORMAT, "model: expected an object");
    refuse("{\"model\": {\"type\": \"Unigram\"}}", EMBER_E_UNSUPPORTED,
           "the model \"Unigram\" is not supported");
    refuse("{\"model\": {\"type\": \"BPE\", \"vocab\": []}}", EMBER_E_FORMAT,
           "model.vocab: expected an object");
    refuse("{\"model\": {\"type\": \"BPE\", " VOCAB "}}", EMBER_E_FORMAT,
           "model.merges: expected an array");
    refuse("{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1.5}, \"merges\": []}}",
           EMBER_E_FORMAT, "token \"a\": expected an id");
    refuse("{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}, \"merges\": []}}",
           EMBER_E_FORMAT, "token \"a\": expected an id");
    refuse("{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 16777215}, \"merges\": []}}",
           EMBER_E_FORMAT, "token \"a\": expected an id");
    refuse("{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1, \"b\": 1}, \"merges\": []}}",
           EMBER_E_FORMAT, "token \"b\": id 1 is given to two tokens");
    refuse("{\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": [\"a c\"]}}", EMBER_E_FORMAT,
           "model.merges[0]: \"c\" is not in the vocabulary");
    refuse("{\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": [\"a b\", \"b a\"]}}",
           EMBER_E_FORMAT, "model.merges[1]: the token \"ba\" is not in the vocabulary");
    refuse("{\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": [\"ab\"]}}", EMBER_E_FORMAT,
           "model.merges[0]: expected two tokens and a space");
    refuse("{\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": [\"a b c\"]}}", EMBER_E_FORMAT,
           "model.merges[0]");
    refuse("{\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": [[\"a\"]]}}", EMBER_E_FORMAT,
           "model.merges[0]");
    refuse("{\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": [7]}}", EMBER_E_FORMAT,
           "model.merges[0]");
    refuse("{\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": [], \"unk_token\": \"?\"}}",
           EMBER_E_FORMAT, "unk_token \"?\"");
    refuse("{\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": [], \"byte_fallback\": true}}",
           EMBER_E_UNSUPPORTED, "byte_fallback");
    refuse("{\"model\": {\"type\": \"BPE\", \"end_of_word_suffix\": \"</w>\"}}",
           EMBER_E_UNSUPPORTED, "end_of_word_suffix");
    refuse("{" MODEL "}", EMBER_E_UNSUPPORTED, "pre_tokenizer has no ByteLevel");
    refuse("{" MODEL ", \"normalizer\": {\"type\": \"NFKC\"}, " BYTE_LEVEL "}", EMBER_E_UNSUPPORTED,
           "the normalizer \"NFKC\"");
    refuse("{" MODEL ", \"pre_tokenizer\": {\"type\": \"Metaspace\"}}", EMBER_E_UNSUPPORTED,
           "the pre-tokenizer \"Metaspace\"");
    refuse("{" MODEL ", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"x+\"}, "
           "\"behavior\": "
           "\"Isolated\"}}",
           EMBER_E_UNSUPPORTED, "the split pattern \"x+\" is unknown");
    refuse(
        "{" MODEL
        ", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \"\"}, \"behavior\": "
        "\"Isolated\"}}",
        EMBER_E_FORMAT, "Split.pattern");
    refuse("{" MODEL ", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \"x\"}, "
           "\"behavior\": "
           "\"isolated\"}}",
           EMBER_E_FORMAT, "Split.behavior");
    refuse("{" MODEL ", \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": "
           "\"ByteLevel\"}, "
           "{\"type\": \"Digits\"}]}}",
           EMBER_E_UNSUPPORTED, "after ByteLevel the pre-tokenizer \"Digits\"");
    refuse("{" MODEL ", " BYTE_LEVEL ", \"decoder\": {\"type\": \"WordPiece\"}}",
           EMBER_E_UNSUPPORTED, "the decoder \"WordPiece\"");
    refuse("{" MODEL ", " BYTE_LEVEL ", \"post_processor\": {\"type\": \"BertProcessing\"}}",
           EMBER_E_UNSUPPORTED, "the post-processor \"BertProcessing\"");
    refuse("{" MODEL ", " BYTE_LEVEL
           ", \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": []}}",
           EMBER_E_FORMAT, "exactly once");
    refuse("{" MODEL ", " BYTE_LEVEL
           ", \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": "
           "[{\"SpecialToken\": {\"id\": \"x\"}}, {\"Sequence\": {\"id\": \"A\"}}], "
           "\"special_tokens\": {\"x\": "
           "{\"ids\": [9]}}}}",
           EMBER_E_FORMAT, "special token \"x\" has an id without a token");
    refuse("{" MODEL ", " BYTE_LEVEL ", \"added_tokens\": [{\"id\": 0, \"content\": \"x\"}]}",
           EMBER_E_FORMAT, "added_tokens[0]: id 0 is given to two tokens");
    refuse("{" MODEL ", " BYTE_LEVEL ", \"added_tokens\": [{\"id\": 5, \"content\": \"ab\"}]}",
           EMBER_E_FORMAT, "added token \"ab\" has id 5, and 2 in the vocabulary");
    refuse("{" MODEL ", " BYTE_LEVEL ", \"added_tokens\": [{\"content\": \"x\"}]}", EMBER_E_FORMAT,
           "added_tokens[0].id: expected an id");
    struct em_tokenizer *t;
    CHECK_FAILS(em_tokenizer_open("model.gguf", &t), EMBER_E_UNSUPPORTED, "GGUF");
    static const char small[] = "{" MODEL ", " BYTE_LEVEL "}"; // what they all lack one thing of
    CHECK_OK(em_tokenizer_parse("t.json", small, sizeof small - 1, &t));
    struct em_ids ids = encode(t, "abba", 4, EM_ENCODE_DEFAULT);
    assert_int_equal(ids.count, 3);
    em_ids_deinit(&ids);
    em_tokenizer_close(t);
    em_log_threshold(EM_LOG_NOTE);
}

static void damaged_files_are_refused_or_whole_tokenizers(void **state)
{
    (void)state;
    struct em_buf file;
    em_buf_init(&file, 0);
    CHECK_OK(em_read_file(GOLDEN "/roberta/tokenizer.json", 0, &file));
    em_log_threshold(EM_LOG_WARN + 1);
    struct em_tokenizer *t;
    for (size_t n = 0; n + 2 < file.size; n += 199)
        CHECK_FAILS(em_tokenizer_parse("cut.json", file.data, n, &t), EMBER_E_FORMAT, "cut.json");
    uint64_t seed = 5;
    size_t refused = 0, accepted = 0;
    for (unsigned round = 0; round < 400; round++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        const size_t at = (size_t)(seed >> 33) % file.size;
        const char flip = (char)(1 << (seed >> 20 & 7));
        file.data[at] ^= flip;
        const ember_status status = em_tokenizer_parse("flipped.json", file.data, file.size, &t);
        file.data[at] ^= flip;
        if (status != EMBER_OK) {
            assert_true(status == EMBER_E_FORMAT || status == EMBER_E_UNSUPPORTED);
            refused++;
            continue;
        }
        struct em_ids ids = encode(t, "word  <mask> caf\xc3\xa9\xff 12", 23, EM_ENCODE_DEFAULT);
        struct em_buf out;
        em_buf_init(&out, 0);
        CHECK_OK(em_decode(t, ids.ids, ids.count, 0, &out)); // every id has a token
        em_buf_deinit(&out);
        em_ids_deinit(&ids);
        em_tokenizer_close(t);
        accepted++;
    }
    assert_true(refused > 50 && accepted > 5);
    em_log_threshold(EM_LOG_NOTE);
    em_buf_deinit(&file);
}

// Quadratic work on these would not end within the test's time limit.
static void megabytes_of_one_character_take_seconds(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    struct em_tokenizer *t;
    struct em_encoder *e;
    struct em_ids ids = {0};
    char *text = em_alloc(N);
    assert_non_null(text);
    CHECK_OK(em_tokenizer_open(GOLDEN "/lfm2", &t));
    CHECK_OK(em_encoder_create(t, &e));
    static const char characters[] = "a -7\n";
    for (size_t i = 0; i < sizeof characters - 1; i++) {
        memset(text, characters[i], N);
        ids.count = 0;
        CHECK_OK(em_encode(e, text, N, EM_ENCODE_DEFAULT, &ids));
        struct em_buf out;
        em_buf_init(&out, 0);
        CHECK_OK(em_decode(t, ids.ids, ids.count, EM_DECODE_SKIP_SPECIAL, &out));
        assert_int_equal(out.size, N);
        assert_memory_equal(out.data, text, N);
        em_buf_deinit(&out);
    }
    em_ids_deinit(&ids);
    em_encoder_destroy(e);
    em_tokenizer_close(t);
    em_free(text);
}

// Every one of these tokens takes all spaces around it; as the reference has it, those inside the
// spaces that the first one took are found too when they take nothing to the left.
static void tokens_that_take_spaces_are_not_quadratic(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    char *text = em_alloc(N);
    assert_non_null(text);
    memset(text, ' ', N);
    em_log_threshold(EM_LOG_WARN + 1);
    for (unsigned flags = 1; flags < 4; flags++) {
        char file[512];
        const int n = snprintf(file, sizeof file,
                               "{" MODEL ", " BYTE_LEVEL
                               ", \"added_tokens\": [{\"id\": 3, \"content\": \" \", "
                               "\"rstrip\": %s, \"lstrip\": %s, \"normalized\": false}]}",
                               flags & 1 ? "true" : "false", flags & 2 ? "true" : "false");
        struct em_tokenizer *t;
        CHECK_OK(em_tokenizer_parse("t.json", file, (size_t)n, &t));
        struct em_ids ids = encode(t, text, N, EM_ENCODE_DEFAULT);
        assert_int_equal(ids.count, flags == 3 ? 1 : N);
        em_ids_deinit(&ids);
        em_tokenizer_close(t);
    }
    em_log_threshold(EM_LOG_NOTE);
    em_free(text);
}

// A long piece goes another way than a short one: both give the same ids, whatever the cache holds.
static void long_and_short_pieces_merge_alike(void **state)
{
    (void)state;
    struct em_tokenizer *t;
    struct em_encoder *e;
    CHECK_OK(em_tokenizer_open(GOLDEN "/pairs_form", &t)); // no cuts: a text is a piece
    CHECK_OK(em_encoder_create(t, &e));
    static const char *const words[] = {"the ", "age",  " of", " wisdom", "\n",
                                        "    ", "int ", "ACG", "it was "};
    char text[4000];
    size_t n = 0;
    uint64_t seed = 7;
    while (n < sizeof text - 16) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        const char *word = words[(seed >> 33) % 9];
        memcpy(text + n, word, strlen(word));
        n += strlen(word);
    }
    // Plain merging by the definition, to compare with: the lowest rank first, which is the lowest
    // id here.
    for (size_t size = 1; size < n; size = size * 5 / 4 + 1) {
        struct em_ids ids = {0}, again = {0};
        CHECK_OK(em_encode(e, text, size, 0, &ids));
        CHECK_OK(em_encode(e, text, size, 0, &again)); // maybe from the cache
        int32_t plain[4000];
        size_t count = size;
        for (size_t i = 0; i < size; i++)
            plain[i] = em_tokenizer_find(t, text + i, 1);
        for (;;) {
            size_t best = 0;
            int32_t lowest = INT32_MAX;
            for (size_t i = 0; i + 1 < count; i++) {
                size_t left, right;
                const uint8_t *a = em_tokenizer_token(t, plain[i], &left),
                              *b = em_tokenizer_token(t, plain[i + 1], &right);
                char joined[512];
                if (left + right > sizeof joined) continue;
                memcpy(joined, a, left);
                memcpy(joined + left, b, right);
                const int32_t id = em_tokenizer_find(t, joined, left + right);
                if (id >= 0 && id < lowest) {
                    lowest = id;
                    best = i;
                }
            }
            if (lowest == INT32_MAX) break;
            plain[best] = lowest;
            memmove(plain + best + 1, plain + best + 2, (count - best - 2) * sizeof *plain);
            count--;
        }
        assert_int_equal(ids.count, count);
        assert_memory_equal(ids.ids, plain, count * sizeof *plain);
        assert_int_equal(again.count, count);
        assert_memory_equal(again.ids, plain, count * sizeof *plain);
        em_ids_deinit(&ids);
        em_ids_deinit(&again);
    }
    em_encoder_destroy(e);
    em_tokenizer_close(t);
}

struct job {
    const struct em_tokenizer *t;
    const char *text;
    size_t n;
    struct em_ids ids;
};

static void *encode_often(void *arg)
{
    struct job *job = arg;
    struct em_encoder *e;
    if (em_encoder_create(job->t, &e) != EMBER_OK) return NULL;
    for (size_t from = 0; from + 64 <= job->n; from += 7)
        if (em_encode(e, job->text + from, 64, EM_ENCODE_DEFAULT, &job->ids) != EMBER_OK) break;
    em_encoder_destroy(e);
    return job;
}

static void threads_share_a_tokenizer(void **state)
{
    (void)state;
    struct em_tokenizer *t;
    struct em_buf text;
    em_buf_init(&text, 0);
    CHECK_OK(em_tokenizer_open(GOLDEN "/qwen2", &t));
    CHECK_OK(em_read_file(GOLDEN "/trained/text.txt", 0, &text));
    struct job jobs[3];
    pthread_t threads[3];
    for (size_t i = 0; i < 3; i++) {
        jobs[i] = (struct job){.t = t, .text = text.data, .n = text.size};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, &jobs[i]), 0);
    }
    for (size_t i = 0; i < 3; i++) {
        void *finished;
        assert_int_equal(pthread_join(threads[i], &finished), 0);
        assert_non_null(finished);
        assert_int_equal(jobs[i].ids.count, jobs[0].ids.count);
        assert_memory_equal(jobs[i].ids.ids, jobs[0].ids.ids, jobs[0].ids.count * sizeof(int32_t));
    }
    assert_true(jobs[0].ids.count > 1000);
    for (size_t i = 0; i < 3; i++)
        em_ids_deinit(&jobs[i].ids);
    em_buf_deinit(&text);
    em_tokenizer_close(t);
}

static ember_status read_encode_save(const json_t *file, const char *folder)
{
    char text[400] =
        "It was e\xcc\x81 the\xff age <tool_call> of\xe1\x84\x80\xe1\x85\xa1 wisdom 12345 ";
    memset(text + strlen(text), 'a', 300); // long enough for the heap
    struct em_tokenizer *t;
    struct em_encoder *e = NULL;
    struct em_ids ids = {0};
    struct em_buf out;
    em_buf_init(&out, 0);
    EM_TRY(em_tokenizer_from_json("t.json", file, &t));
    ember_status status = em_encoder_create(t, &e);
    if (status == EMBER_OK) status = em_encode(e, text, strlen(text), EM_ENCODE_DEFAULT, &ids);
    if (status == EMBER_OK) status = em_decode(t, ids.ids, ids.count, 0, &out);
    if (status == EMBER_OK) status = em_tokenizer_save(t, folder);
    em_ids_deinit(&ids);
    em_buf_deinit(&out);
    em_encoder_destroy(e);
    em_tokenizer_close(t);
    return status;
}

static void running_out_of_memory_anywhere_is_a_status(void **state)
{
    (void)state;
    static const char text[] = "{" MODEL ", " BYTE_LEVEL ", \"normalizer\": {\"type\": \"NFC\"}, "
                               "\"added_tokens\": [{\"id\": 3, \"content\": \"<tool_call>\"}]}";
    const char *folder = test_directory();
    json_t *file;
    CHECK_OK(em_json_parse("t.json", text, sizeof text - 1, 0, &file));
    em_log_threshold(EM_LOG_WARN + 1);
    for (size_t n = 1;; n++) {
        const size_t before = em_alloc_count();
        em_alloc_fail_at(n, 0);
        const ember_status status = read_encode_save(file, folder);
        em_alloc_fail_at(0, 0);
        if (em_alloc_count() - before < n) { // it did not come to the n-th
            assert_int_equal(status, EMBER_OK);
            break;
        }
        if (status != EMBER_E_NOMEM)
            fail_msg("allocation %zu failed: %s (%s)", n, ember_status_name(status),
                     ember_last_error());
    }
    em_log_threshold(EM_LOG_NOTE);
    json_decref(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_byte_is_its_value_plus_three),
        cmocka_unit_test(the_byte_tokenizer_survives_its_file),
        cmocka_unit_test(a_stream_gives_whole_characters_only),
        cmocka_unit_test(a_stream_equals_decoding_at_once),
        cmocka_unit_test(decoding_skips_special_tokens_and_refuses_unknown_ids),
        cmocka_unit_test(a_config_beside_the_file_names_the_roles),
        cmocka_unit_test(every_refusal_names_its_place),
        cmocka_unit_test(damaged_files_are_refused_or_whole_tokenizers),
        cmocka_unit_test(megabytes_of_one_character_take_seconds),
        cmocka_unit_test(tokens_that_take_spaces_are_not_quadratic),
        cmocka_unit_test(long_and_short_pieces_merge_alike),
        cmocka_unit_test(threads_share_a_tokenizer),
        cmocka_unit_test(running_out_of_memory_anywhere_is_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
