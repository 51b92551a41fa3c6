// Packed copies of weights, shared by all programs of a model: made once, made anew after a change;
// and memory for what else depends on weights alone.
#ifndef EM_OPS_PACKS_H
#define EM_OPS_PACKS_H

#include "ops/op.h"

struct em_packs;

ember_status em_packs_create(struct em_packs **weights) EMBER_CHECKED;
void em_packs_destroy(struct em_packs *w);
void em_packs_changed(struct em_packs *w);           // every packed copy is stale now
uint64_t em_packs_version(const struct em_packs *w); // grows with every change
size_t em_packs_bytes(const struct em_packs *w);     // of all copies and shares that are needed

// One packed copy of a weight [N, K], or of E of them [E, N, K]: its bytes (SIZE_MAX where they do
// not fit into size_t), and making it in `data`.
size_t em_pack_bytes(const ember_tensor *t, enum em_pack which, bool bf16);
void em_pack_into(ember_tensor *t, enum em_pack which, bool bf16, void *data, struct em_pool *pool);

// A copy that passes by: of the running call alone.
struct em_passing_pack {
    const ember_tensor *tensor;
    enum em_pack which;
    bool bf16;
    void *data;
};

// Announces that (tensor, which, type) will be used; idempotent.
ember_status em_packs_need(struct em_packs *w, ember_tensor *t, enum em_pack which,
                           bool bf16) EMBER_CHECKED;
// Announces memory of so many bytes, zeros at first, which everybody with the same key shares; what
// is in it, its users know. *number: of it, from 1.
ember_status em_packs_share(struct em_packs *w, const void *key, size_t key_size, size_t bytes,
                            size_t *number) EMBER_CHECKED;
char *em_packs_shared(const struct em_packs *w, size_t number); // after em_packs_allocate()

// Takes memory for what was announced and has none yet.
ember_status em_packs_allocate(struct em_packs *w) EMBER_CHECKED;
// The packed copy, fresh. Announced and allocated before; one thread at a time.
const void *em_packs_get(struct em_packs *w, ember_tensor *t, enum em_pack which, bool bf16,
                         struct em_pool *pool);

#endif
