// Prompts from anybody: no crash, no leak; what is accepted is whole.
#include "fuzz/target.h"
#include "infer/prompts.h"

static void target(const uint8_t *data, size_t size)
{
    struct em_prompts p;
    if (em_prompts_parse("prompts.jsonl", (const char *)data, size, &p) != EMBER_OK) {
        require_reason("prompts.jsonl");
        return;
    }
    if (!p.count) abort();
    for (size_t i = 0; i < p.count; i++) {
        const struct em_prompt *q = &p.prompt[i];
        if (!q->name || !q->line || (q->text != NULL) == (q->ids != NULL)) abort();
        for (size_t k = 0; k < q->n_ids; k++)
            if (q->ids[k] < 0) abort();
    }
    em_prompts_deinit(&p);
}
