// Scores of tensors against what their outputs give in double.
#include <math.h>
#include <string.h>

#include <ember/forward.h>
#include <ember/infer.h>

#include "base/io.h"
#include "base/rng.h"
#include "formats/safetensors.h"
#include "models/model.h"
#include "support/check.h"

enum { S = 2, B = 3, T = 6, I = 2, V = 7, MOST = 8 };

struct data {
    float inputs[S * B * T * I], spans[S * B * T], targets[S * B * T * MOST];
    int32_t ids[S * B * T], mask[S * B * T], lengths[S * B], labels[S * B * T];
    bool tokens, values, places;
    size_t made; // columns of outputs
};

static const char *dir;

static const char *make_model(const char *name, const char *rest)
{
    const char *folder = test_path(dir, name);
    char text[600];
    struct em_model *m;
    json_t *config;
    snprintf(text, sizeof text,
             "{\"model_type\": \"ember\", \"hidden_size\": 8, \"initializer_range\": 0.6, "
             "\"blocks\": [{\"type\": \"pre_norm\", \"sequence\": \"cfc\"}], %s}",
             rest);
    CHECK_OK(em_json_parse("config.json", text, strlen(text), 0, &config));
    CHECK_OK(em_model_create(config, "config.json", NULL, &m));
    json_decref(config);
    CHECK_OK(em_model_allocate(m));
    em_model_init(m, 5, NULL);
    CHECK_OK(em_make_directories(folder));
    CHECK_OK(em_model_save_config(m, folder, EM_ST_F32));
    CHECK_OK(em_model_save_weights(m, test_path(folder, "model.safetensors"), EM_ST_F32));
    em_model_close(m);
    return folder;
}

static void draw(struct data *d, size_t made, bool tokens, bool values, bool places)
{
    struct em_rng rng;
    em_rng_seed(&rng, made + 2 * tokens + 4 * values + 8 * places, 0);
    *d = (struct data){.made = made, .tokens = tokens, .values = values, .places = places};
    fill_random(d->inputs, S * B * T * I, 3);
    fill_random(d->targets, S * B * T * MOST, 4);
    for (size_t r = 0; r < S * B; r++) {
        d->lengths[r] = 2 + (int32_t)em_rng_below(&rng, T - 1);
        for (size_t t = 0; t < T; t++) {
            const size_t at = r * T + t;
            d->spans[at] = 0.25f + (float)em_rng_below(&rng, 4);
            d->ids[at] = (int32_t)em_rng_below(&rng, V);
            d->mask[at] = t == 1 || em_rng_below(&rng, 3) > 0;
            d->labels[at] = (int32_t)em_rng_below(&rng, made);
            if (places && t != 1 && em_rng_below(&rng, 2)) d->labels[at] = -100;
        }
        if (!places) d->labels[r] = (int32_t)em_rng_below(&rng, made);
    }
}

static struct em_st_output tensor(const char *name, enum em_st_dtype dtype, const void *data,
                                  const size_t *shape, size_t rank)
{
    return (struct em_st_output){
        .name = name, .shape = shape, .rank = rank, .dtype = dtype, .data = data};
}

static const char *write_data(const struct data *d, const char *name)
{
    const size_t shape[] = {S, B, T, I}, made[] = {S, B, T, d->made}, one[] = {S, B, d->made};
    struct em_st_output t[5];
    size_t n = 0;
    t[n++] = d->tokens ? tensor("input_ids", EM_ST_I32, d->ids, shape, 3)
                       : tensor("inputs", EM_ST_F32, d->inputs, shape, 4);
    t[n++] = tensor("lengths", EM_ST_I32, d->lengths, shape, 2);
    t[n++] = tensor("mask", EM_ST_I32, d->mask, shape, 3);
    if (!d->tokens) t[n++] = tensor("timespans", EM_ST_F32, d->spans, shape, 3);
    t[n++] = d->values ? tensor("targets", EM_ST_F32, d->targets, d->places ? made : one,
                                d->places ? 4 : 3)
                       : tensor("labels", EM_ST_I32, d->labels, shape, d->places ? 3 : 2);
    const char *path = test_path(dir, name);
    CHECK_OK(em_safetensors_write(path, &(struct em_st_write){.tensors = t, .count = n}));
    return path;
}

// Outputs of every place, as `ember forward` has them: [S B, T, made], or [S B, 1, made] pooled.
static void outputs(const char *model, const struct data *d, bool pooled, float *y)
{
    static int32_t mask[S * B * T];
    const size_t shape[] = {S * B, T, I};
    for (size_t i = 0; i < S * B * T; i++)
        mask[i] = d->mask[i] && (int32_t)(i % T) < d->lengths[i / T];
    struct em_st_output t[3];
    size_t n = 0;
    t[n++] = d->tokens ? tensor("input_ids", EM_ST_I32, d->ids, shape, 2)
                       : tensor("inputs", EM_ST_F32, d->inputs, shape, 3);
    t[n++] = tensor("mask", EM_ST_I32, mask, shape, 2);
    if (!d->tokens) t[n++] = tensor("timespans", EM_ST_F32, d->spans, shape, 2);
    const char *in = test_path(dir, "forward-in"), *out = test_path(dir, "forward-out");
    CHECK_OK(em_safetensors_write(in, &(struct em_st_write){.tensors = t, .count = n}));
    CHECK_OK(ember_forward_file(model, in, out, &(ember_forward_options){.masked = true}));
    struct em_safetensors *f;
    CHECK_OK(em_safetensors_open(out, &f));
    const struct em_st_tensor *found = em_safetensors_at(f, 0);
    assert_int_equal(found->elements, S * B * (pooled ? 1 : T) * d->made);
    CHECK_OK(em_st_tensor_f32(found, y));
    em_safetensors_close(f);
}

static void add_output(const struct data *d, const float *y, size_t label, size_t target,
                       ember_tensor_evaluation *sum)
{
    double all = 0, error = 0;
    size_t most = 0;
    if (!d->values && d->labels[label] < 0) return;
    for (size_t m = 0; m < d->made; m++) {
        const double off = (double)y[m] - (double)d->targets[target * d->made + m];
        all += exp((double)y[m]);
        error += off * off / (double)d->made;
        if (y[m] > y[most]) most = m;
    }
    sum->places++;
    sum->loss += d->values ? error : log(all) - (double)y[d->labels[label]];
    sum->right += !d->values && (int32_t)most == d->labels[label];
}

static ember_tensor_evaluation expected(const struct data *d, const float *y, bool pooled)
{
    ember_tensor_evaluation sum = {.sequences = S * B, .labels = !d->values};
    for (size_t r = 0; r < S * B; r++) {
        size_t last = 0;
        for (size_t t = 0; t < (size_t)d->lengths[r]; t++) {
            if (!d->mask[r * T + t]) continue;
            last = t;
            if (d->places) add_output(d, y + (r * T + t) * d->made, r * T + t, r * T + t, &sum);
        }
        if (!d->places) add_output(d, y + (pooled ? r : r * T + last) * d->made, r, r, &sum);
    }
    return sum;
}

static void check(const char *name, const char *rest, size_t made, bool tokens, bool values,
                  bool places, bool pooled)
{
    static struct data d;
    static float y[S * B * T * MOST];
    const char *folder = make_model(name, rest);
    draw(&d, made, tokens, values, places);
    const char *path = write_data(&d, "data.safetensors");
    outputs(folder, &d, pooled, y);
    const ember_tensor_evaluation want = expected(&d, y, pooled);
    for (unsigned threads = 1; threads <= 2; threads++) {
        ember_model *model;
        ember_tensor_evaluation found[2];
        const ember_model_options how = {
            .runtime = {.threads = threads, .compute = EMBER_COMPUTE_F32}};
        CHECK_OK(ember_model_open(folder, &how, &model));
        CHECK_OK(ember_eval_tensors(model, (const char *const[]){path, path}, 2, found));
        for (size_t i = 0; i < 2; i++) {
            assert_int_equal(found[i].sequences, want.sequences);
            assert_int_equal(found[i].places, want.places);
            assert_int_equal(found[i].right, want.right);
            assert_int_equal(found[i].labels, want.labels);
            CHECK_NEAR(found[i].loss, want.loss, 1e-5 * want.loss, "%s", name);
        }
        ember_model_close(model);
    }
    assert_true(want.places > S * B / 2 && (values || want.right < want.places));
}

#define VECTORS "\"vocab_size\": 0, \"input_size\": 2, \"output_size\": 4"
#define TOKENS "\"vocab_size\": 7"

static void scores_are_what_the_outputs_give(void **state)
{
    (void)state;
    check("labels", VECTORS, 4, false, false, false, false);
    check("place-labels", VECTORS, 4, false, false, true, false);
    check("targets", VECTORS, 4, false, true, false, false);
    check("place-targets", VECTORS, 4, false, true, true, false);
    check("pooled", VECTORS ", \"pool\": \"mean\"", 4, false, false, false, true);
    check("token-places", TOKENS, V, true, false, true, false);
    check("token-labels", TOKENS ", \"language_model\": false, \"output_size\": 3", 3, true, false,
          false, false);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    static struct data d;
    ember_model *model;
    ember_tensor_evaluation score = {.places = 99};
    draw(&d, 4, false, false, true);
    const char *path = write_data(&d, "places.safetensors");
    CHECK_OK(ember_model_open(make_model("one", VECTORS ", \"pool\": \"last\""), NULL, &model));
    CHECK_FAILS(ember_eval_tensors(model, &path, 1, &score), EMBER_E_CONFIG,
                "labels are those of places, and the model makes one output of a sequence");
    ember_model_close(model);
    CHECK_OK(ember_model_open(make_model("tokens", TOKENS), NULL, &model));
    CHECK_FAILS(ember_eval_tensors(model, &path, 1, &score), EMBER_E_FORMAT,
                "places.safetensors: expected a tensor input_ids");
    path = "nowhere.safetensors";
    CHECK_FAILS(ember_eval_tensors(model, &path, 1, &score), EMBER_E_IO, "nowhere.safetensors");
    ember_model_close(model);
    assert_int_equal(score.places, 99);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(scores_are_what_the_outputs_give),
                                       cmocka_unit_test(what_does_not_fit_is_refused)};
    if (ember_start() != EMBER_OK) return 1;
    dir = test_directory();
    return cmocka_run_group_tests_name("api/eval_tensors", tests, NULL, NULL);
}
