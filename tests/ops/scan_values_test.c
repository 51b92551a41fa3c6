// Selective scans whose values are known: a golden vector, closed forms, limits; and Mamba-2's scan
// against Mamba's.
#include <math.h>
#include <string.h>

#include "support/op_check.h"

// One sequence through either scan. Rows of x [T, E] and so on stand in a row of inputs.
struct problem {
    size_t T, E, N, heads; // heads: Mamba-2's scan; 0: Mamba's
    bool gate;
    const float *rows; // [T][x: E | delta: E or heads | B: N | C: N | z: E]
    float *A_log, *D, *bias;
    float *last; // the state's values in the end, [N, E]; or NULL
};

static size_t width(const struct problem *p)
{
    return p->E + (p->heads ? p->heads : p->E) + 2 * p->N + (p->gate ? p->E : 0);
}

static void run(const struct problem *p, enum em_backend backend, float *y)
{
    struct em_program *program;
    ember_tensor A, D, bias, *in, *part[5] = {NULL}, *out;
    const size_t steps = p->heads ? p->heads : p->E;
    const size_t size[] = {p->E, steps, p->N, p->N, p->gate ? p->E : 0};
    CHECK_OK(em_tensor_init(&A, EMBER_F32, (size_t[]){steps, p->N}, p->heads ? 1 : 2, p->A_log));
    CHECK_OK(em_tensor_init(&D, EMBER_F32, &steps, 1, p->D));
    CHECK_OK(em_tensor_init(&bias, EMBER_F32, &steps, 1, p->bias));
    CHECK_OK(em_program_create(
        &(struct em_program_options){.backend = backend, .max_tokens = p->T, .max_sequences = 1},
        &program));
    ember_flow *flow = em_program_flow(program);
    CHECK_OK(ember_inputs(flow, width(p), &in));
    for (size_t i = 0, at = 0; i < 5 && size[i]; at += size[i++])
        CHECK_OK(ember_columns(flow, in, at, at + size[i], &part[i]));
    if (p->heads)
        CHECK_OK(ember_ssd(flow,
                           &(ember_ssd_inputs){.x = part[0],
                                               .dt = part[1],
                                               .A_log = &A,
                                               .B = part[2],
                                               .C = part[3],
                                               .D = &D,
                                               .dt_bias = &bias},
                           &(ember_ssd_options){.heads = p->heads}, &out));
    else
        CHECK_OK(ember_selective_scan(flow,
                                      &(ember_scan_inputs){.x = part[0],
                                                           .delta = part[1],
                                                           .A_log = &A,
                                                           .B = part[2],
                                                           .C = part[3],
                                                           .D = &D,
                                                           .delta_bias = &bias,
                                                           .z = part[4]},
                                      1, &out));
    em_program_output(program, out);
    CHECK_OK(em_program_allocate(program));
    ember_state *state;
    CHECK_OK(em_state_create(em_program_layout(program), &state));
    const ember_batch batch = {.n_tokens = p->T,
                               .n_sequences = 1,
                               .offset = (size_t[]){0, p->T},
                               .inputs = p->rows,
                               .state_out = &state};
    CHECK_OK(em_program_forward(program, &(struct em_run){.batch = &batch}));
    for (size_t t = 0; t < p->T; t++)
        memcpy(y + t * p->E, em_row(out, t), p->E * sizeof *y);
    if (p->last) memcpy(p->last, state->slot[0].fixed, p->N * p->E * sizeof *y);
    em_state_destroy(state);
    em_program_destroy(program);
}

// Value i of tensor k of the golden vectors, counted from 1.
static float filled(size_t k, size_t i)
{
    return (float)(0.5 * sin(0.37 * (double)i + 1.3 * (double)k));
}

// Computed with the authors' own reference in double.
static void a_golden_vector(void **unused)
{
    (void)unused;
    enum { E = 2, N = 3, T = 4, ROW = E + E + N + N + E };
    static const double expected[E][T] = {{0.0034761, 0.0109542, 0.0120406, 0.0088009},
                                          {-6.37293e-05, 0.000524638, 0.00736568, 0.0122052}};
    static const double kept[E][N] = {{-0.0333383, 0.259006, 0.0817442},
                                      {-0.0565463, -0.237692, 0.0172762}};
    float rows[T * ROW], A_log[E * N], D[E], bias[E], y[T * E], last[N * E];
    for (size_t t = 0; t < T; t++) {
        float *row = rows + t * ROW;
        for (size_t e = 0; e < E; e++) {
            row[e] = filled(1, e * T + t + 1);
            row[E + e] = filled(2, e * T + t + 1);
            row[2 * E + 2 * N + e] = filled(8, e * T + t + 1);
        }
        for (size_t n = 0; n < N; n++) {
            row[2 * E + n] = filled(4, n * T + t + 1);
            row[2 * E + N + n] = filled(5, n * T + t + 1);
        }
    }
    for (size_t i = 0; i < E * N; i++)
        A_log[i] = filled(3, i + 1);
    for (size_t e = 0; e < E; e++) {
        bias[e] = filled(6, e + 1);
        D[e] = filled(7, e + 1);
    }
    const struct problem p = {T, E, N, 0, true, rows, A_log, D, bias, last};
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        run(&p, (enum em_backend)backend, y);
        for (size_t t = 0; t < T; t++)
            for (size_t e = 0; e < E; e++)
                CHECK_NEAR(y[t * E + e], expected[e][t], 1e-7, "backend %d t=%zu e=%zu", backend, t,
                           e);
        for (size_t e = 0; e < E; e++)
            for (size_t n = 0; n < N; n++)
                CHECK_NEAR(last[n * E + e], kept[e][n], 1e-6, "backend %d e=%zu n=%zu", backend, e,
                           n);
    }
}

// x, B = C = 1, A = -1, steps all alike: with N = 1 an exponential moving average of x.
static void moving_averages_and_limits(void **unused)
{
    (void)unused;
    enum { T = 40, E = 3, ROW = 2 * E + 2 };
    // softplus of these: 1e-6 or so, 0.5, above the threshold of 20 the number itself
    static const double raw[] = {-13.8, -0.4327521, 50};
    float rows[T * ROW], A_log[E] = {0}, D[E] = {0.25f, -2, 0}, bias[E] = {0}, y[T * E];
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < ROW; i++)
            rows[t * ROW + i] = i < E ? filled(i + 1, t + 1) : i < 2 * E ? (float)raw[i - E] : 1;
    const struct problem p = {T, E, 1, 0, false, rows, A_log, D, bias, NULL};
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        run(&p, (enum em_backend)backend, y);
        for (size_t e = 0; e < E; e++) {
            const double dt = log1p(exp(raw[e])), decay = exp(-dt);
            double h = 0;
            for (size_t t = 0; t < T; t++) {
                const double x = (double)rows[t * ROW + e];
                h = decay * h + dt * x;
                CHECK_NEAR(y[t * E + e], h + (double)D[e] * x, 2e-6, "backend %d %zu %zu", backend,
                           e, t);
                if (e == 0) CHECK_NEAR(y[t * E], (double)D[0] * x, 4e-5, "no step, no state");
                if (e == 2) CHECK_NEAR(y[t * E + 2], 50 * x, 1e-6, "nothing of the past is left");
            }
        }
    }
}

// Heads of Mamba-2 are channels of Mamba with one rate and one step each; over more tokens than a
// chunk has.
static void heads_equal_channels_with_tied_rates(void **unused)
{
    (void)unused;
    enum { T = 150, H = 3, P = 4, E = H * P, N = 5, WIDE = 2 * E + 2 * N, ROW = E + H + 2 * N };
    static float rows[T * ROW], wide[T * WIDE], y[T * E], z[T * E];
    float A_log[E * N], D[E], bias[E], A_head[H], D_head[H], bias_head[H];
    for (size_t h = 0; h < H; h++) {
        A_head[h] = 4 * filled(3, h + 1);
        D_head[h] = filled(7, h + 1);
        bias_head[h] = filled(6, h + 1);
        for (size_t i = h * P; i < (h + 1) * P; i++) {
            D[i] = D_head[h];
            bias[i] = bias_head[h];
            for (size_t n = 0; n < N; n++)
                A_log[i * N + n] = A_head[h];
        }
    }
    for (size_t t = 0; t < T; t++) {
        float *row = rows + t * ROW, *other = wide + t * WIDE;
        for (size_t i = 0; i < ROW; i++)
            row[i] = filled(9, t * ROW + i + 1);
        memcpy(other, row, E * sizeof *row);
        for (size_t i = 0; i < E; i++)
            other[E + i] = row[E + i / P];
        memcpy(other + 2 * E, row + E + H, 2 * N * sizeof *row);
    }
    const struct problem two = {T, E, N, H, false, rows, A_head, D_head, bias_head, NULL};
    const struct problem one = {T, E, N, 0, false, wide, A_log, D, bias, NULL};
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        run(&two, (enum em_backend)backend, y);
        run(&one, (enum em_backend)backend, z);
        for (size_t i = 0; i < T * E; i++)
            CHECK_NEAR(y[i], z[i], 2e-6, "backend %d %zu", backend, i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_golden_vector),
        cmocka_unit_test(moving_averages_and_limits),
        cmocka_unit_test(heads_equal_channels_with_tied_rates),
    };
    return OP_RUN_TESTS("scan_values", tests);
}
