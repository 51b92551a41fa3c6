#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "report/tensorboard.h"

static double wall_seconds = 1700000000.5;

static double fixed_wall(void)
{
    return wall_seconds;
}

static double fixed_monotonic(void)
{
    return 0;
}

static const struct em_clock fixed_clock = {fixed_monotonic, fixed_wall};
static const char file_name[] = "events.out.tfevents.1700000000.ember";

static void expect_ok(ember_status status)
{
    if (status != EMBER_OK) fail_msg("%s: %s", ember_status_name(status), ember_last_error());
}

struct fixture {
    char dir[64], path[160];
};

static int setup(void **state)
{
    static struct fixture f;
    snprintf(f.dir, sizeof f.dir, "tensorboard_test.XXXXXX");
    if (!mkdtemp(f.dir)) return 1;
    snprintf(f.path, sizeof f.path, "%s/%s", f.dir, file_name);
    em_clock_use(&fixed_clock);
    wall_seconds = 1700000000.5;
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    const struct fixture *f = *state;
    em_clock_use(NULL);
    return em_remove_tree(f->dir) != EMBER_OK;
}

static struct em_buf read_all(const struct fixture *f)
{
    struct em_buf b;
    em_buf_init(&b, 0);
    expect_ok(em_read_file(f->path, 0, &b));
    return b;
}

static void write_step(struct em_tensorboard *t, int64_t step, float value)
{
    expect_ok(em_tensorboard_write(t, step, &(struct em_tensorboard_scalar){"loss", value}, 1));
}

// Published check values: RFC 3720, appendix B.4.
static void crc_matches_the_published_values(void **state)
{
    (void)state;
    unsigned char bytes[32];
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(em_crc32c(bytes, 32), 0x8a9136aa);
    memset(bytes, 0xff, sizeof bytes);
    assert_int_equal(em_crc32c(bytes, 32), 0x62a8ab43);
    for (size_t i = 0; i < 32; i++)
        bytes[i] = (unsigned char)i;
    assert_int_equal(em_crc32c(bytes, 32), 0x46dd794e);
    assert_int_equal(em_crc32c("123456789", 9), 0xe3069283);
    assert_int_equal(em_crc32c_masked("123456789", 9),
                     0xe3069283 / 32768u + (0xe3069283u << 17) + 0xa282ead8u);
}

// The header and one scalar, byte for byte as TensorBoard's own event loader read them.
static void bytes_are_the_known_ones(void **state)
{
    const struct fixture *f = *state;
    struct em_tensorboard t;
    expect_ok(em_tensorboard_open(&t, f->dir, -1));
    wall_seconds = 1700000001;
    expect_ok(em_tensorboard_write(
        &t, 300, (const struct em_tensorboard_scalar[]){{"loss", 2.5f}, {"lr", 0.25f}}, 2));
    expect_ok(em_tensorboard_sync(&t));
    em_tensorboard_close(&t);
    static const unsigned char header[] = {0x18, 0,    0,    0,    0,    0,    0,    0,
                                           0xa3, 0x7f, 0x4b, 0x22, // 24 bytes and their masked CRC
                                           0x09, 0,    0,    0x20, 0x40, 0xfc, 0x54, 0xd9,
                                           0x41, // wall_time = 1700000000.5
                                           0x1a, 0x0d, 'b',  'r',  'a',  'i',  'n',  '.',
                                           'E',  'v',  'e',  'n',  't',  ':',  '2'};
    static const unsigned char event[] = {
        0x09, 0,    0,    0x40, 0x40, 0xfc, 0x54, 0xd9, 0x41, // wall_time = 1700000001
        0x10, 0xac, 0x02,                                     // step = 300
        0x2a, 0x18,                                           // summary
        0x0a, 0x0b, 0x0a, 0x04, 'l',  'o',  's',  's',  0x15, 0, 0,    0x20,
        0x40, 0x0a, 0x09, 0x0a, 0x02, 'l',  'r',  0x15, 0,    0, 0x80, 0x3e};
    struct em_buf b = read_all(f);
    assert_int_equal(b.size, sizeof header + 4 + 12 + sizeof event + 4);
    assert_memory_equal(b.data, header, sizeof header);
    const unsigned char *second = (const unsigned char *)b.data + sizeof header + 4;
    assert_int_equal(second[0], sizeof event);
    assert_memory_equal(second + 12, event, sizeof event);
    const uint32_t crc = em_crc32c_masked(event, sizeof event);
    const unsigned char tail[] = {(unsigned char)crc, (unsigned char)(crc >> 8),
                                  (unsigned char)(crc >> 16), (unsigned char)(crc >> 24)};
    assert_memory_equal(second + 12 + sizeof event, tail, 4);
    em_buf_deinit(&b);
}

static void resuming_writes_what_an_uninterrupted_run_writes(void **state)
{
    const struct fixture *f = *state;
    struct em_tensorboard t;
    expect_ok(em_tensorboard_open(&t, f->dir, -1));
    for (int64_t step = 1; step <= 20; step++)
        write_step(&t, step, (float)step);
    em_tensorboard_close(&t);
    struct em_buf whole = read_all(f);
    // Back to step 12, the rest again; twice, with a torn record at the end.
    for (int again = 0; again < 2; again++) {
        struct em_append a;
        expect_ok(em_append_open(f->path, &a));
        expect_ok(em_append_write(&a, "\x20\0\0\0\0\0\0\0torn", 12));
        em_append_close(&a);
        expect_ok(em_tensorboard_open(&t, f->dir, 12));
        for (int64_t step = 13; step <= 20; step++)
            write_step(&t, step, (float)step);
        em_tensorboard_close(&t);
        struct em_buf b = read_all(f);
        assert_int_equal(b.size, whole.size);
        assert_memory_equal(b.data, whole.data, whole.size);
        em_buf_deinit(&b);
    }
    em_buf_deinit(&whole);
}

static void every_truncation_of_a_file_is_repaired(void **state)
{
    const struct fixture *f = *state;
    struct em_tensorboard t;
    expect_ok(em_tensorboard_open(&t, f->dir, -1));
    for (int64_t step = 1; step <= 3; step++)
        write_step(&t, step, 1);
    em_tensorboard_close(&t);
    struct em_buf whole = read_all(f);
    const size_t header = 12 + 24 + 4, record = (whole.size - header) / 3;
    for (size_t cut = 0; cut <= whole.size; cut++) {
        expect_ok(em_write_file(f->path, whole.data, cut));
        expect_ok(em_tensorboard_open(&t, f->dir, 100));
        em_tensorboard_close(&t);
        struct em_buf b = read_all(f);
        const size_t kept = cut < header ? header : header + (cut - header) / record * record;
        assert_int_equal(b.size, kept);
        assert_memory_equal(b.data, whole.data, kept);
        em_buf_deinit(&b);
    }
    em_buf_deinit(&whole);
}

static void a_flipped_bit_ends_the_file_there(void **state)
{
    const struct fixture *f = *state;
    struct em_tensorboard t;
    expect_ok(em_tensorboard_open(&t, f->dir, -1));
    for (int64_t step = 1; step <= 3; step++)
        write_step(&t, step, 1);
    em_tensorboard_close(&t);
    struct em_buf whole = read_all(f);
    const size_t header = 12 + 24 + 4, record = (whole.size - header) / 3;
    for (size_t i = header + record; i < header + 2 * record; i++) {
        whole.data[i] ^= 0x10;
        expect_ok(em_write_file(f->path, whole.data, whole.size));
        whole.data[i] ^= 0x10;
        expect_ok(em_tensorboard_open(&t, f->dir, 100));
        em_tensorboard_close(&t);
        struct em_buf b = read_all(f);
        assert_int_equal(b.size, header + record);
        em_buf_deinit(&b);
    }
    em_buf_deinit(&whole);
}

static void other_peoples_event_files_are_left_alone(void **state)
{
    const struct fixture *f = *state;
    char other[160];
    snprintf(other, sizeof other, "%s/events.out.tfevents.1600000000.host.v2", f->dir);
    expect_ok(em_write_file(other, "x", 1));
    struct em_tensorboard t;
    expect_ok(em_tensorboard_open(&t, f->dir, 5));
    em_tensorboard_close(&t);
    struct em_buf b;
    em_buf_init(&b, 0);
    expect_ok(em_read_file(other, 0, &b));
    assert_int_equal(b.size, 1);
    em_buf_deinit(&b);
    assert_true(em_path_exists(f->path));
}

static void every_failed_allocation_is_reported(void **state)
{
    const struct fixture *f = *state;
    bool done = false;
    for (size_t n = 1; !done; n++) {
        struct em_tensorboard t;
        assert_true(n < 200);
        em_alloc_fail_at(n, 0);
        ember_status status = em_tensorboard_open(&t, f->dir, 5);
        if (status == EMBER_OK) {
            status = em_tensorboard_write(&t, 6, &(struct em_tensorboard_scalar){"a", 1}, 1);
            em_tensorboard_close(&t);
        }
        em_alloc_fail_at(0, 0);
        done = status == EMBER_OK;
        if (!done) assert_int_equal(status, EMBER_E_NOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc_matches_the_published_values),
        cmocka_unit_test_setup_teardown(bytes_are_the_known_ones, setup, teardown),
        cmocka_unit_test_setup_teardown(resuming_writes_what_an_uninterrupted_run_writes, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(every_truncation_of_a_file_is_repaired, setup, teardown),
        cmocka_unit_test_setup_teardown(a_flipped_bit_ends_the_file_there, setup, teardown),
        cmocka_unit_test_setup_teardown(other_peoples_event_files_are_left_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(every_failed_allocation_is_reported, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
