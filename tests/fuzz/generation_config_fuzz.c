// generation_config.json from anybody: refused, or end tokens are of the vocabulary and sampling is
// within its ranges.
#include <math.h>

#include "base/log.h"
#include "fuzz/folder.h"
#include "infer/generation_config.h"

#define FILE_NAME "generation_config.json"

static void target(const uint8_t *data, size_t size)
{
    enum { VOCABULARY = 100 };
    static struct em_model model = {.name = "config.json", .vocabulary = VOCABULARY};
    em_log_threshold(EM_LOG_WARN + 1);
    fuzz_put(FILE_NAME, data, size);
    struct em_generation_config c;
    if (em_generation_config_read(&model, fuzz_the_folder(), NULL, &c) != EMBER_OK) {
        require_reason(FILE_NAME);
        return;
    }
    for (size_t i = 0; i < c.end_count; i++) {
        require(c.end[i] >= 0 && c.end[i] < VOCABULARY);
        require(em_generation_ends(&c, c.end[i]));
    }
    require(c.sampling.temperature >= 0 && isfinite(c.sampling.temperature));
    require(c.sampling.top_p >= 0 && c.sampling.top_p <= 1);
    require(c.sampling.min_p >= 0 && c.sampling.min_p <= 1);
    require(c.sampling.repeat_penalty >= 0.01 && c.sampling.repeat_penalty <= 100);
    em_generation_config_deinit(&c);
}
