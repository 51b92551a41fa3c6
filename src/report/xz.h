// What `xz -9e` makes of some bytes: the compressor that everybody has, as the yardstick beside a
// model's bits per byte. Needs liblzma at build time.
#ifndef EM_REPORT_XZ_H
#define EM_REPORT_XZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fail.h"

bool em_xz_available(void);

// The size of the .xz file that `xz -9e` (one thread) writes for these bytes, headers included.
// About 1 MB/s; memory in proportion to the bytes, at most about 700 MiB. EMBER_E_UNSUPPORTED:
// built without liblzma.
ember_status em_xz_size(const void *p, size_t n, uint64_t *size) EMBER_CHECKED;

// The memory that this touches, for forecasts; 0 where it is not available.
size_t em_xz_memory(size_t n);

#endif
