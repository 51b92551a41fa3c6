// What the failing file table tells the disk that forgets.
#ifndef EMBER_TESTS_FAULT_PRIV_H
#define EMBER_TESTS_FAULT_PRIV_H

#include <sys/types.h>

#include "base/io.h"

// A fault of the tests' own machinery, not of what is tested: aborts.
void fault_need(bool true_here, const char *what);

// Each does the call by the system's table and remembers what a power cut would undo.
int disk_open(const char *path, int flags, mode_t mode);
void disk_dirty(int fd); // before the file's content changes
int disk_fsync(int fd);
int disk_rename(const char *from, const char *to);
int disk_unlink(const char *path);
int disk_mkdir(const char *path, mode_t mode);
int disk_rmdir(const char *path);

void disk_begin(void);             // what follows is passed on, and fsync does nothing
void disk_track(void);             // what follows is remembered
void disk_forget(void);            // everything lasts
void disk_power_up(uint64_t seed); // see faults_power_up

#endif
