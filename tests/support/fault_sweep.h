// Every file operation of a writer made to fail, and the power cut behind every one of them. A
// writer is a scenario of three functions; the sweeps do the rest:
//
//     static void before(const char *dir)         { ...write version 1 into dir... }
//     static ember_status call(const char *dir)   { ...write version 2 over what is there... }
//     static int version(const char *dir)         { ...1 or 2 by what can be read back whole... }
//
//     static void a_vocabulary_survives_its_disk(void **state)
//     {
//         (void)state;
//         static const struct fault_scenario s = {"vocabulary", before, call, version};
//         fault_sweep_calls(&s, 40);
//         fault_sweep_power(&s, 2);
//     }
//     ... FAULT_TEST(a_vocabulary_survives_its_disk) ...
#ifndef EMBER_TESTS_FAULT_SWEEP_H
#define EMBER_TESTS_FAULT_SWEEP_H

#include <stddef.h>
#include <stdint.h>

#include "support/check.h"
#include "support/fault_io.h"

struct fault_scenario {
    const char *name;
    void (*before)(const char *dir); // fills the empty folder; NULL: nothing is there before
    ember_status (*call)(const char *dir);
    // Which version the folder holds, all of it: 2, or what it was before (1, or 0 for nothing). It
    // fails the test when files are damaged or of two versions.
    int (*version)(const char *dir);
    const char *stays; // a part of the names that a failed call may leave for the next, or NULL
};

// Each call of `call` fails in turn, in seven ways: ENOSPC, EIO and EDQUOT once; EINTR, and half of
// the bytes, which must not be noticed; the disk full, and gone, from there on. Checked each time:
// no success without version 2; a message with path and reason; the old version or the new one
// whole; nothing left behind; and that the next call, without a fault, succeeds. In CI the first
// `first` calls and every 7th after them, each in one way more than the one before; all by
// EMBER_TEST_FULL.
void fault_sweep_calls(const struct fault_scenario *s, size_t first);

// The power is cut at every call, `outcomes` times each (full: ten times that, 50 at least), with
// what was not fsynced kept, lost, or kept in part and out of order.
void fault_sweep_power(const struct fault_scenario *s, size_t outcomes);

// What only reads: `call` gives a hash of what it read. A call that fails must fail it with a
// message, or not matter: never another result.
struct fault_reader {
    const char *name;
    ember_status (*call)(uint64_t *read);
    const char *path; // a message has this in it
};
void fault_sweep_reads(const struct fault_reader *r);

// Says at the end of a test that failed in which case it did.
#define FAULT_TEST(function) cmocka_unit_test_teardown(function, fault_sweep_tell)
int fault_sweep_tell(void **state);
// The case under way, for messages of one's own; set by tests that do not sweep by these functions.
void fault_sweep_case(const char *format, ...) EMBER_PRINTF(1, 2);

// Replaces folder `to` by a copy of `from`.
void fault_copy_tree(const char *from, const char *to);
// The paths of all files and folders below `dir`, sorted, each with a newline; owned, free().
char *fault_list_tree(const char *dir);
// Whether a durable write that was interrupted leaves such a name.
bool fault_is_temporary(const char *name);

#endif
