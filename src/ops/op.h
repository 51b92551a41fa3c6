// What an operation is: a coarse fused function with a shape rule, a cost, a forward and a backward
// per backend. One operation a file; ops/list.def names them all.
#ifndef EM_OPS_OP_H
#define EM_OPS_OP_H

#include <ember/batch.h>
#include <ember/operation.h>
#include <ember/ops.h>
#include <ember/tensor.h>

#include "base/arena.h"
#include "base/fail.h"
#include "base/threads.h"
#include "tensor/tensor.h"

enum em_backend { EM_REFERENCE, EM_CPU, EM_BACKENDS };

enum { EM_MAX_OUT = 4, EM_MAX_SAVED = 4, EM_ATTR_BYTES = 96 };

struct em_exec;
struct em_call;
struct em_program;
struct em_elementwise;

struct em_op {
    const char *name;
    // Checks the inputs and declares outputs, saved tensors and scratch (em_out_rows, em_out,
    // em_saved_*).
    ember_status (*shape)(struct em_call *c);
    // Of one run at the call's present dimensions: forward, and backward alone.
    void (*cost)(const struct em_call *c, struct em_cost *forward, struct em_cost *backward);
    struct {
        void (*forward)(const struct em_call *c);
        // Adds into in[i]->grad where that exists (see em_wants), reading out[i]->grad. NULL: the
        // operation has no gradient (its outputs get none).
        void (*backward)(const struct em_call *c);
    } backend[EM_BACKENDS];
    unsigned backward_reads; // EM_READS_IN(i) | EM_READS_OUT(i): what backward needs besides saved
                             // tensors and out gradients; inputs past the 7th never
    unsigned flags;
    unsigned residual; // the input, absent or of the output's shape, that is added to the output
                       // last and whose gradient is the output's; 0: the operation has none
    const struct em_elementwise *elementwise; // ops/elementwise.h fills the rest; NULL: it does not
};

// Both passes of a backend. A build without training has no backward: what only that uses is left
// out by compiler and linker.
#define EM_PASSES(forward_pass, backward_pass)                                                     \
    {                                                                                              \
        (forward_pass), EMBER_TRAINING ? (backward_pass) : NULL                                    \
    }

#define EM_READS_IN(i) (1u << (i))
#define EM_READS_OUT(i) (1u << (8 + (i)))
enum {
    // backward looks at em_fresh(c, i): it overwrites such a gradient instead of adding, so that
    // nobody has
    // to fill it with zeros first.
    EM_OP_SETS_FRESH = 1,
    // costs so little that its output is made again for backward steps that read it, instead of
    // being kept from forward (ops/recompute.c).
    EM_OP_REPEATS = 2,
    // a row of outputs needs the same rows of the inputs that have any, and of rows before them no
    // more than the call's slot of fixed size carries: forward may run over a part of the rows
    // after the other, each with the batch's part (ops/tiles.c).
    EM_OP_ROW_WISE = 4
};

struct em_call {
    const struct em_op *op;
    ember_tensor **in; // [n_in]; NULL where an optional input is absent
    ember_tensor *out[EM_MAX_OUT];
    ember_tensor *saved[EM_MAX_SAVED]; // written by forward for backward; only in training programs
    unsigned n_in, n_out, n_saved;
    int pass;          // in[pass]->grad equals out[0]->grad exactly (a residual path), -1: none
    bool passed;       // in[pass]->grad is the same memory as out[0]->grad: nothing to add
    bool has_backward; // in the present plan
    bool *fresh; // [n_in]: in[i]->grad holds garbage, and this backward sets it (EM_OP_SETS_FRESH)
    bool *zero;  // [n_in]: in[i]->grad is filled with zeros before this backward
    int region;  // recomputation region, -1: none
    int slot;    // first state slot, -1: none
    struct em_slot *carry; // the slot between parts of a sequence that runs in tiles; NULL: it does
                           // not
    const struct em_subset *subset; // the sequences it runs for; NULL: all
    const char *layer;              // path of the layer that recorded it
    size_t scratch;                 // bytes that forward or backward take from em_scratch_of(c)
    size_t packed;     // bytes of weights packed while it runs (em_program_options.packs_pass_by)
    unsigned n_packed; // and how many
    struct em_exec *exec; // while running
    struct em_program *program;
    double seconds[2]; // forward, backward: summed over runs
    size_t index;
    union {
        char bytes[EM_ATTR_BYTES]; // the operation's own constants: em_attr(c, struct x)
        double align;
    } attr;
};

#define em_attr(call, type) ((type *)(void *)(call)->attr.bytes)
#define em_attr_const(call, type) ((const type *)(const void *)(call)->attr.bytes)

// What a running program offers to kernels.
struct em_exec {
    enum em_backend backend;
    bool bf16;         // matrix products round their operands to bf16 (f32 accumulation)
    bool training;     // dropout and router noise on
    bool gradients;    // a backward follows: losses compute their gradient now
    double loss_scale; // losses are multiplied by it: 1 / scored tokens of the whole step
    double aux_scale;  // auxiliary losses' gradients are multiplied by it; 0: none
    uint64_t seed, step;
    uint64_t update; // of the parameters: as step, but passes of one update have the same
    struct em_pool *pool;
    struct em_scratch scratch;
    const ember_batch *batch; // in a run of tiles: the tile's part
    const size_t *sequence;   // in a subset: its sequences' numbers in the whole batch; NULL: it is
                              // the whole
    size_t first_token;       // of that part in the batch
    bool cut_before, cut_after; // its first sequence has tokens before it, its last one after it
    size_t reach;               // rows of em_out_reach()
    const float *values;        // [T, M]: what a squared error is measured from
    const int32_t *position;    // [T]: of each token in its sequence, states' positions included
    struct em_passing_pack *passing; // of the running call, in its scratch
    unsigned n_passing;
    char *passing_space;
};

// True when backward has to add into (or set) in[i]'s gradient.
static inline bool em_wants(const struct em_call *c, unsigned i)
{
    return c->in[i] && c->in[i]->grad && !(c->passed && (int)i == c->pass);
}
static inline bool em_fresh(const struct em_call *c, unsigned i)
{
    return c->fresh[i];
}
// Saved tensors exist only while a gradient is wanted.
static inline bool em_recording(const struct em_call *c)
{
    return c->n_saved > 0;
}

// ---- for the recording function of an operation (ember_xxx) ----

// A new call of `op` with n_in inputs; fill in[] and attr, then em_record(). NULL: out of memory.
struct em_call *em_call_new(ember_flow *flow, const struct em_op *op, unsigned n_in);
// Runs the shape rule and appends the call to the program.
ember_status em_record(ember_flow *flow, struct em_call *c) EMBER_CHECKED;

// ---- for shape rules ----

// Output i with as many rows as `like` times `rows_per_row`, following its run-time row count; the
// further dimensions are `dim[0..ndim)`.
ember_status em_out_rows(struct em_call *c, unsigned i, ember_dtype dtype, const ember_tensor *like,
                         size_t rows_per_row, const size_t *dim, unsigned ndim) EMBER_CHECKED;
ember_status em_out_like(struct em_call *c, unsigned i,
                         const ember_tensor *like) EMBER_CHECKED; // shape, rows; f32
ember_status em_out(struct em_call *c, unsigned i, ember_dtype dtype, const size_t *dim,
                    unsigned ndim) EMBER_CHECKED; // fixed shape
// The same for what backward needs; does nothing in programs without gradients (c->saved[i] stays
// NULL).
ember_status em_saved_rows(struct em_call *c, unsigned i, ember_dtype dtype,
                           const ember_tensor *like, size_t rows_per_row, const size_t *dim,
                           unsigned ndim) EMBER_CHECKED;
ember_status em_saved(struct em_call *c, unsigned i, ember_dtype dtype, const size_t *dim,
                      unsigned ndim) EMBER_CHECKED;

// Output i has one row per sequence / per token of the batch (embedding, last rows).
ember_status em_out_tokens(struct em_call *c, unsigned i, ember_dtype dtype, const size_t *dim,
                           unsigned ndim) EMBER_CHECKED;
ember_status em_out_sequences(struct em_call *c, unsigned i, ember_dtype dtype, const size_t *dim,
                              unsigned ndim) EMBER_CHECKED;
// Output i has `limit` rows at most: as many as the furthest sequence of the batch has tokens,
// those that its state has seen included, and twice as many where it leaves a state.
ember_status em_out_reach(struct em_call *c, unsigned i, ember_dtype dtype, size_t limit,
                          const size_t *dim, unsigned ndim) EMBER_CHECKED;
// What the operation makes now stays in memory until it makes it anew: nothing else of the program
// uses that memory. For what depends on parameters alone; em_weights_version() says when it is old.
void em_lasting(ember_tensor *t);
// The same of output i, in memory that all programs of a model share for calls with the same inputs
// (parameters) and attributes, as there is one filter for prompts and for tokens one by one.
ember_status em_lasting_shared(struct em_call *c, unsigned i) EMBER_CHECKED;
uint64_t em_weights_version(const struct em_call *c); // 1 at least; another after every change
// Output i has `each` rows per sequence of the batch: pixels of images.
ember_status em_out_pixels(struct em_call *c, unsigned i, ember_dtype dtype, size_t each,
                           const size_t *dim, unsigned ndim) EMBER_CHECKED;
// Output i's rows are those of expert e in a dispatch plan, at most max_rows of `like`.
ember_status em_out_expert(struct em_call *c, unsigned i, ember_dtype dtype,
                           const ember_tensor *like, ember_tensor *plan, size_t expert,
                           const size_t *dim, unsigned ndim) EMBER_CHECKED;
// Output i's rows are all those that a dispatch plan gives to its n_experts, at most `limit`.
ember_status em_out_plan(struct em_call *c, unsigned i, ember_dtype dtype, ember_tensor *plan,
                         size_t n_experts, size_t limit, const size_t *dim,
                         unsigned ndim) EMBER_CHECKED;

// What the batch has to bring, checked before a run: tokens below `vocabulary`; rows of `inputs`;
// targets below `vocabulary` (negative ones are not scored).
void em_need_vocabulary(struct em_call *c, size_t vocabulary);
void em_need_inputs(struct em_call *c);
void em_need_targets(struct em_call *c, size_t vocabulary);
void em_need_sequence_tokens(struct em_call *c, size_t tokens); // each sequence has just so many
// Kept to the end of the pass (statistics the trainer reads).
void em_keep(ember_tensor *t);
bool em_is_training(const struct em_call *c);       // the program has gradients
bool em_is_reference(const struct em_call *c);      // the program runs on that backend
unsigned em_call_threads(const struct em_call *c);  // threads that a run may use, for scratch sizes
size_t em_call_max_tokens(const struct em_call *c); // of a batch of the program
void em_need_scratch(struct em_call *c, size_t bytes);

// Fails with EMBER_E_SHAPE "op: ..." unless t is a contiguous (rows may be strided if `strided`)
// f32 tensor whose last dimension is `last` (0: any). `what` names it in the message.
ember_status em_check_f32(const struct em_call *c, const ember_tensor *t, const char *what,
                          size_t last) EMBER_CHECKED;

// True when two tensors always have equally many rows (their first dimensions, when a program
// runs); parameters agree with anything of their size. And when x has one row for each token of the
// batch.
bool em_same_rows(const ember_tensor *a, const ember_tensor *b);
bool em_has_token_rows(const ember_tensor *x);
// True when x's rows are those of the batch's sequences, one after the other: its tokens, or as
// many rows for each sequence (*each; 0: its tokens).
bool em_has_sequence_rows(const ember_tensor *x, size_t *each);
// Rows of x that come before those of the present tile.
size_t em_rows_before(const struct em_call *c, const ember_tensor *x);
// Where sequence s begins in such a tensor while it runs; s may be the number of sequences.
size_t em_first_row(const struct em_call *c, const ember_tensor *x, size_t s);

// ---- for kernels ----

static inline struct em_scratch *em_scratch_of(const struct em_call *c)
{
    return &c->exec->scratch;
}

// Weights packed for the matrix product, once per change of the weights. In the shape rule
// em_need_packed() reserves; in kernels em_packed() returns operand B of x W^T (EM_PACK_NT:
// forward) or of dy W (EM_PACK_NN: input gradient), packing it on the first use after a change. w
// [N, K], or [E, N, K]: E operands, each em_gemm_packed_size() bytes after the one before. `f32`:
// never rounded to bf16 (routers). The cpu backend only; needing and using must agree in all
// arguments.
enum em_pack { EM_PACK_NT, EM_PACK_NN };
ember_status em_need_packed(struct em_call *c, ember_tensor *w, enum em_pack which,
                            bool f32) EMBER_CHECKED;
const void *em_packed(const struct em_call *c, ember_tensor *w, enum em_pack which, bool f32);

// ---- state ----

// A slot of per-sequence state (<ember/operation.h>). Called by recording functions; slots are
// numbered in recording order.
ember_status em_need_state(ember_flow *flow, struct em_call *c,
                           const struct em_state_spec *spec) EMBER_CHECKED;

// The slot's memory in one sequence's state, all zero in a fresh one. NULL when the sequence starts
// fresh (in) or its state is not wanted (out). em_slot_out has room for all tokens of the
// sequence's part of this batch.
const struct em_slot *em_slot_in(const struct em_call *c, size_t sequence);
struct em_slot *em_slot_out(const struct em_call *c, size_t sequence);

#define EM_OP(symbol) extern const struct em_op em_op_##symbol;
#include "ops/list.def"
#undef EM_OP
// All operations, for tests and `ember bench`.
extern const struct em_op *const em_ops[];
extern const size_t em_ops_count;

#endif
