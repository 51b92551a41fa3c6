// Runs a fuzz target where there is no libFuzzer: over files and folders of files, then over broken
// ones made from them (mutate.h). Each such case has 2 s of CPU time, and gives its memory back.
// TARGET FILE_OR_FOLDER...; with EMBER_FUZZ_CASES=N as many cases, with EMBER_FUZZ_SEED=S others.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "fuzz/mutate.h"
#include "support/full.h"

#ifdef __SANITIZE_ADDRESS__
enum { CASES = 10000, SANITIZED = 1 };
void __sanitizer_set_death_callback(void (*callback)(void));
#else
enum { CASES = 1000, SANITIZED = 0 };
#endif
enum { FULL_CASES = 100000, SECONDS = 2, LARGEST_BASE = 64 << 10 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// What the cases are made from.
struct base {
    uint8_t *data;
    size_t size;
};
static struct base *bases; // those that are accepted first
static size_t base_count, good_count;
static size_t replayed, accepted; // accepted: without a message

static int complain(const char *path)
{
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    return 1;
}

// ---- a case that fails is kept ----

static const uint8_t *current;
static size_t current_size;
static char finding[512];

static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0) _exit(1);
}

// Only calls that a signal handler may make.
static void keep_finding(void)
{
    if (!current) return;
    const uint8_t *data = current;
    current = NULL;
    const int fd = open(finding, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const bool kept = fd >= 0 && write(fd, data, current_size) == (ssize_t)current_size;
    say(kept ? "\nthe input that fails is in " : "\nthe input that fails cannot be written to ");
    say(finding);
    say("; give it to this program to see it again\n");
}

static void on_signal(int number)
{
    if (number == SIGPROF) say("\nno end after 2 s of CPU time\n");
    keep_finding();
    signal(number == SIGPROF ? SIGABRT : number, SIG_DFL);
    raise(number == SIGPROF ? SIGABRT : number);
}

static void watch(void)
{
    signal(SIGPROF, on_signal);
    signal(SIGABRT, on_signal);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_set_death_callback(keep_finding);
#else
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++)
        signal(crashes[i], on_signal);
#endif
}

static void run(const uint8_t *data, size_t size)
{
    const struct itimerval limit = {.it_value = {.tv_sec = SECONDS}}, none = {0};
    // In a block of its own size: AddressSanitizer sees a read past the end.
    uint8_t *exact = malloc(size ? size : 1);
    if (!exact) {
        say("out of memory\n");
        exit(1);
    }
    memcpy(exact, data, size);
    current = exact;
    current_size = size;
    (void)em_fail(EMBER_OK, "%s", "");
    setitimer(ITIMER_PROF, &limit, NULL);
    (void)LLVMFuzzerTestOneInput(exact, size);
    setitimer(ITIMER_PROF, &none, NULL);
    current = NULL;
    free(exact);
}

// ---- the corpus ----

static int keep_base(uint8_t *data, size_t size)
{
    struct base *more = realloc(bases, (base_count + 1) * sizeof *bases);
    if (!more) return complain("bases");
    bases = more;
    bases[base_count] = (struct base){data, size};
    if (!*ember_last_error()) {
        const struct base good = bases[base_count];
        bases[base_count] = bases[good_count];
        bases[good_count++] = good;
    }
    base_count++;
    return 0;
}

static int replay_file(const char *path, size_t size)
{
    FILE *f = fopen(path, "rb");
    if (!f) return complain(path);
    uint8_t *data = malloc(size ? size : 1);
    const size_t got = data ? fread(data, 1, size, f) : 0;
    fclose(f);
    if (!data || got != size) {
        free(data);
        return complain(path);
    }
    run(data, size);
    replayed++;
    if (size > 0 && size <= LARGEST_BASE) return keep_base(data, size);
    free(data);
    return 0;
}

static int replay(const char *path)
{
    struct stat s;
    if (stat(path, &s) != 0) return complain(path);
    if (!S_ISDIR(s.st_mode)) return replay_file(path, (size_t)s.st_size);
    struct dirent **entry;
    const int count = scandir(path, &entry, NULL, alphasort); // sorted: cases are the same again
    if (count < 0) return complain(path);
    int failed = 0;
    for (int i = 0; i < count; i++) {
        char child[4096];
        snprintf(child, sizeof child, "%s/%s", path, entry[i]->d_name);
        if (entry[i]->d_name[0] != '.') failed |= replay(child);
        free(entry[i]);
    }
    free(entry);
    return failed;
}

// ---- cases ----

static uint64_t number_from(const char *variable, uint64_t otherwise)
{
    const char *text = getenv(variable);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

// A first run may fill caches that live on; a second of the same input leaves nothing.
static int run_case(const uint8_t *data, size_t size)
{
    for (int attempt = 0; attempt < 3; attempt++) {
        const size_t before = em_alloc_live();
        run(data, size);
        if (attempt == 0) accepted += !*ember_last_error();
        if (em_alloc_live() <= before) return 0;
    }
    current = data;
    current_size = size;
    say("memory is not given back\n");
    keep_finding();
    return 1;
}

static int run_cases(const char *name, size_t cases, uint64_t seed)
{
    static uint8_t data[2 * LARGEST_BASE];
    int failed = 0;
    for (size_t i = 0; i < cases && !failed; i++) {
        // Three in four from good files: what is broken already says less when broken again.
        const size_t from = good_count && em_hash64(seed, i, 2) % 4 ? good_count : base_count;
        const struct base *base = &bases[em_hash64(seed, i, 1) % from];
        const size_t size = mutate_make(base->data, base->size, seed, i, data, sizeof data);
        snprintf(finding, sizeof finding, "%s-seed-%llu-case-%zu", name, (unsigned long long)seed,
                 i);
        failed = run_case(data, size);
    }
    return failed;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s FILE_OR_FOLDER...\n", argv[0]);
        return 2;
    }
    const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
    int failed = 0;
    snprintf(finding, sizeof finding, "%s-replay", name);
    watch();
    for (int i = 1; i < argc; i++)
        failed |= replay(argv[i]);
    (void)LLVMFuzzerTestOneInput((const uint8_t *)"", 0); // an empty input belongs to every corpus
    // One file is a finding, which is only to be seen again.
    const bool alone = argc == 2 && replayed == 1;
    const size_t cases = (size_t)number_from("EMBER_FUZZ_CASES", em_test_amount(CASES, FULL_CASES));
    const uint64_t seed = number_from("EMBER_FUZZ_SEED", 1);
    const bool broken = base_count > 0 && !alone && !failed;
    if (broken) failed |= run_cases(name, cases, seed);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("%zu inputs replayed, %zu cases of seed %llu (%zu accepted)%s, %.1f s of CPU time\n",
           replayed, broken ? cases : 0, (unsigned long long)seed, accepted,
           SANITIZED ? " under the sanitizers" : "",
           (double)used.ru_utime.tv_sec + (double)used.ru_utime.tv_usec * 1e-6);
    for (size_t i = 0; i < base_count; i++)
        free(bases[i].data);
    free(bases);
    return failed;
}
