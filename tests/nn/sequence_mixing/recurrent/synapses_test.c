// LTC's derivatives along synapses: where one is missing, nothing comes back through it.
#include <ember/ops.h>
#include <math.h>
#include <string.h>

#include "ops/program.h"
#include "support/check.h"

enum { I = 2, U = 3, T = 4, MOST = U * U };
enum {
    GLEAK,
    VLEAK,
    CM,
    SIGMA,
    MU,
    W,
    EREV,
    MASK,
    SENSORY_SIGMA,
    SENSORY_MU,
    SENSORY_W,
    SENSORY_EREV,
    SENSORY_MASK,
    TENSORS
};

// The gradients of the squares of neuron 0's potentials over T tokens.
struct cell {
    ember_tensor t[TENSORS], grad[TENSORS];
    float value[TENSORS][MOST], gradient[TENSORS][MOST];
};

static void open(struct cell *c)
{
    *c = (struct cell){0};
    for (unsigned k = 0; k < TENSORS; k++) {
        const size_t dim[] = {k < SIGMA ? U : k < SENSORY_SIGMA ? U : I, U};
        const unsigned ndim = k < SIGMA ? 1 : 2;
        const bool mask = k == MASK || k == SENSORY_MASK;
        CHECK_OK(em_tensor_init(&c->t[k], EMBER_F32, dim, ndim, c->value[k]));
        CHECK_OK(em_tensor_init(&c->grad[k], EMBER_F32, dim, ndim, c->gradient[k]));
        for (size_t i = 0; i < MOST; i++)
            c->value[k][i] = mask ? 1 : (float)(0.5 * sin(0.37 * (double)(i + 1) + 1.3 * k));
        if (!mask) c->t[k].grad = &c->grad[k];
    }
}

static void differentiate(struct cell *c, enum em_backend backend)
{
    struct em_program *p;
    ember_tensor *x, *y, *loss, *t = c->t;
    float inputs[T * I];
    const size_t offset[] = {0, T};
    fill_random(inputs, T * I, 4);
    memset(c->gradient, 0, sizeof c->gradient);
    const ember_ltc_parameters parameters = {.gleak = &t[GLEAK],
                                             .vleak = &t[VLEAK],
                                             .cm = &t[CM],
                                             .sigma = &t[SIGMA],
                                             .mu = &t[MU],
                                             .w = &t[W],
                                             .erev = &t[EREV],
                                             .mask = &t[MASK],
                                             .sensory = {&t[SENSORY_SIGMA], &t[SENSORY_MU],
                                                         &t[SENSORY_W], &t[SENSORY_EREV],
                                                         &t[SENSORY_MASK]}};
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .backend = backend, .max_tokens = T, .max_sequences = 1, .gradients = true},
        &p));
    CHECK_OK(ember_inputs(em_program_flow(p), I, &x));
    CHECK_OK(
        ember_ltc(em_program_flow(p), x, &parameters,
                  &(ember_ltc_options){
                      .unfolds = 2, .outputs = 1, .epsilon = 1e-8f, .implicit_constraints = true},
                  &y));
    CHECK_OK(ember_mean_square(em_program_flow(p), y, &loss));
    em_program_loss(p, loss);
    CHECK_OK(em_program_allocate(p));
    const ember_batch batch = {.n_tokens = T, .n_sequences = 1, .offset = offset, .inputs = inputs};
    CHECK_OK(em_program_forward(
        p, &(struct em_run){.batch = &batch, .gradients = true, .loss_scale = 1}));
    CHECK_OK(em_program_backward(p));
    em_program_destroy(p);
}

static void a_missing_synapse_gets_no_gradient(void **state)
{
    (void)state;
    static const unsigned of_synapses[] = {SIGMA, MU, W, EREV};
    struct cell c;
    open(&c);
    c.value[MASK][2 * U + 0] = 0;
    c.value[SENSORY_MASK][1 * U + 2] = 0;
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        differentiate(&c, (enum em_backend)backend);
        for (size_t k = 0; k < 4; k++) {
            for (size_t i = 0; i < U * U; i++)
                assert_true((c.gradient[of_synapses[k]][i] == 0) == (i == 2 * U + 0));
            for (size_t i = 0; i < I * U; i++)
                assert_true((c.gradient[of_synapses[k] + SENSORY_SIGMA - SIGMA][i] == 0) ==
                            (i == 1 * U + 2));
        }
    }
}

// Neuron 1 speaks to nobody else: what moves it does not move neuron 0, at any later token.
static void nothing_comes_back_from_a_neuron_without_synapses(void **state)
{
    (void)state;
    static const unsigned into[] = {SIGMA, MU, W, EREV};
    struct cell c;
    open(&c);
    for (int silent = 0; silent < 2; silent++) {
        for (size_t to = 0; to < U; to += 2)
            c.value[MASK][1 * U + to] = silent ? 0 : 1;
        for (int backend = 0; backend < EM_BACKENDS; backend++) {
            differentiate(&c, (enum em_backend)backend);
            for (unsigned k = GLEAK; k <= CM; k++)
                assert_true((c.gradient[k][1] == 0) == silent);
            for (size_t k = 0; k < 4; k++)
                for (size_t from = 0; from < U; from++) {
                    assert_true((c.gradient[into[k]][from * U + 1] == 0) == silent);
                    if (from < I)
                        assert_true((c.gradient[into[k] + SENSORY_SIGMA - SIGMA][from * U + 1] ==
                                     0) == silent);
                }
            assert_true(c.gradient[W][2 * U + 0] != 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_synapse_gets_no_gradient),
        cmocka_unit_test(nothing_comes_back_from_a_neuron_without_synapses),
    };
    return cmocka_run_group_tests_name("nn/recurrent/synapses", tests, NULL, NULL);
}
