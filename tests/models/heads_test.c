// Models of tokens that make no logits: classes, values and embeddings, of a sequence or of every
// place; their outputs by hand, their gradients by differences.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "models/model.h"
#include "support/check.h"

#include <ember/runtime.h>

enum { T = 11, S = 2, D = 8, M = 3, V = 7 };

static const size_t offset[S + 1] = {0, 4, T};
static const int32_t tokens[T] = {1, 5, 2, 6, 0, 3, 3, 4, 1, 6, 2};

static struct em_model *open_model(const char *rest)
{
    char text[600];
    json_t *config;
    struct em_model *m;
    snprintf(text, sizeof text,
             "{\"model_type\": \"ember\", \"vocab_size\": %d, \"hidden_size\": %d, "
             "\"initializer_range\": 0.4, \"language_model\": false, %s, \"blocks\": [{\"type\": "
             "\"pre_norm\", \"sequence\": \"short_conv\", \"channel\": {\"type\": \"swiglu\", "
             "\"hidden\": 12}}]}",
             (int)V, (int)D, rest);
    CHECK_OK(ember_start());
    CHECK_OK(em_json_parse("config.json", text, strlen(text), 0, &config));
    CHECK_OK(em_model_create(config, "config.json", NULL, &m));
    json_decref(config);
    CHECK_OK(em_model_allocate(m));
    em_model_init(m, 5, NULL);
    return m;
}

static void forward(const struct em_model *m, float *to, size_t rows, size_t width)
{
    struct em_program *p;
    struct em_model_outputs outputs;
    CHECK_OK(em_program_create(
        &(struct em_program_options){.backend = EM_CPU, .max_tokens = T, .max_sequences = S}, &p));
    CHECK_OK(em_model_record(m, p, EM_HEAD_ALL, &outputs));
    CHECK_OK(em_program_allocate(p));
    const ember_batch batch = {.n_tokens = T, .n_sequences = S, .offset = offset, .tokens = tokens};
    CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch, .loss_scale = 1}));
    assert_int_equal(outputs.logits->dim[0], rows);
    assert_int_equal(outputs.logits->dim[1], width);
    memcpy(to, em_f32(outputs.logits), rows * width * sizeof *to);
    em_program_destroy(p);
}

static double pooled(const char *mode, const float *rows, size_t s, size_t d)
{
    const size_t begin = offset[s], end = offset[s + 1];
    double sum = 0;
    if (strcmp(mode, "first") == 0) return (double)rows[begin * D + d];
    if (strcmp(mode, "last") == 0) return (double)rows[(end - 1) * D + d];
    for (size_t t = begin; t < end; t++)
        sum += (double)rows[t * D + d];
    return strcmp(mode, "mean") == 0 ? sum / (double)(end - begin) : sum;
}

// The random start of blocks does not depend on the head behind them, so that the embeddings of
// one model are those of the others.
static void outputs_are_those_of_the_pooled_rows(void **state)
{
    (void)state;
    static const char *const modes[] = {"first", "last", "mean", "sum"};
    float rows[T * D], y[S * M], embedding[S * D];
    struct em_model *m = open_model("\"output_size\": 0");
    assert_false(m->language_model);
    forward(m, rows, T, D);
    em_model_close(m);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        char rest[96];
        snprintf(rest, sizeof rest, "\"output_size\": %d, \"head_bias\": true, \"pool\": \"%s\"",
                 (int)M, modes[i]);
        m = open_model(rest);
        assert_string_equal(m->head->name, "score.weight");
        fill_random(em_f32(m->head_bias), M, 3);
        forward(m, y, S, M);
        for (size_t s = 0; s < S; s++)
            for (size_t j = 0; j < M; j++) {
                double sum = (double)em_f32(m->head_bias)[j];
                for (size_t d = 0; d < D; d++)
                    sum += pooled(modes[i], rows, s, d) * (double)em_f32(m->head)[j * D + d];
                CHECK_NEAR(y[s * M + j], sum, 1e-5, "%s, sequence %zu", modes[i], s);
            }
        em_model_close(m);
        snprintf(rest, sizeof rest, "\"pool\": \"%s\"", modes[i]);
        m = open_model(rest);
        forward(m, embedding, S, D);
        for (size_t k = 0; k < S * D; k++)
            CHECK_NEAR(embedding[k], pooled(modes[i], rows, k / D, k % D), 1e-5, "%s", modes[i]);
        em_model_close(m);
    }
}

static double loss_of(struct em_model *m, enum em_head head, bool gradients)
{
    static const float values[T * M] = {0.5f, -1, 2, 0.25f, 1.5f, -0.75f, 1, 1, 0, -2, 0.125f};
    int32_t targets[T];
    struct em_program *p;
    struct em_model_outputs outputs;
    for (size_t t = 0; t < T; t++)
        targets[t] = t == offset[1] - 1 || t == T - 1 ? (int32_t)(t % M) : -100;
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .backend = EM_REFERENCE, .max_tokens = T, .max_sequences = S, .gradients = gradients},
        &p));
    CHECK_OK(em_model_record(m, p, head, &outputs));
    CHECK_OK(em_program_allocate(p));
    const ember_batch batch = {
        .n_tokens = T, .n_sequences = S, .offset = offset, .tokens = tokens, .targets = targets};
    CHECK_OK(em_program_forward(
        p, &(struct em_run){
               .batch = &batch, .gradients = gradients, .loss_scale = 0.5, .values = values}));
    if (gradients) CHECK_OK(em_program_backward(p));
    const double loss = (double)em_f32(outputs.loss)[0];
    em_program_destroy(p);
    return loss;
}

static void gradients_are_slopes(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        enum em_head head;
    } cases[] = {
        {"\"output_size\": 3, \"pool\": \"mean\", \"head_bias\": true", EM_HEAD_LABELS},
        {"\"output_size\": 3", EM_HEAD_LABELS},
        {"\"output_size\": 3, \"pool\": \"sum\"", EM_HEAD_SEQUENCE_VALUES},
        {"\"output_size\": 3, \"head_bias\": true", EM_HEAD_SEQUENCE_VALUES},
        {"\"output_size\": 3", EM_HEAD_VALUES},
        {"\"output_size\": 3", EM_HEAD_PLACES},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct em_model *m = open_model(cases[i].config);
        float *gradients = em_calloc(m->n_values, sizeof *gradients);
        assert_non_null(gradients);
        CHECK_OK(em_model_attach_gradients(m, gradients));
        loss_of(m, cases[i].head, true);
        for (size_t k = 0; k < m->params.count; k++) {
            const ember_tensor *t = &m->params.param[k]->tensor;
            const size_t n = ember_tensor_count(t), at = (k * 7 + 3) % n;
            float *x = em_f32(t) + at;
            const float before = *x, step = 1.0f / 512;
            *x = before + step;
            const double above = loss_of(m, cases[i].head, false);
            *x = before - step;
            const double below = loss_of(m, cases[i].head, false);
            *x = before;
            CHECK_NEAR(em_f32(t->grad)[at], (above - below) / (2 * (double)step), 3e-3,
                       "case %zu, %s[%zu]", i, t->name, at);
        }
        em_free(gradients);
        em_model_close(m);
    }
}

static void refused(const char *rest, const char *message)
{
    char text[400];
    json_t *config;
    struct em_model *m;
    snprintf(text, sizeof text,
             "{\"model_type\": \"ember\", \"hidden_size\": 8, %s, \"blocks\": [{\"type\": "
             "\"pre_norm\", \"sequence\": \"short_conv\"}]}",
             rest);
    CHECK_OK(em_json_parse("config.json", text, strlen(text), 0, &config));
    CHECK_FAILS(em_model_create(config, "config.json", NULL, &m), EMBER_E_CONFIG, message);
    json_decref(config);
}

static void language_models_have_their_own_head(void **state)
{
    (void)state;
    refused("\"vocab_size\": 7, \"pool\": \"last\"", "see language_model");
    refused("\"vocab_size\": 7, \"output_size\": 3", "see language_model");
    refused("\"vocab_size\": 7, \"input_size\": 3", "input_size is for models of `inputs`");
    refused("\"vocab_size\": 7, \"language_model\": false, \"head_bias\": true",
            "needs an output matrix");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs_are_those_of_the_pooled_rows),
        cmocka_unit_test(gradients_are_slopes),
        cmocka_unit_test(language_models_have_their_own_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
