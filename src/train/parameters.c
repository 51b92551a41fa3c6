#include "train/parameters.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/kernels.h"

// Values of a block: small enough to balance over threads, large enough that starting one costs
// nothing.
enum { BLOCK = 32768 };

struct em_trainable_block {
    const struct em_param *param;
    size_t first;  // value within the parameter
    size_t offset; // of it in gradients and moments
    size_t count;
};

// Values of the first `count` parameters that are trained.
static size_t trained_values(const struct em_model *model, size_t count)
{
    size_t values = 0;
    for (size_t i = 0; i < count; i++)
        if (!model->params.param[i]->frozen)
            values += ember_tensor_count(&model->params.param[i]->tensor);
    return values;
}

size_t em_trainable_values(const struct em_model *model)
{
    return trained_values(model, model->params.count);
}

size_t em_trainable_bytes(const struct em_model *model, const struct em_optimizer *optimizer)
{
    return (1 + optimizer->moments) * em_trainable_values(model) * sizeof(float);
}

static ember_status lay_out(struct em_trainable *t)
{
    const struct em_params *params = &t->model->params;
    size_t capacity = 0, offset = 0;
    for (size_t i = 0; i < params->count; i++) {
        const struct em_param *p = params->param[i];
        const size_t n = p->frozen ? 0 : ember_tensor_count(&p->tensor);
        for (size_t first = 0; first < n; first += BLOCK) {
            EM_TRY(em_grow(&t->block, &capacity, t->n_blocks + 1, sizeof *t->block));
            t->block[t->n_blocks++] = (struct em_trainable_block){
                p, first, offset + first, n - first < BLOCK ? n - first : BLOCK};
        }
        offset += n;
    }
    if (!t->n_blocks)
        return em_fail(EMBER_E_CONFIG, "%s: the model has no parameter to train", t->model->name);
    t->partial = em_calloc(t->n_blocks, sizeof *t->partial);
    return t->partial ? EMBER_OK : EMBER_E_NOMEM;
}

static ember_status take_memory(struct em_trainable *t)
{
    const struct em_params *params = &t->model->params;
    if (!em_mul_size(em_trainable_values(t->model), sizeof(float), &t->bytes)) return EMBER_E_NOMEM;
    if (!(t->gradients = em_block_alloc(t->bytes))) return EMBER_E_NOMEM;
    for (size_t i = 0; i < t->optimizer->moments; i++)
        if (!(t->moments[i] = em_block_alloc(t->bytes))) return EMBER_E_NOMEM;
    EM_TRY(em_model_attach_gradients(t->model, NULL));
    for (size_t i = 0; i < params->count; i++)
        if (!params->param[i]->frozen)
            params->param[i]->tensor.grad->data = t->gradients + em_trainable_offset(t, i);
    return EMBER_OK;
}

ember_status em_trainable_open(struct em_model *model, const struct em_optimizer *optimizer,
                               const void *optimizer_options, struct em_pool *pool,
                               struct em_trainable *out)
{
    struct em_trainable t = {.model = model,
                             .pool = pool,
                             .optimizer = optimizer,
                             .optimizer_options = optimizer_options};
    ember_status status = lay_out(&t);
    if (status == EMBER_OK) status = take_memory(&t);
    if (status != EMBER_OK) {
        em_trainable_close(&t);
        return status;
    }
    *out = t;
    return EMBER_OK;
}

void em_trainable_close(struct em_trainable *t)
{
    if (t->gradients) em_block_free(t->gradients, t->bytes);
    for (size_t i = 0; i < EM_MOMENTS; i++)
        if (t->moments[i]) em_block_free(t->moments[i], t->bytes);
    em_free(t->block);
    em_free(t->partial);
    *t = (struct em_trainable){0};
}

size_t em_trainable_offset(const struct em_trainable *t, size_t param)
{
    return trained_values(t->model, param);
}

static void zero_blocks(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_trainable *t = arg;
    for (size_t i = begin; i < end; i++)
        memset(t->gradients + t->block[i].offset, 0, t->block[i].count * sizeof(float));
}

void em_trainable_zero_gradients(struct em_trainable *t)
{
    em_parallel(t->pool, t->n_blocks, 4, zero_blocks, t);
}

void em_trainable_zero_moments(struct em_trainable *t)
{
    for (size_t i = 0; i < t->optimizer->moments; i++)
        memset(t->moments[i], 0, t->bytes);
}

static void square_blocks(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_trainable *t = arg;
    for (size_t i = begin; i < end; i++)
        t->partial[i] =
            em_kernels()->sum_squares_f32(t->gradients + t->block[i].offset, t->block[i].count);
}

double em_trainable_norm(struct em_trainable *t)
{
    double sum = 0;
    em_parallel(t->pool, t->n_blocks, 4, square_blocks, t);
    for (size_t i = 0; i < t->n_blocks; i++)
        sum += t->partial[i];
    return sqrt(sum);
}

static double rate_of(const struct em_param *p, const struct em_update_step *step)
{
    return p->lr >= 0 ? p->lr * step->share : p->lr_factor * step->lr;
}

static void update_blocks(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_trainable *t = arg;
    for (size_t i = begin; i < end; i++) {
        const struct em_trainable_block *b = &t->block[i];
        struct em_update u = {.value = t->dry ? t->gradients + b->offset
                                              : em_f32(&b->param->tensor) + b->first,
                              .gradient = t->gradients + b->offset,
                              .count = b->count,
                              .lr = rate_of(b->param, &t->step),
                              .decay = b->param->decay,
                              .weight_decay = b->param->weight_decay};
        for (size_t m = 0; m < t->optimizer->moments; m++)
            u.moment[m] = t->moments[m] + b->offset;
        t->partial[i] = (double)t->optimizer->update(t->optimizer_options, &t->step, &u);
        for (size_t j = 0; b->param->positive && j < u.count; j++)
            if (u.value[j] < 0) u.value[j] = 0; // a value that is no number stays, and is found
    }
}

const struct em_param *em_trainable_update(struct em_trainable *t,
                                           const struct em_update_step *step, bool dry)
{
    t->step = *step;
    t->dry = dry;
    em_parallel(t->pool, t->n_blocks, 1, update_blocks, t);
    em_packs_changed(t->model->packs);
    for (size_t i = 0; i < t->n_blocks; i++)
        if (!isfinite(t->partial[i])) return t->block[i].param;
    return NULL;
}

static size_t count_bad(const float *x, size_t n)
{
    size_t bad = 0;
    for (size_t i = 0; i < n; i++)
        bad += !isfinite(x[i]);
    return bad;
}

const struct em_param *em_trainable_bad_gradient(const struct em_trainable *t, size_t *count)
{
    for (size_t i = t->n_blocks; i-- > 0;) {
        const struct em_trainable_block *b = &t->block[i];
        *count = count_bad(t->gradients + b->offset, b->count);
        if (!*count) continue;
        while (i-- > 0 && t->block[i].param == b->param) // a large one has several blocks
            *count += count_bad(t->gradients + t->block[i].offset, t->block[i].count);
        return b->param;
    }
    return NULL;
}

const struct em_param *em_trainable_bad_moment(const struct em_trainable *t, size_t m,
                                               size_t *count)
{
    for (size_t i = 0; i < t->n_blocks; i++) {
        const struct em_trainable_block *b = &t->block[i];
        *count = count_bad(t->moments[m] + b->offset, b->count);
        if (*count) return b->param;
    }
    return NULL;
}
