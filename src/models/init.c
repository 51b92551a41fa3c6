// Memory of the parameters, and their random start.
#include "base/alloc.h"
#include "base/rng.h"
#include "models/model.h"
#include "models/model_priv.h"

// Each parameter begins on a cache line.
size_t em_model_bytes(const struct em_model *m)
{
    size_t values = 0, bytes;
    for (size_t i = 0; i < m->params.count; i++)
        values += (ember_tensor_count(&m->params.param[i]->tensor) + 15) / 16 * 16;
    return em_mul_size(values, sizeof(float), &bytes) ? bytes : SIZE_MAX;
}

ember_status em_model_allocate(struct em_model *m)
{
    if (m->memory) return EMBER_OK;
    m->memory_bytes = em_model_bytes(m);
    if (m->memory_bytes == SIZE_MAX || !(m->memory = em_block_alloc(m->memory_bytes)))
        return em_fail(EMBER_E_NOMEM, "%s: out of memory: %zu bytes for its parameters", m->name,
                       m->memory_bytes);
    size_t offset = 0;
    for (size_t i = 0; i < m->params.count; i++) {
        ember_tensor *t = &m->params.param[i]->tensor;
        t->data = m->memory + offset;
        offset += (ember_tensor_count(t) + 15) / 16 * 16;
    }
    return EMBER_OK;
}

void em_param_init(struct em_param *p, double range, struct em_rng *rng)
{
    float *w = em_f32(&p->tensor);
    const size_t n = ember_tensor_count(&p->tensor);
    if (p->filling.scale > 0) range *= (double)p->filling.scale;
    if (p->filling.fill) {
        p->filling.fill(p->filling.context, rng, &p->tensor);
        return;
    }
    for (size_t j = 0; j < n; j++) {
        switch (p->init) {
        case EMBER_INIT_NORMAL: w[j] = (float)(em_rng_normal(rng) * range); break;
        case EMBER_INIT_ONES: w[j] = 1; break;
        case EMBER_INIT_ZEROS:
        case EMBER_INIT_BUFFER: w[j] = 0; break;
        }
    }
}

struct start {
    struct em_model *model;
    uint64_t seed;
};

static void start_param(const struct start *s, size_t i)
{
    struct em_rng rng;
    em_rng_seed(&rng, s->seed, i);
    em_param_init(s->model->params.param[i], (double)s->model->init_range, &rng);
}

static bool starts_alone(const struct em_model *m, size_t i)
{
    return !m->params.param[i]->filling.fill;
}

static void start_params(void *arg, size_t begin, size_t end, unsigned thread)
{
    const struct start *s = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        if (starts_alone(s->model, i)) start_param(s, i);
}

void em_model_init(struct em_model *m, uint64_t seed, struct em_pool *pool)
{
    struct start s = {.model = m, .seed = seed};
    // Each parameter has a stream of its own, so that it does not matter who fills it.
    em_parallel(pool, m->params.count, 1, start_params, &s);
    // A layer's own function may be a plug-in's, or look at another parameter.
    for (size_t i = 0; i < m->params.count; i++)
        if (!starts_alone(m, i)) start_param(&s, i);
    // transformers starts the row of the padding token at zero.
    for (size_t j = 0; m->embedding && m->frozen_row >= 0 && j < m->width; j++)
        em_f32(m->embedding)[(size_t)m->frozen_row * m->width + j] = 0;
    em_packs_changed(m->packs);
}

ember_status em_model_attach_gradients(struct em_model *m, float *memory)
{
    for (size_t i = 0; i < m->params.count; i++) {
        struct em_param *p = m->params.param[i];
        const size_t n = ember_tensor_count(&p->tensor);
        if (!p->frozen && !p->tensor.grad) {
            ember_tensor *g = em_arena_alloc(&m->arena, sizeof *g);
            if (!g) return EMBER_E_NOMEM;
            EM_TRY(em_tensor_init(g, EMBER_F32, p->tensor.dim, p->tensor.ndim, NULL));
            p->tensor.grad = g;
        }
        if (p->tensor.grad) p->tensor.grad->data = memory;
        if (memory) memory += n;
    }
    return EMBER_OK;
}
