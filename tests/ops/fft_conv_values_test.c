// The long convolution where sums over all pairs would take too long, and what is known of it
// without any sums: the vectors of the reference implementation, an impulse's answer, energy,
// causality, states over thousands of tokens.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "ops/program.h"
#include "support/check.h"
#include "support/full.h"

struct subject {
    struct em_program *program;
    ember_tensor k, skip, *y;
    size_t T, D;
};

struct form {
    size_t D, lags, T, threads;
    const float *k, *skip; // [D / head_dim, lags], [D / head_dim]
    bool gated;            // inputs are [u | pre | post]
    ember_fft_conv_options o;
};

static struct em_pool *pool;

static void open(struct subject *s, const struct form *f)
{
    ember_tensor *x, *part[3] = {NULL};
    const size_t heads = f->D / (f->o.head_dim ? f->o.head_dim : 1);
    *s = (struct subject){.T = f->T, .D = f->D};
    CHECK_OK(
        em_tensor_init(&s->k, EMBER_F32, (size_t[]){heads, f->lags}, 2, (float *)(uintptr_t)f->k));
    CHECK_OK(em_tensor_init(&s->skip, EMBER_F32, &heads, 1, (float *)(uintptr_t)f->skip));
    CHECK_OK(em_program_create(&(struct em_program_options){.backend = EM_CPU,
                                                            .max_tokens = f->T,
                                                            .max_sequences = 1,
                                                            .pool = f->threads > 1 ? pool : NULL},
                               &s->program));
    ember_flow *flow = em_program_flow(s->program);
    CHECK_OK(ember_inputs(flow, (f->gated ? 3 : 1) * f->D, &x));
    part[0] = x;
    for (size_t i = 0; f->gated && i < 3; i++)
        CHECK_OK(ember_columns(flow, x, i * f->D, (i + 1) * f->D, &part[i]));
    CHECK_OK(ember_fft_conv(flow, &f->o, part[0], &s->k, f->skip ? &s->skip : NULL, part[1],
                            part[2], &s->y));
    em_program_output(s->program, s->y);
    CHECK_OK(em_program_allocate(s->program));
}

// Tokens of `inputs` from a state (or none) on; y of the last one run.
static const float *run(struct subject *s, const float *inputs, size_t T, ember_state **state)
{
    const size_t offset[] = {0, T};
    CHECK_OK(em_program_forward(s->program,
                                &(struct em_run){.batch = &(ember_batch){.n_tokens = T,
                                                                         .n_sequences = 1,
                                                                         .offset = offset,
                                                                         .inputs = inputs,
                                                                         .state_in = state,
                                                                         .state_out = state}}));
    return em_f32(s->y);
}

static void close(struct subject *s)
{
    em_program_destroy(s->program);
}

static float *random_floats(size_t n, uint64_t seed)
{
    struct em_rng rng;
    em_rng_seed(&rng, seed, n);
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)em_rng_normal(&rng);
    return x;
}

static double largest(const float *x, size_t n)
{
    double m = 0;
    for (size_t i = 0; i < n; i++)
        m = fmax(m, fabs((double)x[i]));
    return m;
}

// Numbers of the reference implementation's H3 form (safari), in double: tensor k has 0.5 sin(0.37
// i + 1.3 k) at place i = 1, 2, ...
static void heads_of_two_equal_the_reference_vectors(void **state)
{
    (void)state;
    static const double expected[4][4] = {{0.0162925, 0.0140599, 0.0237562, 0.0357332},
                                          {-0.0172786, -0.0272589, -0.0502092, -0.0871054},
                                          {-0.0532887, -0.0722242, -0.0757923, -0.0551253},
                                          {0.0377348, 0.080577, 0.124093, 0.15684}};
    float k[8], skip[2], inputs[4 * 12];
    for (size_t i = 0; i < 8; i++)
        k[i] = (float)(0.5 * sin(0.37 * (double)(i + 1) + 1.3 * 2));
    for (size_t i = 0; i < 2; i++)
        skip[i] = (float)(0.5 * sin(0.37 * (double)(i + 1) + 1.3 * 3));
    for (size_t h = 0; h < 4; h++)
        for (size_t t = 0; t < 4; t++) {
            const double at = 0.37 * (double)(h * 4 + t + 1);
            inputs[t * 12 + h] = (float)(0.5 * sin(at + 1.3 * 1));
            inputs[t * 12 + 4 + h] = (float)(0.5 * sin(at + 1.3 * 4));
            inputs[t * 12 + 8 + h] = (float)(0.5 * sin(at + 1.3 * 5));
        }
    struct subject s;
    open(&s,
         &(struct form){
             .D = 4, .lags = 4, .T = 4, .k = k, .skip = skip, .gated = true, .o = {.head_dim = 2}});
    const float *y = run(&s, inputs, 4, NULL);
    for (size_t t = 0; t < 4; t++)
        for (size_t h = 0; h < 4; h++)
            CHECK_NEAR(y[t * 4 + h], expected[h][t], 1e-6, "channel %zu, token %zu", h, t);
    close(&s);
}

// The answer to an impulse at token 0 is the kernel, at any later token the kernel from there; and
// a changed kernel is seen as soon as the program is told.
static void an_impulse_is_answered_by_the_kernel(void **state)
{
    (void)state;
    enum { D = 19, LAGS = 700, T = 1000, AT = 137 };
    float *k = random_floats((size_t)D * LAGS, 1), *x = calloc((size_t)T * D, sizeof *x);
    struct subject s;
    for (size_t c = 0; c < D; c++)
        x[AT * D + c] = 1;
    open(&s, &(struct form){.D = D, .lags = LAGS, .T = T, .k = k});
    for (int round = 0; round < 3; round++) {
        const float *y = run(&s, x, T, NULL);
        for (size_t t = 0; t < T; t++)
            for (size_t c = 0; c < D; c++)
                CHECK_NEAR(y[t * D + c], t >= AT && t - AT < LAGS ? k[c * LAGS + t - AT] : 0, 2e-6,
                           "%zu %zu", t, c);
        if (round) continue; // the second round uses what the first one kept
        run(&s, x, T, NULL);
        for (size_t i = 0; i < (size_t)D * LAGS; i++)
            k[i] = -2 * k[i];
        em_program_weights_changed(s.program);
    }
    close(&s);
    free(k), free(x);
}

// A circular convolution with one tap turns the sequence, and so keeps its energy.
static void a_turn_keeps_the_energy(void **state)
{
    (void)state;
    enum { D = 3, T = 331, BY = 57 };
    float *k = calloc((size_t)D * T, sizeof *k), *x = random_floats((size_t)T * D, 2);
    for (size_t c = 0; c < D; c++)
        k[c * T + BY] = 1;
    struct subject s;
    open(&s, &(struct form){.D = D, .lags = T, .T = T, .k = k, .o = {.circular = true}});
    const float *y = run(&s, x, T, NULL);
    double before = 0, after = 0;
    for (size_t t = 0; t < T; t++)
        for (size_t c = 0; c < D; c++) {
            CHECK_NEAR(y[(t + BY) % T * D + c], x[t * D + c], 3e-6, "%zu", t);
            before += (double)x[t * D + c] * (double)x[t * D + c];
            after += (double)y[t * D + c] * (double)y[t * D + c];
        }
    CHECK_NEAR(after / before, 1, 1e-6, "energy");
    close(&s);
    free(k), free(x);
}

// Lengths of every kind against sums in double at some tokens; the same bits with threads.
static void long_ones_equal_sums(void **state)
{
    (void)state;
    static const size_t lengths[] = {1, 2, 4093, 16384, 65537, 1000000};
    const size_t D = 2;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        const size_t T = lengths[i];
        if (T > 100000 && !em_test_full()) continue;
        float *k = random_floats(D * T, 3), *x = random_floats(D * T, 4);
        struct subject one, two;
        const struct form f = {.D = D, .lags = T, .T = T, .k = k};
        struct form threads = f;
        threads.threads = 2;
        open(&one, &f), open(&two, &threads);
        const float *y = run(&one, x, T, NULL);
        assert_memory_equal(y, run(&two, x, T, NULL), T * D * sizeof *y);
        const double scale = largest(y, T * D);
        for (size_t t = T - 1;; t /= 3) {
            for (size_t c = 0; c < D; c++) {
                double sum = 0;
                for (size_t j = 0; j <= t; j++)
                    sum += (double)k[c * T + j] * (double)x[(t - j) * D + c];
                CHECK_NEAR((double)y[t * D + c] / scale, sum / scale, 2e-6, "T=%zu t=%zu", T, t);
            }
            if (!t) break;
        }
        close(&one), close(&two);
        free(k), free(x);
    }
}

// What comes later changes earlier outputs by rounding alone; with `exact`, not at all, whatever it
// is.
static void the_past_stays(void **state)
{
    (void)state;
    enum { D = 5, T = 900, FROM = 333 };
    float *k = random_floats((size_t)D * T, 5), *x = random_floats((size_t)T * D, 6);
    float *y = malloc((size_t)T * D * sizeof *y);
    for (int exact = 0; exact < 2; exact++) {
        struct subject s;
        open(&s, &(struct form){.D = D, .lags = T, .T = T, .k = k, .o = {.exact = exact}});
        memcpy(y, run(&s, x, T, NULL), (size_t)T * D * sizeof *y);
        float *other = malloc((size_t)T * D * sizeof *other);
        memcpy(other, x, (size_t)T * D * sizeof *other);
        for (size_t i = FROM * D; i < (size_t)T * D; i++)
            other[i] = exact ? NAN : other[i] + 1;
        const float *changed = run(&s, other, T, NULL);
        if (exact)
            assert_memory_equal(changed, y, (size_t)FROM * D * sizeof *y);
        else
            for (size_t i = 0; i < (size_t)FROM * D; i++)
                CHECK_NEAR(((double)changed[i] - (double)y[i]) / largest(y, (size_t)T * D), 0, 1e-5,
                           "%zu", i);
        assert_true(!(fabs((double)changed[FROM * D] - (double)y[FROM * D]) < 1e-3));
        free(other);
        close(&s);
    }
    free(k), free(x), free(y);
}

// Token by token, and in parts of any size, past the kernel's end: as at once.
static void decoding_equals_the_whole(void **state)
{
    (void)state;
    enum { D = 18, LAGS = 600, T = 1700 };
    float *k = random_floats((size_t)D * LAGS, 7), *x = random_floats((size_t)T * 3 * D, 8);
    float *whole = malloc((size_t)T * D * sizeof *whole);
    struct em_rng rng;
    em_rng_seed(&rng, 9, 0);
    struct subject s;
    open(&s, &(struct form){.D = D, .lags = LAGS, .T = T, .k = k, .gated = true});
    memcpy(whole, run(&s, x, T, NULL), (size_t)T * D * sizeof *whole);
    const double scale = largest(whole, (size_t)T * D);
    for (int way = 0; way < 3; way++) {
        ember_state *st;
        CHECK_OK(em_state_create(em_program_layout(s.program), &st));
        for (size_t t = 0; t < T;) {
            size_t n = way == 0 ? 1 : way == 1 ? 1 + em_rng_below(&rng, 300) : 512;
            if (n > T - t) n = T - t;
            const float *y = run(&s, x + t * 3 * D, n, &st);
            for (size_t i = 0; i < n * D; i++)
                CHECK_NEAR((double)y[i] / scale, (double)whole[t * D + i] / scale, 3e-6,
                           "way %d, token %zu", way, t + i / D);
            t += n;
        }
        // No more than the kernel's lags, rounded up, twice.
        assert_true(em_state_bytes(st) <= (size_t)2 * 2 * 1025 * D * sizeof(float));
        em_state_destroy(st);
    }
    close(&s);
    free(k), free(x), free(whole);
}

// A partial kernel is the kernel cut off; gates are products before and after; and what is kept of
// the kernel from the pass before changes no bit.
static void parts_and_gates_are_what_they_say(void **state)
{
    (void)state;
    enum { D = 17, LAGS = 500, TAPS = 77, T = 640 };
    float *k = random_floats((size_t)D * LAGS, 10), *cut = calloc((size_t)D * LAGS, sizeof *cut),
          *x = random_floats((size_t)T * 3 * D, 11), *v = malloc((size_t)T * D * sizeof *v),
          *whole = malloc((size_t)T * D * sizeof *whole);
    for (size_t c = 0; c < D; c++)
        memcpy(cut + c * LAGS, k + c * LAGS, TAPS * sizeof *k);
    for (size_t t = 0; t < T; t++)
        for (size_t c = 0; c < D; c++)
            v[t * D + c] = x[t * 3 * D + c] * x[t * 3 * D + D + c];
    struct subject partial, by_hand;
    open(&partial,
         &(struct form){.D = D, .lags = LAGS, .T = T, .k = k, .gated = true, .o = {.taps = TAPS}});
    open(&by_hand, &(struct form){.D = D, .lags = LAGS, .T = T, .k = cut});
    memcpy(whole, run(&partial, x, T, NULL), (size_t)T * D * sizeof *whole);
    assert_memory_equal(run(&partial, x, T, NULL), whole, (size_t)T * D * sizeof *whole);
    const float *y = run(&by_hand, v, T, NULL);
    const double scale = largest(whole, (size_t)T * D);
    assert_true(scale > 1);
    for (size_t t = 0; t < T; t++)
        for (size_t c = 0; c < D; c++) {
            const double post = (double)x[t * 3 * D + (size_t)2 * D + c];
            CHECK_NEAR((double)whole[t * D + c] / scale, (double)y[t * D + c] * post / scale, 2e-6,
                       "token %zu, channel %zu", t, c);
        }
    close(&partial), close(&by_hand);
    free(k), free(cut), free(x), free(v), free(whole);
}

static int start(void **state)
{
    (void)state;
    return em_pool_create(2, &pool) != EMBER_OK;
}

static int end(void **state)
{
    (void)state;
    em_pool_destroy(pool);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_of_two_equal_the_reference_vectors),
        cmocka_unit_test(an_impulse_is_answered_by_the_kernel),
        cmocka_unit_test(a_turn_keeps_the_energy),
        cmocka_unit_test(long_ones_equal_sums),
        cmocka_unit_test(the_past_stays),
        cmocka_unit_test(decoding_equals_the_whole),
        cmocka_unit_test(parts_and_gates_are_what_they_say),
    };
    return cmocka_run_group_tests_name("ops/fft_conv_values", tests, start, end);
}
