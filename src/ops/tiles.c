// Tiles of rows: where a program without gradients has operations one after the other that need no
// row but their own (norms, products, gates, short convolutions), it runs all of them over some
// thousand rows, then over the next. What only they read has memory for one tile instead of the
// whole batch, and is still in the cache when it is read. Every row is computed by the same kernels
// from the same numbers; what a short convolution needs of the tile before goes through its slot.
#include "base/alloc.h"
#include "base/sizes.h"
#include "ops/program_priv.h"

// Bytes of the widest tensor of a tile, and the rows that a product takes to run well.
enum { TILE_BYTES = 8 << 20, LEAST_ROWS = 256, MOST_ROWS = 4096 };
// Tiles begin at multiples of the rows that a product's kernel takes at a time.
enum { ROWS_TOGETHER = 16 };

static bool has_token_rows(const ember_tensor *t)
{
    return t->info->rows == EM_ROWS_TOKENS;
}

static bool may_tile(const struct em_program *p, const struct em_call *c)
{
    if (!(c->op->flags & EM_OP_ROW_WISE) || c->subset) return false;
    if (c->slot >= 0 && p->layout.spec[c->slot].per_token) return false;
    for (unsigned i = 0; i < c->n_in; i++)
        if (c->in[i] && c->in[i]->info && !has_token_rows(c->in[i])) return false;
    for (unsigned i = 0; i < c->n_out; i++)
        if (c->out[i] && !has_token_rows(c->out[i])) return false;
    return true;
}

// What of a tensor's first dimension is a token's.
static size_t bytes_of_token(const ember_tensor *root)
{
    return em_tensor_bytes(root) / root->dim[0] * root->info->multiple;
}

static bool is_within(const struct tile_run *r, const ember_tensor *root)
{
    const struct em_tensor_info *i = root->info;
    return !i->keep && !i->lasting && root->dim[0] && i->first >= r->begin && i->last < r->end;
}

typedef void each_root(struct tile_run *r, ember_tensor *root);

static void over_roots(const struct em_program *p, struct tile_run *r, each_root *visit)
{
    for (size_t s = r->begin; s < r->end; s++) {
        const struct em_call *c = p->step[s].call;
        for (unsigned i = 0; i < c->n_in; i++)
            if (c->in[i] && c->in[i]->info) visit(r, c->in[i]->info->root);
        for (unsigned i = 0; i < c->n_out; i++)
            if (c->out[i]) visit(r, c->out[i]->info->root);
    }
}

// `rows` is the widest row's bytes until they are known.
static void find_widest(struct tile_run *r, ember_tensor *root)
{
    if (is_within(r, root)) r->rows = em_max_size(r->rows, bytes_of_token(root));
}

static void mark(struct tile_run *r, ember_tensor *root)
{
    root->info->tiled = is_within(r, root);
}

// All that is not the tile's own is read or written by every tile.
static void lengthen(struct tile_run *r, ember_tensor *root)
{
    struct em_tensor_info *i = root->info;
    if (i->tiled) return;
    i->first = em_min_size(i->first, r->begin);
    i->last = em_max_size(i->last, r->end - 1);
}

static size_t rows_of_tile(const struct em_program *p, size_t widest)
{
    if (p->options.tile_rows) return p->options.tile_rows;
    const size_t rows = em_min_size(MOST_ROWS, em_max_size(LEAST_ROWS, TILE_BYTES / widest));
    return rows / ROWS_TOGETHER * ROWS_TOGETHER;
}

static ember_status add_run(struct em_program *p, size_t begin, size_t end)
{
    struct tile_run r = {.begin = begin, .end = end};
    over_roots(p, &r, find_widest);
    if (!r.rows) return EMBER_OK; // nothing lives in it alone
    r.rows = rows_of_tile(p, r.rows);
    if (r.rows >= p->options.max_tokens) return EMBER_OK;
    over_roots(p, &r, mark);
    over_roots(p, &r, lengthen);
    for (size_t s = begin; s < end; s++) {
        struct em_call *c = p->step[s].call;
        if (c->slot < 0) continue;
        if (!(c->carry = em_arena_alloc(&p->arena, sizeof *c->carry))) return EMBER_E_NOMEM;
    }
    EM_TRY(em_grow(&p->run, &p->runs_capacity, p->n_runs + 1, sizeof *p->run));
    p->run[p->n_runs++] = r;
    return EMBER_OK;
}

ember_status em_find_tiles(struct em_program *p)
{
    p->n_runs = 0;
    if (p->options.gradients || p->options.backend == EM_REFERENCE) return EMBER_OK;
    for (size_t begin = 0, end; begin < p->n_forward; begin = end + 1) {
        for (end = begin; end < p->n_forward && may_tile(p, p->step[end].call);)
            end++;
        if (end - begin > 1) EM_TRY(add_run(p, begin, end));
    }
    if (!p->n_runs || p->tile_offset) return EMBER_OK;
    p->tile_offset = em_alloc((p->options.max_sequences + 1) * sizeof *p->tile_offset);
    if (!p->tile_offset) return EMBER_E_NOMEM;
    return EMBER_OK;
}

// ---- memory ----

size_t em_tile_bytes(const struct em_program *p, const ember_tensor *root)
{
    if (!root->info->tiled) return em_tensor_bytes(root);
    for (size_t i = 0; i < p->n_runs; i++)
        if (is_within(&p->run[i], root)) return bytes_of_token(root) * p->run[i].rows;
    return em_tensor_bytes(root);
}

static size_t carry_bytes(const struct em_program *p, const struct em_call *c)
{
    return !c->carry ? 0 : (p->layout.spec[c->slot].fixed * sizeof(float) + 127) / 128 * 128;
}

size_t em_carries_bytes(const struct em_program *p)
{
    size_t bytes = 0;
    for (size_t i = 0; i < p->n_runs; i++)
        for (size_t s = p->run[i].begin; s < p->run[i].end; s++)
            bytes += carry_bytes(p, p->step[s].call);
    return bytes;
}

void em_place_carries(struct em_program *p, char *space)
{
    for (size_t i = 0; i < p->n_runs; i++)
        for (size_t s = p->run[i].begin; s < p->run[i].end; s++) {
            struct em_call *c = p->step[s].call;
            if (!c->carry) continue;
            c->carry->fixed = (float *)(void *)space;
            space += carry_bytes(p, c);
        }
}

// ---- running ----

// Points a tensor at rows of the tile that begins at token `at` and has `tokens`.
static void point(const struct em_program *p, ember_tensor *t, size_t at, size_t tokens)
{
    const struct em_tensor_info *info = t->info, *root = info->root->info;
    char *data = p->block + root->offset + info->root_offset;
    if (!root->tiled) data += at * info->multiple * t->stride[0] * ember_dtype_size(t->dtype);
    t->data = data;
    t->dim[0] = tokens * info->multiple;
}

static void point_call(const struct em_program *p, const struct em_call *c, size_t at,
                       size_t tokens)
{
    for (unsigned i = 0; i < c->n_in; i++)
        if (c->in[i] && c->in[i]->info) point(p, c->in[i], at, tokens);
    for (unsigned i = 0; i < c->n_out; i++)
        if (c->out[i]) point(p, c->out[i], at, tokens);
}

// The tile's part of the batch: sequences from `first` on, that the tile may cut at both ends.
static void begin_tile(struct em_program *p, size_t at, size_t tokens, size_t *first)
{
    const ember_batch *b = &p->batch;
    struct em_exec *x = &p->exec;
    ember_batch *t = &p->tile;
    while (b->offset[*first + 1] <= at)
        ++*first;
    *t = *b;
    t->n_tokens = tokens;
    t->n_sequences = 0;
    t->offset = p->tile_offset;
    p->tile_offset[0] = 0;
    do {
        const size_t end = b->offset[*first + ++t->n_sequences];
        p->tile_offset[t->n_sequences] = em_min_size(end - at, tokens);
    } while (p->tile_offset[t->n_sequences] < tokens);
    if (b->tokens) t->tokens = b->tokens + at;
    if (b->targets) t->targets = b->targets + at;
    if (b->timespans) t->timespans = b->timespans + at;
    if (b->labels) t->labels = b->labels + *first;
    if (b->state_in) t->state_in = b->state_in + *first;
    if (b->state_out) t->state_out = b->state_out + *first;
    x->batch = t;
    x->first_token = at;
    x->position = p->position + at;
    x->cut_before = at > b->offset[*first];
    x->cut_after = at + tokens < b->offset[*first + t->n_sequences];
}

static void end_tiles(struct em_program *p, const struct tile_run *r)
{
    struct em_exec *x = &p->exec;
    x->batch = &p->batch;
    x->first_token = 0;
    x->position = p->position;
    x->cut_before = x->cut_after = false;
    for (size_t s = r->begin; s < r->end; s++)
        point_call(p, p->step[s].call, 0, p->batch.n_tokens);
}

void em_run_tiles(struct em_program *p, const struct tile_run *r)
{
    const size_t T = p->batch.n_tokens;
    for (size_t at = 0, tokens, sequence = 0; at < T; at += tokens) {
        const size_t tiles = em_ceil_div(T - at, r->rows), even = em_ceil_div(T - at, tiles);
        tokens = em_min_size(em_ceil_div(even, ROWS_TOGETHER) * ROWS_TOGETHER,
                             em_min_size(r->rows, T - at));
        begin_tile(p, at, tokens, &sequence);
        for (size_t s = r->begin; s < r->end; s++) {
            point_call(p, p->step[s].call, at, tokens);
            em_run_call(p, p->step[s].call);
        }
    }
    end_tiles(p, r);
}
