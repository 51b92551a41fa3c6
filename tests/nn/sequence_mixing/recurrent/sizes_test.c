// How many parameters liquid networks have beside those of ncps: all of them, and those that train.
#include <ember/runtime.h>
#include <stdio.h>
#include <string.h>

#include "models/model.h"
#include "support/check.h"

static void as_many_parameters_as_in_ncps(void **state)
{
    (void)state;
    static const struct {
        const char *cell;
        size_t outputs, all, trainable;
    } known[] = {
        {"\"type\": \"ltc\", \"units\": 50", 50, 17790, 14290},
        {"\"type\": \"ltc\", \"wiring\": \"auto:28,4\"", 4, 6852, 5508},
        {"\"type\": \"cfc\", \"units\": 50", 50, 34888, 34888},
        {"\"type\": \"cfc\", \"units\": 50, \"mode\": \"pure\"", 50, 15638, 15638},
        {"\"type\": \"cfc\", \"wiring\": \"auto:28,4\"", 4, 4077, 3284},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct em_model *m;
        json_t *config;
        char text[512];
        size_t all = 0, trainable = 0;
        snprintf(text, sizeof text,
                 "{\"model_type\": \"ember\", \"hidden_size\": 20, \"output_size\": %zu, "
                 "\"output_matrix\": false, \"final_norm\": {\"type\": \"identity\"}, \"blocks\": "
                 "[{\"type\": \"plain\", \"sequence\": {%s, \"projection\": false}}]}",
                 known[i].outputs, known[i].cell);
        CHECK_OK(em_json_parse("config.json", text, strlen(text), 0, &config));
        CHECK_OK(em_model_create(config, "config.json", NULL, &m));
        for (size_t j = 0; j < m->params.count; j++) {
            const struct em_param *p = m->params.param[j];
            const size_t n = ember_tensor_count(&p->tensor);
            all += n;
            if (!p->frozen) trainable += n;
        }
        if (all != known[i].all || trainable != known[i].trainable)
            fail_msg("{%s}: %zu parameters, %zu of them train; not %zu and %zu", known[i].cell, all,
                     trainable, known[i].all, known[i].trainable);
        json_decref(config);
        em_model_close(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_many_parameters_as_in_ncps)};
    if (ember_start() != EMBER_OK) return 1;
    return cmocka_run_group_tests_name("nn/recurrent/sizes", tests, NULL, NULL);
}
