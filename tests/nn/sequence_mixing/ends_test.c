// What comes later leaves no trace: with other tokens at the end the outputs before are the same to
// the bit, and with none as well, but for the last chunk of Mamba-2, which is a product of another
// size. (Transforms round: of long convolutions the bound is in tests/ops/fft_conv_values_test.c.)
#include <ember/runtime.h>
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "nn/build.h"
#include "ops/program.h"
#include "support/check.h"

enum { D = 8, T = 90, KEPT = 71, MOST = 4096 };

static void run(ember_layer *layer, enum em_backend backend, const float *x, size_t n, float *y)
{
    struct em_program *p;
    ember_tensor *in, *out;
    float dt[T];
    for (size_t t = 0; t < T; t++)
        dt[t] = 0.2f + 0.1f * (float)(t % 7);
    CHECK_OK(em_program_create(
        &(struct em_program_options){.backend = backend, .max_tokens = T, .max_sequences = 1}, &p));
    CHECK_OK(ember_inputs(em_program_flow(p), D, &in));
    CHECK_OK(ember_forward(layer, em_program_flow(p), in, &out));
    em_program_output(p, out);
    CHECK_OK(em_program_allocate(p));
    const ember_batch batch = {
        .n_tokens = n, .n_sequences = 1, .offset = (size_t[]){0, n}, .inputs = x, .timespans = dt};
    CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
    memcpy(y, em_f32(out), n * D * sizeof *y);
    em_program_destroy(p);
}

// `rounding`: of what is cut off, at most.
static void check(const char *text, double rounding)
{
    struct em_arena arena = {0};
    struct em_params params = {0};
    struct ember_build b = {.arena = &arena,
                            .params = &params,
                            .file = "layer",
                            .path = "",
                            .where = "layer",
                            .width = D};
    ember_layer *layer;
    json_t *json;
    struct em_rng rng;
    static float x[T * D], other[T * D], whole[T * D], changed[T * D], cut[T * D];
    CHECK_OK(em_json_parse("layer", text, strlen(text), 0, &json));
    CHECK_OK(em_build_at(&b, "l", "layer", EMBER_SEQUENCE_MIXER, em_json_config(json), &layer));
    json_decref(json);
    em_rng_seed(&rng, 1, 0);
    for (size_t i = 0; i < params.count; i++) {
        ember_tensor *t = &params.param[i]->tensor;
        const size_t n = ember_tensor_count(t);
        assert_true(n <= MOST);
        assert_non_null(t->data = em_arena_alloc(&arena, n * sizeof(float)));
        if (params.param[i]->filling.fill)
            params.param[i]->filling.fill(params.param[i]->filling.context, &rng, t);
        else
            fill_random(t->data, n, 40 + i);
    }
    fill_random(x, T * D, 1);
    memcpy(other, x, sizeof x);
    for (size_t i = KEPT * D; i < T * D; i++)
        other[i] = 3 - 2 * x[i];
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        run(layer, (enum em_backend)backend, x, T, whole);
        run(layer, (enum em_backend)backend, other, T, changed);
        run(layer, (enum em_backend)backend, x, KEPT, cut);
        for (size_t i = 0; i < KEPT * D; i++) {
            if (whole[i] != changed[i] || !isfinite(whole[i]))
                fail_msg("%s, backend %d: token %zu hears of token %d", text, backend, i / D,
                         (int)KEPT);
            CHECK_NEAR(cut[i], whole[i], rounding, "%s, backend %d: token %zu hears of the end",
                       text, backend, i / D);
        }
        assert_true(memcmp(whole + KEPT * D, changed + KEPT * D, D * sizeof *whole) != 0);
    }
    em_params_deinit(&params);
    em_arena_deinit(&arena);
}

static void state_spaces(void **state)
{
    (void)state;
    check("{\"type\": \"mamba\", \"d_state\": 5}", 0);
    check("{\"type\": \"mamba2\", \"head_dim\": 4, \"d_state\": 6}", 1e-6);
}

static void liquid_cells(void **state)
{
    (void)state;
    check("{\"type\": \"ltc\", \"wiring\": \"auto:16,8\", \"projection\": false}", 0);
    check("{\"type\": \"cfc\", \"units\": 8, \"projection\": false}", 0);
    check("{\"type\": \"cfc\", \"units\": 8, \"mode\": \"pure\", \"projection\": false}", 0);
}

static void input_made_matrices(void **state)
{
    (void)state;
    check("{\"type\": \"token_mixing\"}", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state_spaces),
        cmocka_unit_test(liquid_cells),
        cmocka_unit_test(input_made_matrices),
    };
    if (ember_start() != EMBER_OK) return 1;
    return cmocka_run_group_tests_name("nn/sequence_mixing/ends", tests, NULL, NULL);
}
