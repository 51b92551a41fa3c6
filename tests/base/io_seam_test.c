// Every file operation of the library goes through em_io: what calls the system by itself cannot be
// made to fail by a test, so nobody would know what it does when a disk is full.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "support/check.h"

static const char *const calls[] = {
    "access",          "chmod",     "chown",     "close",     "closedir", "copy_file_range",
    "creat",           "dup",       "dup2",      "fallocate", "fclose",   "fdatasync",
    "fdopen",          "fdopendir", "fflush",    "fgets",     "flock",    "fopen",
    "fprintf",         "fputs",     "fread",     "freopen",   "fscanf",   "fseek",
    "fstat",           "fstatat",   "fsync",     "ftruncate", "ftw",      "fwrite",
    "getline",         "glob",      "link",      "linkat",    "lockf",    "lseek",
    "lstat",           "mkdir",     "mkdirat",   "mkdtemp",   "mkstemp",  "mmap",
    "msync",           "munmap",    "nftw",      "open",      "openat",   "opendir",
    "posix_fallocate", "pread",     "preadv",    "pwrite",    "pwritev",  "read",
    "readdir",         "readlink",  "readv",     "realpath",  "remove",   "rename",
    "renameat",        "rmdir",     "scandir",   "sendfile",  "stat",     "statfs",
    "statvfs",         "symlink",   "sync",      "syncfs",    "tmpfile",  "truncate",
    "unlink",          "unlinkat",  "utimensat", "write",     "writev",
};

// The seam itself; and what is no file of a user's: stderr, anonymous memory, sockets.
static const char *const allowed[] = {
    "base/io_seam.c",      "base/log.c write", "base/alloc.c mmap",
    "base/alloc.c munmap", "base/net.c close",
};

static bool is_allowed(const char *file, const char *call)
{
    char both[600];
    snprintf(both, sizeof both, "%s %s", file, call);
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        if (strcmp(allowed[i], both) == 0 || strcmp(allowed[i], file) == 0) return true;
    return false;
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

// Blanks comments, strings and characters, in place.
static void blank(char *p)
{
    while (*p) {
        if (p[0] == '/' && p[1] == '/') {
            while (*p && *p != '\n')
                *p++ = ' ';
        } else if (p[0] == '/' && p[1] == '*') {
            while (*p && !(p[0] == '*' && p[1] == '/'))
                *p++ = ' ';
        } else if (*p == '"' || *p == '\'') {
            const char quote = *p;
            for (*p++ = ' '; *p && *p != quote; p++) {
                if (*p == '\\' && p[1]) *p++ = ' ';
                *p = ' ';
            }
            if (*p) *p++ = ' ';
        } else {
            p++;
        }
    }
}

// Whether the word before `p` is a type: then a function of that name is declared, or a pointer's
// member; `return` and operators are no types.
static bool is_declared(const char *text, const char *p)
{
    while (p > text && (p[-1] == ' ' || p[-1] == '*'))
        p--;
    const char *end = p;
    while (p > text && is_word(p[-1]))
        p--;
    const size_t n = (size_t)(end - p);
    return n > 0 && !(n == 6 && strncmp(p, "return", 6) == 0) &&
           !(n == 4 && strncmp(p, "else", 4) == 0) && !(n == 2 && strncmp(p, "do", 2) == 0);
}

// Whether the line begins with `static`, as all definitions do that are the file's own.
static bool is_static(const char *text, const char *p)
{
    while (p > text && p[-1] != '\n')
        p--;
    return strncmp(p, "static ", 7) == 0;
}

// Calls of `name` in the text that are not through a table.
static size_t count_calls(const char *text, const char *name)
{
    size_t found = 0;
    const size_t n = strlen(name);
    for (const char *p = text; (p = strstr(p, name)); p += n) {
        const char before = p > text ? p[-1] : ' ';
        if (is_word(before) || before == '.' || (before == '>' && p[-2] == '-')) continue;
        if (p[n] != '(') continue;
        if (is_declared(text, p)) {
            if (is_static(text, p)) return 0; // the file's own function of that name
            continue;
        }
        found++;
    }
    return found;
}

static size_t check_text(const char *file, char *text)
{
    size_t bad = 0;
    blank(text);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (count_calls(text, calls[i]) && !is_allowed(file, calls[i])) {
            print_error("src/%s calls %s() itself and not through em_io\n", file, calls[i]);
            bad++;
        }
    return bad;
}

static size_t files;

static size_t check_folder(const char *folder, const char *below)
{
    char **names;
    size_t count, bad = 0;
    CHECK_OK(em_list_directory(folder, &names, &count));
    for (size_t i = 0; i < count; i++) {
        char path[1024], file[512];
        const size_t n = strlen(names[i]);
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        snprintf(file, sizeof file, "%s%s%s", below, *below ? "/" : "", names[i]);
        if (em_path_is_directory(path)) {
            bad += check_folder(path, file);
        } else if (n > 2 &&
                   (strcmp(names[i] + n - 2, ".c") == 0 || strcmp(names[i] + n - 2, ".h") == 0)) {
            struct em_buf text = {0};
            CHECK_OK(em_read_file(path, 0, &text));
            if (text.size) bad += check_text(file, text.data);
            em_buf_deinit(&text);
            files++;
        }
    }
    em_names_free(names, count);
    return bad;
}

static void src_calls_the_system_for_files_in_one_place(void **state)
{
    (void)state;
    assert_int_equal(check_folder(EMBER_SOURCE_DIR "/src", ""), 0);
    assert_true(files > 200);
}

static void the_check_finds_what_it_looks_for(void **state)
{
    (void)state;
    char text[] =
        "int a(void)\n{\n    // open(x)\n    const char *s = \"close(1)\", c = '\\'';\n"
        "    em_io()->write(1, s, 1);\n    io.read(1, 0, 0);\n    my_rename(s, s);\n"
        "    return mkdir(s, 0);\n}\nint (*fsync)(int);\nstatic int stat(void);\nint x = stat(y);\n"
        "void b(void) { if (rmdir(c)) unlink (c); else unlink(c); }\n";
    blank(text);
    static const char *const none[] = {"open", "close", "write", "read", "rename", "fsync", "stat"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        if (count_calls(text, none[i])) fail_msg("%s", none[i]);
    assert_int_equal(count_calls(text, "mkdir"), 1);
    assert_int_equal(count_calls(text, "rmdir"), 1);
    assert_int_equal(count_calls(text, "unlink"), 1);
    assert_false(is_allowed("base/log.c", "open"));
    assert_true(is_allowed("base/log.c", "write"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(src_calls_the_system_for_files_in_one_place),
        cmocka_unit_test(the_check_finds_what_it_looks_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
