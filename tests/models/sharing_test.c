// Weights shared over depth: a group of blocks that runs twice computes what two groups with equal
// weights compute, its gradients are the sums of theirs, and each pass has a state of its own.
#include <ember/runtime.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/model.h"
#include "support/check.h"

enum { TOKENS = 12, SEQUENCES = 2, VOCABULARY = 13 };

static struct em_model *create(const char *share)
{
    char text[1024];
    struct em_model *m;
    json_t *config;
    snprintf(text, sizeof text,
             "{\"model_type\": \"ember\", \"hidden_size\": 8, \"vocab_size\": %d, "
             "\"initializer_range\": 0.4, \"blocks\": [{\"repeat\": 2, \"share\": %s, \"blocks\": "
             "[{\"type\": \"pre_norm\", \"sequence\": {\"type\": \"token_mixing\", \"rank\": 3, "
             "\"adapt\": 5}, \"channel\": {\"type\": \"adaptive_linear\", \"generator\": \"film\", "
             "\"adapt\": 5}}, {\"type\": \"pre_norm\", \"sequence\": {\"type\": "
             "\"linear_attention\", \"heads\": 2, \"decay\": \"gate\"}}]}]}",
             (int)VOCABULARY, share);
    CHECK_OK(em_json_parse("config.json", text, strlen(text), 0, &config));
    CHECK_OK(em_model_create(config, "config.json", NULL, &m));
    json_decref(config);
    CHECK_OK(em_model_allocate(m));
    em_model_init(m, 9, NULL);
    return m;
}

static struct em_program *record(struct em_model *m, bool gradients, enum em_head head,
                                 struct em_model_outputs *out)
{
    struct em_program *p;
    CHECK_OK(em_program_create(&(struct em_program_options){.backend = EM_CPU,
                                                            .max_tokens = TOKENS,
                                                            .max_sequences = SEQUENCES,
                                                            .packs = m->packs,
                                                            .gradients = gradients},
                               &p));
    CHECK_OK(em_model_record(m, p, head, out));
    CHECK_OK(em_program_allocate(p));
    return p;
}

static double loss_and_gradients(struct em_model *m, const ember_batch *batch, float *gradients)
{
    struct em_model_outputs out;
    CHECK_OK(em_model_attach_gradients(m, gradients));
    struct em_program *p = record(m, true, EM_HEAD_LOSS, &out);
    const struct em_run run = {.batch = batch, .loss_scale = 0.1, .gradients = true};
    CHECK_OK(em_program_forward(p, &run));
    CHECK_OK(em_program_backward(p));
    const double loss = (double)em_f32(out.loss)[0];
    em_program_destroy(p);
    return loss;
}

// The parameter of `m` that block `block + 2` (of the second pass) has for p of the first.
static const ember_tensor *of_pass(const struct em_model *m, const char *path, size_t pass)
{
    char name[128];
    size_t block;
    int used = 0;
    if (pass && sscanf(path, "blocks.%zu%n", &block, &used) == 1 && used)
        snprintf(name, sizeof name, "blocks.%zu%s", block + 2 * pass, path + used);
    else
        snprintf(name, sizeof name, "%s", path);
    struct em_param *p = em_params_find(&m->params, name);
    assert_non_null(p);
    return &p->tensor;
}

static void shared_weights_are_equal_weights(void **state)
{
    (void)state;
    struct em_model *shared = create("true"), *separate = create("false");
    assert_int_equal(shared->depth, 4);
    assert_int_equal(shared->n_blocks, 2);
    assert_int_equal(separate->n_blocks, 4);
    for (size_t i = 0; i < shared->params.count; i++)
        for (size_t pass = 0; pass < 2; pass++) {
            const ember_tensor *from = &shared->params.param[i]->tensor;
            memcpy(of_pass(separate, from->name, pass)->data, from->data, em_tensor_bytes(from));
        }
    int32_t tokens[TOKENS], targets[TOKENS];
    for (size_t t = 0; t < TOKENS; t++) {
        tokens[t] = (int32_t)(t * 7 % VOCABULARY);
        targets[t] = (int32_t)((t * 5 + 2) % VOCABULARY);
    }
    const size_t offset[] = {0, 5, TOKENS};
    const ember_batch batch = {.n_tokens = TOKENS,
                               .n_sequences = SEQUENCES,
                               .offset = offset,
                               .tokens = tokens,
                               .targets = targets};
    float *a = calloc(shared->n_values, sizeof *a), *b = calloc(separate->n_values, sizeof *b);
    CHECK_NEAR(loss_and_gradients(shared, &batch, a), loss_and_gradients(separate, &batch, b), 1e-6,
               "losses");
    for (size_t i = 0; i < shared->params.count; i++) {
        const ember_tensor *t = &shared->params.param[i]->tensor;
        const bool block = strncmp(t->name, "blocks.", 7) == 0;
        for (size_t j = 0; j < ember_tensor_count(t); j++) {
            double sum = 0;
            for (size_t pass = 0; pass < (block ? 2 : 1); pass++)
                sum += (double)em_f32(of_pass(separate, t->name, pass)->grad)[j];
            CHECK_NEAR(em_f32(t->grad)[j], sum, 1e-5, "%s element %zu", t->name, j);
        }
    }
    free(a);
    free(b);
    em_model_close(shared);
    em_model_close(separate);
}

static void each_pass_has_a_state(void **state)
{
    (void)state;
    struct em_model *m = create("true");
    struct em_model_outputs out;
    struct em_program *p = record(m, false, EM_HEAD_NONE, &out);
    assert_int_equal(em_program_layout(p)->count, 4); // two mixers with states, twice
    float whole[TOKENS * 8];
    int32_t tokens[TOKENS];
    for (size_t t = 0; t < TOKENS; t++)
        tokens[t] = (int32_t)(t * 7 % VOCABULARY);
    ember_batch batch = {
        .n_tokens = TOKENS, .n_sequences = 1, .offset = (size_t[]){0, TOKENS}, .tokens = tokens};
    CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
    memcpy(whole, em_f32(out.hidden), sizeof whole);
    ember_state *kept;
    CHECK_OK(em_state_create(em_program_layout(p), &kept));
    batch.state_in = batch.state_out = &kept;
    batch.n_tokens = 1;
    batch.offset = (size_t[]){0, 1};
    for (size_t t = 0; t < TOKENS; t++) {
        batch.tokens = tokens + t;
        CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
        for (size_t d = 0; d < 8; d++)
            CHECK_NEAR(em_f32(out.hidden)[d], whole[t * 8 + d], 1e-5, "token %zu", t);
    }
    em_state_destroy(kept);
    em_program_destroy(p);
    em_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_weights_are_equal_weights),
        cmocka_unit_test(each_pass_has_a_state),
    };
    if (ember_start() != EMBER_OK) return 1;
    return cmocka_run_group_tests_name("models/sharing", tests, NULL, NULL);
}
