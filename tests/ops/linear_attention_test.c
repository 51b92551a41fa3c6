#include "support/op_check.h"

enum { IN_Q, IN_K, IN_V, GATE };

static ember_status linear_attention(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                     ember_tensor **out)
{
    return ember_linear_attention(flow, in[IN_Q], in[IN_K], in[IN_V],
                                  c->in[GATE].ndim ? in[GATE] : NULL, c->context, &out[0]);
}

static struct op_case a_case(const ember_linear_attention_options *o, size_t H, size_t G, size_t K,
                             size_t V, enum op_input_kind kind)
{
    return (struct op_case){.name = "linear_attention",
                            .record = linear_attention,
                            .context = o,
                            .by_token = true,
                            .stateful = true,
                            .in = {{.kind = kind, .dim = {H, K}, .ndim = 2, .keep_off = 0.1f},
                                   {.kind = kind, .dim = {G, K}, .ndim = 2, .keep_off = 0.1f},
                                   {.kind = kind, .dim = {G, V}, .ndim = 2}}};
}

static void values_gradients_and_states(void **state)
{
    (void)state;
    uint64_t sizes = 7;
    for (size_t round = 0; round < op_rounds(12); round++) {
        const size_t G = op_size(&sizes, 3), H = G * op_size(&sizes, 3);
        ember_linear_attention_options o = {.feature = (ember_feature_map)(round % 4), .eps = 0.1f};
        o.normalise = o.feature != EMBER_FEATURE_IDENTITY && round % 3;
        if (round % 5 == 1) o.scale = 0.7;
        if (round % 2) {
            o.decay_first = 1;
            o.decay_last = 3;
        }
        struct op_case c = a_case(&o, H, G, op_size(&sizes, 20), op_size(&sizes, 20), OP_ROWS);
        c.rows = op_size(&sizes, 30);
        c.sequences = op_size(&sizes, 4);
        if (round % 3 == 2) {
            o.gate_temperature = round % 2 ? 1 : 0;
            c.in[GATE] = (struct op_input){.kind = round & 1 ? OP_COLUMNS : OP_ROWS,
                                           .dim = {G},
                                           .ndim = 1,
                                           .low = -4,
                                           .high = 4};
        }
        c.in[IN_Q].constant = round % 7 == 3;
        c.in[IN_K].constant = round % 7 == 4;
        c.in[IN_V].constant = round % 7 == 5;
        c.in[GATE].constant = round % 7 == 6;
        check_op(&c, round);
    }
}

// Chunks have 64 tokens: some whole, some not, some of one token; and heads wider than a chunk.
static void many_chunks(void **state)
{
    (void)state;
    static const size_t rows[] = {64, 65, 150, 200};
    static const ember_linear_attention_options options[] = {
        {.feature = EMBER_FEATURE_ELU1, .normalise = true, .eps = 1e-6f},
        {.feature = EMBER_FEATURE_IDENTITY, .decay_first = 2, .decay_last = 9},
        {.feature = EMBER_FEATURE_SOFTMAX, .normalise = true, .gate_temperature = 2},
        {.feature = EMBER_FEATURE_IDENTITY, .gate_temperature = 0.05}, // sharp: exp(-80) a token
    };
    for (size_t i = 0; i < 4; i++) {
        struct op_case c = a_case(&options[i], 2, 1, i == 2 ? 70 : 9, i == 1 ? 66 : 5, OP_ROWS);
        c.rows = rows[i];
        c.sequences = 1 + i % 3;
        c.large = true;
        if (i == 3) c.tolerance = 4e-4; // the temperature makes 20 times of the gate's gradient
        if (i >= 2)
            c.in[GATE] =
                (struct op_input){.kind = OP_ROWS, .dim = {1}, .ndim = 1, .low = -4, .high = 4};
        check_op(&c, i);
    }
}

// Equal features weigh all tokens alike: y is the running mean of v.
static void a_mean_by_hand(void **state)
{
    (void)state;
    static const float x[] = {1, 1, 3, /**/ 1, 1, 5, /**/ 1, 1, -2};
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        struct em_program *p;
        ember_tensor *all, *q, *k, *v, *y;
        CHECK_OK(em_program_create(&(struct em_program_options){.backend = (enum em_backend)backend,
                                                                .max_tokens = 3,
                                                                .max_sequences = 2},
                                   &p));
        ember_flow *f = em_program_flow(p);
        CHECK_OK(ember_inputs(f, 3, &all));
        CHECK_OK(ember_columns(f, all, 0, 1, &q));
        CHECK_OK(ember_columns(f, all, 1, 2, &k));
        CHECK_OK(ember_columns(f, all, 2, 3, &v));
        CHECK_OK(ember_reshape(f, q, (size_t[]){1, 1}, 2, &q));
        CHECK_OK(ember_reshape(f, k, (size_t[]){1, 1}, 2, &k));
        CHECK_OK(ember_reshape(f, v, (size_t[]){1, 1}, 2, &v));
        const ember_linear_attention_options o = {.feature = EMBER_FEATURE_ELU1, .normalise = true};
        CHECK_OK(ember_linear_attention(f, q, k, v, NULL, &o, &y));
        em_program_output(p, y);
        CHECK_OK(em_program_allocate(p));
        ember_batch batch = {
            .n_tokens = 3, .n_sequences = 1, .offset = (size_t[]){0, 3}, .inputs = x};
        CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
        CHECK_NEAR(em_f32(y)[0], 3, 1e-6, "first");
        CHECK_NEAR(em_f32(y)[1], 4, 1e-6, "second %d", backend);
        CHECK_NEAR(em_f32(y)[2], 2, 1e-6, "third");
        batch.n_sequences = 2;
        batch.offset = (size_t[]){0, 2, 3};
        CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
        CHECK_NEAR(em_f32(y)[2], -2, 1e-6, "first of another sequence");
        em_program_destroy(p);
    }
}

static void other_shapes_and_options_are_refused(void **state)
{
    (void)state;
    ember_linear_attention_options o = {.feature = EMBER_FEATURE_ELU1};
    struct op_case c = a_case(&o, 3, 2, 4, 4, OP_ROWS);
    check_op_refused(&c, EMBER_E_SHAPE, "with H a multiple of G");
    c.in[IN_Q].dim[0] = 4;
    c.in[IN_K].dim[1] = 5;
    check_op_refused(&c, EMBER_E_SHAPE, "q is [5, 4, 4], k is [5, 2, 5], v is [5, 2, 4]");
    c.in[IN_K].dim[1] = 4;
    c.in[GATE] = (struct op_input){.kind = OP_ROWS, .dim = {4}, .ndim = 1};
    check_op_refused(&c, EMBER_E_SHAPE, "the gate has to be [T, 2], not [5, 4]");
    c.in[GATE].ndim = 0;
    o.feature = EMBER_FEATURE_IDENTITY;
    o.normalise = true;
    check_op_refused(&c, EMBER_E_RANGE, "weights may cancel");
    o.normalise = false;
    o.decay_first = 61;
    check_op_refused(&c, EMBER_E_RANGE, "decays have to be given by numbers in (0, 60]");
    o.decay_first = 0;
    o.eps = -1;
    check_op_refused(&c, EMBER_E_RANGE, "have to be 0 or more");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_gradients_and_states),
        cmocka_unit_test(many_chunks),
        cmocka_unit_test(a_mean_by_hand),
        cmocka_unit_test(other_shapes_and_options_are_refused),
    };
    return OP_RUN_TESTS("linear_attention", tests);
}
