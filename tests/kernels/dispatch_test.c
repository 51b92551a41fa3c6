// The tables: which of them run here, and that EMBER_ISA picks one.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/log.h"
#include "kernels/check.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"

static void tables_are_those_that_run_here(void **state)
{
    (void)state;
    size_t found = 0;
    for (int isa = 0; isa < EM_ISA_COUNT; isa++) {
        if (!em_isa_runs((enum em_isa)isa)) continue;
        assert_non_null(em_kernels_at(found));
        assert_string_equal(em_kernels_at(found)->isa, em_isa_name((enum em_isa)isa));
        found++;
    }
    assert_true(found >= 1);
    assert_null(em_kernels_at(found));
}

static void ember_isa_names_the_table_in_force(void **state)
{
    (void)state;
    assert_string_equal(em_kernels()->isa, "scalar"); // set in main, before the first call
    setenv("EMBER_ISA", "", 1);
    assert_ptr_equal(em_kernels(), em_kernels_at(0)); // chosen once
}

// In a process of its own, as a table is chosen once: what em_kernels() does with a wish that
// cannot be met, where nobody could be told by a status.
static char refused_line[512];
static void keep_line(void *context, enum em_log_level level, const char *line)
{
    (void)context;
    (void)level;
    snprintf(refused_line, sizeof refused_line, "%s", line);
}

static void a_refused_wish_is_told_and_the_widest_used(void)
{
    setenv("EMBER_ISA", "avx1024", 1);
    em_log_to(keep_line, NULL);
    const bool widest = strcmp(em_kernels()->isa, em_isa_name(em_isa_widest())) == 0 &&
                        em_kernels_extras() == em_isa_extras(em_isa_widest());
    exit(widest && strstr(refused_line, "EMBER_ISA=avx1024: no such instruction set") &&
                 strstr(refused_line, "; using ")
             ? 0
             : 1);
}

// Without its extras a set computes bf16 as machines without bf16 instructions do.
static void a_set_without_extras_has_no_native_bf16(void)
{
    char text[64];
    setenv("EMBER_ISA", em_isa_text(em_isa_widest(), 0, text), 1);
    exit(!em_gemm_native(EM_GEMM_BF16) && !strstr(em_gemm_name(EM_GEMM_BF16), "bf16") &&
                 em_kernels_extras() == 0
             ? 0
             : 1);
}

static int in_a_process(void (*work)(void))
{
    int status = 1;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) work();
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static int refused, plain;

static void what_was_found_in_processes_holds(void **state)
{
    (void)state;
    assert_int_equal(refused, 0);
    assert_int_equal(plain, 0);
}

int main(void)
{
    refused = in_a_process(a_refused_wish_is_told_and_the_widest_used);
    plain = in_a_process(a_set_without_extras_has_no_native_bf16);
    setenv("EMBER_ISA", "scalar", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_those_that_run_here),
        cmocka_unit_test(ember_isa_names_the_table_in_force),
        cmocka_unit_test(what_was_found_in_processes_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
