#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/io.h"
#include "support/check.h"
#include "support/fault_io.h"

static void check_content(const char *path, const char *expected)
{
    struct em_buf b;
    em_buf_init(&b, 0);
    CHECK_OK(em_read_file(path, 0, &b));
    assert_string_equal(b.data, expected);
    em_buf_deinit(&b);
}

static void files_are_written_and_read(void **state)
{
    (void)state;
    const char *path = test_path(test_directory(), "a");
    CHECK_OK(em_write_file(path, "hello", 5));
    check_content(path, "hello");
    CHECK_OK(em_write_file(path, "", 0));
    check_content(path, "");
    struct em_buf b;
    em_buf_init(&b, 0);
    CHECK_OK(em_buf_puts(&b, "before "));
    CHECK_OK(em_write_file(path, "12345", 5));
    CHECK_OK(em_read_file(path, 5, &b)); // exactly the limit
    assert_string_equal(b.data, "before 12345");
    CHECK_FAILS(em_read_file(path, 4, &b), EMBER_E_RANGE, "has 5 bytes, the limit is 4");
    assert_string_equal(b.data, "before 12345");
    CHECK_FAILS(em_read_file("/proc/self/status", 100, &b), EMBER_E_RANGE,
                "longer than the limit of 100");
    assert_string_equal(b.data, "before 12345");
    CHECK_FAILS(em_read_file("/dev/zero", 0, &b), EMBER_E_IO, "/dev/zero: expected a file");
    CHECK_OK(em_read_file("/dev/null", 0, &b));
    const char *pipe = test_path(test_directory(), "pipe");
    assert_int_equal(mkfifo(pipe, 0600), 0);
    CHECK_OK(em_read_file(pipe, 0, &b)); // nobody writes to it: empty, and no wait for ever
    assert_string_equal(b.data, "before 12345");
    CHECK_OK(em_read_file("/proc/self/status", 0, &b)); // whose size is 0 until it is read
    assert_non_null(strstr(b.data, "VmRSS"));
    em_buf_deinit(&b);
}

static void what_cannot_be_read_is_named(void **state)
{
    (void)state;
    const char *directory = test_directory(), *absent = test_path(directory, "absent");
    struct em_buf b;
    struct em_map map;
    em_buf_init(&b, 0);
    CHECK_FAILS(em_read_file(absent, 0, &b), EMBER_E_IO, "absent: cannot open: No such file");
    CHECK_FAILS(em_read_file(directory, 0, &b), EMBER_E_IO, "expected a file, found a directory");
    CHECK_FAILS(em_map_open(absent, &map), EMBER_E_IO, "No such file");
    CHECK_FAILS(em_map_open(directory, &map), EMBER_E_IO, "found a directory");
    CHECK_FAILS(em_map_open("/dev/zero", &map), EMBER_E_IO, "expected a regular file");
    const char *fifo = test_path(directory, "fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    CHECK_FAILS(em_map_open(fifo, &map), EMBER_E_IO,
                "expected a regular file"); // and does not hang
    CHECK_FAILS(em_write_file(fifo, "x", 1), EMBER_E_IO, "not a regular file");
    CHECK_FAILS(em_write_file(directory, "x", 1), EMBER_E_IO, "found a directory");
    CHECK_FAILS(em_write_file(test_path(absent, "x"), "x", 1), EMBER_E_IO, "cannot create");
    em_buf_deinit(&b);
}

static void files_are_mapped(void **state)
{
    (void)state;
    const char *path = test_path(test_directory(), "m");
    struct em_map map;
    CHECK_OK(em_write_file(path, "mapped", 6));
    CHECK_OK(em_map_open(path, &map));
    assert_int_equal(map.size, 6);
    assert_memory_equal(map.data, "mapped", 6);
    em_map_close(&map);
    em_map_close(&map);
    CHECK_OK(em_write_file(path, "", 0));
    CHECK_OK(em_map_open(path, &map));
    assert_int_equal(map.size, 0);
    em_map_close(&map);
}

static void a_file_is_gathered_from_pieces(void **state)
{
    (void)state;
    const char *directory = test_directory(), *path = test_path(directory, "big");
    struct em_file f;
    CHECK_OK(em_file_create(path, &f));
    assert_false(em_path_exists(path)); // not before the commit
    enum { LINES = 60000 };
    char *long_piece = em_calloc(1, 600000);
    memset(long_piece, 'x', 599999);
    for (int i = 0; i < LINES; i++)
        CHECK_OK(em_file_printf(&f, "%07d\n", i));
    CHECK_OK(em_file_write(&f, long_piece, 599999));
    CHECK_OK(em_file_printf(&f, "%s", long_piece));
    assert_int_equal(f.written, LINES * 8 + 2 * 599999);
    CHECK_OK(em_file_commit(&f));
    em_file_abort(&f);
    struct em_map map;
    CHECK_OK(em_map_open(path, &map));
    assert_int_equal(map.size, LINES * 8 + 2 * 599999);
    for (int i = 0; i < LINES; i++) {
        char line[16];
        snprintf(line, sizeof line, "%07d\n", i);
        assert_memory_equal(map.data + 8 * i, line, 8);
    }
    for (size_t i = LINES * 8; i < map.size; i++)
        if (map.data[i] != 'x') fail_msg("byte %zu", i);
    em_map_close(&map);
    em_free(long_piece);
    char **names;
    size_t count;
    CHECK_OK(em_list_directory(directory, &names, &count));
    assert_int_equal(count, 1); // no temporary is left
    em_names_free(names, count);
}

static void an_aborted_file_leaves_the_old_one(void **state)
{
    (void)state;
    const char *directory = test_directory(), *path = test_path(directory, "a");
    CHECK_OK(em_write_file(path, "old", 3));
    struct em_file f;
    CHECK_OK(em_file_create(path, &f));
    CHECK_OK(em_file_write(&f, "new", 3));
    em_file_abort(&f);
    em_file_abort(&f);
    struct em_file none = {0};
    em_file_abort(&none);
    check_content(path, "old");
    char **names;
    size_t count;
    CHECK_OK(em_list_directory(directory, &names, &count));
    assert_int_equal(count, 1);
    em_names_free(names, count);
}

static void a_private_file_stays_private(void **state)
{
    (void)state;
    const char *path = test_path(test_directory(), "secret");
    CHECK_OK(em_write_file(path, "a", 1));
    assert_int_equal(chmod(path, 0600), 0);
    CHECK_OK(em_write_file(path, "b", 1));
    struct stat s;
    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(s.st_mode & 0777, 0600);
}

// Without fsync: quick, for what was there before the test begins.
static void put_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static char *content_of(const char *path)
{
    struct em_buf b;
    em_buf_init(&b, 0);
    CHECK_OK(em_read_file(path, 0, &b));
    return em_buf_take(&b);
}

// At each call in turn: the write fails, the old file is whole, no temporary stays, no memory is
// lost.
static void any_failing_call_leaves_the_old_file(void **state)
{
    (void)state;
    const char *directory = test_directory(), *path = test_path(directory, "a");
    const int errors[] = {EIO, ENOSPC};
    const char *said[] = {"Input/output error", "No space left"};
    size_t failures = 0;
    for (size_t e = 0; e < 2; e++)
        for (size_t k = 1;; k++) {
            put_file(path, "old");
            const size_t live = em_alloc_live();
            faults_begin(&(struct fault_plan){.fail_call = k, .error = errors[e]});
            const ember_status status = em_write_file(path, "new content", 11);
            const bool struck = faults_struck();
            faults_end();
            assert_int_equal(em_alloc_live(), live);
            if (!struck) {
                CHECK_OK(status);
                assert_true(k > 7);
                break;
            }
            char *now = content_of(path);
            // Two calls may fail without harm or too late: the stat before (its answer is only the
            // mode), and those after the rename.
            if (status == EMBER_OK)
                assert_string_equal(now, "new content");
            else
                assert_non_null(strstr(ember_last_error(), said[e]));
            if (strcmp(now, "old") != 0) assert_string_equal(now, "new content");
            failures += status != EMBER_OK;
            em_free(now);
            char **names;
            size_t count;
            CHECK_OK(em_list_directory(directory, &names, &count));
            assert_int_equal(count, 1);
            em_names_free(names, count);
        }
    assert_true(failures >= 12);
}

static void short_and_interrupted_calls_are_completed(void **state)
{
    (void)state;
    const char *path = test_path(test_directory(), "a");
    char text[20000];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)('a' + i % 26);
    text[sizeof text - 1] = 0;
    faults_begin(&(struct fault_plan){.most_written = 7, .most_read = 11, .interrupt_every = 3});
    CHECK_OK(em_write_file(path, text, sizeof text - 1));
    char *back = content_of(path);
    faults_end();
    assert_string_equal(back, text);
    em_free(back);
}

// A power cut at each call in turn, with many outcomes each: the file is the old or the new one,
// whole, and once the write has returned it is the new one.
static void after_a_power_cut_a_file_is_old_or_new(void **state)
{
    (void)state;
    const char *directory = test_directory(), *path = test_path(directory, "a");
    size_t old = 0, new = 0;
    for (size_t k = 1;; k++) {
        bool struck = false;
        for (uint64_t seed = 0; seed < 16; seed++) {
            put_file(path, "the old content");
            faults_begin(&(struct fault_plan){.power_cut = k});
            const ember_status status = em_write_file(path, "and the new one, longer", 23);
            struck = faults_struck();
            faults_power_up(seed);
            char *now = content_of(path);
            if (strcmp(now, "the old content") == 0)
                old++;
            else if (strcmp(now, "and the new one, longer") == 0)
                new ++;
            else
                fail_msg("cut at %zu, seed %llu: \"%s\"", k, (unsigned long long)seed, now);
            if (status == EMBER_OK) assert_string_equal(now, "and the new one, longer");
            em_free(now);
            char **names;
            size_t count;
            CHECK_OK(em_list_directory(directory, &names, &count));
            for (size_t i = 0; i < count; i++)
                CHECK_OK(em_remove_tree(test_path(directory, names[i])));
            em_names_free(names, count);
        }
        if (!struck) break;
    }
    assert_true(old > 50 && new > 16);
}

// The machinery itself: a write without fsync must not survive, or the test above proves nothing.
static void what_is_not_fsynced_is_forgotten(void **state)
{
    (void)state;
    const char *directory = test_directory(), *path = test_path(directory, "a");
    const char *temporary = test_path(directory, "t"), *made = test_path(directory, "d");
    size_t whole = 0, empty = 0, zeros = 0, absent = 0, kept_directory = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        put_file(path, "old");
        faults_begin(&(struct fault_plan){.lossy = true});
        const struct em_io *io = em_io();
        const int fd = io->open(temporary, O_WRONLY | O_CREAT | O_EXCL, 0666);
        assert_int_equal(io->write(fd, "new", 3), 3);
        assert_int_equal(io->close(fd), 0); // no fsync before the rename: the classic mistake
        assert_int_equal(io->rename(temporary, path), 0);
        assert_int_equal(io->mkdir(made, 0777), 0);
        faults_power_up(seed);
        if (seed % 2 == 0) // the changes come in order
            assert_false(em_path_exists(path) && em_path_exists(temporary) &&
                         em_path_is_directory(made));
        assert_true(em_path_exists(path)); // and never a rename by half
        char *now = content_of(path);
        whole += strcmp(now, "new") == 0;
        empty += strcmp(now, "") == 0 || strcmp(now, "n") == 0;
        struct em_buf b;
        em_buf_init(&b, 0);
        CHECK_OK(em_read_file(path, 0, &b));
        zeros += b.size == 3 && b.data[2] == 0;
        absent += strcmp(now, "old") == 0;
        em_buf_deinit(&b);
        kept_directory += em_path_is_directory(made);
        em_free(now);
        CHECK_OK(em_remove_tree(made));
        CHECK_OK(em_remove_tree(temporary));
    }
    assert_true(whole > 5 && empty > 5 && zeros > 5 && absent > 5);
    assert_in_range(kept_directory, 20, 100);
}

static void directories_are_made_and_survive_a_power_cut(void **state)
{
    (void)state;
    const char *root = test_directory(), *deep = test_path(root, "a//b/c/");
    for (uint64_t seed = 0; seed < 8; seed++) {
        faults_begin(&(struct fault_plan){.lossy = true});
        CHECK_OK(em_make_directories(deep));
        faults_power_up(seed);
        assert_true(em_path_is_directory(deep));
        CHECK_OK(em_make_directories(deep)); // again is fine
        CHECK_OK(em_remove_tree(test_path(root, "a")));
        assert_false(em_path_exists(test_path(root, "a")));
    }
    CHECK_OK(em_write_file(test_path(root, "file"), "", 0));
    CHECK_FAILS(em_make_directories(test_path(root, "file/x")), EMBER_E_IO,
                "cannot make the directory");
    CHECK_FAILS(em_make_directories(test_path(root, "file")), EMBER_E_IO, "File exists");
    CHECK_OK(em_make_directories("/"));
}

static void trees_are_removed_without_following_links(void **state)
{
    (void)state;
    const char *root = test_directory(), *kept = test_path(root, "kept"),
               *tree = test_path(root, "tree");
    CHECK_OK(em_make_directories(kept));
    CHECK_OK(em_write_file(test_path(kept, "file"), "x", 1));
    CHECK_OK(em_make_directories(test_path(tree, "d/e")));
    CHECK_OK(em_write_file(test_path(tree, "d/e/f"), "x", 1));
    assert_int_equal(symlink(kept, test_path(tree, "d/link")), 0);
    assert_int_equal(symlink("nowhere", test_path(tree, "broken")), 0);
    CHECK_OK(em_remove_tree(tree));
    assert_false(em_path_exists(tree));
    assert_true(em_path_exists(test_path(kept, "file")));
    CHECK_OK(em_remove_tree(tree)); // absent is fine
    assert_int_equal(symlink(kept, tree), 0);
    CHECK_OK(em_remove_tree(tree)); // the link itself
    assert_true(em_path_exists(test_path(kept, "file")));
}

static void names_come_sorted(void **state)
{
    (void)state;
    const char *root = test_directory(), *wanted[] = {".hidden", "B", "a", "a1", "\xc3\xa9"};
    for (size_t i = 5; i-- > 0;)
        CHECK_OK(em_write_file(test_path(root, wanted[i]), "", 0));
    char **names;
    size_t count;
    CHECK_OK(em_list_directory(root, &names, &count));
    assert_int_equal(count, 5);
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(names[i], wanted[i]);
    em_names_free(names, count);
    CHECK_FAILS(em_list_directory(test_path(root, "a"), &names, &count), EMBER_E_IO,
                "Not a directory");
}

static void lines_are_appended_and_taken_back(void **state)
{
    (void)state;
    const char *path = test_path(test_directory(), "log");
    struct em_append a;
    CHECK_OK(em_append_open(path, &a));
    CHECK_OK(em_append_write(&a, "one\n", 4));
    CHECK_OK(em_append_sync(&a));
    em_append_close(&a);
    em_append_close(&a);
    CHECK_OK(em_append_open(path, &a));
    CHECK_OK(em_append_write(&a, "two\n", 4));
    check_content(path, "one\ntwo\n");
    CHECK_OK(em_append_truncate(&a, 4));
    CHECK_OK(em_append_write(&a, "2\n", 2));
    check_content(path, "one\n2\n");
    CHECK_FAILS(em_append_truncate(&a, 7), EMBER_E_FORMAT, "expected at least 7 bytes, found 6");
    em_append_close(&a);
}

static void one_run_holds_a_directory(void **state)
{
    (void)state;
    const char *root = test_directory();
    int fd, second;
    CHECK_OK(em_lock_directory(root, &fd));
    CHECK_FAILS(em_lock_directory(root, &second), EMBER_E_STATE, "in use by another run");
    const pid_t child = fork();
    if (child == 0) _exit(em_lock_directory(root, &second) == EMBER_E_STATE ? 0 : 1);
    int result = -1;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result));
    assert_int_equal(WEXITSTATUS(result), 0);
    // The message tells who holds it, and shows as text what does not belong there.
    char who[64];
    snprintf(who, sizeof who, "in use by another run: process %ld on ", (long)getpid());
    CHECK_FAILS(em_lock_directory(root, &second), EMBER_E_STATE, who);
    assert_non_null(strstr(ember_last_error(), " UTC (which holds "));
    const int file = open(test_path(root, ".lock"), O_WRONLY | O_TRUNC);
    assert_true(file >= 0);
    assert_int_equal(write(file, "\033[2Jme\n", 7), 7);
    close(file);
    CHECK_FAILS(em_lock_directory(root, &second), EMBER_E_STATE,
                "another run: ?[2Jme (which holds ");
    em_unlock_directory(fd);
    CHECK_OK(em_lock_directory(root, &second));
    em_unlock_directory(second);
}

static void a_killed_holder_is_no_obstacle(void **state)
{
    (void)state;
    const char *root = test_directory();
    int ready[2], fd;
    char go;
    assert_int_equal(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
        if (em_lock_directory(root, &fd) != EMBER_OK || write(ready[1], "x", 1) != 1) _exit(1);
        pause();
    }
    assert_int_equal(read(ready[0], &go, 1), 1);
    char who[64];
    snprintf(who, sizeof who, "process %ld on ", (long)child);
    CHECK_FAILS(em_lock_directory(root, &fd), EMBER_E_STATE, who);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    CHECK_OK(em_lock_directory(root, &fd));
    em_unlock_directory(fd);
    close(ready[0]);
    close(ready[1]);
}

static int tiny_disk(const char *path, struct statvfs *s)
{
    (void)path;
    *s = (struct statvfs){.f_bavail = 3, .f_frsize = 4096};
    return 0;
}

static void free_space_is_told(void **state)
{
    (void)state;
    uint64_t bytes = 0;
    CHECK_OK(em_free_space(".", &bytes));
    assert_true(bytes > 0);
    CHECK_FAILS(em_free_space("/nowhere/at/all", &bytes), EMBER_E_IO, "cannot ask for free space");
    struct em_io io = *em_io_system();
    io.statvfs = tiny_disk;
    em_io_use(&io);
    CHECK_OK(em_free_space(".", &bytes));
    em_io_use(NULL);
    assert_int_equal(bytes, 3 * 4096);
}

static void paths_are_joined_and_split(void **state)
{
    (void)state;
    const char *cases[][3] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"", "b", "b"}, {"/", "b", "/b"}};
    for (size_t i = 0; i < 4; i++) {
        char *joined = em_path_join(cases[i][0], cases[i][1]);
        assert_string_equal(joined, cases[i][2]);
        assert_string_equal(em_path_base(joined), "b");
        em_free(joined);
    }
    assert_string_equal(em_path_base("plain"), "plain");
}

static void without_memory_nothing_is_left_behind(void **state)
{
    (void)state;
    const char *root = test_directory(), *path = test_path(root, "a");
    for (size_t k = 1;; k++) {
        const size_t live = em_alloc_live();
        const size_t before = em_alloc_count();
        em_alloc_fail_at(k, 0);
        ember_status status = em_write_file(path, "x", 1);
        char **names = NULL;
        size_t count = 0;
        if (status == EMBER_OK) status = em_list_directory(root, &names, &count);
        if (status == EMBER_OK) em_names_free(names, count);
        if (status == EMBER_OK) status = em_make_directories(test_path(root, "d"));
        if (status == EMBER_OK) status = em_remove_tree(root);
        if (status == EMBER_OK) status = em_make_directories(root);
        const bool struck = em_alloc_count() - before >= k;
        em_alloc_fail_at(0, 0);
        assert_int_equal(em_alloc_live(), live);
        if (!struck) {
            CHECK_OK(status);
            assert_true(k > 8);
            break;
        }
        assert_int_equal(status, EMBER_E_NOMEM);
        CHECK_OK(em_make_directories(root));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_written_and_read),
        cmocka_unit_test(what_cannot_be_read_is_named),
        cmocka_unit_test(files_are_mapped),
        cmocka_unit_test(a_file_is_gathered_from_pieces),
        cmocka_unit_test(an_aborted_file_leaves_the_old_one),
        cmocka_unit_test(a_private_file_stays_private),
        cmocka_unit_test(any_failing_call_leaves_the_old_file),
        cmocka_unit_test(short_and_interrupted_calls_are_completed),
        cmocka_unit_test(after_a_power_cut_a_file_is_old_or_new),
        cmocka_unit_test(what_is_not_fsynced_is_forgotten),
        cmocka_unit_test(directories_are_made_and_survive_a_power_cut),
        cmocka_unit_test(trees_are_removed_without_following_links),
        cmocka_unit_test(names_come_sorted),
        cmocka_unit_test(lines_are_appended_and_taken_back),
        cmocka_unit_test(one_run_holds_a_directory),
        cmocka_unit_test(a_killed_holder_is_no_obstacle),
        cmocka_unit_test(free_space_is_told),
        cmocka_unit_test(paths_are_joined_and_split),
        cmocka_unit_test(without_memory_nothing_is_left_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
