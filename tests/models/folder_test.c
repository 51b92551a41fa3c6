// Model folders as they come: other spellings of names and experts in one piece are read; what does
// not fit the config, is damaged or missing is refused with the file and the fault; what is left
// over is a line.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/log.h"
#include "models/model.h"
#include "support/check.h"

#include <ember/forward.h>

#define MODELS EMBER_TESTS_DIR "/golden/models"
#define FFN "model.layers.1.feed_forward."

static struct {
    size_t count;
    char text[1024];
} lines;

static void remember(void *context, enum em_log_level level, const char *line)
{
    (void)context, (void)level;
    lines.count++;
    snprintf(lines.text, sizeof lines.text, "%s", line);
}

// A golden's tensors, to be changed and written to a folder of their own.
struct folder {
    const char *path;
    json_t *config;
    struct em_weights *weights;
    struct em_st_output tensor[512];
    size_t count;
    char *bytes[64]; // of tensors made here
    size_t n_bytes;
};

static void begin(struct folder *f, const char *golden)
{
    char path[512];
    snprintf(path, sizeof path, MODELS "/%s", golden);
    *f = (struct folder){.path = test_directory()};
    CHECK_OK(em_model_read_config(path, &f->config));
    CHECK_OK(em_weights_open(path, &f->weights));
    for (size_t i = 0; i < em_weights_count(f->weights); i++) {
        const struct em_st_tensor *t = em_weights_at(f->weights, i);
        assert_true(f->count < 500);
        f->tensor[f->count++] = (struct em_st_output){.name = t->name,
                                                      .shape = t->shape,
                                                      .rank = t->rank,
                                                      .dtype = t->dtype,
                                                      .data = t->data};
    }
}

static void end(struct folder *f)
{
    for (size_t i = 0; i < f->n_bytes; i++)
        em_free(f->bytes[i]);
    em_weights_close(f->weights);
    json_decref(f->config);
}

static struct em_st_output *find(struct folder *f, const char *name)
{
    for (size_t i = 0; i < f->count; i++)
        if (strcmp(f->tensor[i].name, name) == 0) return &f->tensor[i];
    fail_msg("the golden has no %s", name);
    return NULL;
}

static void drop(struct folder *f, const char *name)
{
    struct em_st_output *t = find(f, name);
    *t = f->tensor[--f->count];
}

static void *new_bytes(struct folder *f, size_t n)
{
    assert_true(f->n_bytes < 64);
    char *p = em_calloc(1, n);
    assert_non_null(p);
    return f->bytes[f->n_bytes++] = p;
}

static void add(struct folder *f, const char *name, enum em_st_dtype dtype, const size_t *shape,
                size_t rank, const void *data)
{
    f->tensor[f->count++] = (struct em_st_output){
        .name = name, .shape = shape, .rank = rank, .dtype = dtype, .data = data};
}

static void write_folder(struct folder *f)
{
    CHECK_OK(em_json_write(test_path(f->path, "config.json"), f->config, 2));
    CHECK_OK(em_safetensors_write(test_path(f->path, "model.safetensors"),
                                  &(struct em_st_write){.tensors = f->tensor, .count = f->count}));
}

static struct em_model *opened(struct folder *f, size_t expected_lines, const char *line)
{
    struct em_model *m;
    write_folder(f);
    lines.count = 0;
    CHECK_OK(em_model_open(f->path, &m));
    if (lines.count != expected_lines) fail_msg("%zu lines: %s", lines.count, lines.text);
    if (line && (!strstr(lines.text, line) || !strstr(lines.text, f->path)))
        fail_msg("\"%s\" does not name %s and %s", lines.text, f->path, line);
    return m;
}

// Refused; the message names the folder, and what is wrong.
static void refused(struct folder *f, ember_status status, const char *fault)
{
    struct em_model *m = NULL;
    write_folder(f);
    CHECK_FAILS(em_model_open(f->path, &m), status, fault);
    assert_null(m);
    if (!strstr(ember_last_error(), f->path)) fail_msg("no path in \"%s\"", ember_last_error());
    end(f);
}

static void check_same(const struct em_model *m, const char *golden)
{
    char path[512];
    struct em_model *expected;
    snprintf(path, sizeof path, MODELS "/%s", golden);
    CHECK_OK(em_model_open(path, &expected));
    assert_int_equal(m->params.count, expected->params.count);
    for (size_t i = 0; i < m->params.count; i++) {
        const ember_tensor *a = &m->params.param[i]->tensor,
                           *b = &expected->params.param[i]->tensor;
        if (memcmp(a->data, b->data, ember_tensor_count(a) * sizeof(float)))
            fail_msg("%s differs", a->name);
    }
    em_model_close(expected);
}

// lfm2_moe's second layer: 6 experts of width 12 in a model of width 24.
enum { E = 6, F = 12, D = 24 };

// Joins the experts of one layer: gate_up_proj [E, 2F, D], down_proj [E, D, F].
static void fuse(struct folder *f, unsigned layer, bool keep)
{
    static char names[8][80];
    static const size_t up_shape[] = {E, 2 * F, D}, down_shape[] = {E, D, F};
    static size_t next;
    float *up = new_bytes(f, sizeof(float) * E * 2 * F * D),
          *down = new_bytes(f, sizeof(float) * E * D * F);
    for (size_t e = 0; e < E; e++)
        for (unsigned w = 1; w <= 3; w++) {
            char name[80];
            snprintf(name, sizeof name, "model.layers.%u.feed_forward.experts.%zu.w%u.weight",
                     layer, e, w);
            const struct em_st_output *t = find(f, name);
            float *to = w == 2 ? down + e * D * F : up + (2 * e + (w == 3)) * F * D;
            memcpy(to, t->data, sizeof(float) * F * D);
            if (!keep) drop(f, name);
        }
    char *a = names[next++ % 8], *b = names[next++ % 8];
    snprintf(a, sizeof names[0], "model.layers.%u.feed_forward.experts.gate_up_proj", layer);
    snprintf(b, sizeof names[0], "model.layers.%u.feed_forward.experts.down_proj", layer);
    add(f, a, EM_ST_F32, up_shape, 3, up);
    add(f, b, EM_ST_F32, down_shape, 3, down);
}

static void experts_in_one_piece_are_read(void **state)
{
    (void)state;
    struct folder f;
    begin(&f, "lfm2_moe");
    fuse(&f, 1, false);
    fuse(&f, 2, false);
    struct em_model *m = opened(&f, 0, NULL);
    check_same(m, "lfm2_moe");
    em_model_close(m);
    end(&f);

    begin(&f, "lfm2_moe"); // both: the single ones count
    fuse(&f, 1, true);
    m = opened(&f, 1, "2 tensors are not used");
    check_same(m, "lfm2_moe");
    em_model_close(m);
    end(&f);
}

static void experts_in_one_piece_have_to_fit(void **state)
{
    (void)state;
    struct folder f;
    static const size_t fewer[] = {E, F, 2 * D}, more[] = {2 * E, F, D};
    begin(&f, "lfm2_moe");
    fuse(&f, 1, false);
    find(&f, FFN "experts.gate_up_proj")->shape = fewer;
    refused(&f, EMBER_E_SHAPE, FFN "experts.gate_up_proj: expected shape [6, 24, 24]");
    begin(&f, "lfm2_moe"); // more experts than the config has would be lost
    fuse(&f, 1, false);
    find(&f, FFN "experts.gate_up_proj")->shape = more;
    refused(&f, EMBER_E_SHAPE, "found [12, 12, 24]");
    begin(&f, "lfm2_moe");
    fuse(&f, 1, false);
    drop(&f, FFN "experts.down_proj");
    refused(&f, EMBER_E_FORMAT, FFN "experts.0.w2.weight is missing");
}

static void other_spellings_are_read(void **state)
{
    (void)state;
    struct folder f;
    begin(&f, "lfm3");
    size_t gates = 0, length = strlen("model.");
    static char names[64][80];
    for (size_t i = 0; i < f.count; i++) {
        const char *at = strstr(f.tensor[i].name, ".gate_proj.");
        if (!at || !strstr(f.tensor[i].name, "self_attn")) continue;
        snprintf(names[gates], sizeof names[0], "%.*s.g_proj.weight", (int)(at - f.tensor[i].name),
                 f.tensor[i].name);
        f.tensor[i].name = names[gates++];
    }
    assert_true(gates == 2);
    struct em_model *m = opened(&f, 0, NULL);
    check_same(m, "lfm3");
    em_model_close(m);
    // Both spellings: the second is left over.
    struct em_st_output twin = *find(&f, names[0]);
    twin.name = "model.layers.0.self_attn.gate_proj.weight";
    f.tensor[f.count++] = twin;
    m = opened(&f, 1, "1 tensors are not used");
    check_same(m, "lfm3");
    em_model_close(m);
    end(&f);

    begin(&f, "lfm2"); // a bare text model
    for (size_t i = 0; i < f.count; i++)
        if (strncmp(f.tensor[i].name, "model.", length) == 0) f.tensor[i].name += length;
    m = opened(&f, 0, NULL);
    check_same(m, "lfm2");
    em_model_close(m);
    end(&f);
}

static void what_is_missing_or_misshapen_is_named(void **state)
{
    (void)state;
    struct folder f;
    static const size_t flat[] = {D * D};
    begin(&f, "lfm2");
    drop(&f, "model.layers.1.self_attn.q_proj.weight");
    refused(&f, EMBER_E_FORMAT, "model.layers.1.self_attn.q_proj.weight is missing");
    begin(&f, "lfm2");
    struct em_st_output *t = find(&f, "model.layers.0.conv.out_proj.weight");
    t->shape = flat;
    t->rank = 1;
    refused(&f, EMBER_E_SHAPE, "model.layers.0.conv.out_proj.weight: expected shape [24, 24]");
    begin(&f, "lfm2");
    assert_int_equal(json_object_set_new(f.config, "vocab_size", json_integer(65)), 0);
    refused(&f, EMBER_E_SHAPE, "model.embed_tokens.weight: expected shape [65, 24]");
    begin(&f, "lfm2"); // a deeper model than the files hold
    assert_int_equal(json_object_set_new(f.config, "num_hidden_layers", json_integer(4)), 0);
    refused(&f, EMBER_E_CONFIG, "layer_types is for 4 layers (num_hidden_layers), it has 3");
    begin(&f, "lfm2-conv-bias");
    assert_int_equal(json_object_set_new(f.config, "tie_word_embeddings", json_true()), 0);
    struct em_model *m = opened(&f, 0, NULL); // a tied head is often written twice
    em_model_close(m);
    end(&f);
    begin(&f, "lfm2");
    assert_int_equal(json_object_set_new(f.config, "tie_word_embeddings", json_false()), 0);
    refused(&f, EMBER_E_FORMAT, "lm_head.weight is missing");
}

static void numbers_that_are_no_weights_are_named(void **state)
{
    (void)state;
    struct folder f;
    begin(&f, "lfm2");
    struct em_st_output *t = find(&f, "model.layers.0.conv.out_proj.weight");
    t->dtype = EM_ST_I32;
    refused(&f, EMBER_E_UNSUPPORTED, "model.layers.0.conv.out_proj.weight: dtype I32");
    begin(&f, "lfm2_moe");
    fuse(&f, 1, false);
    find(&f, FFN "experts.down_proj")->dtype = EM_ST_U32;
    refused(&f, EMBER_E_UNSUPPORTED, FFN "experts.down_proj: dtype U32");
}

static void what_is_left_over_is_one_line(void **state)
{
    (void)state;
    struct folder f;
    static const size_t shape[] = {3};
    static const float values[3];
    begin(&f, "lfm2");
    add(&f, "model.rotary.inv_freq", EM_ST_F32, shape, 1, values);
    add(&f, "model.rotary.second", EM_ST_F32, shape, 1, values);
    struct em_model *m = opened(&f, 1, "2 tensors are not used");
    check_same(m, "lfm2");
    em_model_close(m);
    end(&f);
}

// NaN would spread to every answer, and nothing later would say where it began.
static void weights_that_are_no_numbers_are_refused(void **state)
{
    (void)state;
    static const float wrong[] = {NAN, INFINITY, -INFINITY};
    static const char *const names[] = {FFN "gate.weight", FFN "experts.2.w1.weight",
                                        "model.layers.1.self_attn.q_proj.weight"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct folder f;
        begin(&f, "lfm2_moe");
        struct em_st_output *t = find(&f, names[i]);
        size_t n = 1;
        for (size_t d = 0; d < t->rank; d++)
            n *= t->shape[d];
        float *values = new_bytes(&f, n * sizeof *values);
        memcpy(values, t->data, n * sizeof *values);
        values[n - 1] = wrong[i];
        values[n / 2] = wrong[i];
        t->data = values;
        refused(&f, EMBER_E_NUMERIC, names[i]);
        assert_non_null(strstr(ember_last_error(), " has 2 of "));
    }
}

static void copy_file(const char *from, const char *folder, const char *name, size_t most)
{
    char path[600];
    struct em_buf text;
    em_buf_init(&text, 0);
    snprintf(path, sizeof path, "%s/%s", from, name);
    CHECK_OK(em_read_file(path, 0, &text));
    CHECK_OK(
        em_write_file(test_path(folder, name), text.data, most < text.size ? most : text.size));
    em_buf_deinit(&text);
}

static void damaged_shards_are_named(void **state)
{
    (void)state;
    const char *from = MODELS "/lfm2-sharded", *folder = test_directory();
    static const char *const names[] = {
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00004.safetensors",
        "model-00002-of-00004.safetensors",
        "model-00003-of-00004.safetensors",
        "model-00004-of-00004.safetensors",
    };
    static const size_t lengths[] = {0, 5, 8, 300, 1000};
    struct em_model *m = NULL;
    for (size_t i = 0; i < 6; i++)
        copy_file(from, folder, names[i], SIZE_MAX);
    CHECK_OK(em_model_open(folder, &m));
    em_model_close(m);
    m = NULL;
    for (size_t i = 0; i < 6; i++) {
        for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
            if (i == 0 && lengths[k] == 1000) continue; // all of it
            copy_file(from, folder, names[i], lengths[k]);
            const ember_status status = em_model_open(folder, &m);
            if (status != EMBER_E_FORMAT && status != EMBER_E_CONFIG)
                fail_msg("%s cut to %zu bytes: status %d", names[i], lengths[k], (int)status);
            if (!strstr(ember_last_error(), names[i]))
                fail_msg("%s cut to %zu bytes: %s", names[i], lengths[k], ember_last_error());
        }
        copy_file(from, folder, names[i], SIZE_MAX);
    }
    CHECK_OK(em_remove_tree(test_path(folder, names[3])));
    CHECK_FAILS(em_model_open(folder, &m), EMBER_E_FORMAT, names[3]);
    CHECK_OK(em_remove_tree(test_path(folder, "config.json")));
    CHECK_FAILS(em_model_open(folder, &m), EMBER_E_IO, "config.json");
    CHECK_FAILS(em_model_open("no such folder", &m), EMBER_E_IO, "no such folder");
    assert_null(m);
}

static int setup(void **state)
{
    (void)state;
    em_log_to(remember, NULL);
    return ember_start() != EMBER_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_in_one_piece_are_read),
        cmocka_unit_test(experts_in_one_piece_have_to_fit),
        cmocka_unit_test(other_spellings_are_read),
        cmocka_unit_test(what_is_missing_or_misshapen_is_named),
        cmocka_unit_test(numbers_that_are_no_weights_are_named),
        cmocka_unit_test(what_is_left_over_is_one_line),
        cmocka_unit_test(weights_that_are_no_numbers_are_refused),
        cmocka_unit_test(damaged_shards_are_named),
    };
    return cmocka_run_group_tests_name("models/folder", tests, setup, NULL);
}
