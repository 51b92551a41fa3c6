#include "data/documents.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef EMBER_HAVE_ZLIB
#include <zlib.h>
#endif
#ifdef EMBER_HAVE_ZSTD
#include <zstd.h>
#endif

#include "base/alloc.h"
#include "data/corpus.h"
#include "data/files.h"
#include "data/stream.h"
#include "support/fault_io.h"

// Every document of a path, each followed by '|', or the status.
static char got[1 << 16];
static struct em_document_stats stats;

static ember_status read_all(const char *path, const struct em_document_options *options)
{
    struct em_file_list files = {0};
    struct em_documents *d = NULL;
    size_t at = 0;
    *got = '\0';
    ember_status status = em_files_expand(path, &files);
    if (status == EMBER_OK)
        status = em_documents_open(files.paths, files.count, options, files.count == 1, &d);
    for (bool more = true; status == EMBER_OK && more;) {
        struct em_document doc;
        status = em_documents_next(d, &doc, &more);
        if (status != EMBER_OK || !more) break;
        at += (size_t)snprintf(got + at, sizeof got - at, "%.*s|",
                               doc.size < 200 ? (int)doc.size : 200, doc.text);
    }
    if (d) stats = *em_documents_stats(d);
    em_documents_close(d);
    em_file_list_deinit(&files);
    return status;
}

static void gives(const char *path, const char *expected)
{
    CHECK_OK(read_all(path, NULL));
    assert_string_equal(got, expected);
}

static void a_text_file_is_a_document(void **state)
{
    (void)state;
    const char *dir = test_directory();
    gives(put_text(dir, "a.txt", "two\r\nlines\n"), "two\r\nlines\n|");
    assert_int_equal(stats.bytes, 11);
    gives(put_text(dir, "bom.txt", "\xef\xbb\xbfmark"), "mark|");
    gives(put_text(dir, "latin.txt", "caf\xe9"), "caf\xe9|");
    assert_int_equal(stats.invalid_utf8, 1);
    gives(put_text(dir, "empty.txt", ""), "");
    assert_int_equal(stats.empty, 1);
    gives(put_text(dir, "blank.txt", " \n\t \n"), "");
    assert_int_equal(stats.empty, 1);
}

static void lines_can_be_documents(void **state)
{
    (void)state;
    const char *path = put_text(test_directory(), "a.txt", "one\r\n\ntwo\nthree");
    CHECK_OK(read_all(path, &(struct em_document_options){.format = EM_DATA_LINES}));
    assert_string_equal(got, "one|two|three|");
    assert_int_equal(stats.empty, 1);
}

static void json_lines_are_documents(void **state)
{
    (void)state;
    const char *dir = test_directory();
    gives(put_text(dir, "a.jsonl",
                   "\xef\xbb\xbf{\"text\":\"one\"}\r\n\n{\"id\":3,\"text\":\"t\\u0077o\\n\"}\n{"
                   "\"text\":\"three\"}"),
          "one|two\n|three|");
    assert_int_equal(stats.documents, 3);
    const char *path = put_text(dir, "b.ndjson", "{\"content\":\"x\",\"text\":\"y\"}\n");
    CHECK_OK(read_all(path, &(struct em_document_options){.text_key = "content"}));
    assert_string_equal(got, "x|");
    CHECK_OK(read_all(path, &(struct em_document_options){.format = EM_DATA_TEXT}));
    assert_string_equal(got, "{\"content\":\"x\",\"text\":\"y\"}\n|");
}

static void a_json_file_is_lines_or_text(void **state)
{
    (void)state;
    const char *dir = test_directory();
    gives(put_text(dir, "lines.json", " {\"text\":\"one\"}\n{\"text\":\"two\"}\n"), "one|two|");
    assert_int_equal(stats.json_as_text, 0);
    gives(put_text(dir, "config.json", "{\n  \"text\": 1\n}\n"), "{\n  \"text\": 1\n}\n|");
    assert_int_equal(stats.json_as_text, 1);
    gives(put_text(dir, "other.json", "{\"a\":1}"), "{\"a\":1}|");
    CHECK_FAILS(read_all(put_text(dir, "array.json", " [{\"text\":\"one\"}]"), NULL),
                EMBER_E_FORMAT, "one object per line");
}

static void lines_that_cannot_be_used_are_told_with_their_place(void **state)
{
    (void)state;
    const char *dir = test_directory();
    gives(put_text(dir, "a.jsonl",
                   "{\"text\":\"one\"}\n{\"text\":1}\n{\"text\":\"two\"\n[\"x\"]\nnot "
                   "json\n{\"text\":\"\"}\n{\"text\":\"\xff\"}\n{\"text\":\"last\"}\n"),
          "one|last|");
    assert_int_equal(stats.dropped, 5);
    assert_int_equal(stats.empty, 1);
    assert_non_null(strstr(notes, "a.jsonl:2: expected an object with a string \"text\""));
    assert_non_null(strstr(notes, "a.jsonl:3:"));
    assert_non_null(
        strstr(notes, "a.jsonl:4: expected an object with a string \"text\", found an array"));
    assert_non_null(strstr(notes, "a.jsonl:5:1:"));
    assert_non_null(strstr(notes, "a.jsonl:7:"));
    assert_non_null(strstr(notes, "only counted"));
    CHECK_FAILS(read_all(put_text(dir, "b.jsonl", "{\"txt\":\"a\"}\n{\"txt\":\"b\"}\n"), NULL),
                EMBER_E_FORMAT, "none of its 2 lines");
}

static void very_long_lines_and_files_are_read(void **state)
{
    (void)state;
    const char *dir = test_directory();
    const size_t n = 3 << 20;
    char *text = em_alloc(n + 64);
    memset(text, 'x', n + 64);
    memcpy(text, "{\"text\":\"", 9);
    memcpy(text + n, "\"}\n{\"text\":\"y\"}", 15);
    CHECK_OK(read_all(put_bytes(dir, "long.jsonl", text, n + 15), NULL));
    assert_int_equal(stats.documents, 2);
    assert_int_equal(stats.bytes, n - 9 + 1);
    em_free(text);
    // A text file past the limit is cut after an empty line, and no byte is lost.
    const size_t big = EM_DOCUMENT_CUT + 5000;
    text = em_alloc(big);
    memset(text, 'a', big);
    memcpy(text + EM_DOCUMENT_CUT - 1000, "\n\n", 2);
    memcpy(text + EM_DOCUMENT_CUT - 100, "\n", 1);
    const char *path = put_bytes(dir, "big.txt", text, big);
    CHECK_OK(read_all(path, NULL));
    assert_int_equal(stats.documents, 2);
    assert_int_equal(stats.bytes, big);
    assert_int_equal(stats.cut, 1);
    em_free(text);
}

static void binary_files_are_refused_or_passed_over(void **state)
{
    (void)state;
    const char *dir = test_directory();
    put_bytes(dir, "model.bin", "PK\3\4\0\0\0", 7);
    put_bytes(dir, "wide.txt", "\xff\xfeh\0i\0", 6);
    put_text(dir, "real.txt", "text");
    gives(dir, "text|");
    assert_int_equal(stats.binary_files, 2);
    assert_non_null(strstr(notes, "model.bin: passed over: a binary file"));
    assert_non_null(strstr(notes, "UTF-16"));
    CHECK_FAILS(read_all(test_path(dir, "model.bin"), NULL), EMBER_E_FORMAT, "binary");
    CHECK_FAILS(read_all(test_path(dir, "wide.txt"), NULL), EMBER_E_FORMAT, "convert it to UTF-8");
    char controls[100];
    memset(controls, 1, sizeof controls);
    CHECK_FAILS(read_all(put_bytes(dir, "odd", controls, sizeof controls), NULL), EMBER_E_FORMAT,
                "binary");
}

static void folders_are_read_sorted_and_without_their_links(void **state)
{
    (void)state;
    const char *dir = test_directory();
    CHECK_OK(em_make_directories(test_path(dir, "d/b/c")));
    put_text(dir, "secret", "secret");
    put_text(dir, "d/z.txt", "z");
    put_text(dir, "d/b/c/2.txt", "2");
    put_text(dir, "d/b/c/10.txt", "10");
    put_text(dir, "d/a.txt", "a");
    put_text(dir, "d/.hidden", "h");
    assert_int_equal(symlink("../secret", test_path(dir, "d/link")), 0);
    assert_int_equal(symlink("..", test_path(dir, "d/b/loop")), 0);
    assert_int_equal(mkfifo(test_path(dir, "d/pipe"), 0600), 0);
    gives(test_path(dir, "d"), "a|10|2|z|");
    struct em_file_list files = {0};
    CHECK_OK(em_files_expand(test_path(dir, "d/"), &files));
    assert_int_equal(files.count, 4);
    assert_int_equal(files.links, 2);
    assert_int_equal(files.hidden, 1);
    assert_int_equal(files.special, 1);
    em_file_list_deinit(&files);
    // A link that the user names is followed.
    gives(test_path(dir, "d/link"), "secret|");
    CHECK_OK(em_make_directories(test_path(dir, "none")));
    CHECK_FAILS(read_all(test_path(dir, "none"), NULL), EMBER_E_FORMAT, "without files");
    CHECK_FAILS(read_all(test_path(dir, "d/pipe"), NULL), EMBER_E_FORMAT, "device, pipe");
    CHECK_FAILS(read_all(test_path(dir, "nothing"), NULL), EMBER_E_IO, "nothing");
}

static void globs_are_matched_by_component(void **state)
{
    (void)state;
    const char *dir = test_directory();
    CHECK_OK(em_make_directories(test_path(dir, "x1/sub")));
    CHECK_OK(em_make_directories(test_path(dir, "x2")));
    put_text(dir, "x1/a.txt", "1a");
    put_text(dir, "x1/b.md", "1b");
    put_text(dir, "x1/sub/c.txt", "1c");
    put_text(dir, "x2/a.txt", "2a");
    put_text(dir, "x2/[odd].txt", "odd");
    gives(test_path(dir, "x?/*.txt"), "1a|odd|2a|");
    gives(test_path(dir, "x1/*"), "1a|1b|1c|");
    gives(test_path(dir, "x[2-9]/a.*"), "2a|");
    gives(test_path(dir, "x2/[odd].txt"), "odd|"); // it exists: no pattern
    CHECK_FAILS(read_all(test_path(dir, "y*/a"), NULL), EMBER_E_FORMAT, "no file matches");
    static const char *const names[][2] = {
        {"a/b.txt", "b.txt"}, {"b.txt", "b.txt"}, {"a/b/", "b"}, {"data/*.txt", "data"},
        {"/x/y?/*", "x"},     {"*.txt", "*.txt"}, {"/", "data"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *name = em_domain_name(names[i][0]);
        assert_string_equal(name, names[i][1]);
        em_free(name);
    }
}

#if defined(EMBER_HAVE_ZLIB) && defined(EMBER_HAVE_ZSTD)
static size_t gzip(const void *from, size_t n, unsigned char *to, size_t room)
{
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)(uintptr_t)from;
    z.avail_in = (unsigned)n;
    z.next_out = to;
    z.avail_out = (unsigned)room;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return room - z.avail_out;
}

static void compressed_files_are_read_as_what_they_hold(void **state)
{
    (void)state;
    const char *dir = test_directory();
    static const char lines[] = "{\"text\":\"one\"}\n{\"text\":\"two\"}\n";
    unsigned char packed[4096];
    size_t n = gzip(lines, strlen(lines), packed, sizeof packed);
    gives(put_bytes(dir, "a.jsonl.gz", packed, n), "one|two|");
    n += gzip(lines, strlen(lines), packed + n, sizeof packed - n); // a second member
    gives(put_bytes(dir, "b.jsonl.gz", packed, n), "one|two|one|two|");
    size_t z = ZSTD_compress(packed, sizeof packed, lines, strlen(lines), 3);
    gives(put_bytes(dir, "a.jsonl.zst", packed, z), "one|two|");
    z += ZSTD_compress(packed + z, sizeof packed - z, lines, strlen(lines), 3);
    gives(put_bytes(dir, "plain.txt.zst", packed, z),
          "{\"text\":\"one\"}\n{\"text\":\"two\"}\n{\"text\":\"one\"}\n{\"text\":\"two\"}\n|");
}

// Their memory is ours too: each allocation fails once, and that is not taken for damage.
static void decompressing_without_memory_is_a_status(void **state)
{
    (void)state;
    const char *dir = test_directory(), *path[2];
    static const char line[] = "{\"text\":\"one\"}\n";
    unsigned char packed[1024];
    path[0] = put_bytes(dir, "a.jsonl.gz", packed, gzip(line, strlen(line), packed, sizeof packed));
    path[1] = put_bytes(dir, "a.jsonl.zst", packed,
                        ZSTD_compress(packed, sizeof packed, line, strlen(line), 3));
    for (size_t f = 0; f < 2; f++) {
        ember_status status = EMBER_E_NOMEM;
        size_t k = 0;
        while (status != EMBER_OK) {
            const size_t live = em_alloc_live();
            em_alloc_fail_at(++k, 0);
            status = read_all(path[f], NULL);
            em_alloc_fail_at(0, 0);
            assert_int_equal(em_alloc_live(), live);
            if (status != EMBER_OK) assert_int_equal(status, EMBER_E_NOMEM);
            assert_true(k < 100);
        }
        assert_string_equal(got, "one|");
        assert_true(k > 8); // the decoder's own are among them
    }
}

static void damaged_compressed_files_are_refused(void **state)
{
    (void)state;
    const char *dir = test_directory();
    char text[20000];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)('a' + i * i % 23);
    unsigned char packed[40000];
    size_t sizes[2] = {gzip(text, sizeof text, packed, 20000)};
    sizes[1] = ZSTD_compress(packed + 20000, 20000, text, sizeof text, 3);
    for (size_t f = 0; f < 2; f++) {
        unsigned char *p = packed + f * 20000;
        for (size_t cut = 5; cut < sizes[f]; cut += sizes[f] / 17)
            CHECK_FAILS(read_all(put_bytes(dir, "cut", p, cut), NULL), EMBER_E_FORMAT, "cut: ");
        assert_non_null(strstr(ember_last_error(), "truncated"));
        p[sizes[f] / 2] ^= 0x55; // gzip has a checksum; a zstd frame's blocks hardly survive either
        const ember_status status = read_all(put_bytes(dir, "bent", p, sizes[f]), NULL);
        if (f == 0) assert_int_equal(status, EMBER_E_FORMAT);
        if (status != EMBER_OK) assert_non_null(strstr(ember_last_error(), "bent"));
    }
    CHECK_FAILS(read_all(put_bytes(dir, "a.xz",
                                   "\xfd"
                                   "7zXZ\0abcdef",
                                   12),
                         NULL),
                EMBER_E_UNSUPPORTED,
                "a.xz: compressed with xz, which this build cannot read: "
                "decompress it first, by `xz -d -k`");
    CHECK_FAILS(read_all(put_bytes(dir, "a.bz2", "BZh91AY&SY", 10), NULL), EMBER_E_UNSUPPORTED,
                "by `bzip2 -d -k`");
}
#endif

static void a_failing_disk_is_a_status(void **state)
{
    (void)state;
    const char *path =
        put_text(test_directory(), "a.jsonl", "{\"text\":\"one\"}\n{\"text\":\"two\"}\n");
    faults_begin(&(struct fault_plan){0});
    CHECK_OK(read_all(path, NULL));
    const size_t calls = faults_calls();
    faults_end();
    for (size_t k = 1; k <= calls; k++) {
        faults_begin(&(struct fault_plan){.fail_call = k, .error = EIO});
        const ember_status status = read_all(path, NULL);
        faults_end();
        if (status == EMBER_OK)
            assert_string_equal(got, "one|two|"); // a close that failed after reading
        else
            assert_non_null(strstr(ember_last_error(), "a.jsonl"));
    }
    faults_begin(&(struct fault_plan){.most_read = 3, .interrupt_every = 2});
    const ember_status status = read_all(path, NULL);
    faults_end();
    CHECK_OK(status);
    assert_string_equal(got, "one|two|");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_text_file_is_a_document, listen_to_notes),
        cmocka_unit_test_setup(lines_can_be_documents, listen_to_notes),
        cmocka_unit_test_setup(json_lines_are_documents, listen_to_notes),
        cmocka_unit_test_setup(a_json_file_is_lines_or_text, listen_to_notes),
        cmocka_unit_test_setup(lines_that_cannot_be_used_are_told_with_their_place,
                               listen_to_notes),
        cmocka_unit_test_setup(very_long_lines_and_files_are_read, listen_to_notes),
        cmocka_unit_test_setup(binary_files_are_refused_or_passed_over, listen_to_notes),
        cmocka_unit_test_setup(folders_are_read_sorted_and_without_their_links, listen_to_notes),
        cmocka_unit_test_setup(globs_are_matched_by_component, listen_to_notes),
#if defined(EMBER_HAVE_ZLIB) && defined(EMBER_HAVE_ZSTD)
        cmocka_unit_test_setup(compressed_files_are_read_as_what_they_hold, listen_to_notes),
        cmocka_unit_test_setup(decompressing_without_memory_is_a_status, listen_to_notes),
        cmocka_unit_test_setup(damaged_compressed_files_are_refused, listen_to_notes),
#endif
        cmocka_unit_test_setup(a_failing_disk_is_a_status, listen_to_notes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
