// A small made-up run that fills every part of a report, hostile text included.
#ifndef TESTS_REPORT_SAMPLE_H
#define TESTS_REPORT_SAMPLE_H

#include <math.h>
#include <string.h>

#include "report/report.h"

enum { SAMPLE_STEPS = 50, SAMPLE_EXPERTS = 4, SAMPLE_DOMAINS = 2, SAMPLE_LOADS = 6 };

static const char hostile[] =
    "<script>alert(\"1\")</script> & 'x' \xff\xc0\x80\xed\xa0\x80 \x1b[31m \xc2\x9b é\n\tend";

struct sample {
    double x[SAMPLE_STEPS], raw[SAMPLE_STEPS], smooth[SAMPLE_STEPS];
    double eval_x[3], eval_y[SAMPLE_DOMAINS][3];
    double load_steps[SAMPLE_LOADS], load[SAMPLE_LOADS * SAMPLE_EXPERTS];
    double share[SAMPLE_DOMAINS * SAMPLE_EXPERTS], together[SAMPLE_EXPERTS * SAMPLE_EXPERTS];
    struct em_report_series loss[2], eval[SAMPLE_DOMAINS];
    struct em_report_curve curves[2];
    struct em_report_layer layers[2];
    struct em_report_domain domains[SAMPLE_DOMAINS];
    struct em_report_sample samples[2];
    struct em_report_fact fact[2];
    struct em_report_facts facts[1];
    const char *warnings[1];
    struct em_report report;
};

static inline void sample_fill(struct sample *s)
{
    *s =
        (struct sample){.domains = {{"prose", 1000, 300, 2.5, 8.25, 3.125},
                                    {hostile, 3000, 1500, 1.5, 8, (double)NAN}},
                        .samples = {{"prose", "Once", " upon a time"}, {hostile, hostile, hostile}},
                        .fact = {{"parameters", "1.2 M"}, {hostile, hostile}},
                        .warnings = {hostile}};
    for (int i = 0; i < SAMPLE_STEPS; i++) {
        s->x[i] = i + 1;
        s->raw[i] = i == 20 ? (double)NAN : 2 + 6 * exp(-i / 10.0) + 0.1 * (i % 3);
    }
    em_smooth(s->raw, SAMPLE_STEPS, 5, s->smooth);
    for (int i = 0; i < 3; i++) {
        s->eval_x[i] = i * 25;
        s->eval_y[0][i] = 8 - 2.5 * i;
        s->eval_y[1][i] = 8 - 3 * i;
    }
    for (int i = 0; i < SAMPLE_LOADS; i++) {
        s->load_steps[i] = i * 10;
        for (int e = 0; e < SAMPLE_EXPERTS; e++)
            s->load[i * SAMPLE_EXPERTS + e] = 0.25;
    }
    // Against the even 1/4: 4x, none, none, none; and 1/4 each but for a half and a double.
    const double share[] = {1, 0, 0, 0, 0.25, 0.125, 0.5, 0.125};
    memcpy(s->share, share, sizeof share);
    for (int i = 0; i < SAMPLE_EXPERTS * SAMPLE_EXPERTS; i++)
        s->together[i] = i % (SAMPLE_EXPERTS + 1) ? 1 / 3.0 : 1;
    s->loss[0] = (struct em_report_series){"raw", s->x, s->raw, SAMPLE_STEPS, true};
    s->loss[1] = (struct em_report_series){"train", s->x, s->smooth, SAMPLE_STEPS, false};
    for (int d = 0; d < SAMPLE_DOMAINS; d++)
        s->eval[d] =
            (struct em_report_series){s->domains[d].name, s->eval_x, s->eval_y[d], 3, false};
    s->curves[0] =
        (struct em_report_curve){.title = "Loss", .unit = "nats", .series = s->loss, .count = 2};
    s->curves[1] = (struct em_report_curve){
        .title = hostile, .unit = hostile, .x_unit = hostile, .series = s->eval, .count = 2};
    const struct em_nmi domain = {0.25, 0.001, 1}, none = {(double)NAN, (double)NAN, (double)NAN};
    for (size_t i = 0; i < 2; i++)
        s->layers[i] = (struct em_report_layer){.layer = 2 + i,
                                                .experts = SAMPLE_EXPERTS,
                                                .active = 2,
                                                .load = i ? NULL : s->load,
                                                .domain_share = i ? NULL : s->share,
                                                .coactivation = i ? NULL : s->together,
                                                .metrics = {.tokens = 100,
                                                            .slots = 200,
                                                            .max_violation = 0.5,
                                                            .load_entropy = 0.75,
                                                            .token_entropy = (double)NAN,
                                                            .marginal_entropy = (double)NAN,
                                                            .domain = domain,
                                                            .token = none}};
    s->facts[0] = (struct em_report_facts){hostile, s->fact, 2};
    s->report = (struct em_report){.title = hostile,
                                   .subtitle = hostile,
                                   .version = "1.2.3",
                                   .finished = 1700000000,
                                   .tiles = s->fact,
                                   .tile_count = 2,
                                   .facts = s->facts,
                                   .facts_count = 1,
                                   .warnings = s->warnings,
                                   .warning_count = 1,
                                   .curves = s->curves,
                                   .curve_count = 2,
                                   .load_steps = s->load_steps,
                                   .load_count = SAMPLE_LOADS,
                                   .layers = s->layers,
                                   .layer_count = 2,
                                   .domains = s->domains,
                                   .domain_count = SAMPLE_DOMAINS,
                                   .samples = s->samples,
                                   .sample_count = 2,
                                   .config = "{\"model\": \"</pre><script>\"}"};
}

#endif
