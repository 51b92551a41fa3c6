#include "bench/probe.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

ember_status em_bench_probe_open(const struct em_bench_job *job, const char *name, size_t sequences,
                                 size_t length, size_t width, bool backward,
                                 struct em_bench_probe *p)
{
    size_t tokens;
    *p = (struct em_bench_probe){.job = job, .name = name, .backward = backward};
    p->build = (struct ember_build){.arena = &p->arena,
                                    .params = &p->params,
                                    .file = name,
                                    .path = "",
                                    .where = name,
                                    .width = width};
    if (!em_mul_size(sequences, length, &tokens))
        return em_fail(EMBER_E_NOMEM, "%s: %zu x %zu tokens do not fit into memory", name,
                       sequences, length);
    EM_TRY(em_program_create(&(struct em_program_options){.backend = job->backend,
                                                          .pool = job->pool,
                                                          .max_tokens = tokens,
                                                          .max_sequences = sequences,
                                                          .gradients = backward,
                                                          .bf16 = job->bf16},
                             &p->program));
    p->offset = em_calloc(sequences + 1, sizeof *p->offset);
    p->tokens = em_calloc(tokens, sizeof *p->tokens);
    p->targets = em_calloc(tokens, sizeof *p->targets);
    if (!p->offset || !p->tokens || !p->targets) return EMBER_E_NOMEM;
    for (size_t s = 0; s <= sequences; s++)
        p->offset[s] = s * length;
    for (size_t t = 0; t < tokens; t++)
        p->tokens[t] = (int32_t)t;
    p->batch = (ember_batch){.n_tokens = tokens,
                             .n_sequences = sequences,
                             .offset = p->offset,
                             .tokens = p->tokens,
                             .targets = p->targets};
    return EMBER_OK;
}

void em_bench_probe_close(struct em_bench_probe *p)
{
    em_program_destroy(p->program);
    if (p->memory) em_block_free(p->memory, p->bytes);
    em_params_deinit(&p->params);
    em_arena_deinit(&p->arena);
    em_free(p->offset);
    em_free(p->tokens);
    em_free(p->targets);
}

// Gradients are wanted where tensors have one while operations are recorded.
ember_status em_bench_probe_want_gradients(struct em_bench_probe *p)
{
    for (size_t i = 0; p->backward && i < p->params.count; i++) {
        ember_tensor *t = &p->params.param[i]->tensor;
        if (t->grad || p->params.param[i]->frozen) continue;
        if (!(t->grad = em_arena_alloc(&p->arena, sizeof *t->grad))) return EMBER_E_NOMEM;
        EM_TRY(em_tensor_init(t->grad, EMBER_F32, t->dim, t->ndim, NULL));
    }
    return EMBER_OK;
}

ember_status em_bench_probe_rows(struct em_bench_probe *p, size_t width, ember_tensor **x)
{
    ember_tensor *table;
    const char *name = em_arena_printf(&p->arena, "rows%zu", p->params.count);
    if (!name) return EMBER_E_NOMEM;
    EM_TRY(ember_param(&p->build, &table, name, EMBER_INIT_NORMAL, EMBER_ROLE_OTHER,
                       (size_t[]){p->batch.n_tokens, width}, 2));
    EM_TRY(em_bench_probe_want_gradients(p));
    return ember_embedding(em_program_flow(p->program), table, -1, x);
}

static ember_status take_memory(struct em_bench_probe *p)
{
    size_t floats = 0;
    for (size_t i = 0; i < p->params.count; i++) {
        const ember_tensor *t = &p->params.param[i]->tensor;
        for (int copies = t->grad ? 2 : 1; copies > 0; copies--)
            if (!em_add_size(floats, (ember_tensor_count(t) + 31) / 32 * 32, &floats))
                return em_fail(EMBER_E_NOMEM, "%s: the sizes do not fit into memory", p->name);
    }
    if (!em_mul_size(floats, sizeof(float), &p->bytes) || !(p->memory = em_block_alloc(p->bytes)))
        return em_fail(EMBER_E_NOMEM, "%s: out of memory: %zu values", p->name, floats);
    float *at = p->memory;
    for (size_t i = 0; i < p->params.count; i++) {
        ember_tensor *t = &p->params.param[i]->tensor;
        const size_t n = ember_tensor_count(t);
        t->data = at;
        for (size_t j = 0; j < n; j++) // uniform, of variance 1 as normed activations have it
            at[j] = (float)(int32_t)(uint32_t)em_hash64(1, i, j) * 0x1.bb67aep-31f;
        at += (n + 31) / 32 * 32;
        if (!t->grad) continue;
        t->grad->data = at;
        at += (n + 31) / 32 * 32;
    }
    return EMBER_OK;
}

ember_status em_bench_probe_ready(struct em_bench_probe *p, ember_tensor *y)
{
    ember_tensor *loss = y;
    em_program_output(p->program, y);
    if (p->backward && ember_tensor_count(y) > 1)
        EM_TRY(ember_mean_square(em_program_flow(p->program), y, &loss));
    if (p->backward) em_program_loss(p->program, loss);
    EM_TRY(em_program_allocate(p->program));
    return take_memory(p);
}

bool em_bench_probe_counts(const struct em_call *call)
{
    return strcmp(call->op->name, "embedding") != 0 && strcmp(call->op->name, "mean_square") != 0;
}

static void add_seconds(void *context, const struct em_call *call)
{
    double *sum = context;
    if (em_bench_probe_counts(call)) *sum += call->seconds[0] + call->seconds[1];
}

ember_status em_bench_probe_run(struct em_bench_probe *p, double *seconds)
{
    em_program_reset_profile(p->program);
    EM_TRY(em_program_forward(p->program, &(struct em_run){.batch = &p->batch,
                                                           .training = p->backward,
                                                           .gradients = p->backward,
                                                           .loss_scale = 1}));
    if (p->backward) EM_TRY(em_program_backward(p->program));
    *seconds = 0;
    em_program_visit(p->program, add_seconds, seconds);
    return EMBER_OK;
}

static ember_status repeat(void *context, unsigned i, double *seconds)
{
    (void)i;
    return em_bench_probe_run(context, seconds);
}

ember_status em_bench_probe_measure(struct em_bench_probe *p, enum em_bench_bound bound,
                                    struct em_bench_measured *measured)
{
    double seconds;
    EM_TRY(em_bench_probe_run(p, &seconds));
    return em_bench_measure(
        &(struct em_bench_work){
            .run = repeat, .context = p, .bound = bound, .seconds = p->job->options->seconds},
        p->job->pool, measured);
}
