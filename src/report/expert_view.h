// What held-out text shows of a model's mixtures of experts: counted while it is scored, then put
// into a report. Training's last evaluation and `ember moe report` fill the same views.
#ifndef EM_REPORT_EXPERT_VIEW_H
#define EM_REPORT_EXPERT_VIEW_H

#include "base/arena.h"
#include "models/model.h"
#include "report/report.h"
#include "report/specialisation.h"
#include "text/tokenizer.h"

enum { EM_POSITION_BUCKETS = 8, EM_EXCERPT_TOKENS = 160, EM_FREQUENT_TOKENS = 24 };

// One layer's.
struct em_expert_view {
    char *path;        // of the router: "blocks.3.channel.router"
    size_t k;          // experts of a token
    bool inner;        // within an expert: it sees some rows, in another order
    bool per_sequence; // every sequence is balanced on its own
    struct em_expert_counts counts;
    double token_entropy, marginal_entropy; // the router's own, sums over tokens
    uint64_t weighed;                       // tokens of these
    uint64_t dropped;                       // choices that found no room, by the router's own count
    int32_t *top;    // [domains][EM_EXCERPT_TOKENS] the expert with the largest weight, -1: none
    int32_t *chosen; // [choices][k] what the router chose, for other models to be held against
    size_t choices, choices_capacity;
};

struct em_expert_views {
    size_t count; // of routers
    struct em_expert_view *view;
    const struct em_tokenizer *tokenizer;
    size_t vocabulary, context, domains;
    bool keep_choices;
    int32_t *token_class; // [V]
    int32_t *place, *class;
    size_t place_capacity, class_capacity; // of a batch
    int32_t *excerpt;                      // [domains][EM_EXCERPT_TOKENS] ids
    size_t *excerpt_tokens;                // [domains]
};

struct em_expert_views_options {
    const struct em_router_record *routers; // [count], of a program that is recorded
    size_t count;
    const struct em_model *model;
    const struct em_tokenizer *tokenizer; // outlives the views
    size_t context; // longest sequence: positions are counted in eight parts of it
    size_t domains;
    bool keep_choices;
};
ember_status em_expert_views_open(const struct em_expert_views_options *options,
                                  struct em_expert_views *out) EMBER_CHECKED;
void em_expert_views_close(struct em_expert_views *v); // {0} is fine

// After a forward pass over `batch`, all of whose sequences are of `domain` and whole.
ember_status em_expert_views_add(struct em_expert_views *v, const struct em_router_record *routers,
                                 const ember_batch *batch, size_t domain) EMBER_CHECKED;

// "blocks.3.channel.router" is layer 3; `otherwise` where the path has no number.
size_t em_layer_number(const char *path, size_t otherwise);

// report->layers and what belongs to them: maps, names, excerpts, and a warning for each layer that
// has gone wrong. `domain` names the domains. Everything lives in the arena.
ember_status em_expert_views_draw(const struct em_expert_views *v, const char *const *domain,
                                  uint64_t seed, struct em_arena *arena,
                                  struct em_report_layer **layers,
                                  struct em_report *report) EMBER_CHECKED;

#endif
