// Only asked when a pass has failed already, so it may be slow: the pass is recorded again with
// every tensor kept, run, and looked through in order.
#include "models/diagnose.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

// About a minute of the reference backend's loops.
static const double most_flops = 3e10;

bool em_all_finite(const float *x, size_t n)
{
    bool finite = true;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        finite &= (bits & 0x7f800000u) != 0x7f800000u;
    }
    return finite;
}

const struct em_param *em_model_find_bad(const struct em_model *m, size_t *count)
{
    for (size_t i = 0; i < m->params.count; i++) {
        const struct em_param *p = m->params.param[i];
        const float *x = em_f32(&p->tensor);
        const size_t n = ember_tensor_count(&p->tensor);
        *count = 0;
        for (size_t j = 0; j < n; j++)
            *count += !isfinite(x[j]);
        if (*count) return p;
    }
    return NULL;
}

static void keep_outputs(void *context, const struct em_call *c)
{
    (void)context;
    for (unsigned i = 0; i < c->n_out; i++)
        if (c->out[i]) em_keep(c->out[i]);
}

static size_t rows_of(const ember_tensor *t, size_t *width)
{
    *width = t->ndim ? t->dim[t->ndim - 1] : 1;
    return *width ? ember_tensor_count(t) / *width : 0;
}

// The first row that is not finite; SIZE_MAX: none.
static size_t bad_row(const ember_tensor *t)
{
    size_t width;
    if (!t || t->dtype != EMBER_F32 || !t->data) return SIZE_MAX;
    const size_t rows = rows_of(t, &width);
    for (size_t r = 0; r < rows; r++)
        if (!em_all_finite(t->ndim ? em_row(t, r) : em_f32(t), width)) return r;
    return SIZE_MAX;
}

struct search {
    const struct em_call *call; // the first with such an output
    size_t sequence;            // in which it is; SIZE_MAX: not known
    const ember_batch *batch;
};

static void look(void *context, const struct em_call *c)
{
    struct search *s = context;
    for (unsigned i = 0; i < c->n_out && !s->call; i++) {
        const size_t row = bad_row(c->out[i]);
        if (row == SIZE_MAX) continue;
        s->call = c;
        for (size_t q = 0; em_has_token_rows(c->out[i]) && q < s->batch->n_sequences; q++)
            if (row < s->batch->offset[q + 1]) {
                s->sequence = q;
                break;
            }
    }
}

// Records the pass and runs it. *program is the caller's, also where this fails.
static ember_status repeat(const struct em_model *m, const struct em_diagnosis *d,
                           struct em_program **program)
{
    const ember_batch *b = d->run->batch;
    struct em_model_outputs outputs;
    struct em_run run = *d->run;
    run.gradients = false;
    EM_TRY(em_program_create(&(struct em_program_options){.backend = d->backend,
                                                          .pool = d->pool,
                                                          .max_tokens = b->n_tokens,
                                                          .max_sequences = b->n_sequences,
                                                          .packs = m->packs,
                                                          .bf16 = d->bf16},
                             program));
    EM_TRY(em_model_record(m, *program, d->head, &outputs));
    em_program_visit(*program, keep_outputs, NULL);
    if (d->backend == EM_REFERENCE && em_program_cost(*program, false).flops > most_flops)
        return em_fail(EMBER_E_UNSUPPORTED, "too much for the reference backend");
    EM_TRY(em_program_allocate(*program));
    return em_program_forward(*program, &run);
}

static ember_batch one_sequence(const struct em_model *m, const ember_batch *b, size_t s,
                                size_t offset[2])
{
    const size_t begin = b->offset[s];
    ember_batch one = *b;
    offset[0] = 0;
    offset[1] = one.n_tokens = b->offset[s + 1] - begin;
    one.offset = offset;
    one.n_sequences = 1;
    if (b->tokens) one.tokens += begin;
    if (b->inputs) one.inputs += begin * m->input_size;
    if (b->timespans) one.timespans += begin;
    if (b->targets) one.targets += begin;
    if (b->labels) one.labels += s;
    return one;
}

// What the reference backend makes of it, as a clause.
static const char *second_opinion(const struct em_model *m, const struct em_diagnosis *d,
                                  const struct search *first)
{
    struct em_program *p = NULL;
    size_t offset[2];
    ember_batch one = *first->batch;
    if (first->sequence != SIZE_MAX) one = one_sequence(m, first->batch, first->sequence, offset);
    struct em_run run = *d->run;
    run.batch = &one;
    if (run.values && first->sequence != SIZE_MAX)
        run.values += first->batch->offset[first->sequence] * m->output_size;
    const struct em_diagnosis again = {
        .backend = EM_REFERENCE, .pool = d->pool, .head = d->head, .run = &run};
    struct search found = {.sequence = SIZE_MAX, .batch = &one};
    const ember_status status = repeat(m, &again, &p);
    if (status == EMBER_OK) em_program_visit(p, look, &found);
    em_program_destroy(p);
    if (status != EMBER_OK) return "; it is too large to be repeated by the reference backend";
    return found.call ? "; the reference backend agrees"
                      : "; the reference backend, which sums in double, gives finite numbers: a "
                        "kernel or this machine is at fault";
}

static void search(const struct em_model *m, const struct em_diagnosis *d, char *text, size_t size)
{
    struct em_program *p = NULL;
    struct search found = {.sequence = SIZE_MAX, .batch = d->run->batch};
    if (repeat(m, d, &p) != EMBER_OK) {
        snprintf(text, size, "all weights are, and there was no memory to find the layer");
    } else {
        em_program_visit(p, look, &found);
        if (found.call)
            snprintf(text, size,
                     "%s of layer %s is the first to give a number that is not finite%s",
                     found.call->op->name, found.call->layer,
                     d->backend == EM_REFERENCE ? "" : second_opinion(m, d, &found));
        else
            snprintf(text, size,
                     "all weights are, and so is all of the same pass when it is repeated: the "
                     "fault was transient, of this machine's memory or processor");
    }
    em_program_destroy(p);
}

void em_model_diagnose(const struct em_model *m, const struct em_diagnosis *d, char *text,
                       size_t size)
{
    size_t count = 0;
    const struct em_param *p = em_model_find_bad(m, &count);
    if (p)
        snprintf(text, size, "%zu of the %zu values of %s are not finite", count,
                 ember_tensor_count(&p->tensor), p->tensor.name);
    else
        search(m, d, text, size);
}
