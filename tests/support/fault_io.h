// A file table (em_io) that fails on demand: the k-th call with an errno, short reads and writes,
// interrupted calls, a full disk, a process that is killed, and a power cut after which everything
// that was not fsynced is as a disk may leave it. tests/support/fault_sweep.h goes over all k.
#ifndef EMBER_TESTS_FAULT_IO_H
#define EMBER_TESTS_FAULT_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fault_call {
    FAULT_OPEN,
    FAULT_READ,
    FAULT_PREAD,
    FAULT_WRITE,
    FAULT_FSYNC,
    FAULT_CLOSE,
    FAULT_RENAME,
    FAULT_UNLINK,
    FAULT_MKDIR,
    FAULT_RMDIR,
    FAULT_FSTAT,
    FAULT_STAT,
    FAULT_MMAP,
    FAULT_FTRUNCATE,
    FAULT_STATVFS,
    FAULT_FDOPENDIR,
    FAULT_READDIR,
    FAULT_CLOSEDIR,
    FAULT_FLOCK,
    FAULT_CALLS
};

// Start from {0}: nothing fails. Calls are counted from 1.
struct fault_plan {
    size_t fail_call;               // the k-th call of any kind fails with `error`
    size_t fail_of[FAULT_CALLS];    // the k-th call of that kind
    bool for_good;                  // so do all calls (of that kind) after it
    int error;                      // 0: EIO. A close that fails has closed all the same.
    bool only_half;                 // call fail_call does half of its bytes instead of failing
    size_t full_from;               // from this call on nothing that takes space succeeds: ENOSPC
    size_t most_written, most_read; // bytes a call; 0: no limit
    size_t interrupt_every;         // each n-th open, read, write or fsync gives EINTR first
    size_t
        power_cut; // from the k-th call on nothing happens any more, and every call fails with EIO
    bool lossy;    // remember what a power cut would lose, without one: for faults_power_up
    size_t kill_call;  // at this call the process gets SIGKILL; half of a write is done then
    const char *after; // count from the nth mkdir of a path with this in it; NULL: from the begin
    size_t nth;
};

void faults_begin(const struct fault_plan *plan);
size_t faults_calls(void);
bool faults_struck(void); // the planned failure or power cut has come
void faults_end(void);    // back to the system's table, nothing is lost

// What call k was, until the next faults_begin.
enum fault_call faults_kind(size_t k);
const char *faults_describe(size_t k); // "call 12 (rename ../training/LATEST)"; one static buffer
// The first call of a kind from `from` on whose path has `part` in it; 0: none.
size_t faults_find(size_t from, enum fault_call kind, const char *part);

// Ends as well, and leaves on the disk what a power cut at this moment may leave. Of the changes of
// names (create, rename, unlink, mkdir, rmdir) in directories not fsynced since: all (seed 0), none
// (seed 1), the first few in order (even seeds), or any of them, but none that rests on one that is
// lost (odd seeds). Of files not fsynced since they were written: the old bytes, some of the new,
// zeros in place of the new, or a mixture by blocks.
void faults_power_up(uint64_t seed);

#endif
