// Every instruction set that runs here, as a machine that has no more: forward, training and
// generation by the program, within rounding of each other.
#include "base/cpu.h"
#include "cli/program.h"
#include "infer/small_model.h"
#include "train/run.h"

#define MODEL EMBER_TESTS_DIR "/golden/models/lfm2_moe"

// What EMBER_ISA can be here: each set as it is, and without its extras.
static char names[2 * EM_ISA_COUNT][64];
static size_t count;

static int list(void **state)
{
    (void)state;
    for (int i = 0; i < EM_ISA_COUNT; i++) {
        const enum em_isa isa = (enum em_isa)i;
        if (!em_isa_runs(isa)) continue;
        em_isa_text(isa, em_isa_extras(isa), names[count++]);
        if (em_isa_extras(isa)) em_isa_text(isa, 0, names[count++]);
    }
    assert_true(count >= 1);
    return 0;
}

// The program with a set, and the usual demands on it.
static struct program_result run_on(size_t set, const char *const *arguments)
{
    setenv("EMBER_ISA", names[set], 1);
    struct program_result r = program_run_with(arguments, NULL);
    unsetenv("EMBER_ISA");
    if (r.exit_status) fail_msg("%s: %s", names[set], r.err);
    return r;
}
#define RUN_ON(set, ...) run_on(set, (const char *const[]){__VA_ARGS__, NULL})

static void info_tells_what_is_used(void **state)
{
    (void)state;
    for (size_t i = 0; i < count; i++) {
        char used[256];
        struct program_result r = RUN_ON(i, "info", "--dtype", "bf16", "--threads", "1");
        snprintf(used, sizeof used, "used: %.63s (EMBER_ISA=%.63s)\n", names[i], names[i]);
        assert_non_null(strstr(r.out, used));
        const bool native = strstr(names[i], "bf16") != NULL;
        assert_true(!strstr(r.out, "--dtype bf16 computes in f32") == native);
        // One line for who asked for bf16, and none for who did not.
        assert_true(!strstr(r.err, "no bf16 instructions") == native);
        program_free(&r);
        r = RUN_ON(i, "generate", MODEL, "--prompt-ids", "3", "--ids", "-n", "2", "--seed", "1");
        assert_null(strstr(r.err, "bf16"));
        program_free(&r);
    }
}

static void forward_is_the_same(void **state)
{
    (void)state;
    struct em_safetensors *first = NULL;
    for (size_t i = 0; i < count; i++) {
        const char *out = test_path(test_directory(), "out.safetensors");
        struct program_result r = RUN_ON(i, "forward", MODEL, "--in",
                                         EMBER_TESTS_DIR "/golden/models/lfm2_moe/in.safetensors",
                                         "--out", out, "--grad");
        program_free(&r);
        struct em_safetensors *st;
        CHECK_OK(em_safetensors_open(out, &st));
        if (!first) {
            first = st;
            continue;
        }
        for (size_t t = 0; t < em_safetensors_count(first); t++) {
            const struct em_st_tensor *a = em_safetensors_at(first, t),
                                      *b = em_safetensors_find(st, a->name);
            assert_non_null(b);
            float x[4096], y[4096];
            assert_true(a->elements <= 4096 && a->bytes == a->elements * sizeof *x);
            memcpy(x, a->data, a->bytes);
            memcpy(y, b->data, a->bytes);
            double largest = 0;
            for (size_t k = 0; k < a->elements; k++)
                if (fabs((double)x[k]) > largest) largest = fabs((double)x[k]);
            for (size_t k = 0; k < a->elements; k++)
                if (!(fabs((double)x[k] - (double)y[k]) <= 2e-5 * largest + 1e-9))
                    fail_msg("%s %s: %g and %g", names[i], a->name, (double)y[k], (double)x[k]);
        }
        em_safetensors_close(st);
    }
    em_safetensors_close(first);
}

// The loss of each logged step.
static size_t losses(const char *run, double *loss, size_t most)
{
    char *log = program_read(test_path(run, "logs/train.jsonl"));
    size_t n = 0;
    for (const char *at = log; (at = strstr(at, "\"loss\":")) && n < most; at++)
        loss[n++] = strtod(at + strlen("\"loss\":"), NULL);
    free(log);
    return n;
}

static void training_and_what_it_says_are_the_same(void **state)
{
    (void)state;
    const char *dir = test_directory(), *ids = run_ids(dir, "ids.safetensors", 12, false),
               *recipe = run_recipe(dir, "recipe.json", ids, 0.001, "\"steps\": 12");
    static const char *const dtypes[] = {"f32", "bf16"};
    for (size_t d = 0; d < 2; d++) {
        double first[12], loss[12];
        char *said = NULL;
        for (size_t i = 0; i < count; i++) {
            char name[32];
            snprintf(name, sizeof name, "run-%zu-%zu", d, i);
            const char *out = test_path(dir, name);
            struct program_result r =
                RUN_ON(i, "train", recipe, "--out", out, "--dtype", dtypes[d]);
            // Without bf16 instructions it is told, and computed in f32.
            assert_true(!strstr(r.err, "computing in f32") ==
                        (d == 0 || strstr(names[i], "bf16") != NULL));
            program_free(&r);
            const size_t n = losses(out, i ? loss : first, 12);
            assert_true(n >= 1);
            for (size_t k = 0; i && k < n; k++)
                CHECK_NEAR(loss[k], first[k], d ? 2e-2 : 1e-4, "%s step %zu of %s", names[i], k,
                           dtypes[d]);
            r = RUN_ON(i, "generate", out, "--prompt-ids", "3 17", "--ids", "-n", "8",
                       "--temperature", "0", "--dtype", "f32");
            if (d == 0 && i) assert_string_equal(r.out, said);
            if (i)
                program_free(&r);
            else
                said = r.out, free(r.err);
        }
        free(said);
    }
}

// Processors without AVX2, and without AVX-512, as an emulator has them: nothing tells the program
// but what it finds.
static void emulated_processors_are_served(void **state)
{
    (void)state;
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    static const char *const cpus[][2] = {{"Nehalem", "scalar"}, {"Haswell", "avx2"}};
    if (system("command -v qemu-x86_64 >/dev/null") != 0) skip();
    struct program_result expected = RUN_ON(0, "generate", MODEL, "--prompt-ids", "3 17", "--ids",
                                            "-n", "8", "--temperature", "0", "--dtype", "f32");
    for (size_t i = 0; i < 2; i++) {
        char command[1024], said[4096];
        snprintf(
            command, sizeof command,
            "qemu-x86_64 -cpu %s %s generate %s --prompt-ids '3 17' --ids -n 8 --temperature 0 "
            "2>/dev/null; qemu-x86_64 -cpu %s %s info 2>/dev/null",
            cpus[i][0], EMBER_PROGRAM, MODEL, cpus[i][0], EMBER_PROGRAM);
        FILE *f = popen(command, "r");
        assert_non_null(f);
        said[fread(said, 1, sizeof said - 1, f)] = 0;
        if (pclose(f) != 0) fail_msg("%s: %s", cpus[i][0], said);
        assert_int_equal(strncmp(said, expected.out, strlen(expected.out)), 0);
        snprintf(command, sizeof command, "widest: %s; used: %s\n", cpus[i][1], cpus[i][1]);
        if (!strstr(said, command)) fail_msg("%s: %s", cpus[i][0], said);
    }
    program_free(&expected);
#else
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(info_tells_what_is_used),
        cmocka_unit_test(forward_is_the_same),
        cmocka_unit_test(training_and_what_it_says_are_the_same),
        cmocka_unit_test(emulated_processors_are_served),
    };
    return cmocka_run_group_tests_name("instruction sets", tests, list, NULL);
}
