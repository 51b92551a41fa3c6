// labels: golden
// VMamba: parameters to the unit, values and gradients by its formulas, the names of both kinds of
// files; and what four-way scans have to hold. tools/make_mixing_goldens.py makes the values.
#include <ember/forward.h>
#include <ember/runtime.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "formats/safetensors.h"
#include "models/model.h"
#include "support/check.h"

#define BOUND 1e-4

// ---- sizes ----

#define VANILLA                                                                                    \
    "\"ssm_d_state\": 16, \"ssm_ratio\": 2.0, \"ssm_conv_bias\": true, \"forward_type\": \"v0\", " \
    "\"mlp_ratio\": 0.0, \"norm_layer\": \"ln\", \"downsample_version\": \"v1\", "                 \
    "\"patchembed_version\": \"v1\""
#define V05(ratio)                                                                                 \
    "\"ssm_d_state\": 1, \"ssm_ratio\": " ratio ", \"ssm_conv_bias\": false, \"forward_type\": "   \
    "\"v05_noz\", \"mlp_ratio\": 4.0, \"norm_layer\": \"ln2d\", \"downsample_version\": \"v3\", "  \
    "\"patchembed_version\": \"v2\""

static struct em_model *create(const char *text)
{
    struct em_model *m;
    json_t *config;
    CHECK_OK(em_json_parse("config.json", text, strlen(text), 0, &config));
    CHECK_OK(em_model_create(config, "config.json", NULL, &m));
    json_decref(config);
    return m;
}

static void published_models_have_their_parameters(void **state)
{
    (void)state;
    static const struct {
        const char *depths, *dims, *kind;
        size_t parameters;
    } published[] = {
        {"2, 2, 9, 2", "96", VANILLA, 22893448},      {"2, 2, 27, 2", "96", VANILLA, 44417416},
        {"2, 2, 27, 2", "128", VANILLA, 76254056},    {"2, 2, 5, 2", "96", V05("2.0"), 30705832},
        {"2, 2, 15, 2", "96", V05("2.0"), 50147752},  {"2, 2, 15, 2", "128", V05("2.0"), 88557800},
        {"2, 2, 8, 2", "96", V05("1.0"), 30249064},   {"2, 2, 20, 2", "96", V05("1.0"), 49012840},
        {"2, 2, 20, 2", "128", V05("1.0"), 86614504},
    };
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        char text[1024];
        size_t total, active;
        snprintf(text, sizeof text,
                 "{\"model_type\": \"vmamba\", \"depths\": [%s], \"dims\": %s, %s}",
                 published[i].depths, published[i].dims, published[i].kind);
        struct em_model *m = create(text);
        em_model_count(m, &total, &active);
        assert_int_equal(total, published[i].parameters);
        assert_int_equal(active, published[i].parameters);
        em_model_close(m);
    }
}

static bool has_tensor(const struct em_model *m, const char *name, size_t rows, unsigned ndim)
{
    for (size_t i = 0; i < m->n_file_tensors; i++)
        if (strcmp(m->file_tensor[i].name, name) == 0)
            return m->file_tensor[i].dim[0] == rows && m->file_tensor[i].ndim == ndim;
    return false;
}

static void files_have_the_original_names(void **state)
{
    (void)state;
    struct em_model *m =
        create("{\"model_type\": \"vmamba\", \"depths\": [1, 2], \"dims\": [8, 16], " VANILLA "}");
    assert_true(has_tensor(m, "patch_embed.0.weight", 8, 4));
    assert_true(has_tensor(m, "patch_embed.2.bias", 8, 1));
    assert_true(has_tensor(m, "layers.1.blocks.1.norm.weight", 16, 1));
    assert_true(has_tensor(m, "layers.1.blocks.1.op.x_proj_weight", 4, 3));
    assert_true(has_tensor(m, "layers.0.blocks.0.op.dt_projs_weight", 4, 3));
    assert_true(has_tensor(m, "layers.0.blocks.0.op.dt_projs_bias", 4, 2));
    assert_true(has_tensor(m, "layers.0.blocks.0.op.A_logs", 4 * 16, 2));
    assert_true(has_tensor(m, "layers.0.downsample.1.weight", 32, 1));
    assert_true(has_tensor(m, "layers.0.downsample.2.weight", 16, 2));
    assert_true(has_tensor(m, "classifier.head.bias", 1000, 1));
    em_model_close(m);
    m = create(
        "{\"model_type\": \"vmamba\", \"depths\": [1, 2], \"dims\": [8, 16], " V05("2.0") "}");
    assert_true(has_tensor(m, "patch_embed.5.weight", 8, 4));
    assert_true(has_tensor(m, "patch_embed.7.weight", 8, 1));
    assert_true(has_tensor(m, "layers.1.blocks.1.op.x_proj.weight", 4 * 3, 2));
    assert_true(has_tensor(m, "layers.1.blocks.1.op.dt_projs.weight", 4 * 32, 2));
    assert_true(has_tensor(m, "layers.1.blocks.0.mlp.fc1.bias", 64, 1));
    assert_true(has_tensor(m, "layers.0.downsample.1.weight", 16, 4));
    assert_true(has_tensor(m, "layers.0.downsample.3.bias", 16, 1));
    assert_false(has_tensor(m, "layers.0.blocks.0.op.conv2d.bias", 16, 1));
    em_model_close(m);
}

// ---- values ----

static void compare(const char *model, const struct em_st_tensor *expected,
                    const struct em_st_tensor *found)
{
    if (!found) fail_msg("%s: %s is missing", model, expected->name);
    if (found->rank != expected->rank ||
        memcmp(found->shape, expected->shape, found->rank * sizeof *found->shape))
        fail_msg("%s: %s has another shape", model, expected->name);
    float *a = em_alloc(expected->elements * sizeof *a),
          *b = em_alloc(expected->elements * sizeof *b);
    CHECK_OK(em_st_tensor_f32(expected, a));
    CHECK_OK(em_st_tensor_f32(found, b));
    double largest = 0, worst = 0;
    for (size_t i = 0; i < expected->elements; i++) {
        const double d = fabs((double)a[i] - (double)b[i]);
        largest = fmax(largest, fabs((double)a[i]));
        if (!(d <= worst)) worst = d;
    }
    if (!(worst <= BOUND * largest))
        fail_msg("%s: %s is off by %g of %g", model, expected->name, worst, largest);
    em_free(a);
    em_free(b);
}

static void check_model(const char *name, ember_backend backend)
{
    char folder[512], in[600], expected[600];
    struct em_safetensors *e, *f;
    snprintf(folder, sizeof folder, "%s/golden/vision/%s", EMBER_TESTS_DIR, name);
    snprintf(in, sizeof in, "%s/in.safetensors", folder);
    snprintf(expected, sizeof expected, "%s/out.safetensors", folder);
    const char *out = test_path(test_directory(), "out.safetensors");
    ember_forward_options options = {.runtime = {.backend = backend}, .gradients = true};
    CHECK_OK(ember_forward_file(folder, in, out, &options));
    CHECK_OK(em_safetensors_open(expected, &e));
    CHECK_OK(em_safetensors_open(out, &f));
    assert_int_equal(em_safetensors_count(e), em_safetensors_count(f));
    for (size_t i = 0; i < em_safetensors_count(e); i++) {
        const struct em_st_tensor *t = em_safetensors_at(e, i);
        compare(name, t, em_safetensors_find(f, t->name));
    }
    em_safetensors_close(e);
    em_safetensors_close(f);
    options.gradients = false;
    options.chunk = 5;
    CHECK_FAILS(ember_forward_file(folder, in, out, &options), EMBER_E_USAGE, "no chunks");
}

// Images that are not square, odd grids at every merging, all three of its versions.
static void values_and_gradients_follow_the_formulas(void **state)
{
    (void)state;
    static const char *const names[] = {"vmamba-v0", "vmamba-v05-noz", "vmamba-v05"};
    for (size_t i = 0; i < 3; i++) {
        check_model(names[i], EMBER_BACKEND_CPU);
        check_model(names[i], EMBER_BACKEND_REFERENCE);
    }
}

// The first published files: their names, in a file of the golden's weights.
static const char *older_name(const char *name, char *text, size_t size)
{
    static const char *const parts[][2] = {{"patch_embed.0.", "patch_embed.proj."},
                                           {"patch_embed.2.", "patch_embed.norm."},
                                           {"downsample.1.", "downsample.norm."},
                                           {"downsample.2.", "downsample.reduction."},
                                           {"0.norm.", "0.ln_1."},
                                           {".op.", ".self_attention."},
                                           {"classifier.", ""}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const char *at = strstr(name, parts[i][0]);
        if (!at) continue;
        snprintf(text, size, "%.*s%s%s", (int)(at - name), name, parts[i][1],
                 at + strlen(parts[i][0]));
        return text;
    }
    return name;
}

static void older_files_open(void **state)
{
    (void)state;
    enum { MOST = 64 };
    static char names[MOST][128];
    struct em_st_output tensors[MOST] = {0};
    struct em_safetensors *file;
    struct em_model *m, *same;
    const char *folder = test_directory(), *golden = EMBER_TESTS_DIR "/golden/vision/vmamba-v0";
    json_t *config;
    CHECK_OK(em_model_read_config(golden, &config));
    CHECK_OK(em_safetensors_open(test_path(golden, "model.safetensors"), &file));
    const size_t count = em_safetensors_count(file);
    assert_true(count <= MOST);
    for (size_t i = 0; i < count; i++) {
        const struct em_st_tensor *t = em_safetensors_at(file, i);
        tensors[i] = (struct em_st_output){.name = older_name(t->name, names[i], sizeof names[i]),
                                           .shape = t->shape,
                                           .rank = t->rank,
                                           .dtype = EM_ST_F32,
                                           .data = t->data};
    }
    CHECK_OK(em_safetensors_write(test_path(folder, "model.safetensors"),
                                  &(struct em_st_write){.tensors = tensors, .count = count}));
    em_safetensors_close(file);
    assert_int_equal(json_dump_file(config, test_path(folder, "config.json"), 0), 0);
    json_decref(config);
    CHECK_OK(em_model_open(folder, &m));
    CHECK_OK(em_model_open(golden, &same));
    for (size_t i = 0; i < m->params.count; i++)
        assert_memory_equal(m->params.param[i]->tensor.data, same->params.param[i]->tensor.data,
                            em_tensor_bytes(&m->params.param[i]->tensor));
    em_model_close(m);
    em_model_close(same);
}

// ---- what scans in four directions hold ----

enum { H = 4, W = 5, D = 6, PIXELS = H * W };

static struct em_model *scans(size_t columns, size_t states)
{
    char text[512];
    snprintf(
        text, sizeof text,
        "{\"model_type\": \"ember\", \"vocab_size\": 0, \"hidden_size\": %d, \"causal\": false, "
        "\"initializer_range\": 0.5, \"blocks\": [{\"type\": \"pre_norm\", \"sequence\": "
        "{\"type\": \"ss2d\", \"conv\": 1, \"stacked\": true, \"columns\": %zu, \"states\": "
        "%zu}}]}",
        (int)D, columns, states);
    struct em_model *m = create(text);
    CHECK_OK(em_model_allocate(m));
    em_model_init(m, 3, NULL);
    return m;
}

static ember_tensor *parameter(const struct em_model *m, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "blocks.0.sequence.%s", name);
    struct em_param *p = em_params_find(&m->params, path);
    assert_non_null(p);
    return &p->tensor;
}

// All directions get the weights of the first.
static void share_directions(const struct em_model *m)
{
    static const char *const names[] = {"x_proj.weight", "dt_projs.weight", "dt_projs_bias",
                                        "A_logs", "Ds"};
    for (size_t i = 0; i < 5; i++) {
        ember_tensor *t = parameter(m, names[i]);
        const size_t n = ember_tensor_count(t) / 4;
        for (size_t k = 1; k < 4; k++)
            memcpy(em_f32(t) + k * n, em_f32(t), n * sizeof(float));
    }
}

static void run(const struct em_model *m, const float *x, float *y)
{
    struct em_program *p;
    struct em_model_outputs out;
    const size_t offset[] = {0, PIXELS};
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .backend = EM_CPU, .max_tokens = PIXELS, .max_sequences = 1, .packs = m->packs},
        &p));
    CHECK_OK(em_model_record(m, p, EM_HEAD_NONE, &out));
    CHECK_OK(em_program_allocate(p));
    const ember_batch batch = {.n_tokens = PIXELS, .n_sequences = 1, .offset = offset, .inputs = x};
    CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
    memcpy(y, em_f32(out.hidden), PIXELS * D * sizeof *y);
    em_program_destroy(p);
}

static size_t turned(size_t pixel)
{
    return PIXELS - 1 - pixel;
}

static size_t transposed(size_t pixel) // of H x W, in W x H
{
    return pixel % W * H + pixel / W;
}

static void with_one_set_of_weights_turns_and_transposes_commute(void **state)
{
    (void)state;
    float x[PIXELS * D], moved[PIXELS * D], y[PIXELS * D], after[PIXELS * D];
    struct em_model *m = scans(W, 3), *flipped = scans(H, 3);
    share_directions(m);
    share_directions(flipped);
    fill_random(x, PIXELS * D, 7);
    run(m, x, y);
    size_t (*const moves[])(size_t) = {turned, transposed};
    for (size_t i = 0; i < 2; i++) {
        for (size_t p = 0; p < PIXELS; p++)
            memcpy(moved + moves[i](p) * D, x + p * D, D * sizeof *x);
        run(i ? flipped : m, moved, after);
        for (size_t p = 0; p < PIXELS; p++)
            for (size_t d = 0; d < D; d++)
                CHECK_NEAR(after[moves[i](p) * D + d], y[p * D + d], 1e-5, "move %zu, pixel %zu", i,
                           p);
    }
    // With weights of their own the directions are told apart.
    struct em_model *own = scans(W, 3);
    run(own, x, y);
    for (size_t p = 0; p < PIXELS; p++)
        memcpy(moved + turned(p) * D, x + p * D, D * sizeof *x);
    run(own, moved, after);
    double difference = 0;
    for (size_t p = 0; p < PIXELS; p++)
        difference = fmax(difference, fabs((double)after[turned(p) * D] - (double)y[p * D]));
    assert_true(difference > 1e-3);
    em_model_close(own);
    em_model_close(flipped);
    em_model_close(m);
}

// A second state that nothing goes into changes nothing: one state is computed as many are.
static void one_state_is_the_general_case(void **state)
{
    (void)state;
    float x[PIXELS * D], one[PIXELS * D], two[PIXELS * D];
    struct em_model *a = scans(W, 1), *b = scans(W, 2);
    for (size_t i = 0; i < a->params.count; i++) {
        const ember_tensor *from = &a->params.param[i]->tensor;
        ember_tensor *to = &b->params.param[i]->tensor;
        if (em_tensor_bytes(from) == em_tensor_bytes(to))
            memcpy(to->data, from->data, em_tensor_bytes(from));
    }
    const ember_tensor *from = parameter(a, "x_proj.weight");
    ember_tensor *to = parameter(b, "x_proj.weight");
    const size_t E = from->dim[2], R = from->dim[1] - 2;
    for (size_t k = 0; k < 4; k++)
        for (size_t r = 0; r < R + 4; r++) {
            float *row = em_f32(to) + (k * (R + 4) + r) * E;
            const size_t source = r < R ? r : R + (r - R) / 2; // B, B', C, C'
            const bool second = r >= R && (r - R) % 2;
            for (size_t e = 0; e < E; e++)
                row[e] = second ? 0 : em_f32(from)[(k * (R + 2) + source) * E + e];
        }
    for (size_t i = 0; i < 4 * E; i++)
        em_f32(parameter(b, "A_logs"))[2 * i] = em_f32(parameter(a, "A_logs"))[i];
    fill_random(x, PIXELS * D, 8);
    run(a, x, one);
    run(b, x, two);
    for (size_t i = 0; i < PIXELS * D; i++)
        CHECK_NEAR(two[i], one[i], 1e-5, "element %zu", i);
    em_model_close(a);
    em_model_close(b);
}

// ---- refusals ----

static void refused(const char *more, const char *message)
{
    char text[512];
    json_t *config;
    struct em_model *m;
    snprintf(text, sizeof text, "{\"model_type\": \"vmamba\"%s}", more);
    CHECK_OK(em_json_parse("config.json", text, strlen(text), 0, &config));
    CHECK_FAILS(em_model_create(config, "config.json", NULL, &m), EMBER_E_CONFIG, message);
    json_decref(config);
}

static void other_configs_are_refused(void **state)
{
    (void)state;
    refused(", \"forward_type\": \"v052d\"", "forward_type has to be");
    refused(", \"norm_layer\": \"bn\"", "norm_layer has to be \"ln\" or \"ln2d\"");
    refused(", \"imgsize\": [3, 3]", "do not fit an image of 3 x 3");
    refused(", \"imgsize\": [3, 3, 3]", "imgsize has to be a list of sizes");
    refused(", \"posembed\": true", "posembed has to be false");
    refused(", \"dims\": [8, 8, 8]", "dims has to be as long as depths");
    refused(", \"depths\": []", "depths has to be a list of sizes");
    refused(", \"ssm_ratio\": 0, \"mlp_ratio\": 0", "mlp_ratio has to be above 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_models_have_their_parameters),
        cmocka_unit_test(files_have_the_original_names),
        cmocka_unit_test(values_and_gradients_follow_the_formulas),
        cmocka_unit_test(older_files_open),
        cmocka_unit_test(with_one_set_of_weights_turns_and_transposes_commute),
        cmocka_unit_test(one_state_is_the_general_case),
        cmocka_unit_test(other_configs_are_refused),
    };
    if (ember_start() != EMBER_OK) return 1;
    return cmocka_run_group_tests_name("models/vmamba", tests, NULL, NULL);
}
