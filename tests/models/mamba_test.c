// Mamba's and Mamba-2's configs: the published numbers of parameters, what decays, and hybrids.
#include <ember/runtime.h>
#include <stdio.h>
#include <string.h>

#include "models/model.h"
#include "support/check.h"

static struct em_model *create(const char *text)
{
    struct em_model *m;
    json_t *config = NULL;
    CHECK_OK(em_json_parse("a config", text, strlen(text), 0, &config));
    CHECK_OK(em_model_create(config, "a config", NULL, &m));
    json_decref(config);
    return m;
}

static size_t parameters(const struct em_model *m)
{
    size_t n = 0;
    for (size_t i = 0; i < m->params.count; i++)
        n += ember_tensor_count(&m->params.param[i]->tensor);
    return n;
}

static void published_sizes(void **state)
{
    (void)state;
    static const size_t layers[] = {24, 48, 48, 48, 64}, width[] = {768, 1024, 1536, 2048, 2560};
    static const size_t expected[] = {129135360, 371516416, 793204224, 1372178432, 2768345600};
    char text[512];
    for (size_t i = 0; i < 5; i++) {
        snprintf(text, sizeof text,
                 "{\"model_type\": \"mamba\", \"vocab_size\": 50280, \"hidden_size\": %zu, "
                 "\"num_hidden_layers\": %zu}",
                 width[i], layers[i]);
        struct em_model *m = create(text);
        assert_int_equal(parameters(m), expected[i]);
        em_model_close(m);
    }
    struct em_model *m =
        create("{\"model_type\": \"mamba2\", \"vocab_size\": 50288, \"hidden_size\": 768, "
               "\"num_hidden_layers\": 24, \"num_heads\": 24, \"head_dim\": 64, \"n_groups\": 1, "
               "\"tie_word_embeddings\": true, \"time_step_limit\": [0.0, {\"__float__\": "
               "\"Infinity\"}]}");
    assert_int_equal(parameters(m), 128989632);
    em_model_close(m);
}

// As transformers writes no limit: since version 5, before it, and what one writes by hand.
static void steps_without_a_limit_are_read_in_every_form(void **state)
{
    (void)state;
    static const char *const high[] = {"{\"__float__\": \"Infinity\"}", "Infinity", "1e30"};
    for (size_t i = 0; i < 3; i++) {
        char text[512];
        snprintf(text, sizeof text,
                 "{\"model_type\": \"mamba2\", \"vocab_size\": 20, \"hidden_size\": 8, "
                 "\"num_heads\": 4, \"head_dim\": 4, \"n_groups\": 2, \"num_hidden_layers\": 1, "
                 "\"time_step_limit\": [0.0, %s]}",
                 high[i]);
        em_model_close(create(text));
    }
}

static void rates_skips_and_step_biases_do_not_decay(void **state)
{
    (void)state;
    static const char *const configs[] = {
        "{\"model_type\": \"mamba\", \"vocab_size\": 20, \"hidden_size\": 8, "
        "\"num_hidden_layers\": 1}",
        "{\"model_type\": \"mamba2\", \"vocab_size\": 20, \"hidden_size\": 8, \"num_heads\": 4, "
        "\"head_dim\": 4, \"n_groups\": 2, \"num_hidden_layers\": 1}"};
    for (size_t i = 0; i < 2; i++) {
        struct em_model *m = create(configs[i]);
        size_t seen = 0;
        for (size_t j = 0; j < m->params.count; j++) {
            const struct em_param *p = m->params.param[j];
            if (strstr(p->tensor.name, "A_log") || strstr(p->tensor.name, "sequence.D") ||
                strstr(p->tensor.name, "dt_bias") || strstr(p->tensor.name, "dt_proj.bias")) {
                assert_false(p->decay);
                seen++;
            } else if (strstr(p->tensor.name, "_proj.weight")) {
                assert_true(p->decay);
            }
        }
        assert_int_equal(seen, 3);
        em_model_close(m);
    }
}

static void refusals(void **state)
{
    (void)state;
    static const char *const configs[][2] = {
        {"{\"model_type\": \"mamba2\", \"hidden_size\": 8, \"num_heads\": 3, \"head_dim\": 4}",
         "the products have to be equal"},
        {"{\"model_type\": \"mamba2\", \"hidden_size\": 8, \"num_heads\": 4, \"head_dim\": 4, "
         "\"time_step_limit\": [1]}",
         "time_step_limit has to be two numbers"},
        {"{\"model_type\": \"mamba\", \"hidden_size\": 8, \"hidden_act\": \"gelu\"}",
         "hidden_act of mamba has to be silu"}};
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        struct em_model *m;
        json_t *config = json_loads(configs[i][0], 0, NULL);
        assert_int_not_equal(em_model_create(config, "a config", NULL, &m), EMBER_OK);
        if (!strstr(ember_last_error(), configs[i][1])) fail_msg("%s", ember_last_error());
        json_decref(config);
    }
}

// Mamba, attention and mixtures of experts in one free block list.
static void hybrids_are_built(void **state)
{
    (void)state;
    struct em_model *m =
        create("{\"model_type\": \"ember\", \"vocab_size\": 20, \"hidden_size\": 16, \"blocks\": ["
               "{\"type\": \"pre_norm\", \"sequence\": \"mamba\"},"
               "{\"type\": \"pre_norm\", \"sequence\": {\"type\": \"attention\", \"heads\": 2}, "
               "\"channel\": {\"type\": \"moe\", \"experts\": 3}},"
               "{\"type\": \"pre_norm\", \"sequence\": {\"type\": \"mamba2\", \"head_dim\": 8}, "
               "\"channel\": \"swiglu\"}]}");
    assert_int_equal(m->depth, 3);
    em_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_sizes),
        cmocka_unit_test(steps_without_a_limit_are_read_in_every_form),
        cmocka_unit_test(rates_skips_and_step_biases_do_not_decay),
        cmocka_unit_test(refusals),
        cmocka_unit_test(hybrids_are_built),
    };
    if (ember_start() != EMBER_OK) return 1;
    return cmocka_run_group_tests_name("models/mamba", tests, NULL, NULL);
}
