#include "support/op_check.h"

#include <stdlib.h>
#include <string.h>

enum { Q, K, V };

static ember_status attention(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                              ember_tensor **out)
{
    return ember_attention(flow, in[Q], in[K], in[V], c->context, &out[0]);
}

// Keys and queries of one tensor, as columns of a fused projection; values are the keys.
static ember_status of_one_projection(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                      ember_tensor **out)
{
    const size_t width = in[0]->dim[1] / 2;
    ember_tensor *q, *k;
    EM_TRY(ember_columns(flow, in[0], 0, width, &q));
    EM_TRY(ember_columns(flow, in[0], width, 2 * width, &k));
    EM_TRY(ember_reshape(flow, q, (size_t[]){2, width / 2}, 2, &q));
    EM_TRY(ember_reshape(flow, k, (size_t[]){2, width / 2}, 2, &k));
    return ember_attention(flow, q, k, k, c->context, &out[0]);
}

// A layer after another: two slots of state.
static ember_status twice(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                          ember_tensor **out)
{
    ember_tensor *y;
    EM_TRY(ember_attention(flow, in[Q], in[K], in[V], &(ember_attention_options){.window = 2}, &y));
    return ember_attention(flow, y, in[K], in[V], c->context, &out[0]);
}

static void values_gradients_and_states(void **state)
{
    (void)state;
    uint64_t sizes = 31;
    static const size_t groups[] = {1, 2, 3, 1};
    for (size_t round = 0; round < op_rounds(12); round++) {
        const size_t G = op_size(&sizes, 3), H = G * groups[round % 4], D = op_size(&sizes, 20);
        const enum op_input_kind kind = round & 1 ? OP_COLUMNS : OP_ROWS;
        struct op_case c = {
            .name = "attention",
            .record = round % 5 == 4 ? twice : attention,
            .context = &(ember_attention_options){.scale = round % 3 == 2 ? 0.7 : 0,
                                                  .window = round & 2 ? op_size(&sizes, 9) : 0},
            .rows = op_size(&sizes, 40),
            .by_token = true,
            .sequences = op_size(&sizes, 4),
            .stateful = true,
            .products = true,
            .in = {{kind, {H, D}, 2, .low = -2, .high = 2},
                   {OP_ROWS, {G, D}, 2, .low = -2, .high = 2},
                   {kind, {G, D}, 2}}};
        c.in[Q].constant = round % 7 == 3;
        c.in[K].constant = round % 7 == 4;
        c.in[V].constant = round % 7 == 5;
        check_op(&c, round);
    }
}

static void one_tensor_may_be_all_three(void **state)
{
    (void)state;
    for (size_t round = 0; round < op_rounds(2); round++)
        check_op(&(struct op_case){.name = "attention of one projection",
                                   .record = of_one_projection,
                                   .context = &(ember_attention_options){.window = 3 * round},
                                   .rows = 9,
                                   .by_token = true,
                                   .sequences = 2,
                                   .stateful = true,
                                   .products = true,
                                   .in = {{OP_ROWS, {20}, 1, .low = -2, .high = 2}}},
                 round);
}

static void long_sequences_in_parallel(void **state)
{
    (void)state;
    for (size_t round = 0; round < op_rounds(3); round++)
        check_op(&(struct op_case){.name = "attention",
                                   .record = attention,
                                   .context = &(ember_attention_options){.window = 70 * round},
                                   .rows = 230,
                                   .by_token = true,
                                   .sequences = 1 + 2 * round,
                                   .stateful = true,
                                   .products = true,
                                   .large = true,
                                   .in = {{OP_ROWS, {4, 10}, 2, .low = -2, .high = 2},
                                          {OP_ROWS, {2, 10}, 2, .low = -2, .high = 2},
                                          {OP_ROWS, {2, 10}, 2}}},
                 round);
}

// ---- by hand: all keys equal, so y is the mean of the values that a query sees ----

struct stream {
    struct em_program *program;
    ember_tensor *out;
};

// q = k = 0 and v = the batch's inputs, one head of one dimension.
static struct stream open_stream(enum em_backend backend, size_t tokens, size_t window)
{
    struct stream s;
    ember_tensor *x, *v, *zero;
    CHECK_OK(em_program_create(
        &(struct em_program_options){.backend = backend, .max_tokens = tokens, .max_sequences = 1},
        &s.program));
    ember_flow *flow = em_program_flow(s.program);
    CHECK_OK(ember_inputs(flow, 1, &x));
    CHECK_OK(ember_reshape(flow, x, (size_t[]){1, 1}, 2, &v));
    CHECK_OK(ember_scale(flow, v, 0, &zero));
    CHECK_OK(
        ember_attention(flow, zero, zero, v, &(ember_attention_options){.window = window}, &s.out));
    em_program_output(s.program, s.out);
    CHECK_OK(em_program_allocate(s.program));
    return s;
}

static void feed(struct stream *s, const float *x, size_t n, ember_state *in, ember_state *out)
{
    CHECK_OK(em_program_forward(s->program,
                                &(struct em_run){.batch = &(ember_batch){.n_tokens = n,
                                                                         .n_sequences = 1,
                                                                         .offset = (size_t[]){0, n},
                                                                         .inputs = x,
                                                                         .state_in = &in,
                                                                         .state_out = &out}}));
}

// Long after the window has passed over the first tokens, in place and from state to state, the
// state has not grown, and each token still sees the window - 1 before it.
static void windows_over_long_streams(void **state)
{
    (void)state;
    enum { TOKENS = 1500 };
    float x[TOKENS];
    double sum_to[TOKENS + 1] = {0};
    fill_random(x, TOKENS, 3);
    for (size_t t = 0; t < TOKENS; t++)
        sum_to[t + 1] = sum_to[t] + (double)x[t];
    static const size_t windows[] = {1, 2, 7, 100}, pieces[] = {1, 3, 40};
    for (int backend = 0; backend < EM_BACKENDS; backend++)
        for (size_t i = 0; i < 12; i++) {
            const size_t window = windows[i % 4], piece = pieces[i / 4];
            struct stream s = open_stream((enum em_backend)backend, piece, window);
            ember_state *carried[2];
            for (int k = 0; k < 2; k++)
                CHECK_OK(em_state_create(em_program_layout(s.program), &carried[k]));
            size_t bytes = 0;
            for (size_t t = 0, n, now = 0; t < TOKENS; t += n) {
                n = t + piece < TOKENS ? piece : TOKENS - t;
                const size_t to = backend == EM_CPU && t % 13 ? now : !now;
                feed(&s, x + t, n, t ? carried[now] : NULL, carried[to]);
                now = to;
                for (size_t j = 0; j < n; j++) {
                    const size_t end = t + j + 1, begin = end > window ? end - window : 0;
                    CHECK_NEAR(em_f32(s.out)[j],
                               (sum_to[end] - sum_to[begin]) / (double)(end - begin), 1e-5,
                               "window %zu, %zu tokens at a time, token %zu", window, piece, t + j);
                }
                assert_int_equal(carried[now]->position, t + n);
                if (t > TOKENS / 2 && !bytes) bytes = em_state_bytes(carried[now]);
            }
            const size_t most = (window > 32 ? 2 * window : 64) + 2 * piece;
            for (int k = 0; k < 2; k++) {
                assert_true(em_state_bytes(carried[k]) <= most * 2 * sizeof(float));
                em_state_destroy(carried[k]);
            }
            em_program_destroy(s.program);
        }
}

// Sixteen continuations of one prompt, each from the same state; and a stream may go on from
// where it was before.
static void a_state_is_a_value(void **state)
{
    (void)state;
    float x[] = {1, 2, 3, 10, 20, 30};
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        struct stream s = open_stream((enum em_backend)backend, 3, 0);
        ember_state *prompt, *branch;
        CHECK_OK(em_state_create(em_program_layout(s.program), &prompt));
        CHECK_OK(em_state_create(em_program_layout(s.program), &branch));
        feed(&s, x, 3, NULL, prompt);
        CHECK_NEAR(em_f32(s.out)[2], 2, 1e-6, "prompt");
        for (size_t i = 3; i < 6; i++) {
            feed(&s, x + i, 1, prompt, branch);
            CHECK_NEAR(em_f32(s.out)[0], (6 + x[i]) / 4, 1e-5, "branch %zu", i);
            feed(&s, x + i, 1, branch, NULL); // read only
            feed(&s, x + i, 1, branch, branch);
            CHECK_NEAR(em_f32(s.out)[0], (6 + 2 * x[i]) / 5, 1e-5, "branch %zu goes on", i);
        }
        assert_int_equal(prompt->position, 3);
        assert_int_equal(branch->position, 5);
        em_state_destroy(prompt);
        em_state_destroy(branch);
        em_program_destroy(s.program);
    }
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    struct op_case c = {.record = attention,
                        .context = &(ember_attention_options){0},
                        .by_token = true,
                        .in = {{OP_ROWS, {3, 4}, 2}, {OP_ROWS, {2, 4}, 2}, {OP_ROWS, {2, 4}, 2}}};
    check_op_refused(&c, EMBER_E_SHAPE, "attention: q is [5, 3, 4], k is [5, 2, 4]");
    c.in[Q].dim[0] = 4;
    c.in[Q].dim[1] = 5;
    check_op_refused(&c, EMBER_E_SHAPE, "q is [5, 4, 5], k is [5, 2, 4]");
    c.in[Q].dim[1] = 4;
    c.in[V].dim[0] = 1;
    check_op_refused(&c, EMBER_E_SHAPE, "v is [5, 1, 4]");
    for (size_t i = 0; i < 3; i++)
        c.in[i] = (struct op_input){.kind = OP_ROWS, .dim = {1, 257}, .ndim = 2};
    check_op_refused(&c, EMBER_E_SHAPE, "attention: a head has at most 256 dimensions, not 257");
    for (size_t i = 0; i < 3; i++)
        c.in[i] = (struct op_input){.kind = OP_ROWS, .dim = {4}, .ndim = 1};
    check_op_refused(&c, EMBER_E_SHAPE, "q is [5, 4]");
    c.in[Q] = (struct op_input){.kind = OP_PARAMETER, .dim = {5, 1, 4}, .ndim = 3};
    check_op_refused(&c, EMBER_E_SHAPE, "has to be an activation with a row per token (5)");
    for (size_t i = 0; i < 3; i++)
        c.in[i] = (struct op_input){.kind = OP_ROWS, .dim = {1, 4}, .ndim = 2};
    c.context = &(ember_attention_options){.scale = -1};
    check_op_refused(&c, EMBER_E_RANGE, "attention: the scale of scores");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_gradients_and_states),
        cmocka_unit_test(one_tensor_may_be_all_three),
        cmocka_unit_test(long_sequences_in_parallel),
        cmocka_unit_test(windows_over_long_streams),
        cmocka_unit_test(a_state_is_a_value),
        cmocka_unit_test(other_shapes_are_refused),
    };
    return OP_RUN_TESTS("attention", tests);
}
