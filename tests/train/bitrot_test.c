// timeout: 1800
// One flipped bit, anywhere in a run's states or in a model's weights: it is found by its hash, the
// file is named, and the tensor where there is one; the state before is taken, in one line.
#include "train/run_check.h"

#include <fcntl.h>
#include <unistd.h>

#include "models/model.h"

static struct em_rng rng;

static void flip(const char *path, uint64_t bit)
{
    unsigned char byte;
    const int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)(bit / 8)), 1);
    byte = (unsigned char)(byte ^ 1u << bit % 8);
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)(bit / 8)), 1);
    assert_int_equal(close(fd), 0);
}

static uint64_t bits_of(const char *path)
{
    struct em_file_hash hash;
    CHECK_OK(em_hash_file(path, false, &hash));
    return 8 * hash.bytes;
}

// The note of the state that is passed over names the file; for a tensor's bytes the tensor.
static void check_note(const char *file, const char *tensor)
{
    if (!strstr(check_notes, file) || !strstr(check_notes, "is not whole and is skipped"))
        fail_msg("the note does not name %s: %s", file, check_notes);
    if (tensor && !strstr(check_notes, tensor))
        fail_msg("the note does not name tensor %s: %s", tensor, check_notes);
    const char *end = strchr(check_notes, '\n');
    assert_true(end && end[1] == '\0'); // one line
}

// The tensor that has this byte of the file, or NULL; its name is kept in a buffer.
static const char *tensor_at(const char *path, uint64_t byte)
{
    static char name[256];
    struct em_safetensors *f;
    CHECK_OK(em_safetensors_open(path, &f));
    struct em_file_hash hash;
    CHECK_OK(em_hash_file(path, false, &hash));
    uint64_t data = 0; // bytes of all tensors, at the file's end
    for (size_t i = 0; i < em_safetensors_count(f); i++)
        data += em_safetensors_at(f, i)->bytes;
    uint64_t at = hash.bytes - data;
    *name = '\0';
    for (size_t i = 0; i < em_safetensors_count(f) && byte >= at; i++) {
        const struct em_st_tensor *t = em_safetensors_at(f, i);
        if (byte < at + t->bytes) {
            snprintf(name, sizeof name, "%s", t->name);
            break;
        }
        at += t->bytes;
    }
    em_safetensors_close(f);
    return *name ? name : NULL;
}

static void a_flipped_bit_in_a_state_is_found(void **state)
{
    (void)state;
    const char *out = test_path(check.dir, "rot"), *newest = test_path(out, "training/step-6");
    fault_copy_tree(check.whole, out);
    struct em_manifest m;
    CHECK_OK(em_manifest_read(newest, &m));
    size_t flips = 0, tensors = 0, same = 0;
    for (const size_t wanted = em_test_amount(100, 1000); flips < wanted; flips++) {
        // The manifest and LATEST in their turn, else a file of the state.
        const size_t i = flips % (m.count + 2);
        const char *name = i < m.count    ? m.files[i].name
                           : i == m.count ? EM_MANIFEST_NAME
                                          : "../LATEST";
        const char *path = test_path(newest, name);
        const uint64_t bit = em_rng_below(&rng, bits_of(path));
        const char *tensor = check_ends(name, ".safetensors") ? tensor_at(path, bit / 8) : NULL;
        fault_sweep_case("bit %llu of %s", (unsigned long long)bit, path);
        flip(path, bit);
        *check_notes = '\0';
        char *found;
        uint64_t step;
        CHECK_OK(em_state_find(out, &found, &step));
        em_free(found);
        // Nothing rests on LATEST; a space of the manifest may be another one.
        if (step == CHECK_STEPS && i >= m.count) {
            assert_string_equal(check_notes, "");
            same++;
        } else {
            assert_int_equal(step, CHECK_STEPS - 2);
            check_note(name, tensor);
            tensors += tensor != NULL;
        }
        flip(path, bit);
    }
    em_manifest_deinit(&m);
    print_message(
        "%zu flipped bits in a state, %zu in tensors that are named, %zu that say nothing\n", flips,
        tensors, same);
    assert_true(tensors > flips / 8);
    fault_sweep_case("%s", "");
}

// The run goes on from the state before, and ends as the undisturbed one.
static void a_run_goes_on_from_the_state_before(void **state)
{
    (void)state;
    const char *out = test_path(check.dir, "resumed");
    for (size_t i = 0; i < em_test_amount(2, 20); i++) {
        fault_copy_tree(check.whole, out);
        const char *path = test_path(out, i % 2 ? "training/step-6/optimizer.safetensors"
                                                : "training/step-6/model.safetensors");
        flip(path, em_rng_below(&rng, bits_of(path)));
        check_goes_on(out, CHECK_STEPS - 2);
        assert_non_null(strstr(check_notes, "is not whole and is skipped"));
    }
}

// Both states damaged: refused, and nothing is removed.
static void without_a_whole_state_nothing_is_begun_anew(void **state)
{
    (void)state;
    const char *out = test_path(check.dir, "lost");
    fault_copy_tree(check.whole, out);
    static const char *const files[] = {"training/step-4/model.safetensors",
                                        "training/step-6/state.json"};
    for (size_t i = 0; i < 2; i++)
        flip(test_path(out, files[i]), em_rng_below(&rng, bits_of(test_path(out, files[i]))));
    CHECK_FAILS(check_run(out, true), EMBER_E_FORMAT, "none of 2 training states is whole");
    assert_true(em_path_exists(test_path(out, "training/step-6/state.json")));
    run_same_file(check.whole, out, "model.safetensors");
}

// A model's folder has no manifest: its weights' own hashes find what is in a tensor, and the
// parser what is in the header.
static void a_flipped_bit_in_a_model_is_found(void **state)
{
    (void)state;
    const char *out = test_path(check.dir, "model"), *path = test_path(out, "model.safetensors");
    fault_copy_tree(check.whole, out);
    struct em_model *m;
    CHECK_OK(em_model_open(out, &m));
    em_model_close(m);
    size_t data = 0, header = 0, harmless = 0;
    for (const size_t wanted = em_test_amount(100, 1000); data + header < wanted;) {
        const uint64_t bit = em_rng_below(&rng, bits_of(path));
        const char *tensor = tensor_at(path, bit / 8);
        fault_sweep_case("bit %llu of %s", (unsigned long long)bit, path);
        flip(path, bit);
        const ember_status status = em_model_open(out, &m);
        if (status == EMBER_OK) {
            em_model_close(m);
            if (tensor) fail_msg("a flipped bit in tensor %s was not found", tensor);
            harmless++;
        } else if (tensor) {
            if (status != EMBER_E_FORMAT || !strstr(ember_last_error(), tensor) ||
                !strstr(ember_last_error(), "XXH3"))
                fail_msg("%s is not named: %s", tensor, ember_last_error());
        } else {
            assert_non_null(strstr(ember_last_error(), path));
        }
        tensor ? data++ : header++;
        flip(path, bit);
    }
    print_message(
        "%zu flipped bits in a model's tensors, all found; %zu in its header, %zu of them "
        "without a meaning\n",
        data, header, harmless);
    assert_true(data > header);
    fault_sweep_case("%s", "");
}

static int start(void **state)
{
    em_rng_seed(&rng, 14, 0);
    return check_start(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAULT_TEST(a_flipped_bit_in_a_state_is_found),
        FAULT_TEST(a_run_goes_on_from_the_state_before),
        FAULT_TEST(without_a_whole_state_nothing_is_begun_anew),
        FAULT_TEST(a_flipped_bit_in_a_model_is_found),
    };
    return cmocka_run_group_tests(tests, start, check_stop);
}
