// The safetensors reader on any bytes: refused, or consistent: tensors lie inside the file, back to
// back, and every byte of them may be read.
#include "formats/safetensors.h"
#include "fuzz/target.h"

static void target(const uint8_t *data, size_t size)
{
    struct em_safetensors *f;
    if (em_safetensors_parse("model.safetensors", data, size, &f) != EMBER_OK) {
        require_reason("model.safetensors");
        return;
    }
    const unsigned char *at = NULL;
    unsigned sum = 0;
    for (size_t i = 0; i < em_safetensors_count(f); i++) {
        const struct em_st_tensor *t = em_safetensors_at(f, i);
        char shape[64];
        em_st_shape_text(t->shape, t->rank, shape, sizeof shape);
        if (at && t->data != at) abort();
        if (t->data < data || t->bytes > (size_t)(data + size - t->data)) abort();
        if (em_safetensors_find(f, t->name) != t) abort();
        for (size_t k = 0; k < t->bytes; k++)
            sum += t->data[k];
        at = t->data + t->bytes;
    }
    if (at && at != data + size) abort();
    for (size_t i = 0; i < em_safetensors_metadata_count(f); i++) {
        const struct em_st_pair pair = em_safetensors_metadata_at(f, i);
        if (!em_safetensors_metadata(f, pair.key)) abort();
        sum += (unsigned)strlen(pair.value);
    }
    em_safetensors_close(f);
    volatile unsigned sink = sum; // the reads above are not optimised away
    (void)sink;
}
