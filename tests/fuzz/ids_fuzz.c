// A safetensors file of token ids (data.ids) from anybody: refused, or every batch of every step
// can be filled with tokens of the vocabulary.
#include "data/ids.h"
#include "fuzz/folder.h"

#define FILE_NAME "ids.safetensors"

static void target(const uint8_t *data, size_t size)
{
    enum { VOCABULARY = 300 };
    fuzz_put(FILE_NAME, data, size);
    struct em_ids_source s;
    if (em_ids_open(fuzz_path(FILE_NAME), VOCABULARY, &s) != EMBER_OK) {
        require_reason(FILE_NAME);
        return;
    }
    require(s.steps && s.batch && s.seq >= 2);
    struct em_packed packed = {0};
    for (size_t step = 0; step < s.steps; step++) {
        require(em_ids_fill(&s, step, 0, s.batch, &packed) == EMBER_OK);
        require(packed.batch.n_tokens == s.batch * s.seq);
        for (size_t i = 0; i < packed.batch.n_tokens; i++)
            require(packed.tokens[i] >= 0 && packed.tokens[i] < VOCABULARY);
    }
    em_packed_deinit(&packed);
    em_ids_close(&s);
}
