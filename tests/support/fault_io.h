// A file table (em_io) that fails on demand: the k-th call with an errno, short reads and writes,
// interrupted calls, and a power cut after which everything that was not fsynced is as a disk may
// leave it.
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
    FAULT_CALLS
};

// Start from {0}: nothing fails. Calls are counted from 1.
struct fault_plan {
    size_t fail_call;               // the k-th call of any kind fails with `error`
    size_t fail_of[FAULT_CALLS];    // the k-th call of that kind
    bool for_good;                  // so do all calls of that kind after it (a full disk)
    int error;                      // 0: EIO. A close that fails has closed all the same.
    size_t most_written, most_read; // bytes a call; 0: no limit
    size_t interrupt_every;         // each n-th open, read, write or fsync gives EINTR first
    size_t
        power_cut; // from the k-th call on nothing happens any more, and every call fails with EIO
};

void faults_begin(const struct fault_plan *plan);
size_t faults_calls(void);
bool faults_struck(void); // the planned failure or power cut has come
void faults_end(void);    // back to the system's table, nothing is lost

// Ends as well, and leaves on the disk what a power cut at this moment may leave: of the changes of
// names (create, rename, unlink, mkdir, rmdir) in directories not fsynced since, the first few, in
// order; of files not fsynced since they were written, the old bytes, some of the new, or zeros.
// `seed` decides; over many seeds every such outcome comes up, with all and with none of the names
// kept for seeds 0 and 1.
void faults_power_up(uint64_t seed);

#endif
