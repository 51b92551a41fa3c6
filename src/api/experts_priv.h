// What the parts of a report on experts share.
#ifndef EM_API_EXPERTS_PRIV_H
#define EM_API_EXPERTS_PRIV_H

#include <ember/experts.h>
#include <ember/model.h>

#include "base/arena.h"
#include "data/dataset.h"
#include "infer/perplexity.h"
#include "report/expert_probe.h"
#include "report/expert_view.h"

struct em_experts_study {
    const char *path;
    const ember_experts_options *options;
    struct em_arena arena;
    ember_model *model;
    struct em_dataset dataset;
    bool text_open;
    const char **label; // [labels] of the domains, and which one each source has
    size_t labels, *label_of;
    size_t context;
    uint64_t limit, tokens;      // of a source; of all
    size_t walked;               // the source that is being read
    struct em_perplexity *score; // [labels]
    struct em_expert_views views;
    struct em_expert_probe probe;
    const char **checkpoint; // [checkpoints] folders, and what they are called
    const char **checkpoint_name;
    size_t checkpoints, required; // those that were asked for come first
    struct em_report report;
};

// Every source's text through a model of the same vocabulary, in the same windows each time; the
// options get what the study knows. `scores` by label; NULL: not wanted.
ember_status em_experts_walk(struct em_experts_study *s, const struct em_model *model,
                             struct em_perplexity_options *options,
                             struct em_perplexity *scores) EMBER_CHECKED;

// ---- experts_saturation.c: beside earlier checkpoints ----

// Those that were asked for, and the states of the run that the folder belongs to.
ember_status em_experts_find_checkpoints(struct em_experts_study *s) EMBER_CHECKED;
// How many of a token's experts each had chosen as well.
ember_status em_experts_saturation(struct em_experts_study *s,
                                   struct em_report_layer *layers) EMBER_CHECKED;

#endif
