#include "train/step.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "models/diagnose.h"

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
        const struct em_param *bias =
            s->routers[i].bias ? em_params_find(&s->model->params, s->routers[i].bias->name) : NULL;
        if (bias && bias->held) s->routers[i].bias_rate = 0;
        s->figures[i].load = em_calloc(s->routers[i].routing.n_experts, sizeof(uint64_t));
        s->figures[i].observed = em_calloc(s->routers[i].routing.n_experts, sizeof(double));
        if (!s->figures[i].load || !s->figures[i].observed) return EMBER_E_NOMEM;
    }
    return EMBER_OK;
}

ember_status em_stepper_open(struct em_model *model, struct em_trainable *trainable,
                             const struct em_stepper_options *o, struct em_stepper *out)
{
    struct em_stepper s = {.model = model, .trainable = trainable, .options = *o};
    if (!o->head) s.options.head = EM_HEAD_LOSS;
    const size_t rows = (o->batch + o->accumulate - 1) / o->accumulate; // of a part, at most
    size_t tokens;
    if (model->language_model && !model->causal && s.options.head == EM_HEAD_LOSS)
        return em_fail(EMBER_E_UNSUPPORTED,
                       "%s: the model looks at later tokens, so it cannot learn to say the next",
                       model->name);
    if (!em_mul_size(rows, o->seq, &tokens))
        return em_fail(EMBER_E_NOMEM, "a batch of %zu sequences of %zu tokens is too large",
                       o->batch, o->seq);
    EM_TRY(em_program_create(
        &(struct em_program_options){.backend = o->backend,
                                     .pool = o->pool,
                                     .packs = model->packs,
                                     .max_tokens = tokens,
                                     .max_sequences = o->whole_rows ? rows : tokens,
                                     .gradients = !o->scoring,
                                     .recompute =
                                         o->recompute ? EM_RECOMPUTE_REGIONS : EM_RECOMPUTE_CHEAP,
                                     .packs_pass_by = o->accumulate == 1 && !o->scoring,
                                     .bf16 = o->bf16},
        &s.program));
    ember_status status = em_model_record(model, s.program, s.options.head, &s.outputs);
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
    for (size_t i = 0; s->figures && i < s->n_routers; i++) {
        em_free(s->figures[i].load);
        em_free(s->figures[i].observed);
    }
    em_free(s->figures);
    em_free(s->routers);
    em_stepper_release(s);
    *s = (struct em_stepper){0};
}

// Adds up in the order of places, in double. What is learnt of a sequence has a row.
static struct em_scored score(const struct em_stepper *s, const ember_batch *b)
{
    const struct em_model_outputs *out = &s->outputs;
    const bool sequences =
        s->options.head == EM_HEAD_LABELS || s->options.head == EM_HEAD_SEQUENCE_VALUES;
    const size_t rows = sequences ? b->n_sequences : b->n_tokens;
    struct em_scored sum = {0};
    for (size_t r = 0; r < rows; r++) {
        const int32_t target = b->targets[sequences ? b->offset[r + 1] - 1 : r];
        if (target < 0) continue;
        sum.loss += (double)em_f32(out->nll)[r];
        sum.places++;
        sum.right += out->right && em_i32(out->right)[r];
    }
    return sum;
}

static void diagnose(const struct em_stepper *s, const struct em_run *run, char *text, size_t size)
{
    em_model_diagnose(s->model,
                      &(struct em_diagnosis){.backend = s->options.backend,
                                             .pool = s->options.pool,
                                             .bf16 = s->options.bf16,
                                             .head = s->options.head,
                                             .run = run},
                      text, size);
}

ember_status em_stepper_evaluate(struct em_stepper *s, struct em_scored *out)
{
    const struct em_run run = {.batch = &s->packed.batch,
                               .loss_scale = 1,
                               .values = s->packed.values,
                               .seed = s->options.seed};
    EM_TRY(em_program_forward(s->program, &run));
    *out = score(s, &s->packed.batch);
    if (isfinite(out->loss)) return EMBER_OK;
    char where[512];
    diagnose(s, &run, where, sizeof where);
    return em_fail(EMBER_E_NUMERIC, "the loss on held-out data is not finite: %s", where);
}

static ember_status not_finite_loss(const struct em_stepper *s, const struct em_run *run,
                                    uint64_t step)
{
    char where[512];
    diagnose(s, run, where, sizeof where);
    return em_fail(EMBER_E_NUMERIC, "step %llu: the loss is not finite: %s",
                   (unsigned long long)(step + 1), where);
}

static ember_status not_finite_gradient(const struct em_stepper *s, uint64_t step, double norm)
{
    size_t count = 0;
    const struct em_param *p = em_model_find_bad(s->model, &count);
    if (p) // the loss did not need it, or did not show it
        return em_fail(EMBER_E_NUMERIC, "step %llu: %zu of the %zu values of %s are not finite",
                       (unsigned long long)(step + 1), count, ember_tensor_count(&p->tensor),
                       p->tensor.name);
    p = em_trainable_bad_gradient(s->trainable, &count);
    if (!p)
        return em_fail(EMBER_E_NUMERIC, "step %llu: the gradient's norm is %g",
                       (unsigned long long)(step + 1), norm);
    return em_fail(
        EMBER_E_NUMERIC,
        "step %llu: the loss is finite, but not its gradient: on the way back from it %s is the "
        "first where %zu of the %zu values are not",
        (unsigned long long)(step + 1), p->tensor.name, count, ember_tensor_count(&p->tensor));
}

static size_t count_bad(const float *x, size_t n)
{
    size_t bad = 0;
    for (size_t i = 0; i < n; i++)
        bad += !isfinite(x[i]);
    return bad;
}

static ember_status not_finite_update(const struct em_stepper *s, const struct em_param *p,
                                      const struct em_update_step *update)
{
    const struct em_trainable *t = s->trainable;
    const size_t n = ember_tensor_count(&p->tensor);
    size_t i = 0, offset, used = 0;
    char moments[128] = "";
    while (s->model->params.param[i] != p)
        i++;
    offset = em_trainable_offset(t, i);
    for (size_t m = 0; m < t->optimizer->moments; m++)
        used += (size_t)snprintf(moments + used, sizeof moments - used, ", %zu of its moment %zu",
                                 count_bad(t->moments[m] + offset, n), m + 1);
    return em_fail(EMBER_E_NUMERIC,
                   "step %llu: the update of %s leaves numbers that are not finite: %zu of its %zu "
                   "values%s (learning rate %g)",
                   (unsigned long long)update->number, p->tensor.name,
                   count_bad(em_f32(&p->tensor), n), n, moments, update->lr);
}

static ember_status check_routers(const struct em_stepper *s, uint64_t step)
{
    for (size_t i = 0; i < s->n_routers; i++) {
        const struct em_router_record *r = &s->routers[i];
        const struct {
            const ember_tensor *buffer;
            const char *what;
        } moved[] = {{r->bias, "the selection bias"},
                     {r->threshold, "the thresholds"},
                     {r->sparsity, "the coefficient of sparsity"}};
        for (size_t b = 0; b < sizeof moved / sizeof *moved; b++)
            if (moved[b].buffer &&
                !em_all_finite(em_f32(moved[b].buffer), ember_tensor_count(moved[b].buffer)))
                return em_fail(EMBER_E_NUMERIC, "step %llu: %s, %s, is not finite",
                               (unsigned long long)(step + 1), moved[b].buffer->name,
                               moved[b].what);
    }
    return EMBER_OK;
}

static ember_status run_part(struct em_stepper *s, const struct em_step_request *q, size_t part,
                             struct em_step_figures *sum)
{
    const struct em_batches *b = q->batches;
    const size_t first = part * b->batch / s->options.accumulate,
                 end = (part + 1) * b->batch / s->options.accumulate;
    EM_TRY(em_batches_fill(b, q->step, first, end - first, &s->packed));
    const ember_batch *batch = &s->packed.batch;
    const uint64_t all = em_batches_scored(b, q->step);
    const struct em_run run = {.batch = batch,
                               .training = true,
                               .gradients = true,
                               .loss_scale = 1 / (double)all,
                               .values = s->packed.values,
                               .aux_scale = 1 / (double)s->options.accumulate,
                               .seed = s->options.seed,
                               .step = q->step * s->options.accumulate + part,
                               .update = q->step};
    EM_TRY(em_program_forward(s->program, &run));
    const double nats = score(s, batch).loss;
    if (!isfinite(nats)) return not_finite_loss(s, &run, q->step);
    for (size_t i = 0; i < s->n_routers; i++)
        em_router_figures_add(&s->figures[i], &s->routers[i], batch->n_tokens);
    EM_TRY(em_program_backward(s->program));
    sum->loss += nats / (double)all;
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
    const struct em_update_step update = {q->step + 1, q->lr, scale, q->share};
    const struct em_param *bad = em_trainable_update(s->trainable, &update, q->dry);
    if (q->dry) {
        em_trainable_zero_moments(s->trainable);
    } else {
        if (bad) return not_finite_update(s, bad, &update);
        em_update_routers(s->routers, s->figures, s->n_routers);
        EM_TRY(check_routers(s, q->step));
    }
    *out = sum;
    return EMBER_OK;
}
