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
#include "kernels/gemm_i8.h"
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

// What is left of the extras is what computes, and nothing else: any choice of them.
static unsigned chosen;
static void extras_choose_the_products(void)
{
    char text[64], expected[64];
    const enum em_isa isa = em_isa_widest();
    const char *name = em_isa_name(isa);
    setenv("EMBER_ISA", em_isa_text(isa, chosen, text), 1);
    const bool bf16 = chosen & EM_ISA_BF16;
    const char *i8 = chosen & EM_ISA_I8MM      ? "-i8mm"
                     : chosen & EM_ISA_DOTPROD ? "-dotprod"
                     : chosen & EM_ISA_VNNI    ? "-vnni"
                                               : "";
    snprintf(expected, sizeof expected, "%s%s", name, bf16 ? "-bf16" : "");
    const bool floats = strcmp(em_gemm_name(EM_GEMM_BF16), expected) == 0 &&
                        strcmp(em_gemm_name(EM_GEMM_F32), name) == 0 &&
                        em_gemm_native(EM_GEMM_BF16) == bf16;
    snprintf(expected, sizeof expected, "%s%s", name, i8);
    exit(floats && strcmp(em_gemm_i8_name(), expected) == 0 && em_gemm_i8_native() == (*i8 != 0) &&
                 em_kernels_extras() == chosen
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

static int refused, plain, choices;

static void what_was_found_in_processes_holds(void **state)
{
    (void)state;
    assert_int_equal(refused, 0);
    assert_int_equal(plain, 0);
    assert_int_equal(choices, 0);
}

int main(void)
{
    refused = in_a_process(a_refused_wish_is_told_and_the_widest_used);
    plain = in_a_process(a_set_without_extras_has_no_native_bf16);
    const unsigned all = em_isa_extras(em_isa_widest());
    for (chosen = 0; chosen <= all; chosen++)
        if (!(chosen & ~all)) choices |= in_a_process(extras_choose_the_products);
    setenv("EMBER_ISA", "scalar", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_those_that_run_here),
        cmocka_unit_test(ember_isa_names_the_table_in_force),
        cmocka_unit_test(what_was_found_in_processes_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
