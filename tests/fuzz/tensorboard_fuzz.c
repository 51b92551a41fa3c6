// Event files as a crash may leave them: what is kept is a prefix, whole, and kept again the second
// time.
#include <stdint.h>
#include <stdlib.h>

#include "report/tensorboard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    double wall_time = 0, again = 0;
    const uint64_t all = em_tensorboard_sound_size(data, size, INT64_MAX, &wall_time);
    const uint64_t some = em_tensorboard_sound_size(data, size, 10, &again);
    if (all > size || some > all) abort();
    if (em_tensorboard_sound_size(data, (size_t)all, INT64_MAX, &again) != all) abort();
    if (em_tensorboard_sound_size(data, (size_t)some, 10, &again) != some) abort();
    return 0;
}
