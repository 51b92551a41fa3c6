// The life of experts: the same model with more, fewer or merged experts in its mixtures.
#ifndef EM_MODELS_EXPERT_EDIT_H
#define EM_MODELS_EXPERT_EDIT_H

#include "base/buf.h"
#include "models/model.h"

enum em_expert_edit_kind { EM_EXPERTS_ADD, EM_EXPERTS_REMOVE, EM_EXPERTS_CLONE, EM_EXPERTS_MERGE };

// An expert that selection biases of this keep from being chosen is as good as none; files hold
// finite numbers alone.
#define EM_EXPERT_OFF (-1e30f)

struct em_expert_edit {
    enum em_expert_edit_kind kind;
    const size_t *expert; // [experts] removed, cloned, merged (into the first)
    size_t experts;
    size_t count;        // added
    const size_t *like;  // added ones begin as this one; NULL: at random
    double noise;        // on copies: normal, times this and the root mean square of each tensor
    bool off;            // new ones are not chosen yet
    const size_t *layer; // [layers] blocks whose mixtures change
    size_t layers;       // 0: all
    uint64_t seed;
};

// `from` is changed on the way and is only good for closing afterwards. A line for each mixture is
// appended to `said`.
ember_status em_expert_edit(struct em_model *from, const struct em_expert_edit *edit,
                            struct em_buf *said, struct em_model **out) EMBER_CHECKED;

#endif
