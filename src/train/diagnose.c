// Finding where numbers stop being finite. Only asked when training has failed already, so it may
// be slow: the pass is recorded again with every tensor kept, and looked through in order.
#include <math.h>
#include <stdio.h>

#include "train/step.h"

static void keep_outputs(void *context, const struct em_call *c)
{
    (void)context;
    for (unsigned i = 0; i < c->n_out; i++)
        if (c->out[i]) em_keep(c->out[i]);
}

struct search {
    char *text;
    size_t size;
    bool found;
};

static bool is_finite(const ember_tensor *t)
{
    if (t->dtype != EMBER_F32 || !t->ndim) return true;
    const size_t width = t->dim[t->ndim - 1], rows = width ? ember_tensor_count(t) / width : 0;
    for (size_t r = 0; r < rows; r++) {
        const float *x = em_row(t, r);
        for (size_t j = 0; j < width; j++)
            if (!isfinite(x[j])) return false;
    }
    return true;
}

static void look(void *context, const struct em_call *c)
{
    struct search *s = context;
    for (unsigned i = 0; i < c->n_out && !s->found; i++) {
        if (!c->out[i] || is_finite(c->out[i])) continue;
        s->found = true;
        snprintf(s->text, s->size, "%s of layer %s is the first to give a number that is not",
                 c->op->name, c->layer);
    }
}

static ember_status search(struct em_stepper *s, const ember_batch *batch, struct search *found)
{
    struct em_program *p;
    struct em_model_outputs outputs;
    EM_TRY(em_program_create(&(struct em_program_options){.backend = s->options.backend,
                                                          .pool = s->options.pool,
                                                          .max_tokens = batch->n_tokens,
                                                          .max_sequences = batch->n_sequences,
                                                          .packs = s->model->packs,
                                                          .bf16 = s->options.bf16},
                             &p));
    ember_status status = em_model_record(s->model, p, EM_HEAD_LOSS, &outputs);
    if (status == EMBER_OK) em_program_visit(p, keep_outputs, NULL);
    if (status == EMBER_OK) status = em_program_allocate(p);
    if (status == EMBER_OK)
        status = em_program_forward(
            p, &(struct em_run){.batch = batch, .loss_scale = 1, .seed = s->options.seed});
    if (status == EMBER_OK) em_program_visit(p, look, found);
    em_program_destroy(p);
    return status;
}

void em_find_not_finite(struct em_stepper *s, const ember_batch *batch, char *text, size_t size)
{
    size_t count = 0;
    const struct em_param *p = em_trainable_find_bad(s->trainable, true, &count);
    if (p) {
        snprintf(text, size, "%zu of the %zu values of %s are not", count,
                 ember_tensor_count(&p->tensor), p->tensor.name);
        return;
    }
    struct search found = {text, size, false};
    snprintf(text, size, "all weights are, and the layer was not found");
    if (search(s, batch, &found) != EMBER_OK)
        snprintf(text, size, "all weights are, and there was no memory to find the layer");
}
