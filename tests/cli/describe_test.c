// ember registry, inspect and info: what they list, as text and as JSON.
#include "base/cpu.h"
#include "cli/program.h"
#include "infer/small_model.h"
#include "registry/registry.h"

static const char *const golden = EMBER_TESTS_DIR "/golden/models/lfm2_moe";

static json_t *json_of(struct program_result r)
{
    json_t *o;
    assert_int_equal(r.exit_status, 0);
    CHECK_OK(em_json_parse("stdout", r.out, strlen(r.out), 0, &o));
    program_free(&r);
    return o;
}

static void every_component_is_listed_once_with_its_help(void **state)
{
    (void)state;
    json_t *o = json_of(program_run("registry", "--json"));
    const json_t *list = json_object_get(o, "components");
    struct program_result text = program_run("registry");
    const struct em_component *c;
    size_t n = 0;
    for (; (c = em_registry_at(n)); n++) {
        size_t found = 0;
        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *e = json_array_get(list, i);
            if (strcmp(json_string_value(json_object_get(e, "name")), c->name) != 0 ||
                strcmp(json_string_value(json_object_get(e, "kind")), ember_kind_name(c->kind)) !=
                    0)
                continue;
            assert_string_equal(json_string_value(json_object_get(e, "help")), c->help);
            found++;
        }
        assert_int_equal(found, 1);
        assert_non_null(strstr(text.out, c->name));
        assert_true(*c->help && !strchr(c->help, '\n'));
    }
    assert_int_equal(json_array_size(list), n);
    assert_non_null(strstr(text.out, "\nsampler\n  greedy "));
    program_free(&text);
    json_decref(o);
    // Each of them can be asked for, and tells all of its options.
    for (size_t i = 0; (c = em_registry_at(i)); i++) {
        o = json_of(program_run("registry", c->name, "--kind", ember_kind_name(c->kind), "--json"));
        list = json_object_get(o, "components");
        assert_int_equal(json_array_size(list), 1);
        const json_t *options = json_object_get(json_array_get(list, 0), "options");
        size_t count = 0;
        while (c->options && c->options[count].name)
            count++;
        if (c->kind != EMBER_FAMILY) assert_int_equal(json_array_size(options), count);
        json_decref(o);
    }
}

static void one_component_tells_its_options(void **state)
{
    (void)state;
    struct program_result r = program_run("registry", "top_k");
    assert_string_equal(
        r.out, "sampler top_k: the k most likely tokens. Fan et al. 2018, arXiv:1805.04833\n"
               "options:\n"
               "  k                      integer     default 40         [1..16777216]\n"
               "      how many stay\n");
    program_free(&r);
    r = program_run("registry", "greedy");
    assert_string_equal(r.out, "sampler greedy: the most likely token alone; of equal ones that "
                               "with the smallest id\nno options\n");
    program_free(&r);
    r = program_run("registry", "ember");
    assert_non_null(strstr(r.out, "  hidden_size            integer     default 256"));
    program_free(&r);
    r = program_run("registry", "lfm2");
    assert_non_null(strstr(r.out, "keys of config.json: "));
    assert_non_null(strstr(r.out, ", conv_L_cache"));
    program_free(&r);
    r = program_run("registry", "swiglu");
    assert_non_null(strstr(r.out, "alike experts of it run as one grouped product"));
    program_free(&r);
    CHECK_PROGRAM(2, "no component \"top_kk\", did you mean \"top_k\"?", "registry", "top_kk");
    CHECK_PROGRAM(2, "no component \"top_k\"", "registry", "top_k", "--kind", "norm");
    CHECK_PROGRAM(2, "no kind \"samplr\"; did you mean \"sampler\"?", "registry", "--kind",
                  "samplr");
    CHECK_PROGRAM(2, "unexpected \"y\"", "registry", "x", "y");
}

static void a_model_is_described(void **state)
{
    (void)state;
    struct program_result r = program_run("inspect", golden);
    static const char expected[] =
        "model       lfm2_moe (Lfm2MoeForCausalLM), width 24, vocabulary 64 (tied), context 128\n"
        "parameters  21,556, 14,644 of them active for a token\n"
        "blocks      3 deep, 3 distinct\n"
        "  0        short_conv + swiglu\n"
        "  1        attention + moe\n"
        "  2        short_conv + moe\n"
        "experts\n"
        "  blocks.1.channel         6 experts of 864, 2 a token; 5,184 together\n"
        "  blocks.2.channel         6 experts of 864, 2 a token; 5,184 together\n"
        "weights     63 tensors, 84.2 KiB: 21,556 F32\n"
        "  model.safetensors  format: pt\n"
        "generation  end tokens: 2; temperature 0.8, top-k 40, top-p 0.95, min-p 0.05, penalty 1\n"
        "tensors\n"
        "  F32  64, 24                  6.0 KiB  model.embed_tokens.weight\n";
    const char *rest = strchr(r.out, '\n') + 1;
    assert_int_equal(strncmp(rest, expected, strlen(expected)), 0);
    program_free(&r);
    json_t *o = json_of(program_run("inspect", golden, "--json"));
    size_t bytes = 0, elements = 0;
    const json_t *tensors = json_object_get(o, "tensors"), *w = json_object_get(o, "weights");
    for (size_t i = 0; i < json_array_size(tensors); i++)
        bytes += (size_t)json_integer_value(json_object_get(json_array_get(tensors, i), "bytes"));
    elements = (size_t)json_integer_value(json_object_get(w, "elements"));
    assert_int_equal(json_array_size(tensors), 63);
    assert_int_equal(bytes, json_integer_value(json_object_get(w, "bytes")));
    assert_int_equal(
        elements, json_integer_value(json_object_get(json_object_get(o, "model"), "parameters")));
    json_decref(o);
}

// A config alone has the tensors that its files would have.
static void parts_of_a_model_are_described(void **state)
{
    (void)state;
    char config[4096], weights[4096], folder[4096];
    snprintf(config, sizeof config, "%s/config.json", golden);
    snprintf(weights, sizeof weights, "%s/model.safetensors", golden);
    snprintf(folder, sizeof folder, "%s/bench/configs/lfm2-30m", EMBER_SOURCE_DIR);
    json_t *whole = json_of(program_run("inspect", golden, "--json")),
           *c = json_of(program_run("inspect", config, "--json")),
           *w = json_of(program_run("inspect", weights, "--json"));
    assert_true(json_equal(json_object_get(whole, "model"), json_object_get(c, "model")));
    assert_true(json_equal(json_object_get(whole, "weights"), json_object_get(w, "weights")));
    assert_true(json_equal(json_object_get(whole, "tensors"), json_object_get(w, "tensors")));
    assert_null(json_object_get(c, "weights"));
    assert_null(json_object_get(w, "model"));
    assert_int_equal(json_array_size(json_object_get(c, "tensors")), 63);
    json_decref(whole);
    json_decref(c);
    json_decref(w);
    struct program_result r = program_run("inspect", folder);
    assert_int_equal(r.exit_status, 0);
    assert_non_null(strstr(r.out, "model       lfm2 (Lfm2ForCausalLM), width 512"));
    program_free(&r);
    const char *with_text = small_folder("inspected");
    r = program_run("inspect", with_text);
    assert_non_null(strstr(r.out, "tokenizer   259 tokens, 0 merges\n"));
    program_free(&r);
    CHECK_PROGRAM(1, "/nowhere", "inspect", "/nowhere");
    CHECK_PROGRAM(1, "not GGUF files", "inspect", "/nowhere.gguf");
    CHECK_PROGRAM(2, "a folder, a .safetensors file or a config", "inspect");
}

// A hash of every tensor is for --json: lines are of a length that can be read.
static void long_metadata_are_for_json(void **state)
{
    (void)state;
    const char *folder = small_folder("hashed");
    struct program_result r = program_run("inspect", folder);
    assert_int_equal(r.exit_status, 0);
    for (const char *line = r.out; *line; line += strcspn(line, "\n") + 1)
        assert_in_range(strcspn(line, "\n"), 0, 160);
    assert_non_null(strstr(r.out, "  ember.xxh3: "));
    assert_non_null(strstr(r.out, " bytes, with --json"));
    program_free(&r);
    json_t *o = json_of(program_run("inspect", folder, "--json"));
    const json_t *files = json_object_get(json_object_get(o, "weights"), "files"),
                 *metadata = json_object_get(json_array_get(files, 0), "metadata");
    assert_true(json_string_length(json_object_get(metadata, "ember.xxh3")) > 160);
    json_decref(o);
}

static void the_machine_is_described(void **state)
{
    (void)state;
    enum em_isa isa;
    unsigned extras;
    char text[64];
    json_t *o = json_of(program_run("info", "--json", "--threads", "1"));
    CHECK_OK(em_isa_choose(&isa, &extras));
    assert_string_equal(json_string_value(json_object_get(o, "isa_used")),
                        em_isa_text(isa, extras, text));
    assert_string_equal(json_string_value(json_object_get(o, "version")), EMBER_VERSION);
    assert_int_equal(json_integer_value(json_object_get(o, "threads")), 1);
    static const char *const measured[] = {"f32_gflops", "bf16_gflops", "read_gbytes_per_s"};
    for (size_t i = 0; i < 3; i++)
        assert_true(json_real_value(json_object_get(o, measured[i])) > 0);
    bool found = false;
    const json_t *sets = json_object_get(o, "isa_found");
    for (size_t i = 0; i < json_array_size(sets); i++)
        found = found || !strcmp(json_string_value(json_array_get(sets, i)), em_isa_name(isa));
    assert_true(found);
    json_decref(o);
    struct program_result r = program_run("info", "--threads", "1");
    assert_int_equal(r.exit_status, 0);
    assert_non_null(strstr(r.out, "threads            1 of "));
    assert_non_null(strstr(r.out, " GB/s read\n"));
    program_free(&r);
    r = program_run("--version");
    assert_int_equal(
        strncmp(r.out, "ember " EMBER_VERSION "\n", strlen("ember " EMBER_VERSION "\n")), 0);
    assert_non_null(strstr(r.out, ember_build_info()));
    program_free(&r);
}

static int setup(void **state)
{
    (void)state;
    return ember_start() != EMBER_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_component_is_listed_once_with_its_help),
        cmocka_unit_test(one_component_tells_its_options),
        cmocka_unit_test(a_model_is_described),
        cmocka_unit_test(parts_of_a_model_are_described),
        cmocka_unit_test(long_metadata_are_for_json),
        cmocka_unit_test(the_machine_is_described),
    };
    return cmocka_run_group_tests_name("describe", tests, setup, NULL);
}
