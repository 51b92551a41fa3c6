// ember_experts_report(): refusals, and every allocation that fails.
#include <ember/experts.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "infer/small_model.h"
#include "support/full.h"
#include "support/sweep.h"

static const char *model, *text_file, *html, *json;

static ember_status report(const ember_experts_options *more, char **text)
{
    ember_experts_options o = *more;
    o.runtime.threads = 1;
    o.data = &text_file;
    o.n_data = 1;
    o.tokens = 96;
    o.context = 24;
    return ember_experts_report(model, &o, text);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    char *text;
    const char *const labels[] = {"a", "b"};
    CHECK_FAILS(ember_experts_report(model, &(ember_experts_options){0}, &text), EMBER_E_USAGE,
                "held-out text");
    CHECK_FAILS(report(&(ember_experts_options){.labels = labels, .n_labels = 2}, &text),
                EMBER_E_USAGE, "2 labels for 1 texts");
    CHECK_FAILS(ember_experts_report(
                    model,
                    &(ember_experts_options){.data = &text_file, .n_data = 1, .context = 4096},
                    &text),
                EMBER_E_RANGE, "at most 2048");
    const char *const none[] = {"nowhere"};
    CHECK_FAILS(report(&(ember_experts_options){.compare = none, .n_compare = 1}, &text),
                EMBER_E_IO, "nowhere");
    CHECK_FAILS(report(&(ember_experts_options){.html = "nowhere/page.html"}, &text), EMBER_E_IO,
                "nowhere/page.html");
}

static ember_status whole_report(void *context)
{
    char *text;
    const ember_status status = report(context, &text);
    if (status == EMBER_OK) ember_free(text);
    return status;
}

static void every_failed_allocation_is_reported(void **state)
{
    (void)state;
    ember_experts_options o = {.compare = &model, .n_compare = 1, .html = html, .json = json};
    const struct sweep_scenario scenario = {
        .name = "experts report", .context = &o, .call = whole_report};
    const struct sweep_figures f =
        sweep(&scenario, &sweep_memory, (struct sweep_amount){300, em_test_amount(41, 1)});
    assert_true(f.failures > 300);
}

static int start(void **state)
{
    (void)state;
    const char *dir = test_directory();
    struct em_buf b = {0};
    em_log_threshold((enum em_log_level)(EM_LOG_WARN + 1));
    model = small_folder("model");
    text_file = test_path(dir, "text.txt");
    html = test_path(dir, "page.html");
    json = test_path(dir, "page.json");
    for (size_t i = 0; i < 12; i++)
        CHECK_OK(em_buf_printf(&b, "line %zu of some\n", i));
    CHECK_OK(em_write_file(text_file, b.data, b.size));
    em_buf_deinit(&b);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_cannot_be_is_refused),
                                       cmocka_unit_test(every_failed_allocation_is_reported)};
    return cmocka_run_group_tests_name("api/experts", tests, start, NULL);
}
