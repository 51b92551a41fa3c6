#include "data/sampler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "data/corpus.h"
#include "data/ids.h"

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

// Documents of different lengths, whose every byte pair is unlike those of other documents of the
// domain.
static void put_domain(const char *dir, const char *name, size_t documents, size_t longest,
                       char first)
{
    struct em_buf b;
    em_buf_init(&b, 0);
    for (size_t i = 0; i < documents; i++) {
        CHECK_OK(em_buf_puts(&b, "{\"text\":\""));
        const size_t n = 2 + i * 7919 % longest;
        for (size_t k = 0; k < n; k++)
            CHECK_OK(em_buf_putc(&b, (char)(first + (char)((i * 5 + k) % 20))));
        CHECK_OK(em_buf_puts(&b, "\"}\n"));
    }
    put_bytes(dir, name, b.data, b.size);
    em_buf_deinit(&b);
}

// Three domains of about 3:1:... tokens; `weights` may be NULL.
static void open_three(const char *dir, const double *weights, struct em_dataset *d)
{
    put_domain(dir, "a", 200, 90, 'a');
    put_domain(dir, "b", 60, 90, 'A');
    put_domain(dir, "c", 1, 3000, '0');
    static char paths[3][2048];
    struct em_source sources[3] = {0};
    for (size_t i = 0; i < 3; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/%c", dir, (char)('a' + (char)i));
        sources[i] = (struct em_source){
            .path = paths[i], .weight = weights ? weights[i] : 0, .options.format = EM_DATA_JSONL};
    }
    const struct em_dataset_options options = {.tokenizer = tokenizer};
    CHECK_OK(em_dataset_open(sources, 3, &options, d));
}

static struct em_sampler *sampler_of(const struct em_dataset *d, size_t batch, size_t seq,
                                     uint64_t seed)
{
    struct em_sampler *s;
    CHECK_OK(em_sampler_create(
        d, &(struct em_sampler_options){.batch = batch, .seq = seq, .seed = seed}, &s));
    return s;
}

// Whether a piece is some place of the domain's training spans, from a document; its place in the
// cache, or fail.
static uint64_t find_piece(const struct em_domain *d, const int32_t *tokens, const int32_t *targets,
                           size_t n)
{
    for (size_t i = 0; i < d->train_count; i++)
        for (uint64_t p = d->train[i].begin; p + n <= d->train[i].end; p++) {
            size_t k = 0;
            while (k < n && em_cache_token(&d->cache, p + k) == tokens[k] &&
                   em_cache_token(&d->cache, p + k + 1) == targets[k])
                k++;
            if (k == n) return p;
        }
    fail_msg("a piece of %zu tokens is in no training document of %s", n, d->name);
    return 0;
}

static void batches_are_full_and_every_sequence_is_of_one_document(void **state)
{
    (void)state;
    struct em_dataset d;
    open_three(test_directory(), NULL, &d);
    struct em_sampler *s = sampler_of(&d, 4, 64, 7);
    struct em_packed p = {0};
    for (uint64_t step = 0; step < 40; step++) {
        CHECK_OK(em_sampler_fill(s, step, 0, 4, &p));
        assert_int_equal(p.batch.n_tokens, 4 * 64);
        assert_int_equal(p.batch.offset[0], 0);
        assert_int_equal(p.batch.offset[p.batch.n_sequences], 4 * 64);
        size_t rows = 0;
        for (size_t i = 0; i < p.batch.n_sequences; i++) {
            const size_t at = p.batch.offset[i], n = p.batch.offset[i + 1] - at;
            assert_true(n >= 1);
            rows += at % 64 == 0; // a row begins a sequence
            find_piece(&d.domains[p.batch.labels[i]], p.batch.tokens + at, p.batch.targets + at, n);
        }
        assert_int_equal(rows, 4);
    }
    em_packed_deinit(&p);
    em_sampler_destroy(s);
    em_dataset_close(&d);
}

static void a_step_is_the_same_whenever_and_however_it_is_asked_for(void **state)
{
    (void)state;
    struct em_dataset d;
    open_three(test_directory(), NULL, &d);
    struct em_sampler *s = sampler_of(&d, 6, 32, 1), *again = sampler_of(&d, 6, 32, 1),
                      *other = sampler_of(&d, 6, 32, 2);
    struct em_packed p = {0}, q = {0};
    static const uint64_t steps[] = {0, 1, 2, 1000, 3, (uint64_t)1 << 40, 0};
    bool differs = false;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        CHECK_OK(em_sampler_fill(s, steps[i], 0, 6, &p));
        size_t sequences = 0;
        for (size_t first = 0; first < 6; first += 2) { // accumulation
            CHECK_OK(em_sampler_fill(again, steps[i], first, 2, &q));
            assert_memory_equal(q.tokens, p.tokens + first * 32, 64 * sizeof *q.tokens);
            assert_memory_equal(q.targets, p.targets + first * 32, 64 * sizeof *q.targets);
            for (size_t k = 0; k < q.batch.n_sequences; k++)
                assert_int_equal(q.offset[k] + first * 32, p.offset[sequences + k]);
            sequences += q.batch.n_sequences;
        }
        assert_int_equal(sequences, p.batch.n_sequences);
        CHECK_OK(em_sampler_fill(other, steps[i], 0, 6, &q));
        differs = differs || memcmp(p.tokens, q.tokens, 6 * 32 * sizeof *p.tokens) != 0;
    }
    assert_true(differs);
    em_packed_deinit(&p);
    em_packed_deinit(&q);
    em_sampler_destroy(s);
    em_sampler_destroy(again);
    em_sampler_destroy(other);
    em_dataset_close(&d);
}

// One long document: an epoch's rows are disjoint and, but for less than a row, all of it; the next
// epoch's come in another order and are cut at other places.
static void an_epoch_shows_every_place_once(void **state)
{
    (void)state;
    const char *dir = test_directory();
    char text[2 * 2000 + 1];
    for (size_t i = 0; i < 2000;
         i++) // every pair of bytes once: a place is known by its token and target
        snprintf(text + 2 * i, 3, "%c%c", (char)('0' + (char)(i / 60)),
                 (char)('A' + (char)(i % 60)));
    const struct em_source source = {.path = put_text(dir, "a.txt", text)};
    const struct em_dataset_options options = {.tokenizer = tokenizer};
    struct em_dataset d;
    CHECK_OK(em_dataset_open(&source, 1, &options, &d));
    const uint64_t places = d.domains[0].train_tokens;
    enum { SEQ = 48 };
    const uint64_t rows = places / SEQ;
    struct em_sampler *s = sampler_of(&d, 1, SEQ, 5);
    struct em_packed p = {0};
    uint64_t first_row[2] = {0};
    for (uint64_t epoch = 0; epoch < 2; epoch++) {
        unsigned char *seen = em_calloc(1, (size_t)places);
        uint64_t count = 0;
        for (uint64_t r = 0; r < rows; r++) {
            CHECK_OK(em_sampler_fill(s, epoch * rows + r, 0, 1, &p));
            for (size_t i = 0; i < p.batch.n_sequences; i++) {
                const size_t at = p.offset[i], n = p.offset[i + 1] - at;
                if (n < 2) { // too short to be known again; at the ring's end only
                    count++;
                    continue;
                }
                const uint64_t place = find_piece(&d.domains[0], p.tokens + at, p.targets + at, n);
                if (r == 0 && i == 0) first_row[epoch] = place;
                for (size_t k = 0; k < n; k++) {
                    assert_int_equal(seen[place + k], 0);
                    seen[place + k] = 1;
                    count++;
                }
            }
        }
        assert_int_equal(count, rows * SEQ);
        assert_true(places - count < SEQ);
        em_free(seen);
    }
    assert_true(first_row[0] != first_row[1]);
    assert_true(first_row[0] % SEQ != first_row[1] % SEQ);
    CHECK_NEAR(em_sampler_epochs(s, 0, rows), (double)(rows * SEQ) / (double)places, 1e-12,
               "epochs");
    em_packed_deinit(&p);
    em_sampler_destroy(s);
    em_dataset_close(&d);
}

// Tokens of each domain in `steps` steps.
static void draw(const struct em_dataset *d, uint64_t steps, uint64_t tokens[3])
{
    struct em_sampler *s = sampler_of(d, 8, 32, 3);
    struct em_packed p = {0};
    memset(tokens, 0, 3 * sizeof *tokens);
    for (uint64_t step = 0; step < steps; step++) {
        CHECK_OK(em_sampler_fill(s, step, 0, 8, &p));
        for (size_t i = 0; i < p.batch.n_sequences; i++)
            tokens[p.labels[i]] += p.offset[i + 1] - p.offset[i];
    }
    em_packed_deinit(&p);
    em_sampler_destroy(s);
}

static void domains_are_drawn_by_size_or_by_weight(void **state)
{
    (void)state;
    struct em_dataset d;
    uint64_t tokens[3];
    open_three(test_directory(), NULL, &d);
    const double all = (double)em_dataset_train_tokens(&d);
    // A whole period: exact but for the rounding to rows.
    uint64_t rows = 0;
    for (size_t i = 0; i < 3; i++)
        rows += d.domains[i].train_tokens / 32;
    draw(&d, rows, tokens); // 8 epochs, as a step has 8 rows
    for (size_t i = 0; i < 3; i++)
        CHECK_NEAR((double)tokens[i] / (double)(rows * 8 * 32),
                   (double)d.domains[i].train_tokens / all, 0.005, "domain %zu", i);
    em_dataset_close(&d);
    const double weights[] = {0.5, 0, 2.5}; // one that is not given counts as 1
    open_three(test_directory(), weights, &d);
    draw(&d, 16384 / 8, tokens);
    for (size_t i = 0; i < 3; i++)
        CHECK_NEAR((double)tokens[i] / (16384 * 32), (weights[i] > 0 ? weights[i] : 1) / 4, 1e-4,
                   "domain %zu", i);
    em_dataset_close(&d);
}

static void a_domain_smaller_than_a_row_is_repeated(void **state)
{
    (void)state;
    const char *dir = test_directory();
    const struct em_source source = {.path = put_text(dir, "a.txt", "ab")};
    const struct em_dataset_options options = {.tokenizer = tokenizer};
    struct em_dataset d;
    CHECK_OK(em_dataset_open(&source, 1, &options, &d));
    struct em_sampler *s = sampler_of(&d, 2, 50, 1);
    struct em_packed p = {0};
    CHECK_OK(em_sampler_fill(s, 9, 0, 2, &p));
    assert_int_equal(p.batch.n_tokens, 100);
    assert_true(p.batch.n_sequences >= 32); // each time round is a sequence of its own
    double bytes = em_packed_bytes(&p);
    assert_true(bytes > 60 && bytes < 70); // of BOS a b -> a b EOS two in three are bytes
    em_packed_deinit(&p);
    em_sampler_destroy(s);
    em_dataset_close(&d);
}

static void what_makes_no_batch_is_refused(void **state)
{
    (void)state;
    const char *dir = test_directory();
    const struct em_source source = {.path = put_text(dir, "a.txt", "some text")};
    struct em_dataset_options options = {.tokenizer = tokenizer};
    struct em_dataset d;
    struct em_sampler *s;
    CHECK_OK(em_dataset_open(&source, 1, &options, &d));
    static const size_t sizes[][2] = {{0, 8}, {8, 0}, {SIZE_MAX, 2}, {65536, 65536}};
    for (size_t i = 0; i < 4; i++)
        CHECK_FAILS(
            em_sampler_create(
                &d, &(struct em_sampler_options){.batch = sizes[i][0], .seq = sizes[i][1]}, &s),
            EMBER_E_RANGE, "batch");
    s = sampler_of(&d, 4, 8, 0);
    struct em_packed p = {0};
    CHECK_FAILS(em_sampler_fill(s, 0, 4, 1, &p), EMBER_E_RANGE, "a batch has 4");
    CHECK_FAILS(em_sampler_fill(s, 0, 0, 5, &p), EMBER_E_RANGE, "a batch has 4");
    CHECK_FAILS(em_sampler_fill(s, 0, 0, 0, &p), EMBER_E_RANGE, "a batch has 4");
    CHECK_FAILS(em_sampler_fill(s, UINT64_MAX, 0, 1, &p), EMBER_E_RANGE, "step");
    em_sampler_destroy(s);
    em_dataset_close(&d);
    options.held_out = 1;
    CHECK_OK(em_dataset_open(&source, 1, &options, &d));
    CHECK_FAILS(em_sampler_create(&d, &(struct em_sampler_options){.batch = 1, .seq = 8}, &s),
                EMBER_E_FORMAT, "nothing to train on");
    em_packed_deinit(&p);
    em_dataset_close(&d);
}

static void put_ids(const char *path, enum em_st_dtype dtype, const void *ids, const size_t *shape,
                    size_t rank)
{
    const struct em_st_output t = {"input_ids", shape, ids, rank, dtype};
    CHECK_OK(em_safetensors_write(path, &(struct em_st_write){.tensors = &t, .count = 1}));
}

static void fixed_batches_come_slice_by_slice(void **state)
{
    (void)state;
    const char *path = test_path(test_directory(), "ids.safetensors");
    int64_t wide[2 * 3 * 4];
    int32_t narrow[2 * 3 * 4];
    for (int i = 0; i < 24; i++)
        wide[i] = narrow[i] = i;
    for (int pass = 0; pass < 2; pass++) {
        put_ids(path, pass ? EM_ST_I32 : EM_ST_I64, pass ? (const void *)narrow : wide,
                (size_t[]){2, 3, 4}, 3);
        struct em_ids_source s;
        CHECK_OK(em_ids_open(path, 24, &s));
        assert_true(s.steps == 2 && s.batch == 3 && s.seq == 4);
        struct em_packed p = {0};
        CHECK_OK(em_ids_fill(&s, 1, 1, 2, &p));
        static const int32_t tokens[] = {16, 17, 18, 19, 20, 21, 22, 23},
                             targets[] = {17, 18, 19, -100, 21, 22, 23, -100};
        assert_int_equal(p.batch.n_sequences, 2);
        assert_int_equal(p.batch.offset[1], 4);
        assert_memory_equal(p.batch.tokens, tokens, sizeof tokens);
        assert_memory_equal(p.batch.targets, targets, sizeof targets);
        CHECK_FAILS(em_ids_fill(&s, 2, 0, 3, &p), EMBER_E_RANGE, "2 steps");
        CHECK_FAILS(em_ids_fill(&s, 0, 2, 2, &p), EMBER_E_RANGE, "a batch has 3");
        em_packed_deinit(&p);
        em_ids_close(&s);
        CHECK_FAILS(em_ids_open(path, 23, &s), EMBER_E_RANGE, "step 1 has the token 23");
    }
    struct em_ids_source s;
    narrow[5] = -1;
    put_ids(path, EM_ST_I32, narrow, (size_t[]){2, 3, 4}, 3);
    CHECK_FAILS(em_ids_open(path, 24, &s), EMBER_E_RANGE, "the token -1");
    put_ids(path, EM_ST_I32, narrow, (size_t[]){6, 4}, 2);
    CHECK_FAILS(em_ids_open(path, 24, &s), EMBER_E_FORMAT, "[6, 4]");
    put_ids(path, EM_ST_F32, narrow, (size_t[]){2, 3, 4}, 3);
    CHECK_FAILS(em_ids_open(path, 24, &s), EMBER_E_FORMAT, "F32");
    put_ids(path, EM_ST_I32, narrow, (size_t[]){0, 3, 4}, 3);
    CHECK_FAILS(em_ids_open(path, 24, &s), EMBER_E_FORMAT, "[0, 3, 4]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(batches_are_full_and_every_sequence_is_of_one_document,
                               listen_to_notes),
        cmocka_unit_test_setup(a_step_is_the_same_whenever_and_however_it_is_asked_for,
                               listen_to_notes),
        cmocka_unit_test_setup(an_epoch_shows_every_place_once, listen_to_notes),
        cmocka_unit_test_setup(domains_are_drawn_by_size_or_by_weight, listen_to_notes),
        cmocka_unit_test_setup(a_domain_smaller_than_a_row_is_repeated, listen_to_notes),
        cmocka_unit_test_setup(what_makes_no_batch_is_refused, listen_to_notes),
        cmocka_unit_test(fixed_batches_come_slice_by_slice),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
