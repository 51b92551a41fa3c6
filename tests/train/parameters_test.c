// What walks over all parameters at once: AdamW against a loop in double, the norm, and NaNs.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <ember/runtime.h>

#include "base/alloc.h"
#include "models/diagnose.h"
#include "support/check.h"
#include "train/parameters.h"

// Matrices larger than a block and smaller than a vector, norms, and a buffer.
static const char config_text[] =
    "{\"model_type\": \"lfm2_moe\", \"vocab_size\": 1301, \"hidden_size\": 36, "
    "\"num_hidden_layers\": 2, \"layer_types\": [\"conv\", \"full_attention\"], "
    "\"num_attention_heads\": 3, \"num_key_value_heads\": 3, \"num_dense_layers\": 1, "
    "\"intermediate_size\": 50, \"num_experts\": 3, \"num_experts_per_tok\": 2, "
    "\"moe_intermediate_size\": 10}";

struct adamw {
    double weight_decay, beta1, beta2, eps;
};
static const struct adamw adamw = {0.2, 0.8, 0.95, 1e-7};

struct subject {
    struct em_model *model;
    struct em_trainable trainable;
    struct em_pool *pool;
};

static void open_subject_of(struct subject *s, unsigned threads, const char *optimizer,
                            const void *options)
{
    json_t *config = json_loads(config_text, 0, NULL);
    CHECK_OK(em_pool_create(threads, &s->pool));
    CHECK_OK(em_model_create(config, "config", NULL, &s->model));
    json_decref(config);
    CHECK_OK(em_model_allocate(s->model));
    em_model_init(s->model, 7, s->pool);
    const struct em_component *c = em_registry_find(EMBER_OPTIMIZER, optimizer);
    CHECK_OK(em_trainable_open(s->model, c->impl, options, s->pool, &s->trainable));
}

static void open_subject(struct subject *s, unsigned threads)
{
    open_subject_of(s, threads, "adamw", &adamw);
}

static void close_subject(struct subject *s)
{
    em_trainable_close(&s->trainable);
    em_model_close(s->model);
    em_pool_destroy(s->pool);
}

static void adamw_is_what_its_paper_says(void **state)
{
    (void)state;
    struct subject s;
    open_subject(&s, 2);
    const size_t n = em_trainable_values(s.model);
    double *p = em_calloc(n, sizeof *p), *m = em_calloc(n, sizeof *m), *v = em_calloc(n, sizeof *v);
    size_t at = 0;
    for (size_t i = 0; i < s.model->params.count; i++) {
        const ember_tensor *t = &s.model->params.param[i]->tensor;
        if (s.model->params.param[i]->frozen) continue;
        for (size_t j = 0; j < ember_tensor_count(t); j++)
            p[at++] = (double)em_f32(t)[j];
    }
    for (unsigned step = 1; step <= 3; step++) {
        const struct em_update_step update = {step, 0.01 * step, 0.5, 1};
        fill_random(s.trainable.gradients, n, step);
        at = 0;
        for (size_t i = 0; i < s.model->params.count; i++) {
            const struct em_param *param = s.model->params.param[i];
            for (size_t j = 0; !param->frozen && j < ember_tensor_count(&param->tensor);
                 j++, at++) {
                const double g = 0.5 * (double)s.trainable.gradients[at];
                m[at] = adamw.beta1 * m[at] + (1 - adamw.beta1) * g;
                v[at] = adamw.beta2 * v[at] + (1 - adamw.beta2) * g * g;
                const double mean = m[at] / (1 - pow(adamw.beta1, step)),
                             root = sqrt(v[at] / (1 - pow(adamw.beta2, step)));
                const double decay = param->decay ? adamw.weight_decay : 0;
                p[at] -= update.lr * (mean / (root + adamw.eps) + decay * p[at]);
            }
        }
        em_trainable_update(&s.trainable, &update, false);
        at = 0;
        for (size_t i = 0; i < s.model->params.count; i++) {
            const ember_tensor *t = &s.model->params.param[i]->tensor;
            if (s.model->params.param[i]->frozen) continue;
            for (size_t j = 0; j < ember_tensor_count(t); j++, at++)
                CHECK_NEAR(em_f32(t)[j], p[at], 2e-6, "%s[%zu], step %u", t->name, j, step);
        }
    }
    em_free(p);
    em_free(m);
    em_free(v);
    close_subject(&s);
}

struct rmsprop {
    double weight_decay, rho, eps;
};

// torch.optim.RMSprop's defaults: no momentum, not centred.
static void rmsprop_divides_by_the_root_of_the_mean_square(void **state)
{
    (void)state;
    static const struct rmsprop o = {0.3, 0.9, 1e-7};
    struct subject s;
    open_subject_of(&s, 2, "rmsprop", &o);
    const size_t n = em_trainable_values(s.model);
    double *p = em_calloc(n, sizeof *p), *v = em_calloc(n, sizeof *v);
    size_t at = 0;
    for (size_t i = 0; i < s.model->params.count; i++) {
        const ember_tensor *t = &s.model->params.param[i]->tensor;
        if (s.model->params.param[i]->frozen) continue;
        for (size_t j = 0; j < ember_tensor_count(t); j++)
            p[at++] = (double)em_f32(t)[j];
    }
    for (unsigned step = 1; step <= 3; step++) {
        const struct em_update_step update = {step, 0.01 / step, 0.25, 1};
        fill_random(s.trainable.gradients, n, step);
        assert_null(em_trainable_update(&s.trainable, &update, false));
        at = 0;
        for (size_t i = 0; i < s.model->params.count; i++) {
            const struct em_param *param = s.model->params.param[i];
            for (size_t j = 0; !param->frozen && j < ember_tensor_count(&param->tensor);
                 j++, at++) {
                const double g = 0.25 * (double)s.trainable.gradients[at];
                v[at] = o.rho * v[at] + (1 - o.rho) * g * g;
                const double decay = param->decay ? o.weight_decay : 0;
                p[at] -= update.lr * (g / (sqrt(v[at]) + o.eps) + decay * p[at]);
                CHECK_NEAR(em_f32(&param->tensor)[j], p[at], 2e-6, "%s[%zu], step %u",
                           param->tensor.name, j, step);
            }
        }
    }
    em_free(p);
    em_free(v);
    close_subject(&s);
}

static void only_matrices_decay(void **state)
{
    (void)state;
    struct subject s;
    open_subject(&s, 1);
    // Without a gradient nothing but decay moves a parameter.
    em_trainable_zero_gradients(&s.trainable);
    em_trainable_update(&s.trainable, &(struct em_update_step){1, 0.5, 1, 1}, false);
    size_t decayed = 0, kept = 0;
    for (size_t i = 0; i < s.model->params.count; i++) {
        const struct em_param *p = s.model->params.param[i];
        if (p->init != EMBER_INIT_ONES) {
            decayed += p->decay;
            continue;
        }
        for (size_t j = 0; j < ember_tensor_count(&p->tensor); j++)
            assert_true(em_f32(&p->tensor)[j] == 1);
        kept++;
    }
    assert_true(decayed > 5 && kept > 4);
    close_subject(&s);
}

static void the_norm_is_the_same_at_any_number_of_threads(void **state)
{
    (void)state;
    double norm[3], sum = 0;
    for (unsigned threads = 1; threads <= 3; threads++) {
        struct subject s;
        open_subject(&s, threads);
        size_t at = 0;
        fill_random(s.trainable.gradients, em_trainable_values(s.model), 9);
        for (size_t i = 0; i < s.model->params.count && threads == 1; i++) {
            const struct em_param *p = s.model->params.param[i];
            for (size_t j = 0; !p->frozen && j < ember_tensor_count(&p->tensor); j++, at++)
                sum += (double)s.trainable.gradients[at] * (double)s.trainable.gradients[at];
        }
        norm[threads - 1] = em_trainable_norm(&s.trainable);
        close_subject(&s);
    }
    CHECK_NEAR(norm[0], sqrt(sum), 1e-7, "against a loop in double");
    assert_memory_equal(&norm[0], &norm[1], sizeof norm[0]);
    assert_memory_equal(&norm[0], &norm[2], sizeof norm[0]);
}

static void what_is_not_finite_is_found(void **state)
{
    (void)state;
    struct subject s;
    open_subject(&s, 1);
    size_t count = 99;
    em_trainable_zero_gradients(&s.trainable);
    assert_null(em_trainable_bad_gradient(&s.trainable, &count));
    assert_null(em_model_find_bad(s.model, &count));
    const struct em_param *p =
        em_params_find(&s.model->params, "blocks.1.channel.expert.up.weight");
    assert_non_null(p);
    em_f32(p->tensor.grad)[3] = NAN;
    em_f32(p->tensor.grad)[5] = -INFINITY;
    assert_ptr_equal(em_trainable_bad_gradient(&s.trainable, &count), p);
    assert_int_equal(count, 2);
    assert_false(isfinite(em_trainable_norm(&s.trainable)));
    em_f32(&p->tensor)[0] = INFINITY;
    assert_ptr_equal(em_model_find_bad(s.model, &count), p);
    assert_int_equal(count, 1);
    close_subject(&s);
}

static void a_dry_update_leaves_parameters(void **state)
{
    (void)state;
    struct subject s;
    open_subject(&s, 2);
    const size_t bytes = s.model->memory_bytes;
    void *before = em_alloc(bytes);
    memcpy(before, s.model->memory, bytes);
    fill_random(s.trainable.gradients, em_trainable_values(s.model), 2);
    em_trainable_update(&s.trainable, &(struct em_update_step){1, 0.5, 1, 1}, true);
    em_trainable_zero_moments(&s.trainable);
    assert_memory_equal(before, s.model->memory, bytes);
    for (size_t i = 0; i < em_trainable_values(s.model); i++)
        assert_true(s.trainable.moments[0][i] == 0 && s.trainable.moments[1][i] == 0);
    em_free(before);
    close_subject(&s);
}

static int start(void **state)
{
    (void)state;
    return ember_start() == EMBER_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw_is_what_its_paper_says),
        cmocka_unit_test(rmsprop_divides_by_the_root_of_the_mean_square),
        cmocka_unit_test(only_matrices_decay),
        cmocka_unit_test(the_norm_is_the_same_at_any_number_of_threads),
        cmocka_unit_test(what_is_not_finite_is_found),
        cmocka_unit_test(a_dry_update_leaves_parameters),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
