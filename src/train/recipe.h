// A recipe: what to train, on what, and how. JSON from a file, a preset, --set and flags becomes
// one resolved object, which is checked by option tables and kept with every training state.
#ifndef EM_TRAIN_RECIPE_H
#define EM_TRAIN_RECIPE_H

#include "data/dataset.h"
#include "train/optimizer.h"

enum em_train_dtype { EM_TRAIN_AUTO, EM_TRAIN_F32, EM_TRAIN_BF16 };

struct em_train_settings { // "train"
    size_t steps;
    double minutes;
    size_t batch, seq, accumulate;
    size_t seq_start, seq_stage; // a warm-up of lengths; 0: none
    double lr, warmup, clip;
    const ember_config *optimizer, *schedule;
    int dtype;
    size_t eval_every, eval_tokens, final_eval_tokens, save_every, log_every;
    double save_minutes, stop_right;
    bool recompute;
};

struct em_data_settings { // "data"
    const ember_config *sources;
    const char *ids, *tensors, *tensors_held_out, *tokenizer, *text_key, *cache;
    size_t vocab;
    double held_out, mix, reverse_complement;
    int format;
    bool eos;
};

// "train.groups": parameters that train in a way of their own. Of two groups that have a parameter,
// the later one's word counts where it says something.
struct em_param_group {
    const char *pattern;                // of paths, with * and ?; empty: all
    int role;                           // 0: any, else an ember_role + 1
    double lr, lr_factor, weight_decay; // below 0: not said
    bool frozen, says_frozen;
};

struct em_recipe {
    json_t *json;     // resolved: {"preset", "model", "data", "train", "seed"}
    const char *name; // for messages; borrowed from `arena`
    struct em_arena *arena;
    const json_t *model;      // the config of a new model, or
    const char *model_folder; // the folder whose weights are the start
    struct em_train_settings train;
    struct em_data_settings data;
    struct em_source *sources;
    size_t source_count;
    struct em_param_group *groups;
    size_t group_count;
    uint64_t seed;
    bool new_length; // a run that goes on was given other steps or minutes
    const struct em_optimizer *optimizer;
    void *optimizer_options;
    const struct em_schedule *schedule;
    void *schedule_options;
};

// What a command line says. All borrowed.
struct em_recipe_request {
    const char *file;        // a recipe, or NULL
    const char *preset;      // or NULL
    const char *const *data; // --data
    size_t data_count;
    const char *const *set; // --set: "path.to.key=value"
    size_t set_count;
    bool seed_given;
    uint64_t seed;
    int dtype; // enum em_train_dtype; EM_TRAIN_AUTO: not said
};

// Precedence: flags, --set, recipe, preset. EMBER_E_USAGE: a --set path that does not exist.
ember_status em_recipe_open(const struct em_recipe_request *request,
                            struct em_recipe *recipe) EMBER_CHECKED;
// As open, for a run that goes on: `saved` (borrowed) is the resolved recipe of its state. Steps,
// learning rate and what does not change the data or the model may differ; the rest is
// EMBER_E_CONFIG.
ember_status em_recipe_resume(const struct em_recipe_request *request, const json_t *saved,
                              struct em_recipe *recipe) EMBER_CHECKED;
void em_recipe_close(struct em_recipe *recipe); // {0} is fine

struct em_model;
// Marks the parameters of every group. A group that has none is EMBER_E_CONFIG. `tell`: a line for
// each.
ember_status em_groups_apply(const struct em_recipe *recipe, struct em_model *model,
                             bool tell) EMBER_CHECKED;

// The option tables, for documentation.
extern const ember_option em_train_settings_table[];
extern const ember_option em_data_settings_table[];
extern const ember_option em_source_table[];
extern const ember_option em_group_table[];

// ---- the parts, for this room ----

// `over` on top of `base`: objects join, everything else replaces; `steps` and `minutes` of a level
// replace both. A new object.
ember_status em_recipe_merge(const json_t *base, const json_t *over, json_t **out) EMBER_CHECKED;
// "path.to.key=value" on a resolved recipe. EMBER_E_USAGE where there is no such path.
ember_status em_recipe_set(json_t *recipe, const char *assignment) EMBER_CHECKED;
// The optimizer or schedule that "train" names.
ember_status em_recipe_component(const json_t *train, const char *key, ember_kind kind,
                                 const char *where,
                                 const struct em_component **component) EMBER_CHECKED;
// "train.groups" into the recipe's arena.
ember_status em_groups_read(struct em_recipe *recipe) EMBER_CHECKED;
// Checks a resolved recipe and fills the rest of it from its json.
ember_status em_recipe_read(struct em_recipe *recipe) EMBER_CHECKED;

#endif
