#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/moe_plan.h"
#include "support/op_check.h"

enum { LOGITS, BIAS };

static ember_status route(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                          ember_tensor **out)
{
    ember_routing routing = {.n_experts = in[LOGITS]->dim[1]};
    EM_TRY(ember_route_topk(flow, in[LOGITS], c->in[BIAS].ndim ? in[BIAS] : NULL, c->context,
                            &routing));
    out[0] = routing.weights;
    out[1] = routing.indices;
    return EMBER_OK;
}

static void every_score_with_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 101;
    for (size_t round = 0; round < op_rounds(18); round++) {
        const size_t E = op_size(&sizes, 12);
        const ember_topk_options options = {.k = round % 9 == 8 ? E : op_size(&sizes, E),
                                            .score = (ember_score)(round % 4),
                                            .renormalise = round / 3 % 2,
                                            .eps = round % 4 ? 0 : 0.25f,
                                            .scale = round % 5 ? 0 : 2.5f,
                                            .top_p = round % 6 == 5 ? 0.6f : 0};
        struct op_case c = {.name = "route_topk",
                            .record = route,
                            .context = &options,
                            .rows = op_size(&sizes, 20),
                            .in = {{OP_ROWS, {E}, 1, .apart = 0.15f}}};
        if (round & 1) { // one that only breaks ties, or decides alone
            const bool slight = options.score == EMBER_SCORE_SIGMOID && round & 2;
            c.in[BIAS] = (struct op_input){.kind = OP_PARAMETER,
                                           .dim = {E},
                                           .ndim = 1,
                                           .constant = true,
                                           .apart = slight ? 1e-4f : 10};
        }
        check_op(&c, round);
    }
}

static void many_tokens_in_parallel(void **state)
{
    (void)state;
    for (int score = EMBER_SCORE_SOFTMAX_SELECTED; score <= EMBER_SCORE_SQRT_SOFTPLUS; score++)
        check_op(&(struct op_case){.name = "route_topk",
                                   .record = route,
                                   .context = &(ember_topk_options){.k = 7,
                                                                    .score = (ember_score)score,
                                                                    .renormalise = true,
                                                                    .eps = 1e-6f},
                                   .rows = 700,
                                   .large = true,
                                   .in = {{OP_ROWS, {37}, 1, .apart = 0.2f}}},
                 1);
}

// ---- by hand: the batch's inputs times an identity are the logits ----

enum { MOST = 64 };

struct router {
    struct em_program *program;
    ember_routing routing;
    const struct em_router_record *record;
    size_t T, E;
    ember_tensor identity, zero, dzero, bias;
    float identity_data[MOST * MOST], zero_data[MOST * MOST], dzero_data[MOST * MOST],
        bias_data[MOST];
};

// The loss is the mean of the weights' squares; the logits' gradient is that of a parameter [T, E]
// which is added to them. The caller frees it.
static struct router *open_router(enum em_backend backend, size_t T, size_t E, const float *bias,
                                  const ember_topk_options *options)
{
    struct router *r = calloc(1, sizeof *r);
    assert_non_null(r);
    assert_true(T <= MOST && E <= MOST);
    r->T = T;
    r->E = E;
    for (size_t e = 0; e < E; e++)
        r->identity_data[e * E + e] = 1;
    CHECK_OK(em_tensor_init(&r->identity, EMBER_F32, (size_t[]){E, E}, 2, r->identity_data));
    CHECK_OK(em_tensor_init(&r->zero, EMBER_F32, (size_t[]){E}, 1, r->zero_data));
    CHECK_OK(em_tensor_init(&r->bias, EMBER_F32, (size_t[]){E}, 1, r->bias_data));
    if (bias) memcpy(r->bias_data, bias, E * sizeof *bias);
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .backend = backend, .max_tokens = T, .max_sequences = 1, .gradients = true},
        &r->program));
    ember_flow *flow = em_program_flow(r->program);
    ember_tensor *x, *logits, *loss;
    r->dzero = r->zero;
    r->dzero.data = r->dzero_data;
    r->zero.grad = &r->dzero;
    CHECK_OK(ember_inputs(flow, E, &x));
    CHECK_OK(ember_linear_f32(flow, x, &r->identity, &r->zero, &logits));
    r->routing.n_experts = E;
    CHECK_OK(ember_route_topk(flow, logits, bias ? &r->bias : NULL, options, &r->routing));
    CHECK_OK(ember_mean_square(flow, r->routing.weights, &loss));
    em_program_loss(r->program, loss);
    CHECK_OK(em_program_allocate(r->program));
    assert_int_equal(em_program_routers(r->program, &r->record), 1);
    return r;
}

static void run_router(struct router *r, const float *logits, double aux_scale, bool gradients)
{
    CHECK_OK(em_program_forward(
        r->program, &(struct em_run){.batch = &(ember_batch){.n_tokens = r->T,
                                                             .n_sequences = 1,
                                                             .offset = (size_t[]){0, r->T},
                                                             .inputs = logits},
                                     .gradients = gradients,
                                     .loss_scale = 1 / (double)r->T,
                                     .aux_scale = aux_scale}));
    memset(r->dzero_data, 0, sizeof r->dzero_data);
    if (gradients) CHECK_OK(em_program_backward(r->program));
}

static void close_router(struct router *r)
{
    em_program_destroy(r->program);
    free(r);
}

struct by_hand {
    const char *name;
    ember_topk_options options;
    size_t E;
    float logits[6], bias[6];
    bool biased;
    int32_t index[6];
    float weight[6], gradient[6];
};

#define LN2 0.69314718056f
#define LN3 1.09861228867f

// Softmax of {0, ln 2, ln 3, ln 4} is {1, 2, 3, 4} / 10; sigmoid of {0, ln 3, -ln 3, ln 9} is
// {.5, .75, .25, .9}. The loss is mean g^2, so dL/dg = 2 g / k.
static const struct by_hand cases[] = {
    {.name = "softmax of the selected: g (a - sum g a)",
     .options = {.k = 2, .score = EMBER_SCORE_SOFTMAX_SELECTED},
     .E = 4,
     .logits = {0, LN2, LN3, 2 * LN2},
     .index = {3, 2},
     .weight = {4.0f / 7, 3.0f / 7},
     .gradient = {0, 0, -12.0f / 343, 12.0f / 343}},
    {.name = "softmax of all: g a - p sum g a",
     .options = {.k = 2, .score = EMBER_SCORE_SOFTMAX_ALL},
     .E = 4,
     .logits = {0, LN2, LN3, 2 * LN2},
     .index = {3, 2},
     .weight = {0.4f, 0.3f},
     .gradient = {-0.025f, -0.05f, 0.015f, 0.06f}},
    {.name = "softmax of all, renormalised: as of the selected",
     .options = {.k = 2, .score = EMBER_SCORE_SOFTMAX_ALL, .renormalise = true},
     .E = 4,
     .logits = {0, LN2, LN3, 2 * LN2},
     .index = {3, 2},
     .weight = {4.0f / 7, 3.0f / 7},
     .gradient = {0, 0, -12.0f / 343, 12.0f / 343}},
    {.name = "softmax of all, renormalised, scaled",
     .options = {.k = 2, .score = EMBER_SCORE_SOFTMAX_ALL, .renormalise = true, .scale = 7},
     .E = 4,
     .logits = {0, LN2, LN3, 2 * LN2},
     .index = {3, 2},
     .weight = {4, 3},
     .gradient = {0, 0, -49 * 12.0f / 343, 49 * 12.0f / 343}},
    {.name = "sigmoid: a s (1 - s)",
     .options = {.k = 2, .score = EMBER_SCORE_SIGMOID},
     .E = 4,
     .logits = {0, LN3, -LN3, 2 * LN3},
     .index = {3, 1},
     .weight = {0.9f, 0.75f},
     .gradient = {0, 0.75f * 0.75f * 0.25f, 0, 0.9f * 0.9f * 0.1f}},
    {.name = "sigmoid, renormalised: s (1 - s) (a - sum q a) / Z, Z = 2",
     .options = {.k = 2, .score = EMBER_SCORE_SIGMOID, .renormalise = true, .eps = 0.35f},
     .E = 4,
     .logits = {0, LN3, -LN3, 2 * LN3},
     .index = {3, 1},
     .weight = {0.45f, 0.375f},
     // q = g; sum q a = .2025 + .140625 = .343125
     .gradient = {0, 0.1875f * (0.375f - 0.343125f) / 2, 0, 0.09f * (0.45f - 0.343125f) / 2}},
    {.name = "a bias chooses, and is not in the weights",
     .options = {.k = 2, .score = EMBER_SCORE_SIGMOID},
     .E = 4,
     .logits = {0, LN3, -LN3, 2 * LN3},
     .bias = {0, 0, 1, 0},
     .biased = true,
     .index = {2, 3},
     .weight = {0.25f, 0.9f},
     .gradient = {0, 0, 0.25f * 0.25f * 0.75f, 0.9f * 0.9f * 0.1f}},
    {.name = "a bias on softmax scores",
     .options = {.k = 2, .score = EMBER_SCORE_SOFTMAX_ALL},
     .E = 4,
     .logits = {0, LN2, LN3, 2 * LN2},
     .bias = {1, 0, 0, -0.15f},
     .biased = true,
     .index = {0, 2}, // 1.1, .2, .3, .25
     .weight = {0.1f, 0.3f},
     .gradient = {0.01f - 0.1f * 0.1f, -0.2f * 0.1f, 0.09f - 0.3f * 0.1f, -0.4f * 0.1f}},
    {.name = "ties go to the lowest index",
     .options = {.k = 3, .score = EMBER_SCORE_SOFTMAX_SELECTED},
     .E = 5,
     .logits = {1, 1, 1, 1, 1},
     .index = {0, 1, 2},
     .weight = {1.0f / 3, 1.0f / 3, 1.0f / 3}},
    {.name = "ties behind a winner",
     .options = {.k = 3, .score = EMBER_SCORE_SOFTMAX_SELECTED},
     .E = 6,
     .logits = {-1, 0, 0, LN2, 0, 0},
     .index = {3, 1, 2},
     .weight = {0.5f, 0.25f, 0.25f},
     // a = 2 g / 3: sum g a = .25
     .gradient = {0, 0.25f * (0.5f / 3 - 0.25f), 0.25f * (0.5f / 3 - 0.25f),
                  0.5f * (1.0f / 3 - 0.25f), 0, 0}},
    {.name = "ties of score and bias",
     .options = {.k = 2, .score = EMBER_SCORE_SIGMOID},
     .E = 5,
     .logits = {0, 0, 0, 0, 0},
     .bias = {0, 0.5f, 0, 0.5f, 0.5f},
     .biased = true,
     .index = {1, 3},
     .weight = {0.5f, 0.5f},
     .gradient = {0, 0.125f, 0, 0.125f, 0}},
    {.name = "all experts",
     .options = {.k = 3, .score = EMBER_SCORE_SOFTMAX_ALL},
     .E = 3,
     .logits = {LN2, 0, 0},
     .index = {0, 1, 2},
     .weight = {0.5f, 0.25f, 0.25f},
     // a = 2 g / 3: sum g a = .25
     .gradient = {0.5f * (1.0f / 3 - 0.25f), 0.25f * (0.5f / 3 - 0.25f),
                  0.25f * (0.5f / 3 - 0.25f)}},
    {.name = "one expert",
     .options = {.k = 1, .score = EMBER_SCORE_SIGMOID},
     .E = 1,
     .logits = {LN3},
     .index = {0},
     .weight = {0.75f},
     .gradient = {2 * 0.75f * 0.75f * 0.25f}},
    {.name = "one expert, renormalised: no gradient",
     .options = {.k = 1, .score = EMBER_SCORE_SOFTMAX_SELECTED},
     .E = 1,
     .logits = {5},
     .index = {0},
     .weight = {1}},
    {.name = "logits far apart keep their order",
     .options = {.k = 2, .score = EMBER_SCORE_SOFTMAX_SELECTED},
     .E = 4,
     .logits = {-900, 900, -902, -901},
     .index = {1, 0},
     .weight = {1, 0}},
    {.name = "saturated sigmoids keep the order of their logits",
     .options = {.k = 2, .score = EMBER_SCORE_SIGMOID, .renormalise = true},
     .E = 4,
     .logits = {40, 43, 41, 42},
     .index = {1, 3},
     .weight = {0.5f, 0.5f}},
    {.name = "the better group, by both of its experts",
     .options =
         {.k = 2, .score = EMBER_SCORE_SIGMOID, .groups = 2, .keep_groups = 1, .group_top = 2},
     .E = 4,
     .logits = {0, LN3, -LN3, 2 * LN3}, // .5 + .75 against .25 + .9
     .index = {1, 0},
     .weight = {0.75f, 0.5f},
     .gradient = {0.5f * 0.25f, 0.75f * 0.1875f}},
    {.name = "the better group, by its best expert",
     .options =
         {.k = 2, .score = EMBER_SCORE_SIGMOID, .groups = 2, .keep_groups = 1, .group_top = 1},
     .E = 4,
     .logits = {0, LN3, -LN3, 2 * LN3},
     .index = {3, 2},
     .weight = {0.9f, 0.25f},
     .gradient = {0, 0, 0.25f * 0.1875f, 0.9f * 0.09f}},
    {.name = "all groups kept: as without groups",
     .options =
         {.k = 2, .score = EMBER_SCORE_SIGMOID, .groups = 2, .keep_groups = 2, .group_top = 1},
     .E = 4,
     .logits = {0, LN3, -LN3, 2 * LN3},
     .index = {3, 1},
     .weight = {0.9f, 0.75f},
     .gradient = {0, 0.75f * 0.75f * 0.25f, 0, 0.9f * 0.9f * 0.1f}},
    {.name = "as many experts as make 0.65 of the scores",
     .options = {.k = 4, .score = EMBER_SCORE_SOFTMAX_ALL, .top_p = 0.65f},
     .E = 4,
     .logits = {0, LN2, LN3, 2 * LN2},
     .index = {3, 2, -1, -1},
     .weight = {0.4f, 0.3f, 0, 0},
     // a = g / 2: sum g a = .125
     .gradient = {-0.0125f, -0.025f, 0.3f * (0.15f - 0.125f), 0.4f * (0.2f - 0.125f)}},
    {.name = "the same, over their sum",
     .options = {.k = 4, .score = EMBER_SCORE_SOFTMAX_SELECTED, .top_p = 0.65f},
     .E = 4,
     .logits = {0, LN2, LN3, 2 * LN2},
     .index = {3, 2, -1, -1},
     .weight = {4.0f / 7, 3.0f / 7, 0, 0},
     .gradient = {0, 0, -6.0f / 343, 6.0f / 343}},
    {.name = "one that is enough by itself",
     .options = {.k = 2, .score = EMBER_SCORE_SOFTMAX_ALL, .top_p = 1e-3f},
     .E = 2,
     .logits = {0, LN3},
     .index = {1, -1},
     .weight = {0.75f, 0},
     .gradient = {-0.25f * 0.75f * 0.75f, 0.75f * (0.75f - 0.75f * 0.75f)}},
    {.name = "the root of softplus",
     .options = {.k = 1, .score = EMBER_SCORE_SQRT_SOFTPLUS},
     .E = 1,
     .logits = {0},
     .index = {0},
     .weight = {0.83255461f}, // sqrt(ln 2)
     // 2 s ds/dh = sigmoid(h)
     .gradient = {0.5f}},
    {.name = "vanished scores have no weight, and no NaN",
     .options = {.k = 2, .score = EMBER_SCORE_SIGMOID, .renormalise = true},
     .E = 3,
     .logits = {-900, -800, -850},
     .index = {1, 2},
     .weight = {0, 0}},
};

static void values_and_gradients_by_hand(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int backend = 0; backend < EM_BACKENDS; backend++) {
            const struct by_hand *c = &cases[i];
            struct router *r = open_router((enum em_backend)backend, 1, c->E,
                                           c->biased ? c->bias : NULL, &c->options);
            run_router(r, c->logits, 0, true);
            for (size_t n = 0; n < c->options.k; n++) {
                if (em_i32(r->routing.indices)[n] != c->index[n])
                    fail_msg("%s: choice %zu is %d, not %d", c->name, n,
                             em_i32(r->routing.indices)[n], c->index[n]);
                CHECK_NEAR(em_f32(r->routing.weights)[n], c->weight[n], 2e-6, "%s: choice %zu",
                           c->name, n);
            }
            for (size_t e = 0; e < c->E; e++)
                CHECK_NEAR(r->dzero_data[e], c->gradient[e], 2e-6, "%s: logit %zu", c->name, e);
            close_router(r);
        }
}

// From three experts to one in four updates, and back to the config's k outside of training.
static void k_warms_up(void **state)
{
    (void)state;
    static const size_t used[] = {3, 3, 2, 2, 1, 1};
    static const float logits[] = {0, LN2, LN3, 2 * LN2};
    struct router *r =
        open_router(EM_CPU, 1, 4, NULL,
                    &(ember_topk_options){
                        .k = 1, .score = EMBER_SCORE_SOFTMAX_ALL, .k_first = 3, .k_steps = 4});
    assert_int_equal(r->routing.k, 3);
    for (size_t update = 0; update <= 6; update++) {
        const bool training = update < 6;
        CHECK_OK(em_program_forward(
            r->program, &(struct em_run){.batch = &(ember_batch){.n_tokens = 1,
                                                                 .n_sequences = 1,
                                                                 .offset = (size_t[]){0, 1},
                                                                 .inputs = logits},
                                         .training = training,
                                         .update = training ? update : 0}));
        size_t n = 0;
        while (n < 3 && em_i32(r->routing.indices)[n] >= 0)
            n++;
        assert_int_equal(n, training ? used[update] : 1);
        assert_int_equal(em_plan_offset(r->routing.plan)[4], n);
    }
    close_router(r);
}

// ---- the losses ----

// Uniform scores: both entropies are whole, and the balance loss is at its 1, whoever is chosen.
static void statistics_by_hand(void **state)
{
    (void)state;
    for (int backend = 0; backend < EM_BACKENDS; backend++)
        for (int score = EMBER_SCORE_SOFTMAX_SELECTED; score <= EMBER_SCORE_SQRT_SOFTPLUS;
             score++) {
            static const float logits[4 * 5] = {0};
            struct router *r = open_router(
                (enum em_backend)backend, 4, 5, NULL,
                &(ember_topk_options){.k = 2, .score = (ember_score)score, .bias_rate = 0.5f});
            run_router(r, logits, 0, false);
            const float *stats = em_f32(r->record->stats);
            CHECK_NEAR(stats[0], 1, 1e-6, "balance");
            CHECK_NEAR(stats[1], log(5) * log(5), 1e-6, "z");
            CHECK_NEAR(stats[2], 1, 1e-6, "entropy of a token");
            CHECK_NEAR(stats[3], 1, 1e-6, "entropy of the batch");
            assert_true(r->record->bias_rate == 0.5f);
            assert_ptr_equal(r->record->routing.plan, r->routing.plan);
            assert_int_equal(em_plan_offset(r->routing.plan)[1], 4); // all went to 0 and 1
            assert_int_equal(em_plan_offset(r->routing.plan)[2], 8);
            assert_int_equal(em_plan_offset(r->routing.plan)[5], 8);
            close_router(r);
        }
    // Two tokens that are sure, of different experts: no entropy each, that of two together.
    static const float sure[2 * 4] = {60, 0, 0, 0, /**/ 0, 60, 0, 0};
    struct router *r = open_router(EM_CPU, 2, 4, NULL,
                                   &(ember_topk_options){.k = 1, .score = EMBER_SCORE_SOFTMAX_ALL});
    run_router(r, sure, 0, false);
    CHECK_NEAR(em_f32(r->record->stats)[0], 4 * (0.5 * 0.5 + 0.5 * 0.5), 1e-6, "balance");
    CHECK_NEAR(em_f32(r->record->stats)[1], 3600, 1e-6, "z");
    CHECK_NEAR(em_f32(r->record->stats)[2], 0, 1e-6, "entropy of a token");
    CHECK_NEAR(em_f32(r->record->stats)[3], 0.5, 1e-6, "entropy of the batch");
    close_router(r);
}

// loss + aux_scale (aux_coefficient balance + z_coefficient z), as backward takes it.
static double total(struct router *r, const float *logits, const ember_topk_options *o,
                    double aux_scale)
{
    run_router(r, logits, 0, false);
    const float *stats = em_f32(r->record->stats), *g = em_f32(r->routing.weights);
    double squares = 0;
    for (size_t i = 0; i < r->T * o->k; i++)
        squares += (double)g[i] * (double)g[i];
    return squares / (double)(r->T * o->k) +
           aux_scale * ((double)o->aux_coefficient * (double)stats[0] +
                        (double)o->z_coefficient * (double)stats[1]);
}

// dzero is the sum over the tokens of the logits' gradients: all tokens' logit e move together.
static void losses_have_their_gradients(void **state)
{
    (void)state;
    enum { T = 12, E = 7 };
    float logits[T * E];
    fill_random(logits, T * E, 9);
    for (size_t i = 0; i < T * E; i++) // no near ties
        logits[i] =
            0.3f * (float)((i % E * 3 + i / E * 5 + i / E % 3 * (i % E)) % E) + 0.02f * logits[i];
    for (size_t i = 0; i < 24; i++) {
        const double aux_scale = i / 12 ? 0.125 : 2;
        const ember_topk_options options = {.k = 3,
                                            .score = (ember_score)(i % 4),
                                            .renormalise = i / 3 % 2,
                                            .aux_coefficient = i / 6 % 2 ? 0.75f : 0,
                                            .z_coefficient = i % 4 ? 0.5f : 0};
        for (int backend = 0; backend < EM_BACKENDS; backend++) {
            struct router *r = open_router((enum em_backend)backend, T, E, NULL, &options);
            run_router(r, logits, aux_scale, true);
            float found[E], moved[T * E];
            memcpy(found, r->dzero_data, sizeof found);
            for (size_t e = 0; e < E; e++) {
                static const double coefficient[] = {1, -8, 8, -1};
                static const float step[] = {-2, -1, 1, 2};
                const float h = 0x1p-5f;
                double sum = 0;
                for (size_t s = 0; s < 4; s++) {
                    memcpy(moved, logits, sizeof moved);
                    for (size_t t = 0; t < T; t++)
                        moved[t * E + e] += step[s] * h;
                    sum += coefficient[s] * total(r, moved, &options, aux_scale);
                }
                CHECK_NEAR(found[e], sum / (12 * (double)h), 1e-4,
                           "case %zu, logit %zu, backend %d", i, e, backend);
            }
            // No scale, no losses: what is left is the weights'.
            run_router(r, logits, 0, true);
            if (options.aux_coefficient == 0 && options.z_coefficient == 0)
                assert_memory_equal(found, r->dzero_data, sizeof found);
            else
                assert_memory_not_equal(found, r->dzero_data, sizeof found);
            close_router(r);
        }
    }
}

// d/dh_tj of the balance loss = (c E / T) p_tj (f_j - sum_i p_ti f_i), of z = (2 c / T) z_t p_tj.
static void loss_gradients_by_formula(void **state)
{
    (void)state;
    enum { T = 1, E = 4 };
    const double p[E] = {0.1, 0.2, 0.3, 0.4}, f[E] = {0, 0, 0.5, 0.5}, lse = log(10);
    static const float logits[E] = {0, LN2, LN3, 2 * LN2};
    const ember_topk_options options = {
        .k = 2, .score = EMBER_SCORE_SOFTMAX_SELECTED, .aux_coefficient = 3, .z_coefficient = 5};
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        struct router *r = open_router((enum em_backend)backend, T, E, NULL, &options);
        run_router(r, logits, 0.25, true);
        for (size_t e = 0; e < E; e++) {
            const double weights = e == 3 ? 12.0 / 343 : e == 2 ? -12.0 / 343 : 0;
            const double expected =
                weights + 0.25 * (3.0 * E / T * p[e] * (f[e] - 0.35) + 2 * 5.0 / T * lse * p[e]);
            CHECK_NEAR(r->dzero_data[e], expected, 2e-6, "logit %zu", e);
        }
        close_router(r);
    }
}

// ---- refusals ----

static void impossible_choices_are_refused(void **state)
{
    (void)state;
    struct op_case c = {
        .record = route, .context = &(ember_topk_options){.k = 4}, .in = {{OP_ROWS, {3}, 1}}};
    check_op_refused(&c, EMBER_E_SHAPE, "route_topk: 4 of the experts of [5, 3]");
    c.context = &(ember_topk_options){.k = 0};
    check_op_refused(&c, EMBER_E_SHAPE, "route_topk: 0 of the experts of [5, 3]");
    c.context = &(ember_topk_options){.k = 257};
    c.in[LOGITS].dim[0] = 300;
    check_op_refused(&c, EMBER_E_SHAPE, "route_topk: at most 256 experts a token, not 257");
    c.context = &(ember_topk_options){.k = 2};
    c.in[LOGITS].dim[0] = 3;
    c.in[BIAS] = (struct op_input){.kind = OP_PARAMETER, .dim = {4}, .ndim = 1};
    check_op_refused(&c, EMBER_E_SHAPE, "route_topk: bias has to be [3], not [4]");
    c.in[BIAS] = (struct op_input){.kind = OP_PARAMETER, .dim = {1, 3}, .ndim = 2};
    check_op_refused(&c, EMBER_E_SHAPE, "route_topk: bias has to be [3], not [1, 3]");
    c.in[BIAS].ndim = 0;
    c.context = &(ember_topk_options){.k = 2, .score = (ember_score)4};
    check_op_refused(&c, EMBER_E_RANGE, "route_topk: there is no score number 4");
    c.context = &(ember_topk_options){.k = 2, .groups = 2, .keep_groups = 1, .group_top = 1};
    check_op_refused(&c, EMBER_E_SHAPE, "route_topk: 2 of 3 experts in 1 of 2 groups");
    c.context = &(ember_topk_options){.k = 2};
    c.in[LOGITS] = (struct op_input){.kind = OP_ROWS, .dim = {3, 1}, .ndim = 2};
    check_op_refused(&c, EMBER_E_SHAPE, "of the experts of [5, 3, 1] cannot be chosen");
}

static ember_status other_count(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                ember_tensor **out)
{
    (void)out;
    ember_routing routing = {.n_experts = 4};
    return ember_route_topk(flow, in[LOGITS], NULL, c->context, &routing);
}

static void logits_for_other_experts_are_refused(void **state)
{
    (void)state;
    check_op_refused(&(struct op_case){.record = other_count,
                                       .context = &(ember_topk_options){.k = 1},
                                       .in = {{OP_ROWS, {3}, 1}}},
                     EMBER_E_SHAPE, "route_topk: 3 logits for 4 experts");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_score_with_gradients),
        cmocka_unit_test(many_tokens_in_parallel),
        cmocka_unit_test(values_and_gradients_by_hand),
        cmocka_unit_test(k_warms_up),
        cmocka_unit_test(statistics_by_hand),
        cmocka_unit_test(losses_have_their_gradients),
        cmocka_unit_test(loss_gradients_by_formula),
        cmocka_unit_test(impossible_choices_are_refused),
        cmocka_unit_test(logits_for_other_experts_are_refused),
    };
    return OP_RUN_TESTS("route_topk", tests);
}
