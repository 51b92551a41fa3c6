// The public calls, as a user's program makes them.
#include <ember/tokenizer.h>

#include <pthread.h>
#include <string.h>

#include "base/io.h"
#include "support/check.h"

#define GOLDEN EMBER_TESTS_DIR "/golden/tokenizer"

static void text_goes_to_ids_and_back(void **state)
{
    (void)state;
    ember_tokenizer *t;
    int32_t *ids;
    char *text;
    size_t count, n;
    CHECK_OK(ember_tokenizer_open(GOLDEN "/lfm2/tokenizer.json", &t));
    assert_int_equal(ember_tokenizer_size(t), 700);
    assert_int_equal(ember_tokenizer_bos(t), 1);
    assert_int_equal(ember_tokenizer_eos(t), 4);
    assert_int_equal(ember_tokenizer_pad(t), 0);
    assert_int_equal(ember_tokenizer_find(t, "<|im_start|>", 12), 3);
    assert_memory_equal(ember_tokenizer_token(t, 3, &n), "<|im_start|>", 12);
    assert_int_equal(n, 12);
    assert_null(ember_tokenizer_token(t, 700, &n));
    assert_null(ember_tokenizer_token(t, -1, &n));
    static const char in[] = "<|im_start|>wisdom\xff";
    CHECK_OK(ember_tokenizer_encode(t, in, sizeof in - 1, 0, &ids, &count));
    assert_true(count >= 4 && ids[0] == 1 && ids[1] == 3);
    CHECK_OK(ember_tokenizer_decode(t, ids, count, 0, &text, &n));
    assert_string_equal(text, "<|startoftext|><|im_start|>wisdom\xef\xbf\xbd");
    assert_int_equal(n, strlen(text));
    ember_free(text);
    CHECK_OK(ember_tokenizer_decode(t, ids, count, EMBER_TOKENIZER_NO_SPECIAL, &text, &n));
    assert_string_equal(text, "wisdom\xef\xbf\xbd");
    ember_free(text);
    ember_free(ids);
    CHECK_OK(
        ember_tokenizer_encode(t, in, sizeof in - 1, EMBER_TOKENIZER_NO_SPECIAL, &ids, &count));
    assert_true(count > 4 && ids[0] != 1);
    ember_free(ids);
    CHECK_OK(ember_tokenizer_encode(t, NULL, 0, EMBER_TOKENIZER_NO_SPECIAL, &ids, &count));
    assert_int_equal(count, 0);
    assert_non_null(ids);
    ember_free(ids);
    text = NULL;
    CHECK_FAILS(ember_tokenizer_decode(t, &(int32_t){700}, 1, 0, &text, &n), EMBER_E_RANGE,
                "id 700");
    assert_null(text);
    CHECK_OK(ember_tokenizer_inspect(t, true, &text));
    assert_non_null(strstr(text, "\"tokens\": 700"));
    ember_free(text);
    CHECK_OK(ember_tokenizer_inspect(t, false, &text));
    assert_non_null(strstr(text, "bos: 1 <|startoftext|>\n"));
    ember_free(text);
    ember_tokenizer_close(t);
    ember_tokenizer_close(NULL);
}

static void training_reads_files_and_folders(void **state)
{
    (void)state;
    const char *folder = test_directory(), *out = test_directory();
    static const char lines[] =
        "{\"text\": \"the cat and the hat\"}\n{\"text\": \"the rat and the bat\"}\n";
    static const char plain[] = "the cats, the hats, the rats and the bats\n";
    CHECK_OK(em_write_file(test_path(folder, "a.jsonl"), lines, sizeof lines - 1));
    CHECK_OK(em_write_file(test_path(folder, "b.txt"), plain, sizeof plain - 1));
    ember_tokenizer *t, *again;
    ember_tokenizer_corpus corpus;
    const char *const paths[] = {folder, test_path(folder, "b.txt")};
    CHECK_OK(ember_tokenizer_train(
        paths, 2, &(ember_tokenizer_training){.vocab = 264, .threads = 2}, &t, &corpus));
    assert_int_equal(corpus.files, 3);
    assert_int_equal(corpus.documents, 4);
    assert_int_equal(ember_tokenizer_size(t), 264);
    assert_true(ember_tokenizer_find(t, " the", 4) >= 259);
    CHECK_OK(ember_tokenizer_save(t, out));
    CHECK_OK(ember_tokenizer_open(out, &again));
    assert_int_equal(ember_tokenizer_size(again), 264);
    assert_int_equal(ember_tokenizer_eos(again), 2);
    ember_tokenizer_close(again);
    ember_tokenizer_close(t);
    t = NULL;
    const char *const absent[] = {test_path(folder, "none.txt")};
    CHECK_FAILS(ember_tokenizer_train(absent, 1, NULL, &t, NULL), EMBER_E_IO, "none.txt");
    CHECK_FAILS(ember_tokenizer_train(paths, 1, &(ember_tokenizer_training){.vocab = 7}, &t, NULL),
                EMBER_E_CONFIG, "a vocabulary of 7");
    assert_null(t);
}

struct share {
    const ember_tokenizer *t;
    int failed;
};

static void *encode_often(void *arg)
{
    struct share *s = arg;
    for (unsigned i = 0; i < 300 && !s->failed; i++) {
        int32_t *ids;
        size_t count;
        s->failed =
            ember_tokenizer_encode(s->t, "wisdom and foolishness", 22, 0, &ids, &count) != EMBER_OK;
        if (s->failed) break;
        s->failed = count != 23 || ids[0] != 1 || ids[1] != 3 + 'w';
        ember_free(ids);
    }
    return NULL;
}

static void threads_share_one(void **state)
{
    (void)state;
    ember_tokenizer *t;
    CHECK_OK(ember_tokenizer_bytes(&t));
    pthread_t threads[4];
    struct share shares[4];
    for (size_t i = 0; i < 4; i++) {
        shares[i] = (struct share){t, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, &shares[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(shares[i].failed, 0);
    }
    ember_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_goes_to_ids_and_back),
        cmocka_unit_test(training_reads_files_and_folders),
        cmocka_unit_test(threads_share_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
