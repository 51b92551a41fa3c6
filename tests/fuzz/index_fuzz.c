// model.safetensors.index.json from anybody, beside two shards that are fine: refused, or every
// tensor that it lists is there, once, in the shard that it names.
#include "base/json.h"
#include "base/log.h"
#include "formats/weights.h"
#include "fuzz/folder.h"

#define INDEX "model.safetensors.index.json"

static void put_shard(const char *file, const char *first, const char *second)
{
    static const float values[] = {1, 2, 3, 4, 5, 6};
    static const size_t two[] = {2}, square[] = {2, 2};
    const struct em_st_output tensors[] = {{first, two, values, 1, EM_ST_F32},
                                           {second, square, values, 2, EM_ST_F32}};
    require(em_safetensors_write(fuzz_path(file), &(struct em_st_write){.tensors = tensors,
                                                                        .count = 2}) == EMBER_OK);
}

static void check_tensors(const struct em_weights *w)
{
    json_t *root;
    require(em_json_read(fuzz_path(INDEX), 0, 0, &root) == EMBER_OK);
    const json_t *map = json_object_get(root, "weight_map");
    require(em_weights_count(w) == json_object_size(map));
    unsigned sum = 0;
    for (size_t i = 0; i < em_weights_count(w); i++) {
        const struct em_st_tensor *t = em_weights_at(w, i);
        require(json_is_string(json_object_get(map, t->name)));
        require(em_weights_find(w, t->name) == t);
        for (size_t k = 0; k < t->bytes; k++)
            sum += t->data[k];
    }
    volatile unsigned sink = sum; // the reads above are not optimised away
    (void)sink;
    json_decref(root);
}

static void target(const uint8_t *data, size_t size)
{
    static bool shards;
    if (!shards) {
        em_log_threshold(EM_LOG_WARN + 1);
        put_shard("a.safetensors", "embed", "layer.0");
        put_shard("b.safetensors", "layer.1", "head");
        shards = true;
    }
    fuzz_put(INDEX, data, size);
    struct em_weights *w;
    if (em_weights_open(fuzz_the_folder(), &w) != EMBER_OK) {
        require_reason(INDEX);
        return;
    }
    check_tensors(w);
    em_weights_close(w);
}
