#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "support/check.h"

static void the_plain_set_runs_everywhere(void **state)
{
    (void)state;
    assert_true(em_isa_runs(EM_ISA_SCALAR));
    assert_false(em_isa_runs(EM_ISA_COUNT));
    assert_false(em_isa_runs(EM_ISA_NEON) && em_isa_runs(EM_ISA_AVX2));
    assert_true(!em_isa_runs(EM_ISA_AVX512) || em_isa_runs(EM_ISA_AVX2));
    assert_true(em_cpu()->model[0] != 0);
    print_message("%s; L1 %zu, L2 %zu, L3 %zu bytes\n", em_cpu()->model, em_cpu()->l1d,
                  em_cpu()->l2, em_cpu()->l3);
}

static void what_linux_lists_is_what_is_found(void **state)
{
    (void)state;
#if defined(__x86_64__)
    const struct em_cpu *c = em_cpu();
    const struct {
        const char *name;
        bool found;
    } flags[] = {
        {" avx2 ", c->avx2},
        {" fma ", c->fma},
        {" f16c ", c->f16c},
        {" avx512bw ", c->avx512},
        {" avx512_bf16 ", c->avx512_bf16},
        {" avx512_vnni ", c->avx512_vnni},
    };
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (!f) skip();
    static char line[1 << 16];
    bool seen = false;
    while (!seen && fgets(line, sizeof line, f))
        seen = strncmp(line, "flags", 5) == 0;
    fclose(f);
    if (!seen) skip();
    line[strcspn(line, "\n")] = ' '; // each name stands between spaces
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if ((strstr(line, flags[i].name) != NULL) != flags[i].found) fail_msg("%s", flags[i].name);
#else
    skip();
#endif
}

static void the_widest_set_is_chosen(void **state)
{
    (void)state;
    enum em_isa isa = EM_ISA_COUNT;
    unsetenv("EMBER_ISA");
    CHECK_OK(em_isa_choose(&isa, NULL));
    assert_true(em_isa_runs(isa));
    for (int wider = (int)isa + 1; wider < EM_ISA_COUNT; wider++)
        assert_false(em_isa_runs((enum em_isa)wider));
    setenv("EMBER_ISA", "", 1);
    enum em_isa same = EM_ISA_COUNT;
    CHECK_OK(em_isa_choose(&same, NULL));
    assert_int_equal(same, isa);
}

static void a_set_can_be_asked_for_and_refused(void **state)
{
    (void)state;
    enum em_isa isa = EM_ISA_COUNT;
    setenv("EMBER_ISA", "avx1024", 1);
    CHECK_FAILS(em_isa_choose(&isa, NULL), EMBER_E_USAGE,
                "EMBER_ISA=avx1024: no such instruction set; this machine runs scalar");
    assert_int_equal(isa, EM_ISA_COUNT);
    for (int i = 0; i < EM_ISA_COUNT; i++) {
        setenv("EMBER_ISA", em_isa_name((enum em_isa)i), 1);
        if (em_isa_runs((enum em_isa)i)) {
            CHECK_OK(em_isa_choose(&isa, NULL));
            assert_int_equal(isa, i);
        } else {
            CHECK_FAILS(em_isa_choose(&isa, NULL), EMBER_E_USAGE,
                        "this machine lacks that instruction set");
        }
    }
    unsetenv("EMBER_ISA");
}

static void extras_can_be_left_out(void **state)
{
    (void)state;
    enum em_isa isa = EM_ISA_COUNT;
    unsigned extras = 77;
    char text[64], name[96];
    const enum em_isa widest = em_isa_widest();
    const unsigned all = em_isa_extras(widest);
    assert_int_equal(em_isa_extras(EM_ISA_SCALAR), 0);
    assert_int_equal(em_isa_extras(EM_ISA_AVX2), 0);
    unsetenv("EMBER_ISA");
    CHECK_OK(em_isa_choose(&isa, &extras));
    assert_int_equal(isa, widest);
    assert_int_equal(extras, all);
    // What a set's text says is what chooses it.
    for (unsigned some = 0; some <= all; some++) {
        if (some & ~all) continue;
        setenv("EMBER_ISA", em_isa_text(widest, some, text), 1);
        CHECK_OK(em_isa_choose(&isa, &extras));
        assert_int_equal(isa, widest);
        assert_int_equal(extras, some);
    }
    setenv("EMBER_ISA", "scalar+none", 1);
    CHECK_OK(em_isa_choose(&isa, &extras));
    assert_int_equal(isa, EM_ISA_SCALAR);
    assert_int_equal(extras, 0);
    setenv("EMBER_ISA", "scalar+bf16", 1);
    CHECK_FAILS(em_isa_choose(&isa, &extras), EMBER_E_USAGE,
                "EMBER_ISA=scalar+bf16: this machine lacks what follows the set's name");
    static const char *const wrong[] = {"+", "+bf61", "+none+none", "+bf16,vnni", "+bf16+"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(name, sizeof name, "%s%s", em_isa_name(widest), wrong[i]);
        setenv("EMBER_ISA", name, 1);
        if (i == 4 && !(all & EM_ISA_BF16)) continue;
        CHECK_FAILS(em_isa_choose(&isa, &extras), EMBER_E_USAGE,
                    "what follows + is none, bf16, vnni, dotprod or i8mm");
    }
    unsetenv("EMBER_ISA");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_plain_set_runs_everywhere),
        cmocka_unit_test(what_linux_lists_is_what_is_found),
        cmocka_unit_test(the_widest_set_is_chosen),
        cmocka_unit_test(a_set_can_be_asked_for_and_refused),
        cmocka_unit_test(extras_can_be_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
