// What lies in a model's folder beside config, weights and tokenizer, with a hostile meaning; and
// what is no file at all in the place of each.
#include <sys/stat.h>

#include "formats/manifest.h"
#include "formats/weights.h"
#include "hostile/hostile.h"
#include "infer/generation_config.h"
#include "infer/prompts.h"
#include "models/model.h"
#include "text/tokenizer.h"
#include "train/recipe.h"

#define INDEX "model.safetensors.index.json"

static void put(const char *folder, const char *name, const char *text)
{
    CHECK_OK(em_write_file(test_path(folder, name), text, strlen(text)));
}

static void put_shard(const char *folder, const char *file, const char *tensor)
{
    static const float values[] = {1, 2};
    static const size_t two[] = {2};
    const struct em_st_output t = {tensor, two, values, 1, EM_ST_F32};
    CHECK_OK(em_safetensors_write(test_path(folder, file),
                                  &(struct em_st_write){.tensors = &t, .count = 1}));
}

static ember_status open_weights(const char *folder)
{
    struct em_weights *w;
    const ember_status status = em_weights_open(folder, &w);
    if (status == EMBER_OK) em_weights_close(w);
    return status;
}

static void indexes(void **state)
{
    (void)state;
    static const struct hostile_case cases[] = {
        {"", ":1:1:"},
        {"[]", "weight_map|an object|found nothing"},
        {"{}", "weight_map|an object|found nothing"},
        {"{\"weight_map\":[]}", "weight_map|an object|found an array"},
        {"{\"weight_map\":\"a.safetensors\"}", "weight_map|found \"a.safetensors\""},
        {"{\"weight_map\":{\"a\":\"a.safetensors\"},\"weight_map\":{}}",
         "duplicate|\"weight_map\""},
        {"{\"weight_map\":{\"a\":\"a.safetensors\",\"a\":\"b.safetensors\"}}", "duplicate|\"a\""},
        {"{\"weight_map\":{\"a\":7}}", "weight_map.a|same folder|found 7"},
        {"{\"weight_map\":{\"a\":null}}", "weight_map.a|same folder|found null"},
        {"{\"weight_map\":{\"a\":[\"a.safetensors\"]}}", "weight_map.a|found an array"},
        {"{\"weight_map\":{\"a\":\"\"}}", "weight_map.a|same folder|found \"\""},
        {"{\"weight_map\":{\"a\":\".\"}}", "weight_map.a|same folder|found \".\""},
        {"{\"weight_map\":{\"a\":\"..\"}}", "weight_map.a|same folder|found \"..\""},
        {"{\"weight_map\":{\"a\":\"../../x\"}}", "weight_map.a|same folder|found \"../../x\""},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "weight_map.a|found \"/etc/passwd\""},
        {"{\"weight_map\":{\"a\":\"b/../a.safetensors\"}}", "weight_map.a|same folder"},
        {"{\"weight_map\":{\"a\":\"..\\\\x\"}}", "weight_map.a|same folder"},
        {"{\"weight_map\":{\"a\":\"a.safetensors\\u0000/../../x\"}}", "weight_map.a|same folder"},
        {"{\"weight_map\":{\"a\":\"c.safetensors\"}}", "shard c.safetensors is missing"},
        {"{\"weight_map\":{\"b\":\"a.safetensors\"}}", "tensor b is missing from a.safetensors"},
        {"{\"weight_map\":{\"a\":\"b.safetensors\",\"b\":\"a.safetensors\"}}",
         "tensor a|b.safetensors"},
        {"{\"weight_map\":{\"a\":\"\xff\"}}", "0xff"},
        {"{\"weight_map\":{\"a\":\"\\ud800\"}}", "surrogate"},
        {"{\"weight_map\":{\"a\\u0000\":\"a.safetensors\"}}", "NUL"},
        {"{\"weight_map\":{\"a\":1e999}}", "1e999"},
        {"{\"weight_map\":{\"a\":\"" INDEX "\"}}", "header"},
    };
    const char *folder = test_directory();
    put_shard(folder, "a.safetensors", "a");
    put_shard(folder, "b.safetensors", "b");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put(folder, INDEX, cases[i].text);
        const struct hostile_watch w = hostile_begin(cases[i].text, INDEX, strlen(cases[i].text));
        hostile_end(&w, open_weights(folder), cases[i].says);
    }
    static const size_t depths[] = {65, 100000};
    for (size_t i = 0; i < 2; i++) {
        char *deep = hostile_nested(depths[i], "{\"weight_map\":", "3", "}");
        put(folder, INDEX, deep);
        const struct hostile_watch w = hostile_begin("a deep index", INDEX, strlen(deep));
        hostile_end(&w, open_weights(folder), "deeper than 64");
        free(deep);
    }
    // A tensor in two shards, and a shard that is cut.
    put_shard(folder, "b.safetensors", "a");
    static const char both[] = "{\"weight_map\":{\"a\":\"a.safetensors\",\"x\":\"b.safetensors\"}}";
    put(folder, INDEX, both);
    struct hostile_watch w = hostile_begin(both, INDEX, strlen(both));
    hostile_end(&w, open_weights(folder), "tensor a|a.safetensors|b.safetensors");
    put(folder, "b.safetensors", "cut");
    w = hostile_begin(both, "b.safetensors", strlen(both));
    hostile_end(&w, open_weights(folder), "3 bytes");
    hostile_report(30);
}

static void manifests(void **state)
{
    (void)state;
#define WITH(members) "{\"format\":\"ember-state\"," members "}"
#define CHECK_SUM "\"check\":\"0000000000000000\""
    static const struct hostile_case cases[] = {
        {"", ":1:1:"},
        {"[]", "format|found nothing"},
        {"{}", "format|\"ember-state\"|found nothing"},
        {"{\"format\":\"x\"}", "format|\"ember-state\"|found \"x\""},
        {WITH("\"step\":1"), "version|found nothing"},
        {WITH("\"version\":-1,\"step\":1"), "version|from 0 up|found -1"},
        {WITH("\"version\":\"1\",\"step\":1"), "version|found \"1\""},
        {WITH("\"version\":1.5,\"step\":1"), "version|found 1.5"},
        {WITH("\"version\":1,\"step\":-5"), "step|from 0 up|found -5"},
        {WITH("\"version\":1,\"step\":9223372036854775808"), "too big integer"},
        {WITH("\"version\":1,\"step\":1"), "check|16 hexadecimal digits|found nothing"},
        {WITH("\"version\":1,\"step\":1,\"check\":\"12\""), "check|16 hexadecimal|found \"12\""},
        {WITH("\"version\":1,\"step\":1,\"check\":\"000000000000000G\""), "check|found \"0000"},
        {WITH("\"version\":1,\"step\":1," CHECK_SUM), "files|a list|found nothing"},
        {WITH("\"version\":1,\"step\":1," CHECK_SUM ",\"files\":{}"), "files|found an object"},
        {WITH("\"version\":1,\"step\":1," CHECK_SUM ",\"files\":[3]"),
         "files[0].name|found nothing"},
        {WITH("\"version\":1,\"step\":1," CHECK_SUM ",\"files\":[{\"name\":7}]"),
         "files[0].name|found 7"},
        {WITH("\"version\":1,\"step\":1," CHECK_SUM ",\"files\":[{\"name\":\"a\"}]"),
         "files[0].bytes|found nothing"},
        {WITH("\"version\":1,\"step\":1," CHECK_SUM ",\"files\":[{\"name\":\"a\",\"bytes\":-1}]"),
         "files[0].bytes|from 0 up|found -1"},
        {WITH("\"version\":1,\"step\":1," CHECK_SUM ",\"files\":[{\"name\":\"a\",\"bytes\":1}]"),
         "files[0].xxh3|found nothing"},
#define FILE_NAMED(name)                                                                           \
    WITH("\"version\":1,\"step\":1," CHECK_SUM ",\"files\":[{\"name\":\"" name                     \
         "\",\"bytes\":1,\"xxh3\":\"0000000000000000\"}]")
        {FILE_NAMED("../x"), "files[0]|\"../x\"|inside the folder"},
        {FILE_NAMED("/etc/passwd"), "files[0]|\"/etc/passwd\"|inside the folder"},
        {FILE_NAMED("a/../../x"), "files[0]|inside the folder"},
        {FILE_NAMED(""), "files[0]|inside the folder"},
        {FILE_NAMED("a//b"), "files[0]|inside the folder"},
        {FILE_NAMED("a\\u0000b"), "files[0].name|NUL"},
        {FILE_NAMED("a"), "check does not fit"},
        {FILE_NAMED("\\ud800"), "surrogate"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct em_manifest m;
        const char *text = cases[i].text;
        const struct hostile_watch w = hostile_begin(text, "step-1/MANIFEST.json", strlen(text));
        const ember_status status =
            em_manifest_parse("step-1/MANIFEST.json", text, strlen(text), &m);
        if (status == EMBER_OK) em_manifest_deinit(&m);
        hostile_end(&w, status, cases[i].says);
    }
    hostile_report(28);
}

static void generation_configs(void **state)
{
    (void)state;
    static const struct hostile_case cases[] = {
        {"", ":1:1:"},
        {"[]", "an object|found an array"},
        {"{\"eos_token_id\":100}", "eos_token_id|100|vocabulary of 100"},
        {"{\"eos_token_id\":-2}", "eos_token_id|-2|vocabulary of 100"},
        {"{\"eos_token_id\":2147483648}", "eos_token_id|2147483648|vocabulary of 100"},
        {"{\"eos_token_id\":\"7\"}", "eos_token_id|token id|found \"7\""},
        {"{\"eos_token_id\":[7,1.5]}", "eos_token_id|token id|found 1.5"},
        {"{\"eos_token_id\":[[7]]}", "eos_token_id|token id|found an array"},
        {"{\"temperature\":-1}", "temperature|from 0 to 1000|found -1"},
        {"{\"temperature\":NaN}", "temperature|from 0 to 1000|found \"NaN\""},
        {"{\"temperature\":1e999}", "1e999"},
        {"{\"temperature\":\"hot\"}", "temperature|found \"hot\""},
        {"{\"top_k\":-1}", "top_k|from 0 to 16777216|found -1"},
        {"{\"top_k\":4294967296}", "top_k|from 0 to 16777216|found 4294967296"},
        {"{\"top_p\":1.5}", "top_p|from 0 to 1|found 1.5"},
        {"{\"min_p\":-0.5}", "min_p|from 0 to 1|found -0.5"},
        {"{\"repetition_penalty\":0}", "repetition_penalty|0.01|100|found 0"},
        {"{\"do_sample\":1}", "do_sample|true or false|found 1"},
    };
    const char *folder = test_directory();
    const struct em_model model = {.name = "config.json", .vocabulary = 100};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct em_generation_config c;
        put(folder, "generation_config.json", cases[i].text);
        const struct hostile_watch w =
            hostile_begin(cases[i].text, "generation_config.json", strlen(cases[i].text));
        const ember_status status = em_generation_config_read(&model, folder, NULL, &c);
        if (status == EMBER_OK) em_generation_config_deinit(&c);
        hostile_end(&w, status, cases[i].says);
    }
    hostile_report(18);
}

static void prompts(void **state)
{
    (void)state;
    static const struct hostile_case cases[] = {
        {"", "no prompt"},
        {"\n \n", "no prompt"},
        {"{\"prompt\":\"a\"}\n{", ":2"},
        {"{\"prompt\":\"a\"}\n7", "jsonl:2|an object|found 7"},
        {"[]", "jsonl:1|an object|found an array"},
        {"{}", "jsonl:1|prompt and prompt_ids"},
        {"{\"prompt\":\"a\",\"prompt_ids\":[1]}", "jsonl:1|prompt and prompt_ids"},
        {"{\"promt\":\"a\"}", "jsonl:1|\"promt\"|did you mean \"prompt\""},
        {"{\"prompt\":7}", "jsonl:1|prompt|a string|found 7"},
        {"{\"prompt_ids\":7}", "jsonl:1|prompt_ids|list|found 7"},
        {"{\"prompt_ids\":[-1]}", "jsonl:1|prompt_ids[0]|0 to 2147483647|found -1"},
        {"{\"prompt_ids\":[0,2147483648]}", "prompt_ids[1]|0 to 2147483647|found 2147483648"},
        {"{\"prompt_ids\":[\"1\"]}", "prompt_ids[0]|found \"1\""},
        {"{\"prompt\":\"a\",\"seed\":-1}", "jsonl:1|seed|found -1"},
        {"{\"prompt\":\"a\",\"seed\":1e999}", "1e999"},
        {"{\"prompt\":\"\xff\"}", "0xff"},
        {"{\"prompt\":\"\\ud800\"}", "surrogate"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct em_prompts p;
        const char *text = cases[i].text;
        const struct hostile_watch w = hostile_begin(text, "prompts.jsonl", strlen(text));
        const ember_status status = em_prompts_parse("prompts.jsonl", text, strlen(text), &p);
        if (status == EMBER_OK) em_prompts_deinit(&p);
        hostile_end(&w, status, cases[i].says);
    }
    hostile_report(17);
}

// ---- what is no file ----

static ember_status open_config(const char *path)
{
    json_t *config;
    EM_TRY(em_model_read_config(path, &config));
    json_decref(config);
    return EMBER_OK;
}

static ember_status open_tokenizer(const char *path)
{
    struct em_tokenizer *t;
    EM_TRY(em_tokenizer_open(path, &t));
    em_tokenizer_close(t);
    return EMBER_OK;
}

static ember_status open_recipe(const char *path)
{
    struct em_recipe r;
    EM_TRY(em_recipe_open(&(struct em_recipe_request){.file = path}, &r));
    em_recipe_close(&r);
    return EMBER_OK;
}

static ember_status open_prompts(const char *path)
{
    struct em_prompts p;
    EM_TRY(em_prompts_read(path, &p));
    em_prompts_deinit(&p);
    return EMBER_OK;
}

static ember_status open_manifest(const char *path)
{
    struct em_manifest m;
    char folder[1024];
    snprintf(folder, sizeof folder, "%.*s", (int)(em_path_base(path) - path - 1), path);
    EM_TRY(em_manifest_read(folder, &m));
    em_manifest_deinit(&m);
    return EMBER_OK;
}

static ember_status open_index(const char *path)
{
    char folder[1024];
    snprintf(folder, sizeof folder, "%.*s", (int)(em_path_base(path) - path - 1), path);
    return open_weights(folder);
}

static ember_status open_generation_config(const char *path)
{
    const struct em_model model = {.name = "the model", .vocabulary = 10};
    struct em_generation_config c;
    char folder[1024];
    snprintf(folder, sizeof folder, "%.*s", (int)(em_path_base(path) - path - 1), path);
    EM_TRY(em_generation_config_read(&model, folder, NULL, &c));
    em_generation_config_deinit(&c);
    return EMBER_OK;
}

static void no_files(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        ember_status (*open)(const char *path);
    } formats[] = {
        {"config.json", open_config},
        {"model.safetensors", open_weights},
        {INDEX, open_index},
        {"tokenizer.json", open_tokenizer},
        {"recipe.json", open_recipe},
        {"prompts.jsonl", open_prompts},
        {EM_MANIFEST_NAME, open_manifest},
        {"generation_config.json", open_generation_config},
    };
    static const char *const kinds[] = {"folder", "pipe", "device", "empty", "loop", "dangling"};
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            const char *folder = test_directory(), *path = test_path(folder, formats[f].name);
            char what[64];
            snprintf(what, sizeof what, "%s: %s", kinds[k], formats[f].name);
            const bool optional = strcmp(formats[f].name, "generation_config.json") == 0;
            if (optional && k >= 5) continue; // a link to nowhere is no file
            switch (k) {
            case 0: assert_int_equal(mkdir(path, 0700), 0); break;
            case 1: assert_int_equal(mkfifo(path, 0600), 0); break;
            case 2: assert_int_equal(symlink("/dev/zero", path), 0); break;
            case 3: put(folder, formats[f].name, ""); break;
            case 4: assert_int_equal(symlink(path, path), 0); break;
            case 5: assert_int_equal(symlink("nowhere", path), 0); break;
            }
            // A folder is a place to look in for some; then what is missing in it is named.
            const struct hostile_watch w = hostile_begin(what, folder, 0);
            hostile_end(&w, formats[f].open(path), "");
            assert_int_equal(unlink(path) == 0 || rmdir(path) == 0, 1);
        }
    hostile_report(45);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(indexes),
        cmocka_unit_test(manifests),
        cmocka_unit_test(generation_configs),
        cmocka_unit_test(prompts),
        cmocka_unit_test(no_files),
    };
    return cmocka_run_group_tests(tests, hostile_setup, NULL);
}
