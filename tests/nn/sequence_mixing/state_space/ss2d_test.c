// A scan in four directions is four selective scans of sequences: the same pixels in another order.
#include <ember/runtime.h>
#include <math.h>
#include <string.h>

#include "nn/build.h"
#include "ops/program.h"
#include "support/check.h"

enum { H = 3, W = 5, D = 4, E = 2 * D, N = 3, T = H * W, ROW = 2 * E + 2 * N };

static struct em_arena arena;
static struct em_params params;

static ember_tensor *param(const char *name)
{
    struct em_param *p = em_params_find(&params, name);
    if (!p) fail_msg("there is no %s", name);
    return &p->tensor;
}

static const float *values(const char *name)
{
    return em_f32(param(name));
}

// y = W x
static void product(const float *w, const double *x, size_t rows, size_t columns, double *y)
{
    for (size_t r = 0; r < rows; r++) {
        y[r] = 0;
        for (size_t c = 0; c < columns; c++)
            y[r] += (double)w[r * columns + c] * x[c];
    }
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static size_t pixel(size_t direction, size_t place)
{
    const size_t at = direction < 2 ? place : T - 1 - place;
    return direction % 2 ? at % H * W + at / H : at;
}

// The plain scan of one sequence, rows [x | delta | B | C], with the k-th direction's parameters.
static void scan(size_t k, const float *rows, float *y)
{
    struct em_program *p;
    ember_tensor a, skip, bias, *in, *part[4], *out;
    static const size_t from[] = {0, E, 2 * E, 2 * E + N, ROW}, e = E;
    CHECK_OK(
        em_tensor_init(&a, EMBER_F32, (size_t[]){E, N}, 2, em_f32(param("l.A_logs")) + k * E * N));
    CHECK_OK(em_tensor_init(&skip, EMBER_F32, &e, 1, em_f32(param("l.Ds")) + k * E));
    CHECK_OK(em_tensor_init(&bias, EMBER_F32, &e, 1, em_f32(param("l.dt_projs_bias")) + k * E));
    CHECK_OK(em_program_create(
        &(struct em_program_options){.backend = EM_CPU, .max_tokens = T, .max_sequences = 1}, &p));
    ember_flow *f = em_program_flow(p);
    CHECK_OK(ember_inputs(f, ROW, &in));
    for (size_t i = 0; i < 4; i++)
        CHECK_OK(ember_columns(f, in, from[i], from[i + 1], &part[i]));
    CHECK_OK(ember_selective_scan(f,
                                  &(ember_scan_inputs){.x = part[0],
                                                       .delta = part[1],
                                                       .A_log = &a,
                                                       .B = part[2],
                                                       .C = part[3],
                                                       .D = &skip,
                                                       .delta_bias = &bias},
                                  1, &out));
    em_program_output(p, out);
    CHECK_OK(em_program_allocate(p));
    const ember_batch batch = {
        .n_tokens = T, .n_sequences = 1, .offset = (size_t[]){0, T}, .inputs = rows};
    CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
    for (size_t t = 0; t < T; t++)
        memcpy(y + t * E, em_row(out, t), E * sizeof *y);
    em_program_destroy(p);
}

// In the layer's order: projection in, SiLU, four scans and their sum, LayerNorm, gate, projection.
static void by_scans(const float *x, double *y)
{
    double both[T][2 * E], u[T][E], sum[T][E] = {0};
    for (size_t t = 0; t < T; t++) {
        double in[D];
        for (size_t d = 0; d < D; d++)
            in[d] = (double)x[t * D + d];
        product(values("l.in_proj.weight"), in, 2 * E, D, both[t]);
        for (size_t e = 0; e < E; e++)
            u[t][e] = silu(both[t][e]);
    }
    for (size_t k = 0; k < 4; k++) {
        static float rows[T * ROW], scanned[T * E];
        for (size_t i = 0; i < T; i++) {
            double made[1 + 2 * N], delta[E];
            const double *at = u[pixel(k, i)];
            product(values("l.x_proj.weight") + k * (1 + 2 * N) * E, at, 1 + 2 * N, E, made);
            product(values("l.dt_projs.weight") + k * E, made, E, 1, delta);
            for (size_t e = 0; e < E; e++) {
                rows[i * ROW + e] = (float)at[e];
                rows[i * ROW + E + e] = (float)delta[e];
            }
            for (size_t n = 0; n < 2 * N; n++)
                rows[i * ROW + 2 * E + n] = (float)made[1 + n];
        }
        scan(k, rows, scanned);
        for (size_t i = 0; i < T; i++)
            for (size_t e = 0; e < E; e++)
                sum[pixel(k, i)][e] += (double)scanned[i * E + e];
    }
    for (size_t t = 0; t < T; t++) {
        double mean = 0, variance = 0;
        for (size_t e = 0; e < E; e++)
            mean += sum[t][e] / E;
        for (size_t e = 0; e < E; e++)
            variance += (sum[t][e] - mean) * (sum[t][e] - mean) / E;
        for (size_t e = 0; e < E; e++)
            sum[t][e] = ((sum[t][e] - mean) / sqrt(variance + 1e-5) *
                             (double)values("l.out_norm.weight")[e] +
                         (double)values("l.out_norm.bias")[e]) *
                        silu(both[t][E + e]);
        product(values("l.out_proj.weight"), sum[t], D, E, y + t * D);
    }
}

static void four_directions_are_four_sequences(void **state)
{
    (void)state;
    static const char text[] =
        "{\"type\": \"ss2d\", \"conv\": 1, \"columns\": 5, \"states\": 3, \"rank\": 1}";
    struct ember_build b = {.arena = &arena,
                            .params = &params,
                            .file = "layer",
                            .path = "",
                            .where = "layer",
                            .width = D,
                            .allow_not_causal = true};
    json_t *json;
    ember_layer *layer;
    float x[T * D];
    double expected[T * D];
    CHECK_OK(em_json_parse("layer", text, strlen(text), 0, &json));
    CHECK_OK(em_build_at(&b, "l", "layer", EMBER_SEQUENCE_MIXER, em_json_config(json), &layer));
    json_decref(json);
    for (size_t i = 0; i < params.count; i++) {
        ember_tensor *t = &params.param[i]->tensor;
        assert_non_null(t->data = em_arena_alloc(&arena, ember_tensor_count(t) * sizeof(float)));
        fill_random(t->data, ember_tensor_count(t), 10 + i);
    }
    fill_random(x, T * D, 1);
    by_scans(x, expected);
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        struct em_program *p;
        ember_tensor *in, *y;
        CHECK_OK(em_program_create(&(struct em_program_options){.backend = (enum em_backend)backend,
                                                                .max_tokens = T,
                                                                .max_sequences = 1},
                                   &p));
        CHECK_OK(ember_inputs(em_program_flow(p), D, &in));
        CHECK_OK(ember_forward(layer, em_program_flow(p), in, &y));
        em_program_output(p, y);
        CHECK_OK(em_program_allocate(p));
        const ember_batch batch = {
            .n_tokens = T, .n_sequences = 1, .offset = (size_t[]){0, T}, .inputs = x};
        CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
        for (size_t i = 0; i < T * D; i++)
            CHECK_NEAR(em_f32(y)[i], expected[i], 1e-5, "backend %d: %zu", backend, i);
        em_program_destroy(p);
    }
    em_params_deinit(&params);
    em_arena_deinit(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(four_directions_are_four_sequences)};
    if (ember_start() != EMBER_OK) return 1;
    return cmocka_run_group_tests_name("nn/state_space/ss2d", tests, NULL, NULL);
}
