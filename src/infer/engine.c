#include "infer/engine.h"

#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "models/diagnose.h"

enum { CHUNK = 512 };

struct pass {
    struct em_program *program;
    struct em_model_outputs outputs;
    size_t max_tokens, max_sequences;
};

struct em_engine {
    const struct em_model *model;
    struct em_engine_options options;
    struct pass decode;  // a token of each conversation
    struct pass prefill; // made when the first prompt needs it
    // Of the pass being put together.
    int32_t *tokens;                 // [chunk]
    size_t *offset;                  // [sequences + 1]
    ember_state **state;             // [sequences]
    struct em_conversation **member; // [sequences]
};

static ember_status record_pass(const struct em_model *m, const struct em_engine_options *o,
                                size_t max_tokens, size_t max_sequences, struct pass *pass)
{
    struct pass p = {.max_tokens = max_tokens, .max_sequences = max_sequences};
    EM_TRY(em_program_create(&(struct em_program_options){.backend = o->backend,
                                                          .pool = o->pool,
                                                          .packs = m->packs,
                                                          .max_tokens = max_tokens,
                                                          .max_sequences = max_sequences,
                                                          .bf16 = o->bf16},
                             &p.program));
    const ember_status status = em_model_record(m, p.program, EM_HEAD_LAST, &p.outputs);
    if (status != EMBER_OK) {
        em_program_destroy(p.program);
        return status;
    }
    *pass = p;
    return EMBER_OK;
}

static ember_status open_pass(struct em_engine *e, size_t max_tokens, size_t max_sequences,
                              struct pass *pass)
{
    if (pass->program) return EMBER_OK;
    struct pass p;
    EM_TRY(record_pass(e->model, &e->options, max_tokens, max_sequences, &p));
    const ember_status status = em_program_allocate(p.program);
    if (status != EMBER_OK) {
        em_program_destroy(p.program);
        return status;
    }
    *pass = p;
    return EMBER_OK;
}

static ember_status create(struct em_engine *e)
{
    const size_t S = e->options.sequences;
    size_t tokens = e->options.chunk > S ? e->options.chunk : S;
    e->tokens = em_calloc(tokens, sizeof *e->tokens);
    e->offset = em_calloc(S + 1, sizeof *e->offset);
    e->state = em_calloc(S, sizeof *e->state);
    e->member = em_calloc(S, sizeof *e->member);
    if (!e->tokens || !e->offset || !e->state || !e->member) return EMBER_E_NOMEM;
    return open_pass(e, S, S, &e->decode);
}

static struct em_engine_options completed(const struct em_engine_options *options)
{
    struct em_engine_options o = *options;
    if (!o.chunk) o.chunk = CHUNK;
    if (!o.sequences) o.sequences = 1;
    return o;
}

static ember_status add_forecast(const struct pass *pass, struct em_engine_plan *plan)
{
    struct em_memory_plan memory;
    EM_TRY(em_program_plan(pass->program, &memory));
    plan->activations += memory.activations;
    plan->scratch += memory.scratch;
    plan->packed = memory.packed; // of the model: the same for all
    return EMBER_OK;
}

void em_engine_add_states(const struct em_state_layout *layout, struct em_engine_plan *plan)
{
    for (size_t i = 0; i < layout->count; i++) {
        const struct em_state_spec *s = &layout->spec[i];
        plan->state_fixed += (s->fixed + s->window * s->per_token) * sizeof(float);
        if (!s->window) plan->state_token += s->per_token * sizeof(float);
    }
}

ember_status em_engine_forecast(const struct em_model *m, const struct em_engine_options *options,
                                struct em_engine_plan *plan)
{
    const struct em_engine_options o = completed(options);
    const size_t chunk = o.chunk > o.sequences ? o.chunk : o.sequences;
    struct em_engine_plan sum = {0};
    struct pass decode, prefill = {0}, whole = {0};
    EM_TRY(record_pass(m, &o, o.sequences, o.sequences, &decode));
    ember_status status;
    EM_TRY_GOTO(status, out, record_pass(m, &o, chunk, o.sequences, &prefill));
    EM_TRY_GOTO(status, out, record_pass(m, &o, chunk, 1, &whole));
    EM_TRY_GOTO(status, out, add_forecast(&decode, &sum));
    EM_TRY_GOTO(status, out, add_forecast(&prefill, &sum));
    em_engine_add_states(em_program_layout(decode.program), &sum);
    sum.prompt_flops = em_program_cost(whole.program, false).flops / (double)chunk;
    sum.made_flops = em_program_cost(decode.program, false).flops / (double)o.sequences;
    *plan = sum;
out:
    em_program_destroy(decode.program);
    em_program_destroy(prefill.program);
    em_program_destroy(whole.program);
    return status;
}

ember_status em_engine_create(const struct em_model *m, const struct em_engine_options *options,
                              struct em_engine **engine)
{
    EM_TRY(em_model_need_language(m));
    if (!m->causal)
        return em_fail(EMBER_E_UNSUPPORTED,
                       "%s: the model looks at later tokens, so it cannot continue a text",
                       m->name);
    struct em_engine *e = em_calloc(1, sizeof *e);
    if (!e) return EMBER_E_NOMEM;
    e->model = m;
    e->options = completed(options);
    const ember_status status = create(e);
    if (status != EMBER_OK) {
        em_engine_destroy(e);
        return status;
    }
    *engine = e;
    return EMBER_OK;
}

void em_engine_destroy(struct em_engine *e)
{
    if (!e) return;
    em_program_destroy(e->decode.program);
    em_program_destroy(e->prefill.program);
    em_free(e->tokens);
    em_free(e->offset);
    em_free(e->state);
    em_free(e->member);
    em_free(e);
}

const struct em_model *em_engine_model(const struct em_engine *e)
{
    return e->model;
}

size_t em_engine_sequences(const struct em_engine *e)
{
    return e->options.sequences;
}

ember_status em_conversation_create(const struct em_engine *e, struct em_conversation **c)
{
    struct em_conversation *new = em_calloc(1, sizeof *new);
    if (!new) return EMBER_E_NOMEM;
    ember_status status = em_state_create(em_program_layout(e->decode.program), &new->state);
    if (status == EMBER_OK && !(new->logits = em_calloc(e->model->vocabulary, sizeof *new->logits)))
        status = EMBER_E_NOMEM;
    if (status != EMBER_OK) {
        em_conversation_destroy(new);
        return status;
    }
    *c = new;
    return EMBER_OK;
}

void em_conversation_destroy(struct em_conversation *c)
{
    if (!c) return;
    em_state_destroy(c->state);
    em_free(c->ids);
    em_free(c->logits);
    em_free(c);
}

void em_conversation_reset(struct em_conversation *c)
{
    em_state_reset(c->state);
    c->count = c->fed = 0;
}

ember_status em_conversation_append(struct em_conversation *c, const int32_t *ids, size_t n)
{
    size_t need;
    if (!em_add_size(c->count, n, &need))
        return em_fail(EMBER_E_NOMEM,
                       "a conversation of that many tokens does not fit into memory");
    EM_TRY(em_grow(&c->ids, &c->capacity, need, sizeof *c->ids));
    if (n) memcpy(c->ids + c->count, ids, n * sizeof *ids);
    c->count = need;
    return EMBER_OK;
}

// The next pass: tokens of the first conversations that have some, as many as fit.
static size_t gather(struct em_engine *e, const struct pass *pass, struct em_conversation *const *c,
                     size_t n)
{
    size_t tokens = 0, members = 0;
    for (size_t i = 0; i < n && members < pass->max_sequences && tokens < pass->max_tokens; i++) {
        size_t more = c[i]->count - c[i]->fed;
        if (!more) continue;
        if (more > pass->max_tokens - tokens) more = pass->max_tokens - tokens;
        memcpy(e->tokens + tokens, c[i]->ids + c[i]->fed, more * sizeof *e->tokens);
        e->offset[members] = tokens;
        e->state[members] = c[i]->state;
        e->member[members++] = c[i];
        tokens += more;
    }
    e->offset[members] = tokens;
    return members;
}

static ember_status run(struct em_engine *e, const struct pass *pass, size_t members)
{
    const ember_batch batch = {.n_tokens = e->offset[members],
                               .n_sequences = members,
                               .offset = e->offset,
                               .tokens = e->tokens,
                               .state_in = e->state,
                               .state_out = e->state};
    EM_TRY(em_program_forward(pass->program, &(struct em_run){.batch = &batch, .loss_scale = 1}));
    const size_t V = e->model->vocabulary;
    for (size_t i = 0; i < members; i++) {
        struct em_conversation *c = e->member[i];
        c->fed += e->offset[i + 1] - e->offset[i];
        if (c->fed == c->count)
            memcpy(c->logits, em_f32(pass->outputs.logits) + i * V, V * sizeof *c->logits);
    }
    return EMBER_OK;
}

ember_status em_engine_feed(struct em_engine *e, struct em_conversation *const *c, size_t n)
{
    for (;;) {
        size_t most = 0;
        for (size_t i = 0; i < n; i++)
            if (c[i]->count - c[i]->fed > most) most = c[i]->count - c[i]->fed;
        if (!most) return EMBER_OK;
        if (em_interrupted())
            return em_fail(EMBER_E_INTERRUPTED, "stopped on request before all tokens were read");
        const struct pass *pass = &e->decode;
        if (most > 1 && e->options.chunk > e->options.sequences) {
            EM_TRY(open_pass(e, e->options.chunk, e->options.sequences, &e->prefill));
            pass = &e->prefill;
        }
        EM_TRY(run(e, pass, gather(e, pass, c, n)));
    }
}

void em_engine_diagnose(const struct em_engine *e, const struct em_conversation *c, char *text,
                        size_t size)
{
    // The whole conversation at once gives what its pieces gave.
    const size_t offset[] = {0, c->fed};
    const ember_batch batch = {
        .n_tokens = c->fed, .n_sequences = 1, .offset = offset, .tokens = c->ids};
    em_model_diagnose(
        e->model,
        &(struct em_diagnosis){.backend = e->options.backend,
                               .pool = e->options.pool,
                               .bf16 = e->options.bf16,
                               .head = EM_HEAD_LAST,
                               .run = &(struct em_run){.batch = &batch, .loss_scale = 1}},
        text, size);
}
