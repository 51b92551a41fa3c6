// Forward passes from file to file over models of `inputs`: outputs, loss and gradients, pieces
// through the carried state, time spans; and what a file that does not fit is told.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "formats/safetensors.h"
#include "models/model.h"
#include "support/check.h"

#include <ember/forward.h>

enum { B = 2, T = 7, I = 3, M = 5 };

#define CONFIG(rest)                                                                               \
    "{\"model_type\": \"ember\", \"vocab_size\": 0, \"hidden_size\": 8, \"initializer_range\": "   \
    "0.4," rest " \"blocks\": [{\"type\": \"pre_norm\", \"sequence\": \"short_conv\"},"            \
    " {\"type\": \"pre_norm\", \"sequence\": {\"type\": \"attention\", \"heads\": 2},"             \
    " \"channel\": {\"type\": \"swiglu\", \"hidden\": 12}}]}"

static const char *make_model(const char *text)
{
    const char *folder = test_directory();
    struct em_model *m;
    json_t *config;
    CHECK_OK(ember_start());
    CHECK_OK(em_json_parse("config.json", text, strlen(text), 0, &config));
    CHECK_OK(em_model_create(config, "config.json", NULL, &m));
    json_decref(config);
    CHECK_OK(em_model_allocate(m));
    em_model_init(m, 5, NULL);
    CHECK_OK(em_model_save_config(m, folder, EM_ST_F32));
    CHECK_OK(em_model_save_weights(m, test_path(folder, "model.safetensors"), EM_ST_F32));
    em_model_close(m);
    return folder;
}

// One scratch folder for all that these tests write beside their models.
static const char *scratch(const char *name)
{
    static const char *folder;
    if (!folder) folder = test_directory();
    return test_path(folder, name);
}

static const char *write_tensors(const struct em_st_output *tensors, size_t count)
{
    const char *path = scratch("in.safetensors");
    CHECK_OK(em_safetensors_write(path, &(struct em_st_write){.tensors = tensors, .count = count}));
    return path;
}

static float inputs[B * T * 8], spans[B * T];

static const char *input_file(size_t width)
{
    fill_random(inputs, B * T * width, 9);
    for (size_t i = 0; i < B * T; i++)
        spans[i] = 0.5f + (float)i;
    const size_t shape[] = {B, T, width}, flat[] = {B, T};
    return write_tensors(
        (const struct em_st_output[]){
            {.name = "inputs", .shape = shape, .rank = 3, .dtype = EM_ST_F32, .data = inputs},
            {.name = "timespans", .shape = flat, .rank = 2, .dtype = EM_ST_F32, .data = spans},
            {.name = "labels", .shape = flat, .rank = 2, .dtype = EM_ST_F32, .data = spans},
        },
        3);
}

static float *read_tensor(const char *path, const char *name, const size_t *shape, size_t rank)
{
    struct em_safetensors *file;
    CHECK_OK(em_safetensors_open(path, &file));
    const struct em_st_tensor *t = em_safetensors_find(file, name);
    if (!t) fail_msg("%s is not in the answer", name);
    assert_int_equal(t->rank, rank);
    assert_memory_equal(t->shape, shape, rank * sizeof *shape);
    float *values = em_alloc(t->elements * sizeof *values);
    assert_non_null(values);
    CHECK_OK(em_st_tensor_f32(t, values));
    em_safetensors_close(file);
    return values;
}

static double loss_of(const char *model, const char *in)
{
    const char *out = scratch("loss.safetensors");
    const ember_forward_options options = {.runtime = {.backend = EMBER_BACKEND_REFERENCE},
                                           .gradients = true};
    CHECK_OK(ember_forward_file(model, in, out, &options));
    float *loss = read_tensor(out, "loss", (size_t[]){1}, 1);
    const double value = (double)*loss;
    em_free(loss);
    return value;
}

static const char *const configs[] = {
    CONFIG("\"input_size\": 3, \"output_size\": 5,"),
    CONFIG(""), // no matrices at either end
};

static void the_loss_is_the_mean_of_squared_outputs(void **state)
{
    (void)state;
    for (size_t c = 0; c < 2; c++)
        for (int backend = EMBER_BACKEND_REFERENCE; backend <= EMBER_BACKEND_CPU; backend++) {
            const size_t width = c ? 8 : M, shape[] = {B, T, width};
            const char *model = make_model(configs[c]), *in = input_file(c ? 8 : I);
            const char *out = test_path(model, "out.safetensors");
            const ember_forward_options options = {.runtime = {.backend = (ember_backend)backend},
                                                   .gradients = true};
            CHECK_OK(ember_forward_file(model, in, out, &options));
            float *y = read_tensor(out, "outputs", shape, 3),
                  *loss = read_tensor(out, "loss", (size_t[]){1}, 1);
            double sum = 0;
            for (size_t i = 0; i < B * T * width; i++)
                sum += (double)y[i] * (double)y[i];
            assert_true(sum > 0);
            CHECK_NEAR(loss[0], sum / (double)(B * T * width), 1e-5, "config %zu", c);
            em_free(y);
            em_free(loss);
        }
}

// Central differences of the loss in a few values of every parameter, through the files.
static void gradients_are_those_of_the_loss(void **state)
{
    (void)state;
    const char *folder = make_model(configs[0]), *in = input_file(I);
    const char *out = scratch("out.safetensors"), *weights = test_path(folder, "model.safetensors");
    struct em_model *m;
    CHECK_OK(ember_forward_file(folder, in, out, &(ember_forward_options){.gradients = true}));
    CHECK_OK(em_model_open(folder, &m));
    struct em_safetensors *file;
    CHECK_OK(em_safetensors_open(out, &file));
    assert_int_equal(em_safetensors_count(file), 2 + m->n_file_tensors);
    em_safetensors_close(file);
    for (size_t i = 0; i < m->n_file_tensors; i++) {
        const struct em_file_tensor *f = &m->file_tensor[i];
        char name[128];
        snprintf(name, sizeof name, "grad.%s", f->name);
        float *g = read_tensor(out, name, f->dim, f->ndim), *w = em_f32(&f->param->tensor);
        const size_t at = f->count / 2;
        const float old = w[at], step = 1e-2f;
        double loss[2];
        for (int side = 0; side < 2; side++) {
            w[at] = side ? old - step : old + step;
            CHECK_OK(em_model_save_weights(m, weights, EM_ST_F32));
            loss[side] = loss_of(folder, in);
        }
        w[at] = old;
        CHECK_NEAR(g[at], (loss[0] - loss[1]) / (2 * (double)step), 3e-3, "%s", name);
        em_free(g);
    }
    em_model_close(m);
}

static void pieces_give_what_the_whole_gives(void **state)
{
    (void)state;
    const char *model = make_model(configs[0]), *in = input_file(I),
               *out = test_path(model, "out.safetensors");
    const size_t shape[] = {B, T, M};
    ember_forward_options options = {0};
    CHECK_OK(ember_forward_file(model, in, out, &options));
    float *whole = read_tensor(out, "outputs", shape, 3);
    for (options.chunk = 1; options.chunk <= T + 1; options.chunk += 2) {
        CHECK_OK(ember_forward_file(model, in, out, &options));
        float *pieces = read_tensor(out, "outputs", shape, 3);
        for (size_t i = 0; i < B * T * M; i++)
            CHECK_NEAR(pieces[i], whole[i], 1e-5, "chunk %zu, %zu", options.chunk, i);
        em_free(pieces);
    }
    em_free(whole);
}

// A row with what the mask leaves of it as a file of its own, in which the spans have the time of
// what was left out.
static const char *row_alone(size_t row, const int32_t *mask, bool timed, size_t *n)
{
    static float x[T * I], span[T];
    float gap = 0;
    *n = 0;
    for (size_t t = row * T; t < (row + 1) * T; t++) {
        const float own = timed ? spans[t] : 1;
        if (!mask[t]) {
            gap += own;
            continue;
        }
        memcpy(x + *n * I, inputs + t * I, I * sizeof *x);
        span[(*n)++] = own + gap;
        gap = 0;
    }
    const size_t shape[] = {1, *n, I};
    const char *path = scratch("row.safetensors");
    CHECK_OK(em_safetensors_write(
        path,
        &(struct em_st_write){
            .tensors =
                (const struct em_st_output[]){
                    {.name = "inputs", .shape = shape, .rank = 3, .dtype = EM_ST_F32, .data = x},
                    {.name = "timespans",
                     .shape = shape,
                     .rank = 2,
                     .dtype = EM_ST_F32,
                     .data = span}},
            .count = 2}));
    return path;
}

static const char *masked_file(const void *mask, enum em_st_dtype dtype, const size_t *shape,
                               bool timed)
{
    static const size_t full[] = {B, T, I}, flat[] = {B, T};
    (void)input_file(I);
    struct em_st_output t[3] = {
        {.name = "inputs", .shape = full, .rank = 3, .dtype = EM_ST_F32, .data = inputs},
        {.name = "mask", .shape = shape ? shape : flat, .rank = 2, .dtype = dtype, .data = mask},
        {.name = "timespans", .shape = flat, .rank = 2, .dtype = EM_ST_F32, .data = spans}};
    return write_tensors(t, timed ? 3 : 2);
}

// The last row ends in places that were not observed: they change nothing.
static void masked_places_are_as_if_they_were_not_there(void **state)
{
    (void)state;
    static const char *const cells[] = {"cfc", "ltc", "gru"};
    static const int32_t mask[B * T] = {0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 0};
    const size_t shape[] = {B, T, M};
    for (size_t c = 0; c < 6; c++) {
        char text[400];
        const bool timed = c % 2;
        snprintf(text, sizeof text,
                 "{\"model_type\": \"ember\", \"vocab_size\": 0, \"hidden_size\": 8, "
                 "\"input_size\": 3, \"output_size\": 5, \"initializer_range\": 0.4, \"blocks\": "
                 "[{\"type\": \"pre_norm\", \"sequence\": \"%s\"}]}",
                 cells[c / 2]);
        const char *model = make_model(text), *out = test_path(model, "out.safetensors"),
                   *alone = test_path(model, "alone.safetensors");
        ember_forward_options options = {.masked = true, .gradients = true};
        CHECK_OK(
            ember_forward_file(model, masked_file(mask, EM_ST_I32, NULL, timed), out, &options));
        float *y = read_tensor(out, "outputs", shape, 3),
              *loss = read_tensor(out, "loss", (size_t[]){1}, 1);
        double sum = 0;
        size_t seen = 0;
        for (size_t row = 0; row < B; row++) {
            size_t n, at = 0;
            const char *in = row_alone(row, mask, timed, &n);
            CHECK_OK(ember_forward_file(model, in, alone, NULL));
            float *z = read_tensor(alone, "outputs", (size_t[]){1, n, M}, 3);
            for (size_t t = 0; t < T; t++)
                for (size_t m = 0; m < M; m++) {
                    const double value = (double)y[(row * T + t) * M + m];
                    CHECK_NEAR(value, mask[row * T + t] ? z[at * M + m] : 0, 0, "%s, %zu, %zu",
                               cells[c / 2], row, t);
                    sum += value * value;
                    if (m == M - 1) at += (size_t)mask[row * T + t];
                }
            seen += n;
            em_free(z);
        }
        CHECK_NEAR(*loss, sum / (double)(seen * M), 1e-6, "%s", cells[c / 2]);
        em_free(loss);
        for (options = (ember_forward_options){.masked = true, .chunk = 1}; options.chunk < 7;
             options.chunk += 2) {
            CHECK_OK(ember_forward_file(model, masked_file(mask, EM_ST_I32, NULL, timed), out,
                                        &options));
            float *pieces = read_tensor(out, "outputs", shape, 3);
            for (size_t i = 0; i < B * T * M; i++)
                CHECK_NEAR(pieces[i], y[i], 1e-5, "chunk %zu, %zu", options.chunk, i);
            em_free(pieces);
        }
        em_free(y);
    }
}

// Without being asked for, a mask is a tensor like any other that is not read.
static void a_mask_is_read_where_it_is_asked_for(void **state)
{
    (void)state;
    const char *model = make_model(configs[0]), *out = scratch("mask-out.safetensors");
    static int32_t mask[B * T];
    static int64_t wide[B * T];
    const ember_forward_options options = {.masked = true};
    const size_t turned[] = {T, B};
    CHECK_OK(ember_forward_file(model, masked_file(mask, EM_ST_I32, NULL, true), out, NULL));
    CHECK_FAILS(ember_forward_file(model, masked_file(mask, EM_ST_I32, NULL, true), out, &options),
                EMBER_E_RANGE, "mask leaves nothing of row 0");
    for (size_t i = 0; i < B * T; i++)
        mask[i] = 1;
    CHECK_OK(ember_forward_file(model, masked_file(mask, EM_ST_I32, NULL, true), out, &options));
    mask[3] = 2;
    CHECK_FAILS(ember_forward_file(model, masked_file(mask, EM_ST_I32, NULL, true), out, &options),
                EMBER_E_RANGE, "mask[3] is 2; it has to be 0 or 1");
    CHECK_FAILS(
        ember_forward_file(model, masked_file(mask, EM_ST_I32, turned, true), out, &options),
        EMBER_E_SHAPE, "mask has to be [2, 7] of I32 or I64");
    CHECK_FAILS(ember_forward_file(model, masked_file(mask, EM_ST_F32, NULL, true), out, &options),
                EMBER_E_SHAPE, "mask has to be [2, 7] of I32 or I64");
    for (size_t i = 0; i < T; i++)
        wide[i] = 1;
    CHECK_FAILS(ember_forward_file(model, masked_file(wide, EM_ST_I64, NULL, true), out, &options),
                EMBER_E_RANGE, "mask leaves nothing of row 1");
    CHECK_FAILS(ember_forward_file(model, input_file(I), out, &options), EMBER_E_FORMAT,
                "has no tensor mask, which was asked for");
}

static void refused(const char *model, const struct em_st_output *tensors, size_t count,
                    ember_status status, const char *message)
{
    const char *in = write_tensors(tensors, count), *out = scratch("refused.safetensors");
    CHECK_FAILS(ember_forward_file(model, in, out, NULL), status, message);
    if (!strstr(ember_last_error(), in)) fail_msg("no file in \"%s\"", ember_last_error());
    assert_false(em_path_exists(out));
}

static void a_file_that_does_not_fit_is_told_why(void **state)
{
    (void)state;
    const char *model = make_model(configs[0]);
    static float x[B * T * I], span[B * T];
    static int32_t ids[B * T];
    const size_t shape[] = {B, T, I}, flat[] = {B, T}, wide[] = {B, T, I + 1}, empty[] = {B, 0, I},
                 turned[] = {T, B};
    static float more[B * T * (I + 1)];
    struct em_st_output t[2] = {
        {.name = "inputs", .shape = shape, .rank = 3, .dtype = EM_ST_F32, .data = x},
        {.name = "timespans", .shape = flat, .rank = 2, .dtype = EM_ST_F32, .data = span},
    };
    static const float wrong[] = {0, -1, NAN, INFINITY};
    for (size_t w = 0; w < sizeof wrong / sizeof *wrong; w++) {
        for (size_t i = 0; i < B * T; i++)
            span[i] = 1;
        span[4] = wrong[w];
        refused(model, t, 2, EMBER_E_RANGE, "timespans[4]");
    }
    t[1].shape = turned;
    refused(model, t, 2, EMBER_E_SHAPE, "timespans has to be [2, 7]");
    t[1].name = "input_ids";
    t[1].data = ids;
    t[1].dtype = EM_ST_I32;
    refused(model, t + 1, 1, EMBER_E_FORMAT, "no tensor inputs");
    refused(EMBER_TESTS_DIR "/golden/models/lfm2", t, 1, EMBER_E_FORMAT, "no tensor input_ids");
    t[0].dtype = EM_ST_I32;
    refused(model, t, 1, EMBER_E_UNSUPPORTED, "inputs: dtype I32");
    t[0] = (struct em_st_output){
        .name = "inputs", .shape = wide, .rank = 3, .dtype = EM_ST_F32, .data = more};
    refused(model, t, 1, EMBER_E_SHAPE, "inputs has to be [B, T, 3]");
    t[0].shape = empty;
    refused(model, t, 1, EMBER_E_SHAPE, "not empty");
}

static void tokens_have_to_be_of_the_vocabulary(void **state)
{
    (void)state;
    const char *model = EMBER_TESTS_DIR "/golden/models/lfm2";
    const size_t shape[] = {1, 3}, deep[] = {1, 1, 3};
    static const int64_t high[] = {1, 64, 0}, low[] = {-1, 0, 0};
    static const float real[] = {1, 2, 3};
    struct em_st_output t = {
        .name = "input_ids", .shape = shape, .rank = 2, .dtype = EM_ST_I64, .data = high};
    refused(model, &t, 1, EMBER_E_RANGE, "input_ids[1] is 64; the vocabulary has 64");
    t.data = low;
    refused(model, &t, 1, EMBER_E_RANGE, "input_ids[0] is -1");
    t.shape = deep;
    t.rank = 3;
    refused(model, &t, 1, EMBER_E_SHAPE, "input_ids has to be [B, T]");
    t = (struct em_st_output){
        .name = "input_ids", .shape = shape, .rank = 2, .dtype = EM_ST_F32, .data = real};
    refused(model, &t, 1, EMBER_E_SHAPE, "input_ids has to be [B, T] of I32 or I64");
}

static void matrices_for_inputs_are_refused_beside_tokens(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{\"model_type\": \"ember\", \"vocab_size\": 9, \"input_size\": 3, \"blocks\": "
        "[{\"type\": \"pre_norm\", \"sequence\": \"short_conv\"}]}",
        "{\"model_type\": \"ember\", \"vocab_size\": 9, \"output_size\": 3, \"blocks\": "
        "[{\"type\": \"pre_norm\", \"sequence\": \"short_conv\"}]}",
        "{\"model_type\": \"ember\", \"vocab_size\": 9, \"frozen_row\": 1.5, \"blocks\": "
        "[{\"type\": \"pre_norm\", \"sequence\": \"short_conv\"}]}",
    };
    static const char *const messages[] = {"c.json: input_size is for models of `inputs`",
                                           "c.json: output_size is not for language models",
                                           "c.json: frozen_row has to be an integer, not 1.5"};
    CHECK_OK(ember_start());
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct em_model *m = NULL;
        json_t *config;
        CHECK_OK(em_json_parse("c.json", texts[i], strlen(texts[i]), 0, &config));
        CHECK_FAILS(em_model_create(config, "c.json", NULL, &m), EMBER_E_CONFIG, messages[i]);
        json_decref(config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_loss_is_the_mean_of_squared_outputs),
        cmocka_unit_test(gradients_are_those_of_the_loss),
        cmocka_unit_test(pieces_give_what_the_whole_gives),
        cmocka_unit_test(masked_places_are_as_if_they_were_not_there),
        cmocka_unit_test(a_mask_is_read_where_it_is_asked_for),
        cmocka_unit_test(a_file_that_does_not_fit_is_told_why),
        cmocka_unit_test(tokens_have_to_be_of_the_vocabulary),
        cmocka_unit_test(matrices_for_inputs_are_refused_beside_tokens),
    };
    return cmocka_run_group_tests_name("infer/forward_file", tests, NULL, NULL);
}
