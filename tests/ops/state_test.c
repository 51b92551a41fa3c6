// States of sequences are values: they can be copied, kept, gone back to, and continued by any
// program of the same model.
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "ops/program.h"
#include "support/check.h"

enum { T = 8, S = 3, D = 4, L = 3, WINDOW = 3 };

static float w_data[D * L];
static ember_tensor w;

// A model with all kinds of slots: short convolution (fixed), attention (each token), windowed.
struct model {
    struct em_program *program;
    ember_tensor *y;
};

static struct model open_model(size_t tokens, size_t sequences, size_t window, bool gradients)
{
    struct model m;
    ember_tensor *x, *c, *heads, *a, *b;
    fill_random(w_data, D * L, 1);
    CHECK_OK(em_tensor_init(&w, EMBER_F32, (size_t[]){D, L}, 2, w_data));
    CHECK_OK(em_program_create(&(struct em_program_options){.backend = EM_CPU,
                                                            .max_tokens = tokens,
                                                            .max_sequences = sequences,
                                                            .gradients = gradients},
                               &m.program));
    ember_flow *flow = em_program_flow(m.program);
    CHECK_OK(ember_inputs(flow, 3 * D, &x));
    CHECK_OK(ember_short_conv(flow, x, &w, NULL, &c));
    CHECK_OK(ember_reshape(flow, c, (size_t[]){2, D / 2}, 2, &heads));
    CHECK_OK(ember_rope(flow, heads, &(ember_rope_options){.theta = 100}, &heads));
    CHECK_OK(ember_attention(flow, heads, heads, heads, &(ember_attention_options){0}, &a));
    CHECK_OK(ember_attention(flow, a, heads, a, &(ember_attention_options){.window = window}, &b));
    CHECK_OK(ember_reshape(flow, b, (size_t[]){D}, 1, &m.y));
    em_program_output(m.program, m.y);
    CHECK_OK(em_program_allocate(m.program));
    return m;
}

static ember_state *new_state(const struct model *m)
{
    ember_state *state;
    CHECK_OK(em_state_create(em_program_layout(m->program), &state));
    return state;
}

static float stream[64][3 * D];

static int make_stream(void **state)
{
    (void)state;
    fill_random(stream[0], sizeof stream / sizeof(float), 5);
    return 0;
}

// Tokens [begin, end) of the stream; y gets the last one's output.
static ember_status feed(const struct model *m, size_t begin, size_t end, ember_state *in,
                         ember_state *out, float *y)
{
    EM_TRY(em_program_forward(
        m->program, &(struct em_run){.batch = &(ember_batch){.n_tokens = end - begin,
                                                             .n_sequences = 1,
                                                             .offset = (size_t[]){0, end - begin},
                                                             .inputs = stream[begin],
                                                             .state_in = &in,
                                                             .state_out = &out}}));
    memcpy(y, em_row(m->y, end - begin - 1), D * sizeof *y);
    return EMBER_OK;
}

static void check_same(const float *found, const float *expected)
{
    for (size_t i = 0; i < D; i++)
        CHECK_NEAR(found[i], expected[i], 1e-6, "element %zu", i);
}

static void copies_go_their_own_ways(void **state)
{
    (void)state;
    struct model m = open_model(T, 1, WINDOW, false);
    ember_state *a = new_state(&m), *b = new_state(&m);
    float straight[D], found[D];
    CHECK_OK(feed(&m, 0, 8, NULL, a, straight));
    CHECK_OK(feed(&m, 8, 12, a, a, straight)); // what tokens 0 .. 11 leave
    CHECK_OK(feed(&m, 0, 8, NULL, a, found));
    CHECK_OK(em_state_copy(a, b));
    assert_int_equal(b->position, 8);
    CHECK_OK(feed(&m, 20, 28, a, a, found)); // another continuation does not touch the copy
    CHECK_OK(feed(&m, 8, 12, b, b, found));
    check_same(found, straight);
    // Back to where it was: a longer one takes a shorter one's place.
    CHECK_OK(feed(&m, 0, 8, NULL, b, found));
    CHECK_OK(em_state_copy(b, a));
    assert_int_equal(a->position, 8);
    CHECK_OK(feed(&m, 8, 12, a, a, found));
    check_same(found, straight);
    CHECK_OK(em_state_copy(a, a));
    assert_int_equal(a->position, 12);
    em_state_reset(a); // as new
    CHECK_OK(feed(&m, 0, 8, a, a, found));
    CHECK_OK(feed(&m, 8, 12, a, a, found));
    check_same(found, straight);
    em_state_destroy(a);
    em_state_destroy(b);
    em_state_destroy(NULL);
    em_program_destroy(m.program);
}

// A copy that never had room takes a long one, and leaves it as it is when memory runs out.
static void copies_without_memory_change_nothing(void **state)
{
    (void)state;
    struct model m = open_model(T, 1, WINDOW, false);
    ember_state *from = new_state(&m), *to = new_state(&m);
    float straight[D], found[D];
    for (size_t t = 0; t < 40; t += 8)
        CHECK_OK(feed(&m, t, t + 8, t ? from : NULL, from, found));
    CHECK_OK(feed(&m, 0, 4, NULL, to, found));
    CHECK_OK(feed(&m, 4, 6, to, NULL, straight));
    for (size_t n = 1; n <= 2; n++) {
        em_alloc_fail_at(n, 0);
        const ember_status status = em_state_copy(from, to);
        em_alloc_fail_at(0, 0);
        if (status == EMBER_OK) break; // had room for all
        assert_int_equal(status, EMBER_E_NOMEM);
        assert_int_equal(to->position, 4);
        CHECK_OK(feed(&m, 4, 6, to, NULL, found));
        check_same(found, straight);
    }
    CHECK_OK(em_state_copy(from, to));
    assert_int_equal(to->position, 40);
    for (size_t n = 1;; n++) { // creating one fails whole
        ember_state *none = NULL;
        em_alloc_fail_at(n, 0);
        const ember_status status = em_state_create(em_program_layout(m.program), &none);
        em_alloc_fail_at(0, 0);
        if (status == EMBER_OK) {
            em_state_destroy(none);
            break;
        }
        assert_int_equal(status, EMBER_E_NOMEM);
        assert_null(none);
        assert_true(n < 20);
    }
    em_state_destroy(from);
    em_state_destroy(to);
    em_program_destroy(m.program);
}

// Room doubles, and stays within twice a window; every sequence of a batch keeps what it holds when
// memory runs out for any of them.
static void growth(void **state)
{
    (void)state;
    struct model m = open_model(T, S, WINDOW, false);
    ember_state *states[S];
    float found[D], straight[D];
    for (size_t s = 0; s < S; s++)
        states[s] = new_state(&m);
    const size_t fixed = em_state_bytes(states[0]);
    assert_int_equal(fixed, D * (L - 1) * sizeof(float));
    size_t grown = 0, bytes = fixed;
    for (size_t t = 0; t < 1000; t++) {
        CHECK_OK(feed(&m, t % 32, t % 32 + 1, t ? states[0] : NULL, states[0], found));
        if (em_state_bytes(states[0]) != bytes) grown++;
        bytes = em_state_bytes(states[0]);
    }
    assert_int_equal(states[0]->position, 1000);
    assert_true(grown <= 1 + 5); // 64, 128, 256, 512, 1024
    assert_true(bytes <= fixed + (1024 + 2 * WINDOW) * 2 * D * sizeof(float));
    CHECK_OK(em_state_reserve(states[0], states[0], WINDOW)); // fits
    assert_int_equal(em_state_bytes(states[0]), bytes);

    // Three that have different room left; the batch that grows them fails at each allocation.
    for (size_t s = 0; s < S; s++)
        for (size_t t = 0; t < 62; t++)
            CHECK_OK(feed(&m, t % 32, t % 32 + 1, t ? states[s] : NULL, states[s], found));
    ember_state *before = new_state(&m);
    CHECK_OK(em_state_copy(states[2], before));
    CHECK_OK(feed(&m, 3, 5, before, NULL, straight));
    const ember_batch batch = {.n_tokens = T,
                               .n_sequences = S,
                               .offset = (size_t[]){0, 3, 5, T},
                               .inputs = stream[1],
                               .state_in = states,
                               .state_out = states};
    em_state_reset(states[0]);
    size_t failures = 0;
    for (size_t n = 1;; n++, failures++) {
        em_alloc_fail_at(n, 0);
        const ember_status status =
            em_program_forward(m.program, &(struct em_run){.batch = &batch});
        em_alloc_fail_at(0, 0);
        if (status == EMBER_OK) break;
        assert_int_equal(status, EMBER_E_NOMEM);
        assert_int_equal(states[0]->position, 0);
        assert_int_equal(states[2]->position, 62);
        CHECK_OK(feed(&m, 3, 5, states[2], NULL, found));
        check_same(found, straight);
        assert_true(n < 20);
    }
    assert_true(failures >= 1);
    assert_int_equal(states[2]->position, 65);
    for (size_t s = 0; s < S; s++)
        em_state_destroy(states[s]);
    em_state_destroy(before);
    em_program_destroy(m.program);
}

// Prefill in one program, decode in another; and the state outlives both.
static void programs_of_one_model_share_states(void **state)
{
    (void)state;
    struct model prefill = open_model(T, 1, WINDOW, false),
                 decode = open_model(1, 1, WINDOW, false);
    ember_state *a = new_state(&prefill), *b = new_state(&decode);
    float straight[D], found[D];
    CHECK_OK(feed(&prefill, 0, 8, NULL, a, found));
    CHECK_OK(feed(&prefill, 8, 10, a, a, straight));
    CHECK_OK(feed(&prefill, 0, 8, NULL, b, found));
    CHECK_OK(feed(&decode, 8, 9, b, b, found));
    CHECK_OK(em_state_copy(b, a));
    CHECK_OK(feed(&decode, 9, 10, a, a, found));
    check_same(found, straight);
    em_program_destroy(prefill.program);
    em_program_destroy(decode.program);
    assert_int_equal(a->position, 10);
    CHECK_OK(em_state_copy(b, a));
    assert_int_equal(a->position, 9);
    em_state_destroy(a);
    em_state_destroy(b);
}

static void states_of_other_models_are_refused(void **state)
{
    (void)state;
    struct model m = open_model(T, 1, WINDOW, false), wider = open_model(T, 1, WINDOW + 1, false);
    ember_state *mine = new_state(&m), *other = new_state(&wider);
    float y[D];
    CHECK_FAILS(feed(&m, 0, 2, other, mine, y), EMBER_E_STATE,
                "the state of sequence 0 was made for another model");
    CHECK_FAILS(feed(&m, 0, 2, NULL, other, y), EMBER_E_STATE,
                "the state of sequence 0 was made for another model");
    CHECK_FAILS(em_state_copy(mine, other), EMBER_E_STATE, "different models");
    struct em_state_spec specs[] = {{"a", 1, 2, 3}, {"b", 4, 5, 6}};
    const struct em_state_layout layout = {.spec = specs, .count = 2};
    const struct em_state_spec others[] = {
        {"c", 1, 2, 3}, {"a", 9, 2, 3}, {"a", 1, 9, 3}, {"a", 1, 2, 9}};
    assert_true(em_state_layouts_equal(&layout, &layout));
    assert_false(
        em_state_layouts_equal(&layout, &(struct em_state_layout){.spec = specs, .count = 1}));
    for (size_t i = 0; i < 4; i++) {
        struct em_state_spec changed[] = {others[i], specs[1]};
        assert_false(em_state_layouts_equal(
            &layout, &(struct em_state_layout){.spec = changed, .count = 2}));
    }
    em_state_destroy(mine);
    em_state_destroy(other);
    em_program_destroy(m.program);
    em_program_destroy(wider.program);
}

// One writer each, and what is written is not read by another sequence of the batch.
static void batches_that_mix_states_are_refused(void **state)
{
    (void)state;
    struct model m = open_model(T, S, WINDOW, false), trained = open_model(T, S, WINDOW, true);
    ember_state *a = new_state(&m), *b = new_state(&m), *none = NULL;
    float y[D];
    CHECK_OK(feed(&m, 0, 3, NULL, a, y));
    CHECK_OK(feed(&m, 0, 3, NULL, b, y));
    ember_batch batch = {
        .n_tokens = 3, .n_sequences = 3, .offset = (size_t[]){0, 1, 2, 3}, .inputs = stream[0]};
    struct em_run run = {.batch = &batch};
    batch.state_out = (ember_state *[]){a, none, a};
    CHECK_FAILS(em_program_forward(m.program, &run), EMBER_E_STATE,
                "sequences 0 and 2 of the batch leave one state");
    batch.state_out = (ember_state *[]){none, a, none};
    batch.state_in = (ember_state *[]){b, none, a};
    CHECK_FAILS(em_program_forward(m.program, &run), EMBER_E_STATE,
                "sequence 1 of the batch overwrites the state that sequence 2 starts from");
    batch.state_in = (ember_state *[]){a, b, none};
    CHECK_FAILS(em_program_forward(m.program, &run), EMBER_E_STATE,
                "sequence 1 of the batch overwrites the state that sequence 0 starts from");
    assert_int_equal(a->position, 3);
    batch.state_in = (ember_state *[]){b, a, b}; // many from one, and one in place
    CHECK_OK(em_program_forward(m.program, &run));
    assert_int_equal(a->position, 4);
    assert_int_equal(b->position, 3);
    run.gradients = true;
    CHECK_FAILS(em_program_forward(trained.program, &run), EMBER_E_STATE,
                "backward needs the state that sequence 1 started from");
    a->position = INT32_MAX;
    run.gradients = false;
    CHECK_FAILS(em_program_forward(m.program, &run), EMBER_E_RANGE,
                "sequence 1 is longer than 2147483647 tokens");
    em_state_destroy(a);
    em_state_destroy(b);
    em_program_destroy(m.program);
    em_program_destroy(trained.program);
}

// A batch that is refused, in every way that one can be.
static void impossible_batches_are_refused(void **state)
{
    (void)state;
    struct model m = open_model(T, 2, WINDOW, false);
    const ember_batch good = {
        .n_tokens = 4, .n_sequences = 2, .offset = (size_t[]){0, 2, 4}, .inputs = stream[0]};
    static const struct {
        size_t tokens, sequences, offset[4];
        const char *text;
    } bad[] = {
        {0, 1, {0, 0}, "the batch has 0 tokens, the program takes 1 to 8"},
        {9, 1, {0, 9}, "the batch has 9 tokens"},
        {4, 0, {0}, "the batch has 0 sequences, the program takes 1 to 2"},
        {4, 3, {0, 1, 2, 4}, "the batch has 3 sequences"},
        {4, 2, {1, 2, 4}, "the batch's offsets have to begin at 0 and end at 4"},
        {4, 2, {0, 2, 3}, "the batch's offsets have to begin at 0 and end at 4"},
        {4, 2, {0, 4, 4}, "sequence 1 of the batch has no tokens"},
        {4, 2, {0, 0, 4}, "sequence 0 of the batch has no tokens"},
        {4, 2, {0, 5, 4}, "sequence 1 of the batch has no tokens"},
    };
    CHECK_OK(em_program_forward(m.program, &(struct em_run){.batch = &good}));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ember_batch batch = good;
        batch.n_tokens = bad[i].tokens;
        batch.n_sequences = bad[i].sequences;
        batch.offset = bad[i].offset;
        CHECK_FAILS(em_program_forward(m.program, &(struct em_run){.batch = &batch}), EMBER_E_SHAPE,
                    bad[i].text);
    }
    ember_batch batch = good;
    batch.offset = NULL;
    CHECK_FAILS(em_program_forward(m.program, &(struct em_run){.batch = &batch}), EMBER_E_SHAPE,
                "offsets");
    em_program_destroy(m.program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_go_their_own_ways),
        cmocka_unit_test(copies_without_memory_change_nothing),
        cmocka_unit_test(growth),
        cmocka_unit_test(programs_of_one_model_share_states),
        cmocka_unit_test(states_of_other_models_are_refused),
        cmocka_unit_test(batches_that_mix_states_are_refused),
        cmocka_unit_test(impossible_batches_are_refused),
    };
    return cmocka_run_group_tests(tests, make_stream, NULL);
}
