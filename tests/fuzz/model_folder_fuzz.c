// A model folder from anybody: config.json and model.safetensors, one after the other, the length
// of the first in front (u32, little endian). Refused, or a forward pass runs.
#include <ember/runtime.h>

#include "base/log.h"
#include "fuzz/folder.h"
#include "models/model.h"

static void run(struct em_model *m)
{
    struct em_program *p;
    struct em_model_outputs out;
    if (m->depth > 16) return; // deep ones are all alike
    if (em_program_create(&(struct em_program_options){.backend = EM_REFERENCE,
                                                       .max_tokens = 2,
                                                       .max_sequences = 1},
                          &p) != EMBER_OK)
        return;
    if (em_model_record(m, p, EM_HEAD_LAST, &out) == EMBER_OK) {
        static const float inputs[2 << 10];
        require(em_program_allocate(p) == EMBER_OK);
        ember_batch batch = {.n_tokens = 2,
                             .n_sequences = 1,
                             .offset = (size_t[]){0, 2},
                             .tokens = m->vocabulary ? (int32_t[]){0, 0} : NULL,
                             .inputs = m->vocabulary ? NULL : inputs};
        if (m->vocabulary || m->input_size <= 1 << 10)
            require(em_program_forward(p, &(struct em_run){.batch = &batch}) == EMBER_OK);
    }
    em_program_destroy(p);
}

static void target(const uint8_t *data, size_t size)
{
    uint32_t config;
    em_log_threshold(EM_LOG_WARN + 1);
    require(ember_start() == EMBER_OK);
    if (size < sizeof config) return;
    memcpy(&config, data, sizeof config);
    size -= sizeof config;
    if (config > size) config = (uint32_t)size;
    fuzz_put("config.json", data + sizeof config, config);
    fuzz_put("model.safetensors", data + sizeof config + config, size - config);
    struct em_model *m;
    if (em_model_open(fuzz_the_folder(), &m) != EMBER_OK) {
        require_reason(strstr(ember_last_error(), "config.json") ? "config.json"
                                                                 : "model.safetensors");
        return;
    }
    run(m);
    em_model_close(m);
}
