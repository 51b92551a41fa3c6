// The model of kyegomez/LFM as its formulas mean it, for any number of sequences: operators whose
// matrices are made for each sequence from the mean of its tokens, and a dense mixture of them. It
// is an oracle for ember_sequence_linear() and ember_sequence_mean(), of which it is made; the
// gates and the output are computed here.
#include <math.h>
#include <string.h>

#include "ops/program.h"
#include "support/check.h"

enum { D = 3, A = 2, E = 2, T = 4, S = 3 };

// Tensor k of the golden vectors: value i (from 1) is 0.5 sin(0.37 i + 1.3 k).
struct tensor {
    ember_tensor t;
    float data[32];
};

static ember_tensor *filled(struct tensor *x, size_t k, size_t rows, size_t columns)
{
    const size_t dim[] = {rows, columns};
    for (size_t i = 0; i < rows * columns; i++)
        x->data[i] = (float)(0.5 * sin(0.37 * (double)(i + 1) + 1.3 * (double)k));
    if (rows == 1)
        CHECK_OK(em_tensor_init(&x->t, EMBER_F32, &columns, 1, x->data));
    else
        CHECK_OK(em_tensor_init(&x->t, EMBER_F32, dim, 2, x->data));
    return &x->t;
}

// x (W + A a + c)^T + b with the four tensors from number k on: W, b, A, c.
static void adaptive(ember_flow *f, struct tensor *w, size_t k, ember_tensor *x, ember_tensor *a,
                     ember_tensor **y)
{
    ember_tensor *fixed, *made, *product;
    CHECK_OK(
        ember_linear(f, x, filled(&w[k], k, D, D), filled(&w[k + 1], k + 1, 1, D), NULL, &fixed));
    CHECK_OK(ember_linear_f32(f, a, filled(&w[k + 2], k + 2, D * D, A),
                              filled(&w[k + 3], k + 3, 1, D * D), &made));
    CHECK_OK(ember_sequence_linear(f, x, made, &product));
    CHECK_OK(ember_add(f, fixed, product, y));
}

// y [sequences, T, D] of x; gates [sequences, E].
static void model(enum em_backend backend, const float *x, size_t sequences, float *y, float *gates)
{
    static struct tensor w[32];
    struct em_program *p;
    ember_tensor *in, *mean, *a, *tokens, *channels, *expert[E], *logits;
    size_t offset[S + 1];
    for (size_t s = 0; s <= sequences; s++)
        offset[s] = s * T;
    CHECK_OK(em_program_create(&(struct em_program_options){.backend = backend,
                                                            .max_tokens = sequences * T,
                                                            .max_sequences = sequences},
                               &p));
    ember_flow *f = em_program_flow(p);
    CHECK_OK(ember_inputs(f, D, &in));
    CHECK_OK(ember_sequence_mean(f, in, &mean));
    CHECK_OK(ember_linear(f, mean, filled(&w[1], 1, A, D), filled(&w[2], 2, 1, A), NULL, &a));
    adaptive(f, w, 3, in, a, &tokens);
    adaptive(f, w, 7, tokens, a, &channels);
    for (size_t e = 0; e < E; e++) {
        adaptive(f, w, 11 + 4 * e, channels, a, &expert[e]);
        em_program_output(p, expert[e]);
    }
    CHECK_OK(ember_linear(f, a, filled(&w[19], 19, E, A), filled(&w[20], 20, 1, E), NULL, &logits));
    em_program_output(p, logits);
    CHECK_OK(em_program_allocate(p));
    const ember_batch batch = {
        .n_tokens = sequences * T, .n_sequences = sequences, .offset = offset, .inputs = x};
    CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
    filled(&w[21], 21, D, D);
    filled(&w[22], 22, 1, D);
    for (size_t s = 0; s < sequences; s++) {
        const float *g = em_row(logits, s);
        const double first = 1 / (1 + exp((double)g[1] - (double)g[0]));
        gates[s * E] = (float)first;
        gates[s * E + 1] = (float)(1 - first);
        for (size_t t = s * T; t < (s + 1) * T; t++)
            for (size_t o = 0; o < D; o++) {
                double sum = (double)w[22].data[o];
                for (size_t i = 0; i < D; i++)
                    sum += (double)w[21].data[o * D + i] *
                           (first * (double)em_row(expert[0], t)[i] +
                            (1 - first) * (double)em_row(expert[1], t)[i]);
                y[t * D + o] = (float)sum;
            }
    }
    em_program_destroy(p);
}

static void one_sequence_follows_the_formulas(void **state)
{
    (void)state;
    static const double expected[T * D] = {-0.373117,  -0.108768, -0.150375,  -0.401155,
                                           -0.0907802, -0.10634,  -0.430017,  -0.0693134,
                                           -0.0583871, -0.427646, -0.0682105, -0.0597767};
    struct tensor x;
    float y[T * D], gates[E];
    filled(&x, 30, T, D);
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        model((enum em_backend)backend, x.data, 1, y, gates);
        for (size_t i = 0; i < T * D; i++)
            CHECK_NEAR(y[i], expected[i], 1e-6, "element %zu, backend %d", i, backend);
        CHECK_NEAR(gates[0] + gates[1], 1, 1e-6, "the gates' sum");
    }
}

static void a_batch_equals_its_sequences(void **state)
{
    (void)state;
    float x[S * T * D], y[S * T * D], alone[T * D], gates[S * E], own[E];
    fill_random(x, S * T * D, 1);
    model(EM_CPU, x, S, y, gates);
    for (size_t s = 0; s < S; s++) {
        model(EM_CPU, x + s * T * D, 1, alone, own);
        assert_memory_equal(alone, y + s * T * D, sizeof alone);
        assert_memory_equal(own, gates + s * E, sizeof own);
    }
}

// With the mean, and so the matrices, held: points are moved against each other within a sequence.
static void given_the_context_it_is_affine(void **state)
{
    (void)state;
    float x[3][T * D], y[3][T * D], gates[E];
    fill_random(x[0], T * D, 2);
    memcpy(x[1], x[0], sizeof x[0]);
    for (size_t d = 0; d < D; d++) { // the same mean
        x[1][d] += 0.4f;
        x[1][D + d] -= 0.4f;
    }
    for (size_t i = 0; i < T * D; i++)
        x[2][i] = 0.3f * x[0][i] + 0.7f * x[1][i];
    for (size_t i = 0; i < 3; i++)
        model(EM_CPU, x[i], 1, y[i], gates);
    for (size_t i = 0; i < T * D; i++)
        CHECK_NEAR(y[2][i], 0.3 * (double)y[0][i] + 0.7 * (double)y[1][i], 1e-5, "element %zu", i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_sequence_follows_the_formulas),
        cmocka_unit_test(a_batch_equals_its_sequences),
        cmocka_unit_test(given_the_context_it_is_affine),
    };
    return cmocka_run_group_tests_name("nn/lfm", tests, NULL, NULL);
}
