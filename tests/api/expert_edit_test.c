// Models with other experts: what is not meant to change does not, by a bit.
#include <ember/experts.h>
#include <ember/runtime.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "models/expert_edit.h"
#include "support/check.h"

enum { T = 24, V = 23, D = 12 };

static const char *const softmax_router = "{\"type\":\"softmax_topk\",\"k\":2}";

// A folder with a random model.
static const char *make_of(const char *directory, const char *name, const char *text)
{
    struct em_model *m;
    json_t *config = json_loads(text, 0, NULL);
    assert_non_null(config);
    CHECK_OK(em_model_create(config, "test", NULL, &m));
    json_decref(config);
    CHECK_OK(em_model_allocate(m));
    em_model_init(m, 11, NULL);
    const char *folder = test_path(directory, name);
    char *weights = em_path_join(folder, "model.safetensors");
    CHECK_OK(em_make_directories(folder));
    CHECK_OK(em_model_save_config(m, folder, EM_ST_F32));
    CHECK_OK(em_model_save_weights(m, weights, EM_ST_F32));
    em_free(weights);
    em_model_close(m);
    return folder;
}

// A folder with a random model of two mixtures, one with stacked experts and one with experts that
// differ.
static const char *make(const char *directory, const char *name, const char *router)
{
    char text[2048];
    snprintf(text, sizeof text,
             "{\"model_type\":\"ember\",\"hidden_size\":%d,\"vocab_size\":%d,"
             "\"initializer_range\":0.4,\"blocks\":["
             "{\"type\":\"pre_norm\",\"sequence\":{\"type\":\"short_conv\"},\"channel\":{\"type\":"
             "\"moe\",\"experts\":4,\"expert\":{\"type\":\"swiglu\",\"hidden\":8},\"router\":%s}},"
             "{\"type\":\"pre_norm\",\"channel\":{\"type\":\"moe\",\"expert_list\":["
             "{\"type\":\"mlp\",\"hidden\":6},{\"type\":\"mlp\",\"hidden\":6},"
             "{\"type\":\"identity\"},{\"type\":\"swiglu\",\"hidden\":5}],\"router\":%s}}]}",
             D, V, router, router);
    return make_of(directory, name, text);
}

// Outputs of the model in `folder`; owned.
static float *outputs(const char *folder)
{
    struct em_model *m;
    struct em_program *p;
    struct em_model_outputs out;
    int32_t tokens[T];
    CHECK_OK(em_model_open(folder, &m));
    CHECK_OK(em_program_create(
        &(struct em_program_options){.backend = EM_CPU, .max_tokens = T, .max_sequences = 1}, &p));
    CHECK_OK(em_model_record(m, p, EM_HEAD_NONE, &out));
    CHECK_OK(em_program_allocate(p));
    for (int32_t t = 0; t < T; t++)
        tokens[t] = t * 5 % V;
    CHECK_OK(
        em_program_forward(p, &(struct em_run){.batch = &(ember_batch){.n_tokens = T,
                                                                       .n_sequences = 1,
                                                                       .offset = (size_t[]){0, T},
                                                                       .tokens = tokens}}));
    float *y = malloc(T * D * sizeof *y);
    memcpy(y, em_f32(out.hidden), T * D * sizeof *y);
    em_program_destroy(p);
    em_model_close(m);
    return y;
}

static bool same_outputs(const char *a, const char *b)
{
    float *x = outputs(a), *y = outputs(b);
    const bool same = memcmp(x, y, T * D * sizeof *x) == 0;
    free(x);
    free(y);
    return same;
}

static void edit(const char *from, const char *to, const ember_expert_edit *e, const char *says)
{
    char *text;
    CHECK_OK(ember_experts_edit(from, to, e, &text));
    assert_string_equal(text, says);
    ember_free(text);
}

static void refuse(const char *from, const char *to, const ember_expert_edit *e,
                   ember_status status, const char *why)
{
    CHECK_FAILS(ember_experts_edit(from, to, e, NULL), status, why);
    assert_false(em_path_exists(to));
}

// In: kept off, they change nothing; and out again, after which the model is what it was.
static void what_is_kept_off_changes_nothing(void **state)
{
    (void)state;
    const char *dir = test_directory();
    static const char *const router[] = {
        "{\"type\":\"softmax_topk\",\"k\":2}",
        "{\"type\":\"sigmoid_topk\",\"k\":2}",
        "{\"type\":\"sigmoid_topk\",\"k\":3,\"selection_bias\":true}",
    };
    for (size_t i = 0; i < sizeof router / sizeof *router; i++) {
        char name[32];
        snprintf(name, sizeof name, "model%zu", i);
        const char *model = make(dir, name, router[i]);
        snprintf(name, sizeof name, "more%zu", i);
        const char *more = test_path(dir, name);
        snprintf(name, sizeof name, "again%zu", i);
        const char *again = test_path(dir, name);
        edit(model, more,
             &(ember_expert_edit){.kind = EMBER_EXPERTS_ADD, .count = 2, .off = true, .seed = 3},
             "blocks.0.channel: 4 experts, now 6\nblocks.1.channel: 4 experts, now 6\n");
        assert_true(same_outputs(model, more));
        edit(more, again,
             &(ember_expert_edit){
                 .kind = EMBER_EXPERTS_REMOVE, .experts = (size_t[]){5, 4}, .n_experts = 2},
             "blocks.0.channel: 6 experts, now 4\nblocks.1.channel: 6 experts, now 4\n");
        assert_true(same_outputs(model, again));
    }
}

// Added experts that are not kept off are chosen, and removed ones were.
static void what_is_let_in_changes_something(void **state)
{
    (void)state;
    const char *dir = test_directory(), *model = make(dir, "model", softmax_router),
               *more = test_path(dir, "more"), *fewer = test_path(dir, "fewer");
    edit(model, more,
         &(ember_expert_edit){.kind = EMBER_EXPERTS_ADD,
                              .count = 3,
                              .layers = (size_t[]){0},
                              .n_layers = 1,
                              .seed = 5},
         "blocks.0.channel: 4 experts, now 7\n");
    assert_false(same_outputs(model, more));
    edit(model, fewer,
         &(ember_expert_edit){
             .kind = EMBER_EXPERTS_REMOVE, .experts = (size_t[]){1}, .n_experts = 1},
         "blocks.0.channel: 4 experts, now 3\nblocks.1.channel: 4 experts, now 3\n");
    assert_false(same_outputs(model, fewer));
}

static const float *parameter(const struct em_model *m, const char *path)
{
    const struct em_param *p = em_params_find(&m->params, path);
    if (!p) fail_msg("there is no %s", path);
    return em_f32(&p->tensor);
}

static void copies_are_copies(void **state)
{
    (void)state;
    const char *dir = test_directory(), *model = make(dir, "model", softmax_router);
    for (int noisy = 0; noisy < 2; noisy++) {
        const char *clone = test_path(dir, noisy ? "noisy" : "clone");
        struct em_model *m;
        edit(model, clone,
             &(ember_expert_edit){.kind = EMBER_EXPERTS_CLONE,
                                  .experts = (size_t[]){3, 1},
                                  .n_experts = 2,
                                  .noise = noisy ? 0.1 : 0},
             "blocks.0.channel: 4 experts, now 6\nblocks.1.channel: 4 experts, now 6\n");
        CHECK_OK(em_model_open(clone, &m));
        const float *w = parameter(m, "blocks.0.channel.expert.down.weight"),
                    *r = parameter(m, "blocks.0.channel.router.weight"),
                    *a = parameter(m, "blocks.1.channel.experts.3.up.weight"),
                    *b = parameter(m, "blocks.1.channel.experts.4.up.weight");
        const size_t expert = 8 * D, other = 5 * D;
        const bool same = !memcmp(w + 4 * expert, w + 3 * expert, expert * sizeof *w) &&
                          !memcmp(w + 5 * expert, w + 1 * expert, expert * sizeof *w) &&
                          !memcmp(r + 4 * D, r + 3 * D, D * sizeof *r) &&
                          !memcmp(a, b, other * sizeof *a);
        assert_true(same == !noisy);
        for (size_t i = 0; i < expert; i++) // noise is a share of what is there
            CHECK_NEAR(w[4 * expert + i], w[3 * expert + i], 0.3, "element %zu", i);
        em_model_close(m);
    }
}

static void merged_experts_are_their_mean(void **state)
{
    (void)state;
    const char *dir = test_directory(), *model = make(dir, "model", softmax_router),
               *merged = test_path(dir, "merged");
    struct em_model *m, *old;
    edit(model, merged,
         &(ember_expert_edit){
             .kind = EMBER_EXPERTS_MERGE, .experts = (size_t[]){1, 0}, .n_experts = 2},
         "blocks.0.channel: 4 experts, now 3\nblocks.1.channel: 4 experts, now 3\n");
    CHECK_OK(em_model_open(merged, &m));
    CHECK_OK(em_model_open(model, &old));
    const float *w = parameter(m, "blocks.0.channel.expert.down.weight"),
                *o = parameter(old, "blocks.0.channel.expert.down.weight"),
                *s = parameter(m, "blocks.1.channel.experts.0.up.weight"),
                *s0 = parameter(old, "blocks.1.channel.experts.0.up.weight"),
                *s1 = parameter(old, "blocks.1.channel.experts.1.up.weight");
    const size_t each = 8 * D;
    for (size_t i = 0; i < each; i++) {
        CHECK_NEAR(w[i], (o[i] + o[each + i]) / 2, 1e-6, "element %zu", i);
        CHECK_NEAR(w[each + i], o[2 * each + i], 0, "the next expert moves up");
    }
    for (size_t i = 0; i < 6 * D; i++)
        CHECK_NEAR(s[i], (s0[i] + s1[i]) / 2, 1e-6, "element %zu of one that stands alone", i);
    em_model_close(m);
    em_model_close(old);
    refuse(model, test_path(dir, "never"),
           &(ember_expert_edit){
               .kind = EMBER_EXPERTS_MERGE, .experts = (size_t[]){0, 3}, .n_experts = 2},
           EMBER_E_CONFIG, "experts that differ in kind cannot be merged");
}

static void tables_are_renumbered(void **state)
{
    (void)state;
    const char *dir = test_directory(), *model = make(dir, "model", "{\"type\":\"hash\",\"k\":2}"),
               *fewer = test_path(dir, "fewer");
    struct em_model *m, *old;
    edit(model, fewer,
         &(ember_expert_edit){
             .kind = EMBER_EXPERTS_REMOVE, .experts = (size_t[]){1}, .n_experts = 1},
         "blocks.0.channel: 4 experts, now 3\nblocks.1.channel: 4 experts, now 3\n");
    CHECK_OK(em_model_open(fewer, &m));
    CHECK_OK(em_model_open(model, &old));
    static const float now[] = {0, -1, 1, 2};
    const float *a = parameter(old, "blocks.0.channel.router.table"),
                *b = parameter(m, "blocks.0.channel.router.table");
    for (size_t i = 0; i < 2 * V; i++)
        assert_true(b[i] == now[(size_t)a[i]]);
    em_model_close(m);
    em_model_close(old);
}

// A dense model, and its experts at the start: the same answers.
static void dense_models_become_mixtures(void **state)
{
    (void)state;
    static const char config[] =
        "{\"model_type\":\"ember\",\"hidden_size\":12,\"vocab_size\":23,\"initializer_range\":0.4,"
        "\"blocks\":[{\"type\":\"pre_norm\",\"sequence\":{\"type\":\"short_conv\"},\"channel\":"
        "{\"type\":\"swiglu\",\"hidden\":9}},{\"type\":\"pre_norm\",\"channel\":{\"type\":"
        "\"block\","
        "\"block\":{\"type\":\"pre_norm\",\"channel\":{\"type\":\"mlp\",\"hidden\":7}}}}]}";
    const char *dir = test_directory(), *mixture = test_path(dir, "mixture");
    const char *dense = make_of(dir, "dense", config);
    char *text;
    CHECK_OK(ember_experts_upcycle(dense, mixture, &(ember_upcycling){.experts = 4}, &text));
    assert_string_equal(text, "blocks.0.channel: 4 experts, 2 a token\n"
                              "blocks.1.channel: 4 experts, 2 a token\n");
    ember_free(text);
    float *x = outputs(dense), *y = outputs(mixture);
    for (size_t i = 0; i < T * D; i++)
        CHECK_NEAR(y[i], x[i], 1e-5, "output %zu", i);
    free(y);
    const char *noisy = test_path(dir, "noisy");
    CHECK_OK(ember_experts_upcycle(
        dense, noisy, &(ember_upcycling){.experts = 4, .noise = 0.1, .seed = 2}, NULL));
    y = outputs(noisy);
    assert_true(memcmp(x, y, T * D * sizeof *x) != 0);
    free(x);
    free(y);
    CHECK_FAILS(ember_experts_upcycle(mixture, test_path(dir, "twice"),
                                      &(ember_upcycling){.experts = 4}, NULL),
                EMBER_E_CONFIG, "no block that is named has a dense channel mixer");
    CHECK_FAILS(
        ember_experts_upcycle(dense, test_path(dir, "few"), &(ember_upcycling){.experts = 1}, NULL),
        EMBER_E_CONFIG, "2 experts cannot be chosen among 1");
}

static void what_makes_no_sense_is_refused(void **state)
{
    (void)state;
    const char *dir = test_directory(), *model = make(dir, "model", softmax_router),
               *hash = make(dir, "hash", "{\"type\":\"hash\"}"), *out = test_path(dir, "out");
    const struct {
        const char *model;
        ember_expert_edit edit;
        ember_status status;
        const char *why;
    } cases[] = {
        {model, {.kind = EMBER_EXPERTS_ADD}, EMBER_E_RANGE, "1 to 4096 experts can be added"},
        {model, {.kind = EMBER_EXPERTS_REMOVE}, EMBER_E_USAGE, "experts have to be named"},
        {model,
         {.kind = EMBER_EXPERTS_MERGE, .experts = (size_t[]){1}, .n_experts = 1},
         EMBER_E_USAGE,
         "at least two"},
        {model,
         {.kind = EMBER_EXPERTS_REMOVE, .experts = (size_t[]){4}, .n_experts = 1},
         EMBER_E_RANGE,
         "blocks.0.channel has no expert 4: it has 4"},
        {model,
         {.kind = EMBER_EXPERTS_REMOVE, .experts = (size_t[]){1, 1}, .n_experts = 2},
         EMBER_E_USAGE,
         "expert 1 is named twice"},
        {model,
         {.kind = EMBER_EXPERTS_REMOVE, .experts = (size_t[]){0, 1, 2}, .n_experts = 3},
         EMBER_E_CONFIG,
         "2 experts cannot be chosen among 1"},
        {model,
         {.kind = EMBER_EXPERTS_REMOVE, .experts = (size_t[]){0, 1, 2, 3}, .n_experts = 4},
         EMBER_E_RANGE,
         "would have no experts left"},
        {model,
         {.kind = EMBER_EXPERTS_ADD, .count = 1, .layers = (size_t[]){7}, .n_layers = 1},
         EMBER_E_CONFIG,
         "the blocks that are named have no mixture of experts"},
        {model,
         {.kind = EMBER_EXPERTS_ADD, .count = 1, .noise = -1},
         EMBER_E_RANGE,
         "noise has to be in [0, 10]"},
        {hash,
         {.kind = EMBER_EXPERTS_ADD, .count = 1, .off = true},
         EMBER_E_CONFIG,
         "selection_bias"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse(cases[i].model, out, &cases[i].edit, cases[i].status, cases[i].why);
    CHECK_FAILS(ember_experts_edit(
                    model, hash, &(ember_expert_edit){.kind = EMBER_EXPERTS_ADD, .count = 1}, NULL),
                EMBER_E_STATE, "is there already");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_kept_off_changes_nothing),
        cmocka_unit_test(what_is_let_in_changes_something),
        cmocka_unit_test(copies_are_copies),
        cmocka_unit_test(merged_experts_are_their_mean),
        cmocka_unit_test(tables_are_renumbered),
        cmocka_unit_test(dense_models_become_mixtures),
        cmocka_unit_test(what_makes_no_sense_is_refused),
    };
    if (ember_start() != EMBER_OK) return 1;
    return cmocka_run_group_tests_name("api/expert_edit", tests, NULL, NULL);
}
