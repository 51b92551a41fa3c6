// timeout: 900
// Training on text: domains, tokenizers, held-out scores, and what is written about them.
#include "train/run.h"

#include "formats/hash.h"
#include "models/model.h"
#include "train/batches.h"
#include "train/tokenizer_choice.h"

static const char *dir, *first, *second;

static const char *recipe_on(const char *name, const char *data, const char *train)
{
    char model[1024], text[4096];
    snprintf(model, sizeof model, RUN_MODEL, 300, 0.001);
    snprintf(text, sizeof text,
             "{\"model\": %s, \"data\": {\"sources\": [\"%s\", {\"path\": \"%s\", \"name\": "
             "\"second\"}], \"held_out\": 0.1%s%s}, \"train\": {\"batch\": 4, \"seq\": 32, "
             "\"lr\": 0.01, \"eval_tokens\": 256%s%s}}",
             model, first, second, *data ? ", " : "", data, *train ? ", " : "", train);
    return run_write(dir, name, text);
}

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v)) fail_msg("%s is no number", key);
    return json_number_value(v);
}

static void held_out_text_is_scored(void **state)
{
    (void)state;
    const char *out = test_path(dir, "scores");
    run_ok(&(struct run){.recipe =
                             recipe_on("scores.json", "\"tokenizer\": \"bytes\"", "\"steps\": 40"),
                         .out = out});
    json_t *eval = run_json(out, "logs/eval.json");
    assert_int_equal(json_array_size(eval), 2);
    for (size_t d = 0; d < 2; d++) {
        const json_t *o = json_array_get(eval, d);
        const char *name = json_string_value(json_object_get(o, "domain"));
        assert_string_equal(name, d ? "second" : "first.txt");
        size_t size;
        char path[64];
        snprintf(path, sizeof path, "logs/heldout/%s", d ? "second.txt" : "first.txt");
        char *text = run_read(out, path, &size), *whole = NULL;
        // Every byte of the held-out end of the text is scored, in one piece.
        assert_int_equal(number(o, "bytes"), size);
        assert_true(size > 1900 && size < 2200);
        struct em_buf all = {0};
        CHECK_OK(em_read_file(d ? second : first, 0, &all));
        whole = all.data + all.size - size;
        assert_memory_equal(whole, text, size);
        em_buf_deinit(&all);
        em_free(text);
        // Guessing among 256 bytes and three tokens at first; then much of the text is known.
        CHECK_NEAR(number(o, "untrained_bpb"), log2(259), 0.1, "%s", name);
        assert_true(number(o, "bpb") < 5);
        CHECK_NEAR(number(o, "nats") * number(o, "tokens") / log(2) / number(o, "bytes"),
                   number(o, "bpb"), 1e-9, "%s", name);
    }
    json_decref(eval);
}

// Somebody who gets the folder finds out what it is, what it was made of, and how to run it.
static void check_card(const char *card)
{
    char hash[64];
    struct em_file_hash first_hash;
    CHECK_OK(em_hash_file(first, false, &first_hash));
    snprintf(hash, sizeof hash, "| first.txt | first.txt | 20000 | `%016llx` |",
             (unsigned long long)first_hash.xxh3);
    const char *const says[] = {hash,
                                "---\nlibrary_name: transformers\npipeline_tag: text-generation\n"
                                "tags:\n- ember\n- lfm2_moe\n",
                                "# license: \n",
                                "\n# scores\n",
                                "from random weights with Ember " EMBER_VERSION,
                                "ember generate . -p ",
                                "AutoModelForCausalLM.from_pretrained(\".\")",
                                "AutoTokenizer.from_pretrained(\".\")",
                                "| second | other.txt | 20000 | `",
                                "| experts | 2 of 4 for a token, in 2 layers |",
                                "| context | 128 tokens |",
                                "| steps | 40 of 4 x 32 tokens, 5120 in all |",
                                "| optimizer | adamw, learning rate 0.01, schedule cosine,",
                                "| seed | 0 |",
                                " s of steps, ",
                                " MiB at its peak |",
                                "bits per byte after step ",
                                "--set train.steps=40`",
                                "\"held_out\": 0.1",
                                "\"path\": \"first.txt\""};
    for (size_t i = 0; i < sizeof says / sizeof says[0]; i++)
        if (!strstr(card, says[i])) fail_msg("%s is not in the card:\n%s", says[i], card);
    if (strstr(card, dir)) fail_msg("the card tells where files lie on this machine:\n%s", card);
}

// Every step's line has the figures of its routers, the first one those of each.
static void check_router_log(const char *out)
{
    char *log = run_read(out, "logs/train.jsonl", NULL), *end = strchr(log, '\n');
    json_t *line;
    assert_non_null(end);
    CHECK_OK(em_json_parse("train.jsonl", log, (size_t)(end - log), 0, &line));
    assert_true(number(line, "load_max_violation") >= 0);
    assert_true(number(line, "router_entropy") > 0 && number(line, "router_entropy") <= 1);
    CHECK_NEAR(number(line, "dropped_tokens"), 0, 0, "nothing is dropped");
    const json_t *layers = json_object_get(json_object_get(line, "moe"), "layers");
    assert_int_equal(json_array_size(layers), 2);
    double sum = 0, most = 0;
    for (size_t i = 0; i < 2; i++) {
        const json_t *layer = json_array_get(layers, i), *load = json_object_get(layer, "load");
        for (size_t e = 0; e < 4; e++)
            sum += json_number_value(json_array_get(load, e));
        most = fmax(most, number(layer, "max_violation"));
        const json_t *logits = json_object_get(layer, "logits");
        assert_true(json_number_value(json_array_get(logits, 0)) <
                    json_number_value(json_array_get(logits, 1)));
    }
    CHECK_NEAR(sum, 2, 1e-9, "loads of a layer sum to 1");
    CHECK_NEAR(number(line, "load_max_violation"), most, 1e-12, "the worst layer's");
    json_decref(line);
    em_free(log);
}

static void a_run_tells_of_itself(void **state)
{
    (void)state;
    const char *out = test_path(dir, "scores");
    char *html = run_read(out, "report.html", NULL), *card = run_read(out, "README.md", NULL);
    static const char *const in_html[] = {"Training loss", "first.txt", "second", "Held-out"};
    for (size_t i = 0; i < sizeof in_html / sizeof in_html[0]; i++)
        if (!strstr(html, in_html[i])) fail_msg("%s is not in the report", in_html[i]);
    if (strstr(html, dir)) fail_msg("the report tells where files lie on this machine");
    check_card(card);
    em_free(html);
    em_free(card);
    json_t *report = run_json(out, "report.json");
    const json_t *layers = json_object_get(report, "layers"),
                 *samples = json_object_get(report, "samples");
    assert_int_equal(json_array_size(layers), 2); // the first of three layers is dense
    assert_int_equal(json_array_size(samples), 2);
    // Ten evaluations: the routers of eight earlier ones are held against the last one's.
    const size_t earlier = json_array_size(json_object_get(report, "checkpoints"));
    assert_int_equal(earlier, 8);
    for (size_t i = 0; i < 2; i++) {
        const json_t *same = json_object_get(json_array_get(layers, i), "saturation");
        const double begin = json_number_value(json_array_get(same, 0)),
                     last = json_number_value(json_array_get(same, earlier - 1));
        if (!(begin > 0 && begin < last && last <= 1))
            fail_msg("layer %zu: %g, then %g of the choices are the last ones", i, begin, last);
    }
    for (size_t d = 0; d < 2; d++)
        assert_true(*json_string_value(json_object_get(json_array_get(samples, d), "text")) !=
                    '\0');
    json_decref(report);
    check_router_log(out);
    // One line before the first step, and ten on the way.
    char *log = run_read(out, "logs/eval.jsonl", NULL);
    assert_int_equal(run_count(log), 11);
    em_free(log);
}

static void a_tokenizer_is_trained_and_kept(void **state)
{
    (void)state;
    const char *out = test_path(dir, "tokens");
    // The words are few, so there are fewer merges than asked for; the model follows.
    run_ok(&(struct run){.recipe = recipe_on("tokens.json", "", "\"steps\": 10"),
                         .out = out,
                         .set = {"model.vocab_size=400"}});
    struct em_tokenizer *tokenizer;
    struct em_model *m;
    CHECK_OK(em_tokenizer_open(out, &tokenizer));
    CHECK_OK(em_model_open(out, &m));
    assert_int_equal(em_tokenizer_size(tokenizer), m->vocabulary);
    assert_true(m->vocabulary > 259 && m->vocabulary < 400);
    json_t *config = run_json(out, "config.json");
    assert_int_equal(number(config, "eos_token_id"), em_tokenizer_eos(tokenizer));
    json_decref(config);
    json_t *generation = run_json(out, "generation_config.json");
    assert_int_equal(number(generation, "bos_token_id"), em_tokenizer_bos(tokenizer));
    json_decref(generation);
    em_model_close(m);
    em_tokenizer_close(tokenizer);
    // A run from this folder has its tokenizer, and goes on from its scores.
    char text[1024];
    snprintf(text, sizeof text,
             "{\"model\": \"%s\", \"data\": [\"%s\"], \"train\": {\"steps\": 1, \"batch\": 2, "
             "\"seq\": 32, \"lr\": 0}}",
             out, first);
    const char *next = test_path(dir, "tokens-next");
    run_ok(&(struct run){.recipe = run_write(dir, "tokens-next.json", text), .out = next});
    run_same_file(out, next, "tokenizer.json");
    run_same_file(out, next, "generation_config.json");
}

static void text_goes_on_too(void **state)
{
    (void)state;
    const char *recipe = recipe_on("text.json", "", "\"steps\": 24, \"save_every\": 5");
    const char *whole = test_path(dir, "text-whole"), *cut = test_path(dir, "text-cut");
    const struct run r = {.recipe = recipe, .out = cut, .resume = true};
    run_ok(&(struct run){.recipe = recipe, .out = whole});
    run_stopped(&r, 3); // where there is nothing yet, it begins
    run_stopped(&r, 9);
    run_stopped(&r, 18);
    run_ok(&r);
    run_same_losses(whole, cut);
    run_same_file(whole, cut, "model.safetensors");
    run_same_file(whole, cut, "best/model.safetensors");
    run_same_file(whole, cut, "logs/eval.jsonl");
    run_same_file(whole, cut, "logs/eval.json");
    run_same_file(whole, cut, "tokenizer.json");
}

// The share of the first of two domains, one four times as large as the other.
static double first_share(const char *mix)
{
    char data[64];
    const char *large = run_text(dir, "large.txt", 4, 80000);
    snprintf(data, sizeof data, "\"tokenizer\": \"bytes\", \"mix\": %s", mix);
    char path[256];
    snprintf(path, sizeof path, "data.sources.0.path=%s", large);
    const char *set[] = {path};
    const struct em_recipe_request q = {
        .file = recipe_on("mix.json", data, ""), .set = set, .set_count = 1};
    struct em_recipe recipe;
    struct em_tokenizer_choice choice;
    struct em_batches batches;
    struct em_packed packed = {0};
    CHECK_OK(em_recipe_open(&q, &recipe));
    CHECK_OK(em_choose_tokenizer(&recipe, NULL, 0, NULL, &choice));
    CHECK_OK(em_batches_open(&recipe, choice.tokenizer, &(struct em_model){.vocabulary = 300}, NULL,
                             false, NULL, &batches));
    size_t count[2] = {0};
    for (uint64_t step = 0; step < 200; step++) {
        CHECK_OK(em_batches_fill(&batches, step, 0, batches.batch, &packed));
        for (size_t s = 0; s < packed.batch.n_sequences; s++)
            count[packed.batch.labels[s]] += packed.offset[s + 1] - packed.offset[s];
    }
    em_packed_deinit(&packed);
    em_batches_close(&batches);
    em_tokenizer_close(choice.tokenizer);
    em_recipe_close(&recipe);
    return (double)count[0] / (double)(count[0] + count[1]);
}

static void domains_are_mixed_by_size_or_evenly(void **state)
{
    (void)state;
    CHECK_NEAR(first_share("1"), 0.8, 0.04, "by size");
    CHECK_NEAR(first_share("0.5"), 2.0 / 3, 0.04, "by the root of the size");
    CHECK_NEAR(first_share("0"), 0.5, 0.04, "equal");
}

static void mistakes_are_told(void **state)
{
    (void)state;
    const char *out = test_path(dir, "mistake");
    run_fails(&(struct run){.recipe = recipe_on("m1.json", "\"vocab\": 100", ""), .out = out},
              EMBER_E_CONFIG, "at least 259 tokens");
    // A mistake leaves nothing behind that would be in the way of the same command, corrected.
    run_fails(&(struct run){.recipe = recipe_on("m2.json", "\"tokenizer\": \"bytes\"", ""),
                            .out = out,
                            .set = {"model.vocab_size=200"}},
              EMBER_E_CONFIG, "model.vocab_size is 200, but the tokenizer has 259");
    run_fails(&(struct run){.recipe = recipe_on("m3.json", "", ""),
                            .out = out,
                            .set = {"data.sources.0.path=/no/such/file"}},
              EMBER_E_IO, "/no/such/file");
    run_fails(
        &(struct run){.recipe = recipe_on("m4.json", "", ""),
                      .out = out,
                      .set = {"data.sources.1.name=first.txt", "data.sources.0.name=first.txt"}},
        EMBER_E_CONFIG, "two sources are named");
    char **names;
    size_t count;
    CHECK_OK(em_list_directory(out, &names, &count));
    assert_int_equal(count, 1);
    assert_string_equal(names[0], ".lock");
    em_names_free(names, count);
    run_ok(&(struct run){.recipe = recipe_on("m5.json", "\"tokenizer\": \"bytes\"", "\"steps\": 1"),
                         .out = out});
}

static int start(void **state)
{
    dir = test_directory();
    if (run_quietly(state)) return -1;
    first = run_text(dir, "first.txt", 2, 20000);
    second = run_text(dir, "other.txt", 3, 20000);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(held_out_text_is_scored),
        cmocka_unit_test(a_run_tells_of_itself),
        cmocka_unit_test(a_tokenizer_is_trained_and_kept),
        cmocka_unit_test(text_goes_on_too),
        cmocka_unit_test(domains_are_mixed_by_size_or_evenly),
        cmocka_unit_test(mistakes_are_told),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
