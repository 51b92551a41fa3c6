// Dense models as mixtures: every channel mixer becomes experts that begin as it (Komatsuzaki et
// al. 2022, arXiv:2212.05055).
#ifndef EM_MODELS_UPCYCLE_H
#define EM_MODELS_UPCYCLE_H

#include "base/buf.h"
#include "models/model.h"

struct em_upcycle {
    size_t experts, k;
    double noise; // on all experts but the first: normal, times this and each tensor's root mean
                  // square
    const size_t *layer; // [layers] blocks; 0: all that have a channel mixer
    size_t layers;
    uint64_t seed;
};

// `from` is changed on the way and is only good for closing afterwards. A line for each block is
// appended to `said`. Of free block lists (family ember) alone.
ember_status em_upcycle(struct em_model *from, const struct em_upcycle *how, struct em_buf *said,
                        struct em_model **out) EMBER_CHECKED;

#endif
