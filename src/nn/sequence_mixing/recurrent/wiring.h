// Wirings: which neurons have synapses to which, and whether they excite or inhibit.
//
// Neurons are numbered from the motor neurons (the outputs) to the inter neurons that the senses
// reach; layers are listed the way signals go, inter, command, motor. Lechner et al. 2020, "Neural
// circuit policies enabling auditable autonomy".
#ifndef EM_NN_WIRING_H
#define EM_NN_WIRING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"

enum { EM_WIRING_LAYERS = 8, EM_WIRING_UNITS = 8192 };

struct em_wiring {
    size_t inputs, units, outputs, layers;
    size_t layer[EM_WIRING_LAYERS]; // neurons, as signals go; their sum is `units`
    int8_t *sensory, *synapse; // [inputs][units], [units][units]: source to destination, -1, 0, 1
};

// What to make. The specification is one of
//   ""  or "full"                    every synapse, `units` neurons and `outputs` of them motor
//   ones "random:SPARSITY"                that share of them missing
//   "auto:UNITS,OUTPUTS[,SPARSITY]"  inter, command and motor neurons (sparsity 0.5)
//   "ncp:INTER,COMMAND,MOTOR,SENSORY_FANOUT,INTER_FANOUT,RECURRENT,MOTOR_FANIN"
//   "layers:N,N,.."                  layers with every synapse from one to the next
//   a wiring file's text (docs/wirings.md)
struct em_wiring_request {
    const char *specification;
    size_t inputs, units, outputs; // of "full" and "random"; outputs 0: all
    uint64_t seed;
};

// Sizes alone where `arena` is NULL. EMBER_E_CONFIG with what is wrong in the specification.
ember_status em_wiring_make(const struct em_wiring_request *request, struct em_arena *arena,
                            struct em_wiring *wiring) EMBER_CHECKED;
// The text of a wiring file.
ember_status em_wiring_write(const struct em_wiring *wiring, struct em_buf *text) EMBER_CHECKED;

// The first neuron of layer l.
size_t em_wiring_first(const struct em_wiring *wiring, size_t l);

// wiring_read.c: the text of a wiring file.
ember_status em_wiring_read(const char *text, size_t inputs, struct em_arena *arena,
                            struct em_wiring *wiring) EMBER_CHECKED;
ember_status em_wiring_allocate(struct em_wiring *wiring, struct em_arena *arena) EMBER_CHECKED;

#endif
