#include "nn/build.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "ops/program.h"

// Three times what the largest published models have; a config of a few lines asks for more.
enum { MAX_TENSORS = 1 << 18 };

size_t ember_build_width(const ember_build *build)
{
    return build->width;
}

void ember_build_grid(const ember_build *build, size_t *rows, size_t *columns)
{
    *rows = build->rows;
    *columns = build->columns;
}

void ember_build_becomes(ember_build *build, size_t width, size_t rows, size_t columns)
{
    build->width = width;
    build->rows = rows;
    build->columns = columns;
}

size_t ember_build_block(const ember_build *build)
{
    return build->block;
}

size_t ember_build_vocabulary(const ember_build *build)
{
    return build->vocabulary;
}

ember_status ember_build_need_tokens(ember_build *build)
{
    return !build->apart
               ? EMBER_OK
               : ember_build_refuse(build, "",
                                    "needs the batch's tokens in their order, and an expert of a "
                                    "mixture gets only some of them");
}

size_t ember_build_experts(const ember_build *build)
{
    return build->routed;
}

void ember_build_chooses(ember_build *build, size_t k)
{
    build->chosen = build->choices = k;
}

void ember_build_may_choose(ember_build *build, size_t most)
{
    build->choices = most;
}

size_t ember_build_choices(const ember_build *build)
{
    return build->choices;
}

void em_params_deinit(struct em_params *params)
{
    em_free(params->param);
    em_free(params->moe);
    em_free(params->plugin);
    *params = (struct em_params){0};
}

struct em_param *em_params_find(const struct em_params *params, const char *path)
{
    for (size_t i = 0; i < params->count; i++)
        if (strcmp(params->param[i]->tensor.name, path) == 0) return params->param[i];
    return NULL;
}

ember_status ember_build_refuse(ember_build *build, const char *option, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    const bool named = option && *option;
    return em_fail(EMBER_E_CONFIG, "%s%s%s: %s", build->where,
                   named ? em_json_joint(build->where) : "", named ? option : "", text);
}

ember_status ember_param(ember_build *build, ember_tensor **param, const char *name,
                         ember_init init, ember_role role, const size_t *dim, unsigned ndim)
{
    size_t full[EMBER_MAX_DIMS], count = 1;
    const unsigned lead = build->experts ? 1 : 0;
    if (ndim + lead > EMBER_MAX_DIMS)
        return em_fail(EMBER_E_SHAPE, "%s.%s has more than %d dimensions", build->path, name,
                       EMBER_MAX_DIMS);
    full[0] = build->experts;
    memcpy(full + lead, dim, ndim * sizeof *dim);
    for (unsigned i = 0; i < ndim + lead; i++)
        if (!full[i] || !em_mul_size(count, full[i], &count))
            return ember_build_refuse(build, "", "parameter %s has an impossible shape", name);
    if (!em_add_size(build->n_parameters, count, &build->n_parameters) ||
        (build->max_parameters && build->n_parameters > build->max_parameters))
        return ember_build_refuse(build, "", "the model has more than %zu parameters",
                                  build->max_parameters);
    // A config of a few lines can ask for billions of layers.
    build->n_tensors += lead ? full[0] : 1;
    if (build->n_tensors > MAX_TENSORS)
        return ember_build_refuse(build, "", "the model has more than %d tensors", MAX_TENSORS);
    EM_TRY(em_grow(&build->params->param, &build->params->capacity, build->params->count + 1,
                   sizeof *build->params->param));
    struct em_param *p = em_arena_alloc(build->arena, sizeof *p);
    char *path =
        em_arena_printf(build->arena, "%s%s%s", build->path, *build->path ? "." : "", name);
    if (!p || !path) return EMBER_E_NOMEM;
    EM_TRY(em_tensor_init(&p->tensor, EMBER_F32, full, ndim + lead, NULL));
    p->tensor.name = path;
    p->init = init;
    p->role = role;
    p->expert = lead;
    p->lr_factor = 1;
    p->lr = p->weight_decay = -1;
    p->frozen = init == EMBER_INIT_BUFFER;
    p->decay = ndim >= 2 && role != EMBER_ROLE_NORM && !p->frozen;
    build->params->param[build->params->count++] = p;
    *param = &p->tensor;
    return EMBER_OK;
}

void ember_param_fill(ember_build *build, const ember_tensor *param, const ember_filling *filling)
{
    const struct em_params *params = build->params;
    for (size_t i = params->count; i-- > 0;) {
        struct em_param *p = params->param[i];
        if (&p->tensor != param) continue;
        p->filling = *filling;
        if (filling->no_decay) p->decay = false;
        if (filling->lr_factor > 0) p->lr_factor = (double)filling->lr_factor;
        return;
    }
}

ember_status em_build_output(ember_build *build, size_t width)
{
    const size_t expected = build->output ? build->output : build->width;
    return width == expected
               ? EMBER_OK
               : ember_build_refuse(build, "", "the output has %zu columns; it needs %zu", width,
                                    expected);
}

void em_param_keep_positive(ember_build *build, const ember_tensor *param)
{
    const struct em_params *params = build->params;
    for (size_t i = 0; i < params->count; i++)
        if (&params->param[i]->tensor == param) params->param[i]->positive = true;
}

double ember_random_uniform(ember_random *random)
{
    return em_rng_uniform(random);
}

double ember_random_normal(ember_random *random)
{
    return em_rng_normal(random);
}

// The component that a config names: an object with "type", or the bare name.
static ember_status resolve(ember_kind kind, const ember_config *config, const char *where,
                            const struct em_component **component)
{
    const json_t *json = em_config_json(config),
                 *type = json_is_object(json) ? json_object_get(json, "type") : json;
    if (!config) return em_fail(EMBER_E_CONFIG, "%s: a %s is needed", where, ember_kind_name(kind));
    char found[96];
    if (!json_is_string(type))
        return em_fail(EMBER_E_CONFIG, "%s.type is needed: the name of a %s; found %s", where,
                       ember_kind_name(kind), em_json_text(type, found, sizeof found));
    return em_registry_need(kind, json_string_value(type), where, component);
}

static ember_status note_plugin(struct em_params *params, const struct em_plugin *plugin)
{
    for (size_t i = 0; i < params->plugins; i++)
        if (params->plugin[i] == plugin) return EMBER_OK;
    EM_TRY(em_grow(&params->plugin, &params->plugins_capacity, params->plugins + 1,
                   sizeof *params->plugin));
    params->plugin[params->plugins++] = plugin;
    return EMBER_OK;
}

// A router's config says that it knows.
static bool accepts_future(const ember_config *config)
{
    return json_is_true(json_object_get(em_config_json(config), "accept_future"));
}

static ember_status build_child(ember_build *build, const char *name, const char *where,
                                ember_kind kind, const ember_config *config, size_t experts,
                                ember_layer **child)
{
    const struct em_component *component;
    const char *path =
        em_arena_printf(build->arena, "%s%s%s", build->path, *build->path ? "." : "", name);
    if (!path) return EMBER_E_NOMEM;
    EM_TRY(resolve(kind, config, where, &component));
    if (component->plugin) EM_TRY(note_plugin(build->params, component->plugin));
    const ember_layer_type *type = component->impl;
    const bool router = kind == EMBER_ROUTER;
    if ((type->flags & EMBER_NOT_CAUSAL) && !build->allow_not_causal &&
        !(router && accepts_future(config)))
        return em_fail(EMBER_E_CONFIG,
                       "%s: %s looks at later tokens, so a causal model cannot have it%s", where,
                       type->name,
                       router ? ": what it does with a whole text it cannot do while it generates; "
                                "say \"accept_future\": true to have it all the same"
                              : "");
    if (experts && !(type->flags & EMBER_GROUPABLE))
        return em_fail(EMBER_E_CONFIG, "%s: %s cannot run as a group of experts", where,
                       type->name);
    ember_layer *layer = em_arena_alloc(build->arena, type->size);
    if (!layer) return EMBER_E_NOMEM;
    EM_TRY(em_options_read(type->options, em_config_json(config), where, NULL, layer));
    layer->type = type;
    layer->path = path;
    struct ember_build inner = *build;
    inner.path = path;
    inner.where = where;
    if (experts) inner.experts = experts;
    EM_TRY(type->build(layer, &inner));
    build->n_parameters = inner.n_parameters;
    build->n_tensors = inner.n_tensors;
    build->chosen = inner.chosen;
    build->choices = inner.choices;
    if (kind == EMBER_BLOCK) ember_build_becomes(build, inner.width, inner.rows, inner.columns);
    *child = layer;
    return EMBER_OK;
}

ember_status em_build_at(struct ember_build *build, const char *name, const char *where,
                         ember_kind kind, const ember_config *config, ember_layer **layer)
{
    return build_child(build, name, where, kind, config, 0, layer);
}

static ember_status child_of(ember_build *build, const char *name, ember_kind kind,
                             const ember_config *config, size_t experts, ember_layer **child)
{
    const char *where = em_arena_printf(build->arena, "%s.%s", build->where, name);
    return where ? build_child(build, name, where, kind, config, experts, child) : EMBER_E_NOMEM;
}

ember_status ember_child(ember_build *build, const char *name, ember_kind kind,
                         const ember_config *config, ember_layer **child)
{
    return child_of(build, name, kind, config, 0, child);
}

ember_status ember_child_group(ember_build *build, const char *name, const ember_config *config,
                               size_t n, ember_layer **child)
{
    if (build->experts)
        return ember_build_refuse(build, name, "a group of experts cannot hold another group");
    return child_of(build, name, EMBER_CHANNEL_MIXER, config, n, child);
}

ember_status ember_config_groupable(ember_build *build, const ember_config *config, bool *groupable)
{
    const struct em_component *component;
    EM_TRY(resolve(EMBER_CHANNEL_MIXER, config, build->where, &component));
    const ember_layer_type *type = component->impl;
    *groupable = (type->flags & EMBER_GROUPABLE) && !build->experts;
    return EMBER_OK;
}

size_t ember_config_count(const ember_config *list)
{
    return list ? json_array_size(em_config_json(list)) : 0;
}

const ember_config *ember_config_at(const ember_config *list, size_t i)
{
    return em_json_config(json_array_get(em_config_json(list), i));
}

ember_status ember_forward(const ember_layer *layer, ember_flow *flow, ember_tensor *x,
                           ember_tensor **y)
{
    const char *before;
    em_flow_enter(flow, layer->path, &before);
    const ember_status status = layer->type->forward(layer, flow, x, y);
    em_flow_leave(flow, before);
    return status;
}

ember_status ember_route(const ember_layer *layer, ember_flow *flow, ember_tensor *x,
                         ember_routing *routing)
{
    const char *before;
    em_flow_enter(flow, layer->path, &before);
    const ember_status status = layer->type->route(layer, flow, x, routing);
    em_flow_leave(flow, before);
    return status;
}

ember_status ember_combine(const ember_layer *layer, ember_flow *flow, ember_tensor *x,
                           ember_tensor *rows, const ember_routing *routing, ember_tensor **y)
{
    const char *before;
    em_flow_enter(flow, layer->path, &before);
    const ember_status status = layer->type->combine(layer, flow, x, rows, routing, y);
    em_flow_leave(flow, before);
    return status;
}
