// Rotary positions: cpu against reference with gradients and through states; angles against those
// of transformers 5.23.0 (LlamaRotaryEmbedding, f32) for heads of 16.
#include "support/op_check.h"

#include <math.h>
#include <string.h>

static ember_status rope(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                         ember_tensor **out)
{
    return ember_rope(flow, in[0], c->context, &out[0]);
}

// Two layers share the table of angles.
static ember_status twice(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                          ember_tensor **out)
{
    EM_TRY(ember_rope(flow, in[0], c->context, &out[0]));
    return ember_rope(flow, out[0], c->context, &out[1]);
}

static void values_and_gradients(void **state)
{
    (void)state;
    uint64_t sizes = 21;
    for (size_t round = 0; round < op_rounds(12); round++) {
        const size_t half = op_size(&sizes, 20), rest = round % 3 ? 0 : op_size(&sizes, 9);
        const ember_rope_options options = {.theta = round & 1 ? 1e4 : 10,
                                            .rotary = rest ? 2 * half : 0,
                                            .active_pairs = round % 4 == 1 ? (half + 1) / 2 : 0,
                                            .interleaved = round & 2,
                                            .factor = round % 5 == 2 ? 3 : 0};
        const size_t heads = op_size(&sizes, 5);
        check_op(
            &(struct op_case){
                .name = "rope",
                .record = round % 6 == 5 ? twice : rope,
                .context = &options,
                .rows = op_size(&sizes, 40),
                .by_token = true,
                .sequences = op_size(&sizes, 4),
                .stateful = true,
                .in = {{round & 4 ? OP_COLUMNS : OP_ROWS, {heads, 2 * half + rest}, 2}}},
            round);
    }
}

static void many_rows_in_parallel(void **state)
{
    (void)state;
    check_op(&(struct op_case){.name = "rope",
                               .record = rope,
                               .context = &(ember_rope_options){.theta = 1e4},
                               .rows = 130,
                               .by_token = true,
                               .sequences = 5,
                               .large = true,
                               .in = {{OP_ROWS, {5, 36}, 2}}},
             1);
}

enum { K = 16, PLACES = 5 };
static const size_t place[PLACES] = {1, 3, 100, 4095, 131071};

// One sequence for each place, continued there by a state that says how far it is.
static void rotate_at_places(enum em_backend backend, const ember_rope_options *options,
                             const float *x, float *y)
{
    struct em_program *p;
    ember_tensor *in, *heads, *out;
    ember_state *state[PLACES];
    size_t offset[PLACES + 1];
    CHECK_OK(em_program_create(&(struct em_program_options){.backend = backend,
                                                            .max_tokens = PLACES,
                                                            .max_sequences = PLACES},
                               &p));
    CHECK_OK(ember_inputs(em_program_flow(p), K, &in));
    CHECK_OK(ember_reshape(em_program_flow(p), in, (size_t[]){1, K}, 2, &heads));
    CHECK_OK(ember_rope(em_program_flow(p), heads, options, &out));
    em_program_output(p, out);
    CHECK_OK(em_program_allocate(p));
    for (size_t i = 0; i <= PLACES; i++)
        offset[i] = i;
    for (size_t i = 0; i < PLACES; i++) {
        CHECK_OK(em_state_create(em_program_layout(p), &state[i]));
        state[i]->position = place[i];
    }
    CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &(ember_batch){.n_tokens = PLACES,
                                                                            .n_sequences = PLACES,
                                                                            .offset = offset,
                                                                            .inputs = x,
                                                                            .state_in = state}}));
    memcpy(y, out->data, PLACES * K * sizeof *y);
    for (size_t i = 0; i < PLACES; i++)
        em_state_destroy(state[i]);
    em_program_destroy(p);
}

// Cosines, then sines.
static const float usual[PLACES][K] = {
    {0.540302336f, 0.950415313f, 0.995004177f, 0.999500036f, 0.999949992f, 0.999994993f,
     0.999999523f, 0.99999994f, 0.841470957f, 0.310983598f, 0.0998334214f, 0.0316175073f,
     0.00999983307f, 0.00316227251f, 0.000999999931f, 0.000316227786f},
    {-0.989992499f, 0.582753658f, 0.955336511f, 0.995503366f, 0.999550045f, 0.999954998f,
     0.99999553f, 0.999999583f, 0.141120002f, 0.812648892f, 0.295520216f, 0.0947260931f,
     0.0299954992f, 0.00948669109f, 0.0029999956f, 0.000948683242f},
    {0.862318873f, 0.978682816f, -0.839071512f, -0.999786079f, 0.540302336f, 0.950415254f,
     0.995004177f, 0.999500036f, -0.506365657f, 0.205377579f, -0.54402113f, -0.0206838083f,
     0.841470957f, 0.310983628f, 0.0998334214f, 0.0316175073f},
    {-0.0659759939f, 0.815928221f, 0.459863335f, -0.771254778f, -0.994033098f, 0.927488983f,
     -0.578907907f, 0.272358716f, -0.997821212f, 0.578153193f, 0.8879897f, -0.636526585f,
     -0.109078795f, 0.373850524f, -0.815392911f, 0.962195814f},
    {-0.817983508f, -0.308497071f, 0.930127978f, -0.4815346f, -0.786407828f, 0.978586078f,
     0.640311718f, -0.821027815f, -0.575241685f, -0.951225281f, 0.367235571f, -0.876427054f,
     -0.61770767f, -0.205838144f, -0.768115163f, -0.570888221f},
};
static const float linear[PLACES][K] = {
    {0.968912423f, 0.996876597f, 0.999687493f, 0.999968767f, 0.999996901f, 0.999999702f, 1, 1,
     0.247403964f, 0.0789746121f, 0.0249973964f, 0.0079056127f, 0.00249999738f, 0.000790569407f,
     0.000250000012f, 7.90569466e-05f},
    {0.731688857f, 0.972006619f, 0.997188807f, 0.999718785f, 0.999971867f, 0.999997199f,
     0.999999702f, 1, 0.681638777f, 0.234953582f, 0.0749297068f, 0.023714859f, 0.00749992952f,
     0.00237170607f, 0.000749999948f, 0.00023717084f},
    {0.991202831f, -0.0516893305f, -0.801143587f, 0.703440666f, 0.968912423f, 0.996876597f,
     0.999687493f, 0.999968767f, -0.132351756f, 0.998663187f, 0.598472118f, 0.710753977f,
     0.247403964f, 0.0789746195f, 0.0249973964f, 0.0079056127f},
    {0.917437375f, -0.988147616f, -0.269851446f, 0.575243354f, -0.687524199f, -0.995415688f,
     0.520166814f, 0.948052883f, -0.397880167f, -0.153506503f, 0.96290195f, 0.817982316f,
     -0.72616148f, -0.0956428647f, 0.854064703f, 0.318112791f},
    {0.590899408f, 0.453868747f, -0.995584428f, 0.868662477f, 0.58017379f, -0.998657107f,
     0.21722734f, -0.591970325f, 0.806745231f, 0.891068578f, -0.093870379f, -0.495404392f,
     0.814492702f, 0.0518068261f, 0.976121068f, -0.805959761f},
};
static const float llama3[PLACES][K] = {
    {0.540302336f, 0.981255829f, 0.99929297f, 0.999973416f, 0.999999881f, 1, 1, 1, 0.841470957f,
     0.192709595f, 0.0375971682f, 0.00729260035f, 0.000524846022f, 3.42810235e-05f, 6.64786967e-06f,
     1.28917316e-06f},
    {-0.989992499f, 0.835492253f, 0.993642807f, 0.999760687f, 0.999998748f, 1, 1, 1, 0.141120002f,
     0.549502194f, 0.112578921f, 0.0218762495f, 0.00157453737f, 0.000102843071f, 1.9943609e-05f,
     3.86751935e-06f},
    {0.862318873f, 0.856306612f, -0.814453125f, 0.745663345f, 0.998623013f, 0.999994099f,
     0.999999762f, 1, -0.506365657f, 0.51646775f, -0.580229402f, 0.666322887f, 0.0524605103f,
     0.00342809572f, 0.000664786901f, 0.000128917309f},
    {-0.0659759939f, -0.758861721f, -0.998280644f, 0.0183331184f, -0.546725273f, 0.99016279f,
     0.999629498f, 0.999986053f, -0.997821212f, 0.651251793f, -0.0586152002f, -0.999831915f,
     0.837312043f, 0.13992016f, 0.0272196643f, 0.00527913962f},
    {-0.817983508f, -0.560530901f, -0.995121777f, 0.687491775f, 0.948304296f, -0.217391238f,
     0.643799543f, 0.985757947f, -0.575241685f, 0.828133523f, 0.0986541584f, 0.726192176f,
     -0.317362607f, -0.97608453f, 0.765194178f, 0.168170273f},
};
static const float proportional[PLACES][K] = {
    {0.540302336f, 0.98423022f, 0.999500036f, 0.999984205f, 1, 1, 1, 1, 0.841470957f, 0.176892191f,
     0.0316175073f, 0.00562338345f, 0, 0, 0, 0},
    {-0.989992499f, 0.861040652f, 0.995503366f, 0.999857724f, 1, 1, 1, 1, 0.141120002f, 0.5085361f,
     0.0947260931f, 0.0168694388f, 0, 0, 0, 0},
    {0.862318873f, 0.482961327f, -0.999786079f, 0.846009076f, 1, 1, 1, 1, -0.506365657f,
     -0.875641704f, -0.0206838083f, 0.533168435f, 0, 0, 0, 0},
    {-0.0659759939f, 0.799633086f, -0.771254778f, -0.50903827f, 1, 1, 1, 1, -0.997821212f,
     -0.600488842f, -0.636526585f, -0.86074388f, 0, 0, 0, 0},
    {-0.817983508f, -0.819624782f, -0.4815346f, -0.355013937f, 1, 1, 1, 1, -0.575241685f,
     -0.572900653f, -0.876427054f, 0.934861004f, 0, 0, 0, 0},
};

static void angles_are_those_of_transformers(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        ember_rope_options options;
        const float (*expected)[K];
    } cases[] = {
        {"default", {.theta = 1e4}, usual},
        {"linear", {.theta = 1e4, .factor = 4}, linear},
        {"llama3",
         {.theta = 5e5,
          .factor = 8,
          .low_frequency_factor = 1,
          .high_frequency_factor = 4,
          .original_context = 8192},
         llama3},
        {"proportional", {.theta = 1e6, .active_pairs = 4}, proportional},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int backend = 0; backend < EM_BACKENDS; backend++)
            for (int interleaved = 0; interleaved < 2; interleaved++) {
                ember_rope_options options = cases[i].options;
                options.interleaved = interleaved;
                float x[PLACES * K] = {0}, y[PLACES * K];
                for (size_t n = 0; n < PLACES; n++) // (1, 0) of each pair becomes (cos, sin)
                    for (size_t pair = 0; pair < K / 2; pair++)
                        x[n * K + (interleaved ? 2 * pair : pair)] = 1;
                rotate_at_places((enum em_backend)backend, &options, x, y);
                for (size_t n = 0; n < PLACES; n++)
                    for (size_t pair = 0; pair < K / 2; pair++) {
                        const float *at = y + n * K + (interleaved ? 2 * pair : pair);
                        const float cosine = at[0], sine = at[interleaved ? 1 : K / 2];
                        CHECK_NEAR(cosine, cases[i].expected[n][pair], 2e-6, "%s, place %zu, %zu",
                                   cases[i].name, place[n], pair);
                        CHECK_NEAR(sine, cases[i].expected[n][K / 2 + pair], 2e-6,
                                   "%s, place %zu, %zu", cases[i].name, place[n], pair);
                    }
            }
}

// What does not rotate is untouched, and turning by equal angles keeps products between tokens.
static void products_depend_on_distance_alone(void **state)
{
    (void)state;
    float x[PLACES * K], y[PLACES * K], product[2];
    for (size_t n = 0; n < PLACES; n++)
        fill_random(x + n * K, K, n % 2); // rows 0, 2 and rows 1, 3: at 1, 100 and 3, 4095
    rotate_at_places(EM_CPU, &(ember_rope_options){.theta = 100, .rotary = 12}, x, y);
    for (size_t n = 0; n < PLACES; n++)
        for (size_t i = 12; i < K; i++)
            assert_true(y[n * K + i] == x[n * K + i]);
    // Frequencies of theta = 1 are all 1, so every pair turns by the place itself.
    rotate_at_places(EM_CPU, &(ember_rope_options){.theta = 1}, x, y);
    for (size_t n = 0; n < 2; n++) {
        const float *a = y + n * K, *b = y + (n + 2) * K;
        const double angle = (double)(place[n + 2] - place[n]);
        double same = 0;
        product[n] = 0;
        for (size_t i = 0; i < K; i++) {
            product[n] += a[i] * b[i];
            same += (double)x[n * K + i] * (double)x[n * K + i];
        }
        CHECK_NEAR(product[n], same * cos(angle), 1e-5, "rows %zu and %zu", n, n + 2);
    }
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    struct op_case c = {.record = rope,
                        .context = &(ember_rope_options){.theta = 1e4},
                        .by_token = true,
                        .in = {{OP_ROWS, {6}, 1}}};
    check_op_refused(&c, EMBER_E_SHAPE, "rope: x has to be [T, H, K], not [5, 6]");
    c.in[0] = (struct op_input){.kind = OP_ROWS, .dim = {2, 5}, .ndim = 2};
    check_op_refused(&c, EMBER_E_SHAPE, "rope: 5 dimensions and 0 pairs of a head of 5");
    c.context = &(ember_rope_options){.theta = 1e4, .rotary = 6};
    check_op_refused(&c, EMBER_E_SHAPE, "rope: 6 dimensions and 0 pairs of a head of 5");
    c.context = &(ember_rope_options){.theta = 1e4, .rotary = 4, .active_pairs = 3};
    check_op_refused(&c, EMBER_E_SHAPE, "rope: 4 dimensions and 3 pairs of a head of 5");
    c.in[0] = (struct op_input){.kind = OP_PARAMETER, .dim = {5, 2, 4}, .ndim = 3};
    c.context = &(ember_rope_options){.theta = 1e4};
    check_op_refused(&c, EMBER_E_SHAPE, "rope: x has to be an activation with a row per token (5)");
}

static void impossible_frequencies_are_refused(void **state)
{
    (void)state;
    static const ember_rope_options bad[] = {
        {.theta = 0},
        {.theta = -1},
        {.theta = INFINITY},
        {.theta = NAN},
        {.theta = 1e4, .factor = -1},
        {.theta = 1e4, .factor = NAN},
        {.theta = 1e4, .original_context = 10},
        {.theta = 1e4, .original_context = 10, .low_frequency_factor = 1},
        {.theta = 1e4, .low_frequency_factor = 1, .high_frequency_factor = 2},
        {.theta = 1e4,
         .original_context = 10,
         .low_frequency_factor = 2,
         .high_frequency_factor = 2},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        check_op_refused(
            &(struct op_case){
                .record = rope, .context = &bad[i], .by_token = true, .in = {{OP_ROWS, {1, 4}, 2}}},
            EMBER_E_RANGE, "rope: ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_gradients),
        cmocka_unit_test(many_rows_in_parallel),
        cmocka_unit_test(angles_are_those_of_transformers),
        cmocka_unit_test(products_depend_on_distance_alone),
        cmocka_unit_test(other_shapes_are_refused),
        cmocka_unit_test(impossible_frequencies_are_refused),
    };
    return OP_RUN_TESTS("rope", tests);
}
