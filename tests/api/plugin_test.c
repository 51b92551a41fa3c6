// plugins
// Loading plug-ins: each fault is one line and leaves nothing behind, and what is loaded is there.
#include <ember/describe.h>
#include <ember/plugin.h>
#include <ember/runtime.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "registry/registry.h"
#include "support/check.h"

static const char *refused(const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/refused_%s.so", EMBER_PLUGINS, name);
    return path;
}

static size_t components(void)
{
    size_t n = 0;
    while (em_registry_at(n))
        n++;
    return n;
}

static void check_refused(const char *path, ember_status status, const char *message)
{
    const size_t before = components();
    CHECK_FAILS(ember_plugin_load(path), status, message);
    CHECK_FAILS(ember_plugin_load(path), status, path); // the same once more, and it names the file
    assert_null(strchr(ember_last_error(), '\n'));
    assert_int_equal(components(), before);
    assert_null(em_registry_plugin("refused"));
}

static void what_is_no_plugin_is_refused(void **state)
{
    (void)state;
    const char *dir = test_directory();
    check_refused("/nowhere/x.so", EMBER_E_IO, "No such file");
    check_refused(dir, EMBER_E_IO, "directory");
    const char *text = test_path(dir, "text.so"), *cut = test_path(dir, "cut.so");
    CHECK_OK(em_write_file(text, "#!/bin/sh\n", 10));
    check_refused(text, EMBER_E_FORMAT, "not a shared object");
    CHECK_OK(em_write_file(text, "", 0));
    check_refused(text, EMBER_E_FORMAT, "not a shared object");
    check_refused(EMBER_PROGRAM, EMBER_E_FORMAT, "cannot be loaded as a plug-in");
    check_refused(refused("NO_DESCRIPTOR"), EMBER_E_FORMAT, "defines no ember_plugin");

    // Cut anywhere that its headers speak of: a loader that mapped it would read past its end.
    struct em_buf whole = {0};
    CHECK_OK(em_read_file(EMBER_EXAMPLE_PLUGIN, 0, &whole));
    for (size_t size = 0; size < 6000 && size < whole.size; size += 1 + size / 3) {
        CHECK_OK(em_write_file(cut, whole.data, size));
        check_refused(cut, EMBER_E_FORMAT, size < 64 ? "not a shared object" : "cut short");
    }
    whole.data[4] = 9; // neither 32 nor 64 bits
    CHECK_OK(em_write_file(cut, whole.data, whole.size));
    check_refused(cut, EMBER_E_FORMAT, "this machine's kind");
    em_buf_deinit(&whole);
}

// A bare name is a file here, never one in the system's folders.
static void no_search_path_applies(void **state)
{
    (void)state;
    check_refused("libm.so.6", EMBER_E_IO, "No such file");
}

static void descriptors_that_are_not_whole_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        ember_status status;
        const char *message;
    } cases[] = {
        {"ABI", EMBER_E_UNSUPPORTED, "a plug-in for interface 3; this library ("},
        {"NAME", EMBER_E_CONFIG, "a plug-in without a name like"},
        {"VERSION", EMBER_E_CONFIG, "the plug-in refused has no version"},
        {"EMPTY", EMBER_E_CONFIG, "brings no components"},
        {"UNDEFINED", EMBER_E_FORMAT, "undefined symbol: ember_function_of_a_later_version"},
        {"LAYER_NAME", EMBER_E_CONFIG, "a component without a name like"},
        {"KIND", EMBER_E_CONFIG, "doubled is of kind 8, which is not a layer's"},
        {"ROUTE", EMBER_E_CONFIG, "the router doubled has no route"},
        {"BUILD", EMBER_E_CONFIG, "the channel_mixer doubled has no build"},
        {"HELP", EMBER_E_CONFIG, "the channel_mixer doubled has no help"},
        {"FLAGS", EMBER_E_CONFIG, "doubled has flags that are not known: 0x100000"},
        {"SIZE", EMBER_E_CONFIG, "doubled has a struct of 8 bytes"},
        {"OPTION", EMBER_E_CONFIG, "doubled.hidden has the default 3, and the range 4 to 9"},
        {"DUPLICATE", EMBER_E_STATE, "the channel_mixer \"swiglu\" is registered already"},
        {"TWICE", EMBER_E_STATE, "the channel_mixer \"doubled\" is registered already"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_refused(refused(cases[i].name), cases[i].status, cases[i].message);
}

static void *look_things_up(void *arg)
{
    const bool *stop = arg;
    size_t seen = 0;
    while (!__atomic_load_n(stop, __ATOMIC_RELAXED)) {
        const struct em_component *c;
        size_t n = 0;
        for (; (c = em_registry_at(n)); n++)
            if (!em_registry_find(c->kind, c->name)) return arg;
        if (n < seen) return arg;
        seen = n;
    }
    return NULL;
}

static void a_plugin_brings_its_components(void **state)
{
    (void)state;
    char *text;
    bool stop = false;
    void *failed;
    pthread_t reader;
    CHECK_OK(ember_start());
    assert_int_equal(pthread_create(&reader, NULL, look_things_up, &stop), 0);
    const size_t before = components();
    CHECK_OK(ember_plugin_load(EMBER_EXAMPLE_PLUGIN));
    assert_int_equal(components(), before + 2);
    CHECK_OK(ember_plugin_load(EMBER_EXAMPLE_PLUGIN)); // once is enough
    char detour[4096];
    snprintf(detour, sizeof detour, "%s/../plugins/example.so", EMBER_PLUGINS);
    CHECK_OK(ember_plugin_load(detour));
    assert_int_equal(components(), before + 2);
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    assert_int_equal(pthread_join(reader, &failed), 0);
    assert_null(failed);

    const struct em_plugin *plugin = em_registry_plugin("example");
    assert_non_null(plugin);
    assert_string_equal(plugin->version, "1.0");
    const struct em_component *c = em_registry_find(EMBER_CHANNEL_MIXER, "low_rank_glu");
    assert_true(c && c->plugin == plugin);
    CHECK_OK(ember_registry_describe("cosine_topk", "router", false, &text));
    assert_non_null(strstr(text, "of the plug-in example 1.0\n"));
    assert_non_null(strstr(text, "  temperature            number      default 0.07       "));
    ember_free(text);

    CHECK_FAILS(ember_plugin_load(refused("SAME_NAME")), EMBER_E_STATE,
                "a plug-in called example is loaded already");
    check_refused(refused("DUPLICATE"), EMBER_E_STATE, "registered already");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_plugin_is_refused),
        cmocka_unit_test(no_search_path_applies),
        cmocka_unit_test(descriptors_that_are_not_whole_are_refused),
        cmocka_unit_test(a_plugin_brings_its_components),
    };
    if (ember_start() != EMBER_OK) return 1;
    return cmocka_run_group_tests_name("api/plugin", tests, NULL, NULL);
}
