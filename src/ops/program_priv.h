// Inside of a program: shared by recording, planning and running.
#ifndef EM_OPS_PROGRAM_PRIV_H
#define EM_OPS_PROGRAM_PRIV_H

#include "ops/packs.h"
#include "ops/program.h"

// Where a tensor's number of rows (its first dimension) comes from when the program runs.
enum em_rows_source {
    EM_ROWS_FIXED,
    EM_ROWS_TOKENS,
    EM_ROWS_SEQUENCES,
    EM_ROWS_EXPERT,
    EM_ROWS_PLAN,
    EM_ROWS_REACH
};

#define EM_NEVER SIZE_MAX

// What the program knows of a tensor it made. Memory belongs to roots; views point into their
// root's.
struct em_tensor_info {
    ember_tensor *root;
    size_t root_offset; // bytes
    enum em_rows_source rows;
    size_t multiple;          // rows per unit of the source; EM_ROWS_REACH: the most rows
    const ember_tensor *plan; // EM_ROWS_EXPERT, EM_ROWS_PLAN: of all experts
    size_t expert;            // EM_ROWS_PLAN: how many there are
    bool keep;
    bool lasting;  // its memory is its own in every run
    size_t shared; // and that of every program with such a call: its number in the packs; 0: not
    bool is_grad;
    bool fused;     // it exists only within a sum that its operation makes now: nobody can read it
    bool tiled;     // it exists within a run of tiles only, and has memory for one tile
    bool unreached; // a gradient that nobody writes: its call's backward is given zeros
    // roots, when planned:
    size_t bytes, offset;
    size_t first, last;  // steps that touch it, EM_NEVER when none
    ember_tensor *alias; // a root whose memory this one shares (a passed gradient)
    size_t number;       // while residuals are fused
    ember_tensor *copy;  // the tensor's second life in backward, once it has one (regions: while
                         // they are cloned)
    const struct em_call *repeats; // makes it again for those backward steps that read it
};

struct step {
    struct em_call *call;
    bool backward;
    bool last; // of this call
};

// Steps [begin, end) of forward, all of them row-wise, that run over `rows` rows after the other.
struct tile_run {
    size_t begin, end, rows;
};

// Space for the batch of a subset (ops/subset.h): its sequences, one after the other.
struct em_subset_space {
    const struct em_subset *present; // whose batch this is; NULL: the whole batch runs
    ember_batch batch;
    size_t *offset, *sequence; // sequence: their numbers in the whole batch
    ember_state **state_in, **state_out;
    int32_t *labels, *tokens, *position;
    float *timespans;
};

struct ember_flow {
    struct em_program *program;
    const char *layer;
    int region, regions;          // the open one (-1) and how many there were
    const ember_routing *experts; // between ember_experts_begin and _end
    const ember_tensor *experts_input;
    const struct em_subset *subset; // between ember_sequences_begin and _end
    bool failed;                    // out of memory where nothing could say so
};

struct em_program {
    struct em_program_options options;
    struct em_arena arena;
    struct ember_flow flow;
    struct em_exec exec;
    struct em_packs *packs;
    bool owns_packs;

    struct em_call **call; // in recording order
    size_t n_calls, calls_capacity;
    ember_tensor **tensor; // every tensor made here, views and gradients included
    size_t n_tensors, tensors_capacity;
    struct em_router_record *router;
    size_t n_routers, routers_capacity;
    struct em_state_layout layout;
    ember_tensor *loss;
    size_t vocabulary;      // tokens are below it; 0: the program reads none
    bool values;            // it measures squared errors
    size_t targets;         // so are targets; 0: it scores none
    bool inputs;            // it reads the batch's vectors
    size_t sequence_tokens; // each sequence has so many; 0: any number

    struct step *step;
    size_t n_steps, steps_capacity, n_forward;
    struct tile_run *run;
    size_t n_runs, runs_capacity;
    ember_batch tile;             // the present one's part of the batch
    size_t *tile_offset;          // [max_sequences + 1]
    size_t carries;               // where in the block those of the runs' calls begin
    double work_done, work;       // operations of this forward, while somebody wants to know
    const struct em_run *watched; // by whom; NULL: nobody
    struct em_memory_plan memory;
    bool planned, allocated, forward_done;
    char *block;
    ember_batch batch;                // of the run; state_out completed by spare states
    ember_state **state_out, **spare; // [max_sequences], NULL until needed
    int32_t *position;
    bool subsets; // some calls run for some of the sequences
    struct em_subset_space subset;
};

ember_tensor *em_program_tensor(struct em_program *p);
ember_tensor *em_grad_for(struct em_program *p, ember_tensor *t);
void em_resolve_rows(const struct em_program *p, ember_tensor *t);
void em_place(struct em_program *p, char *block);
ember_status em_fuse_residuals(struct em_program *p) EMBER_CHECKED;
// Finds the runs of row-wise calls that are worth tiles, marks what lives within them alone, and
// lets all else that they touch live as long as they run. Lifetimes are known.
ember_status em_find_tiles(struct em_program *p) EMBER_CHECKED;
size_t em_carries_bytes(const struct em_program *p);
void em_place_carries(struct em_program *p, char *space);
// What a root takes in the block: a tiled one the rows of a tile.
size_t em_tile_bytes(const struct em_program *p, const ember_tensor *root);
void em_run_tiles(struct em_program *p, const struct tile_run *run);
// A call's forward with the rows that its tensors have now.
void em_run_call(struct em_program *p, struct em_call *c);
ember_status em_push_step(struct em_program *p, struct em_call *c, bool backward) EMBER_CHECKED;

// True when backward needs input i.
static inline bool em_reads_in(const struct em_op *op, unsigned i)
{
    return i < 8 && (op->backward_reads & EM_READS_IN(i));
}

// Pushes clones of the calls [begin, end) as far as backward needs them, and puts them into
// `backward`.
ember_status em_recompute_region(struct em_program *p, struct em_call **backward, size_t begin,
                                 size_t end) EMBER_CHECKED;
// Marks what calls of cheap operations make; then, before each backward step, pushes those calls
// again that its inputs need and lets it read their second output.
void em_find_repeats(struct em_program *p);
ember_status em_repeat_inputs(struct em_program *p, struct em_call **call) EMBER_CHECKED;

#endif
