// What `ember bench` reports: the promised fields, figures that agree with each other, refusals.
#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/wait.h>

#include <ember/bench.h>

#include "base/alloc.h"
#include "base/json.h"
#include "support/check.h"

static const char *const moe_model = EMBER_TESTS_DIR "/golden/models/lfm2_moe";
static const char *const dense_model = EMBER_TESTS_DIR "/golden/models/lfm2";

static json_t *bench(const char *name, const ember_bench_options *options)
{
    ember_bench_result *result;
    json_t *object;
    CHECK_OK(ember_bench(name, options, &result));
    const char *json = ember_bench_json(result);
    CHECK_OK(em_json_parse(name, json, strlen(json), 0, &object));
    assert_non_null(strstr(ember_bench_text(result), "median"));
    ember_bench_free(result);
    return object;
}

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value)) fail_msg("no number %s", key);
    return json_number_value(value);
}

static void check_common(const json_t *o, const char *name)
{
    assert_string_equal(json_string_value(json_object_get(o, "bench")), name);
    assert_true(number(o, "min") > 0 && number(o, "min") <= number(o, "median"));
    assert_true(number(o, "median") <= number(o, "max"));
    assert_true(number(o, "repeats") >= 1 && number(o, "threads") == 2);
    assert_true(number(o, "roof") > 0 && number(o, "roof") <= 1);
    assert_true(strlen(json_string_value(json_object_get(o, "isa"))) > 0);
}

static double sum_of(const json_t *object)
{
    double sum = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        assert_true(json_number_value(value) >= 0);
        sum += json_number_value(value);
    }
    return sum;
}

static ember_bench_options small(void)
{
    return (ember_bench_options){.runtime = {.threads = 2}, .seconds = 0.02};
}

static void a_training_step_is_accounted_for(void **state)
{
    (void)state;
    for (int compute = EMBER_COMPUTE_F32; compute <= EMBER_COMPUTE_BF16; compute++)
        for (size_t steps = 2; steps <= 3; steps++) { // the median of two lies between them
            ember_bench_options o = small();
            o.runtime.compute = (ember_compute)compute;
            o.model = moe_model;
            o.batch = 2;
            o.length = 12;
            o.steps = steps;
            json_t *r = bench("train", &o);
            check_common(r, "train");
            const double step = number(r, "step_s"), rate = number(r, "tokens_per_s");
            assert_true(number(r, "repeats") == (double)steps && step == number(r, "median"));
            CHECK_NEAR(rate * step, 2 * 12, 1e-6, "tokens");
            CHECK_NEAR(number(r, "gflops") / (6e-9 * number(r, "active_parameters") * rate), 1,
                       1e-9, "gflops");
            assert_true(number(r, "active_parameters") < number(r, "parameters"));
            assert_true(number(r, "peak_bytes") > 1 << 20);
            const json_t *profile = json_object_get(r, "profile");
            CHECK_NEAR(sum_of(profile) / step, 1, 0.02, "profile");
            assert_true(number(profile, "grouped_linear") > 0 && number(profile, "adamw") > 0);
            assert_true(number(profile, "cross_entropy") > 0 && number(profile, "attention") > 0);
            json_decref(r);
        }
}

// A config of vectors instead of tokens.
static const char *vector_model(void)
{
    const char *path = test_path(test_directory(), "config.json");
    json_t *config =
        json_pack("{s:s, s:i, s:[{s:s, s:{s:s}}]}", "model_type", "ember", "hidden_size", 16,
                  "blocks", "type", "pre_norm", "channel", "type", "swiglu");
    CHECK_OK(em_json_write(path, config, 0));
    json_decref(config);
    return path;
}

static void models_that_read_vectors_train_too(void **state)
{
    (void)state;
    const char *path = vector_model();
    ember_bench_options o = small();
    o.model = path;
    o.batch = 2;
    o.length = 3;
    o.steps = 1;
    json_t *r = bench("train", &o);
    assert_true(number(json_object_get(r, "profile"), "mean_square") > 0);
    json_decref(r);
    o.tokens = 4;
    json_decref(bench("prefill", &o));
    json_decref(bench("decode", &o));
}

static void inference_counts_what_a_token_reads(void **state)
{
    (void)state;
    const char *const models[] = {dense_model, moe_model};
    for (size_t i = 0; i < 2; i++) {
        ember_bench_options o = small();
        o.runtime.compute = EMBER_COMPUTE_F32;
        o.model = models[i];
        o.tokens = 5;
        o.context = 3;
        const char *const names[] = {"prefill", "decode"};
        double bytes[2];
        for (size_t j = 0; j < 2; j++) {
            json_t *r = bench(names[j], &o);
            check_common(r, names[j]);
            bytes[j] = number(r, "bytes_per_token");
            CHECK_NEAR(number(r, "tokens_per_s") * number(r, "median"), 5, 1e-6, "tokens");
            CHECK_NEAR(bytes[j] * number(r, "tokens_per_s") / 1e9 / number(r, "gbytes_per_s"), 1,
                       1e-9, "rate");
            json_decref(r);
        }
        assert_true(bytes[0] < bytes[1]); // a prompt reads the weights once
    }
}

static void decode_reads_more_after_a_longer_context(void **state)
{
    (void)state;
    double bytes[2];
    const size_t context[] = {10, 600}; // the second one is read in several parts
    for (size_t i = 0; i < 2; i++) {
        ember_bench_options o = small();
        o.model = dense_model;
        o.tokens = 2;
        o.context = context[i];
        json_t *r = bench("decode", &o);
        bytes[i] = number(r, "bytes_per_token");
        json_decref(r);
    }
    assert_true(bytes[1] > bytes[0]);
}

// By turns beside a process that spins, which is gone afterwards.
static void speed_beside_another_process_is_measured(void **state)
{
    (void)state;
    const char *const names[] = {"decode", "train"};
    for (size_t i = 0; i < 2; i++) {
        ember_bench_options o = small();
        o.model = dense_model;
        o.tokens = o.steps = 1;
        o.batch = 1;
        o.length = 8;
        o.context = 4;
        o.busy = true;
        o.seconds = 0.01;
        json_t *r = bench(names[i], &o);
        check_common(r, names[i]);
        assert_true(number(r, "kept_least") > 0);
        assert_true(number(r, "kept_least") <= number(r, "kept") * (1 + 1e-9));
        assert_true(number(r, "kept") <= number(r, "kept_most") * (1 + 1e-9));
        json_decref(r);
        assert_true(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
        o.busy = false;
        r = bench(names[i], &o);
        assert_null(json_object_get(r, "kept"));
        json_decref(r);
    }
}

static void products_attention_and_experts_count_their_work(void **state)
{
    (void)state;
    ember_bench_options o = small();
    o.m = 5, o.n = 70, o.k = 33;
    json_t *r = bench("gemm", &o);
    check_common(r, "gemm");
    CHECK_NEAR(number(r, "gflops") * 1e9 * number(r, "median"), 2.0 * 5 * 70 * 33, 1e-6, "gemm");
    json_decref(r);
    for (int backward = 0; backward < 2; backward++) {
        o = small();
        o.backward = backward;
        o.batch = 2, o.length = 7, o.heads = 4, o.kv_heads = 2, o.head_dim = 8;
        r = bench("attention", &o);
        check_common(r, "attention");
        CHECK_NEAR(number(r, "ms"), 1e3 * number(r, "median"), 1e-9, "ms");
        CHECK_NEAR(number(r, "gflops") * 1e9 * number(r, "median"),
                   (backward ? 14.0 : 4.0) * 2 * 4 * 28 * 8, 1e-6, "attention");
        json_decref(r);
        o.runtime.backend = EMBER_BACKEND_REFERENCE;
        r = bench("attention", &o);
        assert_string_equal(json_string_value(json_object_get(r, "isa")), "reference");
        json_decref(r);
        o.runtime.backend = EMBER_BACKEND_CPU;
        o.channels = 19, o.gated = backward;
        r = bench("fftconv", &o);
        check_common(r, "fftconv");
        CHECK_NEAR(number(r, "ms"), 1e3 * number(r, "median"), 1e-9, "ms");
        CHECK_NEAR(number(r, "ns_per_element") * 2 * 7 * 19, 1e9 * number(r, "median"), 1e-3,
                   "fftconv");
        json_decref(r);
        static const char *const cells[] = {"ltc", "cfc", "lstm", "gru"};
        for (size_t i = 0; i < 4; i++) {
            o.type = cells[i], o.input = 3, o.units = 9;
            o.wiring = i < 2 && backward ? "auto:9,2" : NULL;
            r = bench("recurrent", &o);
            check_common(r, "recurrent");
            CHECK_NEAR(number(r, "ms"), 1e3 * number(r, "median"), 1e-9, "ms");
            json_decref(r);
        }
        o.dim = 20, o.states = 3;
        r = bench("scan", &o);
        check_common(r, "scan");
        CHECK_NEAR(number(r, "ms"), 1e3 * number(r, "median"), 1e-9, "ms");
        CHECK_NEAR(number(r, "ns_per_element") * 2 * 7 * 20 * 3,
                   1e9 * number(r, "median") * number(r, "threads"), 1e-6, "scan");
        json_decref(r);
        o.tokens = 9, o.dim = 16, o.hidden = 12, o.experts = 5, o.chosen = 2;
        r = bench("moe", &o);
        check_common(r, "moe");
        CHECK_NEAR(number(r, "ms"), 1e3 * number(r, "median"), 1e-9, "ms");
        CHECK_NEAR(number(r, "gflops") * 1e9 * number(r, "median"),
                   (backward ? 3.0 : 1.0) * 2 * 9 * 16 * (3 * 2 * 12 + 5), 1e-6, "moe");
        assert_true(number(r, "dense_ms") > 0);
        json_decref(r);
    }
}

static void check_kernels(const json_t *r, const char *const *names, size_t count)
{
    const json_t *kernels = json_object_get(r, "kernels");
    double ms = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)kernels, key, value)
    {
        ms += number(value, "ms");
        assert_true(number(value, "ms") > 0 && number(value, "gbytes_per_s") > 0);
        assert_true(number(value, "min_ms") > 0 && number(value, "min_ms") <= number(value, "ms"));
        assert_true(number(value, "ms") <= number(value, "max_ms"));
    }
    assert_true(ms > 0 && number(r, "ms") > 0 && number(r, "gbytes_per_s") > 0);
    for (size_t i = 0; i < count; i++)
        if (!json_object_get(kernels, names[i])) fail_msg("no kernel %s", names[i]);
}

// Each was measured beside a plain loop.
static void check_shares(const json_t *r, const char *const *names, size_t count)
{
    check_kernels(r, names, count);
    for (size_t i = 0; i < count; i++) {
        const json_t *one = json_object_get(json_object_get(r, "kernels"), names[i]);
        assert_true(number(one, "plain_gbytes_per_s") > 0 && number(one, "share") > 0);
    }
}

static void kernels_are_listed_by_name(void **state)
{
    (void)state;
    ember_bench_options o = small();
    o.tokens = 6, o.dim = 64, o.vocabulary = 50, o.parameters = 1000;
    json_t *r = bench("elementwise", &o);
    check_common(r, "elementwise");
    check_shares(r,
                 (const char *const[]){"rmsnorm", "rmsnorm_backward", "layernorm", "activation",
                                       "rope", "add", "gated_backward", "short_conv_backward",
                                       "softmax", "softmax_backward"},
                 10);
    json_decref(r);
    r = bench("optimizer", &o);
    check_common(r, "optimizer");
    check_shares(r, (const char *const[]){"adamw", "gradient_norm", "zero_gradients"}, 3);
    json_decref(r);
    r = bench("cross_entropy", &o);
    check_common(r, "cross_entropy");
    check_kernels(
        r, (const char *const[]){"logsumexp", "softmax_gradient", "loss", "loss_with_gradients"},
        4);
    check_shares(r, (const char *const[]){"logsumexp", "softmax_gradient"}, 2);
    const json_t *kernels = json_object_get(r, "kernels"),
                 *whole = json_object_get(kernels, "loss_with_gradients");
    const double each = number(json_object_get(kernels, "softmax_gradient"), "ns_per_logit");
    assert_true(each > 0 && each < 1e6);
    CHECK_NEAR(number(whole, "products_ms") /
                   number(json_object_get(kernels, "loss"), "products_ms"),
               3, 1e-9, "products");
    CHECK_NEAR(number(whole, "ns_per_logit") * 1e-6 * 6 * 50,
               number(whole, "ms") - number(whole, "products_ms"), 1e-9, "ns_per_logit");
    json_decref(r);
}

static void what_cannot_be_measured_is_refused(void **state)
{
    (void)state;
    ember_bench_result *r = NULL;
    ember_bench_options o = small();
    CHECK_FAILS(ember_bench("gem", &o, &r), EMBER_E_USAGE, "did you mean \"gemm\"");
    CHECK_FAILS(ember_bench("recurrent", &o, &r), EMBER_E_RANGE, "ltc, cfc, lstm or gru");
    CHECK_FAILS(ember_bench("train", &o, &r), EMBER_E_RANGE, "config");
    CHECK_FAILS(ember_bench("gemm", NULL, &r), EMBER_E_RANGE, "at least 1");
    CHECK_FAILS(ember_bench("attention", &o, &r), EMBER_E_RANGE, "batch");
    CHECK_FAILS(ember_bench("fftconv", &o, &r), EMBER_E_RANGE, "batch");
    CHECK_FAILS(ember_bench("moe", &o, &r), EMBER_E_RANGE, "tokens");
    CHECK_FAILS(ember_bench("scan", &o, &r), EMBER_E_RANGE, "batch");
    o.dim = 65;
    CHECK_FAILS(ember_bench("elementwise", &o, &r), EMBER_E_RANGE, "multiple of 64");
    o.model = dense_model;
    o.batch = 1;
    o.length = 1;
    CHECK_FAILS(ember_bench("train", &o, &r), EMBER_E_RANGE, "2 tokens");
    o.length = 8;
    o.steps = 100000;
    CHECK_FAILS(ember_bench("train", &o, &r), EMBER_E_RANGE, "steps");
    o.steps = 1;
    o.batch = SIZE_MAX / 4;
    CHECK_FAILS(ember_bench("train", &o, &r), EMBER_E_NOMEM, "memory");
    CHECK_FAILS(ember_bench("decode", &o, &r), EMBER_E_RANGE, "tokens");
    o.model = "/nonexistent/config.json";
    o.batch = 1;
    CHECK_FAILS(ember_bench("train", &o, &r), EMBER_E_IO, "nonexistent");
    assert_null(r);
}

// Each allocation of a whole measurement is refused once.
static void without_memory_it_fails_and_leaks_nothing(void **state)
{
    (void)state;
    ember_bench_options o = small();
    o.runtime.threads = 1;
    o.model = vector_model();
    o.batch = 1, o.length = 4, o.steps = 1;
    ember_bench_result *r;
    CHECK_OK(ember_bench("train", &o, &r)); // what is made once in a process
    ember_bench_free(r);
    const size_t live = em_alloc_live(), before = em_alloc_count();
    CHECK_OK(ember_bench("train", &o, &r));
    ember_bench_free(r);
    const size_t count = em_alloc_count() - before;
    assert_true(count > 100);
    for (size_t n = 1; n <= count; n++) {
        em_alloc_fail_at(n, 0);
        const ember_status status = ember_bench("train", &o, &r);
        em_alloc_fail_at(0, 0);
        if (status == EMBER_OK) ember_bench_free(r);
        if (status != EMBER_OK) assert_int_equal(status, EMBER_E_NOMEM);
        if (em_alloc_live() != live) fail_msg("allocation %zu: leak (%s)", n, ember_last_error());
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_training_step_is_accounted_for),
        cmocka_unit_test(models_that_read_vectors_train_too),
        cmocka_unit_test(inference_counts_what_a_token_reads),
        cmocka_unit_test(decode_reads_more_after_a_longer_context),
        cmocka_unit_test(speed_beside_another_process_is_measured),
        cmocka_unit_test(products_attention_and_experts_count_their_work),
        cmocka_unit_test(kernels_are_listed_by_name),
        cmocka_unit_test(what_cannot_be_measured_is_refused),
        cmocka_unit_test(without_memory_it_fails_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
