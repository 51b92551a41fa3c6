// Packed copies of weights, shared by all programs of a model: made once, made anew after a change.
#ifndef EM_OPS_WEIGHTS_H
#define EM_OPS_WEIGHTS_H

#include "ops/op.h"

struct em_weights;

ember_status em_weights_create(struct em_weights **weights) EMBER_CHECKED;
void em_weights_destroy(struct em_weights *w);
void em_weights_changed(struct em_weights *w);       // every packed copy is stale now
size_t em_weights_bytes(const struct em_weights *w); // of all copies that are needed

// Announces that (tensor, which, type) will be used; idempotent.
ember_status em_weights_need(struct em_weights *w, ember_tensor *t, enum em_pack which,
                             bool bf16) EMBER_CHECKED;
// Takes memory for what was announced and has none yet.
ember_status em_weights_allocate(struct em_weights *w) EMBER_CHECKED;
// The packed copy, fresh. Announced and allocated before; one thread at a time.
const void *em_weights_get(struct em_weights *w, ember_tensor *t, enum em_pack which, bool bf16,
                           struct em_pool *pool);

#endif
