// Training: equal to Hugging Face's trainer, and the same whatever the threads and the order.
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/log.h"
#include "support/check.h"
#include "text/bpe_train.h"

#define GOLDEN EMBER_TESTS_DIR "/golden/tokenizer/trained"

struct documents {
    const char *const *text;
    const size_t *size;
    size_t count, next;
};

static ember_status next_document(void *context, const char **text, size_t *n)
{
    struct documents *d = context;
    *text = NULL;
    if (d->next == d->count) return EMBER_OK;
    *text = d->text[d->next];
    *n = d->size[d->next++];
    return EMBER_OK;
}

static ember_status train(const struct em_bpe_train_options *options, const char *const *text,
                          const size_t *size, size_t count, struct em_tokenizer **t)
{
    struct documents d = {text, size, count, 0};
    return em_bpe_train(options, (struct em_text_source){next_document, &d}, t);
}

static void merges_are_those_of_the_reference(void **state)
{
    (void)state;
    struct em_buf text;
    struct em_tokenizer *found, *expected;
    em_buf_init(&text, 0);
    CHECK_OK(em_read_file(GOLDEN "/text.txt", 0, &text));
    CHECK_OK(em_tokenizer_open(GOLDEN "/tokenizer.json", &expected));
    CHECK_OK(train(&(struct em_bpe_train_options){.vocab = 700}, (const char *const[]){text.data},
                   &text.size, 1, &found));
    assert_int_equal(em_tokenizer_size(found), em_tokenizer_size(expected));
    assert_int_equal(em_tokenizer_merges(found), em_tokenizer_merges(expected));
    for (size_t id = 0; id < em_tokenizer_size(expected); id++) {
        size_t n, m;
        const uint8_t *a = em_tokenizer_token(found, (int64_t)id, &n),
                      *b = em_tokenizer_token(expected, (int64_t)id, &m);
        if (n != m || memcmp(a, b, n) != 0)
            fail_msg("token %zu is \"%.*s\", expected \"%.*s\"", id, (int)n, (const char *)a,
                     (int)m, (const char *)b);
    }
    assert_int_equal(em_tokenizer_pad(found), 0);
    assert_int_equal(em_tokenizer_bos(found), 1);
    assert_int_equal(em_tokenizer_eos(found), 2);
    em_tokenizer_close(found);
    em_tokenizer_close(expected);
    em_buf_deinit(&text);
}

static void threads_and_order_change_nothing(void **state)
{
    (void)state;
    enum { COPIES = 600 }; // several segments for every thread
    struct em_buf text, big;
    em_buf_init(&text, 0);
    em_buf_init(&big, 0);
    CHECK_OK(em_read_file(GOLDEN "/text.txt", 0, &text));
    for (size_t i = 0; i < COPIES; i++) {
        CHECK_OK(em_buf_printf(&big, "Copy %zu of them.\n\n", i * i));
        CHECK_OK(em_buf_add(&big, text.data, text.size));
        CHECK_OK(em_buf_puts(&big, "\n"));
    }
    const char *const forward[] = {big.data, text.data, "The end.\nThe end"},
                      *const backward[] = {"The end.\nThe end", text.data, big.data};
    const size_t forward_size[] = {big.size, text.size, 16},
                 backward_size[] = {16, text.size, big.size};
    struct em_tokenizer *one, *many, *other;
    struct em_pool *pool;
    CHECK_OK(em_pool_create(3, &pool));
    CHECK_OK(train(&(struct em_bpe_train_options){.vocab = 900}, forward, forward_size, 3, &one));
    CHECK_OK(train(&(struct em_bpe_train_options){.vocab = 900, .pool = pool}, forward,
                   forward_size, 3, &many));
    CHECK_OK(train(&(struct em_bpe_train_options){.vocab = 900, .pool = pool}, backward,
                   backward_size, 3, &other));
    assert_int_equal(em_tokenizer_size(one), 900);
    assert_int_equal(em_tokenizer_hash(one), em_tokenizer_hash(many));
    assert_int_equal(em_tokenizer_hash(one), em_tokenizer_hash(other));
    em_tokenizer_close(one);
    em_tokenizer_close(many);
    em_tokenizer_close(other);
    em_pool_destroy(pool);
    em_buf_deinit(&text);
    em_buf_deinit(&big);
}

// A segment ends where the pattern cuts anyway, so counting in segments is counting at once.
static void segments_cut_no_piece(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    char *text = em_alloc(N);
    assert_non_null(text);
    static const char characters[] = "ab1 \n\n\r\t'!s";
    uint64_t seed = 3;
    for (size_t i = 0; i < N; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        text[i] = characters[(seed >> 33) % (sizeof characters - 1)];
    }
    const struct em_split split = {.pattern = EM_PATTERN_LLAMA3};
    struct em_words whole, segments;
    em_words_init(&whole);
    em_words_init(&segments);
    CHECK_OK(em_words_count(&whole, &split, (const uint8_t *)text, N));
    const size_t n = N;
    struct documents d = {(const char *const[]){text}, &n, 1, 0};
    CHECK_OK(em_count_words(&split, (struct em_text_source){next_document, &d}, NULL, &segments));
    assert_int_equal(segments.count, whole.count);
    for (size_t i = 0; i < whole.count; i++) {
        const struct em_word *a = &whole.words[i], *b = &segments.words[i];
        assert_int_equal(a->size, b->size);
        assert_memory_equal(whole.pool.data + a->offset, segments.pool.data + b->offset, a->size);
        assert_int_equal(a->count, b->count);
    }
    em_words_deinit(&whole);
    em_words_deinit(&segments);
    em_free(text);
}

static void note_line(void *context, enum em_log_level level, const char *line)
{
    (void)level;
    strncpy(context, line, 199);
}

static void fewer_merges_than_asked_is_a_line(void **state)
{
    (void)state;
    char line[200] = "";
    struct em_tokenizer *t;
    em_log_to(note_line, line);
    const char *const text[] = {"ab ab ab", ""};
    CHECK_OK(
        train(&(struct em_bpe_train_options){.vocab = 1000}, text, (const size_t[]){8, 0}, 2, &t));
    em_log_to(NULL, NULL);
    assert_int_equal(em_tokenizer_size(t), 259 + 2); // "ab", " ab"
    assert_non_null(strstr(line, "261 tokens, not the 1000 asked for"));
    em_tokenizer_close(t);
    em_log_to(note_line, line);
    CHECK_OK(train(&(struct em_bpe_train_options){0}, NULL, NULL, 0, &t)); // no text at all
    em_log_to(NULL, NULL);
    assert_int_equal(em_tokenizer_size(t), 259);
    em_tokenizer_close(t);
}

static void overlapping_pairs_merge_from_the_left(void **state)
{
    (void)state;
    struct em_tokenizer *t;
    struct em_encoder *e;
    struct em_ids ids = {0};
    const char *const text[] = {"aaaaa aaaaa"};
    CHECK_OK(train(&(struct em_bpe_train_options){.vocab = 261, .min_frequency = 1}, text,
                   (const size_t[]){11}, 1, &t));
    CHECK_OK(em_encoder_create(t, &e));
    CHECK_OK(em_encode(e, "aaaaa", 5, 0, &ids));
    // First aa; then of (aa, a) and (aa, aa), twice each, the one with the lower ids.
    assert_int_equal(ids.count, 2);
    assert_int_equal(ids.ids[0], em_tokenizer_find(t, "aa", 2));
    assert_int_equal(ids.ids[1], em_tokenizer_find(t, "aaa", 3));
    assert_int_equal(ids.ids[1], 260);
    em_ids_deinit(&ids);
    em_encoder_destroy(e);
    em_tokenizer_close(t);
}

static void bad_sizes_are_refused(void **state)
{
    (void)state;
    struct em_tokenizer *t;
    CHECK_FAILS(train(&(struct em_bpe_train_options){.vocab = 258}, NULL, NULL, 0, &t),
                EMBER_E_CONFIG, "a vocabulary of 258 tokens; expected 259 to");
    CHECK_FAILS(train(&(struct em_bpe_train_options){.vocab = (size_t)1 << 25}, NULL, NULL, 0, &t),
                EMBER_E_CONFIG, "expected 259 to");
}

static void running_out_of_memory_anywhere_is_a_status(void **state)
{
    (void)state;
    const char *const text[] = {"the cat sat on the mat, the cat sat on the \xff hat", "the rat"};
    const size_t size[] = {strlen(text[0]), strlen(text[1])};
    for (size_t n = 1;; n++) {
        struct em_tokenizer *t;
        const size_t before = em_alloc_count();
        em_alloc_fail_at(n, 0);
        const ember_status status =
            train(&(struct em_bpe_train_options){.vocab = 270}, text, size, 2, &t);
        em_alloc_fail_at(0, 0);
        const bool failed = em_alloc_count() - before >= n;
        assert_int_equal(status, failed ? EMBER_E_NOMEM : EMBER_OK);
        if (failed) continue;
        em_tokenizer_close(t);
        break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_are_those_of_the_reference),
        cmocka_unit_test(threads_and_order_change_nothing),
        cmocka_unit_test(segments_cut_no_piece),
        cmocka_unit_test(fewer_merges_than_asked_is_a_line),
        cmocka_unit_test(overlapping_pairs_merge_from_the_left),
        cmocka_unit_test(bad_sizes_are_refused),
        cmocka_unit_test(running_out_of_memory_anywhere_is_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
