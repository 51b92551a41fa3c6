#include "report/expert_probe.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "report/similarity.h"

// Products of outputs take E times as many squares: more experts are not compared by them.
enum { MOST_EXPERTS = 256 };

struct em_probed_layer {
    const char *path;      // of the mixture, "blocks.3.channel"; in the model
    const ember_tensor *x; // of the program that is attached; NULL: not found
    float *row;            // [EM_PROBE_ROWS][width]
    size_t rows;
};

ember_status em_expert_probe_open(const struct em_model *model, size_t routers, uint64_t tokens,
                                  struct em_expert_probe *out)
{
    struct em_expert_probe p = {.model = model, .count = routers};
    p.every = tokens / EM_PROBE_ROWS ? tokens / EM_PROBE_ROWS : 1;
    p.layer = em_calloc(routers ? routers : 1, sizeof *p.layer);
    if (!p.layer) return EMBER_E_NOMEM;
    for (size_t i = 0; i < routers; i++) {
        size_t n;
        if (em_mul_size(model->width, EM_PROBE_ROWS, &n))
            p.layer[i].row = em_calloc(n, sizeof *p.layer[i].row);
        if (p.layer[i].row) continue;
        em_expert_probe_close(&p);
        return EMBER_E_NOMEM;
    }
    *out = p;
    return EMBER_OK;
}

void em_expert_probe_close(struct em_expert_probe *p)
{
    for (size_t i = 0; p->layer && i < p->count; i++)
        em_free(p->layer[i].row);
    em_free(p->layer);
    *p = (struct em_expert_probe){0};
}

// ---- inputs ----

struct search {
    const char *mixture;
    size_t width;
    ember_tensor *x;
};

// A mixture's input is what the first of its parts reads: mostly the router or its gate, and the
// experts where a router looks at other things.
static void find_input(void *context, const struct em_call *call)
{
    struct search *s = context;
    const size_t n = strlen(s->mixture);
    if (s->x || !call->layer || strncmp(call->layer, s->mixture, n) != 0 || call->layer[n] != '.' ||
        !call->n_in || !call->in[0])
        return;
    ember_tensor *x = call->in[0];
    if (x->dtype == EMBER_F32 && x->ndim == 2 && x->dim[1] == s->width) s->x = x;
}

// "blocks.3.channel" of "blocks.3.channel.router", as the model has it.
static const char *mixture_of(const struct em_model *m, const char *router)
{
    const char *dot = strrchr(router, '.');
    const size_t n = dot ? (size_t)(dot - router) : 0;
    for (size_t i = 0; i < m->params.moe_count; i++) {
        const char *path = m->params.moe[i].path;
        if (strlen(path) == n && !strncmp(path, router, n)) return path;
    }
    return NULL;
}

void em_expert_probe_attach(struct em_expert_probe *p, struct em_program *program)
{
    const struct em_router_record *router;
    const size_t n = em_program_routers(program, &router);
    for (size_t i = 0; i < p->count; i++) {
        struct em_probed_layer *l = &p->layer[i];
        l->x = NULL;
        if (i >= n || !(l->path = mixture_of(p->model, router[i].layer))) continue;
        struct search s = {l->path, p->model->width, NULL};
        em_program_visit(program, find_input, &s);
        if (!s.x) continue;
        em_program_output(program, s.x);
        l->x = s.x;
    }
}

void em_expert_probe_collect(struct em_expert_probe *p, size_t tokens)
{
    for (size_t t = 0; t < tokens; t++, p->seen++) {
        if (p->seen % p->every) continue;
        for (size_t i = 0; i < p->count; i++) {
            struct em_probed_layer *l = &p->layer[i];
            if (!l->x || l->rows == EM_PROBE_ROWS || t >= l->x->dim[0]) continue;
            memcpy(l->row + l->rows++ * p->model->width, em_row(l->x, t),
                   p->model->width * sizeof *l->row);
        }
    }
}

// ---- the experts' weights ----

// The model's memory of what `own`, a parameter of an expert built alone, is in expert e of the
// mixture at `path`; NULL: there is no such one.
static float *weights_of(const struct em_model *m, const char *path, size_t e, size_t E,
                         const struct em_param *own)
{
    static const char built[] = "expert."; // the name that the lone expert has
    const char *rest = own->tensor.name + sizeof built - 1;
    const size_t n = ember_tensor_count(&own->tensor);
    char name[512];
    if (snprintf(name, sizeof name, "%s.expert.%s", path, rest) >= (int)sizeof name) return NULL;
    const struct em_param *p = em_params_find(&m->params, name);
    if (p) // alike experts are stacked
        return p->expert && p->tensor.dim[0] == E && ember_tensor_count(&p->tensor) == n * E
                   ? em_f32(&p->tensor) + n * e
                   : NULL;
    if (snprintf(name, sizeof name, "%s.experts.%zu.%s", path, e, rest) >= (int)sizeof name)
        return NULL;
    p = em_params_find(&m->params, name);
    return p && ember_tensor_count(&p->tensor) == n ? em_f32(&p->tensor) : NULL;
}

// An expert built alone, on a program of its own, whose parameters are the model's memory.
struct lone {
    struct em_arena arena;
    struct em_params params;
    struct em_program *program;
    ember_layer *layer;
    ember_tensor *y;
    const json_t *config;
};

static void close_lone(struct lone *l)
{
    em_program_destroy(l->program);
    em_params_deinit(&l->params);
    em_arena_deinit(&l->arena);
    *l = (struct lone){0};
}

static ember_status build_lone(const struct em_model *m, const json_t *config, size_t rows,
                               struct em_pool *pool, struct lone *l)
{
    *l = (struct lone){.config = config};
    struct ember_build b = {.arena = &l->arena,
                            .params = &l->params,
                            .file = m->name,
                            .path = "",
                            .where = m->name,
                            .width = m->width,
                            .max_parameters = (size_t)1 << 42,
                            .allow_not_causal = true};
    ember_tensor *x;
    EM_TRY(
        em_build_at(&b, "expert", m->name, EMBER_CHANNEL_MIXER, em_json_config(config), &l->layer));
    if (!rows) return EMBER_OK;
    EM_TRY(em_program_create(
        &(struct em_program_options){
            .backend = EM_CPU, .pool = pool, .max_tokens = rows, .max_sequences = 1},
        &l->program));
    EM_TRY(ember_inputs(em_program_flow(l->program), m->width, &x));
    EM_TRY(ember_forward(l->layer, em_program_flow(l->program), x, &l->y));
    em_program_output(l->program, l->y);
    return EMBER_OK;
}

static bool bind_weights(const struct em_model *m, const char *path, size_t e, size_t E,
                         struct lone *l)
{
    for (size_t i = 0; i < l->params.count; i++) {
        struct em_param *own = l->params.param[i];
        if (!(own->tensor.data = weights_of(m, path, e, E, own))) return false;
    }
    return true;
}

// ---- comparing ----

struct comparison {
    const struct em_expert_probe *probe;
    const struct em_probed_layer *layer;
    size_t E, width;
    struct em_pool *pool;
    const json_t *mixture; // its config
};

static const json_t *expert_config(const struct comparison *c, size_t e)
{
    const json_t *list = json_object_get(c->mixture, "expert_list");
    return list ? json_array_get(list, e) : json_object_get(c->mixture, "expert");
}

// Whether all experts are of one make, so that their weights can be held side by side.
static bool are_alike(const struct comparison *c)
{
    for (size_t e = 1; e < c->E; e++)
        if (!json_equal(expert_config(c, e), expert_config(c, 0))) return false;
    return true;
}

static ember_status compare_weights(const struct comparison *c, double *cosine, bool *known)
{
    const struct em_model *m = c->probe->model;
    struct lone l = {0};
    const float **v = em_calloc(c->E, sizeof *v);
    ember_status status = v ? EMBER_OK : EMBER_E_NOMEM;
    memset(cosine, 0, c->E * c->E * sizeof *cosine);
    if (status == EMBER_OK) status = build_lone(m, expert_config(c, 0), 0, c->pool, &l);
    bool all = status == EMBER_OK && l.params.count;
    for (size_t i = 0; all && i < l.params.count; i++) {
        for (size_t e = 0; all && e < c->E; e++)
            all = (v[e] = weights_of(m, c->layer->path, e, c->E, l.params.param[i])) != NULL;
        if (all)
            em_add_products(v, c->E, ember_tensor_count(&l.params.param[i]->tensor), cosine,
                            c->pool);
    }
    if (all) em_cosines(cosine, c->E);
    *known = all;
    close_lone(&l);
    em_free(v);
    return status;
}

static ember_status run_expert(const struct comparison *c, size_t e, struct lone *l, float *y,
                               bool *known)
{
    const struct em_probed_layer *layer = c->layer;
    const json_t *config = expert_config(c, e);
    const bool again = l->layer && json_equal(config, l->config);
    if (!again) {
        close_lone(l);
        EM_TRY(build_lone(c->probe->model, config, layer->rows, c->pool, l));
    }
    *known = bind_weights(c->probe->model, layer->path, e, c->E, l);
    if (!*known) return EMBER_OK;
    if (again)
        em_program_weights_changed(l->program);
    else
        EM_TRY(em_program_allocate(l->program));
    const size_t offset[] = {0, layer->rows};
    const ember_batch batch = {
        .n_tokens = layer->rows, .n_sequences = 1, .offset = offset, .inputs = layer->row};
    EM_TRY(em_program_forward(l->program, &(struct em_run){.batch = &batch, .loss_scale = 1}));
    for (size_t t = 0; t < layer->rows; t++)
        memcpy(y + t * c->width, em_row(l->y, t), c->width * sizeof *y);
    return EMBER_OK;
}

static ember_status compare_outputs(const struct comparison *c, double *cka, bool *known)
{
    const size_t rows = c->layer->rows;
    struct lone l = {0};
    const float **y = em_calloc(c->E, sizeof *y);
    size_t each, all;
    float *memory = NULL;
    if (em_mul_size(rows, c->width, &each) && em_mul_size(each, c->E, &all))
        memory = em_calloc(all ? all : 1, sizeof *memory);
    ember_status status = y && memory ? EMBER_OK : EMBER_E_NOMEM;
    *known = true;
    for (size_t e = 0; e < c->E && *known && status == EMBER_OK; e++) {
        float *own = memory + e * each;
        y[e] = own;
        status = run_expert(c, e, &l, own, known);
    }
    if (status == EMBER_OK && *known) status = em_linear_cka(y, c->E, rows, c->width, cka, c->pool);
    close_lone(&l);
    em_free(y);
    em_free(memory);
    return status;
}

ember_status em_expert_probe_compare(const struct em_expert_probe *p, size_t i, size_t E,
                                     struct em_pool *pool, double *cosine, double *cka,
                                     struct em_compared *known)
{
    struct comparison c = {
        .probe = p, .layer = &p->layer[i], .E = E, .width = p->model->width, .pool = pool};
    *known = (struct em_compared){0};
    if (!c.layer->path || !json_is_object(c.mixture = em_model_config_at(p->model, c.layer->path)))
        return EMBER_OK;
    for (size_t e = 0; e < E; e++)
        if (!expert_config(&c, e)) return EMBER_OK;
    if (are_alike(&c)) EM_TRY(compare_weights(&c, cosine, &known->weights));
    if (c.layer->rows >= EM_CKA_ROWS && E <= MOST_EXPERTS)
        EM_TRY(compare_outputs(&c, cka, &known->outputs));
    return EMBER_OK;
}
