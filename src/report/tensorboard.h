// Scalars as TensorBoard event files (TFRecord framing around tensorflow.Event messages), written
// without TensorFlow. A file that a crash left is continued: a record cut in two is removed, and so
// are the steps after the one that the run resumes from.
#ifndef EM_REPORT_TENSORBOARD_H
#define EM_REPORT_TENSORBOARD_H

#include <stddef.h>
#include <stdint.h>

#include "base/fail.h"
#include "base/io.h"

struct em_tensorboard {
    struct em_append file;
    double wall_time; // of the last record: time in a file never goes back
};

struct em_tensorboard_scalar {
    const char *tag; // "loss/train"; UTF-8
    float value;
};

// Opens DIR/events.out.tfevents.N.ember, the newest there is or a new one named by the time.
// Records with a step after `last_step` are cut off; a negative one removes everything but the
// header.
ember_status em_tensorboard_open(struct em_tensorboard *t, const char *dir,
                                 int64_t last_step) EMBER_CHECKED;
// One record with all the values of a step.
ember_status em_tensorboard_write(struct em_tensorboard *t, int64_t step,
                                  const struct em_tensorboard_scalar *scalars,
                                  size_t count) EMBER_CHECKED;
ember_status em_tensorboard_sync(struct em_tensorboard *t) EMBER_CHECKED;
void em_tensorboard_close(struct em_tensorboard *t); // {0} is not open: use after a successful open

// How many of a file's bytes are whole, sound records up to `last_step`; sets *wall_time to the
// last one's.
uint64_t em_tensorboard_sound_size(const unsigned char *p, size_t n, int64_t last_step,
                                   double *wall_time);

// CRC-32C (Castagnoli), and its masked form in record frames.
uint32_t em_crc32c(const void *p, size_t n);
uint32_t em_crc32c_masked(const void *p, size_t n);

#endif
