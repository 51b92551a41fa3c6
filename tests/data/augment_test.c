// Batches after they were drawn: sequences cut shorter, strands read the other way.
#include <string.h>

#include "data/augment.h"
#include "support/check.h"

static struct em_packed packed(const char *text, const size_t *offset, size_t n)
{
    struct em_packed p = {0};
    const size_t T = offset[n];
    CHECK_OK(em_packed_reserve(&p, T));
    for (size_t t = 0; t < T; t++) {
        p.tokens[t] = text[t];
        p.targets[t] = text[t + 1];
    }
    for (size_t s = 0; s < n; s++) {
        p.offset[s + 1] = offset[s + 1];
        p.bytes[s] = (double)(offset[s + 1] - offset[s]);
    }
    p.batch.n_tokens = T;
    p.batch.n_sequences = n;
    return p;
}

static void lengths_double_from_stage_to_stage(void **state)
{
    (void)state;
    assert_int_equal(em_warmup_length(0, 64, 10, 1000), 64);
    assert_int_equal(em_warmup_length(9, 64, 10, 1000), 64);
    assert_int_equal(em_warmup_length(10, 64, 10, 1000), 128);
    assert_int_equal(em_warmup_length(39, 64, 10, 1000), 512);
    assert_int_equal(em_warmup_length(40, 64, 10, 1000), 1000);
    assert_int_equal(em_warmup_length(UINT64_MAX, 1, 1, SIZE_MAX), SIZE_MAX);
    assert_int_equal(em_warmup_length(5, 0, 10, 1000), 1000);
    assert_int_equal(em_warmup_length(5, 2000, 10, 1000), 1000);
}

static void sequences_are_cut_and_keep_their_tokens(void **state)
{
    (void)state;
    static const char text[] = "abcdefghijklmno";
    const size_t offset[] = {0, 1, 8, 14}, cut[] = {0, 1, 4, 7, 8, 11, 14};
    struct em_packed p = packed(text, offset, 3);
    const double bytes = em_packed_bytes(&p);
    em_packed_cut(&p, 3);
    assert_int_equal(p.batch.n_sequences, 6);
    for (size_t s = 0; s <= 6; s++)
        assert_int_equal(p.offset[s], cut[s]);
    for (size_t t = 0; t < 14; t++)
        assert_true(p.tokens[t] == text[t] && p.targets[t] == text[t + 1]);
    CHECK_NEAR(em_packed_bytes(&p), bytes, 1e-12, "bytes");
    CHECK_NEAR(p.bytes[3], 1, 1e-12, "bytes of a piece");
    em_packed_cut(&p, 1);
    assert_int_equal(p.batch.n_sequences, 14);
    assert_int_equal(p.offset[14], 14);
    em_packed_deinit(&p);
}

static void check_strand(const struct em_complement *c, const char *text, const char *expected)
{
    // The text and what it becomes, as tokens of the nucleotides' tokenizer; '.' is none of them.
    static const char *const letters = "......."
                                       "ACGTN";
    const size_t offset[] = {0, strlen(text) - 1};
    struct em_packed p = packed(text, offset, 1);
    const size_t T = offset[1];
    for (size_t t = 0; t < T; t++) {
        const char *token = strchr(letters, text[t]), *target = strchr(letters, text[t + 1]);
        p.tokens[t] = (int32_t)(token - letters);
        p.targets[t] = text[t + 1] == '!' ? -1 : (int32_t)(target - letters);
    }
    em_packed_reverse_complement(&p, c, 1, 1, 2, 3);
    for (size_t t = 0; t < T; t++) {
        assert_int_equal(letters[p.tokens[t]], expected[t]);
        if (expected[t + 1] == '!')
            assert_int_equal(p.targets[t], -1);
        else
            assert_int_equal(letters[p.targets[t]], expected[t + 1]);
    }
    em_packed_deinit(&p);
}

static void the_other_strand(void **state)
{
    (void)state;
    struct em_tokenizer *t;
    struct em_complement c;
    CHECK_OK(em_tokenizer_characters("ACGTN", &t));
    CHECK_OK(em_complement_open(t, &c));
    check_strand(&c, "AACGT", "ACGTT");
    check_strand(&c, "AACG!", "CGTT!"); // nothing is known of what follows
    check_strand(&c, ".AANC.", ".GNTT.");
    check_strand(&c, "A.CCG.T", "T.CGG.A");
    em_complement_close(&c);
    em_tokenizer_close(t);
    CHECK_OK(em_tokenizer_characters("ACG", &t));
    CHECK_FAILS(em_complement_open(t, &c), EMBER_E_CONFIG, "no token T");
    em_tokenizer_close(t);
}

// Which sequences are turned depends on the step and the place alone, and twice is not at all.
static void a_share_of_the_strands_is_turned(void **state)
{
    (void)state;
    enum { SEQUENCES = 2000, LENGTH = 3 };
    struct em_tokenizer *t;
    struct em_complement c;
    struct em_packed p = {0};
    CHECK_OK(em_tokenizer_characters("ACGTN", &t));
    CHECK_OK(em_complement_open(t, &c));
    CHECK_OK(em_packed_reserve(&p, SEQUENCES * LENGTH));
    size_t turned = 0;
    for (size_t round = 0; round < 2; round++) {
        for (size_t s = 0; s < SEQUENCES; s++) {
            p.offset[s + 1] = (s + 1) * LENGTH;
            for (size_t i = 0; i < LENGTH; i++) {
                p.tokens[s * LENGTH + i] = 7;
                p.targets[s * LENGTH + i] = i + 1 < LENGTH ? 7 : -1;
            }
        }
        p.batch.n_tokens = SEQUENCES * LENGTH;
        p.batch.n_sequences = SEQUENCES;
        em_packed_reverse_complement(&p, &c, 0.25, 5, 6 + round, 0);
        for (size_t s = 0; s < SEQUENCES; s++)
            turned += p.tokens[s * LENGTH] == 10;
    }
    assert_in_range(turned, 900, 1100);
    em_packed_deinit(&p);
    em_complement_close(&c);
    em_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lengths_double_from_stage_to_stage),
                                       cmocka_unit_test(sequences_are_cut_and_keep_their_tokens),
                                       cmocka_unit_test(the_other_strand),
                                       cmocka_unit_test(a_share_of_the_strands_is_turned)};
    return cmocka_run_group_tests_name("data/augment", tests, NULL, NULL);
}
