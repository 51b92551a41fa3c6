// A program: the operations of one pass, recorded once from the layers' forward functions, planned
// (every buffer gets a fixed offset in one block) and run many times with batches of at most the
// planned size.
#ifndef EM_OPS_PROGRAM_H
#define EM_OPS_PROGRAM_H

#include "ops/op.h"
#include "ops/packs.h"
#include "ops/state.h"

// What backward reads of forward may be kept, or made again by the same kernels, bit for bit
// (ops/recompute.c).
enum em_recompute {
    EM_RECOMPUTE_NONE,
    EM_RECOMPUTE_CHEAP,   // outputs of cheap operations (norms, gates) are made again when wanted
    EM_RECOMPUTE_REGIONS, // regions (blocks) keep only their input and run again in backward
};

struct em_program_options {
    enum em_backend backend;
    struct em_pool *pool;   // borrowed; NULL: the calling thread
    struct em_packs *packs; // borrowed: packed weights shared with other programs; NULL: its own
    size_t max_tokens;      // T: no batch may have more
    size_t max_sequences;   // S
    bool gradients;         // record for backward
    enum em_recompute recompute;
    bool packs_pass_by; // weights are packed anew wherever they are used, into scratch: where each
                        // is used once between changes, that costs no time and saves the copies
    size_t tile_rows; // rows of a tile, of the cpu backend, without gradients; 0: what caches like
    bool bf16;        // matrix products in bf16; the reference backend ignores it
};

ember_status em_program_create(const struct em_program_options *options,
                               struct em_program **program) EMBER_CHECKED;
void em_program_destroy(struct em_program *p);

// Recording: pass this to layers' forward. Parameters are tensors that the flow did not make; those
// with a grad tensor get gradients.
ember_flow *em_program_flow(struct em_program *p);
void em_program_output(struct em_program *p, ember_tensor *t); // keeps t readable after a forward
// The loss [1] that backward starts from.
void em_program_loss(struct em_program *p, ember_tensor *loss);

// Scopes, for profiles and messages: what is recorded inside belongs to `layer`; a region is
// recomputed as one.
void em_flow_enter(ember_flow *flow, const char *layer, const char **before);
void em_flow_leave(ember_flow *flow, const char *before);
ember_status em_flow_region_begin(ember_flow *flow) EMBER_CHECKED;
void em_flow_region_end(ember_flow *flow);
// Memory that lives as long as the program: an array of n tensors, all NULL; a copy of a routing.
ember_status em_flow_array(ember_flow *flow, size_t n, ember_tensor ***array) EMBER_CHECKED;
ember_status em_flow_keep_routing(ember_flow *flow, const ember_routing *routing,
                                  const ember_routing **kept) EMBER_CHECKED;
const struct em_program_options *em_flow_options(const ember_flow *flow);
// The routing whose experts run now (NULL: none), and whether x has to be gathered by it.
const ember_routing *em_flow_experts(const ember_flow *flow, const ember_tensor *x, bool *gather);

// Routers seen while recording, for balancing and reports. Kept after a forward.
struct em_router_record {
    const char *layer;
    ember_routing routing;
    ember_tensor *logits, *bias;        // bias: the selection bias, NULL without one
    float bias_rate;                    // of the update without loss
    const ember_tensor *dropped;        // [1] f32: choices that found no room; NULL: all find it
    ember_tensor *threshold, *sparsity; // buffers that the trainer moves, or NULL
    float threshold_rate;
    size_t target;                // experts of a token in the mean, for sparsity
    const ember_tensor *observed; // [E] f32: where thresholds should be, or NULL
    ember_tensor *stats; // [4] f32: aux loss, z loss, mean token entropy / log E, marginal entropy
                         // / log E (unscaled)
};
ember_status em_flow_router(ember_flow *flow, const struct em_router_record *record) EMBER_CHECKED;
size_t em_program_routers(const struct em_program *p, const struct em_router_record **records);

// The dry run: lifetimes, offsets, packed weights, scratch. No kernel runs and no big memory is
// taken.
struct em_memory_plan {
    size_t activations;    // the step's block: activations, saved tensors, gradients of activations
    size_t packed;         // packed weights
    size_t scratch;        // kernels' scratch
    size_t state;          // bytes of state per sequence at max_tokens, all slots
    size_t sum_of_buffers; // what it would be without reuse
};
ember_status em_program_plan(struct em_program *p, struct em_memory_plan *plan) EMBER_CHECKED;
struct em_cost em_program_cost(const struct em_program *p, bool backward); // at the planned sizes

// Takes the planned memory; needed once before the first run.
ember_status em_program_allocate(struct em_program *p) EMBER_CHECKED;

// Runs forward over a batch. Checks it first: sizes, offsets, tokens within the vocabulary (as the
// embedding says), states of the right layout. On failure no state has changed, and a backward has
// to wait for another forward. The batch's arrays and states have to stay as they are until
// backward has run.
struct em_run {
    const ember_batch *batch;
    bool training;                // dropout and router noise on
    bool gradients;               // a backward follows: losses compute their gradient
    double loss_scale, aux_scale; // see em_exec
    const float *values;          // [T, M], for programs with ember_squared_error()
    uint64_t seed, step;
    uint64_t update; // of the parameters, from 0: several passes may be of one
    // Told now and then what share of a forward's operations is done. NULL: nobody wants to know.
    void (*progress)(void *context, double share);
    void *context;
};
ember_status em_program_forward(struct em_program *p, const struct em_run *run) EMBER_CHECKED;
// Adds the loss's gradient into the parameters' gradients. Right after a forward.
ember_status em_program_backward(struct em_program *p) EMBER_CHECKED;

// Parameters changed: packed copies are made anew at the next use.
void em_program_weights_changed(struct em_program *p);

// Seconds per operation since the last reset, summed over calls: `visit` gets each call.
void em_program_visit(const struct em_program *p,
                      void (*visit)(void *context, const struct em_call *call), void *context);
void em_program_reset_profile(struct em_program *p);

// The layout of states that sequences of this program have.
const struct em_state_layout *em_program_layout(const struct em_program *p);

#endif
