// labels: unit slow
// timeout: 1800
// Data that are not what they should be: told with file, line and reason, or trained on with a line
// that says what was left out; and never a run that ends well without a token.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#ifdef EMBER_HAVE_ZLIB
#include <zlib.h>
#endif
#ifdef EMBER_HAVE_ZSTD
#include <zstd.h>
#endif

#include <ember/infer.h>
#include <ember/tokenizer.h>
#include <ember/train.h>

#include "data/documents.h"
#include "faults/fixture.h"
#include "support/full.h"

static const char *dir, *model, *recipe, *ids_recipe;
static size_t cases;
static char notes[1 << 14];

static void note(void *context, enum em_log_level level, const char *line)
{
    (void)context, (void)level;
    const size_t at = strlen(notes);
    snprintf(notes + at, sizeof notes - at, "%s\n", line);
}

static ember_status train(const char *const *data, size_t n, const char *const *set, size_t n_set,
                          char **json)
{
    static unsigned number;
    char name[32];
    ember_train_result result = {0};
    snprintf(name, sizeof name, "out-%u", number++);
    const char *out = test_path(dir, name);
    *notes = 0;
    const ember_status status =
        ember_train(&(ember_train_options){.runtime = {.threads = 1},
                                           .recipe = data ? recipe : ids_recipe,
                                           .data = data,
                                           .n_data = n,
                                           .set = set,
                                           .n_set = n_set,
                                           .out = out},
                    &result);
    if (status == EMBER_OK) {
        *json = result.json;
        result.json = NULL;
    } else if (em_path_exists(test_path(out, "model.safetensors"))) {
        fail_msg("%s: refused, and there is a model", data ? data[0] : "ids");
    }
    ember_train_result_deinit(&result);
    CHECK_OK(em_remove_tree(out));
    return status;
}

// `says` is in the message, or of a run that ends well in what was noted. NULL: nothing special.
static void check(const char *what, ember_status found, ember_status expected, const char *json,
                  const char *says)
{
    const char *text = found == EMBER_OK ? notes : ember_last_error();
    if (found != expected || (says && !strstr(text, says)))
        fail_msg("%s: %s \"%s\", expected %s \"%s\"", what, ember_status_name(found), text,
                 ember_status_name(expected), says ? says : "");
    if (found != EMBER_OK && strchr(text, '\n')) fail_msg("%s: more than a line: %s", what, text);
    if (found == EMBER_OK) {
        const char *tokens = strstr(json, "\"tokens\": ");
        if (!tokens || strtoull(tokens + 10, NULL, 10) == 0)
            fail_msg("%s: trained on nothing: %s", what, json);
    }
    cases++;
}

static void expect_set(const char *path, const char *set, ember_status status, const char *says)
{
    char *json = NULL;
    const ember_status found = train(&path, path != NULL, &set, set != NULL, &json);
    check(path ? path : set, found, status, json, says);
    em_free(json);
}

static void expect(const char *path, ember_status status, const char *says)
{
    expect_set(path, NULL, status, says);
}

static const char *put(const char *name, const void *bytes, size_t n)
{
    const char *path = test_path(dir, name);
    CHECK_OK(em_write_file(path, bytes, n));
    return path;
}

#define GOOD "the state of a value follows what tokens say\n"
#define LINE(text) "{\"text\": \"" text "\"}\n"
#define BYTES(text) text, sizeof(text) - 1

struct content {
    const char *name, *bytes;
    size_t n;
    ember_status status;
    const char *says;
};

static void each(const struct content *c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        expect(put(c[i].name, c[i].bytes, c[i].n), c[i].status, c[i].says);
}

static void texts(void **state)
{
    (void)state;
    static const struct content files[] = {
        {"empty.txt", BYTES(""), EMBER_E_FORMAT, "empty.txt: no document to train on"},
        {"blank.txt", BYTES(" \n\t\r\n  \n"), EMBER_E_FORMAT, "1 empty documents"},
        {"bom.txt", BYTES("\xef\xbb\xbf"), EMBER_E_FORMAT, "bom.txt: no document"},
        {"bom-text.txt", BYTES("\xef\xbb\xbf" GOOD), EMBER_OK, NULL},
        {"crlf.txt", BYTES("one line\r\nand another one\r\n"), EMBER_OK, NULL},
        {"cr.txt", BYTES("one line\rand another one\r"), EMBER_OK, NULL},
        {"no-end.txt", BYTES("words without a newline"), EMBER_OK, NULL},
        {"latin1.txt", BYTES("caf\xe9 cr\xe8me na\xefve text of some length"), EMBER_OK,
         "1 documents with bytes that are no UTF-8"},
        {"overlong.txt", BYTES("words \xc0\xaf and \xed\xa0\x80 more words here"), EMBER_OK,
         "no UTF-8"},
        {"cut-character.txt", BYTES("words that end in \xe2\x82"), EMBER_OK, "no UTF-8"},
        {"nul.txt", BYTES("words\0and more words"), EMBER_E_FORMAT,
         "nul.txt: expected text, found a binary file (byte 5)"},
        {"elf.txt",
         BYTES("\x7f"
               "ELF\2\1\1\0\0\0\0\0\0\0\0\0\2\0>\0"),
         EMBER_E_FORMAT, "found a binary file"},
        {"png.txt", BYTES("\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), EMBER_E_FORMAT, "found a binary file"},
        {"control.txt", BYTES("\1\2\3\4\5\6\7\x0e\x0f\x10 words \x11\x12\x13\x14"), EMBER_E_FORMAT,
         "found a binary file"},
        {"utf16le.txt", BYTES("\xff\xfew\0o\0r\0d\0s\0"), EMBER_E_FORMAT, "found UTF-16"},
        {"utf16be.txt", BYTES("\xfe\xff\0w\0o\0r\0d\0s"), EMBER_E_FORMAT, "found UTF-16"},
        {"utf32.txt", BYTES("\xff\xfe\0\0w\0\0\0o\0\0\0"), EMBER_E_FORMAT, "UTF-8 first"},
        {"special.txt", BYTES("<|endoftext|><|endoftext|>words<|pad|>"), EMBER_OK, NULL},
        {"xz.txt",
         BYTES("\xfd"
               "7zXZ\0\0\4"),
         EMBER_E_UNSUPPORTED, "compressed with xz"},
        {"bzip2.txt", BYTES("BZh91AY&SY"), EMBER_E_UNSUPPORTED, "compressed with bzip2"},
        {"zip.txt", BYTES("PK\3\4\24\0\0\0\10\0"), EMBER_E_FORMAT, "found a binary file"},
        {"pickle.txt", BYTES("\x80\2}q\0(X\5\0\0\0modelq\1"), EMBER_E_FORMAT, "a binary file"},
    };
    each(files, sizeof files / sizeof *files);
}

// Shorter than anything: a byte has a target (the end token), but it may not be held out.
static void short_texts(void **state)
{
    (void)state;
    static const struct content files[] = {
        {"one.txt", BYTES("a"), EMBER_OK, "too little text to hold some of it out"},
        {"two.txt", BYTES("ab"), EMBER_OK, "too little text to hold some of it out"},
        {"short.jsonl", BYTES(LINE("a") LINE("b") LINE("c")), EMBER_OK, NULL},
        {"same.jsonl",
         BYTES(LINE("the same words") LINE("the same words") LINE("the same words")
                   LINE("the same words") LINE("the same words") LINE("the same words")),
         EMBER_OK, NULL},
    };
    each(files, sizeof files / sizeof *files);
    expect_set(put("most.txt", BYTES(GOOD)), "data.held_out=0.9", EMBER_OK, NULL);
    expect_set(put("all.txt", BYTES(GOOD)), "data.held_out=1", EMBER_E_CONFIG, "held_out");
    expect_set(put("none.txt", BYTES(GOOD)), "data.held_out=0", EMBER_OK, NULL);
    expect_set(put("no-eos.txt", "a", 1), "data.eos=false", EMBER_OK, "too little text");
}

static void json_lines(void **state)
{
    (void)state;
    static const struct content files[] = {
        {"empty.jsonl", BYTES(""), EMBER_E_FORMAT, "empty.jsonl: no document"},
        {"newlines.jsonl", BYTES("\n\n\r\n\n"), EMBER_E_FORMAT, "newlines.jsonl: no document"},
        {"arrays.jsonl", BYTES("[\"words\"]\n[]\n"), EMBER_E_FORMAT, "none of its 2 lines"},
        {"plain.jsonl", BYTES("words\nmore words\n"), EMBER_E_FORMAT, "none of its 2 lines"},
        {"no-text.jsonl", BYTES("{\"body\": \"words\"}\n"), EMBER_E_FORMAT,
         "is an object with a string \"text\""},
        {"number.jsonl", BYTES("{\"text\": 3}\n"), EMBER_E_FORMAT, "none of its 1 lines"},
        {"null.jsonl", BYTES("{\"text\": null}\n"), EMBER_E_FORMAT, "none of its 1 lines"},
        {"no-words.jsonl", BYTES(LINE("") LINE("  ")), EMBER_E_FORMAT, "2 empty documents"},
        {"half.jsonl", BYTES(LINE("words of a document") "{\"text\": \n" LINE("more of them")),
         EMBER_OK, "half.jsonl:2:"},
        {"last.jsonl", BYTES(LINE("words of a document") "{\"text\": \"wor"), EMBER_OK,
         "last.jsonl:2:"},
        {"twice.jsonl", BYTES(LINE("words of it") "{\"text\": \"a\", \"text\": \"b\"}\n"), EMBER_OK,
         "twice.jsonl:2:"},
        {"huge.jsonl", BYTES(LINE("words of it") "{\"text\": \"a\", \"n\": 1e999}\n"), EMBER_OK,
         "huge.jsonl:2:"},
        {"surrogate.jsonl", BYTES(LINE("words of it") "{\"text\": \"\\ud800 words\"}\n"), EMBER_OK,
         "surrogate.jsonl:2:"},
        {"escape.jsonl", BYTES(LINE("words of it") "{\"text\": \"\\q words\"}\n"), EMBER_OK,
         "escape.jsonl:2:"},
        {"latin1.jsonl", BYTES(LINE("words of it") "{\"text\": \"caf\xe9\"}\n"), EMBER_OK,
         "latin1.jsonl:2:"},
        {"nul.jsonl", BYTES(LINE("a \\u0000 in the words") LINE("and more")), EMBER_OK, NULL},
        {"bom.jsonl", BYTES("\xef\xbb\xbf" LINE("words of a document")), EMBER_OK, NULL},
        {"crlf.jsonl", BYTES("{\"text\": \"words of a line\"}\r\n\r\n"), EMBER_OK, NULL},
        {"python.jsonl", BYTES("{'text': 'words'}\n"), EMBER_E_FORMAT, "none of its 1 lines"},
        {"comma.jsonl", BYTES(LINE("words of it") "{\"text\": \"words\",}\n"), EMBER_OK,
         "comma.jsonl:2:"},
        {"comment.jsonl", BYTES("// words\n" LINE("words of it")), EMBER_OK, "comment.jsonl:1:"},
        {"joined.jsonl", BYTES(LINE("words of it") "{\"text\": \"a\"}{\"text\": \"b\"}\n"),
         EMBER_OK, "joined.jsonl:2:"},
        {"control.jsonl", BYTES(LINE("words of it") "{\"text\": \"a\tb\"}\n"), EMBER_OK,
         "control.jsonl:2:"},
        {"list.json", BYTES("[{\"text\": \"words\"}]"), EMBER_E_FORMAT, "a JSON array"},
        {"pretty.json", BYTES("{\n  \"text\": \"words and more of them\"\n}\n"), EMBER_OK,
         "1 .json files read as plain text"},
        {"lines.ndjson", BYTES(LINE("words of a document")), EMBER_OK, NULL},
    };
    each(files, sizeof files / sizeof *files);
    struct em_buf deep = {0};
    CHECK_OK(em_buf_puts(&deep, LINE("words of a document") "{\"text\": \"a\", \"deep\": "));
    for (int i = 0; i < 3000; i++)
        CHECK_OK(em_buf_putc(&deep, '['));
    expect(put("deep.jsonl", deep.data, deep.size), EMBER_OK, "deep.jsonl:2:");
    em_buf_deinit(&deep);
    expect_set(put("key.jsonl", BYTES("{\"body\": \"words of a document\"}\n")),
               "data.text_key=body", EMBER_OK, NULL);
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

static void compressed(void **state)
{
    (void)state;
    char text[4000];
    unsigned char g[8000], z[8000], twice[9000];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = "the state of a value "[i * i % 21];
    const size_t n = gzip(text, sizeof text, g, sizeof g);
    const size_t m = ZSTD_compress(z, sizeof z, text, sizeof text, 3);
    expect(put("good.txt.gz", g, n), EMBER_OK, NULL);
    expect(put("good.txt.zst", z, m), EMBER_OK, NULL);
    expect(put("no-ending", g, n), EMBER_OK, NULL);
    expect(put("plain.txt.gz", BYTES(GOOD)), EMBER_OK, NULL);
    expect(put("empty.gz", "", 0), EMBER_E_FORMAT, "no document to train on");
    expect(put("head.gz", g, 10), EMBER_E_FORMAT, "head.gz: the compressed data end too early");
    expect(put("cut.gz", g, n / 2), EMBER_E_FORMAT, "cut.gz: the compressed data end too early");
    expect(put("sum.gz", g, n - 3), EMBER_E_FORMAT, "sum.gz: the compressed data end too early");
    expect(put("cut.zst", z, m / 2), EMBER_E_FORMAT, "cut.zst: the compressed data end too early");
    expect(put("head.zst", z, 4), EMBER_E_FORMAT, "head.zst: the compressed data end too early");
    g[n / 2] ^= 0x55;
    expect(put("bent.gz", g, n), EMBER_E_FORMAT, "bent.gz: damaged gzip data");
    g[n / 2] ^= 0x55;
    g[n - 6] ^= 1;
    expect(put("checksum.gz", g, n), EMBER_E_FORMAT, "checksum.gz: damaged gzip data");
    g[n - 6] ^= 1;
    memcpy(twice, g, n);
    memcpy(twice + n, "garbage behind it", 17);
    expect(put("garbage.gz", twice, n + 17), EMBER_E_FORMAT, "garbage.gz: damaged gzip data");
    expect(put("nested.gz", twice, gzip(g, n, twice, sizeof twice)), EMBER_E_FORMAT,
           "found a binary file");
    expect(put("nothing.gz", twice, gzip("", 0, twice, sizeof twice)), EMBER_E_FORMAT,
           "nothing.gz: no document");
    // A frame that asks for a window of 2 GiB.
    expect(put("window.zst", BYTES("\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00")), EMBER_E_FORMAT,
           "window.zst: damaged zstd data");
    expect(put("reserved.zst", BYTES("\x28\xb5\x2f\xfd\xff\xff\xff\xff\xff\xff\xff")),
           EMBER_E_FORMAT, "reserved.zst: ");
}

// `before`, then n times 'a', then `after`, compressed into a file.
static const char *put_bomb(const char *name, const char *before, size_t n, const char *after)
{
    static char same[1 << 20];
    const char *path = test_path(dir, name);
    gzFile f = gzopen(path, "wb9");
    assert_non_null(f);
    memset(same, 'a', sizeof same);
    assert_int_equal(gzputs(f, before), (int)strlen(before));
    for (size_t done = 0; done < n; done += sizeof same)
        assert_int_equal(gzwrite(f, same, sizeof same), (int)sizeof same);
    assert_int_equal(gzputs(f, after), (int)strlen(after));
    assert_int_equal(gzclose(f), Z_OK);
    return path;
}

// Documents, and how much memory it took to read them.
static size_t read_file(const char *path, ember_status expected, const char *says, size_t *most)
{
    char *paths[] = {(char *)(uintptr_t)path};
    struct em_documents *d;
    struct em_document one;
    size_t n = 0;
    bool more = true;
    const size_t before = em_alloc_live();
    *notes = 0;
    *most = 0;
    CHECK_OK(em_documents_open(paths, 1, NULL, true, &d));
    ember_status status = EMBER_OK;
    while (status == EMBER_OK && more) {
        status = em_documents_next(d, &one, &more);
        n += status == EMBER_OK && more;
        if (em_alloc_live() - before > *most) *most = em_alloc_live() - before;
    }
    em_documents_close(d);
    if (status != expected || (says && !strstr(*notes ? notes : ember_last_error(), says)))
        fail_msg("%s: %s \"%s\" \"%s\"", path, ember_status_name(status), ember_last_error(),
                 notes);
    cases++;
    return n;
}

// A text without a line to cut at is cut before its last character.
static size_t pieces(size_t n)
{
    return (n + EM_DOCUMENT_CUT - 2) / (EM_DOCUMENT_CUT - 1);
}

// A small file may hold a very long line: it is read in pieces that memory has room for.
static void bombs(void **state)
{
    (void)state;
    const size_t n = em_test_amount(72 << 20, 1 << 30), peak = em_alloc_peak();
    size_t most;
    assert_int_equal(read_file(put_bomb("bomb.txt.gz", "", n, ""), EMBER_OK, NULL, &most),
                     pieces(n));
    assert_true(most < 3 * (size_t)EM_DOCUMENT_CUT);
    const char *line =
        put_bomb("bomb.jsonl.gz", LINE("words") "{\"text\": \"", n, "\"}\n" LINE("more words"));
    assert_int_equal(read_file(line, EMBER_OK, "bomb.jsonl.gz:2: a line of ", &most), 2);
    assert_true(most < 3 * (size_t)EM_DOCUMENT_LONGEST);
    assert_int_equal(
        read_file(put_bomb("array.json.gz", "[", n, "]"), EMBER_E_FORMAT, "a JSON array", &most),
        0);
    assert_true(most < (size_t)EM_DOCUMENT_CUT);
    assert_true(em_alloc_peak() < peak + 4 * (size_t)EM_DOCUMENT_LONGEST);
}

static void long_lines(void **state)
{
    (void)state;
    const size_t n = em_test_amount(16 << 20, 1 << 30);
    size_t most;
    assert_int_equal(read_file(put_bomb("long.txt.gz", "", n, "\n"), EMBER_OK, NULL, &most),
                     pieces(n + 1));
    assert_true(most < 3 * (size_t)EM_DOCUMENT_CUT);
}
#endif

// ---- places ----

// A file that may not be read, also where the tests run as root.
static const char *locked;
static int (*system_open)(const char *path, int flags, mode_t mode);
static int open_unless_locked(const char *path, int flags, mode_t mode)
{
    if (locked && strcmp(path, locked) == 0) {
        errno = EACCES;
        return -1;
    }
    return system_open(path, flags, mode);
}

static const char *folder(const char *name)
{
    const char *path = test_path(dir, name);
    CHECK_OK(em_make_directories(path));
    return path;
}

static void places(void **state)
{
    (void)state;
    expect(test_path(dir, "missing.txt"), EMBER_E_IO, "missing.txt: cannot open");
    expect(test_path(put("file.txt", BYTES(GOOD)), "below"), EMBER_E_IO, "below: cannot open");
    expect(folder("nothing"), EMBER_E_FORMAT, "nothing: a folder without files to read");
    CHECK_OK(em_make_directories(test_path(folder("nested"), "a/b/c")));
    expect(folder("nested"), EMBER_E_FORMAT, "a folder without files to read");
    fixture_write(folder("hidden"), ".words.txt", GOOD);
    expect(folder("hidden"), EMBER_E_FORMAT, "1 hidden names");
    CHECK_OK(em_write_file(test_path(folder("binary"), "a.txt"), "a\0b", 3));
    expect(folder("binary"), EMBER_E_FORMAT, "no document to train on (0 files read");
    // A loop of links: they are passed over within folders, and followed where they are named.
    fixture_write(folder("loop"), "words.txt", GOOD);
    assert_int_equal(symlink(".", test_path(folder("loop"), "again")), 0);
    assert_int_equal(symlink("..", test_path(folder("loop"), "up")), 0);
    expect(folder("loop"), EMBER_OK, "2 symbolic links passed over");
    expect(test_path(folder("loop"), "again"), EMBER_OK, NULL);
    assert_int_equal(symlink("itself", test_path(dir, "itself")), 0);
    expect(test_path(dir, "itself"), EMBER_E_IO, "itself: cannot open");
    assert_int_equal(symlink("nowhere", test_path(dir, "dangling")), 0);
    expect(test_path(dir, "dangling"), EMBER_E_IO, "dangling: cannot open");
    assert_int_equal(mkfifo(test_path(dir, "pipe"), 0600), 0);
    expect(test_path(dir, "pipe"), EMBER_E_FORMAT, "found a device, pipe or socket");
    expect("/dev/null", EMBER_E_FORMAT, "found a device, pipe or socket");
    expect("/dev/zero", EMBER_E_FORMAT, "found a device, pipe or socket");
    fixture_write(folder("mixed"), "words.txt", GOOD);
    assert_int_equal(mkfifo(test_path(folder("mixed"), "pipe"), 0600), 0);
    expect(folder("mixed"), EMBER_OK, "1 devices, pipes or sockets passed over");
    expect(test_path(dir, "*.nothing"), EMBER_E_FORMAT, "no file matches");
    expect("", EMBER_E_CONFIG, "path is needed");
    expect(test_path(dir, "caf\xe9.txt"), EMBER_E_CONFIG, "valid UTF-8");
    locked = put("locked.txt", BYTES(GOOD));
    expect(locked, EMBER_E_IO, "locked.txt: cannot open: Permission denied");
    fixture_write(folder("partly"), "words.txt", GOOD);
    locked = fixture_write(folder("partly"), "x.txt", GOOD);
    expect(folder("partly"), EMBER_E_IO, "x.txt: cannot open: Permission denied");
    locked = NULL;
    char deep[512] = "deep";
    for (int i = 0; i < 70; i++)
        strcat(deep, "/d");
    fixture_write(folder(deep), "words.txt", GOOD);
    expect(test_path(dir, "deep"), EMBER_E_RANGE, "folders nest deeper than 64");
}

static void several_sources(void **state)
{
    (void)state;
    const char *good = put("good.txt", BYTES(GOOD GOOD GOOD)), *empty = put("e.txt", "", 0);
    char *json = NULL;
    const char *const pairs[][2] = {{good, good}, {good, empty}, {empty, good}};
    for (size_t i = 0; i < 3; i++) {
        const ember_status status = train(pairs[i], 2, NULL, 0, &json);
        check("two sources", status, i ? EMBER_E_FORMAT : EMBER_OK, json,
              i ? "e.txt: no document to train on" : NULL);
        em_free(json);
        json = NULL;
    }
}

// ---- the same files where nothing is trained ----

static void other_readers(void **state)
{
    (void)state;
    static const struct {
        const char *name, *bytes;
        size_t n;
        ember_status status;
        const char *says;
    } files[] = {
        {"r-empty.txt", BYTES(""), EMBER_E_FORMAT, "r-empty.txt"},
        {"r-nul.txt", BYTES("a\0b"), EMBER_E_FORMAT, "r-nul.txt"},
        {"r-plain.jsonl", BYTES("words\n"), EMBER_E_FORMAT, "r-plain.jsonl"},
    };
    ember_model *m;
    ember_tokenizer *t;
    ember_evaluation score;
    const ember_model_options one = {.runtime = {.threads = 1}};
    CHECK_OK(ember_model_open(model, &one, &m));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *path = put(files[i].name, files[i].bytes, files[i].n);
        check("eval", ember_eval(m, &path, 1, NULL, &score), files[i].status, NULL, files[i].says);
        check("tokenizer train",
              ember_tokenizer_train(&path, 1, &(ember_tokenizer_training){.threads = 1}, &t, NULL),
              files[i].status, NULL, files[i].says);
    }
    ember_model_close(m);
}

// ---- ids ----

static const char *put_ids(const char *name, enum em_st_dtype dtype, const size_t *shape,
                           size_t rank, const void *data)
{
    const char *path = test_path(dir, "ids.safetensors");
    const struct em_st_output tensor = {
        .name = name, .shape = shape, .rank = rank, .dtype = dtype, .data = data};
    CHECK_OK(em_safetensors_write(path, &(struct em_st_write){.tensors = &tensor, .count = 1}));
    return path;
}

static void expect_ids(const char *path, const char *more, ember_status status, const char *says)
{
    char set[1200], *json = NULL;
    snprintf(set, sizeof set, "data.ids=%s", path);
    const char *const sets[] = {set, more};
    const ember_status found = train(NULL, 0, sets, more ? 2 : 1, &json);
    check(more ? more : says ? says : "ids", found, status, json, says);
    em_free(json);
}

static void ids_of_batches(void **state)
{
    (void)state;
    static const int64_t wide[64], negative[64] = {[9] = -1}, huge[64] = {[33] = 1LL << 40};
    static const int32_t narrow[64], past[64] = {[63] = 259}, minus[64] = {[0] = -100};
    static const size_t s222[] = {2, 4, 8}, none[] = {0, 4, 8}, no_rows[] = {2, 0, 8},
                        no_places[] = {2, 4, 0}, one_place[] = {8, 8, 1}, flat[] = {8, 8},
                        rank4[] = {1, 2, 4, 8};
    const struct {
        const char *name;
        enum em_st_dtype dtype;
        const size_t *shape;
        size_t rank;
        const void *data;
        ember_status status;
        const char *says;
    } files[] = {
        {"input_ids", EM_ST_I32, s222, 3, narrow, EMBER_OK, NULL},
        {"input_ids", EM_ST_I64, s222, 3, wide, EMBER_OK, NULL},
        {"input_ids", EM_ST_F32, s222, 3, narrow, EMBER_E_FORMAT, "found F32"},
        {"input_ids", EM_ST_U8, s222, 3, narrow, EMBER_E_FORMAT, "found U8"},
        {"input_ids", EM_ST_I16, s222, 3, narrow, EMBER_E_FORMAT, "found I16"},
        {"input_ids", EM_ST_U32, s222, 3, narrow, EMBER_E_FORMAT, "found U32"},
        {"input_ids", EM_ST_U64, s222, 3, wide, EMBER_E_FORMAT, "found U64"},
        {"input_ids", EM_ST_I32, flat, 2, narrow, EMBER_E_FORMAT, "found I32 [8, 8]"},
        {"input_ids", EM_ST_I32, rank4, 4, narrow, EMBER_E_FORMAT, "found I32 [1, 2, 4, 8]"},
        {"input_ids", EM_ST_I32, none, 3, narrow, EMBER_E_FORMAT, "found I32 [0, 4, 8]"},
        {"input_ids", EM_ST_I32, no_rows, 3, narrow, EMBER_E_FORMAT, "found I32 [2, 0, 8]"},
        {"input_ids", EM_ST_I32, no_places, 3, narrow, EMBER_E_FORMAT, "found I32 [2, 4, 0]"},
        {"input_ids", EM_ST_I32, one_place, 3, narrow, EMBER_E_FORMAT, "tokens >= 2"},
        {"input_ids", EM_ST_I64, s222, 3, negative, EMBER_E_RANGE, "step 0 has the token -1"},
        {"input_ids", EM_ST_I64, s222, 3, huge, EMBER_E_RANGE, "step 1 has the token 1099511"},
        {"input_ids", EM_ST_I32, s222, 3, past, EMBER_E_RANGE, "step 1 has the token 259"},
        {"input_ids", EM_ST_I32, s222, 3, minus, EMBER_E_RANGE, "step 0 has the token -100"},
        {"labels", EM_ST_I32, s222, 3, narrow, EMBER_E_FORMAT, "expected a tensor input_ids"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        expect_ids(
            put_ids(files[i].name, files[i].dtype, files[i].shape, files[i].rank, files[i].data),
            NULL, files[i].status, files[i].says);
    const char *good = put_ids("input_ids", EM_ST_I32, s222, 3, narrow);
    expect_ids(good, "train.steps=3", EMBER_E_CONFIG, "has batches for 2");
    expect_ids(good, "train.batch=3", EMBER_E_CONFIG, "train.batch is 3");
    expect_ids(good, "train.seq=9", EMBER_E_CONFIG, "train.seq is 9");
    expect_ids(good, "train.accumulate=5", EMBER_E_CONFIG, "a batch has 4 rows");
    expect_ids(test_path(dir, "no-ids"), NULL, EMBER_E_IO, "no-ids: cannot open");
    expect_ids(put("none.ids", "", 0), NULL, EMBER_E_FORMAT, "none.ids: ");
    expect_ids(put("text.ids", BYTES(GOOD)), NULL, EMBER_E_FORMAT, "text.ids: ");
    expect_ids(folder("ids-folder"), NULL, EMBER_E_IO, "ids-folder");
    struct em_buf b = {0};
    CHECK_OK(em_read_file(good, 0, &b));
    expect_ids(put("cut.ids", b.data, b.size - 5), NULL, EMBER_E_FORMAT, "cut.ids: ");
    em_buf_deinit(&b);
}

static void enough_was_tried(void **state)
{
    (void)state;
    print_message("%zu cases\n", cases);
    assert_true(cases >= 100);
}

static int start(void **state)
{
    static struct em_io io;
    if (fixture_quietly(state)) return -1;
    io = *em_io();
    system_open = io.open;
    io.open = open_unless_locked;
    em_io_use(&io);
    em_log_to(note, NULL);
    dir = test_directory();
    model = fixture_folder(dir, "model");
    recipe = fixture_write(dir, "recipe.json",
                           "{\"model\": " FIXTURE_CONFIG ", \"data\": {\"tokenizer\": \"bytes\"},"
                           " \"train\": {\"steps\": 2, \"batch\": 2, \"seq\": 8,"
                           " \"final_eval_tokens\": 32, \"eval_tokens\": 32}}");
    ids_recipe = fixture_write(dir, "ids.json", "{\"model\": " FIXTURE_CONFIG "}");
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#if defined(EMBER_HAVE_ZLIB) && defined(EMBER_HAVE_ZSTD)
        cmocka_unit_test(bombs),
        cmocka_unit_test(long_lines),
        cmocka_unit_test(compressed),
#endif
        cmocka_unit_test(texts),
        cmocka_unit_test(short_texts),
        cmocka_unit_test(json_lines),
        cmocka_unit_test(places),
        cmocka_unit_test(several_sources),
        cmocka_unit_test(other_readers),
        cmocka_unit_test(ids_of_batches),
        cmocka_unit_test(enough_was_tried),
    };
    return cmocka_run_group_tests_name("faults/data", tests, start, NULL);
}
