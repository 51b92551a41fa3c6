// How evenly a layer's experts are used, and what they specialise in: counters that the evaluation
// fills from the router's choices, and the figures that reports and logs take from them.
//
// Everything is counted over routed slots: a token that goes to k experts counts k times. With q
// the shares of slots, the dependence of the expert e on a label Z (domain, token) is
//     NMI(e; Z) = sum_ez q(e,z) log(q(e,z) / (q(e) q(z))) / H(Z),
// 0 when the expert says nothing about the label and 1 when it tells the label. Counting finitely
// many slots makes it positive even without any dependence: compare it with `shuffled`.
#ifndef EM_REPORT_SPECIALISATION_H
#define EM_REPORT_SPECIALISATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fail.h"

// A sum over slots is exact in uint64_t; rows are stored as the label's E counts.
struct em_counts_shape {
    size_t experts;    // E, 1..65536
    size_t domains;    // Z of the domain counts; 0: not counted
    size_t positions;  // buckets of places in a sequence; 0: not counted
    size_t classes;    // kinds of tokens (report/token_class.h); 0: not counted
    size_t vocabulary; // token ids are in [0, vocabulary); 0: tokens are not counted
    bool pairs;        // count which experts a token shares: E * E counts
    // Bytes that the counts per token may take, 0: 64 MiB. A row is made when its token is first
    // seen; when no more fit, new tokens share existing rows (by a hash of the id) and
    // `tokens_merged` tells.
    size_t token_bytes;
};

// The counts of one MoE layer. Not thread safe.
struct em_expert_counts {
    struct em_counts_shape shape;
    uint64_t tokens, slots;
    uint64_t dropped;      // slots that went nowhere: no room, or a token wanted fewer experts
    uint64_t *expert;      // [E] slots
    uint64_t *domain;      // [domains][E] slots
    uint64_t *position;    // [positions][E] slots
    uint64_t *token_class; // [classes][E] slots
    uint64_t *pair;        // [E][E] tokens that went to both; the diagonal is `expert`
    int32_t *token_row;    // [vocabulary] row of `token`, -1: not seen yet
    uint64_t *token;       // [token_rows][E] slots
    size_t token_rows, token_rows_capacity, token_rows_limit;
    uint64_t tokens_merged; // tokens counted in a row that is another id's
    double *score_sum;      // [E] sum of normalised router scores
    double score_entropy;   // sum over tokens of the entropy of their scores, nats
    uint64_t scored;        // tokens that brought scores
};

ember_status em_expert_counts_init(struct em_expert_counts *c,
                                   const struct em_counts_shape *shape) EMBER_CHECKED;
void em_expert_counts_deinit(struct em_expert_counts *c); // {0} is fine
void em_expert_counts_reset(struct em_expert_counts *c);  // back to no tokens, memory kept

// One batch of T tokens of one layer.
struct em_routed {
    size_t T, k;
    const int32_t *experts;   // [T, k] as the router selected; < 0: the slot went nowhere
    const int32_t *tokens;    // [T] ids; NULL where tokens are not counted
    const int32_t *domains;   // [T], or NULL: all of `domain`
    int32_t domain;           // < 0: of no domain
    const int32_t *positions; // [T] buckets; NULL where they are not counted
    const int32_t *classes;   // [T]; NULL where they are not counted
    const float *scores;      // [T, E] router scores, not negative; NULL: no entropy per token
};
// EMBER_E_RANGE when an id is outside the shape; then the counts are as before.
ember_status em_expert_counts_add(struct em_expert_counts *c,
                                  const struct em_routed *r) EMBER_CHECKED;
// Adds `other`'s counts of the same shape (another window, another worker).
ember_status em_expert_counts_merge(struct em_expert_counts *c,
                                    const struct em_expert_counts *other) EMBER_CHECKED;

struct em_nmi {
    double value;    // NAN where nothing was counted or the label has a single value
    double shuffled; // the same with labels dealt at random: what no dependence looks like
    double ceiling;  // min(1, H(e) / H(Z)): E experts cannot tell more labels apart
};

enum { EM_DEAD_NAMED = 8 };
struct em_expert_metrics {
    uint64_t tokens, slots, dropped;
    double max_violation;              // MaxVio: E max_i f_i - 1, 0 when even
    double load_variation;             // standard deviation of f over its mean
    double load_entropy;               // H(f) / log E: 1 when even
    double token_entropy;              // mean over tokens of H(scores) / log E; NAN without scores
    double marginal_entropy;           // H(mean scores) / log E; NAN without scores
    size_t dead;                       // experts with f_i < 0.1 / E
    size_t dead_expert[EM_DEAD_NAMED]; // the first of them
    struct em_nmi domain, token, position, token_class;
    uint64_t tokens_merged;
};
// The labels of `shuffled` are dealt with `seed`.
ember_status em_expert_metrics(const struct em_expert_counts *c, uint64_t seed,
                               struct em_expert_metrics *m) EMBER_CHECKED;

// "3, 7 and 12 more": the dead experts by their numbers; "" without one.
enum { EM_DEAD_TEXT = 120 };
const char *em_expert_dead_names(const struct em_expert_metrics *m, char text[EM_DEAD_TEXT]);

// Whether a layer's routing has gone wrong: dead experts after a tenth of the training, one expert
// with more than three times its share, or experts that no longer tell domains apart where
// sequences are balanced one by one. Writes a sentence for people; `progress` is the share of the
// training that is done.
enum { EM_ALARM = 200 };
bool em_expert_alarm(const struct em_expert_metrics *m, size_t layer, double progress,
                     bool balanced_per_sequence, char text[EM_ALARM]);

// f[i], the share of slots that went to each expert; zeros when nothing was counted.
void em_expert_load(const struct em_expert_counts *c, double *f);
// share[z][i]: of label z's slots in `joint` [rows][E] (c.domain, c.position, ..), the part that
// went to expert i; zeros for an unseen label.
void em_expert_share(const uint64_t *joint, size_t rows, size_t E, double *share);
// What the n busiest experts get together: covered[n - 1], for n = 1..E; zeros without a slot.
void em_expert_coverage(const struct em_expert_counts *c, double *covered);
// Whether an expert with so many of the slots is dead: less than a tenth of an even share.
bool em_expert_is_dead(uint64_t own, uint64_t slots, size_t E);
// P(j in S | i in S) over all pairs, [E][E] with 1 on the diagonal; zeros for an unused i. By
// chance it is (k - 1) / (E - 1).
void em_expert_coactivation(const struct em_expert_counts *c, double *p);

// The parts, for other labels (position, task): `joint` is [rows][E].
double em_entropy(const uint64_t *counts, size_t n); // nats; 0 when all are zero
ember_status em_nmi(const uint64_t *joint, size_t rows, size_t E, uint64_t seed,
                    struct em_nmi *out) EMBER_CHECKED;

#endif
