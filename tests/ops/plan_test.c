// Plans of programs that are made by hand: what reuse is worth, what a new plan may not keep of the
// old one, what the profile counts, and what is refused.
#include <string.h>

#include "base/clock.h"
#include "ops/program_priv.h"
#include "support/check.h"
#include "support/op_fixture.h"

enum { WIDTH = 6 };

static float w_data[WIDTH * WIDTH], dw_data[WIDTH * WIDTH];
static ember_tensor w, dw;

static struct em_program *new_chain(bool gradients, enum em_recompute recompute, size_t tokens)
{
    struct em_program *p;
    CHECK_OK(em_tensor_init(&w, EMBER_F32, (size_t[]){WIDTH, WIDTH}, 2, w_data));
    dw = w;
    dw.data = dw_data;
    w.grad = &dw;
    CHECK_OK(em_program_create(&(struct em_program_options){.backend = EM_CPU,
                                                            .max_tokens = tokens,
                                                            .max_sequences = 1,
                                                            .gradients = gradients,
                                                            .recompute = recompute},
                               &p));
    return p;
}

static void extend_chain(struct em_program *p, size_t blocks, ember_tensor **x)
{
    ember_flow *f = em_program_flow(p);
    for (size_t i = 0; i < blocks; i++) {
        ember_tensor *h;
        CHECK_OK(em_flow_region_begin(f));
        CHECK_OK(ember_linear(f, *x, &w, NULL, NULL, &h));
        CHECK_OK(ember_activation(f, h, EMBER_SILU, &h));
        CHECK_OK(ember_linear(f, h, &w, NULL, *x, x));
        em_flow_region_end(f);
    }
}

static size_t block_bytes(bool gradients, enum em_recompute recompute, size_t blocks)
{
    enum { TOKENS = 1024 };
    struct em_program *p = new_chain(gradients, recompute, TOKENS);
    struct em_memory_plan plan;
    ember_tensor *x, *loss;
    CHECK_OK(ember_inputs(em_program_flow(p), WIDTH, &x));
    extend_chain(p, blocks, &x);
    em_program_output(p, x);
    CHECK_OK(ember_mean_square(em_program_flow(p), x, &loss));
    if (gradients) em_program_loss(p, loss);
    CHECK_OK(em_program_plan(p, &plan));
    em_program_destroy(p);
    return (plan.activations + TOKENS) / (TOKENS * WIDTH * sizeof(float));
}

static void memory_of_a_chain(void **state)
{
    (void)state;
    // A residual stream, a layer's inner rows, and its output: whatever the depth.
    assert_int_equal(block_bytes(false, EM_RECOMPUTE_NONE, 4),
                     block_bytes(false, EM_RECOMPUTE_NONE, 64));
    assert_true(block_bytes(false, EM_RECOMPUTE_NONE, 64) <= 4);
    // Backward needs two activations of each block and its input; without what the activation
    // made, one less; recomputed, the input alone.
    static const size_t each[] = {3, 2, 1};
    for (enum em_recompute r = 0; r <= EM_RECOMPUTE_REGIONS; r++)
        assert_int_equal(block_bytes(true, r, 40) - block_bytes(true, r, 20), 20 * each[r]);
}

struct count {
    size_t calls;
    double seconds;
};

static void count_call(void *context, const struct em_call *call)
{
    struct count *count = context;
    count->calls++;
    count->seconds += call->seconds[0] + call->seconds[1];
}

static double ticks;

static double tick(void)
{
    return ticks++;
}

// Each step takes one tick between two readings of the clock; every one is in the profile once. And
// the last product of a block, whose output nothing reads again, is not run a second time.
static void profiles_count_every_step_once(void **state)
{
    (void)state;
    enum { BLOCKS = 5 };
    for (enum em_recompute recompute = 0; recompute <= EM_RECOMPUTE_REGIONS; recompute++) {
        struct em_program *p = new_chain(true, recompute, 2);
        ember_tensor *x, *loss;
        CHECK_OK(ember_inputs(em_program_flow(p), WIDTH, &x));
        CHECK_OK(ember_linear(em_program_flow(p), x, &w, NULL, NULL, &x)); // has a gradient
        extend_chain(p, BLOCKS, &x);
        CHECK_OK(ember_mean_square(em_program_flow(p), x, &loss));
        em_program_loss(p, loss);
        CHECK_OK(em_program_allocate(p));
        const float inputs[2 * WIDTH] = {0};
        const ember_batch batch = {
            .n_tokens = 2, .n_sequences = 1, .offset = (size_t[]){0, 2}, .inputs = inputs};
        em_clock_use(&(struct em_clock){tick, tick});
        CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch, .gradients = true}));
        CHECK_OK(em_program_backward(p));
        em_clock_use(NULL);
        struct count count = {0};
        em_program_visit(p, count_call, &count);
        // Forward: 3 + 3 for each block; backward: 2 (inputs have none) + 3; again: the
        // activation of each block, or that and the product before it.
        assert_int_equal(p->n_steps, 3 + 2 + 6 * BLOCKS + (size_t)recompute * BLOCKS);
        CHECK_NEAR(count.seconds, p->n_steps, 0, "recompute %d", recompute);
        em_program_reset_profile(p);
        count = (struct count){0};
        em_program_visit(p, count_call, &count);
        CHECK_NEAR(count.seconds, 0, 0, "after a reset");
        em_program_destroy(p);
    }
}

// A plan of half of the calls leaves nothing behind in that of all.
static void plans_are_made_anew(void **state)
{
    (void)state;
    float inputs[2 * WIDTH], expected[WIDTH * WIDTH];
    fill_random(w_data, WIDTH * WIDTH, 1);
    fill_random(inputs, 2 * WIDTH, 2);
    const ember_batch batch = {
        .n_tokens = 2, .n_sequences = 1, .offset = (size_t[]){0, 2}, .inputs = inputs};
    for (int twice = 0; twice < 2; twice++)
        for (enum em_recompute recompute = 0; recompute <= EM_RECOMPUTE_REGIONS; recompute++) {
            struct em_program *p = new_chain(true, recompute, 2);
            ember_flow *f = em_program_flow(p);
            ember_tensor *x, *y, *loss;
            CHECK_OK(ember_inputs(f, WIDTH, &x));
            CHECK_OK(ember_linear(f, x, &w, NULL, NULL, &x));
            extend_chain(p, 2, &x);
            CHECK_OK(ember_add(f, x, x, &y));
            CHECK_OK(ember_mean_square(f, y, &loss));
            em_program_loss(p, loss);
            if (twice) CHECK_OK(em_program_plan(p, NULL));
            extend_chain(p, 1, &x); // another reader of what was passed on
            CHECK_OK(ember_add(f, x, y, &y));
            CHECK_OK(ember_mean_square(f, y, &loss));
            em_program_loss(p, loss);
            CHECK_OK(em_program_allocate(p));
            memset(p->block, 0xff, p->memory.activations);
            memset(dw_data, 0, sizeof dw_data);
            CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch, .gradients = true}));
            CHECK_OK(em_program_backward(p));
            CHECK_FAILS(em_program_backward(p), EMBER_E_STATE,
                        "backward needs a forward with gradients before it");
            if (!twice && recompute == EM_RECOMPUTE_NONE)
                memcpy(expected, dw_data, sizeof expected);
            assert_memory_equal(dw_data, expected, sizeof expected);
            em_program_destroy(p);
        }
}

static void impossible_plans_are_refused(void **state)
{
    (void)state;
    struct em_program *p = new_chain(true, false, 4);
    ember_flow *f = em_program_flow(p);
    ember_tensor *x, *y, *part;
    CHECK_OK(ember_inputs(f, WIDTH, &x));
    CHECK_OK(ember_linear(f, x, &w, NULL, NULL, &y));
    em_program_loss(p, x);
    CHECK_FAILS(em_program_plan(p, NULL), EMBER_E_STATE,
                "the loss does not depend on any parameter that has a gradient");
    em_program_loss(p, y);
    CHECK_FAILS(em_program_plan(p, NULL), EMBER_E_SHAPE, "the loss has to be one number");
    CHECK_OK(ember_columns(f, y, 1, 2, &part));
    em_program_loss(p, part);
    CHECK_FAILS(em_program_plan(p, NULL), EMBER_E_SHAPE, "the loss has to be one number");
    CHECK_OK(ember_mean_square(f, y, &y));
    em_program_loss(p, y);
    CHECK_FAILS(em_program_forward(p, &(struct em_run){0}), EMBER_E_STATE, "has no memory yet");
    CHECK_OK(em_program_allocate(p));
    CHECK_OK(ember_inputs(f, WIDTH, &x));
    CHECK_FAILS(em_program_plan(p, NULL), EMBER_E_STATE, "cannot be planned again");
    em_program_destroy(p);
    CHECK_FAILS(
        em_program_create(&(struct em_program_options){.max_tokens = 0, .max_sequences = 1}, &p),
        EMBER_E_RANGE, "a program needs 1 to");
    p = new_chain(true, false, 4);
    CHECK_OK(em_flow_region_begin(em_program_flow(p)));
    CHECK_FAILS(em_flow_region_begin(em_program_flow(p)), EMBER_E_INTERNAL, "do not nest");
    em_program_destroy(p);
}

// Rows of tokens and of an expert are different things, however many there may be of both.
static void rows_of_different_things_do_not_meet(void **state)
{
    (void)state;
    struct em_program *p = new_chain(false, false, 4);
    ember_flow *f = em_program_flow(p);
    ember_tensor *x, *rows[2], *y, *q;
    ember_routing routing;
    CHECK_OK(ember_inputs(f, WIDTH, &x));
    CHECK_OK(fixture_routing(f, x, 2, 2, 1, NULL, &routing));
    CHECK_OK(ember_expert_rows(f, x, &routing, 0, &rows[0]));
    CHECK_OK(ember_expert_rows(f, x, &routing, 1, &rows[1]));
    CHECK_FAILS(ember_add(f, x, rows[0], &y), EMBER_E_SHAPE,
                "add: a and b have rows of different things");
    CHECK_FAILS(ember_gated(f, rows[0], rows[1], EMBER_SILU, &y), EMBER_E_SHAPE,
                "gated: g and u have rows of different things");
    CHECK_FAILS(ember_linear(f, x, &w, NULL, rows[1], &y), EMBER_E_SHAPE,
                "linear: x and residual have rows of different things");
    CHECK_OK(ember_reshape(f, rows[0], (size_t[]){1, WIDTH}, 2, &q));
    CHECK_FAILS(ember_attention(f, q, q, q, &(ember_attention_options){0}, &y), EMBER_E_SHAPE,
                "has to be an activation with a row per token");
    CHECK_OK(ember_add(f, rows[0], rows[0], &y));
    em_program_destroy(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_of_a_chain),
        cmocka_unit_test(profiles_count_every_step_once),
        cmocka_unit_test(plans_are_made_anew),
        cmocka_unit_test(impossible_plans_are_refused),
        cmocka_unit_test(rows_of_different_things_do_not_meet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
