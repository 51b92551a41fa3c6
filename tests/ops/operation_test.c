// Operations from outside, by <ember/operation.h>: what the harness holds for those built in holds
// for them, states included, and what they do wrong is refused.
#include <ember/operation.h>

#include <math.h>
#include <string.h>

#include "example.h"
#include "support/op_check.h"

// ---- a leaky sum: h[t] = a h[t-1] + x[t] in each channel, h kept from call to call ----

struct leak {
    float a;
};

static ember_status leak_shape(ember_call *c)
{
    EMBER_TRY(ember_call_need_f32(c, 0, "x", 0));
    const ember_tensor *x = ember_call_in(c, 0);
    if (x->ndim != 2) return ember_call_refuse(c, "x has to be [T, D]");
    return ember_call_makes(c, 0, EMBER_F32, x, 1, x->dim + 1, 1);
}

static void leak_cost(const ember_call *c, ember_cost *forward, ember_cost *backward)
{
    const double n = (double)ember_tensor_count(ember_call_out(c, 0));
    *forward = (ember_cost){2 * n, 8 * n};
    *backward = (ember_cost){3 * n, 12 * n};
}

// Channels are independent: they are split, tokens are not.
static void leak_forward_channels(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const ember_call *c = *(const ember_call **)arg;
    const ember_batch *b = ember_call_batch(c);
    const float a = ((const struct leak *)ember_call_constants(c))->a;
    for (size_t s = 0; s < b->n_sequences; s++) {
        const ember_slot *in = ember_call_slot_in(c, s);
        ember_slot *out = ember_call_slot_out(c, s);
        for (size_t d = begin; d < end; d++) {
            float h = in ? in->fixed[d] : 0;
            for (size_t t = b->offset[s]; t < b->offset[s + 1]; t++) {
                h = a * h + ember_row(ember_call_in(c, 0), t)[d];
                ember_row(ember_call_out(c, 0), t)[d] = h;
            }
            if (out) out->fixed[d] = h;
        }
    }
}

static void leak_forward(const ember_call *c)
{
    ember_call_parallel(c, ember_call_out(c, 0)->dim[1], 4, leak_forward_channels, &c);
}

static void leak_backward(const ember_call *c)
{
    const ember_batch *b = ember_call_batch(c);
    const ember_tensor *dy = ember_call_out_gradient(c, 0);
    ember_tensor *dx = ember_call_in_gradient(c, 0);
    const float a = ((const struct leak *)ember_call_constants(c))->a;
    for (size_t s = 0; dx && s < b->n_sequences; s++)
        for (size_t d = 0; d < dy->dim[1]; d++) {
            float dh = 0;
            for (size_t t = b->offset[s + 1]; t-- > b->offset[s];) {
                dh = a * dh + ember_row(dy, t)[d];
                ember_row(dx, t)[d] += dh;
            }
        }
}

static const ember_operation leaky_sum = {
    .name = "leaky_sum",
    .shape = leak_shape,
    .cost = leak_cost,
    .forward = leak_forward,
    .backward = leak_backward,
};

static ember_status record_leak(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                ember_tensor **out)
{
    const struct leak leak = {0.75f};
    const ember_state_spec state = {.name = "leaky_sum", .fixed = c->in[0].dim[0]};
    return ember_operate(flow, &leaky_sum,
                         &(ember_use){.in = in,
                                      .n_in = 1,
                                      .constants = &leak,
                                      .constant_bytes = sizeof leak,
                                      .state = &state},
                         out, 1);
}

static void one_with_a_state(void **state)
{
    (void)state;
    uint64_t sizes = 3;
    for (size_t round = 0; round < op_rounds(6); round++)
        check_op(
            &(struct op_case){
                .name = "leaky_sum",
                .record = record_leak,
                .rows = op_size(&sizes, 20),
                .by_token = true,
                .sequences = op_size(&sizes, 4),
                .stateful = true,
                .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {op_size(&sizes, 9)}, 1}},
            },
            round);
}

// ---- the example's ----

static ember_status record_cosine(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                  ember_tensor **out)
{
    (void)c;
    return example_cosine_scores(flow, in[0], in[1], in[2], 0.5f, &out[0]);
}

static void the_examples(void **state)
{
    (void)state;
    uint64_t sizes = 11;
    for (size_t round = 0; round < op_rounds(8); round++) {
        const size_t E = op_size(&sizes, 12), R = 3 + op_size(&sizes, 20);
        struct op_case c = {
            .name = "cosine_scores",
            .record = record_cosine,
            .rows = op_size(&sizes, 90),
            .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {R}, 1, .keep_off = 0.3f},
                   {OP_PARAMETER, {E, R}, 2, .keep_off = 0.3f},
                   {OP_PARAMETER, {1}, 1}},
        };
        for (size_t i = 0; i < 3; i++)
            c.in[i].constant = round == 4 + i;
        check_op(&c, round);
    }
    check_op_refused(
        &(struct op_case){
            .name = "cosine_scores",
            .record = record_cosine,
            .in = {{OP_ROWS, {4}, 1}, {OP_PARAMETER, {3, 5}, 2}, {OP_PARAMETER, {1}, 1}}},
        EMBER_E_SHAPE, "cosine_scores: x has to be [T, R], w [E, R]");
    check_op_refused(
        &(struct op_case){
            .name = "cosine_scores",
            .record = record_cosine,
            .in = {{OP_ROWS, {4}, 1}, {OP_PARAMETER, {3, 4}, 2}, {OP_PARAMETER, {2}, 1}}},
        EMBER_E_SHAPE, "log_scale");
}

// ---- what is refused ----

static ember_status makes_nothing(ember_call *c)
{
    (void)c;
    return EMBER_OK;
}
static ember_status makes_past_the_end(ember_call *c)
{
    return ember_call_makes(c, EMBER_OPERATION_OUTPUTS, EMBER_F32, ember_call_in(c, 0), 1, NULL, 0);
}
static ember_status saves_past_the_end(ember_call *c)
{
    return ember_call_saves(c, EMBER_OPERATION_SAVED, EMBER_F32, ember_call_in(c, 0), 1, NULL, 0);
}
static ember_status makes_too_many_dimensions(ember_call *c)
{
    return ember_call_makes(c, 0, EMBER_F32, ember_call_in(c, 0), 1, (size_t[]){1, 1, 1, 1}, 4);
}
static ember_status makes_rows_of_nothing(ember_call *c)
{
    return ember_call_makes(c, 0, EMBER_F32, ember_call_in(c, 7), 1, NULL, 0);
}
static ember_status makes_the_second_only(ember_call *c)
{
    return ember_call_makes(c, 1, EMBER_F32, ember_call_in(c, 0), 1, NULL, 0);
}

struct wrong {
    ember_operation operation;
    unsigned n_in, n_out;
    size_t constant_bytes;
    ember_status status;
    const char *message;
};

static ember_status record_wrong(ember_flow *flow, ember_tensor **in, const struct op_case *c,
                                 ember_tensor **out)
{
    static const char constants[EMBER_OPERATION_CONSTANTS + 1];
    const struct wrong *w = c->context;
    ember_tensor *many[EMBER_OPERATION_INPUTS + 1] = {in[0]};
    return ember_operate(flow, &w->operation,
                         &(ember_use){.in = many,
                                      .n_in = w->n_in,
                                      .constants = constants,
                                      .constant_bytes = w->constant_bytes},
                         out, w->n_out);
}

#define WRONG(...)                                                                                 \
    {                                                                                              \
        .name = "wrong", .cost = leak_cost, .forward = leak_forward, __VA_ARGS__                   \
    }

static void wrong_ones_are_refused(void **state)
{
    (void)state;
    static const struct wrong cases[] = {
        {{0}, 1, 1, 0, EMBER_E_RANGE, "the operation without a name needs a name, shape"},
        {WRONG(.shape = NULL), 1, 1, 0, EMBER_E_RANGE, "the operation wrong needs a name, shape"},
        {WRONG(.shape = leak_shape, .reference_backward = leak_backward), 1, 1, 0, EMBER_E_RANGE,
         "wrong: has reference_backward, but no backward"},
        {WRONG(.shape = leak_shape), 9, 1, 0, EMBER_E_RANGE, "wrong: 9 inputs"},
        {WRONG(.shape = leak_shape), 1, 5, 0, EMBER_E_RANGE, "5 outputs"},
        {WRONG(.shape = leak_shape), 1, 1, 97, EMBER_E_RANGE, "97 bytes of constants"},
        {WRONG(.shape = leak_shape), 1, 2, 0, EMBER_E_SHAPE, "the shape rule made 1 outputs of 2"},
        {WRONG(.shape = leak_shape), 0, 1, 0, EMBER_E_SHAPE, "wrong: x has to be a f32 tensor"},
        {WRONG(.shape = makes_nothing), 1, 1, 0, EMBER_E_SHAPE, "made 0 outputs of 1"},
        {WRONG(.shape = makes_past_the_end), 1, 1, 0, EMBER_E_SHAPE, "tensor 4 of at most 4"},
        {WRONG(.shape = saves_past_the_end), 1, 1, 0, EMBER_E_SHAPE, "tensor 4 of at most 4"},
        {WRONG(.shape = makes_too_many_dimensions), 1, 1, 0, EMBER_E_SHAPE,
         "more than 4 dimensions"},
        {WRONG(.shape = makes_rows_of_nothing), 1, 1, 0, EMBER_E_SHAPE,
         "no tensor to take the rows from"},
        {WRONG(.shape = makes_the_second_only), 1, 2, 0, EMBER_E_SHAPE, "made 2 outputs of 2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_op_refused(&(struct op_case){.name = "wrong",
                                           .record = record_wrong,
                                           .context = &cases[i],
                                           .in = {{OP_ROWS, {4}, 1}}},
                         cases[i].status, cases[i].message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_with_a_state),
        cmocka_unit_test(the_examples),
        cmocka_unit_test(wrong_ones_are_refused),
    };
    return OP_RUN_TESTS("ops/operation", tests);
}
