// timeout: 600
// The run's folder as others meet it: the room it takes, what readers find while it is written, and
// what may have changed when a run goes on.
#include "train/run.h"

#include <unistd.h>

#include "formats/hash.h"
#include "formats/manifest.h"
#include "kernels/gemm.h"
#include "models/model.h"

static const char *dir, *ids;

// ---- room ----

static uint64_t free_bytes, most_used;
static const char *watched;

static uint64_t used(const char *path)
{
    struct stat s;
    char **names;
    size_t count;
    uint64_t sum = 4096;
    if (stat(path, &s) != 0) return 0;
    if (!S_ISDIR(s.st_mode)) return ((uint64_t)s.st_size + 4095) / 4096 * 4096;
    CHECK_OK(em_list_directory(path, &names, &count));
    for (size_t i = 0; i < count; i++) {
        char *inner = em_path_join(path, names[i]);
        sum += used(inner);
        em_free(inner);
    }
    em_names_free(names, count);
    return sum;
}

static int statvfs_told(const char *path, struct statvfs *s)
{
    (void)path;
    *s = (struct statvfs){.f_bavail = free_bytes, .f_frsize = 1};
    return 0;
}

// Every file is fsynced when it is complete.
static int fsync_watched(int fd)
{
    const uint64_t now = used(watched);
    if (now > most_used) most_used = now;
    return em_io_system()->fsync(fd);
}

static uint64_t need_of(struct run r)
{
    ember_train_result result = {0};
    r.dry_run = true;
    CHECK_OK(run_train(&r, &result));
    json_t *figures = json_loads(result.json, 0, NULL);
    const json_int_t bytes = json_integer_value(json_object_get(figures, "disk_bytes"));
    json_decref(figures);
    ember_train_result_deinit(&result);
    assert_true(bytes > 0);
    return (uint64_t)bytes;
}

static void a_disk_too_small_is_refused(void **state)
{
    (void)state;
    struct em_io io = *em_io_system();
    io.statvfs = statvfs_told;
    io.fsync = fsync_watched;
    const char *recipe = run_recipe(dir, "room.json", ids, 0, "\"steps\": 6, \"save_every\": 1"),
               *out = watched = test_path(dir, "room");
    const struct run r = {
        .recipe = recipe, .out = out, .set = {"model.hidden_size=128", "train.lr=0.001"}};
    em_io_use(&io);
    free_bytes = (uint64_t)1 << 40;
    const uint64_t need = need_of(r);
    free_bytes = need - 1;
    run_fails(&r, EMBER_E_IO, "MiB free: free 0.0 MiB more, or give --out on a larger disk");
    assert_non_null(strstr(ember_last_error(), "room: the run needs "));
    CHECK_OK(em_remove_tree(out));
    free_bytes = need;
    most_used = 0;
    run_stopped(&r, 5);
    // Enough at every moment, and not twice as much. A report may take 1 MiB.
    assert_true(most_used <= need);
    assert_true(need - (1 << 20) < most_used + most_used / 4);
    const struct run on = {.out = out, .resume = true};
    const uint64_t more = need_of(on);
    assert_true(more < need / 2);
    free_bytes = more - 1;
    run_fails(&on, EMBER_E_IO, "MiB more (three states of ");
    assert_non_null(strstr(ember_last_error(), "move the folder to a larger disk"));
    free_bytes = more;
    run_ok(&on);
    assert_true(most_used <= need);
    em_io_use(NULL);
}

// ---- readers ----

static const char *read_from;
static uint64_t last_read;
static size_t models_read, models_seen;

static uint64_t hash_of(const char *path)
{
    struct em_file_hash hash;
    CHECK_OK(em_hash_file(path, false, &hash));
    return hash.xxh3;
}

// What somebody finds who opens the folder at this moment: the model that was there, or the one of
// the newest state.
static void read_now(void)
{
    static const char *const names[] = {"model.safetensors", "training/LATEST"};
    char *path = em_path_join(read_from, names[0]), *latest = em_path_join(read_from, names[1]);
    if (em_path_exists(path)) {
        struct em_model *m;
        struct em_buf line = {0};
        const uint64_t hash = hash_of(path);
        CHECK_OK(em_model_open(read_from, &m));
        em_model_close(m);
        models_read++;
        if (hash != last_read) {
            CHECK_OK(em_read_file(latest, 0, &line));
            line.data[strcspn(line.data, "\n")] = '\0';
            char *newest = em_asprintf("%s/training/%s/model.safetensors", read_from, line.data);
            assert_true(hash == hash_of(newest));
            models_seen++;
            em_free(newest);
        }
        last_read = hash;
        em_buf_deinit(&line);
    }
    em_free(path);
    em_free(latest);
}

static int rename_watched(const char *from, const char *to)
{
    read_now();
    const int result = em_io_system()->rename(from, to);
    read_now();
    return result;
}

static void readers_find_a_whole_model(void **state)
{
    (void)state;
    struct em_io io = *em_io_system();
    io.rename = rename_watched;
    read_from = test_path(dir, "read");
    em_io_use(&io);
    run_ok(&(struct run){
        .recipe = run_recipe(dir, "read.json", ids, 0.01, "\"steps\": 4, \"save_every\": 1"),
        .out = read_from});
    em_io_use(NULL);
    assert_int_equal(models_seen, 4);
    assert_true(models_read > 20);
}

// ---- going on ----

static struct em_buf said;

static void keep_lines(void *context, enum em_log_level level, const char *line)
{
    (void)context;
    (void)level;
    CHECK_OK(em_buf_printf(&said, "%s\n", line));
}

static void run_says(const struct run *r, const char *text)
{
    em_buf_clear(&said);
    em_log_to(keep_lines, NULL);
    run_ok(r);
    em_log_to(run_watch, NULL);
    if (!strstr(said.data, text)) fail_msg("\"%s\" is not in\n%s", text, said.data);
}

static size_t steps_done(const char *out)
{
    char *losses = run_losses(out);
    const size_t n = run_count(losses);
    em_free(losses);
    return n;
}

static void a_run_that_is_done_says_so(void **state)
{
    (void)state;
    const char *out = test_path(dir, "done"),
               *recipe = run_recipe(dir, "done.json", ids, 0, "\"steps\": 3");
    run_ok(&(struct run){.recipe = recipe, .out = out});
    const struct run again = {.out = out, .resume = true};
    run_says(&again, "all 3 steps are done");
    assert_int_equal(steps_done(out), 3);
    run_fails(&(struct run){.out = out, .resume = true, .set = {"train.minutes=0.0000001"}},
              EMBER_E_CONFIG, "train.minutes is 1e-07, but the steps that are done took");
    run_says(&(struct run){.out = out, .resume = true, .set = {"train.minutes=0.005"}},
             "train.minutes was nothing until now and is 0.005 from here on");
    const size_t steps = steps_done(out);
    assert_true(steps > 3);
    run_says(&again, "steps are done"); // the length is fixed
    assert_int_equal(steps_done(out), steps);
}

static void another_way_to_compute_is_told(void **state)
{
    (void)state;
    const char *out = test_path(dir, "dtype"),
               *recipe = run_recipe(dir, "dtype.json", ids, 0, "\"steps\": 3");
    run_ok(&(struct run){.recipe = recipe, .out = out});
    run_says(&(struct run){.out = out, .resume = true, .set = {"train.dtype=f32", "train.steps=4"}},
             em_gemm_native(EM_GEMM_BF16) ? "it does not go on to the bit"
                                          : "train.dtype was nothing until now");
}

static void data_may_move_but_not_change(void **state)
{
    (void)state;
    char text[2048], model[1024];
    const char *books = test_path(dir, "books"), *out = test_path(dir, "books-out");
    CHECK_OK(em_make_directories(books));
    (void)run_text(books, "one.txt", 2, 4000);
    (void)run_text(books, "two.txt", 4, 4000);
    snprintf(model, sizeof model, RUN_MODEL, 300, 0.0);
    snprintf(text, sizeof text,
             "{\"model\": %s, \"data\": {\"sources\": [\"%s\"], \"tokenizer\": \"bytes\"}, "
             "\"train\": {\"steps\": 2, \"batch\": 2, \"seq\": 32}}",
             model, books);
    run_ok(&(struct run){.recipe = run_write(dir, "books.json", text), .out = out});
    const struct run on = {.out = out, .resume = true, .set = {"train.steps=3"}};
    // Edited, more, fewer.
    (void)run_text(books, "two.txt", 4, 4001);
    run_fails(&on, EMBER_E_CONFIG, "books/two.txt was changed: it had 4000 bytes and has 4001");
    run_fails(&(struct run){.out = out, .resume = true, .dry_run = true}, EMBER_E_CONFIG,
              "their documents, tokens or shares differ");
    (void)run_text(books, "two.txt", 4, 4000);
    (void)run_text(books, "three.txt", 3, 300);
    run_fails(&on, EMBER_E_CONFIG, "books/three.txt was not there");
    CHECK_OK(em_remove_tree(test_path(books, "three.txt")));
    const char *two = test_path(books, "two.txt"), *aside = test_path(dir, "aside");
    assert_int_equal(rename(two, aside), 0);
    run_fails(&on, EMBER_E_CONFIG, "books/two.txt is not there any more");
    assert_int_equal(rename(aside, two), 0);
    // Moved as a whole.
    const char *moved = test_path(dir, "moved");
    assert_int_equal(rename(books, moved), 0);
    char set[600];
    snprintf(set, sizeof set, "data.sources.0.path=%s", moved);
    run_ok(&(struct run){.out = out, .resume = true, .set = {"train.steps=3", set}});
    assert_int_equal(steps_done(out), 3);
}

static void a_state_of_a_later_format_is_refused(void **state)
{
    (void)state;
    const char *out = test_path(dir, "later"),
               *recipe = run_recipe(dir, "later.json", ids, 0, "\"steps\": 2");
    run_ok(&(struct run){.recipe = recipe, .out = out});
    char *folder = em_path_join(out, "training/step-2");
    json_t *json = run_json(folder, "state.json");
    assert_int_equal(json_object_set_new(json, "format", json_integer(99)), 0);
    CHECK_OK(em_json_write(test_path(folder, "state.json"), json, 2));
    json_decref(json);
    struct em_manifest m;
    CHECK_OK(em_remove_tree(test_path(folder, EM_MANIFEST_NAME)));
    CHECK_OK(em_manifest_scan(folder, 2, &m));
    CHECK_OK(em_manifest_write(folder, &m));
    em_manifest_deinit(&m);
    run_fails(&(struct run){.out = out, .resume = true}, EMBER_E_UNSUPPORTED,
              "state.json: is of format 99, this version knows 1");
    em_free(folder);
}

static int start(void **state)
{
    dir = test_directory();
    if (run_quietly(state)) return -1;
    ids = run_ids(dir, "ids.safetensors", 2000, false);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_too_small_is_refused),
        cmocka_unit_test(readers_find_a_whole_model),
        cmocka_unit_test(a_run_that_is_done_says_so),
        cmocka_unit_test(another_way_to_compute_is_told),
        cmocka_unit_test(data_may_move_but_not_change),
        cmocka_unit_test(a_state_of_a_later_format_is_refused),
    };
    const int failed = cmocka_run_group_tests(tests, start, NULL);
    em_buf_deinit(&said);
    return failed;
}
