#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "support/check.h"

static void blocks_are_aligned_and_counted(void **state)
{
    (void)state;
    const size_t before = em_alloc_live();
    char *a = em_alloc_aligned(100), *b = em_block_alloc(5 << 20), *c = em_alloc(0);
    assert_non_null(a);
    assert_non_null(b);
    assert_non_null(c);
    assert_int_equal((uintptr_t)a % 128, 0);
    assert_int_equal((uintptr_t)b % (2 << 20), 0);
    for (size_t i = 0; i < 5 << 20; i += 4096)
        assert_int_equal(b[i], 0);
    b[(5 << 20) - 1] = 1; // the last byte is there
    assert_true(em_alloc_live() >= before + 100 + (5 << 20));
    assert_true(em_alloc_peak() >= em_alloc_live());
    em_free(a);
    em_free(c);
    em_block_free(b, 5 << 20);
    assert_int_equal(em_alloc_live(), before);
    em_alloc_peak_reset();
    assert_int_equal(em_alloc_peak(), before);
    em_free(NULL);
    em_block_free(NULL, 7);
}

static void small_and_odd_blocks_work(void **state)
{
    (void)state;
    const size_t sizes[] = {0, 1, 4095, 4096, 4097, (2 << 20) - 1, (2 << 20) + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *p = em_block_alloc(sizes[i]);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % (2 << 20), 0);
        if (sizes[i]) p[sizes[i] - 1] = 42;
        em_block_free(p, sizes[i]);
    }
}

static void realloc_keeps_the_bytes(void **state)
{
    (void)state;
    char *p = em_realloc(NULL, 10);
    memcpy(p, "012345678", 10);
    p = em_realloc(p, 100000);
    assert_string_equal(p, "012345678");
    p = em_realloc(p, 5);
    assert_memory_equal(p, "01234", 5);
    em_free(p);
}

static void texts_are_copied_whole(void **state)
{
    (void)state;
    char *all = em_memdup("a\0b", 3), *some = em_strndup("a\0b", 3), *none = em_memdup(NULL, 0);
    assert_memory_equal(all, "a\0b", 4);
    assert_memory_equal(some, "a", 2);
    assert_string_equal(none, "");
    em_free(all);
    em_free(some);
    em_free(none);
}

static void impossible_sizes_are_refused_with_a_message(void **state)
{
    (void)state;
    assert_null(em_alloc(SIZE_MAX));
    assert_string_equal(ember_last_error(), "out of memory: 18446744073709551615 bytes");
    assert_null(em_alloc_aligned(SIZE_MAX - 10));
    assert_null(em_block_alloc(SIZE_MAX));
    assert_null(em_block_alloc(SIZE_MAX / 2));
    assert_null(em_calloc(SIZE_MAX / 2, 3));
    char *p = em_alloc(4);
    memcpy(p, "abc", 4);
    assert_null(em_realloc(p, SIZE_MAX));
    assert_string_equal(p, "abc");
    em_free(p);
}

static void the_chosen_calls_fail(void **state)
{
    (void)state;
    void *kept[12];
    em_alloc_fail_at(3, 4);
    const size_t before = em_alloc_count();
    for (int i = 0; i < 12; i++)
        kept[i] = i % 3 == 0 ? em_alloc(8) : i % 3 == 1 ? em_alloc_aligned(8) : em_calloc(1, 8);
    assert_int_equal(em_alloc_count() - before, 12);
    em_alloc_fail_at(0, 0);
    for (int i = 0; i < 12; i++) {
        if (i == 2 || i == 6 || i == 10)
            assert_null(kept[i]);
        else
            assert_non_null(kept[i]);
        em_free(kept[i]);
    }
    em_alloc_fail_at(1, 0);
    assert_null(em_block_alloc(1));
    assert_string_equal(ember_last_error(), "out of memory: 1 bytes");
    char *p = em_strdup("still here");
    em_alloc_fail_at(1, 1);
    assert_null(em_realloc(p, 1000));
    assert_null(em_asprintf("%d", 5));
    em_alloc_fail_at(0, 0);
    assert_string_equal(p, "still here");
    em_free(p);
}

static void texts_are_copied(void **state)
{
    (void)state;
    char *a = em_strdup("abc"), *b = em_strndup("abcdef", 4), *c = em_strndup("ab", 4);
    char *d = em_asprintf("%d-%s", 12, "x");
    assert_string_equal(a, "abc");
    assert_string_equal(b, "abcd");
    assert_string_equal(c, "ab");
    assert_string_equal(d, "12-x");
    em_free(a);
    em_free(b);
    em_free(c);
    em_free(d);
}

static void sizes_do_not_wrap(void **state)
{
    (void)state;
    size_t out = 7;
    assert_true(em_mul_size(SIZE_MAX / 3, 3, &out));
    assert_int_equal(out, SIZE_MAX / 3 * 3);
    assert_false(em_mul_size(SIZE_MAX / 3 + 1, 3, &out));
    assert_true(em_mul_size(0, SIZE_MAX, &out));
    assert_int_equal(out, 0);
    assert_true(em_add_size(SIZE_MAX - 1, 1, &out));
    assert_false(em_add_size(SIZE_MAX, 1, &out));
    assert_int_equal(out, SIZE_MAX);
}

static void arrays_grow_by_doubling(void **state)
{
    (void)state;
    int *v = NULL;
    size_t capacity = 0, changes = 0;
    for (size_t i = 0; i < 1000; i++) {
        const size_t old = capacity;
        CHECK_OK(em_grow(&v, &capacity, i + 1, sizeof *v));
        changes += capacity != old;
        v[i] = (int)i;
    }
    assert_int_equal(capacity, 1024);
    assert_int_equal(changes, 8);
    for (size_t i = 0; i < 1000; i++)
        assert_int_equal(v[i], i);
    CHECK_FAILS(em_grow(&v, &capacity, SIZE_MAX / 2, sizeof *v), EMBER_E_NOMEM, "out of memory");
    assert_int_equal(capacity, 1024);
    assert_int_equal(v[999], 999);
    em_free(v);
}

// An embedder's allocator that gives odd alignment and checks that every block comes back.
static size_t theirs;

static void *their_alloc(void *context, size_t bytes)
{
    assert_ptr_equal(context, &theirs);
    char *p = malloc(bytes + 8);
    theirs++;
    return p + 8;
}

static void their_free(void *context, void *p)
{
    assert_ptr_equal(context, &theirs);
    free((char *)p - 8);
    theirs--;
}

static void an_embedder_brings_an_allocator(void **state)
{
    (void)state;
    const struct em_allocator allocator = {their_alloc, their_free, &theirs};
    em_alloc_use(&allocator);
    const size_t before = em_alloc_live();
    char *a = em_alloc(10), *b = em_alloc_aligned(1000), *c = em_strdup("hello");
    assert_int_equal(theirs, 3);
    assert_int_equal((uintptr_t)a % 16, 0);
    assert_int_equal((uintptr_t)b % 128, 0);
    c = em_realloc(c, 5000);
    assert_string_equal(c, "hello");
    em_free(a);
    em_free(b);
    em_free(c);
    assert_int_equal(theirs, 0);
    assert_int_equal(em_alloc_live(), before);
    em_alloc_use(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_aligned_and_counted),
        cmocka_unit_test(small_and_odd_blocks_work),
        cmocka_unit_test(realloc_keeps_the_bytes),
        cmocka_unit_test(texts_are_copied_whole),
        cmocka_unit_test(impossible_sizes_are_refused_with_a_message),
        cmocka_unit_test(the_chosen_calls_fail),
        cmocka_unit_test(texts_are_copied),
        cmocka_unit_test(sizes_do_not_wrap),
        cmocka_unit_test(arrays_grow_by_doubling),
        cmocka_unit_test(an_embedder_brings_an_allocator),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
