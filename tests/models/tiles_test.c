// Tiles of rows change memory and nothing else: logits and states are those of the whole batch, bit
// for bit, wherever tiles cut sequences.
#include <string.h>

#include "infer/small_model.h"
#include "ops/program_priv.h"

enum { T = 201, SEQUENCES = 5, WIDE = 259 };

// Lengths about those of tiles and of a short convolution's taps.
static const size_t offsets[SEQUENCES + 1] = {0, 1, 18, 117, 119, T};

struct result {
    float logits[T * WIDE];
    ember_state *state[SEQUENCES];
    size_t runs, bytes;
};

static int32_t tokens[T];

// Two passes, so that the second continues states.
static void run(struct em_model *m, bool bf16, size_t tile_rows, struct result *r)
{
    struct em_program *p;
    struct em_model_outputs outputs;
    struct em_memory_plan plan;
    CHECK_OK(em_program_create(&(struct em_program_options){.backend = EM_CPU,
                                                            .bf16 = bf16,
                                                            .tile_rows = tile_rows,
                                                            .max_tokens = T,
                                                            .max_sequences = SEQUENCES},
                               &p));
    CHECK_OK(em_model_record(m, p, EM_HEAD_ALL, &outputs));
    CHECK_OK(em_program_plan(p, &plan));
    CHECK_OK(em_program_allocate(p));
    r->runs = p->n_runs;
    r->bytes = plan.activations;
    for (size_t s = 0; s < SEQUENCES; s++)
        CHECK_OK(em_state_create(em_program_layout(p), &r->state[s]));
    const ember_batch batch = {.n_tokens = T,
                               .n_sequences = SEQUENCES,
                               .offset = offsets,
                               .tokens = tokens,
                               .state_in = r->state,
                               .state_out = r->state};
    for (int pass = 0; pass < 2; pass++)
        CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch, .loss_scale = 1}));
    assert_int_equal(outputs.logits->dim[0], T);
    memcpy(r->logits, em_f32(outputs.logits), sizeof r->logits);
    em_program_destroy(p);
}

static void check_same(const struct result *whole, const struct result *tiled)
{
    assert_memory_equal(whole->logits, tiled->logits, sizeof whole->logits);
    for (size_t s = 0; s < SEQUENCES; s++) {
        const ember_state *a = whole->state[s], *b = tiled->state[s];
        assert_int_equal(a->position, b->position);
        for (size_t i = 0; i < a->layout.count; i++) {
            const struct em_state_spec *spec = &a->layout.spec[i];
            if (spec->fixed)
                assert_memory_equal(a->slot[i].fixed, b->slot[i].fixed,
                                    spec->fixed * sizeof(float));
            assert_int_equal(a->slot[i].length, b->slot[i].length);
            if (a->slot[i].length)
                assert_memory_equal(a->slot[i].tokens, b->slot[i].tokens,
                                    a->slot[i].length * spec->per_token * sizeof(float));
        }
    }
}

static void free_states(struct result *r)
{
    for (size_t s = 0; s < SEQUENCES; s++)
        em_state_destroy(r->state[s]);
}

static void tiles_change_no_bit(void **state)
{
    (void)state;
    static struct result whole, tiled;
    static const size_t rows[] = {16, 48, 64};
    struct em_model *m = small_model();
    for (size_t t = 0; t < T; t++)
        tokens[t] = (int32_t)(t * t * 7 % WIDE);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        run(m, bf16, T, &whole);
        assert_int_equal(whole.runs, 0);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            run(m, bf16, rows[i], &tiled);
            assert_true(tiled.runs >= 3);
            check_same(&whole, &tiled);
            free_states(&tiled);
        }
        free_states(&whole);
    }
    em_model_close(m);
}

static struct em_model *open_model(const char *config)
{
    json_t *json;
    struct em_model *m;
    CHECK_OK(ember_start());
    CHECK_OK(em_json_parse("config.json", config, strlen(config), 0, &json));
    CHECK_OK(em_model_create(json, "config.json", NULL, &m));
    json_decref(json);
    CHECK_OK(em_model_allocate(m));
    em_model_init(m, 3, NULL);
    return m;
}

// Where the wide rows are those of tiles, memory is what is between the runs.
static void wide_rows_take_a_tile(void **state)
{
    (void)state;
    static struct result whole, tiled;
    struct em_model *m =
        open_model("{\"model_type\": \"ember\", \"vocab_size\": 259, \"hidden_size\": 64,"
                   " \"initializer_range\": 0.3, \"blocks\": [{\"type\": \"pre_norm\","
                   " \"sequence\": {\"type\": \"hyena\", \"filter_length\": 400},"
                   " \"channel\": {\"type\": \"mlp\", \"hidden\": 2048, \"bias\": true}}]}");
    run(m, false, T, &whole);
    run(m, false, 32, &tiled);
    assert_true(tiled.bytes < whole.bytes / 2);
    assert_memory_equal(whole.logits, tiled.logits, sizeof whole.logits);
    free_states(&whole);
    free_states(&tiled);
    em_model_close(m);
}

struct told {
    double last;
    size_t times;
};

static void tell(void *context, double share)
{
    struct told *t = context;
    assert_true(share >= t->last && share <= 1);
    t->last = share;
    t->times++;
}

// The shares of a pass in tiles grow to 1.
static void progress_is_told(void **state)
{
    (void)state;
    struct em_model *m = small_model();
    struct em_program *p;
    struct em_model_outputs outputs;
    struct told told = {0};
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .backend = EM_CPU, .tile_rows = 32, .max_tokens = T, .max_sequences = SEQUENCES},
        &p));
    CHECK_OK(em_model_record(m, p, EM_HEAD_ALL, &outputs));
    CHECK_OK(em_program_allocate(p));
    const ember_batch batch = {
        .n_tokens = T, .n_sequences = SEQUENCES, .offset = offsets, .tokens = tokens};
    CHECK_OK(em_program_forward(
        p, &(struct em_run){.batch = &batch, .loss_scale = 1, .progress = tell, .context = &told}));
    assert_true(told.times > p->n_forward);
    CHECK_NEAR(told.last, 1, 1e-3, "at the end");
    em_program_destroy(p);
    em_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiles_change_no_bit),
        cmocka_unit_test(wide_rows_take_a_tile),
        cmocka_unit_test(progress_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
