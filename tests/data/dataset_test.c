#include "data/dataset.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "data/corpus.h"
#include "data/windows.h"
#include "support/fault_io.h"

static struct em_tokenizer *tokenizer;

static int open_tokenizer(void **state)
{
    (void)state;
    return em_tokenizer_bytes(&tokenizer) == EMBER_OK ? 0 : -1;
}

static int close_tokenizer(void **state)
{
    (void)state;
    em_tokenizer_close(tokenizer);
    return 0;
}

static ember_status open_one(const char *path, const char *cache, double held_out,
                             struct em_dataset *d)
{
    const struct em_source source = {.path = path};
    const struct em_dataset_options options = {
        .tokenizer = tokenizer, .cache = cache, .tidy = true, .held_out = held_out};
    return em_dataset_open(&source, 1, &options, d);
}

// `count` lines of JSON, each a document of about 40 bytes.
static const char *put_lines(const char *dir, const char *name, size_t count, const char *word)
{
    struct em_buf b;
    em_buf_init(&b, 0);
    for (size_t i = 0; i < count; i++)
        CHECK_OK(
            em_buf_printf(&b, "{\"text\":\"%s number %zu of %zu and more\"}\n", word, i, count));
    const char *path = put_bytes(dir, name, b.data, b.size);
    em_buf_deinit(&b);
    return path;
}

static size_t count_caches(const char *dir)
{
    char **names;
    size_t count;
    CHECK_OK(em_list_directory(dir, &names, &count));
    em_names_free(names, count);
    return count;
}

static void text_becomes_tokens_with_their_document(void **state)
{
    (void)state;
    const char *dir = test_directory();
    struct em_dataset d;
    CHECK_OK(open_one(put_text(dir, "a.jsonl", "{\"text\":\"hey\"}\n{\"text\":\"yo\"}\n"),
                      test_path(dir, "cache"), -1, &d));
    const struct em_cache *c = &d.domains[0].cache;
    assert_string_equal(d.domains[0].name, "a.jsonl");
    assert_int_equal(c->count, 2);
    // BOS h e y EOS, BOS y o EOS
    static const int32_t expected[] = {1, 3 + 'h', 3 + 'e', 3 + 'y', 2, 1, 3 + 'y', 3 + 'o', 2};
    assert_int_equal(c->tokens, 9);
    for (size_t i = 0; i < 9; i++)
        assert_int_equal(em_cache_token(c, i), expected[i]);
    assert_int_equal(c->documents[0].bytes, 3);
    assert_int_equal(c->documents[1].bytes, 2);
    assert_int_equal(d.domains[0].train_tokens, 7); // every input has a target
    assert_int_equal(d.domains[0].held_out_tokens, 0);
    em_dataset_close(&d);
}

static void a_cache_is_used_again_until_something_changes(void **state)
{
    (void)state;
    const char *dir = test_directory(), *cache = test_path(dir, "cache"),
               *path = put_text(dir, "a.txt", "some text");
    struct em_dataset d;
    CHECK_OK(open_one(path, cache, 0, &d));
    assert_true(d.domains[0].cache.made);
    const uint64_t hash = em_dataset_hash(&d);
    em_dataset_close(&d);
    CHECK_OK(open_one(path, cache, 0, &d));
    assert_false(d.domains[0].cache.made);
    assert_true(em_dataset_hash(&d) == hash);
    assert_int_equal(d.domains[0].cache.stats.bytes, 9);
    em_dataset_close(&d);
    put_text(dir, "a.txt", "other tex");
    CHECK_OK(open_one(path, cache, 0, &d));
    assert_true(d.domains[0].cache.made);
    assert_true(em_dataset_hash(&d) != hash);
    em_dataset_close(&d);
    assert_int_equal(count_caches(cache), 1); // the one that is no longer used is gone
    // In memory nothing is written, and it is the same.
    put_text(dir, "a.txt", "some text");
    CHECK_OK(open_one(path, NULL, 0, &d));
    assert_true(em_dataset_hash(&d) == hash);
    em_dataset_close(&d);
    assert_int_equal(count_caches(cache), 1);
}

static void every_damage_of_a_cache_is_found_and_mended(void **state)
{
    (void)state;
    const char *dir = test_directory(), *cache = test_path(dir, "cache"),
               *path = put_text(dir, "a.txt", "some text");
    struct em_dataset d;
    CHECK_OK(open_one(path, cache, 0, &d));
    em_dataset_close(&d);
    char **names;
    size_t count;
    CHECK_OK(em_list_directory(cache, &names, &count));
    assert_int_equal(count, 1);
    char file[4096];
    snprintf(file, sizeof file, "%s/%s", cache, names[0]);
    em_names_free(names, count);
    struct em_buf whole;
    em_buf_init(&whole, 0);
    CHECK_OK(em_read_file(file, 0, &whole));
    for (size_t i = 0; i < whole.size + 20; i++) {
        FILE *f = fopen(file, "wb");
        assert_non_null(f);
        if (i < whole.size) whole.data[i] = (char)(whole.data[i] ^ 1 << i % 8);
        assert_int_equal(fwrite(whole.data, 1,
                                i < whole.size ? whole.size : whole.size - (i - whole.size) * 5 - 1,
                                f) > 0,
                         1);
        assert_int_equal(fclose(f), 0);
        if (i < whole.size) whole.data[i] = (char)(whole.data[i] ^ 1 << i % 8);
        *notes = '\0';
        CHECK_OK(open_one(path, cache, 0, &d));
        assert_true(d.domains[0].cache.made);
        assert_non_null(strstr(notes, "made anew"));
        assert_int_equal(d.domains[0].cache.tokens, 11);
        assert_int_equal(em_cache_token(&d.domains[0].cache, 1), 3 + 's');
        em_dataset_close(&d);
    }
    em_buf_deinit(&whole);
}

static void a_failing_disk_leaves_no_bad_cache(void **state)
{
    (void)state;
    const char *dir = test_directory(), *path = put_lines(dir, "a.jsonl", 100, "word");
    struct em_dataset d;
    faults_begin(&(struct fault_plan){0});
    CHECK_OK(open_one(path, test_path(dir, "first"), 0, &d));
    const size_t calls = faults_calls();
    faults_end();
    const uint64_t hash = em_dataset_hash(&d);
    em_dataset_close(&d);
    size_t failed = 0;
    for (size_t k = 1; k <= calls; k++) {
        const char *cache = test_path(dir, "cache");
        CHECK_OK(em_remove_tree(cache));
        faults_begin(&(struct fault_plan){.fail_call = k, .error = k % 2 ? ENOSPC : EIO});
        ember_status status = open_one(path, cache, 0, &d);
        faults_end();
        if (status != EMBER_OK) {
            failed++;
            assert_non_null(strstr(ember_last_error(), dir));
            CHECK_OK(open_one(path, cache, 0, &d));
        }
        assert_true(em_dataset_hash(&d) == hash);
        em_dataset_close(&d);
    }
    assert_true(failed > 10);
}

// Whether two ranges of targets have a place in common.
static bool overlap(const struct em_span *a, const struct em_span *b)
{
    return a->begin < b->end && b->begin < a->end;
}

static void check_split(const struct em_domain *d, double least, double most)
{
    const double share =
        (double)d->held_out_tokens / (double)(d->held_out_tokens + d->train_tokens);
    if (share < least || share > most)
        fail_msg("%s: %g of the tokens are held out", d->name, share);
    for (size_t i = 0; i < d->held_out_count; i++)
        for (size_t k = 0; k < d->train_count; k++)
            assert_false(overlap(&d->held_out[i], &d->train[k]));
    assert_int_equal(d->train_tokens + d->held_out_tokens, d->cache.tokens - d->cache.count);
}

static void held_out_text_is_never_trained_on(void **state)
{
    (void)state;
    const char *dir = test_directory();
    char text[5001];
    memset(text, 'x', 5000);
    text[5000] = '\0';
    struct em_dataset d;
    // One document: its end.
    CHECK_OK(open_one(put_text(dir, "one.txt", text), NULL, 0, &d));
    check_split(&d.domains[0], 0.019, 0.021);
    assert_int_equal(d.domains[0].held_out[0].end, 5001);
    CHECK_NEAR(d.domains[0].held_out_bytes, 99, 1e-9, "the tail's bytes (EOS has none)");
    em_dataset_close(&d);
    // Many: whole ones, about the share.
    CHECK_OK(open_one(put_lines(dir, "many.jsonl", 3000, "line"), NULL, 0, &d));
    check_split(&d.domains[0], 0.01, 0.03);
    for (size_t i = 0; i < d.domains[0].held_out_count; i++)
        assert_int_equal(em_cache_token(&d.domains[0].cache, d.domains[0].held_out[i].begin),
                         1); // from BOS
    em_dataset_close(&d);
    CHECK_OK(open_one(put_lines(dir, "many.jsonl", 3000, "line"), NULL, 0.25, &d));
    check_split(&d.domains[0], 0.2, 0.3);
    em_dataset_close(&d);
    // Just enough documents for whole ones: at least one.
    CHECK_OK(open_one(put_lines(dir, "some.jsonl", 50, "line"), NULL, 0, &d));
    assert_true(d.domains[0].held_out_tokens > 0);
    check_split(&d.domains[0], 0.001, 0.25);
    em_dataset_close(&d);
    // Scraps, and too little.
    CHECK_OK(open_one(put_text(dir, "scraps.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\"}\n"), NULL,
                      0, &d));
    check_split(&d.domains[0], 0.4, 0.6);
    em_dataset_close(&d);
    *notes = '\0';
    CHECK_OK(open_one(put_text(dir, "tiny.txt", "ab"), NULL, 0, &d));
    assert_int_equal(d.domains[0].held_out_tokens, 0);
    assert_non_null(strstr(notes, "tiny.txt: too little text"));
    em_dataset_close(&d);
    // Everything, for evaluation.
    CHECK_OK(open_one(test_path(dir, "many.jsonl"), NULL, 1, &d));
    assert_int_equal(d.domains[0].train_tokens, 0);
    em_dataset_close(&d);
}

static void copies_of_a_held_out_document_are_held_out_too(void **state)
{
    (void)state;
    const char *dir = test_directory();
    // Two domains with the same documents, and each of them twice.
    struct em_buf b;
    em_buf_init(&b, 0);
    for (int twice = 0; twice < 2; twice++)
        for (size_t i = 0; i < 400; i++)
            CHECK_OK(em_buf_printf(&b, "{\"text\":\"document %zu\"}\n", i));
    put_bytes(dir, "a.jsonl", b.data, b.size);
    put_bytes(dir, "b.jsonl", b.data, b.size);
    em_buf_deinit(&b);
    char one[2048], two[2048];
    snprintf(one, sizeof one, "%s/a.jsonl", dir);
    snprintf(two, sizeof two, "%s/b.jsonl", dir);
    const struct em_source sources[] = {{.path = one}, {.path = two}};
    const struct em_dataset_options options = {.tokenizer = tokenizer};
    struct em_dataset d;
    CHECK_OK(em_dataset_open(sources, 2, &options, &d));
    assert_true(d.domains[0].held_out_count > 0);
    assert_int_equal(d.domains[0].held_out_count % 2, 0);
    assert_int_equal(d.domains[0].held_out_count, d.domains[1].held_out_count);
    for (size_t i = 0; i < d.domains[0].held_out_count; i++)
        assert_int_equal(d.domains[0].held_out[i].begin, d.domains[1].held_out[i].begin);
    em_dataset_close(&d);
}

static void domains_have_names_of_their_own(void **state)
{
    (void)state;
    const struct em_source sources[] = {{.path = "x/a.txt"},
                                        {.path = "y/a.txt"},
                                        {.path = "z/a.txt", .name = "a.txt-2"},
                                        {.path = "b/"},
                                        {.path = "c/*.txt"}};
    char **names;
    CHECK_OK(em_domain_names(sources, 5, &names));
    static const char *const expected[] = {"a.txt", "a.txt-3", "a.txt-2", "b", "c"};
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(names[i], expected[i]);
    em_names_free(names, 5);
    const struct em_source twice[] = {{.path = "a", .name = "n"}, {.path = "b", .name = "n"}};
    CHECK_FAILS(em_domain_names(twice, 2, &names), EMBER_E_CONFIG, "\"n\"");
}

static void what_cannot_be_trained_on_is_refused(void **state)
{
    (void)state;
    const char *dir = test_directory();
    struct em_dataset d;
    const struct em_dataset_options options = {.tokenizer = tokenizer};
    CHECK_FAILS(em_dataset_open(NULL, 0, &options, &d), EMBER_E_CONFIG, "at least one");
    CHECK_FAILS(open_one(put_text(dir, "empty.txt", ""), NULL, 0, &d), EMBER_E_FORMAT,
                "empty.txt: no document to train on");
    CHECK_FAILS(open_one(put_text(dir, "blank.jsonl", "{\"text\":\" \"}\n"), NULL, 0, &d),
                EMBER_E_FORMAT, "no document");
    CHECK_FAILS(open_one(test_path(dir, "none"), NULL, 0, &d), EMBER_E_IO, "none");
    const char *path = put_text(dir, "a.txt", "text");
    const double weights[] = {-1, 1.0 / 0.0, 0.0 / 0.0};
    for (size_t i = 0; i < 3; i++) {
        const struct em_source source = {.path = path, .weight = weights[i]};
        CHECK_FAILS(em_dataset_open(&source, 1, &options, &d), EMBER_E_CONFIG, "weight");
    }
}

static void what_is_dropped_is_told(void **state)
{
    (void)state;
    const char *dir = test_directory();
    CHECK_OK(em_make_directories(test_path(dir, "mix")));
    put_text(dir, "mix/a.txt", "text");
    put_text(dir, "mix/b.txt", "");
    put_text(dir, "mix/c.txt", "caf\xe9");
    put_bytes(dir, "mix/d.bin", "\0\0", 2);
    put_text(dir, "mix/e.jsonl", "{\"text\":\"x\"}\n?\n");
    assert_int_equal(symlink("a.txt", test_path(dir, "mix/link")), 0);
    struct em_dataset d;
    CHECK_OK(open_one(test_path(dir, "mix"), NULL, 0, &d));
    assert_string_equal(d.domains[0].name, "mix");
    assert_int_equal(d.domains[0].cache.count, 3);
    assert_non_null(strstr(notes, "data: mix: 1 lines dropped that are no usable JSON, 1 empty "
                                  "documents dropped, 1 documents with bytes that are no UTF-8"));
    assert_non_null(strstr(notes, "1 binary files passed over, 1 symbolic links passed over"));
    assert_non_null(strstr(notes, "e.jsonl:2:1:"));
    em_dataset_close(&d);
}

static void the_number_of_threads_changes_nothing(void **state)
{
    (void)state;
    const char *dir = test_directory(), *path = put_lines(dir, "a.jsonl", 5000, "thread");
    uint64_t hashes[2], tokens[2];
    for (unsigned i = 0; i < 2; i++) {
        struct em_pool *pool;
        CHECK_OK(em_pool_create(i ? 3 : 1, &pool));
        const struct em_source source = {.path = path};
        const struct em_dataset_options options = {.tokenizer = tokenizer, .pool = pool};
        struct em_dataset d;
        CHECK_OK(em_dataset_open(&source, 1, &options, &d));
        hashes[i] = em_dataset_hash(&d);
        tokens[i] = 0;
        for (uint64_t k = 0; k < d.domains[0].cache.tokens; k++)
            tokens[i] = tokens[i] * 31 + (uint64_t)em_cache_token(&d.domains[0].cache, k);
        em_dataset_close(&d);
        em_pool_destroy(pool);
    }
    assert_true(hashes[0] == hashes[1] && tokens[0] == tokens[1]);
}

// Every held-out token is a target once, and the bytes are the text's.
static void windows_score_every_token_once(void **state)
{
    (void)state;
    const char *dir = test_directory();
    put_lines(dir, "a.jsonl", 120, "window");
    char path[2048], other[2048];
    snprintf(path, sizeof path, "%s/a.jsonl", dir);
    snprintf(other, sizeof other, "%s/b.txt", dir);
    put_text(dir, "b.txt", "the other domain");
    const struct em_source sources[] = {{.path = path}, {.path = other}};
    const struct em_dataset_options options = {
        .tokenizer = tokenizer, .held_out = 1, .no_eos = true};
    struct em_dataset d;
    CHECK_OK(em_dataset_open(sources, 2, &options, &d));
    for (size_t context = 1; context <= 80; context += 7) {
        struct em_windows w;
        struct em_packed p = {0};
        em_windows_init(&w, &d, SIZE_MAX,
                        &(struct em_windows_options){.context = context, .batch_tokens = 100});
        uint64_t places[2] = {0};
        double bytes[2] = {0};
        char *text = em_calloc(1, 1 << 16);
        size_t at = 0;
        for (bool more = true; more;) {
            CHECK_OK(em_windows_next(&w, &p, &more));
            assert_int_equal(more, p.batch.n_sequences > 0);
            assert_true(p.batch.n_tokens <= (context > 100 ? context : 100));
            for (size_t s = 0; s < p.batch.n_sequences; s++) {
                assert_int_equal(p.batch.labels[s], p.batch.labels[0]);
                const size_t n = p.offset[s + 1] - p.offset[s];
                assert_true(n >= 1 && n <= context);
                places[p.labels[s]] += n;
                bytes[p.labels[s]] += p.bytes[s];
                for (size_t i = p.offset[s]; i < p.offset[s + 1]; i++) {
                    if (i + 1 < p.offset[s + 1])
                        assert_int_equal(p.batch.targets[i], p.batch.tokens[i + 1]);
                    if (p.labels[s] == 1) text[at++] = (char)(p.batch.targets[i] - 3);
                }
            }
        }
        assert_string_equal(text, "the other domain");
        for (size_t i = 0; i < 2; i++) {
            assert_int_equal(places[i], d.domains[i].held_out_tokens);
            CHECK_NEAR(bytes[i], (double)d.domains[i].cache.stats.bytes, 1e-9, "domain %zu", i);
            CHECK_NEAR(d.domains[i].held_out_bytes, bytes[i], 1e-9, "domain %zu", i);
        }
        em_free(text);
        em_packed_deinit(&p);
    }
    em_dataset_close(&d);
}

static void a_limited_evaluation_takes_windows_from_everywhere(void **state)
{
    (void)state;
    const char *dir = test_directory();
    struct em_dataset d;
    CHECK_OK(open_one(put_lines(dir, "a.jsonl", 1000, "limit"), NULL, 1, &d));
    for (uint64_t limit = 1; limit < 40000; limit = limit * 3 + 16) {
        struct em_windows w;
        struct em_packed p = {0};
        em_windows_init(
            &w, &d, 0,
            &(struct em_windows_options){.context = 16, .batch_tokens = 64, .limit = limit});
        uint64_t places = 0, sequences = 0;
        for (bool more = true; more;) {
            CHECK_OK(em_windows_next(&w, &p, &more));
            places += p.batch.n_tokens;
            sequences += p.batch.n_sequences;
        }
        assert_int_equal(sequences, limit < 16 ? 1 : limit / 16);
        assert_true(places > 0 && places <= limit + 16);
        em_packed_deinit(&p);
    }
    em_dataset_close(&d);
}

static void running_out_of_memory_is_a_status(void **state)
{
    (void)state;
    const char *dir = test_directory(), *path = put_text(dir, "a.txt", "some text to tokenise");
    struct em_dataset d;
    size_t n = 0;
    for (ember_status status = EMBER_E_NOMEM; status != EMBER_OK;) {
        em_alloc_fail_at(++n, 0);
        status = open_one(path, NULL, 0, &d);
        em_alloc_fail_at(0, 0);
        if (status != EMBER_OK && status != EMBER_E_NOMEM)
            fail_msg("allocation %zu: %s", n, ember_last_error());
        assert_true(n < 5000);
    }
    assert_true(n > 20);
    em_dataset_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(text_becomes_tokens_with_their_document, listen_to_notes),
        cmocka_unit_test_setup(a_cache_is_used_again_until_something_changes, listen_to_notes),
        cmocka_unit_test_setup(every_damage_of_a_cache_is_found_and_mended, listen_to_notes),
        cmocka_unit_test_setup(a_failing_disk_leaves_no_bad_cache, listen_to_notes),
        cmocka_unit_test_setup(held_out_text_is_never_trained_on, listen_to_notes),
        cmocka_unit_test_setup(copies_of_a_held_out_document_are_held_out_too, listen_to_notes),
        cmocka_unit_test_setup(domains_have_names_of_their_own, listen_to_notes),
        cmocka_unit_test_setup(what_cannot_be_trained_on_is_refused, listen_to_notes),
        cmocka_unit_test_setup(what_is_dropped_is_told, listen_to_notes),
        cmocka_unit_test_setup(the_number_of_threads_changes_nothing, listen_to_notes),
        cmocka_unit_test_setup(windows_score_every_token_once, listen_to_notes),
        cmocka_unit_test_setup(a_limited_evaluation_takes_windows_from_everywhere, listen_to_notes),
        cmocka_unit_test_setup(running_out_of_memory_is_a_status, listen_to_notes),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
