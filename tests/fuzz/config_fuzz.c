// A config of any family: read, built, planned for a small batch. Whatever is accepted can be
// recorded.
#include <ember/runtime.h>

#include "base/log.h"
#include "fuzz/target.h"
#include "models/model.h"

static void record(const struct em_model *m)
{
    struct em_program *p;
    struct em_model_outputs out;
    size_t total, active;
    em_model_count(m, &total, &active);
    if (m->depth > 64 || m->n_file_tensors > 4096)
        return; // recording takes time by depth; deep ones are all alike
    if (em_program_create(&(struct em_program_options){.backend = EM_REFERENCE,
                                                       .max_tokens = 3,
                                                       .max_sequences = 2},
                          &p) != EMBER_OK)
        return;
    if (em_model_record(m, p, EM_HEAD_ALL, &out) == EMBER_OK &&
        em_program_plan(p, NULL) != EMBER_OK)
        abort();
    em_program_destroy(p);
}

static void target(const uint8_t *data, size_t size)
{
    json_t *config;
    struct em_model *m;
    em_log_threshold(EM_LOG_WARN + 1);
    if (ember_start() != EMBER_OK) abort();
    if (em_json_parse("config.json", (const char *)data, size, EM_JSON_COMMENTS, &config) !=
        EMBER_OK) {
        require_reason("config.json");
        return;
    }
    if (em_model_create(config, "config.json", NULL, &m) == EMBER_OK) {
        record(m);
        em_model_close(m);
    } else {
        require_reason("config.json");
    }
    json_decref(config);
}
