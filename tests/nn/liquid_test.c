// What is known of liquid cells apart from any implementation: vectors computed by hand in double,
// limits, bounds, and the wirings that ncps makes.
#include <ember/ops.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/rng.h"
#include "nn/sequence_mixing/recurrent/wiring.h"
#include "ops/program.h"
#include "support/check.h"

enum { MOST = 64, TENSORS = 24 };

// Tensors of at most MOST values, and a program over `T` tokens of width I.
struct net {
    ember_tensor t[TENSORS];
    float value[TENSORS][MOST], gradient[TENSORS][MOST];
    ember_tensor grad[TENSORS];
    struct em_program *p;
    ember_tensor *x, *y, *loss;
};

// Value i (from 1) of tensor k is 0.5 sin(0.37 i + 1.3 k).
static ember_tensor *rule(struct net *n, unsigned k, size_t rows, size_t columns)
{
    CHECK_OK(em_tensor_init(&n->t[k], EMBER_F32, columns ? (size_t[]){rows, columns} : &rows,
                            columns ? 2 : 1, n->value[k]));
    for (size_t i = 0; i < ember_tensor_count(&n->t[k]); i++)
        n->value[k][i] = (float)(0.5 * sin(0.37 * (double)(i + 1) + 1.3 * k));
    return &n->t[k];
}

static ember_tensor *filled(struct net *n, unsigned k, size_t rows, size_t columns, float value)
{
    ember_tensor *t = rule(n, k, rows, columns);
    for (size_t i = 0; i < ember_tensor_count(t); i++)
        n->value[k][i] = value;
    return t;
}

static void open_program(struct net *n, enum em_backend backend, size_t I, bool gradients)
{
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .backend = backend, .max_tokens = 8, .max_sequences = 2, .gradients = gradients},
        &n->p));
    CHECK_OK(ember_inputs(em_program_flow(n->p), I, &n->x));
}

// One token of one sequence: from `state` to `state`, by time dt.
static void step(struct net *n, const float *x, float dt, const float *before, size_t S,
                 float *after)
{
    ember_state *state;
    const size_t offset[] = {0, 1};
    CHECK_OK(em_state_create(em_program_layout(n->p), &state));
    memcpy(state->slot[0].fixed, before, S * sizeof *before);
    CHECK_OK(
        em_program_forward(n->p, &(struct em_run){.batch = &(ember_batch){.n_tokens = 1,
                                                                          .n_sequences = 1,
                                                                          .offset = offset,
                                                                          .inputs = x,
                                                                          .timespans = &dt,
                                                                          .state_in = &state,
                                                                          .state_out = &state}}));
    memcpy(after, state->slot[0].fixed, S * sizeof *after);
    em_state_destroy(state);
}

static void ready(struct net *n)
{
    em_program_output(n->p, n->y);
    CHECK_OK(em_program_allocate(n->p));
}

static void open_cfc(struct net *n, ember_cfc_mode mode, enum em_backend backend)
{
    const bool pure = mode == EMBER_CFC_PURE;
    *n = (struct net){0};
    ember_cfc_layer l = {.backbone = {{rule(n, 1, 4, 5), rule(n, 2, 4, 0)}},
                         .ff1 = {rule(n, 3, 3, 4), rule(n, 4, 3, 0)}};
    if (pure) {
        l.w_tau = rule(n, 5, 1, 3);
        l.a = rule(n, 6, 1, 3);
    } else {
        l.ff2.weight = rule(n, 5, 3, 4), l.ff2.bias = rule(n, 6, 3, 0);
        l.time_a.weight = rule(n, 7, 3, 4), l.time_a.bias = rule(n, 8, 3, 0);
        l.time_b.weight = rule(n, 9, 3, 4), l.time_b.bias = rule(n, 10, 3, 0);
    }
    rule(n, 11, 2, 0);
    rule(n, 12, 3, 0);
    open_program(n, backend, 2, false);
    CHECK_OK(ember_cfc(em_program_flow(n->p), n->x, &l, 1,
                       &(ember_cfc_options){.mode = mode, .backbone_layers = 1}, &n->y));
    ready(n);
}

static void cfc_of_the_golden_vectors(void **state)
{
    (void)state;
    static const double expected[][3] = {{0.00705416, -0.0269436, 0.161326},
                                         {-0.0206038, -0.23143, 0.00230488},
                                         {0.49552, 0.477646, 0.286943}};
    for (int backend = 0; backend < EM_BACKENDS; backend++)
        for (int mode = EMBER_CFC_DEFAULT; mode <= EMBER_CFC_PURE; mode++) {
            struct net n;
            float h[3];
            open_cfc(&n, (ember_cfc_mode)mode, (enum em_backend)backend);
            step(&n, n.value[11], 0.8f, n.value[12], 3, h);
            for (size_t i = 0; i < 3; i++)
                CHECK_NEAR(h[i], expected[mode][i], 1e-6, "backend %d mode %d %zu", backend, mode,
                           i);
            em_program_destroy(n.p);
        }
}

// The heads at one place, from cells whose gate is forced: time_b far to one side.
static void gates_choose_between_the_heads(void **state)
{
    (void)state;
    float low[3], high[3], free_low[3], free_high[3];
    struct net n;
    for (int mode = EMBER_CFC_DEFAULT; mode <= EMBER_CFC_NO_GATE; mode++) {
        float *const to[2][2] = {{low, high}, {free_low, free_high}};
        for (int side = 0; side < 2; side++) {
            open_cfc(&n, (ember_cfc_mode)mode, EM_CPU);
            // s = sigmoid(a dt + b) with a = +-1 and no b, for a very long time.
            memset(n.value[7], 0, sizeof n.value[7]);
            memset(n.value[9], 0, sizeof n.value[9]);
            for (size_t i = 0; i < 3; i++)
                n.value[8][i] = side ? 1 : -1;
            step(&n, n.value[11], 1e4f, n.value[12], 3, to[mode][side]);
            em_program_destroy(n.p);
        }
    }
    for (size_t i = 0; i < 3; i++) { // f1, f2; f1, f1 + f2
        CHECK_NEAR(free_low[i], low[i], 1e-6, "f1 %zu", i);
        CHECK_NEAR(free_high[i], low[i] + high[i], 1e-6, "f1 + f2 %zu", i);
        assert_true(fabsf(low[i] - high[i]) > 1e-3f);
    }
}

static void open_ltc(struct net *n, size_t unfolds, enum em_backend backend, bool gradients)
{
    *n = (struct net){0};
    ember_ltc_parameters p = {.gleak = rule(n, 1, 3, 0),
                              .vleak = rule(n, 2, 3, 0),
                              .cm = rule(n, 3, 3, 0),
                              .sigma = rule(n, 4, 3, 3),
                              .mu = rule(n, 5, 3, 3),
                              .w = rule(n, 6, 3, 3),
                              .erev = rule(n, 7, 3, 3),
                              .mask = filled(n, 18, 3, 3, 1),
                              .sensory = {rule(n, 8, 2, 3), rule(n, 9, 2, 3), rule(n, 10, 2, 3),
                                          rule(n, 11, 2, 3), filled(n, 19, 2, 3, 1)},
                              .input_w = rule(n, 12, 2, 0),
                              .input_b = rule(n, 13, 2, 0)};
    rule(n, 14, 2, 0);
    rule(n, 15, 2, 0);
    rule(n, 16, 2, 0);
    rule(n, 17, 3, 0);
    open_program(n, backend, 2, gradients);
    CHECK_OK(ember_ltc(
        em_program_flow(n->p), n->x, &p,
        &(ember_ltc_options){
            .unfolds = unfolds, .outputs = 2, .epsilon = 1e-8f, .implicit_constraints = true},
        &n->y));
    CHECK_OK(ember_column_affine(em_program_flow(n->p), n->y, &n->t[14], &n->t[15], &n->y));
    ready(n);
}

static void ltc_of_the_golden_vectors(void **state)
{
    (void)state;
    static const double expected[][5] = {{0.42602, 0.48673, 0.0010884, -0.114267, -0.217139},
                                         {0.431816, 0.484551, -0.0409189, -0.162516, -0.270008}};
    static const float dt[] = {1, 0.3f};
    for (int backend = 0; backend < EM_BACKENDS; backend++)
        for (size_t i = 0; i < 2; i++) {
            struct net n;
            float v[3];
            open_ltc(&n, 6, (enum em_backend)backend, false);
            step(&n, n.value[16], dt[i], n.value[17], 3, v);
            for (size_t j = 0; j < 5; j++)
                CHECK_NEAR(j < 2 ? em_f32(n.y)[j] : v[j - 2], expected[i][j], 2e-6,
                           "backend %d dt %g: %zu", backend, (double)dt[i], j);
            em_program_destroy(n.p);
        }
}

// The equation that the solver integrates: cm v' = gleak (vleak - v) + sum a(v) (erev - v).
static double softplus(double x)
{
    return log1p(exp(x));
}

static void slope_of(const struct net *n, const double *v, double *slope)
{
    for (size_t i = 0; i < 3; i++) {
        double sum = softplus((double)n->value[1][i]) * ((double)n->value[2][i] - v[i]);
        for (size_t j = 0; j < 5; j++) { // 3 neurons, 2 senses
            const bool sense = j >= 3;
            const size_t at = (sense ? j - 3 : j) * 3 + i;
            const double x = sense ? (double)n->value[16][j - 3] * (double)n->value[12][j - 3] +
                                         (double)n->value[13][j - 3]
                                   : v[j];
            const double sigma = (double)n->value[sense ? 8 : 4][at],
                         mu = (double)n->value[sense ? 9 : 5][at];
            sum += softplus((double)n->value[sense ? 10 : 6][at]) / (1 + exp(-sigma * (x - mu))) *
                   ((double)n->value[sense ? 11 : 7][at] - v[i]);
        }
        slope[i] = sum / softplus((double)n->value[3][i]);
    }
}

// Runge and Kutta's fourth order in steps so small that their error does not count.
static void integrate(const struct net *n, double time, double *v)
{
    enum { STEPS = 4000 };
    const double h = time / STEPS;
    double k[4][3], at[3];
    for (int s = 0; s < STEPS; s++) {
        for (int stage = 0; stage < 4; stage++) {
            const double back = stage == 0 ? 0 : stage == 3 ? h : h / 2;
            for (size_t i = 0; i < 3; i++)
                at[i] = v[i] + (stage ? back * k[stage - 1][i] : 0);
            slope_of(n, at, k[stage]);
        }
        for (size_t i = 0; i < 3; i++)
            v[i] += h / 6 * (k[0][i] + 2 * k[1][i] + 2 * k[2][i] + k[3][i]);
    }
}

static void the_solver_converges_in_first_order(void **state)
{
    (void)state;
    double error[4];
    static const size_t unfolds[] = {8, 16, 32, 64};
    for (size_t i = 0; i < 4; i++) {
        struct net n;
        float v[3];
        double exact[3];
        open_ltc(&n, unfolds[i], EM_CPU, false);
        step(&n, n.value[16], 1, n.value[17], 3, v);
        for (size_t j = 0; j < 3; j++)
            exact[j] = (double)n.value[17][j];
        integrate(&n, 1, exact);
        error[i] = 0;
        for (size_t j = 0; j < 3; j++)
            error[i] = fmax(error[i], fabs((double)v[j] - exact[j]));
        if (i) CHECK_NEAR(error[i - 1] / error[i], 2, 0.25, "%zu unfolds", unfolds[i]);
        em_program_destroy(n.p);
    }
    assert_true(error[3] < 5e-3);
}

static void many_unfolds_are_many_calls_of_one(void **state)
{
    (void)state;
    struct net n;
    float whole[3], v[3];
    open_ltc(&n, 5, EM_CPU, false);
    step(&n, n.value[16], 1.5f, n.value[17], 3, whole);
    em_program_destroy(n.p);
    open_ltc(&n, 1, EM_CPU, false);
    memcpy(v, n.value[17], sizeof v);
    for (int i = 0; i < 5; i++)
        step(&n, n.value[16], 0.3f, v, 3, v);
    em_program_destroy(n.p);
    for (size_t i = 0; i < 3; i++)
        CHECK_NEAR(v[i], whole[i], 1e-6, "neuron %zu", i);
}

// Each update is a mean of potentials, with positive weights.
static void potentials_stay_between_their_bounds(void **state)
{
    (void)state;
    struct net n;
    struct em_rng rng;
    em_rng_seed(&rng, 4, 4);
    open_ltc(&n, 6, EM_CPU, false);
    for (int round = 0; round < 200; round++) {
        float v[3], x[2];
        for (unsigned k = 1; k <= 13; k++) {
            const bool bounded = k == 2 || k == 7 || k == 11; // vleak, erev
            for (size_t i = 0; i < ember_tensor_count(&n.t[k]); i++)
                n.value[k][i] = (float)(bounded ? 2 * em_rng_uniform(&rng) - 0.5
                                                : 8 * em_rng_uniform(&rng) - 4);
        }
        for (size_t i = 0; i < 3; i++)
            v[i] = (float)(2 * em_rng_uniform(&rng) - 0.5);
        for (size_t i = 0; i < 2; i++)
            x[i] = (float)(9 * em_rng_uniform(&rng) - 4);
        step(&n, x, (float)(0.01 + 3 * em_rng_uniform(&rng)), v, 3, v);
        for (size_t i = 0; i < 3; i++)
            assert_true(v[i] >= -0.5f - 1e-5f && v[i] <= 1.5f + 1e-5f);
    }
    em_program_destroy(n.p);
}

static void a_missing_synapse_says_nothing(void **state)
{
    (void)state;
    struct net n;
    float a[3], b[3], v[3];
    open_ltc(&n, 1, EM_CPU, false);
    // All synapses from neuron 1 to neuron 0, and from sense 1 to neuron 0, are gone.
    n.value[18][1 * 3 + 0] = 0;
    n.value[19][1 * 3 + 0] = 0;
    step(&n, n.value[16], 1, n.value[17], 3, a);
    memcpy(v, n.value[17], sizeof v);
    v[1] += 0.7f;
    float x[2] = {n.value[16][0], n.value[16][1] + 0.9f};
    step(&n, x, 1, v, 3, b);
    assert_true(a[0] == b[0]);
    assert_true(a[2] != b[2]);
    em_program_destroy(n.p);
}

static void times_have_to_be_positive(void **state)
{
    (void)state;
    struct net n;
    static const float bad[] = {0, -1, NAN, INFINITY};
    const size_t offset[] = {0, 1};
    open_ltc(&n, 6, EM_CPU, false);
    for (size_t i = 0; i < 4; i++) {
        const ember_batch batch = {.n_tokens = 1,
                                   .n_sequences = 1,
                                   .offset = offset,
                                   .inputs = n.value[16],
                                   .timespans = &bad[i]};
        CHECK_FAILS(em_program_forward(n.p, &(struct em_run){.batch = &batch}), EMBER_E_RANGE,
                    "has to be finite and greater than 0");
    }
    em_program_destroy(n.p);
}

// ---- wirings ----

struct fixture {
    const char *file, *specification;
    size_t inputs, units, outputs, layer[3], synapses, sensory, positive, sensory_positive;
};

static const struct fixture fixtures[] = {
    {"auto-16-1", "auto:16,1", 2, 16, 1, {9, 6, 1}, 39, 11, 25, 6},
    {"auto-16-4", "auto:16,4", 8, 16, 4, {8, 4, 4}, 28, 32, 17, 18},
    {"auto-28-4", "auto:28,4", 20, 28, 4, {15, 9, 4}, 84, 140, 33, 70},
    {"auto-28-10", "auto:28,10", 8, 28, 10, {11, 7, 10}, 70, 40, 39, 20},
    {"auto-32-8", "auto:32,8", 32, 32, 8, {15, 9, 8}, 101, 224, 59, 108},
    {"ncp-10-10-8", "ncp:10,10,8,6,6,4,6", 8, 28, 8, {10, 10, 8}, 112, 48, 63, 28},
    {"full-8-4", "full", 8, 8, 4, {8, 0, 0}, 64, 64, 50, 45},
};
enum { FIXTURES = sizeof fixtures / sizeof *fixtures };

static size_t count(const int8_t *table, size_t n, bool positive)
{
    size_t found = 0;
    for (size_t i = 0; i < n; i++)
        found += positive ? table[i] > 0 : table[i] != 0;
    return found;
}

static void wirings_of_ncps_are_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < FIXTURES; i++) {
        const struct fixture *f = &fixtures[i];
        char path[512];
        struct em_buf text = {0}, again = {0};
        struct em_arena arena = {0};
        struct em_wiring w;
        snprintf(path, sizeof path, "%s/golden/wirings/%s.txt", EMBER_TESTS_DIR, f->file);
        CHECK_OK(em_read_file(path, 1 << 20, &text));
        CHECK_OK(
            em_wiring_make(&(struct em_wiring_request){.specification = text.data}, &arena, &w));
        assert_int_equal(w.inputs, f->inputs);
        assert_int_equal(w.units, f->units);
        assert_int_equal(w.outputs, f->outputs);
        for (size_t l = 0; l < 3; l++)
            assert_int_equal(w.layer[l], f->layer[l]);
        assert_int_equal(count(w.synapse, w.units * w.units, false), f->synapses);
        assert_int_equal(count(w.synapse, w.units * w.units, true), f->positive);
        assert_int_equal(count(w.sensory, w.inputs * w.units, false), f->sensory);
        assert_int_equal(count(w.sensory, w.inputs * w.units, true), f->sensory_positive);
        CHECK_OK(em_wiring_write(&w, &again));
        assert_string_equal(again.data, text.data);
        em_buf_deinit(&text);
        em_buf_deinit(&again);
        em_arena_deinit(&arena);
    }
}

// Ember draws other synapses than numpy, by the same rules.
static void drawn_wirings_follow_the_rules(void **state)
{
    (void)state;
    for (size_t i = 0; i < FIXTURES; i++) {
        const struct fixture *f = &fixtures[i];
        for (uint64_t seed = 0; seed < 5; seed++) {
            struct em_arena arena = {0};
            struct em_wiring w, same;
            const struct em_wiring_request r = {f->specification, f->inputs, 8, 4, seed};
            CHECK_OK(em_wiring_make(&r, &arena, &w));
            CHECK_OK(em_wiring_make(&r, &arena, &same));
            assert_memory_equal(w.synapse, same.synapse, w.units * w.units);
            for (size_t l = 0; l < 3; l++)
                assert_int_equal(w.layer[l], f->layer[l]);
            // Each sense has its fanout, if every inter neuron was reached then no more.
            assert_true(count(w.sensory, w.inputs * w.units, false) >= f->sensory / 2);
            for (size_t l = 0; l < w.layers && w.layers == 3; l++) { // everybody is reached
                const size_t first = em_wiring_first(&w, l),
                             from = l ? em_wiring_first(&w, l - 1) : 0,
                             sources = l ? w.layer[l - 1] : w.inputs;
                for (size_t d = 0; d < w.layer[l]; d++) {
                    size_t reached = 0;
                    for (size_t s = 0; s < sources; s++)
                        reached +=
                            (l ? w.synapse : w.sensory)[(from + s) * w.units + first + d] != 0;
                    assert_true(reached > 0);
                }
            }
            em_arena_deinit(&arena);
        }
    }
}

// What docs/wirings.md shows between its fences is read as it says there.
static void the_documented_wiring_is_read(void **state)
{
    (void)state;
    struct em_arena arena = {0};
    struct em_wiring w;
    struct em_buf page = {0};
    CHECK_OK(em_read_file(EMBER_SOURCE_DIR "/docs/wirings.md", 1 << 20, &page));
    char *text = strstr(page.data, "```\nember-wiring") + 4;
    *strstr(text, "```") = '\0';
    CHECK_OK(em_wiring_make(&(struct em_wiring_request){.specification = text, .inputs = 2}, &arena,
                            &w));
    assert_int_equal(w.units, 5);
    assert_int_equal(w.layers, 3);
    assert_int_equal(w.layer[2], w.outputs);
    assert_int_equal(w.sensory[0 * 5 + 3], 1);
    assert_int_equal(w.sensory[0 * 5 + 4], -1);
    assert_int_equal(w.synapse[4 * 5 + 1], -1);
    assert_int_equal(w.synapse[3 * 5 + 2], 0);
    em_arena_deinit(&arena);
    em_buf_deinit(&page);
}

static void other_wirings_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "auto:5,3",
        "auto:28",
        "auto:28,4,0.05",
        "ncp:4,4,2,5,2,2,2",
        "random:1",
        "layers:3,0",
        "ring",
        "ember-wiring 2\ninputs 1\nunits 1\noutputs 1",
        "ember-wiring 1 inputs 1 units 2 outputs 3",
        "ember-wiring 1 inputs 1 units 2 outputs 1 layers 1 2",
        "ember-wiring 1 inputs 1 units 2 outputs 1 synapses 0>2+",
        "ember-wiring 1 inputs 1 units 2 outputs 1 synapses 0>1",
        "ember-wiring 1 inputs 1 units 99999999999999999999 outputs 1",
        "ember-wiring 1",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct em_arena arena = {0};
        struct em_wiring w;
        const ember_status status =
            em_wiring_make(&(struct em_wiring_request){bad[i], 1, 4, 2, 1}, &arena, &w);
        if (status != EMBER_E_CONFIG && status != EMBER_E_FORMAT)
            fail_msg("\"%s\" gave %d", bad[i], (int)status);
        em_arena_deinit(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cfc_of_the_golden_vectors),
        cmocka_unit_test(gates_choose_between_the_heads),
        cmocka_unit_test(ltc_of_the_golden_vectors),
        cmocka_unit_test(the_solver_converges_in_first_order),
        cmocka_unit_test(many_unfolds_are_many_calls_of_one),
        cmocka_unit_test(potentials_stay_between_their_bounds),
        cmocka_unit_test(a_missing_synapse_says_nothing),
        cmocka_unit_test(times_have_to_be_positive),
        cmocka_unit_test(wirings_of_ncps_are_read),
        cmocka_unit_test(drawn_wirings_follow_the_rules),
        cmocka_unit_test(the_documented_wiring_is_read),
        cmocka_unit_test(other_wirings_are_refused),
    };
    return cmocka_run_group_tests_name("nn/liquid", tests, NULL, NULL);
}
