#include <stdint.h>
#include <string.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "support/check.h"

static void objects_are_zeroed_aligned_and_apart(void **state)
{
    (void)state;
    const size_t before = em_alloc_live();
    struct em_arena arena;
    em_arena_init(&arena);
    unsigned char *kept[500];
    for (size_t round = 0; round < 2; round++) {
        for (size_t i = 0; i < 500; i++) {
            const size_t n = i * 7 % 300;
            kept[i] = em_arena_alloc(&arena, n);
            assert_non_null(kept[i]);
            assert_int_equal((uintptr_t)kept[i] % 16, 0);
            for (size_t j = 0; j < n; j++)
                assert_int_equal(kept[i][j], 0);
            memset(kept[i], (int)(i & 0xff), n);
        }
        for (size_t i = 0; i < 500; i++)
            for (size_t j = 0; j < i * 7 % 300; j++)
                assert_int_equal(kept[i][j], i & 0xff);
        em_arena_reset(&arena); // the memory is used again, and zeroed again
    }
    unsigned char *big = em_arena_alloc(&arena, 3 << 20);
    assert_non_null(big);
    big[(3 << 20) - 1] = 1;
    em_arena_deinit(&arena);
    em_arena_deinit(&arena);
    assert_int_equal(em_alloc_live(), before);
}

static void texts_live_in_the_arena(void **state)
{
    (void)state;
    struct em_arena arena = {0};
    char *a = em_arena_strdup(&arena, "one"), *b = em_arena_strndup(&arena, "twofold", 3);
    char *c = em_arena_printf(&arena, "%s-%d", a, 42);
    assert_string_equal(a, "one");
    assert_string_equal(b, "two");
    assert_string_equal(c, "one-42");
    em_arena_deinit(&arena);
}

static void running_out_of_memory_is_told(void **state)
{
    (void)state;
    struct em_arena arena = {0};
    assert_null(em_arena_alloc(&arena, SIZE_MAX));
    assert_null(em_arena_alloc(&arena, SIZE_MAX - 20));
    em_alloc_fail_at(1, 1);
    assert_null(em_arena_alloc(&arena, 1));
    assert_null(em_arena_strdup(&arena, "x"));
    assert_null(em_arena_printf(&arena, "%d", 1));
    em_alloc_fail_at(0, 0);
    assert_non_null(em_arena_alloc(&arena, 1)); // it goes on afterwards
    em_arena_deinit(&arena);
}

static void scratch_is_a_stack(void **state)
{
    (void)state;
    struct em_scratch s = {0};
    CHECK_OK(em_scratch_reserve(&s, 1000));
    const size_t mark = em_scratch_mark(&s);
    char *a = em_scratch_take(&s, 10), *b = em_scratch_take(&s, 64);
    assert_int_equal((uintptr_t)a % EM_SCRATCH_ALIGNMENT, 0);
    assert_int_equal(b - a, EM_SCRATCH_ALIGNMENT);
    const size_t inner = em_scratch_mark(&s);
    char *c = em_scratch_take(&s, 500);
    em_scratch_reset(&s, inner);
    assert_ptr_equal(em_scratch_take(&s, 1), c);
    CHECK_OK(em_scratch_reserve(&s, 900)); // enough is there: allowed while in use
    em_scratch_reset(&s, mark);
    CHECK_OK(em_scratch_reserve(&s, 100000));
    memset(em_scratch_take(&s, 100000), 1, 100000);
    em_scratch_reset(&s, mark);
    CHECK_FAILS(em_scratch_reserve(&s, SIZE_MAX), EMBER_E_NOMEM, "out of memory");
    em_scratch_deinit(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_are_zeroed_aligned_and_apart),
        cmocka_unit_test(texts_live_in_the_arena),
        cmocka_unit_test(running_out_of_memory_is_told),
        cmocka_unit_test(scratch_is_a_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
