// What the system says of this process.
#ifndef EM_BASE_PROCESS_H
#define EM_BASE_PROCESS_H

#include <stdint.h>

// Bytes of memory that are resident now, and their maximum so far; 0 where that is not known.
uint64_t em_process_resident(void);
uint64_t em_process_peak(void);

#endif
