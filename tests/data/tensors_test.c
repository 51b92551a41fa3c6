// Float sequences from a file: what is read, what is refused, and the error that training lessens.
#include "data/tensors.h"

#include <ember/ops.h>
#include <math.h>
#include <string.h>

#include "ops/program.h"
#include "support/check.h"

static float inputs[2 * 2 * 3 * 2], spans[2 * 2 * 3], targets[2 * 2 * 3];
static int32_t labels[4] = {1, 0, 2, 1}, lengths[4] = {3, 1, 2, 3};

static struct em_st_output output(const char *name, const size_t *shape, size_t rank,
                                  enum em_st_dtype dtype, const void *data)
{
    return (struct em_st_output){
        .name = name, .shape = shape, .rank = rank, .dtype = dtype, .data = data};
}

static const char *write(bool with_labels, bool with_targets, const char *name)
{
    static const size_t four[] = {2, 2, 3, 2}, made[] = {2, 2, 3, 1};
    const char *path = test_path(test_directory(), name);
    struct em_st_output t[5];
    size_t n = 0;
    for (size_t i = 0; i < 24; i++)
        inputs[i] = (float)i;
    for (size_t i = 0; i < 12; i++)
        spans[i] = 1 + (float)i, targets[i] = -(float)i;
    t[n++] = output("inputs", four, 4, EM_ST_F32, inputs);
    t[n++] = output("timespans", four, 3, EM_ST_F32, spans);
    t[n++] = output("lengths", four, 2, EM_ST_I32, lengths);
    if (with_labels) t[n++] = output("labels", four, 2, EM_ST_I32, labels);
    if (with_targets) t[n++] = output("targets", made, 4, EM_ST_F32, targets);
    CHECK_OK(em_safetensors_write(path, &(struct em_st_write){.tensors = t, .count = n}));
    return path;
}

static void rows_are_packed(void **state)
{
    (void)state;
    struct em_tensor_source s;
    struct em_packed p = {0};
    CHECK_OK(em_tensors_open(write(true, false, "labels.safetensors"),
                             &(struct em_tensor_columns){.in = 2, .out = 3}, &s));
    assert_int_equal(s.slices, 2);
    assert_int_equal(em_tensors_scored(&s, 0), 2);
    CHECK_OK(em_tensors_fill(&s, 3, 0, 2, &p)); // the second slice, again
    assert_int_equal(p.batch.n_tokens, 5);
    assert_int_equal(p.batch.n_sequences, 2);
    assert_int_equal(p.batch.offset[1], 2);
    assert_true(p.batch.inputs[0] == 12 && p.batch.inputs[4] == 18);
    assert_true(p.batch.timespans[1] == 8 && p.batch.timespans[2] == 10);
    static const int32_t expected[] = {-100, 2, -100, -100, 1};
    assert_memory_equal(p.batch.targets, expected, sizeof expected);
    em_tensors_close(&s);
    CHECK_OK(em_tensors_open(write(false, true, "targets.safetensors"),
                             &(struct em_tensor_columns){.in = 2, .out = 1}, &s));
    assert_int_equal(em_tensors_scored(&s, 0), 4);
    assert_int_equal(em_tensors_scored(&s, 1), 5);
    CHECK_OK(em_tensors_fill(&s, 0, 1, 1, &p));
    assert_int_equal(p.batch.n_tokens, 1);
    assert_true(p.values[0] == -3 && p.batch.targets[0] == 0);
    em_tensors_close(&s);
    em_packed_deinit(&p);
}

// Places that were not observed are left out; their time is the next one's.
static void masked_places_are_left_out(void **state)
{
    (void)state;
    static const size_t four[] = {1, 2, 4, 1};
    static const float x[] = {1, 2, 3, 4, 5, 6, 7, 8},
                       span[] = {1, 0.5f, 0.25f, 2, 3, 1, 1, 0.125f};
    static int32_t mask[] = {1, 0, 0, 1, 0, 1, 1, 0}, label[] = {1, 0},
                   at[] = {3, -100, 1, 2, 4, 5, 0, 2};
    static const size_t offset[] = {0, 2, 4};
    struct em_packed p = {0};
    struct em_tensor_source s;
    const char *path = test_path(test_directory(), "mask.safetensors");
    for (int places = 0; places < 2; places++)
        for (int timed = 0; timed < 2; timed++) {
            struct em_st_output t[4];
            size_t n = 0;
            t[n++] = output("inputs", four, 4, EM_ST_F32, x);
            t[n++] = output("mask", four, 3, EM_ST_I32, mask);
            t[n++] = output("labels", four, places ? 3 : 2, EM_ST_I32, places ? at : label);
            if (timed) t[n++] = output("timespans", four, 3, EM_ST_F32, span);
            CHECK_OK(em_safetensors_write(path, &(struct em_st_write){.tensors = t, .count = n}));
            CHECK_OK(em_tensors_open(path, &(struct em_tensor_columns){.in = 1, .out = 6}, &s));
            CHECK_OK(em_tensors_fill(&s, 0, 0, 2, &p));
            static const float kept[] = {1, 4, 6, 7}, ones[] = {1, 3, 2, 1},
                               sums[] = {1, 2.75f, 4, 1};
            static const int32_t last[] = {-100, 1, -100, 0}, each[] = {3, 2, 5, 0};
            assert_memory_equal(p.batch.offset, offset, sizeof offset);
            assert_memory_equal(p.batch.inputs, kept, sizeof kept);
            assert_memory_equal(p.batch.timespans, timed ? sums : ones, sizeof ones);
            assert_memory_equal(p.batch.targets, places ? each : last, sizeof last);
            assert_int_equal(em_tensors_scored(&s, 0), places ? 4 : 2);
            em_tensors_close(&s);
        }
    em_packed_deinit(&p);
    mask[0] = mask[3] = 0;
    const struct em_st_output t[] = {output("inputs", four, 4, EM_ST_F32, x),
                                     output("mask", four, 3, EM_ST_I32, mask),
                                     output("labels", four, 2, EM_ST_I32, label)};
    CHECK_OK(em_safetensors_write(path, &(struct em_st_write){.tensors = t, .count = 3}));
    CHECK_FAILS(em_tensors_open(path, &(struct em_tensor_columns){.in = 1, .out = 6}, &s),
                EMBER_E_RANGE, "mask leaves nothing of sequence 0 of slice 0");
}

static void other_files_are_refused(void **state)
{
    (void)state;
    struct em_tensor_source s;
    CHECK_FAILS(em_tensors_open(write(false, false, "a.safetensors"),
                                &(struct em_tensor_columns){.in = 2, .out = 1}, &s),
                EMBER_E_FORMAT, "either targets");
    CHECK_FAILS(em_tensors_open(write(true, true, "b.safetensors"),
                                &(struct em_tensor_columns){.in = 2, .out = 3}, &s),
                EMBER_E_FORMAT, "either targets");
    CHECK_FAILS(em_tensors_open(write(true, false, "c.safetensors"),
                                &(struct em_tensor_columns){.in = 2, .out = 2}, &s),
                EMBER_E_RANGE, "labels[2] is 2; it has to be 0 to 1");
    CHECK_FAILS(em_tensors_open(write(true, false, "d.safetensors"),
                                &(struct em_tensor_columns){.in = 3, .out = 3}, &s),
                EMBER_E_SHAPE, "inputs has to be F32");
    lengths[1] = 4;
    CHECK_FAILS(em_tensors_open(write(true, false, "e.safetensors"),
                                &(struct em_tensor_columns){.in = 2, .out = 3}, &s),
                EMBER_E_RANGE, "lengths[1] is 4; it has to be 1 to 3");
    lengths[1] = 1;
}

// loss = scale * sum of (w x - value)^2, dw = scale * sum of 2 (w x - value) x.
static void squared_errors_and_their_slope(void **state)
{
    (void)state;
    static float w[] = {0.5f}, dw[1];
    static const float x[] = {1, -2, 3}, value[] = {2, 1, -1};
    const size_t offset[] = {0, 3};
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        struct em_program *p;
        ember_tensor weight, grad, *in, *y, *loss, *error;
        CHECK_OK(em_tensor_init(&weight, EMBER_F32, (size_t[]){1, 1}, 2, w));
        CHECK_OK(em_tensor_init(&grad, EMBER_F32, (size_t[]){1, 1}, 2, dw));
        weight.grad = &grad;
        dw[0] = 0;
        CHECK_OK(em_program_create(&(struct em_program_options){.backend = (enum em_backend)backend,
                                                                .max_tokens = 3,
                                                                .max_sequences = 1,
                                                                .gradients = true},
                                   &p));
        CHECK_OK(ember_inputs(em_program_flow(p), 1, &in));
        CHECK_OK(ember_linear(em_program_flow(p), in, &weight, NULL, NULL, &y));
        CHECK_OK(ember_squared_error(em_program_flow(p), y, &loss, &error));
        em_program_output(p, error);
        em_program_loss(p, loss);
        CHECK_OK(em_program_allocate(p));
        const ember_batch batch = {.n_tokens = 3, .n_sequences = 1, .offset = offset, .inputs = x};
        struct em_run run = {.batch = &batch, .gradients = true, .loss_scale = 0.5};
        CHECK_FAILS(em_program_forward(p, &run), EMBER_E_SHAPE, "the loss needs values");
        run.values = value;
        CHECK_OK(em_program_forward(p, &run));
        CHECK_OK(em_program_backward(p));
        CHECK_NEAR(em_f32(loss)[0], 0.5 * (2.25 + 4 + 6.25), 1e-6, "loss");
        CHECK_NEAR(em_f32(error)[2], 6.25, 1e-6, "error");
        CHECK_NEAR(dw[0], 0.5 * 2 * (-1.5 * 1 + -2.0 * -2 + 2.5 * 3), 1e-5, "slope");
        em_program_destroy(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_packed),
        cmocka_unit_test(masked_places_are_left_out),
        cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(squared_errors_and_their_slope),
    };
    return cmocka_run_group_tests_name("data/tensors", tests, NULL, NULL);
}
