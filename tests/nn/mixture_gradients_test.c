// Gradients whose values are known: experts get theirs in proportion to their gates, and a matrix
// made from a context, and what makes it, get the outer products that they are.
#include <ember/runtime.h>
#include <math.h>
#include <string.h>

#include "nn/build.h"
#include "ops/program.h"
#include "support/check.h"

enum { D = 3, EXPERTS = 4, A = 2, T = 5, MOST = 64 };

// y's rows are the loss's gradients at y.
static void differentiate(struct em_program *p, ember_tensor *y, const ember_batch *batch)
{
    ember_tensor *loss;
    CHECK_OK(ember_mean_square(em_program_flow(p), y, &loss));
    em_program_output(p, y);
    em_program_loss(p, loss);
    CHECK_OK(em_program_allocate(p));
    CHECK_OK(em_program_forward(
        p, &(struct em_run){
               .batch = batch, .training = true, .gradients = true, .loss_scale = D / 2.0}));
    CHECK_OK(em_program_backward(p));
}

static struct em_program *program(enum em_backend backend, ember_tensor **x)
{
    struct em_program *p;
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .backend = backend, .max_tokens = T, .max_sequences = 1, .gradients = true},
        &p));
    CHECK_OK(ember_inputs(em_program_flow(p), D, x));
    return p;
}

// One token, all experts alike, every one chosen: y = W x, and expert e's gradient is g_e y x^T.
static void experts_learn_as_much_as_their_gates(void **state)
{
    (void)state;
    static const char text[] = "{\"type\": \"moe\", \"experts\": 4, \"expert\": {\"type\": "
                               "\"linear\"}, \"router\": {\"type\": \"softmax_topk\", \"k\": 4}}";
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
    float x[D], gradient[4][MOST];
    ember_tensor grad[4];
    CHECK_OK(em_json_parse("layer", text, strlen(text), 0, &json));
    CHECK_OK(em_build_at(&b, "l", "layer", EMBER_CHANNEL_MIXER, em_json_config(json), &layer));
    json_decref(json);
    assert_true(params.count <= 4);
    const ember_tensor *router = NULL;
    ember_tensor *experts = NULL;
    for (size_t i = 0; i < params.count; i++) {
        ember_tensor *t = &params.param[i]->tensor;
        const size_t n = ember_tensor_count(t);
        assert_non_null(t->data = em_arena_alloc(&arena, n * sizeof(float)));
        assert_true(n <= MOST);
        fill_random(t->data, n, 5 + i);
        if (params.param[i]->frozen) continue;
        CHECK_OK(em_tensor_init(&grad[i], EMBER_F32, t->dim, t->ndim, gradient[i]));
        t->grad = &grad[i];
        if (strstr(t->name, "router.weight")) router = t;
        if (strstr(t->name, "expert") && n == (size_t)EXPERTS * D * D) experts = t;
    }
    assert_non_null(router);
    assert_non_null(experts);
    for (size_t e = 1; e < EXPERTS; e++)
        memcpy(em_f32(experts) + e * D * D, em_f32(experts), D * D * sizeof(float));
    fill_random(x, D, 3);
    double gate[EXPERTS], sum = 0;
    for (size_t e = 0; e < EXPERTS; e++) {
        double logit = 0;
        for (size_t d = 0; d < D; d++)
            logit += (double)em_f32(router)[e * D + d] * (double)x[d];
        sum += gate[e] = exp(logit);
    }
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        ember_tensor *in, *y;
        memset(gradient, 0, sizeof gradient);
        struct em_program *p = program((enum em_backend)backend, &in);
        CHECK_OK(ember_forward(layer, em_program_flow(p), in, &y));
        differentiate(
            p, y,
            &(ember_batch){
                .n_tokens = 1, .n_sequences = 1, .offset = (size_t[]){0, 1}, .inputs = x});
        for (size_t o = 0; o < D; o++) {
            double expected = 0;
            for (size_t d = 0; d < D; d++)
                expected += (double)em_f32(experts)[o * D + d] * (double)x[d];
            CHECK_NEAR(em_f32(y)[o], expected, 1e-6, "backend %d: y %zu", backend, o);
            for (size_t e = 0; e < EXPERTS; e++)
                for (size_t d = 0; d < D; d++)
                    CHECK_NEAR(em_f32(experts->grad)[(e * D + o) * D + d],
                               gate[e] / sum * expected * (double)x[d], 1e-6,
                               "backend %d: expert %zu, row %zu, column %zu", backend, e, o, d);
        }
        em_program_destroy(p);
    }
    em_params_deinit(&params);
    em_arena_deinit(&arena);
}

// y_t = (W + M) x_t with M = reshape(A a + c), a made from the mean of the tokens.
static void made_matrices_get_outer_products(void **state)
{
    (void)state;
    float value[4][MOST], gradient[4][MOST] = {{0}}, x[T * D];
    ember_tensor t[4], grad[4]; // W, A, c, and the featurizer
    const size_t rows[] = {D, D * D, D * D, A}, columns[] = {D, A, 0, D};
    for (size_t i = 0; i < 4; i++) {
        const size_t dim[] = {rows[i], columns[i]};
        fill_random(value[i], MOST, 20 + i);
        CHECK_OK(em_tensor_init(&t[i], EMBER_F32, dim, columns[i] ? 2 : 1, value[i]));
        CHECK_OK(em_tensor_init(&grad[i], EMBER_F32, dim, columns[i] ? 2 : 1, gradient[i]));
        t[i].grad = &grad[i];
    }
    fill_random(x, T * D, 9);
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        ember_tensor *in, *mean, *a, *matrix, *made, *fixed, *y;
        memset(gradient, 0, sizeof gradient);
        struct em_program *p = program((enum em_backend)backend, &in);
        ember_flow *f = em_program_flow(p);
        CHECK_OK(ember_sequence_mean(f, in, &mean));
        CHECK_OK(ember_linear_f32(f, mean, &t[3], NULL, &a));
        CHECK_OK(ember_linear_f32(f, a, &t[1], &t[2], &matrix));
        CHECK_OK(ember_sequence_linear(f, in, matrix, &made));
        CHECK_OK(ember_linear(f, in, &t[0], NULL, NULL, &fixed));
        CHECK_OK(ember_add(f, fixed, made, &y));
        differentiate(
            p, y,
            &(ember_batch){
                .n_tokens = T, .n_sequences = 1, .offset = (size_t[]){0, T}, .inputs = x});
        double context[A] = {0};
        for (size_t i = 0; i < A; i++)
            for (size_t s = 0; s < T; s++)
                for (size_t d = 0; d < D; d++)
                    context[i] += (double)value[3][i * D + d] * (double)x[s * D + d] / T;
        for (size_t o = 0; o < D; o++)
            for (size_t d = 0; d < D; d++) {
                double outer = 0;
                for (size_t s = 0; s < T; s++)
                    outer += (double)em_f32(y)[s * D + o] * (double)x[s * D + d];
                const size_t at = o * D + d;
                CHECK_NEAR(gradient[0][at], outer, 1e-5, "backend %d: W %zu", backend, at);
                CHECK_NEAR(gradient[2][at], outer, 1e-5, "backend %d: c %zu", backend, at);
                for (size_t i = 0; i < A; i++)
                    CHECK_NEAR(gradient[1][at * A + i], outer * context[i], 1e-5,
                               "backend %d: A %zu, %zu", backend, at, i);
            }
        em_program_destroy(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_learn_as_much_as_their_gates),
        cmocka_unit_test(made_matrices_get_outer_products),
    };
    if (ember_start() != EMBER_OK) return 1;
    return cmocka_run_group_tests_name("nn/mixture_gradients", tests, NULL, NULL);
}
