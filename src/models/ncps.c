// Networks that ncps's torch.CfC and torch.LTC saved: one cell over float sequences. Sizes of
// layers and synapses come from the tensors.
#include <stdio.h>
#include <string.h>

#include "models/family.h"

static const struct em_name names[] = {
    {"blocks.#.sequence.lstm.input_map.weight", "lstm.input_map.weight", false},
    {"blocks.#.sequence.lstm.input_map.bias", "lstm.input_map.bias", false},
    {"blocks.#.sequence.lstm.recurrent_map.weight", "lstm.recurrent_map.weight", false},
    {"blocks.#.sequence.fc.weight", "fc.weight", false},
    {"blocks.#.sequence.fc.bias", "fc.bias", false},
    {"blocks.#.sequence.backbone.#.weight", "rnn_cell.backbone.#.weight", false},
    {"blocks.#.sequence.backbone.#.bias", "rnn_cell.backbone.#.bias", false},
#define HEAD(what)                                                                                 \
    {"blocks.#.sequence." what, "rnn_cell." what, false},                                          \
    {                                                                                              \
        "blocks.#.sequence.layer_#." what, "rnn_cell.layer_#." what, false                         \
    }
    HEAD("ff1.weight"),
    HEAD("ff1.bias"),
    HEAD("ff2.weight"),
    HEAD("ff2.bias"),
    HEAD("time_a.weight"),
    HEAD("time_a.bias"),
    HEAD("time_b.weight"),
    HEAD("time_b.bias"),
    HEAD("w_tau"),
    HEAD("A"),
    HEAD("sparsity_mask"),
#undef HEAD
#define NEURON(what)                                                                               \
    {                                                                                              \
        "blocks.#.sequence." what, "rnn_cell." what, false                                         \
    }
    NEURON("gleak"),
    NEURON("vleak"),
    NEURON("cm"),
    NEURON("sigma"),
    NEURON("mu"),
    NEURON("w"),
    NEURON("erev"),
    NEURON("sensory_sigma"),
    NEURON("sensory_mu"),
    NEURON("sensory_w"),
    NEURON("sensory_erev"),
    NEURON("sensory_sparsity_mask"),
    NEURON("input_w"),
    NEURON("input_b"),
    NEURON("output_w"),
    NEURON("output_b"),
#undef NEURON
    {0},
};

static const char *const keys[] = {"model_type",
                                   "architectures",
                                   "dtype",
                                   "torch_dtype",
                                   "ember",
                                   "cell",
                                   "input_size",
                                   "units",
                                   "output_size",
                                   "mode",
                                   "activation",
                                   "backbone_units",
                                   "backbone_layers",
                                   "backbone_dropout",
                                   "mixed_memory",
                                   "proj_size",
                                   "wired",
                                   "wiring",
                                   "ode_unfolds",
                                   "epsilon",
                                   "implicit_param_constraints",
                                   NULL};

struct network {
    struct em_reader *r;
    const struct em_weights *weights;
    size_t inputs, units, outputs; // outputs 0: not said
};

// The layers of a wired CfC, as the heads' shapes tell: "layers:15,9,4".
static ember_status layers_of_tensors(const struct network *n, char *text, size_t size,
                                      size_t *outputs)
{
    size_t used = (size_t)snprintf(text, size, "layers:"), units = 0, l = 0;
    for (; used + 24 < size; l++) {
        char name[64];
        snprintf(name, sizeof name, "rnn_cell.layer_%zu.ff1.bias", l);
        const struct em_st_tensor *t = n->weights ? em_weights_find(n->weights, name) : NULL;
        if (!t) break;
        if (t->rank != 1 || !t->shape[0] || t->shape[0] > 65536)
            return em_fail(EMBER_E_SHAPE, "%s: %s has to be a vector of at most 65536",
                           em_weights_file_of(n->weights, t), name);
        used += (size_t)snprintf(text + used, size - used, "%s%zu", l ? "," : "", t->shape[0]);
        *outputs = t->shape[0];
        units += t->shape[0];
    }
    if (!l)
        return em_fail(EMBER_E_CONFIG,
                       "%s: a wired network's layers come from its tensors rnn_cell.layer_0.. or, "
                       "without them, from a wiring",
                       n->r->where);
    if (n->units && n->units != units)
        return em_fail(EMBER_E_CONFIG, "%s: units is %zu; the tensors' layers have %zu",
                       n->r->where, n->units, units);
    return EMBER_OK;
}

// What of a file has to agree with the config: else a shape would only be refused by its name.
static ember_status need_outputs(const struct network *n, size_t outputs)
{
    if (n->outputs && n->outputs != outputs)
        return em_fail(EMBER_E_CONFIG, "%s: output_size is %zu; the network makes %zu", n->r->where,
                       n->outputs, outputs);
    return EMBER_OK;
}

static void set_size(struct em_reader *r, json_t *object, const char *key, size_t value)
{
    em_form_set(r, object, key, json_integer((json_int_t)value));
}

static ember_status read_projection(const struct network *n, json_t *cell, size_t *outputs)
{
    struct em_reader *r = n->r;
    const bool projected = em_read_has(r, "proj_size");
    em_form_set(r, cell, "projection", json_boolean(projected));
    if (!projected) return r->status;
    *outputs = em_read_size(r, "proj_size", 1, 1, 1u << 20);
    set_size(r, cell, "output_size", *outputs);
    return r->status;
}

static ember_status read_cfc(const struct network *n, json_t *cell, size_t *outputs)
{
    struct em_reader *r = n->r;
    const bool wired = em_read_bool(r, "wired", false);
    const char *wiring = em_read_string(r, "wiring", "");
    char layers[256];
    em_form_set(r, cell, "mode", json_string(em_read_string(r, "mode", "default")));
    em_form_set(r, cell, "activation", json_string(em_read_string(r, "activation", "lecun_tanh")));
    if (wired) {
        const bool ours = !n->weights && *wiring;
        if (r->status == EMBER_OK && !ours)
            EM_TRY(layers_of_tensors(n, layers, sizeof layers, outputs));
        em_form_set(r, cell, "wiring", json_string(ours ? wiring : layers));
        if (ours) *outputs = n->outputs;
        if (ours && !n->outputs)
            return em_fail(EMBER_E_CONFIG, "%s: output_size is needed beside a wiring", r->where);
    } else {
        *outputs = n->units;
        set_size(r, cell, "units", n->units);
        set_size(r, cell, "backbone_units", em_read_size(r, "backbone_units", 128, 1, 65536));
        set_size(r, cell, "backbone_layers", em_read_size(r, "backbone_layers", 1, 0, 8));
        em_form_set(r, cell, "backbone_dropout",
                    json_real(em_read_double(r, "backbone_dropout", 0, 0, 0.999)));
    }
    EM_TRY(read_projection(n, cell, outputs));
    return r->status;
}

static ember_status read_ltc(const struct network *n, json_t *cell, size_t *outputs)
{
    struct em_reader *r = n->r;
    const char *wiring = em_read_string(r, "wiring", "");
    *outputs = n->outputs ? n->outputs : n->units;
    if (n->weights) {
        const struct em_st_tensor *t = em_weights_find(n->weights, "rnn_cell.output_w");
        if (t && t->rank == 1 && t->shape[0] && !n->outputs) *outputs = t->shape[0];
    } else if (*wiring) {
        em_form_set(r, cell, "wiring", json_string(wiring));
    }
    set_size(r, cell, "units", n->units);
    set_size(r, cell, "outputs", *outputs);
    set_size(r, cell, "ode_unfolds", em_read_size(r, "ode_unfolds", 6, 1, 256));
    em_form_set(r, cell, "epsilon", json_real(em_read_double(r, "epsilon", 1e-8, 0, 1)));
    em_form_set(r, cell, "implicit_param_constraints",
                json_boolean(em_read_bool(r, "implicit_param_constraints", true)));
    em_form_set(r, cell, "projection", json_false());
    return r->status;
}

static ember_status translate(const json_t *config, const char *where,
                              const struct em_weights *weights, json_t **form)
{
    struct em_reader r = {config, where, EMBER_OK};
    struct network n = {.r = &r, .weights = weights};
    const char *kind = em_read_string(&r, "cell", "cfc");
    const bool ltc = strcmp(kind, "ltc") == 0;
    n.inputs = em_read_size(&r, "input_size", 0, 1, 1u << 20);
    n.units = em_read_size(&r, "units", 0, 0, 65536);
    n.outputs =
        em_read_has(&r, "output_size") ? em_read_size(&r, "output_size", 0, 1, 1u << 20) : 0;
    EM_TRY(r.status);
    if (!ltc && strcmp(kind, "cfc") != 0)
        return em_fail(EMBER_E_CONFIG, "%s: cell is \"%.60s\"; it has to be cfc or ltc", where,
                       kind);
    if (!em_read_has(&r, "input_size"))
        return em_fail(EMBER_E_CONFIG, "%s: input_size is needed", where);
    if (!n.units && (ltc || !em_read_bool(&r, "wired", false)))
        return em_fail(EMBER_E_CONFIG, "%s: units is needed, 1 to 65536", where);
    json_t *cell = json_pack("{s:s}", "type", kind);
    size_t outputs = 0;
    ember_status status = cell ? EMBER_OK : em_fail(EMBER_E_NOMEM, "%s: out of memory", where);
    if (status == EMBER_OK) {
        em_form_set(&r, cell, "mixed_memory",
                    json_boolean(em_read_bool(&r, "mixed_memory", false)));
        status = ltc ? read_ltc(&n, cell, &outputs) : read_cfc(&n, cell, &outputs);
    }
    if (status == EMBER_OK) status = need_outputs(&n, outputs);
    json_t *made = NULL;
    if (status == EMBER_OK) {
        made = json_pack("{s:s, s:I, s:I, s:b, s:{s:s}, s:[{s:s, s:O}]}", "model_type", "ember",
                         "hidden_size", (json_int_t)n.inputs, "output_size", (json_int_t)outputs,
                         "output_matrix", 0, "final_norm", "type", "identity", "blocks", "type",
                         "plain", "sequence", cell);
        if (!made) status = em_fail(EMBER_E_NOMEM, "%s: out of memory", where);
    }
    json_decref(cell);
    if (status == EMBER_OK) *form = made;
    return status;
}

extern const struct em_family em_family_ncps;
const struct em_family em_family_ncps = {
    .name = "ncps",
    .help = "liquid networks of ncps: CfC and LTC cells over float sequences",
    .names = names,
    .keys = keys,
    .translate = translate,
};
