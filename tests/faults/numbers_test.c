// labels: unit slow
// timeout: 900
// Numbers that are none, planted in weights, gradients, moments, inputs and files: found in that
// step, with the tensor and the layer named; what was good is kept, and gone on from.
#include <stdlib.h>

#include <ember/forward.h>
#include <ember/infer.h>
#include <ember/train.h>

#include "faults/fixture.h"
#include "faults/glitch.h"
#include "formats/manifest.h"
#include "formats/state.h"
#include "models/diagnose.h"
#include "train/step.h"

static const char *dir, *ids;
static const float wrong[] = {NAN, INFINITY, -INFINITY};
enum { WRONG = sizeof wrong / sizeof *wrong, SLICES = 12, ROWS = 2, PLACES = 8, VOCAB = 259 };

static const char *write_ids(const char *name)
{
    int32_t x[SLICES * ROWS * PLACES];
    for (size_t i = 0; i < sizeof x / sizeof *x; i++)
        x[i] = (int32_t)((i * 37 + i / 7) % VOCAB);
    const size_t shape[] = {SLICES, ROWS, PLACES};
    const char *path = test_path(dir, name);
    const struct em_st_output tensor = {
        .name = "input_ids", .shape = shape, .rank = 3, .dtype = EM_ST_I32, .data = x};
    CHECK_OK(em_safetensors_write(path, &(struct em_st_write){.tensors = &tensor, .count = 1}));
    return path;
}

// ---- a step, and what it is told when something is planted before it ----

struct bench {
    struct em_model *model;
    struct em_trainable trainable;
    struct em_stepper stepper;
    struct em_batches batches;
    struct {
        double weight_decay, beta1, beta2, eps;
    } adamw;
};

static void bench_open(struct bench *b)
{
    *b = (struct bench){.adamw = {0.1, 0.9, 0.95, 1e-8}};
    b->model = fixture_model(FIXTURE_CONFIG);
    CHECK_OK(em_ids_open(ids, VOCAB, &b->batches.ids));
    b->batches.batch = ROWS;
    b->batches.seq = PLACES;
    b->batches.slices = SLICES;
    b->batches.scored = ROWS * (PLACES - 1);
    const struct em_component *c = em_registry_find(EMBER_OPTIMIZER, "adamw");
    CHECK_OK(em_trainable_open(b->model, c->impl, &b->adamw, NULL, &b->trainable));
    CHECK_OK(em_stepper_open(
        b->model, &b->trainable,
        &(struct em_stepper_options){
            .backend = EM_CPU, .batch = ROWS, .seq = PLACES, .accumulate = 1, .seed = 1},
        &b->stepper));
    CHECK_OK(em_stepper_allocate(&b->stepper));
}

static void bench_close(struct bench *b)
{
    em_stepper_close(&b->stepper);
    em_trainable_close(&b->trainable);
    em_ids_close(&b->batches.ids);
    em_model_close(b->model);
}

static ember_status bench_step(struct bench *b, uint64_t step, double lr)
{
    struct em_step_figures figures;
    return em_step(
        &b->stepper,
        &(struct em_step_request){.batches = &b->batches, .step = step, .lr = lr, .clip = 1},
        &figures);
}

static size_t cases;

static void told(const char *what, float value, ember_status status, const char *first,
                 const char *second)
{
    const char *message = ember_last_error();
    if (status != EMBER_E_NUMERIC || !strstr(message, first) || !strstr(message, second))
        fail_msg("%s is %g: %s \"%s\", expected \"%s\" and \"%s\"", what, (double)value,
                 ember_status_name(status), message, first, second);
    cases++;
}

// Of every tensor that the model has: a weight, both moments.
static void a_step_finds_what_is_planted_in_any_tensor(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b);
    const size_t n = b.model->params.count;
    assert_true(n >= 18);
    float *values = em_alloc(b.model->memory_bytes), *moments = em_calloc(2, b.trainable.bytes);
    assert_true(values && moments);
    CHECK_OK(bench_step(&b, 0, 1e-3));
    memcpy(values, b.model->memory, b.model->memory_bytes);
    for (size_t m = 0; m < 2; m++)
        memcpy((char *)moments + m * b.trainable.bytes, b.trainable.moments[m], b.trainable.bytes);
    for (size_t i = 0; i < n; i++) {
        const struct em_param *p = b.model->params.param[i];
        const size_t last = ember_tensor_count(&p->tensor) - 1;
        for (size_t where = 0; where < (p->frozen ? 1 : 3); where++) {
            const float value = wrong[(i + where) % WRONG];
            if (where)
                b.trainable.moments[where - 1][em_trainable_offset(&b.trainable, i) + last] = value;
            else
                em_f32(&p->tensor)[last] = value;
            em_packs_changed(b.model->packs);
            told(p->tensor.name, value, bench_step(&b, 1, 1e-3), "step 2: ", p->tensor.name);
            memcpy(b.model->memory, values, b.model->memory_bytes);
            for (size_t m = 0; m < 2; m++)
                memcpy(b.trainable.moments[m], (char *)moments + m * b.trainable.bytes,
                       b.trainable.bytes);
            em_packs_changed(b.model->packs);
        }
    }
    // All was put back, so nothing is wrong any more.
    CHECK_OK(bench_step(&b, 1, 1e-3));
    em_free(values);
    em_free(moments);
    bench_close(&b);
}

static void a_step_that_is_too_long_is_found_at_once(void **state)
{
    (void)state;
    static const double lr[] = {1e39, NAN, INFINITY};
    for (size_t i = 0; i < 3; i++) {
        struct bench b;
        bench_open(&b);
        CHECK_OK(bench_step(&b, 0, 1e-3));
        told("the learning rate", (float)lr[i], bench_step(&b, 1, lr[i]), "step 2: the update of ",
             "learning rate");
        bench_close(&b);
    }
}

// ---- whole runs ----

#define GLITCH_MODEL                                                                               \
    "{\"model_type\": \"ember\", \"vocab_size\": 259, \"hidden_size\": 16, \"blocks\": ["          \
    "{\"type\": \"pre_norm\", \"sequence\": \"short_conv\", \"channel\": {\"type\": \"swiglu\","   \
    " \"hidden\": 16}}, {\"type\": \"pre_norm\", \"sequence\": \"short_conv\","                    \
    " \"channel\": \"glitch\"}, {\"type\": \"pre_norm\", \"sequence\": \"short_conv\"}]}"

static const char *run_recipe;

static ember_status run(const char *out, bool resume)
{
    ember_train_result result = {0};
    const ember_status status = ember_train(
        &(ember_train_options){
            .runtime = {.threads = 2}, .recipe = run_recipe, .out = out, .resume = resume},
        &result);
    ember_train_result_deinit(&result);
    return status;
}

static void same_file(const char *a, const char *b, const char *name)
{
    struct em_buf x = {0}, y = {0};
    CHECK_OK(em_read_file(test_path(a, name), 0, &x));
    CHECK_OK(em_read_file(test_path(b, name), 0, &y));
    if (x.size != y.size || memcmp(x.data, y.data, x.size) != 0) fail_msg("%s differs", name);
    em_buf_deinit(&x);
    em_buf_deinit(&y);
}

// The step in which it goes wrong is past those that measure the time, so it is reached but once.
static void runs_stop_and_are_gone_on_with(void **state)
{
    (void)state;
    static const struct {
        enum glitch_kind kind;
        const char *what;
        unsigned kept; // step of the state that stays
    } fault[] = {
        {GLITCH_FORWARD,
         "glitch of layer blocks.1.channel is the first to give a number that is "
         "not finite; the reference backend agrees",
         7},
        {GLITCH_KERNEL,
         "blocks.1.channel is the first to give a number that is not finite; the "
         "reference backend, which sums in double, gives finite numbers",
         7},
        {GLITCH_ONCE, "the fault was transient", 7},
        {GLITCH_GRADIENT, "not its gradient: on the way back from it blocks.1.channel.weight", 7},
        {GLITCH_WEIGHT, "blocks.1.channel.weight", 6},
    };
    const char *whole = test_path(dir, "whole"), *out = test_path(dir, "out");
    glitch.kind = GLITCH_NONE;
    CHECK_OK(run(whole, false));
    for (size_t i = 0; i < sizeof fault / sizeof *fault; i++)
        for (size_t w = 0; w < 2; w++) {
            char kept[64];
            uint64_t step;
            char *path = NULL;
            glitch = (struct glitch){.kind = fault[i].kind, .step = 7, .value = wrong[w]};
            told(fault[i].what, wrong[w], run(out, false), "step 8: ", fault[i].what);
            snprintf(kept, sizeof kept, "the state after step %u is kept", fault[i].kept);
            if (!strstr(ember_last_error(), kept))
                fail_msg("\"%s\" and not \"%s\"", ember_last_error(), kept);
            CHECK_OK(em_state_find(out, &path, &step));
            assert_int_equal(step, fault[i].kept);
            em_free(path);
            glitch.kind = GLITCH_NONE;
            CHECK_OK(run(out, true));
            same_file(whole, out, "model.safetensors");
            same_file(whole, out, "best/model.safetensors");
            CHECK_OK(em_remove_tree(out));
        }
}

// ---- models that are opened ----

static const char *model_with(const char *tensor, float value, bool all)
{
    const char *folder = test_path(dir, "planted");
    struct em_model *m = fixture_model(FIXTURE_CONFIG);
    const struct em_param *p = em_params_find(&m->params, tensor);
    assert_non_null(p);
    for (size_t i = 0; i < ember_tensor_count(&p->tensor); i++)
        if (all || i == 3) em_f32(&p->tensor)[i] = value;
    CHECK_OK(em_model_save_config(m, folder, EM_ST_F32));
    CHECK_OK(em_model_save_weights(m, test_path(folder, "model.safetensors"), EM_ST_F32));
    em_model_close(m);
    return folder;
}

static void files_with_such_weights_are_refused(void **state)
{
    (void)state;
    struct em_model *m = fixture_model(FIXTURE_CONFIG);
    const char *folder = test_path(dir, "planted");
    CHECK_OK(em_make_directories(folder));
    CHECK_OK(em_model_save_config(m, folder, EM_ST_F32));
    for (size_t i = 0; i < m->n_file_tensors; i++) {
        const struct em_file_tensor *f = &m->file_tensor[i];
        float *x = em_f32(&f->param->tensor) + f->offset + f->count - 1;
        const float before = *x;
        *x = wrong[i % WRONG];
        CHECK_OK(em_model_save_weights(m, test_path(folder, "model.safetensors"), EM_ST_F32));
        *x = before;
        ember_model *opened;
        told(f->name, wrong[i % WRONG], ember_model_open(folder, NULL, &opened), f->name,
             "planted/model.safetensors: tensor ");
    }
    em_model_close(m);
}

// Every weight is finite, what is made of them is not: told, and no garbage is given out.
static void numbers_that_overflow_are_no_answers(void **state)
{
    (void)state;
    static const struct {
        const char *tensor, *layer;
    } large[] = {
        {"blocks.0.sequence.in_proj.weight", "of layer blocks.0"},
        {"blocks.1.sequence.q_norm.weight", "of layer blocks.1.sequence"},
        {"blocks.1.channel_norm.weight", "of layer blocks.1"},
        {"final_norm.weight", "of layer "},
    };
    const char *in = test_path(dir, "rows.safetensors"), *out = test_path(dir, "answer");
    static const char old[] = "the answer of before";
    int32_t tokens[10];
    const size_t shape[] = {2, 5};
    for (int32_t i = 0; i < 10; i++)
        tokens[i] = 20 * i;
    CHECK_OK(em_safetensors_write(
        in, &(struct em_st_write){
                .tensors = &(struct em_st_output){"input_ids", shape, tokens, 2, EM_ST_I32},
                .count = 1}));
    const char *text = fixture_text(dir, "text.txt", 3, 200);
    struct em_tokenizer *t;
    CHECK_OK(em_tokenizer_bytes(&t));
    CHECK_OK(em_tokenizer_save(t, test_path(dir, "planted")));
    em_tokenizer_close(t);
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        const char *folder = model_with(large[i].tensor, 3e38f, true);
        const ember_model_options options = {.runtime = {.threads = 1}};
        ember_model *m;
        CHECK_OK(ember_model_open(folder, &options, &m));
        told(large[i].tensor, 3e38f,
             ember_generate(m, &(ember_request){.ids = tokens, .n_ids = 5, .max_tokens = 3}, 1),
             "the model's ", large[i].layer);
        ember_evaluation score;
        told(large[i].tensor, 3e38f, ember_eval(m, &text, 1, NULL, &score),
             "the loss is not finite", large[i].layer);
        ember_model_close(m);
        for (int mode = 0; mode < 3; mode++) {
            const ember_forward_options how = {
                .runtime = {.threads = 1}, .gradients = mode == 1, .chunk = mode == 2 ? 2 : 0};
            CHECK_OK(em_write_file(out, old, strlen(old)));
            told(large[i].tensor, 3e38f, ember_forward_file(folder, in, out, &how),
                 "logits of row 0 are not finite", large[i].layer);
            fixture_check_file(out, old);
        }
    }
}

// ---- data ----

static void inputs_that_are_no_numbers_are_refused(void **state)
{
    (void)state;
    enum { B = 2, T = 3, D = 4 };
    const char *folder = test_path(dir, "vectors"), *in = test_path(dir, "vectors.safetensors");
    struct em_model *m =
        fixture_model("{\"model_type\": \"ember\", \"vocab_size\": 0, \"hidden_size\": 4,"
                      " \"blocks\": [{\"type\": \"pre_norm\", \"sequence\": \"short_conv\"}]}");
    CHECK_OK(em_make_directories(folder));
    CHECK_OK(em_model_save_config(m, folder, EM_ST_F32));
    CHECK_OK(em_model_save_weights(m, test_path(folder, "model.safetensors"), EM_ST_F32));
    em_model_close(m);
    static const float bad_span[] = {NAN, INFINITY, 0, -1};
    for (size_t i = 0; i < WRONG + 4; i++) {
        float x[B * T * D], spans[B * T];
        fill_random(x, B * T * D, i);
        for (size_t j = 0; j < B * T; j++)
            spans[j] = 1;
        if (i < WRONG)
            x[5] = wrong[i];
        else
            spans[2] = bad_span[i - WRONG];
        const size_t shape[] = {B, T, D};
        const struct em_st_output tensor[] = {{"inputs", shape, x, 3, EM_ST_F32},
                                              {"timespans", shape, spans, 2, EM_ST_F32}};
        CHECK_OK(em_safetensors_write(in, &(struct em_st_write){.tensors = tensor, .count = 2}));
        CHECK_FAILS(ember_forward_file(folder, in, test_path(dir, "answer"), NULL), EMBER_E_RANGE,
                    i < WRONG ? "vectors.safetensors: inputs[5] is "
                              : "vectors.safetensors: timespans[2] is ");
        cases++;
    }
}

static void moments_of_a_state_are_looked_at(void **state)
{
    (void)state;
    glitch.kind = GLITCH_NONE;
    const char *out = test_path(dir, "moments");
    CHECK_OK(run(out, false));
    char *path = NULL;
    uint64_t step;
    CHECK_OK(em_state_find(out, &path, &step));
    // A state that was whole when it was written, and not what it should have been.
    const char *file = test_path(path, "optimizer.safetensors");
    struct em_safetensors *f;
    struct em_buf bytes = {0};
    CHECK_OK(em_read_file(file, 0, &bytes));
    CHECK_OK(em_safetensors_parse(file, (const unsigned char *)bytes.data, bytes.size, &f));
    const struct em_st_tensor *t = em_safetensors_find(f, "moment2.final_norm.weight");
    assert_non_null(t);
    memcpy(bytes.data + (t->data - (const unsigned char *)bytes.data) + 4, &wrong[1], 4);
    em_safetensors_close(f);
    char *hashes = memmem(bytes.data, bytes.size, EM_ST_HASHES, strlen(EM_ST_HASHES));
    assert_non_null(hashes);
    *hashes = 'E'; // a key that nobody reads: the hashes are those of the moments before
    CHECK_OK(em_write_file(file, bytes.data, bytes.size));
    em_buf_deinit(&bytes);
    struct em_manifest manifest;
    CHECK_OK(em_manifest_scan(path, step, &manifest));
    CHECK_OK(em_manifest_write(path, &manifest));
    em_manifest_deinit(&manifest);
    em_free(path);
    told("a moment", wrong[1], run(out, true), "optimizer.safetensors",
         "moment2.final_norm.weight");
}

static void enough_was_planted(void **state)
{
    (void)state;
    print_message("%zu cases\n", cases);
    assert_true(cases >= 60);
}

static int start(void **state)
{
    char json[2048];
    if (fixture_quietly(state)) return -1;
    glitch_register();
    dir = test_directory();
    ids = write_ids("ids.safetensors");
    snprintf(json, sizeof json,
             "{\"model\": %s, \"data\": {\"ids\": \"%s\"}, \"train\": {\"steps\": 10, \"lr\": 0.01,"
             " \"save_every\": 3}}",
             GLITCH_MODEL, ids);
    run_recipe = fixture_write(dir, "recipe.json", json);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_finds_what_is_planted_in_any_tensor),
        cmocka_unit_test(a_step_that_is_too_long_is_found_at_once),
        cmocka_unit_test(runs_stop_and_are_gone_on_with),
        cmocka_unit_test(files_with_such_weights_are_refused),
        cmocka_unit_test(numbers_that_overflow_are_no_answers),
        cmocka_unit_test(inputs_that_are_no_numbers_are_refused),
        cmocka_unit_test(moments_of_a_state_are_looked_at),
        cmocka_unit_test(enough_was_planted),
    };
    return cmocka_run_group_tests_name("faults/numbers", tests, start, NULL);
}
