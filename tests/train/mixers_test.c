// labels: slow
// Every registered sequence mixer that may be in a language model, in one with attention and a
// mixture of experts: trained, saved and read again, its logits whole, in pieces and a token at a
// time.
#include <ember/ember.h>

#include "registry/registry.h"
#include "train/run.h"

enum { V = RUN_VOCAB, STEPS = 12, ROWS = 2, PLACES = 23 };

static const char *dir;

static const char *write_ids(const char *name)
{
    static int32_t ids[ROWS * PLACES];
    static const size_t shape[] = {ROWS, PLACES};
    for (size_t i = 0; i < ROWS * PLACES; i++)
        ids[i] = (int32_t)(i * i * 5 + 3 * i) % V;
    const struct em_st_output t = {
        .name = "input_ids", .shape = shape, .rank = 2, .dtype = EM_ST_I32, .data = ids};
    const char *path = test_path(dir, name);
    CHECK_OK(em_safetensors_write(path, &(struct em_st_write){.tensors = &t, .count = 1}));
    return path;
}

static void logits(const char *model, const char *ids, size_t chunk, float to[ROWS * PLACES * V])
{
    const char *out = test_path(dir, "logits");
    struct em_safetensors *f;
    CHECK_OK(ember_forward_file(model, ids, out, &(ember_forward_options){.chunk = chunk}));
    CHECK_OK(em_safetensors_open(out, &f));
    const struct em_st_tensor *t = em_safetensors_find(f, "logits");
    assert_non_null(t);
    assert_int_equal(t->elements, ROWS * PLACES * V);
    memcpy(to, t->data, ROWS * PLACES * V * sizeof *to);
    em_safetensors_close(f);
}

static double first_and_last_loss(const char *out, double *last)
{
    char *log = run_read(out, "logs/train.jsonl", NULL), *at = log;
    double first = NAN;
    while ((at = strstr(at, "\"loss\":"))) {
        at += strlen("\"loss\":");
        *last = strtod(at, NULL);
        if (isnan(first)) first = *last;
    }
    em_free(log);
    return first;
}

static void check_mixer(const char *name, const char *mixer, const char *ids, const char *data)
{
    static float whole[ROWS * PLACES * V], parts[ROWS * PLACES * V];
    static const size_t chunks[] = {1, 5};
    char text[1600];
    double last = NAN;
    snprintf(
        text, sizeof text,
        "{\"model\": {\"model_type\": \"ember\", \"vocab_size\": %d, \"hidden_size\": 64, "
        "\"blocks\": [{\"type\": \"pre_norm\", \"sequence\": %s, \"channel\": {\"type\": \"moe\", "
        "\"experts\": 3, \"expert\": {\"type\": \"swiglu\", \"hidden\": 8}, \"router\": {\"type\": "
        "\"softmax_topk\", \"k\": 2}}}, {\"type\": \"pre_norm\", \"sequence\": {\"type\": "
        "\"attention\", \"heads\": 2}, \"channel\": {\"type\": \"swiglu\", \"hidden\": 24}}, "
        "{\"type\": \"pre_norm\", \"sequence\": %s, \"channel\": null}]},\n"
        "\"data\": {\"ids\": \"%s\"}, \"train\": {\"lr\": 0.01, \"warmup\": 2, \"steps\": %d, "
        "\"dtype\": \"f32\"}, \"seed\": 2}",
        (int)V, mixer, mixer, data, (int)STEPS);
    const char *out = test_path(dir, name);
    run_ok(&(struct run){.recipe = run_write(dir, "mixer.json", text), .out = out, .threads = 1});
    const double first = first_and_last_loss(out, &last);
    if (!(last < first)) fail_msg("%s: the loss went from %g to %g", mixer, first, last);
    logits(out, ids, 0, whole);
    double largest = 0;
    for (size_t i = 0; i < ROWS * PLACES * V; i++)
        largest = fmax(largest, fabs((double)whole[i]));
    for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++) {
        logits(out, ids, chunks[c], parts);
        for (size_t i = 0; i < ROWS * PLACES * V; i++)
            if (!(fabs((double)parts[i] - (double)whole[i]) <= 2e-5 * largest))
                fail_msg("%s: by %zu, logit %zu is %g, not %g", mixer, chunks[c], i,
                         (double)parts[i], (double)whole[i]);
    }
}

static void every_mixer_is_part_of_a_hybrid(void **state)
{
    (void)state;
    const char *ids = write_ids("ids"), *data = run_ids(dir, "data", STEPS, true);
    size_t count = 0;
    const struct em_component *c;
    for (size_t i = 0; (c = em_registry_at(i)); i++) {
        const ember_layer_type *type = c->impl;
        char mixer[128];
        if (c->kind != EMBER_SEQUENCE_MIXER || (type->flags & EMBER_NOT_CAUSAL)) continue;
        snprintf(mixer, sizeof mixer, "{\"type\": \"%s\"}", c->name);
        check_mixer(c->name, mixer, ids, data);
        count++;
    }
    assert_true(count >= 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_mixer_is_part_of_a_hybrid)};
    if (ember_start() != EMBER_OK) return 1;
    dir = test_directory();
    return cmocka_run_group_tests_name("train/mixers", tests, NULL, NULL);
}
