// What makes and disturbs a router's logits: jitter, noise, cosines, two levels, positions,
// balanced assignments.
#include <math.h>
#include <string.h>

#include "support/op_check.h"

// ---- cosine ----

static ember_status cosine(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                           ember_tensor **out)
{
    return ember_cosine_logits(flow, in[0], in[1], in[2], *(const float *)c->context, out);
}

static void cosines_with_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 7;
    for (size_t round = 0; round < op_rounds(10); round++) {
        const size_t P = 1 + op_size(&sizes, 40), E = op_size(&sizes, 12);
        const float limit = round % 3 ? 3 : -2; // below the start: the scale is at its limit
        struct op_case c = {.name = "cosine_logits",
                            .record = cosine,
                            .context = &limit,
                            .rows = op_size(&sizes, 30),
                            .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {P}, 1},
                                   {OP_PARAMETER, {E, P}, 2},
                                   {OP_PARAMETER, {1}, 1}}};
        c.in[round % 4 == 3 ? 0 : 3].constant = true;
        check_op(&c, round);
    }
}

// ---- two levels ----

static ember_status hierarchical(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                 ember_tensor **out)
{
    (void)c;
    return ember_hierarchical_logits(flow, in[0], in[1], out);
}

static void two_levels_with_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 17;
    for (size_t round = 0; round < op_rounds(10); round++) {
        const size_t G = op_size(&sizes, 6), each = op_size(&sizes, 5);
        struct op_case c = {
            .name = "hierarchical_logits",
            .record = hierarchical,
            .rows = op_size(&sizes, 30),
            .in = {{OP_ROWS, {G}, 1, .low = -3, .high = 3}, {OP_ROWS, {G * each}, 1}}};
        check_op(&c, round);
    }
}

// ---- jitter and noise ----

static ember_status jitter(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                           ember_tensor **out)
{
    return ember_jitter(flow, in[0], *(const float *)c->context, out);
}

static ember_status noisy(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                          ember_tensor **out)
{
    return ember_noisy_logits(flow, in[0], in[1], *(const size_t *)c->context, 0, out, NULL);
}

static void noise_with_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 27;
    for (size_t round = 0; round < op_rounds(8); round++) {
        const size_t E = 1 + op_size(&sizes, 9), k = op_size(&sizes, E);
        const float eps = round & 1 ? 0.3f : 0.01f;
        check_op(&(struct op_case){.name = "jitter",
                                   .record = jitter,
                                   .context = &eps,
                                   .random = true,
                                   .rows = op_size(&sizes, 30),
                                   .in = {{OP_ROWS, {E}, 1}}},
                 round);
        check_op(&(struct op_case){.name = "noisy_logits",
                                   .record = noisy,
                                   .context = &k,
                                   .random = true,
                                   .rows = op_size(&sizes, 30),
                                   .in = {{OP_ROWS, {E}, 1}, {OP_ROWS, {E}, 1}}},
                 round);
    }
}

// ---- by hand: inputs pass through an operation ----

enum { MOST = 4096 };

struct through {
    struct em_program *program;
    ember_tensor *y, *value;
    size_t T;
};

typedef ember_status apply(ember_flow *flow, ember_tensor *x, struct through *t);

static struct through open_through(size_t T, size_t width, apply *record)
{
    struct through t = {.T = T};
    ember_tensor *x;
    CHECK_OK(em_program_create(
        &(struct em_program_options){.backend = EM_CPU, .max_tokens = T, .max_sequences = 2},
        &t.program));
    CHECK_OK(ember_inputs(em_program_flow(t.program), width, &x));
    CHECK_OK(record(em_program_flow(t.program), x, &t));
    em_program_output(t.program, t.y);
    CHECK_OK(em_program_allocate(t.program));
    return t;
}

static const float *run_through(struct through *t, const float *x, bool training, uint64_t step)
{
    CHECK_OK(em_program_forward(
        t->program, &(struct em_run){.batch = &(ember_batch){.n_tokens = t->T,
                                                             .n_sequences = 1,
                                                             .offset = (size_t[]){0, t->T},
                                                             .inputs = x},
                                     .training = training,
                                     .seed = 5,
                                     .step = step}));
    return em_f32(t->y);
}

static ember_status jitter_ten(ember_flow *flow, ember_tensor *x, struct through *t)
{
    return ember_jitter(flow, x, 0.1f, &t->y);
}

static void jitter_multiplies(void **state)
{
    (void)state;
    static float x[MOST];
    double sum = 0, squares = 0;
    for (size_t i = 0; i < MOST; i++)
        x[i] = 2;
    struct through t = open_through(MOST / 16, 16, jitter_ten);
    assert_memory_equal(run_through(&t, x, false, 1), x, sizeof x);
    const float *y = run_through(&t, x, true, 1);
    for (size_t i = 0; i < MOST; i++) {
        const double factor = (double)y[i] / 2;
        assert_true(factor >= 0.9 - 1e-6 && factor <= 1.1 + 1e-6);
        sum += factor - 1;
        squares += (factor - 1) * (factor - 1);
    }
    CHECK_NEAR(sum / MOST, 0, 3e-3, "mean");
    CHECK_NEAR(squares / MOST, 0.01 / 3, 2e-4, "variance of a uniform one");
    const float first = y[0];
    assert_true(run_through(&t, x, true, 2)[0] != first); // another step, other noise
    assert_true(run_through(&t, x, true, 1)[0] == first);
    em_program_destroy(t.program);
}

// h of two experts apart by 1.2, s so that sigma is known: the smooth load is the probability that
// an expert is chosen when its own noise is drawn again.
static ember_status noisy_by_itself(ember_flow *flow, ember_tensor *x, struct through *t)
{
    ember_tensor *h, *s;
    EM_TRY(ember_columns(flow, x, 0, 3, &h));
    EM_TRY(ember_columns(flow, x, 3, 6, &s));
    return ember_noisy_logits(flow, h, s, 1, 1, &t->y, &t->value);
}

static double phi(double u)
{
    return 0.5 * erfc(-u / sqrt(2));
}

static void load_is_the_chance_to_be_chosen(void **state)
{
    (void)state;
    const float x[6] = {0.3f, -0.4f, 0.1f, 0.5f, -1, 2};
    double sigma[3], load[3] = {0}, mean = 0, variance = 0;
    for (size_t e = 0; e < 3; e++)
        sigma[e] = log1p(exp((double)x[3 + e])) + 1e-2;
    struct through t = open_through(1, 6, noisy_by_itself);
    assert_memory_equal(run_through(&t, x, false, 0), x, 3 * sizeof *x);
    assert_true(em_f32(t.value)[0] == 0);
    for (uint64_t step = 0; step < 40; step++) {
        const float *y = run_through(&t, x, true, step);
        mean = variance = 0;
        for (size_t e = 0; e < 3; e++) {
            double other = -1e9; // the largest without e
            for (size_t i = 0; i < 3; i++)
                if (i != e) other = fmax(other, (double)y[i]);
            load[e] = phi(((double)x[e] - other) / sigma[e]);
            mean += load[e] / 3;
        }
        for (size_t e = 0; e < 3; e++)
            variance += (load[e] - mean) * (load[e] - mean) / 3;
        CHECK_NEAR(em_f32(t.value)[0], variance / (mean * mean + 1e-10), 1e-5, "step %zu",
                   (size_t)step);
    }
    em_program_destroy(t.program);
}

static ember_status assign(ember_flow *flow, ember_tensor *x, struct through *t)
{
    return ember_sinkhorn(flow, x, 1e-9f, 10000, &t->y);
}

static void sinkhorn_gives_equal_shares(void **state)
{
    (void)state;
    enum { T = 30, E = 5 };
    float x[T * E];
    fill_random(x, T * E, 3);
    for (size_t i = 0; i < T * E; i++)
        x[i] = 3 * x[i] + (i % E == 2 ? 4 : 0); // everybody likes expert 2
    struct through t = open_through(T, E, assign);
    assert_memory_equal(run_through(&t, x, false, 0), x, sizeof x);
    const float *y = run_through(&t, x, true, 0);
    for (size_t r = 0; r < T; r++) {
        double sum = 0;
        for (size_t e = 0; e < E; e++)
            sum += (double)y[r * E + e];
        CHECK_NEAR(sum, 1.0 / T, 1e-7, "token %zu", r);
    }
    for (size_t e = 0; e < E; e++) {
        double sum = 0;
        for (size_t r = 0; r < T; r++)
            sum += (double)y[r * E + e];
        CHECK_NEAR(sum, 1.0 / E, 1e-6, "expert %zu", e);
    }
    em_program_destroy(t.program);
}

static ember_status features(ember_flow *flow, ember_tensor *x, struct through *t)
{
    (void)x;
    return ember_position_features(flow, 6, 100, &t->y);
}

static void positions_are_waves(void **state)
{
    (void)state;
    enum { T = 11 };
    const float x[T] = {0};
    struct through t = open_through(T, 1, features);
    const float *y = run_through(&t, x, false, 0);
    for (size_t p = 0; p < T; p++)
        for (size_t i = 0; i < 3; i++) {
            const double angle = (double)p / pow(100, (double)i / 2);
            CHECK_NEAR(y[p * 6 + i], sin(angle), 1e-6, "sine %zu of %zu", i, p);
            CHECK_NEAR(y[p * 6 + 3 + i], cos(angle), 1e-6, "cosine %zu of %zu", i, p);
        }
    em_program_destroy(t.program);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    check_op_refused(
        &(struct op_case){
            .record = cosine,
            .context = &(float){1},
            .in = {{OP_ROWS, {4}, 1}, {OP_PARAMETER, {3, 5}, 2}, {OP_PARAMETER, {1}, 1}}},
        EMBER_E_SHAPE, "cosine_logits: z is [5, 4], w is [3, 5]");
    check_op_refused(
        &(struct op_case){.record = hierarchical, .in = {{OP_ROWS, {2}, 1}, {OP_ROWS, {5}, 1}}},
        EMBER_E_SHAPE, "hierarchical_logits: outer is [5, 2], inner is [5, 5]");
    check_op_refused(
        &(struct op_case){.record = jitter, .context = &(float){1}, .in = {{OP_ROWS, {2}, 1}}},
        EMBER_E_RANGE, "jitter: eps has to be in [0, 1), not 1");
    check_op_refused(&(struct op_case){.record = noisy,
                                       .context = &(size_t){1},
                                       .in = {{OP_ROWS, {2}, 1}, {OP_ROWS, {3}, 1}}},
                     EMBER_E_SHAPE, "noisy_logits: h is [5, 2], s is [5, 3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cosines_with_gradients),
        cmocka_unit_test(two_levels_with_gradients),
        cmocka_unit_test(noise_with_gradients),
        cmocka_unit_test(jitter_multiplies),
        cmocka_unit_test(load_is_the_chance_to_be_chosen),
        cmocka_unit_test(sinkhorn_gives_equal_shares),
        cmocka_unit_test(positions_are_waves),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return OP_RUN_TESTS("gates", tests);
}
