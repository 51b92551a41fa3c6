// What a training run shows a person, or a look at a model's experts: one value, drawn as a
// self-contained HTML page (report.html), as JSON with the same figures (report.json,
// docs/report.md) and as a sketch on a terminal.
//
// All memory is the caller's and only read. A figure that was not measured is NAN, text that is not
// there is NULL, a list that is not there has count 0: its place is then left out of the picture.
#ifndef EM_REPORT_REPORT_H
#define EM_REPORT_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/fail.h"
#include "report/specialisation.h"

struct em_report_fact { // a row of a key/value table
    const char *name, *value;
};

struct em_report_facts {
    const char *title; // "Model", "Training", "Machine"
    const struct em_report_fact *facts;
    size_t count;
};

struct em_report_series {
    const char *name;    // "train", or a domain
    const double *x, *y; // [count], x not falling; a y that is not finite breaks the line
    size_t count;
    bool faint; // raw values behind their smoothed line
};

struct em_report_curve {
    const char *title;  // "Training loss"
    const char *unit;   // of y: "nats per token"
    const char *x_unit; // NULL: "step"
    const struct em_report_series *series;
    size_t count;
    bool log_y;      // positive values over several orders of magnitude
    bool zero_based; // the axis starts at 0 (rates)
};

// What held-out tokens are told apart by, beside their domains.
enum em_split { EM_SPLIT_POSITION, EM_SPLIT_CLASS, EM_SPLIT_TOKEN, EM_SPLITS };

struct em_report_layer { // one MoE layer
    size_t layer;        // its index among the model's layers
    const char *within;  // path of its router where it is part of another's expert; NULL: it is not
    size_t experts;      // E
    size_t active;       // k of a token
    const double *load; // [em_report.load_count][E] shares of slots, each row sums to 1; NULL: none
    // Over the held-out text; NULL: not measured.
    const double *share;            // [E] of the slots
    const double *coverage;         // [E], em_expert_coverage
    const double *domain_share;     // [em_report.domain_count][E], em_expert_share
    const double *split[EM_SPLITS]; // [em_report.split[i].count][E], the same
    const double *coactivation;     // [E][E], em_expert_coactivation
    const double *weight_cosine;    // [E][E]
    const double *output_cka;       // [E][E]
    const double *saturation;       // [em_report.checkpoint_count], shares of equal choices
    const int32_t *const *excerpt;  // [em_report.excerpt_count][tokens] top experts, -1: none
    struct em_expert_metrics metrics;
};

struct em_report_names {
    const char *const *name;
    size_t count;
};

struct em_report_excerpt { // the beginning of a domain's held-out text
    const char *domain;
    const char *const *piece; // [count] the text of each token: any bytes
    size_t count;
};

struct em_report_domain { // a domain's held-out text
    const char *name;
    uint64_t bytes, tokens;
    double bpb;           // bits per byte after training
    double untrained_bpb; // of the model with its initial weights
    double xz_bpb;        // what `xz -9e` makes of the same bytes
};

struct em_report_sample {
    const char *domain; // or another caption
    const char *prompt; // any bytes: what is not UTF-8 is shown as U+FFFD
    const char *text;   // what the model went on with
};

struct em_report {
    const char *title;    // "tiny-moe on prose, bible, c, dna"
    const char *subtitle; // one plain sentence, or NULL
    const char *version;  // the program's
    double finished;      // seconds since 1970; 0: not said
    const struct em_report_fact
        *tiles; // the few figures on top: "parameters" "8.4 M, 3.1 M active"
    size_t tile_count;
    const struct em_report_facts *facts;
    size_t facts_count;
    const char *const *warnings; // alarms, one sentence each
    size_t warning_count;
    const struct em_report_curve *curves; // the first one is the terminal's
    size_t curve_count;
    const double *load_steps; // [load_count] the steps of em_report_layer.load
    size_t load_count;
    const struct em_report_layer *layers;
    size_t layer_count;
    struct em_report_names split[EM_SPLITS]; // of the rows of em_report_layer.split
    const char *const *checkpoints;          // [checkpoint_count] of em_report_layer.saturation
    size_t checkpoint_count;
    const struct em_report_excerpt *excerpts;
    size_t excerpt_count;
    const struct em_report_domain *domains;
    size_t domain_count;
    const struct em_report_sample *samples;
    size_t sample_count;
    const char *config; // JSON text, shown as it is
};

// Both replace `path` durably.
ember_status em_report_write_html(const struct em_report *r, const char *path) EMBER_CHECKED;
ember_status em_report_write_json(const struct em_report *r, const char *path) EMBER_CHECKED;
ember_status em_report_html(const struct em_report *r,
                            struct em_buf *out) EMBER_CHECKED; // appended

struct em_terminal {
    size_t columns; // 40..400
    bool unicode;   // braille and blocks; else ASCII
    bool colour;    // 256 colours
};
// What the terminal behind a file descriptor can show: its width (80 where it has none), UTF-8 by
// the locale's variables, colour on a terminal unless NO_COLOR is set or TERM is dumb.
struct em_terminal em_terminal_of(int fd);

// Appends sketches: the first curve, the expert maps, the table of held-out text.
ember_status em_report_terminal(const struct em_report *r, struct em_terminal terminal,
                                struct em_buf *out) EMBER_CHECKED;
// Its parts.
ember_status em_sketch_curve(const struct em_report_curve *c, struct em_terminal terminal,
                             struct em_buf *out) EMBER_CHECKED;
ember_status em_sketch_experts(const struct em_report *r, struct em_terminal terminal,
                               struct em_buf *out) EMBER_CHECKED;
// What the experts' maps do not show of tokens: kinds, and example texts with their experts.
ember_status em_sketch_tokens(const struct em_report *r, struct em_terminal terminal,
                              struct em_buf *out) EMBER_CHECKED;
ember_status em_sketch_domains(const struct em_report *r, struct em_terminal terminal,
                               struct em_buf *out) EMBER_CHECKED;

// A running mean for the smoothed line of a noisy series: y[i] averaged with weights falling by
// exp(-distance / span) over what came before, corrected for the start. `y` may be `smooth`.
void em_smooth(const double *y, size_t count, double span, double *smooth);

#endif
