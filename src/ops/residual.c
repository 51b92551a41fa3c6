// Residual paths: y = x + f(..) becomes one operation where f's can add x itself (em_op.residual),
// so that f's output never goes through memory by itself. The same sums, bit for bit.
#include "base/alloc.h"
#include "kernels/kernels.h"
#include "ops/program_priv.h"
#include "ops/rows.h"

static void add_gradient_rows(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_call *c = em_task_call(arg);
    const unsigned i = c->op->residual;
    const struct em_strip dy = em_strip_of(c->out[0]->grad), d = em_strip_of(c->in[i]->grad);
    for (size_t r = begin; r < end; r++) {
        float *to = em_strip_row(&d, r);
        if (em_fresh(c, i))
            memcpy(to, em_strip_row(&dy, r), d.width * sizeof *to);
        else
            em_kernels()->add_f32(to, to, em_strip_row(&dy, r), d.width);
    }
}

void em_add_residual_gradient(const struct em_call *c)
{
    const struct em_strip dy = em_strip_of(c->out[0]->grad);
    if (em_wants(c, c->op->residual)) em_over_rows(c, dy.count, dy.width, add_gradient_rows);
}

// What the calls say of a root.
struct use {
    size_t made;  // index of the call that makes it, EM_NEVER: none does
    size_t reads; // inputs that are it, or a view of it
};

static struct use *use_of(struct use *uses, const ember_tensor *t)
{
    return &uses[t->info->root->info->number];
}

static void count_uses(const struct em_program *p, struct use *uses)
{
    for (size_t i = 0; i < p->n_tensors; i++) {
        p->tensor[i]->info->number = i;
        uses[i] = (struct use){.made = EM_NEVER};
    }
    for (size_t i = 0; i < p->n_calls; i++) {
        const struct em_call *c = p->call[i];
        for (unsigned j = 0; j < c->n_out; j++)
            if (c->out[j]) use_of(uses, c->out[j])->made = i;
        for (unsigned j = 0; j < c->n_in; j++)
            if (c->in[j] && c->in[j]->info) use_of(uses, c->in[j])->reads++;
    }
}

// The call that makes `t` and may add `other` to it, or NULL.
static struct em_call *maker(const struct em_program *p, struct use *uses, const ember_tensor *t,
                             const ember_tensor *other, const struct em_call *sum)
{
    if (!t->info || t->info->root != t || t->info->keep) return NULL;
    if (t->grad && t->grad->info->keep) return NULL;
    const struct use *use = use_of(uses, t);
    if (use->made == EM_NEVER || use->reads != 1) return NULL;
    struct em_call *c = p->call[use->made];
    if (!c->op->residual || c->in[c->op->residual] || c->out[0] != t || c->region != sum->region)
        return NULL;
    if (other->info) { // it has to be there when c runs, and have as many rows
        const struct use *others = use_of(uses, other);
        if (others->made == EM_NEVER || others->made >= use->made) return NULL;
        if (other->info->rows != t->info->rows || other->info->multiple != t->info->multiple ||
            other->info->plan != t->info->plan || other->info->expert != t->info->expert)
            return NULL;
    } else if (t->info->rows != EM_ROWS_FIXED) {
        return NULL;
    }
    return c;
}

static bool fuse(const struct em_program *p, struct use *uses, struct em_call *sum)
{
    for (unsigned i = 0; i < 2; i++) {
        ember_tensor *t = sum->in[i], *other = sum->in[1 - i];
        struct em_call *c = maker(p, uses, t, other, sum);
        if (!c) continue;
        c->in[c->op->residual] = other;
        c->out[0] = sum->out[0];
        // A gradient can be passed on whole unless the same tensor is another input too.
        c->pass = (int)c->op->residual;
        for (unsigned j = 0; j < c->n_in; j++)
            if (j != c->op->residual && c->in[j] == other) c->pass = -1;
        t->info->fused = true;
        use_of(uses, sum->out[0])->made = use_of(uses, t)->made;
        return true;
    }
    return false;
}

ember_status em_fuse_residuals(struct em_program *p)
{
    struct use *uses = em_calloc(p->n_tensors ? p->n_tensors : 1, sizeof *uses);
    if (!uses) return EMBER_E_NOMEM;
    count_uses(p, uses);
    size_t kept = 0;
    for (size_t i = 0; i < p->n_calls; i++) {
        struct em_call *c = p->call[i];
        // p->call is not moved before all are looked at: `made` are places in it.
        if (c->op == &em_op_add && fuse(p, uses, c)) c->index = EM_NEVER;
    }
    for (size_t i = 0; i < p->n_calls; i++) {
        struct em_call *c = p->call[i];
        if (c->index == EM_NEVER) continue;
        c->index = kept;
        p->call[kept++] = c;
    }
    p->n_calls = kept;
    em_free(uses);
    return EMBER_OK;
}
