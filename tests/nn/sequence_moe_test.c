// A mixture of sequence mixers gives a sequence what its expert alone would give it, and touches no
// other expert.
#include <ember/runtime.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/model.h"
#include "support/check.h"

enum { T = 21, S = 4, D = 12, V = 17, EXPERTS = 3 };

static const char *const expert[EXPERTS] = {
    "{\"type\":\"attention\",\"heads\":2,\"kv_heads\":1,\"head_dim\":6}",
    "{\"type\":\"mamba\",\"d_inner\":16,\"d_state\":4}",
    "{\"type\":\"short_conv\",\"width\":4}",
};
static const size_t offset[S + 1] = {0, 6, 7, 15, T};
static const int32_t label[S] = {2, 0, 1, 0};

static struct em_model *make(const char *sequence)
{
    char text[1024];
    struct em_model *m;
    snprintf(text, sizeof text,
             "{\"model_type\":\"ember\",\"hidden_size\":%d,\"vocab_size\":%d,"
             "\"initializer_range\":0.4,\"blocks\":[{\"type\":\"pre_norm\",\"sequence\":%s}]}",
             D, V, sequence);
    json_t *config = json_loads(text, 0, NULL);
    assert_non_null(config);
    CHECK_OK(em_model_create(config, "test", NULL, &m));
    json_decref(config);
    CHECK_OK(em_model_allocate(m));
    em_model_init(m, 5, NULL);
    return m;
}

static struct em_model *make_mixture(void)
{
    char text[768];
    snprintf(text, sizeof text,
             "{\"type\":\"sequence_moe\",\"by\":\"label\",\"expert_list\":[%s,%s,%s]}", expert[0],
             expert[1], expert[2]);
    return make(text);
}

// The expert's parameters, and all that is not an expert's.
static void copy_parameters(const struct em_model *from, struct em_model *to, size_t e)
{
    for (size_t i = 0; i < to->params.count; i++) {
        ember_tensor *t = &to->params.param[i]->tensor;
        char path[256];
        static const char stem[] = "blocks.0.sequence.";
        if (strncmp(t->name, stem, strlen(stem)) == 0)
            snprintf(path, sizeof path, "%sexperts.%zu.%s", stem, e, t->name + strlen(stem));
        else
            snprintf(path, sizeof path, "%s", t->name);
        const struct em_param *p = em_params_find(&from->params, path);
        if (!p) fail_msg("the mixture has no %s", path);
        memcpy(t->data, p->tensor.data, em_tensor_bytes(t));
    }
}

struct runner {
    struct em_program *program;
    struct em_model_outputs out;
};

static void open_runner(struct runner *r, const struct em_model *m, bool gradients)
{
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .backend = EM_CPU, .max_tokens = T, .max_sequences = S, .gradients = gradients},
        &r->program));
    CHECK_OK(em_model_record(m, r->program, gradients ? EM_HEAD_LOSS : EM_HEAD_NONE, &r->out));
    CHECK_OK(em_program_allocate(r->program));
}

static void run(struct runner *r, const ember_batch *batch)
{
    const struct em_run run = {
        .batch = batch, .loss_scale = 1, .aux_scale = 1, .gradients = r->out.loss != NULL};
    CHECK_OK(em_program_forward(r->program, &run));
    if (r->out.loss) CHECK_OK(em_program_backward(r->program));
}

static void fill_tokens(int32_t *tokens)
{
    for (int32_t t = 0; t < T; t++)
        tokens[t] = t * 7 % V;
}

static void a_sequence_gets_its_expert(void **state)
{
    (void)state;
    struct em_model *mixture = make_mixture();
    struct runner whole, alone;
    int32_t tokens[T];
    float *y = malloc(T * D * sizeof *y);
    fill_tokens(tokens);
    open_runner(&whole, mixture, false);
    run(&whole,
        &(ember_batch){
            .n_tokens = T, .n_sequences = S, .offset = offset, .tokens = tokens, .labels = label});
    memcpy(y, em_f32(whole.out.hidden), T * D * sizeof *y);
    for (size_t s = 0; s < S; s++) {
        struct em_model *m = make(expert[label[s]]);
        const size_t n = offset[s + 1] - offset[s], own[] = {0, n};
        copy_parameters(mixture, m, (size_t)label[s]);
        open_runner(&alone, m, false);
        run(&alone,
            &(ember_batch){
                .n_tokens = n, .n_sequences = 1, .offset = own, .tokens = tokens + offset[s]});
        assert_memory_equal(y + offset[s] * D, em_f32(alone.out.hidden), n * D * sizeof *y);
        em_program_destroy(alone.program);
        em_model_close(m);
    }
    em_program_destroy(whole.program);
    em_model_close(mixture);
    free(y);
}

// A later part of a sequence stays with the expert that its first part had, whatever its label says
// by then.
static void a_sequence_stays_with_its_expert(void **state)
{
    (void)state;
    struct em_model *mixture = make_mixture();
    struct runner r;
    int32_t tokens[T];
    float y[9 * D];
    ember_state *sequence;
    fill_tokens(tokens);
    open_runner(&r, mixture, false);
    run(&r, &(ember_batch){.n_tokens = 9,
                           .n_sequences = 1,
                           .offset = (size_t[]){0, 9},
                           .tokens = tokens,
                           .labels = (int32_t[]){1}});
    memcpy(y, em_f32(r.out.hidden), sizeof y);
    CHECK_OK(em_state_create(em_program_layout(r.program), &sequence));
    for (size_t at = 0; at < 9; at += 3) {
        run(&r, &(ember_batch){.n_tokens = 3,
                               .n_sequences = 1,
                               .offset = (size_t[]){0, 3},
                               .tokens = tokens + at,
                               .labels = (int32_t[]){at ? 0 : 1},
                               .state_in = &sequence,
                               .state_out = &sequence});
        for (size_t i = 0; i < 3 * D; i++)
            CHECK_NEAR(em_f32(r.out.hidden)[i], y[at * D + i], 1e-5, "part %zu", at);
    }
    em_state_destroy(sequence);
    em_program_destroy(r.program);
    em_model_close(mixture);
}

static void who_gets_no_sequence_learns_nothing(void **state)
{
    (void)state;
    struct em_model *mixture = make_mixture();
    struct runner r;
    int32_t tokens[T], targets[T];
    static const int32_t few[S] = {2, 2, 0, 2};
    float *gradient = calloc(mixture->n_values, sizeof *gradient);
    fill_tokens(tokens);
    for (size_t t = 0; t < T; t++)
        targets[t] = (tokens[t] + 1) % V;
    CHECK_OK(em_model_attach_gradients(mixture, gradient));
    open_runner(&r, mixture, true);
    run(&r, &(ember_batch){.n_tokens = T,
                           .n_sequences = S,
                           .offset = offset,
                           .tokens = tokens,
                           .targets = targets,
                           .labels = few});
    for (size_t i = 0; i < mixture->params.count; i++) {
        const ember_tensor *t = &mixture->params.param[i]->tensor;
        double sum = 0;
        for (size_t j = 0; t->grad && j < ember_tensor_count(t); j++)
            sum += (double)(em_f32(t->grad)[j] * em_f32(t->grad)[j]);
        const bool unused = strstr(t->name, "experts.1.") != NULL;
        if (t->grad && unused != (sum == 0))
            fail_msg("%s: the gradient's squares add up to %g", t->name, sum);
    }
    em_program_destroy(r.program);
    em_model_close(mixture);
    free(gradient);
}

static void refused(const char *sequence, const char *why)
{
    char text[512];
    struct em_model *m;
    snprintf(text, sizeof text,
             "{\"model_type\":\"ember\",\"hidden_size\":8,\"vocab_size\":9,\"blocks\":[{\"type\":"
             "\"pre_norm\",\"sequence\":%s}]}",
             sequence);
    json_t *config = json_loads(text, 0, NULL);
    assert_non_null(config);
    CHECK_FAILS(em_model_create(config, "test", NULL, &m), EMBER_E_CONFIG, why);
    json_decref(config);
}

static void what_makes_no_sense_is_refused(void **state)
{
    (void)state;
    refused("{\"type\":\"sequence_moe\",\"by\":\"mean\"}", "the mean of a sequence's tokens needs");
    refused("{\"type\":\"sequence_moe\",\"k\":5}", "5 experts cannot be chosen among 4");
    refused("{\"type\":\"sequence_moe\",\"k\":2,\"by\":\"label\"}",
            "a label stands for one expert");
    refused("{\"type\":\"sequence_moe\",\"renormalise\":true}", "the router gets no gradient");
    refused("{\"type\":\"sequence_moe\",\"expert\":{\"type\":\"sequence_moe\"}}",
            "cannot be an expert of one");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sequence_gets_its_expert),
        cmocka_unit_test(a_sequence_stays_with_its_expert),
        cmocka_unit_test(who_gets_no_sequence_learns_nothing),
        cmocka_unit_test(what_makes_no_sense_is_refused),
    };
    if (ember_start() != EMBER_OK) return 1;
    return cmocka_run_group_tests_name("nn/sequence_moe", tests, NULL, NULL);
}
