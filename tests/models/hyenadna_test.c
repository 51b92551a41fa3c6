// HyenaDNA: sizes that were published, how a new model starts, names of shared tensors, refusals.
#include <ember/runtime.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/log.h"
#include "models/model.h"
#include "support/check.h"

static ember_status create(const char *rest, struct em_model **m)
{
    char text[512];
    json_t *config;
    snprintf(text, sizeof text, "{\"model_type\": \"hyenadna\", %s}", rest);
    EM_TRY(em_json_parse("config.json", text, strlen(text), 0, &config));
    const ember_status status = em_model_create(config, "config.json", NULL, m);
    json_decref(config);
    return status;
}

// What was counted when the sizes were published: all but the positions, which were not trained,
// and what follows from the sizes.
static size_t published_count(const struct em_model *m)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n_file_tensors; i++) {
        const struct em_file_tensor *f = &m->file_tensor[i];
        if (!f->param->frozen && !strstr(f->name, "pos_emb.z")) n += f->count;
    }
    return n;
}

static void published_sizes(void **state)
{
    (void)state;
    static const struct {
        size_t width, layers, length, count;
    } published[] = {{128, 2, 1024, 436096},
                     {256, 2, 1024, 1641088},
                     {256, 4, 32768, 3277568},
                     {256, 8, 1048576, 6550528}};
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        struct em_model *m;
        char text[128];
        snprintf(text, sizeof text,
                 "\"d_model\": %zu, \"n_layer\": %zu, \"max_seq_len\": %zu, \"emb_dim\": 5",
                 published[i].width, published[i].layers, published[i].length);
        CHECK_OK(create(text, &m));
        assert_int_equal(published_count(m), published[i].count);
        assert_int_equal(m->vocabulary, 16);
        assert_ptr_equal(m->head, m->embedding);
        const struct em_param *z = em_params_find(&m->params, "blocks.0.sequence.filter.positions");
        assert_int_equal(z->tensor.dim[0], published[i].length + 2);
        em_model_close(m);
    }
}

static const float *values(const struct em_model *m, const char *path)
{
    const struct em_param *p = em_params_find(&m->params, path);
    if (!p) fail_msg("there is no %s", path);
    return em_f32(&p->tensor);
}

static double deviation(const struct em_model *m, const char *path)
{
    const struct em_param *p = em_params_find(&m->params, path);
    const size_t n = ember_tensor_count(&p->tensor);
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)em_f32(&p->tensor)[i] * (double)em_f32(&p->tensor)[i];
    return sqrt(sum / (double)n);
}

#define FILTER "blocks.1.sequence.filter."

static void a_new_model_starts_as_the_original(void **state)
{
    (void)state;
    struct em_model *m;
    CHECK_OK(create("\"d_model\": 64, \"n_layer\": 2, \"max_seq_len\": 98, \"emb_dim\": 5, "
                    "\"activation_freq\": 10",
                    &m));
    CHECK_OK(em_model_allocate(m));
    em_model_init(m, 3, NULL);
    const float *z = values(m, FILTER "positions") + 5 * 25; // a quarter of the way round
    CHECK_NEAR(z[0], 25.0 / 99, 1e-6, "t");
    CHECK_NEAR(z[1], cos(1e-4 * acos(-1) / 2), 1e-6, "first cosine");
    CHECK_NEAR(z[2], 0, 1e-6, "second cosine");
    CHECK_NEAR(z[3], -sin(1e-4 * acos(-1) / 2), 1e-6, "first sine");
    CHECK_NEAR(z[4], -1, 1e-6, "second sine");
    CHECK_NEAR(values(m, FILTER "times")[99], 1, 0, "last time");
    CHECK_NEAR(values(m, FILTER "deltas")[0], log(0.01) / 1.5, 1e-5, "slowest");
    CHECK_NEAR(values(m, FILTER "deltas")[63], log(0.01) / 0.3, 1e-5, "fastest");
    CHECK_NEAR(values(m, FILTER "frequency")[63], 10, 0, "frequency");
    CHECK_NEAR(deviation(m, FILTER "skip"), 1, 0.3, "skip");
    CHECK_NEAR(deviation(m, FILTER "layers.1.weight"), 0.02, 0.002, "network");
    CHECK_NEAR(deviation(m, "blocks.1.sequence.out_proj.weight"), 0.01, 0.001, "out_proj");
    CHECK_NEAR(deviation(m, "blocks.1.channel.down.weight"), 0.01, 0.001, "fc2");
    CHECK_NEAR(deviation(m, "blocks.1.channel.up.weight"), 0.02, 0.001, "fc1");
    const double uniform = 1 / sqrt(3.0);
    CHECK_NEAR(deviation(m, "blocks.1.sequence.short_conv.weight"), uniform / sqrt(3.0), 0.03,
               "short filter");
    for (size_t i = 0; i < (size_t)3 * 64 * 3; i++)
        assert_true(fabs((double)values(m, "blocks.1.sequence.short_conv.weight")[i]) <= uniform);
    // Nothing of the filter decays.
    for (size_t i = 0; i < m->params.count; i++)
        if (strstr(m->params.param[i]->tensor.name, ".filter."))
            assert_false(m->params.param[i]->decay);
    em_model_close(m);
}

// Every sine's frequency is one parameter: a file may hold it under the name of any of them.
static void the_frequency_is_read_from_any_of_its_names(void **state)
{
    (void)state;
    static const char golden[] = EMBER_TESTS_DIR "/golden/models/hyenadna-order-3";
    struct em_model *a, *b;
    struct em_weights *weights;
    CHECK_OK(em_model_open(golden, &a));
    const char *folder = test_directory();
    CHECK_OK(em_model_save_config(a, folder, EM_ST_F32));
    struct em_st_output *output = em_calloc(a->n_file_tensors, sizeof *output);
    char name[2][96];
    size_t renamed = 0, count = 0;
    for (size_t i = 0; i < a->n_file_tensors; i++) {
        const struct em_file_tensor *f = &a->file_tensor[i];
        assert_true(strncmp(f->name, "backbone.", 9) == 0); // as in the folder it came from
        if (strstr(f->name, "modulation.deltas")) continue; // a buffer that follows from the sizes
        output[count] = (struct em_st_output){.name = f->name,
                                              .shape = f->dim,
                                              .rank = f->ndim,
                                              .dtype = EM_ST_F32,
                                              .data = em_f32(&f->param->tensor)};
        const char *at = strstr(f->name, "implicit_filter.1.freq");
        if (at) {
            snprintf(name[renamed], sizeof *name, "%.*simplicit_filter.3.freq", (int)(at - f->name),
                     f->name);
            output[count].name = name[renamed++];
        }
        count++;
    }
    assert_int_equal(renamed, 2);
    CHECK_OK(em_safetensors_write(test_path(folder, "model.safetensors"),
                                  &(struct em_st_write){.tensors = output, .count = count}));
    CHECK_OK(em_weights_open(folder, &weights));
    em_weights_close(weights);
    CHECK_OK(em_model_open(folder, &b));
    for (size_t i = 0; i < a->params.count; i++) {
        const ember_tensor *x = &a->params.param[i]->tensor, *y = &b->params.param[i]->tensor;
        const bool deltas = strstr(x->name, "deltas");
        for (size_t j = 0; j < ember_tensor_count(x); j++)
            CHECK_NEAR(em_f32(y)[j], em_f32(x)[j], deltas ? 1e-5 : 0, "%s", x->name);
    }
    em_free(output);
    em_model_close(a);
    em_model_close(b);
}

// The deepest network of a filter: every layer of it has a name in files.
static void the_largest_filter_has_names(void **state)
{
    (void)state;
    struct em_model *m;
    CHECK_OK(create("\"d_model\": 8, \"n_layer\": 1, \"max_seq_len\": 6, \"emb_dim\": 3, "
                    "\"num_inner_mlps\": 15, \"hyena_order\": 9",
                    &m));
    size_t layers = 0;
    for (size_t i = 0; i < m->n_file_tensors; i++) {
        const struct em_file_tensor *f = &m->file_tensor[i];
        assert_true(strncmp(f->name, "hyena.backbone.", 15) == 0);
        const char *at = strstr(f->name, "implicit_filter.");
        if (!at || !strstr(at, ".weight")) continue;
        char name[48];
        snprintf(name, sizeof name, "implicit_filter.%zu.weight", 2 * layers++);
        assert_string_equal(at, name);
        if (layers == 17) assert_int_equal(f->dim[0], 8 * 8);
    }
    assert_int_equal(layers, 17);
    em_model_close(m);
}

static void refused(const char *rest, const char *message)
{
    struct em_model *m = NULL;
    CHECK_FAILS(create(rest, &m), EMBER_E_CONFIG, message);
}

#define LABELS "\"architectures\": [\"HyenaDNAForSequenceClassification\"]"
#define ROWS "\"architectures\": [\"HyenaDNAModel\"]"

// What the published classes make: outputs in columns, of which rows, with which matrix.
static void the_class_says_what_it_makes(void **state)
{
    (void)state;
    static const struct {
        const char *rest;
        size_t columns;
        bool pooled;
        ember_pool pool;
        const char *matrix;
    } cases[] = {
        {LABELS, 2, true, EMBER_POOL_LAST, "score.weight"},
        {LABELS ", \"id2label\": {\"0\": \"a\", \"1\": \"b\", \"2\": \"c\"}", 3, true,
         EMBER_POOL_LAST, "score.weight"},
        {LABELS ", \"num_labels\": 1, \"pooling_mode\": \"pool\"", 1, true, EMBER_POOL_MEAN,
         "score.weight"},
        {LABELS ", \"num_labels\": 5, \"pooling_mode\": \"sum\"", 5, true, EMBER_POOL_SUM,
         "score.weight"},
        {ROWS, 256, false, EMBER_POOL_MEAN, NULL},
        {ROWS ", \"pooling_mode\": \"first\"", 256, true, EMBER_POOL_FIRST, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct em_model *m;
        CHECK_OK(create(cases[i].rest, &m));
        assert_false(m->language_model);
        assert_int_equal(m->output_size, cases[i].columns);
        assert_int_equal(m->pooled, cases[i].pooled);
        if (m->pooled) assert_int_equal(m->pool, cases[i].pool);
        const char *last = m->file_tensor[m->n_file_tensors - 1].name;
        if (cases[i].matrix)
            assert_string_equal(last, cases[i].matrix);
        else
            assert_null(m->head);
        assert_null(m->head_bias);
        em_model_close(m);
    }
}

static void what_it_cannot_be_is_refused(void **state)
{
    (void)state;
    refused("\"hyena_order\": 1", "hyena_order: expected an integer from 2");
    refused("\"num_inner_mlps\": 16", "num_inner_mlps: expected an integer from 0 to 15, found 16");
    refused("\"hyena_order\": 257", "hyena_order: expected an integer from 2 to 256, found 257");
    refused("\"emb_dim\": 4", "emb_dim: 4 is not odd");
    refused("\"max_seq_len\": 0", "max_seq_len: expected");
    refused(LABELS ", \"pooling_mode\": \"mean\"", "has to be last, first, pool (the mean) or sum");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_sizes),
        cmocka_unit_test(a_new_model_starts_as_the_original),
        cmocka_unit_test(the_frequency_is_read_from_any_of_its_names),
        cmocka_unit_test(the_largest_filter_has_names),
        cmocka_unit_test(the_class_says_what_it_makes),
        cmocka_unit_test(what_it_cannot_be_is_refused)};
    if (ember_start() != EMBER_OK) return 1;
    return cmocka_run_group_tests_name("models/hyenadna", tests, NULL, NULL);
}
