// Building layers from configs: parameters, children, paths and messages.
#ifndef EM_NN_BUILD_H
#define EM_NN_BUILD_H

#include <ember/layer.h>

#include "base/arena.h"
#include "registry/registry.h"

// A parameter: a tensor (data and gradient are the owner's business) and what it is for.
struct em_param {
    ember_tensor tensor; // name: its path in the model, "blocks.3.sequence.q_proj.weight"
    ember_init init;
    ember_role role;
    ember_filling filling;
    bool decay;    // weight decay applies: matrices that are no norms
    bool frozen;   // no gradient: buffers, and what a recipe freezes
    bool positive; // training sets negative values to 0
    bool expert;   // the first dimension counts experts
    // Of training, where a recipe or the layer says something of its own.
    double lr_factor;    // of the learning rate
    double lr;           // the peak rate instead; below 0: none
    double weight_decay; // where it decays; below 0: the optimizer's
    bool held;           // a recipe froze it: a buffer that the trainer would write stays, too
};

// A mixture of experts: a token uses k of them.
struct em_moe_record {
    const char *path;
    size_t experts, k;
};

struct em_params {
    struct em_param **param; // in the order of declaration; the objects live in the arena
    size_t count, capacity;
    struct em_moe_record *moe;
    size_t moe_count, moe_capacity;
    const struct em_plugin **plugin; // whose components the model has, each once
    size_t plugins, plugins_capacity;
};

struct ember_build {
    struct em_arena *arena;
    struct em_params *params;
    const char *file;  // for messages: the config's name
    const char *path;  // of the layer being built
    const char *where; // "file: blocks[3].channel" in messages
    size_t width, block;
    size_t rows, columns; // the grid of images; 0: rows are tokens
    size_t experts;       // parameters declared now get this many as their first dimension; 0: none
    size_t routed;        // experts that the router being built chooses among
    size_t chosen;        // by the router that was built last, for each token
    size_t choices;       // that its routing has room for
    size_t max_parameters; // 0: no limit. A config that asks for more is refused.
    size_t n_parameters;
    size_t n_tensors; // as files have them: experts one by one
    bool allow_not_causal;
    bool within_sequences; // an expert of a mixture of sequence mixers
    bool apart;        // within an expert: rows are some of the batch's tokens, in another order
    size_t vocabulary; // of the model's tokens; 0: it reads none
    size_t output;     // what the last layer makes instead of the model's width; 0: the width
};

// Registers the layer types of this room. Once.
ember_status em_nn_register(void) EMBER_CHECKED;

// A layer type as registry entry; `plugin` NULL: built in.
struct em_component em_layer_component(const ember_layer_type *type,
                                       const struct em_plugin *plugin);
// Fails with EMBER_E_CONFIG "where: ..." unless the descriptor is whole and its options are, so
// that nothing that uses it later has to ask.
ember_status em_layer_type_check(const ember_layer_type *type, const char *where) EMBER_CHECKED;

// Builds a component at the path `build->path.name`, named `where` in messages.
ember_status em_build_at(struct ember_build *build, const char *name, const char *where,
                         ember_kind kind, const ember_config *config,
                         ember_layer **layer) EMBER_CHECKED;

// For layers whose output may have another width than the model: refused unless it is the model's
// width, or the output of the model (build->output).
ember_status em_build_output(ember_build *build, size_t width) EMBER_CHECKED;
// After each step of training, negative values of `param` become 0.
void em_param_keep_positive(ember_build *build, const ember_tensor *param);

void em_params_deinit(struct em_params *params);
struct em_param *em_params_find(const struct em_params *params, const char *path);

#endif
