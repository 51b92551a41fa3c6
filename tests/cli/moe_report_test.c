// ember moe report: the figures of a small model's experts, the page, and refusals.
#include <math.h>

#include "cli/program.h"
#include "infer/small_model.h"
#include "report/markup.h"

enum { EXPERTS = 4, CHOSEN = 2 };

static const char *dir, *model, *letters, *sums, *json, *html;

static const json_t *at(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (!v) fail_msg("there is no %s", key);
    return v;
}

static double number(const json_t *o, const char *key)
{
    const json_t *v = at(o, key);
    if (!json_is_number(v)) fail_msg("%s is no number", key);
    return json_number_value(v);
}

static double cell(const json_t *matrix, size_t row, size_t column)
{
    const json_t *v = json_array_get(json_array_get(matrix, row), column);
    assert_true(json_is_number(v));
    return json_number_value(v);
}

static json_t *figures(void)
{
    json_t *o;
    CHECK_OK(em_json_read(json, 0, 0, &o));
    return o;
}

static void sums_to_one(const json_t *row, const char *what)
{
    double sum = 0;
    assert_int_equal(json_array_size(row), EXPERTS);
    for (size_t e = 0; e < EXPERTS; e++)
        sum += json_number_value(json_array_get(row, e));
    CHECK_NEAR(sum, 1, 1e-12, "%s", what);
}

static void check_nmi(const json_t *layer, const char *key, bool many)
{
    const json_t *nmi = at(layer, key);
    const double value = number(nmi, "value"), shuffled = number(nmi, "shuffled");
    if (!(value >= 0 && value <= 1 && shuffled >= 0))
        fail_msg("%s is %g, %g", key, value, shuffled);
    if (many && shuffled > 0.05) fail_msg("%s, shuffled, is %g", key, shuffled);
}

static void check_layer(const json_t *layer)
{
    const json_t *pairs = at(layer, "coactivation"), *share = at(layer, "share");
    static const char *const maps[] = {"domain_share", "position_share"};
    static const size_t rows[] = {2, 8};
    assert_int_equal((int)number(layer, "experts"), EXPERTS);
    CHECK_NEAR(number(layer, "slots"), CHOSEN * number(layer, "tokens"), 0, "nothing is dropped");
    CHECK_NEAR(number(layer, "dropped"), 0, 0, "dropped");
    sums_to_one(share, "share");
    for (size_t m = 0; m < 2; m++) {
        assert_int_equal(json_array_size(at(layer, maps[m])), rows[m]);
        for (size_t r = 0; r < rows[m]; r++)
            sums_to_one(json_array_get(at(layer, maps[m]), r), maps[m]);
    }
    check_nmi(layer, "nmi_domain", true);
    check_nmi(layer, "nmi_position", true);
    check_nmi(layer, "nmi_kind", true);
    check_nmi(layer, "nmi_token", false);
    for (size_t i = 0; i < EXPERTS; i++) {
        double others = 0;
        for (size_t j = 0; j < EXPERTS; j++)
            others += i == j ? 0 : cell(pairs, i, j);
        // A token has two experts, so each of an expert's tokens is shared with one other.
        CHECK_NEAR(others, CHOSEN - 1, 1e-12, "row %zu of co-activation", i);
        for (size_t j = 0; j < EXPERTS; j++)
            CHECK_NEAR(cell(pairs, i, j) * json_number_value(json_array_get(share, i)),
                       cell(pairs, j, i) * json_number_value(json_array_get(share, j)), 1e-12,
                       "tokens of both, from either side");
    }
    CHECK_NEAR(json_number_value(json_array_get(at(layer, "coverage"), EXPERTS - 1)), 1, 1e-12,
               "all experts cover all");
}

static void figures_hold_together(void **state)
{
    (void)state;
    struct program_result r =
        program_run("moe", "report", model, "--data", letters, sums, "--out", html, "--json", json,
                    "--compare", model, "--context", "16", "--dtype", "f32");
    if (r.exit_status) fail_msg("%s", r.err);
    assert_non_null(strstr(r.out, "Kinds of tokens"));
    assert_non_null(strstr(r.out, "Text by expert"));
    assert_null(strchr(r.out, '\033')); // stdout is a file: numbers instead of colours
    assert_non_null(strstr(r.out, "["));
    program_free(&r);
    json_t *o = figures();
    const json_t *layers = at(o, "layers"), *texts = at(o, "excerpts");
    assert_int_equal(json_array_size(layers), 2); // the first of three is dense
    for (size_t i = 0; i < 2; i++) {
        const json_t *layer = json_array_get(layers, i);
        check_layer(layer);
        // Nothing changed since the checkpoint that is the model itself.
        CHECK_NEAR(json_number_value(json_array_get(at(layer, "saturation"), 0)), 1, 0, "the same");
        for (size_t e = 0; e < EXPERTS; e++) {
            CHECK_NEAR(cell(at(layer, "weight_cosine"), e, e), 1, 1e-12, "cosine");
            CHECK_NEAR(cell(at(layer, "output_cka"), e, e), 1, 1e-12, "CKA");
        }
        // Random experts are unlike.
        CHECK_NEAR(cell(at(layer, "weight_cosine"), 0, 1), 0, 0.1, "cosine");
        if (fabs(cell(at(layer, "output_cka"), 0, 1)) > 0.8) fail_msg("outputs are alike");
        assert_int_equal(json_array_size(at(layer, "excerpts")), 2);
    }
    // The tokens of a text and their experts are as many.
    const json_t *tokens = at(json_array_get(texts, 0), "tokens");
    assert_int_equal(json_array_size(tokens),
                     json_array_size(json_array_get(at(json_array_get(layers, 0), "excerpts"), 0)));
    json_decref(o);
}

// What the JSON says stands on the page, and the page stands alone.
static void the_page_has_the_same_figures(void **state)
{
    (void)state;
    json_t *o = figures();
    struct em_buf page = {0};
    char expected[160];
    CHECK_OK(em_read_file(html, 0, &page));
    for (size_t i = 0; i < 2; i++) {
        const json_t *layer = json_array_get(at(o, "layers"), i), *nmi = at(layer, "nmi_domain");
        snprintf(expected, sizeof expected,
                 "<td class=\"best\">%.3f</td><td class=\"dim\">%.3f</td>", number(nmi, "value"),
                 number(nmi, "shuffled"));
        if (!strstr(page.data, expected)) fail_msg("not on the page: %s", expected);
        snprintf(expected, sizeof expected, "<td>%.3f</td><td>%.3f</td>",
                 number(layer, "load_entropy"), number(layer, "token_entropy"));
        if (!strstr(page.data, expected)) fail_msg("not on the page: %s", expected);
    }
    assert_null(strstr(page.data, "src="));
    assert_null(strstr(page.data, "href"));
    assert_null(strstr(page.data, "url("));
    em_buf_deinit(&page);
    json_decref(o);
}

static void labels_join_texts_and_are_no_markup(void **state)
{
    (void)state;
    static const char hostile[] = "</pre><script>\"&'";
    struct em_buf page = {0};
    struct program_result r =
        program_run("moe", "report", model, "--data", letters, sums, letters, "--label", hostile,
                    "sums", hostile, "--out", html, "--json", json, "--tokens", "64");
    if (r.exit_status) fail_msg("%s", r.err);
    program_free(&r);
    json_t *o = figures();
    const json_t *domains = at(o, "domains");
    assert_int_equal(json_array_size(domains), 2);
    assert_string_equal(json_string_value(at(json_array_get(domains, 0), "domain")), hostile);
    CHECK_OK(em_read_file(html, 0, &page));
    assert_null(strstr(page.data, hostile));
    assert_non_null(strstr(page.data, "&lt;/pre&gt;&lt;script&gt;&quot;&amp;&#39;"));
    em_buf_deinit(&page);
    json_decref(o);
}

static void without_names_both_lie_in_the_folder(void **state)
{
    (void)state;
    struct program_result r =
        program_run("moe", "report", model, "--data", letters, "--tokens", "32");
    if (r.exit_status) fail_msg("%s", r.err);
    program_free(&r);
    assert_int_equal(access(test_path(model, "moe-report.html"), R_OK), 0);
    assert_int_equal(access(test_path(model, "moe-report.json"), R_OK), 0);
}

// Other weights of the same make choose other experts: more often the same ones than never.
static void another_checkpoint_agrees_in_part(void **state)
{
    (void)state;
    const char *other = test_path(dir, "other");
    struct em_model *m = small_model();
    em_model_init(m, 12, NULL);
    CHECK_OK(em_make_directories(other));
    CHECK_OK(em_model_save_config(m, other, EM_ST_F32));
    CHECK_OK(em_model_save_weights(m, test_path(other, "model.safetensors"), EM_ST_F32));
    em_model_close(m);
    struct program_result r = program_run("moe", "report", model, "--data", letters, "--json", json,
                                          "--compare", other, model, "--dtype", "f32");
    if (r.exit_status) fail_msg("%s", r.err);
    program_free(&r);
    json_t *o = figures();
    assert_string_equal(json_string_value(json_array_get(at(o, "checkpoints"), 0)), "other");
    for (size_t i = 0; i < 2; i++) {
        const json_t *same = at(json_array_get(at(o, "layers"), i), "saturation");
        const double first = json_number_value(json_array_get(same, 0));
        // Two of four agree in one in the mean, by chance.
        if (!(first > 0.15 && first < 0.85)) fail_msg("layer %zu: %g are the same", i, first);
        CHECK_NEAR(json_number_value(json_array_get(same, 1)), 1, 0, "the model itself");
    }
    json_decref(o);
}

// A run's folder: its log has the load over training, also where its last line is half there.
static void a_run_that_goes_on_has_half_a_line(void **state)
{
    (void)state;
    static const char line[] =
        "{\"step\": 5, \"moe\": {\"layers\": [{\"load\": [0.5, 0.5, 0, 0]}, "
        "{\"load\": [0.25, 0.25, 0.25, 0.25]}]}, \"warnings\": [{\"layer\": 1, \"step\": 5, "
        "\"expert\": 2, \"text\": \"expert 2 is dying</p>\"}]}\n{\"step\": 6, \"mo";
    const char *log = test_path(model, "logs/train.jsonl");
    CHECK_OK(em_make_directories(test_path(model, "logs")));
    for (size_t whole = 0; whole < 2; whole++) {
        const size_t n = whole ? (size_t)(strchr(line, '\n') - line) + 1 : sizeof line - 1;
        CHECK_OK(em_write_file(log, line, n));
        struct program_result r = program_run("moe", "report", model, "--data", letters, "--json",
                                              json, "--out", html, "--tokens", "64");
        if (r.exit_status) fail_msg("%s", r.err);
        assert_true(whole || strstr(r.err, "the load over training is left out"));
        program_free(&r);
        json_t *o = figures();
        assert_int_equal(json_array_size(at(o, "load_steps")), whole);
        if (whole) {
            struct em_buf page = {0};
            const json_t *load = at(json_array_get(at(o, "layers"), 0), "load");
            CHECK_NEAR(cell(load, 0, 1), 0.5, 0, "as the log says");
            assert_string_equal(json_string_value(json_array_get(at(o, "warnings"), 0)),
                                "Step 5, layer 1: expert 2 is dying</p>.");
            CHECK_OK(em_read_file(html, 0, &page));
            assert_non_null(strstr(page.data, "expert 2 is dying&lt;/p&gt;."));
            assert_non_null(strstr(page.data, "Expert load over training"));
            em_buf_deinit(&page);
        }
        json_decref(o);
    }
}

static void what_cannot_be_is_told(void **state)
{
    (void)state;
    CHECK_PROGRAM(2, "MODEL", "moe", "report");
    CHECK_PROGRAM(2, "--data", "moe", "report", model);
    CHECK_PROGRAM(2, "a name for each of the 2 texts", "moe", "report", model, "--data", letters,
                  sums, "--label", "one");
    CHECK_PROGRAM(1, "nowhere", "moe", "report", model, "--data", "nowhere.txt");
    CHECK_PROGRAM(1, "nowhere", "moe", "report", model, "--data", letters, "--compare", "nowhere");
    CHECK_PROGRAM(1, "has no mixture of experts", "moe", "report",
                  EMBER_TESTS_DIR "/golden/models/llama", "--data", letters);
}

static int start(void **state)
{
    (void)state;
    dir = test_directory();
    model = small_folder("model");
    letters = test_path(dir, "letters.txt");
    sums = test_path(dir, "sums.txt");
    json = test_path(dir, "figures.json");
    html = test_path(dir, "page.html");
    struct em_buf a = {0}, b = {0};
    for (size_t i = 0; i < 200; i++) {
        CHECK_OK(em_buf_printf(&a, "word %c%c and\n", (char)('a' + i % 26), (char)('a' + i % 7)));
        CHECK_OK(em_buf_printf(&b, "%zu + %zu;\n", i * 37 % 101, i));
    }
    CHECK_OK(em_write_file(letters, a.data, a.size));
    CHECK_OK(em_write_file(sums, b.data, b.size));
    em_buf_deinit(&a);
    em_buf_deinit(&b);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(figures_hold_together),
                                       cmocka_unit_test(the_page_has_the_same_figures),
                                       cmocka_unit_test(labels_join_texts_and_are_no_markup),
                                       cmocka_unit_test(without_names_both_lie_in_the_folder),
                                       cmocka_unit_test(another_checkpoint_agrees_in_part),
                                       cmocka_unit_test(a_run_that_goes_on_has_half_a_line),
                                       cmocka_unit_test(what_cannot_be_is_told)};
    return cmocka_run_group_tests_name("cli/moe_report", tests, start, NULL);
}
