// Long convolutions, causal and two-sided, against sums in double; their gradients against the
// correlations that they are: dk with the input, du with the kernel turned round.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/program.h"
#include "support/check.h"

enum { D = 3 };

struct tensor {
    ember_tensor t, grad;
    float *value, *gradient;
};

static ember_tensor *random_tensor(struct tensor *x, size_t rows, size_t columns, uint64_t seed)
{
    const size_t n = rows * columns;
    x->value = calloc(n, sizeof *x->value);
    x->gradient = calloc(n, sizeof *x->gradient);
    fill_random(x->value, n, seed);
    CHECK_OK(em_tensor_init(&x->t, EMBER_F32, (size_t[]){rows, columns}, 2, x->value));
    CHECK_OK(em_tensor_init(&x->grad, EMBER_F32, (size_t[]){rows, columns}, 2, x->gradient));
    x->t.grad = &x->grad;
    return &x->t;
}

static void release(struct tensor *x)
{
    free(x->value), free(x->gradient);
}

static void compare(const float *found, const double *expected, size_t n, size_t T,
                    const char *what)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(expected[i]));
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)found[i] - expected[i]) <= 1e-5 * largest))
            fail_msg("T=%zu: %s %zu is %g, not %g of %g", T, what, i, (double)found[i], expected[i],
                     largest);
}

// Kernel's value from token s to token t.
static double weight(const struct tensor *k, const struct tensor *later, size_t c, size_t T,
                     size_t t, size_t s)
{
    double w = t >= s ? (double)k->value[c * T + t - s] : 0;
    if (later->value && s >= t) w += (double)later->value[c * T + s - t];
    return w;
}

static void check(enum em_backend backend, size_t T, bool two_sided)
{
    struct tensor u = {0}, k = {0}, later = {0};
    struct em_program *p;
    ember_tensor *x, *y, *loss;
    int32_t *tokens = calloc(T, sizeof *tokens);
    for (size_t t = 0; t < T; t++)
        tokens[t] = (int32_t)t; // u's row t is token t's
    random_tensor(&u, T, D, 1);
    random_tensor(&k, D, T, 2);
    const ember_fft_conv_options o = {.k_rev = two_sided ? random_tensor(&later, D, T, 3) : NULL};
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .backend = backend, .max_tokens = T, .max_sequences = 1, .gradients = true},
        &p));
    ember_flow *f = em_program_flow(p);
    CHECK_OK(ember_embedding(f, &u.t, -1, &x));
    CHECK_OK(ember_fft_conv(f, &o, x, &k.t, NULL, NULL, NULL, &y));
    CHECK_OK(ember_mean_square(f, y, &loss));
    em_program_output(p, y);
    em_program_loss(p, loss);
    CHECK_OK(em_program_allocate(p));
    const ember_batch batch = {
        .n_tokens = T, .n_sequences = 1, .offset = (size_t[]){0, T}, .tokens = tokens};
    // This loss has y itself for its gradient.
    CHECK_OK(em_program_forward(
        p, &(struct em_run){.batch = &batch, .gradients = true, .loss_scale = D / 2.0}));
    CHECK_OK(em_program_backward(p));
    double *expected = calloc(T * D, sizeof *expected), *du = calloc(T * D, sizeof *du),
           *dk = calloc(T * D, sizeof *dk), *dlater = calloc(T * D, sizeof *dlater);
    for (size_t c = 0; c < D; c++)
        for (size_t t = 0; t < T; t++) {
            double sum = 0;
            for (size_t s = 0; s < T; s++)
                sum += weight(&k, &later, c, T, t, s) * (double)u.value[s * D + c];
            expected[t * D + c] = sum;
            for (size_t s = 0; s < T; s++) {
                du[s * D + c] += weight(&k, &later, c, T, t, s) * sum;
                if (t >= s) dk[c * T + t - s] += sum * (double)u.value[s * D + c];
                if (s >= t) dlater[c * T + s - t] += sum * (double)u.value[s * D + c];
            }
        }
    compare(em_f32(y), expected, T * D, T, "y");
    compare(u.gradient, du, T * D, T, "du");
    compare(k.gradient, dk, T * D, T, "dk");
    if (two_sided) compare(later.gradient, dlater, T * D, T, "dk_rev");
    em_program_destroy(p);
    release(&u), release(&k), release(&later);
    free(tokens), free(expected), free(du), free(dk), free(dlater);
}

static const size_t lengths[] = {1, 2, 3, 31, 64, 97, 600};
enum { LENGTHS = sizeof lengths / sizeof *lengths };

static void causal_ones(void **state)
{
    (void)state;
    for (int backend = 0; backend < EM_BACKENDS; backend++)
        for (size_t i = 0; i < LENGTHS; i++)
            check((enum em_backend)backend, lengths[i], false);
}

static void two_sided_ones(void **state)
{
    (void)state;
    for (int backend = 0; backend < EM_BACKENDS; backend++)
        for (size_t i = 0; i < LENGTHS; i++)
            check((enum em_backend)backend, lengths[i], true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(causal_ones),
        cmocka_unit_test(two_sided_ones),
    };
    return cmocka_run_group_tests_name("ops/correlation", tests, NULL, NULL);
}
