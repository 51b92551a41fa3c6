// labels: golden
// Models of every family against what transformers computes for them: logits, loss, the gradient of
// every parameter, and logits in pieces through the carried state. tests/golden/README.md says how
// the files are made and why a ten-thousandth of each tensor's largest value is the bound.
#include <ember/forward.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "formats/safetensors.h"
#include "support/check.h"

#define BOUND 1e-4

static void compare(const char *model, const struct em_st_tensor *expected,
                    const struct em_st_tensor *found)
{
    if (!found) fail_msg("%s: %s is missing", model, expected->name);
    if (found->rank != expected->rank ||
        memcmp(found->shape, expected->shape, found->rank * sizeof *found->shape))
        fail_msg("%s: %s has another shape", model, expected->name);
    assert_int_equal(found->dtype, EM_ST_F32);
    float *a = em_alloc(expected->elements * sizeof *a),
          *b = em_alloc(expected->elements * sizeof *b);
    CHECK_OK(em_st_tensor_f32(expected, a));
    CHECK_OK(em_st_tensor_f32(found, b));
    double largest = 0, worst = 0;
    for (size_t i = 0; i < expected->elements; i++) {
        const double d = fabs((double)a[i] - (double)b[i]);
        largest = fmax(largest, fabs((double)a[i]));
        if (!(d <= worst)) worst = d;
    }
    if (!(worst <= BOUND * largest))
        fail_msg("%s: %s is off by %g of %g", model, expected->name, worst, largest);
    em_free(a);
    em_free(b);
}

// Every tensor of `expected` whose name begins with `prefix`; with `exactly`, and no others.
static void compare_files(const char *model, const char *expected, const char *found,
                          const char *prefix, bool exactly)
{
    struct em_safetensors *e, *f;
    CHECK_OK(em_safetensors_open(expected, &e));
    CHECK_OK(em_safetensors_open(found, &f));
    size_t compared = 0;
    for (size_t i = 0; i < em_safetensors_count(e); i++) {
        const struct em_st_tensor *t = em_safetensors_at(e, i);
        if (strncmp(t->name, prefix, strlen(prefix))) continue;
        compare(model, t, em_safetensors_find(f, t->name));
        compared++;
    }
    assert_true(compared > 0);
    if (exactly) assert_int_equal(em_safetensors_count(f), compared);
    em_safetensors_close(e);
    em_safetensors_close(f);
}

static void check_model(const char *name, ember_backend backend)
{
    char folder[512], in[600], expected[600];
    snprintf(folder, sizeof folder, "%s/golden/models/%s", EMBER_TESTS_DIR, name);
    snprintf(in, sizeof in, "%s/in.safetensors", folder);
    snprintf(expected, sizeof expected, "%s/out.safetensors", folder);
    const char *out = test_path(test_directory(), "out.safetensors");
    ember_forward_options options = {.runtime = {.backend = backend}, .gradients = true};
    CHECK_OK(ember_forward_file(folder, in, out, &options));
    compare_files(name, expected, out, "", true);
    options.gradients = false;
    static const size_t chunk[] = {1, 5, 1000};
    for (size_t i = 0; i < sizeof chunk / sizeof *chunk; i++) {
        options.chunk = chunk[i];
        CHECK_OK(ember_forward_file(folder, in, out, &options));
        compare_files(name, expected, out, strncmp(name, "ncps", 4) ? "logits" : "outputs", true);
    }
}

static void every_golden_model(ember_backend backend)
{
    char **names, folder[512];
    size_t count;
    snprintf(folder, sizeof folder, "%s/golden/models", EMBER_TESTS_DIR);
    CHECK_OK(em_list_directory(folder, &names, &count));
    assert_true(count >= 16);
    for (size_t i = 0; i < count; i++)
        check_model(names[i], backend);
    em_names_free(names, count);
}

static void models_equal_transformers(void **state)
{
    (void)state;
    every_golden_model(EMBER_BACKEND_CPU);
}

static void models_equal_transformers_by_the_reference_backend(void **state)
{
    (void)state;
    every_golden_model(EMBER_BACKEND_REFERENCE);
}

static void gradients_through_chunks_are_refused(void **state)
{
    (void)state;
    const ember_forward_options options = {.gradients = true, .chunk = 2};
    const char *out = test_path(test_directory(), "out.safetensors");
    CHECK_FAILS(ember_forward_file(EMBER_TESTS_DIR "/golden/models/lfm2",
                                   EMBER_TESTS_DIR "/golden/models/lfm2/in.safetensors", out,
                                   &options),
                EMBER_E_USAGE, "chunks");
    assert_false(em_path_exists(out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_equal_transformers),
        cmocka_unit_test(models_equal_transformers_by_the_reference_backend),
        cmocka_unit_test(gradients_through_chunks_are_refused),
    };
    return cmocka_run_group_tests_name("models/golden", tests, NULL, NULL);
}
