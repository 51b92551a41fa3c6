// Losses on routing, against differences of their values: the logits are a parameter, the main loss
// counts for nothing, and what reaches the parameter is the router's loss alone.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/op_check.h"
#include "support/op_fixture.h"

enum { T = 14, E = 5, K = 2 };

struct lab {
    struct em_program *program;
    ember_tensor logits, dlogits, noise, dnoise;
    float data[2][T * E], grad[2][T * E];
    ember_tensor *value;
    float coefficient;
};

enum which { IMPORTANCE, SEQUENCE, INFORMATION, LOAD, LOSSES };

static ember_status record_loss(struct lab *l, enum which which, ember_score score)
{
    static const ember_router_loss_kind kind[] = {EMBER_LOSS_IMPORTANCE, EMBER_LOSS_SEQUENCE,
                                                  EMBER_LOSS_INFORMATION};
    ember_flow *flow = em_program_flow(l->program);
    ember_tensor *h, *s, *loss;
    ember_routing routing = {.n_experts = E};
    EM_TRY(fixture_source(flow, &l->logits, NULL, &h));
    EM_TRY(fixture_source(flow, &l->noise, NULL, &s));
    if (which == LOAD) EM_TRY(ember_noisy_logits(flow, h, s, K, l->coefficient, &h, &l->value));
    EM_TRY(
        ember_route_topk(flow, h, NULL, &(ember_topk_options){.k = K, .score = score}, &routing));
    if (which != LOAD)
        EM_TRY(ember_router_loss(flow, kind[which], h, score, l->coefficient, &routing, &l->value));
    EM_TRY(ember_mean_square(flow, routing.weights, &loss));
    em_program_loss(l->program, loss);
    return EMBER_OK;
}

static void open_lab(struct lab *l, enum em_backend backend, enum which which, ember_score score,
                     uint64_t seed)
{
    *l = (struct lab){.coefficient = 0.7f};
    fill_random(l->data[0], T * E, seed);
    fill_random(l->data[1], T * E, seed + 1);
    for (size_t i = 0; i < T * E; i++)
        l->data[0][i] = 2 * l->data[0][i] + (i % E == 1 ? 0.5f : 0);
    for (int i = 0; i < 2; i++) {
        ember_tensor *t = i ? &l->noise : &l->logits, *g = i ? &l->dnoise : &l->dlogits;
        CHECK_OK(em_tensor_init(t, EMBER_F32, (size_t[]){T, E}, 2, l->data[i]));
        CHECK_OK(em_tensor_init(g, EMBER_F32, (size_t[]){T, E}, 2, l->grad[i]));
        t->grad = g;
    }
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .backend = backend, .max_tokens = T, .max_sequences = 3, .gradients = true},
        &l->program));
    CHECK_OK(record_loss(l, which, score));
    CHECK_OK(em_program_allocate(l->program));
}

static double run_lab(struct lab *l, bool gradients)
{
    const size_t offset[] = {0, 4, 5, T};
    CHECK_OK(em_program_forward(
        l->program,
        &(struct em_run){.batch = &(ember_batch){.n_tokens = T, .n_sequences = 3, .offset = offset},
                         .training = true,
                         .gradients = gradients,
                         .aux_scale = 0.5,
                         .seed = 3}));
    const double value = (double)em_f32(l->value)[0];
    if (gradients) CHECK_OK(em_program_backward(l->program));
    return value;
}

static void check_loss(enum em_backend backend, enum which which, ember_score score, uint64_t seed)
{
    struct lab *l = calloc(1, sizeof *l);
    open_lab(l, backend, which, score, seed);
    run_lab(l, true);
    double largest = 0;
    for (size_t i = 0; i < T * E; i++)
        largest = fmax(largest, fabs((double)l->grad[0][i]));
    assert_true(largest > 1e-5);
    for (int p = 0; p < (which == LOAD ? 2 : 1); p++)
        for (size_t i = 0; i < T * E; i++) {
            // A step may change who is chosen: the smaller of two steps then agrees.
            double best = INFINITY, found = 0;
            for (float step = 8e-3f; step > 1e-3f; step /= 4) {
                float *x = &l->data[p][i];
                const float kept = *x;
                *x = kept + step;
                const double up = run_lab(l, false), high = (double)*x;
                *x = kept - step;
                const double down = run_lab(l, false), low = (double)*x;
                *x = kept;
                const double slope = 0.5 * 0.7 * (up - down) / (high - low),
                             off = fabs(slope - (double)l->grad[p][i]);
                if (off < best) {
                    best = off;
                    found = slope;
                }
            }
            if (!(best <= 0.02 * largest + 2e-4))
                fail_msg("loss %d, score %d, element %zu: %g, by differences %g", (int)which,
                         (int)score, i, (double)l->grad[p][i], found);
        }
    em_program_destroy(l->program);
    free(l);
}

static void losses_have_their_gradients(void **state)
{
    (void)state;
    for (int which = 0; which < LOSSES; which++)
        for (int score = EMBER_SCORE_SOFTMAX_SELECTED; score <= EMBER_SCORE_SQRT_SOFTPLUS; score++)
            for (int backend = 0; backend < EM_BACKENDS; backend++)
                check_loss((enum em_backend)backend, (enum which)which, (ember_score)score,
                           20 + (uint64_t)score);
}

// Uniform scores: sequences are balanced as far as scores go, and tokens say nothing by themselves.
static void values_by_hand(void **state)
{
    (void)state;
    struct lab *l = calloc(1, sizeof *l);
    for (int which = SEQUENCE; which <= INFORMATION; which++) {
        open_lab(l, EM_CPU, (enum which)which, EMBER_SCORE_SOFTMAX_ALL, 1);
        memset(l->data, 0, sizeof l->data);
        CHECK_NEAR(run_lab(l, false), which == SEQUENCE ? 1 : 0, 1e-6, "uniform");
        // Each token is sure: of another expert in turn the batch's entropy is nearly log 5.
        for (size_t t = 0; t < T; t++)
            l->data[0][t * E + t % E] = 40;
        if (which == INFORMATION) {
            double entropy = 0;
            for (size_t e = 0; e < E; e++) {
                const double share = (e < 4 ? 3.0 : 2.0) / T;
                entropy += share * log(share);
            }
            CHECK_NEAR(run_lab(l, false), entropy, 1e-5, "sure tokens");
        }
        em_program_destroy(l->program);
    }
    free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_have_their_gradients),
        cmocka_unit_test(values_by_hand),
    };
    return OP_RUN_TESTS("router_loss", tests);
}
