#include <math.h>

#include "support/op_check.h"

struct form {
    size_t fft_size, frequencies;
};

static ember_status record(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                           ember_tensor **out)
{
    const struct form *f = c->context;
    return ember_frequency_sparse(flow, in[0], f->fft_size, f->frequencies, &out[0], &out[1]);
}

static struct op_case case_of(const struct form *f, size_t H, size_t L)
{
    return (struct op_case){.name = "frequency_sparse",
                            .record = record,
                            .context = f,
                            .by_token = true,
                            .width = 1,
                            .in = {{OP_PARAMETER, {H, L}, 2}}};
}

static void values_and_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 7;
    for (size_t round = 0; round < op_rounds(8); round++) {
        const size_t P = (size_t)2 << round % 7;
        const struct form f = {P, 1 + op_size(&sizes, P / 2 + 2) - 1};
        struct op_case c = case_of(&f, op_size(&sizes, 9), op_size(&sizes, P));
        check_op(&c, round);
    }
}

static void run(const float *k, size_t H, size_t L, struct form f, float *y, float *later)
{
    struct em_program *p;
    ember_tensor t, *out[2];
    const float zero = 0;
    const size_t offset[] = {0, 1};
    CHECK_OK(em_tensor_init(&t, EMBER_F32, (size_t[]){H, L}, 2, (float *)(uintptr_t)k));
    CHECK_OK(em_program_create(
        &(struct em_program_options){.backend = EM_CPU, .max_tokens = 1, .max_sequences = 1}, &p));
    CHECK_OK(ember_frequency_sparse(em_program_flow(p), &t, f.fft_size, f.frequencies, &out[0],
                                    &out[1]));
    em_program_output(p, out[0]);
    em_program_output(p, out[1]);
    CHECK_OK(em_program_allocate(p));
    const ember_batch batch = {.n_tokens = 1, .n_sequences = 1, .offset = offset, .inputs = &zero};
    CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
    for (size_t i = 0; i < H * f.fft_size / 2; i++) {
        y[i] = em_f32(out[0])[i];
        later[i] = em_f32(out[1])[i];
    }
    em_program_destroy(p);
}

enum { H = 3, L = 20, P = 64 };

// With all of them it is the kernel; twice is once; one frequency is the mean.
static void what_is_known_of_it(void **state)
{
    (void)state;
    float k[H * L], y[H * P / 2], later[H * P / 2], low[H * P], again[H * P / 2], more[H * P / 2];
    fill_random(k, H * L, 5);
    run(k, H, L, (struct form){P, P / 2 + 1}, y, later);
    for (size_t h = 0; h < H; h++)
        for (size_t j = 0; j < P / 2; j++) {
            CHECK_NEAR(y[h * P / 2 + j], j < L ? k[h * L + j] : 0, 0, "lag %zu", j);
            CHECK_NEAR(later[h * P / 2 + j], 0, 0, "later lag %zu", j);
        }
    run(k, H, L, (struct form){P, 1}, y, later);
    for (size_t h = 0; h < H; h++) {
        double mean = 0;
        for (size_t j = 0; j < L; j++)
            mean += (double)k[h * L + j] / P;
        for (size_t j = 0; j < P / 2; j++) {
            CHECK_NEAR(y[h * P / 2 + j], mean, 1e-7, "lag %zu", j);
            CHECK_NEAR(later[h * P / 2 + j], j ? mean : 0, 1e-7, "later lag %zu", j);
        }
    }
    run(k, H, L, (struct form){P, 9}, y, later);
    for (size_t h = 0; h < H; h++) {
        double middle =
            0; // what neither output has: lag P / 2, from the sum that 9 frequencies keep
        for (size_t f = 0; f < P; f++) {
            const size_t lowest = f < P - f ? f : P - f;
            for (size_t j = 0; lowest < 9 && j < L; j++)
                middle += (double)k[h * L + j] *
                          cos(2 * acos(-1) * (double)f * ((double)P / 2 - (double)j) / P) / P;
        }
        for (size_t j = 0; j < P; j++)
            low[h * P + j] = j < P / 2   ? y[h * P / 2 + j]
                             : j > P / 2 ? later[h * P / 2 + P - j]
                                         : (float)middle;
    }
    run(low, H, P, (struct form){P, 9}, again, more);
    for (size_t i = 0; i < H * P / 2; i++) {
        CHECK_NEAR(again[i], y[i], 1e-6, "again, %zu", i);
        CHECK_NEAR(more[i], later[i], 1e-6, "again, later, %zu", i);
    }
}

// As the paper's code computes it: a product of spectra of P values, of which the first half
// counts.
static void a_product_of_spectra(void **state)
{
    (void)state;
    enum { T = P / 2, KEPT = 11 };
    float k[T], u[T];
    double spectrum[P][2];
    struct em_program *p;
    ember_tensor t, *x, *kernel, *later, *y;
    const size_t offset[] = {0, T};
    const double turn = 2 * acos(-1) / P;
    fill_random(k, T, 8);
    fill_random(u, T, 9);
    for (size_t f = 0; f < P; f++) {
        double a[2] = {0, 0}, b[2] = {0, 0};
        const size_t lowest = f < P - f ? f : P - f;
        for (size_t j = 0; j < T; j++) {
            const double c = cos(turn * (double)(f * j % P)), s = -sin(turn * (double)(f * j % P));
            a[0] += c * (double)u[j], a[1] += s * (double)u[j];
            b[0] += c * (double)k[j], b[1] += s * (double)k[j];
        }
        spectrum[f][0] = lowest < KEPT ? a[0] * b[0] - a[1] * b[1] : 0;
        spectrum[f][1] = lowest < KEPT ? a[0] * b[1] + a[1] * b[0] : 0;
    }
    CHECK_OK(em_tensor_init(&t, EMBER_F32, (size_t[]){1, T}, 2, k));
    CHECK_OK(em_program_create(
        &(struct em_program_options){.backend = EM_CPU, .max_tokens = T, .max_sequences = 1}, &p));
    ember_flow *flow = em_program_flow(p);
    CHECK_OK(ember_inputs(flow, 1, &x));
    CHECK_OK(ember_frequency_sparse(flow, &t, P, KEPT, &kernel, &later));
    CHECK_OK(ember_fft_conv(flow, &(ember_fft_conv_options){.k_rev = later}, x, kernel, NULL, NULL,
                            NULL, &y));
    em_program_output(p, y);
    CHECK_OK(em_program_allocate(p));
    const ember_batch batch = {.n_tokens = T, .n_sequences = 1, .offset = offset, .inputs = u};
    CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
    for (size_t i = 0; i < T; i++) {
        double sum = 0;
        for (size_t f = 0; f < P; f++)
            sum += spectrum[f][0] * cos(turn * (double)(f * i % P)) -
                   spectrum[f][1] * sin(turn * (double)(f * i % P));
        CHECK_NEAR(em_f32(y)[i], sum / P, 2e-6, "place %zu", i);
    }
    em_program_destroy(p);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    const struct form odd = {48, 5}, nothing = {64, 0}, small = {16, 3};
    struct op_case c = case_of(&odd, 3, 20);
    check_op_refused(&c, EMBER_E_RANGE, "has to be a power of two from 2 to 2^30, not 48");
    c = case_of(&nothing, 3, 20);
    check_op_refused(&c, EMBER_E_RANGE, "at least one frequency");
    c = case_of(&small, 3, 20);
    check_op_refused(&c, EMBER_E_SHAPE, "of at most 16 lags, not [3, 20]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_gradients), cmocka_unit_test(what_is_known_of_it),
        cmocka_unit_test(a_product_of_spectra), cmocka_unit_test(what_does_not_fit_is_refused)};
    return OP_RUN_TESTS("ops/frequency_sparse", tests);
}
