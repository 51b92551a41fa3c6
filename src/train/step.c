#include "train/step.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"

static ember_status prepare_routers(struct em_stepper *s)
{
    const struct em_router_record *records;
    s->n_routers = em_program_routers(s->program, &records);
    if (!s->n_routers) return EMBER_OK;
    s->figures = em_calloc(s->n_routers, sizeof *s->figures);
    s->routers = em_calloc(s->n_routers, sizeof *s->routers);
    if (!s->figures || !s->routers) return EMBER_E_NOMEM;
    memcpy(s->routers, records, s->n_routers * sizeof *s->routers);
    for (size_t i = 0; i < s->n_routers; i++) {
        s->figures[i].load = em_calloc(s->routers[i].routing.n_experts, sizeof(uint64_t));
        if (!s->figures[i].load) return EMBER_E_NOMEM;
    }
    return EMBER_OK;
}

ember_status em_stepper_open(struct em_model *model, struct em_trainable *trainable,
                             const struct em_stepper_options *o, struct em_stepper *out)
{
    struct em_stepper s = {.model = model, .trainable = trainable, .options = *o};
    const size_t rows = (o->batch + o->accumulate - 1) / o->accumulate; // of a part, at most
    size_t tokens;
    if (!em_mul_size(rows, o->seq, &tokens))
        return em_fail(EMBER_E_NOMEM, "a batch of %zu sequences of %zu tokens is too large",
                       o->batch, o->seq);
    EM_TRY(em_program_create(&(struct em_program_options){.backend = o->backend,
                                                          .pool = o->pool,
                                                          .packs = model->packs,
                                                          .max_tokens = tokens,
                                                          .max_sequences = tokens,
                                                          .gradients = true,
                                                          .recompute = o->recompute,
                                                          .bf16 = o->bf16},
                             &s.program));
    ember_status status = em_model_record(model, s.program, EM_HEAD_LOSS, &s.outputs);
    if (status == EMBER_OK && !s.outputs.nll)
        status = em_fail(EMBER_E_UNSUPPORTED,
                         "%s: the model reads `inputs` instead of tokens; training needs tokens",
                         model->name);
    if (status == EMBER_OK) status = em_program_plan(s.program, NULL);
    if (status == EMBER_OK) status = prepare_routers(&s);
    if (status == EMBER_OK) status = em_packed_reserve(&s.packed, tokens);
    if (status != EMBER_OK) {
        em_stepper_close(&s);
        return status;
    }
    *out = s;
    return EMBER_OK;
}

ember_status em_stepper_allocate(struct em_stepper *s)
{
    return em_program_allocate(s->program);
}

void em_stepper_release(struct em_stepper *s)
{
    em_packed_deinit(&s->packed);
    em_program_destroy(s->program);
    s->program = NULL;
}

void em_stepper_close(struct em_stepper *s)
{
    for (size_t i = 0; s->figures && i < s->n_routers; i++)
        em_free(s->figures[i].load);
    em_free(s->figures);
    em_free(s->routers);
    em_stepper_release(s);
    *s = (struct em_stepper){0};
}

// Adds up in the order of places, in double.
static double sum_nll(const struct em_stepper *s, const ember_batch *b, uint64_t *scored)
{
    double sum = 0;
    for (size_t t = 0; t < b->n_tokens; t++) {
        if (b->targets[t] < 0) continue;
        sum += (double)em_f32(s->outputs.nll)[t];
        ++*scored;
    }
    return sum;
}

ember_status em_stepper_evaluate(struct em_stepper *s, double *nats, uint64_t *scored)
{
    const struct em_run run = {.batch = &s->packed.batch, .loss_scale = 1, .seed = s->options.seed};
    EM_TRY(em_program_forward(s->program, &run));
    *scored = 0;
    *nats = sum_nll(s, &s->packed.batch, scored);
    return EMBER_OK;
}

static ember_status not_finite_loss(struct em_stepper *s, uint64_t step)
{
    char where[256];
    em_find_not_finite(s, &s->packed.batch, where, sizeof where);
    return em_fail(EMBER_E_NUMERIC, "step %llu: the loss is not finite: %s",
                   (unsigned long long)(step + 1), where);
}

static ember_status not_finite_gradient(const struct em_stepper *s, uint64_t step, double norm)
{
    size_t count = 0;
    const struct em_param *p = em_trainable_find_bad(s->trainable, false, &count);
    if (!p)
        return em_fail(EMBER_E_NUMERIC, "step %llu: the gradient's norm is %g",
                       (unsigned long long)(step + 1), norm);
    return em_fail(
        EMBER_E_NUMERIC, "step %llu: %zu of the %zu values of the gradient of %s are not finite",
        (unsigned long long)(step + 1), count, ember_tensor_count(&p->tensor), p->tensor.name);
}

static ember_status run_part(struct em_stepper *s, const struct em_step_request *q, size_t part,
                             struct em_step_figures *sum)
{
    const struct em_batches *b = q->batches;
    const size_t first = part * b->batch / s->options.accumulate,
                 end = (part + 1) * b->batch / s->options.accumulate;
    EM_TRY(em_batches_fill(b, q->step, first, end - first, &s->packed));
    const ember_batch *batch = &s->packed.batch;
    EM_TRY(em_program_forward(s->program,
                              &(struct em_run){.batch = batch,
                                               .training = true,
                                               .gradients = true,
                                               .loss_scale = 1 / (double)b->scored,
                                               .aux_scale = 1 / (double)s->options.accumulate,
                                               .seed = s->options.seed,
                                               .step = q->step * s->options.accumulate + part}));
    uint64_t scored = 0;
    const double nats = sum_nll(s, batch, &scored);
    if (!isfinite(nats)) return not_finite_loss(s, q->step);
    for (size_t i = 0; i < s->n_routers; i++)
        em_router_figures_add(&s->figures[i], &s->routers[i], batch->n_tokens);
    EM_TRY(em_program_backward(s->program));
    sum->loss += nats / (double)b->scored;
    sum->bytes += em_packed_bytes(&s->packed);
    sum->tokens += batch->n_tokens;
    return EMBER_OK;
}

ember_status em_step(struct em_stepper *s, const struct em_step_request *q,
                     struct em_step_figures *out)
{
    struct em_step_figures sum = {0};
    em_trainable_zero_gradients(s->trainable);
    for (size_t i = 0; i < s->n_routers; i++)
        em_router_figures_reset(&s->figures[i], s->routers[i].routing.n_experts);
    for (size_t part = 0; part < s->options.accumulate; part++)
        EM_TRY(run_part(s, q, part, &sum));
    sum.grad_norm = em_trainable_norm(s->trainable);
    if (!isfinite(sum.grad_norm)) return not_finite_gradient(s, q->step, sum.grad_norm);
    const double scale = q->clip > 0 && sum.grad_norm > q->clip ? q->clip / sum.grad_norm : 1;
    const struct em_update_step update = {q->step + 1, q->lr, scale};
    em_trainable_update(s->trainable, &update, q->dry);
    if (q->dry)
        em_trainable_zero_moments(s->trainable);
    else
        em_update_selection_bias(s->routers, s->figures, s->n_routers);
    *out = sum;
    return EMBER_OK;
}
