// Mamba's block by itself: a vector computed with the authors' reference in double, as a whole and
// in pieces that are shorter than the convolution's window.
#include <ember/runtime.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "nn/build.h"
#include "ops/program.h"
#include "support/check.h"

enum { D = 4, T = 5 };

static float by_rule(size_t k, size_t i)
{
    return (float)(0.5 * sin(0.37 * (double)(i + 1) + 1.3 * (double)k));
}

struct block {
    struct em_arena arena;
    struct em_params params;
    ember_layer *layer;
};

static void open(struct block *m)
{
    static const char text[] = "{\"type\": \"mamba\", \"d_state\": 3}";
    static const char *const name[] = {
        "in_proj.weight", "conv1d.weight", "conv1d.bias", "x_proj.weight",  "dt_proj.weight",
        "dt_proj.bias",   "A_log",         "D",           "out_proj.weight"};
    json_t *json;
    *m = (struct block){0};
    struct ember_build b = {.arena = &m->arena,
                            .params = &m->params,
                            .file = "layer",
                            .path = "",
                            .where = "layer",
                            .width = D};
    CHECK_OK(em_json_parse("layer", text, strlen(text), 0, &json));
    CHECK_OK(em_build_at(&b, "l", "layer", EMBER_SEQUENCE_MIXER, em_json_config(json), &m->layer));
    json_decref(json);
    assert_int_equal(m->params.count, sizeof name / sizeof *name);
    for (size_t k = 1; k <= m->params.count; k++) {
        char path[64];
        snprintf(path, sizeof path, "l.%s", name[k - 1]);
        struct em_param *p = em_params_find(&m->params, path);
        assert_non_null(p);
        const size_t n = ember_tensor_count(&p->tensor);
        assert_non_null(p->tensor.data = em_arena_alloc(&m->arena, n * sizeof(float)));
        for (size_t i = 0; i < n; i++)
            em_f32(&p->tensor)[i] = by_rule(k, i);
    }
}

static void a_golden_vector(void **state)
{
    (void)state;
    static const double expected[T * D] = {
        -0.0208126, 0.0268165,  -0.0319384,  0.0360101, -0.00930464, 0.0107435, -0.011829,
        0.0125255,  0.0209978,  -0.0179254,  0.0142636, -0.0101326,  0.0107711, -0.0106968,
        0.0102706,  -0.0095067, -0.00940668, 0.0126047, -0.0153883,  0.0176657};
    struct block m;
    float x[T * D];
    open(&m);
    for (size_t i = 0; i < T * D; i++)
        x[i] = by_rule(10, i);
    for (int backend = 0; backend < EM_BACKENDS; backend++)
        for (size_t piece = 1; piece <= T; piece++) {
            struct em_program *p;
            ember_tensor *in, *y;
            ember_state *carried;
            CHECK_OK(em_program_create(
                &(struct em_program_options){
                    .backend = (enum em_backend)backend, .max_tokens = piece, .max_sequences = 1},
                &p));
            CHECK_OK(ember_inputs(em_program_flow(p), D, &in));
            CHECK_OK(ember_forward(m.layer, em_program_flow(p), in, &y));
            em_program_output(p, y);
            CHECK_OK(em_program_allocate(p));
            CHECK_OK(em_state_create(em_program_layout(p), &carried));
            for (size_t t = 0; t < T; t += piece) {
                const size_t n = T - t < piece ? T - t : piece;
                const ember_batch batch = {.n_tokens = n,
                                           .n_sequences = 1,
                                           .offset = (size_t[]){0, n},
                                           .inputs = x + t * D,
                                           .state_in = &carried,
                                           .state_out = &carried};
                CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
                for (size_t i = 0; i < n * D; i++)
                    CHECK_NEAR(em_f32(y)[i], expected[t * D + i], 2e-7,
                               "backend %d, pieces of %zu: %zu", backend, piece, t * D + i);
            }
            em_state_destroy(carried);
            em_program_destroy(p);
        }
    em_params_deinit(&m.params);
    em_arena_deinit(&m.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_golden_vector)};
    if (ember_start() != EMBER_OK) return 1;
    return cmocka_run_group_tests_name("nn/state_space/mamba_block", tests, NULL, NULL);
}
