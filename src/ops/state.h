// States of sequences: values that a forward pass starts from and leaves behind.
#ifndef EM_OPS_STATE_H
#define EM_OPS_STATE_H

#include "ops/op.h"

// The slots of a model's state, in recording order. Two layouts with equal specs are
// interchangeable.
struct em_state_layout {
    struct em_state_spec *spec;
    size_t count, capacity;
};

// True when states of one layout can be continued by programs of the other.
bool em_state_layouts_equal(const struct em_state_layout *a, const struct em_state_layout *b);

struct ember_state {
    struct em_state_layout layout; // its own copy: a state outlives the program it was made for
    size_t position;               // tokens seen
    struct em_slot *slot;          // [layout.count]
    size_t claimed;                // while a batch is checked: 1 + the sequence that writes it
};

ember_status em_state_create(const struct em_state_layout *layout,
                             ember_state **state) EMBER_CHECKED;
void em_state_destroy(ember_state *state);
void em_state_reset(ember_state *state); // position 0, all zero; keeps its memory
ember_status em_state_copy(const ember_state *from,
                           ember_state *to) EMBER_CHECKED; // same layout; to's memory is reused
size_t em_state_bytes(const ember_state *state);

// Room in every slot for what continuing `in` (NULL: a fresh start; may be `state` itself) by
// `more` tokens leaves. What the state holds stays as it is, also on failure.
ember_status em_state_reserve(ember_state *state, const ember_state *in, size_t more) EMBER_CHECKED;

#endif
