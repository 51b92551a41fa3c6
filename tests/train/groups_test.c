// Groups of parameters: rates and decays of their own, what is frozen, and going on with them.
#include <ember/runtime.h>

#include "formats/weights.h"
#include "models/model.h"
#include "train/parameters.h"
#include "train/recipe.h"
#include "train/run.h"

static const char *dir;

// ---- what a group says ----

static const char filter_model[] =
    "{\"model_type\": \"hyenadna\", \"d_model\": 8, \"n_layer\": 2, \"vocab_size\": 12, "
    "\"max_seq_len\": 30, \"emb_dim\": 3, \"filter_order\": 8}";

struct subject {
    struct em_recipe recipe;
    struct em_model *model;
    struct em_trainable trainable;
};

static ember_status read_groups(const char *groups, struct em_recipe *recipe)
{
    char text[1024];
    snprintf(text, sizeof text,
             "{\"model\": %s, \"data\": \"text\", \"train\": {\"weight_decay\": 0.3, \"groups\": "
             "%s}}",
             filter_model, groups);
    return em_recipe_open(&(struct em_recipe_request){.file = run_write(dir, "groups.json", text)},
                          recipe);
}

static void subject_open(struct subject *s, const char *groups)
{
    CHECK_OK(read_groups(groups, &s->recipe));
    json_t *config = json_loads(filter_model, 0, NULL);
    CHECK_OK(em_model_create(config, "config", NULL, &s->model));
    json_decref(config);
    CHECK_OK(em_model_allocate(s->model));
    em_model_init(s->model, 5, NULL);
    CHECK_OK(em_groups_apply(&s->recipe, s->model, true));
    CHECK_OK(em_trainable_open(s->model, s->recipe.optimizer, s->recipe.optimizer_options, NULL,
                               &s->trainable));
}

static void subject_close(struct subject *s)
{
    em_trainable_close(&s->trainable);
    em_model_close(s->model);
    em_recipe_close(&s->recipe);
}

static struct em_param *param(struct subject *s, const char *path)
{
    struct em_param *p = em_params_find(&s->model->params, path);
    if (!p) fail_msg("there is no %s", path);
    return p;
}

// Two steps of the whole model at a rate, with the same gradients for a parameter whatever else is
// trained.
static void two_steps(struct subject *s, double lr)
{
    for (unsigned step = 1; step <= 2; step++) {
        for (size_t i = 0; i < s->model->params.count; i++) {
            const ember_tensor *t = &s->model->params.param[i]->tensor;
            if (t->grad)
                fill_random(em_f32(t->grad), ember_tensor_count(t), (unsigned)i + 7 * step);
        }
        assert_null(em_trainable_update(
            &s->trainable,
            &(struct em_update_step){.number = step, .lr = lr, .gradient_scale = 1, .share = 0.5},
            false));
    }
}

static void same_values(struct subject *a, struct subject *b, const char *path)
{
    const ember_tensor *x = &param(a, path)->tensor, *y = &param(b, path)->tensor;
    if (memcmp(x->data, y->data, em_tensor_bytes(x)) != 0) fail_msg("%s differs", path);
}

#define POSITIONS "blocks.1.sequence.filter.positions"
#define DEEP "blocks.0.sequence.filter.layers.1.weight"
#define WIDE "blocks.0.sequence.in_proj.weight"
#define UP "blocks.1.channel.up.weight"

static void a_rate_of_its_own_is_that_rate(void **state)
{
    (void)state;
    struct subject grouped, plain, slower, undecayed;
    subject_open(&grouped,
                 "[{\"pattern\": \"*.filter.layers.?.weight\", \"lr_factor\": 0.25}, "
                 "{\"pattern\": \"blocks.1.channel.*\", \"lr\": 0.005}, "
                 "{\"role\": \"convolution\", \"pattern\": \"*.in_proj.*\", \"weight_decay\": 0}]");
    subject_open(&plain, "[]");
    subject_open(&slower, "[]");
    subject_open(&undecayed, "[{\"pattern\": \"*\", \"weight_decay\": 0}]");
    two_steps(&grouped, 0.01);
    two_steps(&plain, 0.01);
    two_steps(&slower, 0.01 * 0.25);
    two_steps(&undecayed, 0.01);
    same_values(&grouped, &slower, DEEP);
    same_values(&grouped, &slower, UP); // 0.005 at half of the peak
    same_values(&grouped, &undecayed, WIDE);
    same_values(&grouped, &plain, "embedding.weight");
    same_values(&grouped, &plain, "blocks.0.sequence.in_proj.bias");
    assert_memory_not_equal(param(&plain, WIDE)->tensor.data, param(&undecayed, WIDE)->tensor.data,
                            em_tensor_bytes(&param(&plain, WIDE)->tensor));
    subject_close(&grouped);
    subject_close(&plain);
    subject_close(&slower);
    subject_close(&undecayed);
}

// A layer's own factor holds until a group says something else.
static void layers_have_factors_of_their_own(void **state)
{
    (void)state;
    struct subject own, equal, slower;
    subject_open(&own, "[]");
    subject_open(&equal, "[{\"pattern\": \"*.positions\", \"lr_factor\": 1}]");
    subject_open(&slower, "[{\"pattern\": \"*.positions\", \"lr_factor\": 1}]");
    CHECK_NEAR(param(&own, POSITIONS)->lr_factor, 1.0 / 60, 1e-7, "as in the original");
    CHECK_NEAR(param(&own, DEEP)->lr_factor, 1, 0, "of the filter's network");
    assert_false(param(&own, DEEP)->decay || param(&own, POSITIONS)->decay);
    two_steps(&own, 0.01);
    two_steps(&equal, 0.01);
    two_steps(&slower, 0.01 * param(&own, POSITIONS)->lr_factor);
    same_values(&own, &slower, POSITIONS);
    same_values(&own, &equal, DEEP);
    assert_memory_not_equal(param(&own, POSITIONS)->tensor.data,
                            param(&equal, POSITIONS)->tensor.data,
                            em_tensor_bytes(&param(&own, POSITIONS)->tensor));
    subject_close(&own);
    subject_close(&equal);
    subject_close(&slower);
}

static void what_is_frozen_takes_no_memory(void **state)
{
    (void)state;
    struct subject all, some;
    subject_open(&all, "[]");
    subject_open(&some, "[{\"pattern\": \"*\", \"frozen\": true}, "
                        "{\"pattern\": \"blocks.1.*\", \"frozen\": false}, "
                        "{\"pattern\": \"*.filter.*\", \"frozen\": true}]");
    size_t values = 0;
    for (size_t i = 0; i < some.model->params.count; i++) {
        const struct em_param *p = some.model->params.param[i];
        const bool free = strncmp(p->tensor.name, "blocks.1.", 9) == 0 &&
                          !strstr(p->tensor.name, ".filter.") && p->init != EMBER_INIT_BUFFER;
        assert_int_equal(!p->frozen, free);
        assert_int_equal(p->tensor.grad != NULL, free);
        if (free) values += ember_tensor_count(&p->tensor);
    }
    assert_int_equal(some.trainable.bytes, values * sizeof(float));
    assert_int_equal(em_trainable_bytes(some.model, some.recipe.optimizer),
                     3 * some.trainable.bytes);
    assert_true(some.trainable.bytes < all.trainable.bytes);
    two_steps(&all, 0.01);
    two_steps(&some, 0.01);
    same_values(&all, &some, UP); // its moments are its own, wherever they lie
    subject_close(&all);
    subject_open(&all, "[]"); // as it started
    same_values(&all, &some, DEEP);
    same_values(&all, &some, "embedding.weight");
    subject_close(&all);
    subject_close(&some);
}

static void groups_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *groups, *says;
    } read[] = {
        {"3", "train.groups has to be a list of groups"},
        {"[3]", "train.groups[0] has to be an object"},
        {"[{\"lr\": 1}]", "train.groups[0] needs a pattern or a role"},
        {"[{\"pattern\": \"*\"}]", "train.groups[0] says nothing of its parameters"},
        {"[{\"pattern\": \"*\", \"lr\": 1, \"lr_factor\": 1}]", "exclude each other"},
        {"[{\"patern\": \"*\", \"lr\": 1}]", "did you mean \"pattern\"?"},
        {"[{\"role\": \"filter\", \"lr\": 1}]", "it has to be one of any|other|"},
        {"[{\"pattern\": \"*\", \"lr\": -1}]", "train.groups[0].lr is -1"},
    };
    static const struct {
        const char *groups, *says;
    } applied[] = {
        {"[{\"pattern\": \"*\", \"frozen\": false}, {\"pattern\": \"*.filter.postions\", \"lr\": "
         "0}]",
         "train.groups[1]: no parameter of the model is called \"*.filter.postions\"; there are "},
        {"[{\"pattern\": \"blocks.*.sequence.filter.postions\", \"lr\": 0}]",
         "did you mean blocks.*.sequence.filter.positions"},
        {"[{\"pattern\": \"blocks.1.*\", \"role\": \"router\", \"lr\": 0}]",
         "no parameter of the model is called \"blocks.1.*\" and has the role router"},
    };
    struct em_recipe r;
    for (size_t i = 0; i < sizeof read / sizeof *read; i++)
        CHECK_FAILS(read_groups(read[i].groups, &r), EMBER_E_CONFIG, read[i].says);
    struct em_model *m;
    json_t *config = json_loads(filter_model, 0, NULL);
    CHECK_OK(em_model_create(config, "config", NULL, &m));
    json_decref(config);
    for (size_t i = 0; i < sizeof applied / sizeof *applied; i++) {
        CHECK_OK(read_groups(applied[i].groups, &r));
        CHECK_FAILS(em_groups_apply(&r, m, false), EMBER_E_CONFIG, applied[i].says);
        em_recipe_close(&r);
    }
    em_model_close(m);
}

// Beside the optimizer's options or within them; --set wins over either.
static void groups_may_stand_within_the_optimizer(void **state)
{
    (void)state;
    char text[1024];
    static const char *const train[] = {
        "\"optimizer\": {\"type\": \"adamw\", \"groups\": [{\"role\": \"norm\", \"lr\": 0.5}]}",
        "\"groups\": [{\"role\": \"norm\", \"lr\": 0.5}]",
        "\"groups\": [], \"optimizer\": {\"groups\": []}"};
    static const char *const set[] = {
        "train.optimizer.groups=[{\"role\": \"head\", \"frozen\": true}]"};
    struct em_recipe r;
    for (size_t i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "{\"model\": %s, \"data\": \"text\", \"train\": {%s}}",
                 filter_model, train[i]);
        struct em_recipe_request q = {.file = run_write(dir, "within.json", text)};
        if (i == 2) {
            CHECK_FAILS(em_recipe_open(&q, &r), EMBER_E_CONFIG,
                        "train.groups and train.optimizer.groups exclude each other");
            break;
        }
        CHECK_OK(em_recipe_open(&q, &r));
        assert_int_equal(r.group_count, 1);
        CHECK_NEAR(r.groups[0].lr, 0.5, 0, "lr");
        em_recipe_close(&r);
        q.set = set;
        q.set_count = 1;
        CHECK_OK(em_recipe_open(&q, &r));
        assert_int_equal(r.group_count, 1);
        assert_true(r.groups[0].frozen && r.groups[0].role == EMBER_ROLE_HEAD + 1);
        em_recipe_close(&r);
    }
}

// ---- whole runs ----

static void a_run_goes_on_with_its_groups(void **state)
{
    (void)state;
    const char *ids = run_ids(dir, "ids", 12, false), *whole = test_path(dir, "whole"),
               *cut = test_path(dir, "cut");
    const char *recipe =
        run_recipe(dir, "run.json", ids, 0.01,
                   "\"steps\": 12, \"save_every\": 5, \"groups\": [{\"pattern\": "
                   "\"blocks.0.*\", \"frozen\": true}, {\"role\": \"router\", \"frozen\": true}, "
                   "{\"pattern\": \"blocks.1.*\", \"lr\": 0.002, \"weight_decay\": 0.5}]");
    run_ok(&(struct run){.recipe = recipe, .out = whole, .threads = 2});
    run_ok(&(struct run){.recipe = recipe, .out = cut, .set = {"train.steps=6"}});
    run_fails(&(struct run){.out = cut, .resume = true, .set = {"train.groups.1.frozen=false"}},
              EMBER_E_CONFIG, "train.groups[1].frozen was true when this run began");
    run_fails(&(struct run){.out = cut, .resume = true, .set = {"train.groups=[]"}}, EMBER_E_CONFIG,
              "train.groups was");
    run_fails(&(struct run){.out = cut, .resume = true, .set = {"train.groups.0.forzen=true"}},
              EMBER_E_USAGE, "did you mean \"frozen\"?");
    // The schedule follows the length, so a run that goes on to the bit has the same from the
    // start.
    const char *again = test_path(dir, "again");
    run_ok(&(struct run){.recipe = recipe, .out = again});
    run_same_file(whole, again, "model.safetensors");
    run_ok(&(struct run){
        .out = cut, .resume = true, .set = {"train.steps=12", "train.groups.2.lr=0.001"}});
    struct em_model *a, *start;
    json_t *config = run_json(whole, "config.json");
    CHECK_OK(em_model_open(whole, &a));
    CHECK_OK(em_model_create(config, "config", NULL, &start));
    json_decref(config);
    CHECK_OK(em_model_allocate(start));
    em_model_init(start, 3, NULL);
    size_t frozen = 0, moved = 0, routers = 0;
    for (size_t i = 0; i < a->params.count; i++) {
        const struct em_param *p = a->params.param[i];
        const char *name = p->tensor.name;
        const bool same = memcmp(p->tensor.data, start->params.param[i]->tensor.data,
                                 em_tensor_bytes(&p->tensor)) == 0;
        const bool held = strncmp(name, "blocks.0.", 9) == 0 || p->role == EMBER_ROLE_ROUTER;
        if (held != same) fail_msg("%s %s", name, same ? "did not move" : "moved");
        frozen += held;
        moved += !held;
        routers += p->role == EMBER_ROLE_ROUTER && p->init == EMBER_INIT_BUFFER;
    }
    assert_true(frozen > 4 && moved > 10 && routers > 0); // selection biases stay, too
    em_model_close(a);
    em_model_close(start);
    // The state has moments of what is trained, and of nothing else.
    struct em_safetensors *file;
    CHECK_OK(
        em_safetensors_open(test_path(whole, "training/step-12/optimizer.safetensors"), &file));
    assert_null(em_safetensors_find(file, "moment1.blocks.0.sequence_norm.weight"));
    assert_non_null(em_safetensors_find(file, "moment1.blocks.1.sequence_norm.weight"));
    em_safetensors_close(file);
}

// A run that is stopped and goes on is the run that was not.
static void stopped_and_not_are_the_same(void **state)
{
    (void)state;
    const char *ids = run_ids(dir, "ids2", 10, false), *whole = test_path(dir, "whole2"),
               *cut = test_path(dir, "cut2");
    const char *recipe =
        run_recipe(dir, "run2.json", ids, 0.01,
                   "\"schedule\": \"constant\", \"groups\": [{\"role\": \"embedding\", \"frozen\": "
                   "true}, {\"pattern\": \"*.expert.*\", \"lr_factor\": 0.3}]");
    run_ok(
        &(struct run){.recipe = recipe, .out = whole, .set = {"train.steps=10", "train.warmup=0"}});
    run_ok(&(struct run){.recipe = recipe, .out = cut, .set = {"train.steps=4", "train.warmup=0"}});
    run_ok(&(struct run){.out = cut, .resume = true, .set = {"train.steps=10"}, .threads = 2});
    run_same_losses(whole, cut);
    run_same_file(whole, cut, "model.safetensors");
}

// ---- every layer, with parts of it frozen ----

enum { TOKENS = 17, VOCABULARY = 13 };

static struct em_model *model_around(const struct em_component *c, uint64_t seed)
{
    const unsigned flags = ((const ember_layer_type *)c->impl)->flags;
    struct em_model *m;
    json_t *config =
        json_pack("{s:s, s:b, s:i, s:i, s:f, s:[{s:s, s:s}]}", "model_type", "ember", "causal",
                  !(flags & EMBER_NOT_CAUSAL), "hidden_size", 32, "vocab_size", VOCABULARY,
                  "initializer_range", 0.3, "blocks", "type", "pre_norm",
                  c->kind == EMBER_SEQUENCE_MIXER ? "sequence" : "channel", c->name);
    assert_non_null(config);
    CHECK_OK(em_model_create(config, c->name, NULL, &m));
    json_decref(config);
    CHECK_OK(em_model_allocate(m));
    em_model_init(m, seed, NULL);
    return m;
}

// Gradients of what is not frozen, in `to`, where they would be if nothing were.
static void gradients(struct em_model *m, float *to)
{
    static const size_t offset[] = {0, 6, TOKENS};
    int32_t tokens[TOKENS], targets[TOKENS];
    struct em_program *p;
    struct em_model_outputs out;
    for (int32_t t = 0; t < TOKENS; t++) {
        tokens[t] = t * t % VOCABULARY;
        targets[t] = (3 * t + 1) % VOCABULARY;
    }
    memset(to, 0, m->n_values * sizeof *to);
    CHECK_OK(em_model_attach_gradients(m, to));
    CHECK_OK(em_program_create(
        &(struct em_program_options){
            .max_tokens = TOKENS, .max_sequences = 2, .gradients = true, .backend = EM_CPU},
        &p));
    CHECK_OK(em_model_record(m, p, EM_HEAD_LOSS, &out));
    CHECK_OK(em_program_allocate(p));
    const ember_batch batch = {.n_tokens = TOKENS,
                               .n_sequences = 2,
                               .offset = offset,
                               .tokens = tokens,
                               .targets = targets};
    CHECK_OK(em_program_forward(
        p, &(struct em_run){.batch = &batch, .gradients = true, .loss_scale = 1, .aux_scale = 1}));
    CHECK_OK(em_program_backward(p));
    em_program_destroy(p);
}

static void check_frozen(const struct em_component *c, const float *all, uint64_t seed)
{
    struct em_model *m = model_around(c, 1);
    struct em_rng rng;
    em_rng_seed(&rng, seed, 0);
    for (size_t i = 0; i < m->params.count; i++)
        if (em_rng_below(&rng, 2)) m->params.param[i]->frozen = true;
    float *some = em_calloc(m->n_values, sizeof *some);
    gradients(m, some);
    for (size_t i = 0, at = 0; i < m->params.count; i++) {
        const struct em_param *p = m->params.param[i];
        const size_t n = ember_tensor_count(&p->tensor);
        double largest = 1e-30;
        for (size_t j = 0; j < n; j++)
            largest = fmax(largest, fabs((double)all[at + j]));
        for (size_t j = 0; j < n; j++)
            if (p->frozen ? some[at + j] != 0
                          : fabs((double)some[at + j] - (double)all[at + j]) > 1e-6 * largest)
                fail_msg("%s, seed %d: %s[%zu] is %g, not %g", c->name, (int)seed, p->tensor.name,
                         j, (double)some[at + j], (double)all[at + j]);
        at += n;
    }
    em_free(some);
    em_model_close(m);
}

static void what_is_frozen_changes_no_other_gradient(void **state)
{
    (void)state;
    const struct em_component *c;
    size_t layers = 0;
    for (size_t i = 0; (c = em_registry_at(i)); i++) {
        if (c->kind != EMBER_SEQUENCE_MIXER && c->kind != EMBER_CHANNEL_MIXER) continue;
        if (((const ember_layer_type *)c->impl)->flags & EMBER_IMAGES ||
            strcmp(c->name, "ss2d") == 0)
            continue;
        struct em_model *m = model_around(c, 1);
        float *all = em_calloc(m->n_values, sizeof *all);
        gradients(m, all);
        em_model_close(m);
        for (uint64_t seed = 0; seed < 4; seed++)
            check_frozen(c, all, seed);
        em_free(all);
        layers++;
    }
    assert_true(layers > 15);
}

static int start(void **state)
{
    dir = test_directory();
    return run_quietly(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rate_of_its_own_is_that_rate),
        cmocka_unit_test(layers_have_factors_of_their_own),
        cmocka_unit_test(what_is_frozen_takes_no_memory),
        cmocka_unit_test(groups_that_make_no_sense_are_refused),
        cmocka_unit_test(groups_may_stand_within_the_optimizer),
        cmocka_unit_test(a_run_goes_on_with_its_groups),
        cmocka_unit_test(stopped_and_not_are_the_same),
        cmocka_unit_test(what_is_frozen_changes_no_other_gradient),
    };
    if (ember_start() != EMBER_OK) return 1;
    return cmocka_run_group_tests_name("train/groups", tests, start, NULL);
}
