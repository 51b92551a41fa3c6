// What Ember writes: every golden model, opened, saved and opened again, is the same model under
// the same names, and its config says all that other programs ask for without a word from us.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/log.h"
#include "models/model.h"
#include "models/model_priv.h"
#include "support/check.h"

#include <ember/runtime.h>

#define MODELS EMBER_TESTS_DIR "/golden/models"

static struct {
    size_t count;
    char first[512];
} lines;

static void remember(void *context, enum em_log_level level, const char *line)
{
    (void)context, (void)level;
    if (!lines.count++) snprintf(lines.first, sizeof lines.first, "%s", line);
}

static void save(const struct em_model *m, const char *folder, enum em_st_dtype dtype)
{
    CHECK_OK(em_model_save_config(m, folder, dtype));
    CHECK_OK(em_model_save_weights(m, test_path(folder, "model.safetensors"), dtype));
}

static bool is_buffer(const char *name)
{
    static const char *const kinds[] = {"expert_bias", "modulation.deltas", "pos_emb.t",
                                        "sparsity_mask"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strstr(name, kinds[i])) return true;
    return false;
}

static void check_names(const char *name, const char *expected, const char *found,
                        enum em_st_dtype dtype)
{
    struct em_weights *e, *f;
    CHECK_OK(em_weights_open(expected, &e));
    CHECK_OK(em_weights_open(found, &f));
    for (size_t i = 0; i < em_weights_count(e); i++) {
        const struct em_st_tensor *a = em_weights_at(e, i), *b = em_weights_find(f, a->name);
        if (!b) fail_msg("%s: %s is gone", name, a->name);
        if (a->rank != b->rank || memcmp(a->shape, b->shape, a->rank * sizeof *a->shape))
            fail_msg("%s: %s has another shape", name, a->name);
        const bool buffer = is_buffer(a->name);
        if (b->dtype != (buffer ? EM_ST_F32 : dtype))
            fail_msg("%s: %s is %s", name, a->name, em_st_dtype_name(b->dtype));
    }
    // A file may lack buffers, the copies of a shared frequency, and frequencies that are not
    // trained, which the config gives; what is saved has them.
    size_t buffers = 0;
    for (size_t i = 0; i < em_weights_count(f); i++) {
        const char *given = em_weights_at(f, i)->name;
        buffers += !em_weights_find(e, given) && (is_buffer(given) || strstr(given, ".freq"));
    }
    if (em_weights_count(f) != em_weights_count(e) + buffers)
        fail_msg("%s: %zu tensors became %zu", name, em_weights_count(e), em_weights_count(f));
    em_weights_close(e);
    em_weights_close(f);
}

// The same values, as far as the type holds them.
static void check_values(const char *name, const struct em_model *a, const struct em_model *b,
                         enum em_st_dtype dtype)
{
    assert_int_equal(a->params.count, b->params.count);
    for (size_t i = 0; i < a->params.count; i++) {
        const struct em_param *p = a->params.param[i], *q = b->params.param[i];
        const bool narrow = dtype == EM_ST_BF16 && p->init != EMBER_INIT_BUFFER;
        assert_string_equal(p->tensor.name, q->tensor.name);
        assert_int_equal(ember_tensor_count(&p->tensor), ember_tensor_count(&q->tensor));
        for (size_t j = 0; j < ember_tensor_count(&p->tensor); j++) {
            const float x = em_f32(&p->tensor)[j], y = em_f32(&q->tensor)[j];
            // bf16 keeps 8 bits.
            const double bound = narrow ? fabs((double)x) / 256 : 0;
            if (!(fabs((double)x - (double)y) <= bound))
                fail_msg("%s: %s[%zu] was %g and is %g", name, p->tensor.name, j, (double)x,
                         (double)y);
        }
    }
}

static void check_round_trip(const char *name, enum em_st_dtype dtype)
{
    char folder[512];
    const char *copy = test_directory();
    struct em_model *m, *again, *bare;
    json_t *config;
    snprintf(folder, sizeof folder, MODELS "/%s", name);
    CHECK_OK(em_model_open(folder, &m));
    save(m, copy, dtype);
    lines.count = 0;
    CHECK_OK(em_model_open(copy, &again));
    if (lines.count) fail_msg("%s: opening what was saved says: %s", name, lines.first);
    check_values(name, m, again, dtype);
    check_names(name, folder, copy, dtype);
    em_model_close(again);
    // The config alone makes the same model, unless the tensors say what the layers are.
    CHECK_OK(em_model_read_config(copy, &config));
    if (!json_is_true(json_object_get(config, "wired"))) {
        CHECK_OK(em_model_create(config, "config.json", NULL, &bare));
        assert_int_equal(bare->n_values, m->n_values);
        // A free block list is its own form, with the files' width in it.
        json_t *made = json_copy(bare->form), *given = json_copy(m->form);
        json_object_del(made, "dtype");
        json_object_del(given, "dtype");
        if (!json_equal(made, given)) fail_msg("%s: the config alone makes another model", name);
        json_decref(made);
        json_decref(given);
        em_model_close(bare);
    }
    assert_string_equal(json_string_value(json_object_get(config, "dtype")),
                        dtype == EM_ST_BF16 ? "bfloat16" : "float32");
    json_decref(config);
    em_model_close(m);
}

static void a_saved_model_is_the_same_model(void **state)
{
    (void)state;
    char **names;
    size_t count;
    CHECK_OK(em_list_directory(MODELS, &names, &count));
    assert_true(count >= 16);
    for (size_t i = 0; i < count; i++) {
        check_round_trip(names[i], EM_ST_F32);
        check_round_trip(names[i], EM_ST_BF16);
    }
    em_names_free(names, count);
}

static void a_free_block_list_is_saved_under_its_own_names(void **state)
{
    (void)state;
    static const char text[] =
        "{\"model_type\": \"ember\", \"hidden_size\": 8, \"vocab_size\": 11, \"dtype\": "
        "\"float32\","
        " \"tie_word_embeddings\": false, \"blocks\": [{\"type\": \"pre_norm\", \"sequence\":"
        " {\"type\": \"attention\", \"heads\": 2}, \"channel\": {\"type\": \"moe\", \"experts\": 3,"
        " \"router\": {\"type\": \"softmax_topk\", \"k\": 2}}}, {\"repeat\": 2, \"share\": true,"
        " \"blocks\": [{\"type\": \"post_norm\", \"sequence\": \"short_conv\"}]}]}";
    const char *folder = test_directory();
    struct em_model *m, *again;
    json_t *config;
    CHECK_OK(em_json_parse("config.json", text, strlen(text), 0, &config));
    CHECK_OK(em_model_create(config, "config.json", NULL, &m));
    CHECK_OK(em_model_allocate(m));
    em_model_init(m, 3, NULL);
    save(m, folder, EM_ST_F32);
    lines.count = 0;
    CHECK_OK(em_model_open(folder, &again));
    if (lines.count) fail_msg("opening what was saved says: %s", lines.first);
    check_values("ember", m, again, EM_ST_F32);
    struct em_weights *w;
    CHECK_OK(em_weights_open(folder, &w));
    assert_non_null(em_weights_find(w, "blocks.0.channel.experts.2.down.weight"));
    assert_null(em_weights_find(w, "blocks.2.sequence.conv.weight")); // shared: written once
    em_weights_close(w);
    em_model_close(again);
    em_model_close(m);
    json_decref(config);
}

static void check_integer(const json_t *config, const char *key, json_int_t expected)
{
    const json_t *v = json_object_get(config, key);
    if (!json_is_integer(v) || json_integer_value(v) != expected)
        fail_msg("%s has to be %lld", key, (long long)expected);
}

static json_t *completed(const char *text)
{
    const char *folder = test_directory();
    struct em_model *m;
    json_t *config;
    CHECK_OK(em_json_parse("config.json", text, strlen(text), 0, &config));
    CHECK_OK(em_model_create(config, "config.json", NULL, &m));
    json_decref(config);
    CHECK_OK(em_model_save_config(m, folder, EM_ST_F32));
    em_model_close(m);
    CHECK_OK(em_model_read_config(folder, &config));
    return config;
}

// Converters look these keys up without a default.
static void a_saved_config_says_what_was_left_to_defaults(void **state)
{
    (void)state;
    json_t *config = completed("{\"model_type\": \"lfm2\", \"hidden_size\": 64, \"vocab_size\": 40,"
                               " \"num_hidden_layers\": 3, \"num_attention_heads\": 4,"
                               " \"num_key_value_heads\": 2, \"block_ff_dim\": 384,"
                               " \"full_attn_idxs\": [1], \"rope_theta\": 5e5}");
    check_integer(config, "intermediate_size", 256);
    check_integer(config, "block_ff_dim", 256);
    check_integer(config, "block_multiple_of", 256);
    check_integer(config, "conv_L_cache", 3);
    check_integer(config, "max_position_embeddings", 128000);
    assert_true(json_is_false(json_object_get(config, "block_auto_adjust_ff_dim")));
    assert_true(json_is_false(json_object_get(config, "conv_bias")));
    assert_true(json_is_true(json_object_get(config, "tie_embedding")));
    assert_true(json_is_true(json_object_get(config, "tie_word_embeddings")));
    assert_true(json_number_value(json_object_get(config, "block_ffn_dim_multiplier")) == 1);
    assert_true(json_number_value(json_object_get(config, "norm_eps")) == 1e-5);
    assert_true(json_number_value(json_object_get(config, "rope_theta")) == 5e5);
    const json_t *rope = json_object_get(config, "rope_parameters");
    assert_true(json_number_value(json_object_get(rope, "rope_theta")) == 5e5);
    assert_string_equal(json_string_value(json_object_get(rope, "rope_type")), "default");
    json_t *types = json_pack("[s,s,s]", "conv", "full_attention", "conv");
    assert_true(json_equal(json_object_get(config, "layer_types"), types));
    json_decref(types);
    assert_int_equal(json_array_size(json_object_get(config, "full_attn_idxs")), 1);
    assert_string_equal(
        json_string_value(json_array_get(json_object_get(config, "architectures"), 0)),
        "Lfm2ForCausalLM");
    json_decref(config);

    config = completed("{\"model_type\": \"lfm2_moe\", \"num_hidden_layers\": 2,"
                       " \"layer_types\": [\"conv\", \"full_attention\"],"
                       " \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 7e5}}");
    check_integer(config, "num_experts", 32);
    check_integer(config, "num_experts_per_tok", 4);
    check_integer(config, "moe_intermediate_size", 1792);
    check_integer(config, "intermediate_size", 7168);
    check_integer(config, "num_dense_layers", 2);
    check_integer(config, "num_key_value_heads", 8);
    assert_true(json_is_true(json_object_get(config, "use_expert_bias")));
    assert_true(json_number_value(json_object_get(config, "rope_theta")) == 7e5);
    json_decref(config);

    config = completed("{\"model_type\": \"lfm3\", \"num_hidden_layers\": 1,"
                       " \"rms_norm_eps\": 1e-6, \"vocab_size\": 50}");
    assert_true(json_number_value(json_object_get(config, "norm_eps")) == 1e-6);
    check_integer(config, "head_dim", 128);
    json_decref(config);
}

// The files decide about the feed-forward width; the config that is written follows them.
static void a_saved_config_has_the_width_that_the_files_had(void **state)
{
    (void)state;
    const char *folder = test_directory(), *copy = test_directory();
    struct em_model *m, *again;
    json_t *config;
    CHECK_OK(em_model_open(MODELS "/lfm2", &m));
    save(m, folder, EM_ST_F32);
    em_model_close(m);
    CHECK_OK(em_model_read_config(folder, &config));
    assert_int_equal(json_object_set_new(config, "block_ff_dim", json_integer(99)), 0);
    CHECK_OK(em_json_write(test_path(folder, "config.json"), config, 2));
    json_decref(config);
    lines.count = 0;
    CHECK_OK(em_model_open(folder, &m));
    assert_int_equal(lines.count, 1);
    assert_non_null(strstr(lines.first, "feed-forward width 99"));
    save(m, copy, EM_ST_F32);
    lines.count = 0;
    CHECK_OK(em_model_open(copy, &again));
    if (lines.count) fail_msg("opening what was saved says: %s", lines.first);
    em_model_close(again);
    em_model_close(m);
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
        cmocka_unit_test(a_saved_model_is_the_same_model),
        cmocka_unit_test(a_free_block_list_is_saved_under_its_own_names),
        cmocka_unit_test(a_saved_config_says_what_was_left_to_defaults),
        cmocka_unit_test(a_saved_config_has_the_width_that_the_files_had),
    };
    return cmocka_run_group_tests_name("models/save", tests, setup, NULL);
}
