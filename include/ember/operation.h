/**
 * @file operation.h  Operations of one's own, for layers that those of <ember/ops.h> do not
 * suffice for: a shape rule, a cost, a forward and a backward.
 *
 * A layer's forward() records a use of the operation with ember_operate(). The shape rule runs then
 * and declares what the operation makes; forward and backward run later, as often as the recorded
 * program does, with the rows that are there at that time. They have to give the same bits for any
 * number of threads: split work over what is written, never over what is summed.
 *
 * An operation is data and functions without state; all of it has to live as long as the program.
 */
#ifndef EMBER_OPERATION_H
#define EMBER_OPERATION_H

#include <ember/batch.h>
#include <ember/layer.h>

#ifdef __cplusplus
extern "C" {
#endif

/** One recorded use of an operation: its inputs, outputs, constants, and memory while it runs. */
typedef struct em_call ember_call;

/** What running takes: for plans and profiles. */
typedef struct em_cost {
    double flops, bytes; /**< multiply and add count as two; bytes read and written once each */
} ember_cost;

#define EMBER_OPERATION_INPUTS 8
#define EMBER_OPERATION_OUTPUTS 4
#define EMBER_OPERATION_SAVED 4
#define EMBER_OPERATION_CONSTANTS 96 /**< bytes */

#define EMBER_READS_INPUT(i) (1u << (i))
#define EMBER_READS_OUTPUT(i) (1u << (8 + (i)))

/** Start from {0}. */
typedef struct ember_operation {
    const char *name;
    /** Checks the inputs and declares outputs, what is saved, and scratch. */
    ember_status (*shape)(ember_call *call);
    /** Of one run with the dimensions that the tensors have now: forward, and backward alone. */
    void (*cost)(const ember_call *call, ember_cost *forward, ember_cost *backward);
    void (*forward)(const ember_call *call);
    /** Adds to the inputs' gradients, reading the outputs'. NULL: no gradient passes. */
    void (*backward)(const ember_call *call);
    /** The same for `--backend reference`: plain loops, sums in double. NULL: as above. */
    void (*reference_forward)(const ember_call *call);
    void (*reference_backward)(const ember_call *call);
    /** EMBER_READS_INPUT(i) | EMBER_READS_OUTPUT(i): whose values backward needs, besides what was
     * saved and the outputs' gradients. Others may be gone by then. */
    unsigned backward_reads;
} ember_operation;

/** What a sequence keeps from one call to the next, in floats. Zero in a fresh one. */
typedef struct em_state_spec {
    const char *name;
    size_t fixed;     /**< floats, whatever the sequence's length */
    size_t per_token; /**< floats for each token that was seen, */
    size_t window;    /**< of the last `window` tokens; 0: of all */
} ember_state_spec;

/** How an operation is used. Start from {0}. */
typedef struct ember_use {
    ember_tensor *const *in;       /**< [n_in]; NULL where an optional input is absent */
    unsigned n_in;                 /**< at most EMBER_OPERATION_INPUTS */
    const void *constants;         /**< [constant_bytes], copied, for ember_constants() */
    size_t constant_bytes;         /**< at most EMBER_OPERATION_CONSTANTS */
    const ember_state_spec *state; /**< copied, its name is not; NULL: none is kept */
} ember_use;

/**
 * Records a use of the operation. out[0 .. n_out) are what its shape rule made, owned by the flow.
 * @retval EMBER_E_SHAPE  what the shape rule refused; or it made another number of outputs.
 * @retval EMBER_E_RANGE  too many inputs or constants, or an operation without its functions.
 */
EMBER_API EMBER_CHECKED ember_status ember_operate(ember_flow *flow,
                                                   const ember_operation *operation,
                                                   const ember_use *use, ember_tensor **out,
                                                   unsigned n_out);

/* ---- everywhere: shape rule, cost, forward, backward ---- */

/** Input, output or saved tensor i; NULL where there is none. The shape rule sees the most rows
 * that there can be, and no data. */
EMBER_API const ember_tensor *ember_call_in(const ember_call *call, unsigned i);
EMBER_API ember_tensor *ember_call_out(const ember_call *call, unsigned i);
EMBER_API ember_tensor *ember_call_saved(const ember_call *call, unsigned i);
/** The copy of `use.constants`. */
EMBER_API const void *ember_call_constants(const ember_call *call);

/* ---- for shape rules ---- */

/** Fails with EMBER_E_SHAPE, the operation's name in front. */
EMBER_API EMBER_CHECKED ember_status ember_call_refuse(const ember_call *call, const char *format,
                                                       ...) EMBER_PRINTF(2, 3);
/** Fails unless input i (`what` in the message) is there, f32, contiguous in its last dimension,
 * which is `last` (0: any). Its rows may be strided. */
EMBER_API EMBER_CHECKED ember_status ember_call_need_f32(const ember_call *call, unsigned i,
                                                         const char *what, size_t last);
/** Output i: as many rows as `like` has, times rows_per_row; further dimensions dim[0 .. ndim). */
EMBER_API EMBER_CHECKED ember_status ember_call_makes(ember_call *call, unsigned i,
                                                      ember_dtype dtype, const ember_tensor *like,
                                                      size_t rows_per_row, const size_t *dim,
                                                      unsigned ndim);
/** The same for what forward leaves to backward; ember_call_saved() is NULL where no gradient is
 * wanted. */
EMBER_API EMBER_CHECKED ember_status ember_call_saves(ember_call *call, unsigned i,
                                                      ember_dtype dtype, const ember_tensor *like,
                                                      size_t rows_per_row, const size_t *dim,
                                                      unsigned ndim);
/** Room for what forward or backward take with ember_call_scratch(); each piece is rounded up to
 * EMBER_SCRATCH_ALIGNMENT bytes. */
#define EMBER_SCRATCH_ALIGNMENT 128
EMBER_API void ember_call_needs_scratch(ember_call *call, size_t bytes);
/** Threads that a run may use: for scratch of each. */
EMBER_API unsigned ember_call_threads(const ember_call *call);

/* ---- for forward and backward ---- */

/** The gradient of output i, to be read. */
EMBER_API const ember_tensor *ember_call_out_gradient(const ember_call *call, unsigned i);
/** The gradient of input i, to be added to; NULL: not wanted. */
EMBER_API ember_tensor *ember_call_in_gradient(const ember_call *call, unsigned i);

/** Uninitialised, until the function that takes it returns; within what the shape rule asked for.
 */
EMBER_API void *ember_call_scratch(const ember_call *call, size_t bytes);

/** Items [begin, end) are this call's; `thread` is unique among those that run at the same time. */
typedef void ember_task(void *arg, size_t begin, size_t end, unsigned thread);
/** Runs `task` over [0, count) on all threads, in pieces of at most `grain` items. */
EMBER_API void ember_call_parallel(const ember_call *call, size_t count, size_t grain,
                                   ember_task *task, void *arg);

/** The batch that is being run. An activation's row t is its token t, unless experts run on it. */
EMBER_API const ember_batch *ember_call_batch(const ember_call *call);

/** A sequence's memory. */
typedef struct em_slot {
    float *fixed;  /**< [fixed] */
    float *tokens; /**< [capacity][per_token]: `length` of them are there, oldest first */
    size_t length, capacity;
} ember_slot;
/** What the sequence starts from; NULL: a fresh start. */
EMBER_API const ember_slot *ember_call_slot_in(const ember_call *call, size_t sequence);
/**
 * What it leaves; NULL: not wanted. To be written whole: `fixed`, and `tokens` (what is kept of the
 * old ones, then the new ones, for which there is room) with their `length`. May be the memory that
 * the sequence starts from, but never where a backward follows.
 */
EMBER_API ember_slot *ember_call_slot_out(const ember_call *call, size_t sequence);

/** Row r of a f32 tensor. */
static inline float *ember_row(const ember_tensor *t, size_t r)
{
    return (float *)t->data + r * t->stride[0];
}

#ifdef __cplusplus
}
#endif
#endif
