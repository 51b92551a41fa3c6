// Scores of text, against whole forward passes and sums in double.
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "infer/perplexity.h"
#include "infer/small_model.h"

// -log softmax(logits)[target] after each of n ids, by the reference backend.
static void reference_nll(const struct em_model *m, const int32_t *ids, size_t n,
                          const int32_t *targets, double *nll)
{
    struct em_program *p;
    struct em_model_outputs outputs;
    const size_t offset[] = {0, n};
    const ember_batch batch = {.n_tokens = n, .n_sequences = 1, .offset = offset, .tokens = ids};
    CHECK_OK(em_program_create(
        &(struct em_program_options){.backend = EM_REFERENCE, .max_tokens = n, .max_sequences = 1},
        &p));
    CHECK_OK(em_model_record(m, p, EM_HEAD_ALL, &outputs));
    CHECK_OK(em_program_allocate(p));
    CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch, .loss_scale = 1}));
    for (size_t t = 0; t < n; t++) {
        const float *z = em_f32(outputs.logits) + t * m->vocabulary;
        double sum = 0;
        for (size_t v = 0; v < m->vocabulary; v++)
            sum += exp((double)z[v]);
        nll[t] = log(sum) - (double)z[targets[t]];
    }
    em_program_destroy(p);
}

static const char *const text[] = {
    "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money.",
    "{\"text\": \"One fine day\"}\n{\"text\": \"another\"}\n",
};

// The ids of a document as bytes: BOS, then 3 + byte.
static size_t ids_of(const char *s, int32_t *ids)
{
    ids[0] = 1;
    for (size_t i = 0; s[i]; i++)
        ids[i + 1] = 3 + (uint8_t)s[i];
    return strlen(s) + 1;
}

static double expected_nats(const struct em_model *m, const char *document, size_t context)
{
    int32_t ids[200];
    double nll[200], sum = 0;
    const size_t places = ids_of(document, ids) - 1;
    for (size_t at = 0; at < places; at += context) {
        const size_t n = places - at < context ? places - at : context;
        reference_nll(m, ids + at, n, ids + at + 1, nll);
        for (size_t t = 0; t < n; t++)
            sum += nll[t];
    }
    return sum;
}

static void every_token_is_scored_once_at_any_context(void **state)
{
    (void)state;
    const char *folder = test_directory(), *plain = test_path(folder, "a.txt"),
               *lines = test_path(folder, "b.jsonl");
    struct em_model *m = small_model();
    struct em_tokenizer *t;
    struct em_dataset dataset;
    CHECK_OK(em_tokenizer_bytes(&t));
    CHECK_OK(em_write_file(plain, text[0], strlen(text[0])));
    CHECK_OK(em_write_file(lines, text[1], strlen(text[1])));
    const struct em_source source[] = {{.path = plain}, {.path = lines}};
    CHECK_OK(em_dataset_open(
        source, 2, &(struct em_dataset_options){.tokenizer = t, .held_out = 1, .no_eos = true},
        &dataset));
    static const size_t contexts[] = {1, 2, 7, 64, 90, 2048, 5000};
    for (size_t c = 0; c < sizeof contexts / sizeof *contexts; c++) {
        const struct em_perplexity_options o = {.backend = EM_CPU, .context = contexts[c]};
        struct em_perplexity p;
        CHECK_OK(em_perplexity_domain(m, &dataset, 0, &o, &p));
        assert_int_equal(p.tokens, strlen(text[0]));
        CHECK_NEAR(p.bytes, strlen(text[0]), 1e-12, "context %zu", contexts[c]);
        assert_int_equal(p.windows, (strlen(text[0]) + contexts[c] - 1) / contexts[c]);
        CHECK_NEAR(p.nats, expected_nats(m, text[0], contexts[c]), 1e-5, "context %zu",
                   contexts[c]);
        CHECK_OK(em_perplexity_domain(m, &dataset, 1, &o, &p));
        assert_int_equal(p.tokens, 12 + 7);
        CHECK_NEAR(p.bytes, 12 + 7, 1e-12, "context %zu", contexts[c]);
        CHECK_NEAR(p.nats,
                   expected_nats(m, "One fine day", contexts[c]) +
                       expected_nats(m, "another", contexts[c]),
                   1e-5, "lines, context %zu", contexts[c]);
    }
    em_interrupt_set(true);
    struct em_perplexity p;
    CHECK_FAILS(
        em_perplexity_domain(m, &dataset, 0, &(struct em_perplexity_options){.context = 8}, &p),
        EMBER_E_INTERRUPTED, "stopped");
    em_interrupt_set(false);
    em_dataset_close(&dataset);
    em_tokenizer_close(t);
    em_model_close(m);
}

// A window longer than a pass goes through a state.
static void a_long_window_is_one_sequence(void **state)
{
    (void)state;
    enum { N = 2500 };
    const char *path = test_path(test_directory(), "long.txt");
    char *long_text = em_alloc(N + 1);
    struct em_model *m = small_model();
    struct em_tokenizer *t;
    struct em_dataset dataset;
    struct em_perplexity p;
    for (size_t i = 0; i < N; i++)
        long_text[i] = (char)('a' + i * i % 23);
    long_text[N] = 0;
    CHECK_OK(em_tokenizer_bytes(&t));
    CHECK_OK(em_write_file(path, long_text, N));
    CHECK_OK(em_dataset_open(
        &(struct em_source){.path = path}, 1,
        &(struct em_dataset_options){.tokenizer = t, .held_out = 1, .no_eos = true}, &dataset));
    CHECK_OK(em_perplexity_domain(
        m, &dataset, 0, &(struct em_perplexity_options){.backend = EM_CPU, .context = 4000}, &p));
    int32_t *ids = em_calloc(N + 1, sizeof *ids);
    double *nll = em_calloc(N, sizeof *nll), sum = 0;
    ids_of(long_text, ids);
    reference_nll(m, ids, N, ids + 1, nll);
    for (size_t i = 0; i < N; i++)
        sum += nll[i];
    assert_int_equal(p.windows, 1);
    assert_int_equal(p.tokens, N);
    CHECK_NEAR(p.nats, sum, 1e-5, "one window");
    em_free(ids);
    em_free(nll);
    em_free(long_text);
    em_dataset_close(&dataset);
    em_tokenizer_close(t);
    em_model_close(m);
}

static void llama_windows_score_second_halves(void **state)
{
    (void)state;
    struct em_model *m = small_model();
    struct em_tokenizer *t;
    int32_t ids[200], window[32];
    const size_t n = ids_of(text[0], ids);
    CHECK_OK(em_tokenizer_bytes(&t));
    for (size_t context = 5; context <= 16; context += 11)
        for (int bos = 0; bos < 2; bos++) {
            struct em_perplexity p;
            const struct em_perplexity_options o = {.backend = EM_CPU, .context = context};
            double sum = 0, nll[32];
            size_t scored = 0;
            for (size_t w = 0; w < n / context; w++) {
                memcpy(window, ids + w * context, context * sizeof *window);
                if (bos) window[0] = 1;
                reference_nll(m, window, context - 1, ids + w * context + 1, nll);
                for (size_t i = context / 2; i < context - 1; i++, scored++)
                    sum += nll[i];
            }
            CHECK_OK(em_perplexity_llama(m, t, ids, n, bos, &o, &p));
            assert_int_equal(p.windows, n / context);
            assert_int_equal(p.tokens, scored);
            CHECK_NEAR(p.bytes, scored, 1e-12, "context %zu", context);
            CHECK_NEAR(p.nats, sum, 1e-5, "context %zu, bos %d", context, bos);
        }
    struct em_perplexity p;
    CHECK_FAILS(em_perplexity_llama(m, t, ids, 31, true,
                                    &(struct em_perplexity_options){.context = 16}, &p),
                EMBER_E_SHAPE, "has 31 tokens, and windows of 16 need at least two");
    CHECK_FAILS(
        em_perplexity_llama(m, t, ids, 31, true, &(struct em_perplexity_options){.context = 3}, &p),
        EMBER_E_RANGE, "no second half");
    em_tokenizer_close(t);
    em_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_token_is_scored_once_at_any_context),
        cmocka_unit_test(a_long_window_is_one_sequence),
        cmocka_unit_test(llama_windows_score_second_halves),
    };
    return cmocka_run_group_tests_name("perplexity", tests, NULL, NULL);
}
