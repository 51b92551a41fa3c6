#include "report/specialisation.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"

enum { TOKEN_BYTES = 64 << 20, EXPERTS_MAX = 65536 };

static ember_status counts_alloc(uint64_t **out, size_t rows, size_t columns)
{
    size_t n;
    if (!em_mul_size(rows, columns, &n))
        return em_fail(EMBER_E_NOMEM, "expert counts: %zu x %zu", rows, columns);
    *out = em_calloc(n ? n : 1, sizeof **out);
    return *out ? EMBER_OK : EMBER_E_NOMEM;
}

ember_status em_expert_counts_init(struct em_expert_counts *c, const struct em_counts_shape *shape)
{
    const size_t E = shape->experts;
    if (E < 1 || E > EXPERTS_MAX)
        return em_fail(EMBER_E_RANGE, "expert counts: %zu experts, expected 1 to %d", E,
                       EXPERTS_MAX);
    if (shape->vocabulary > INT32_MAX || shape->domains > INT32_MAX)
        return em_fail(EMBER_E_RANGE,
                       "expert counts: %zu token ids and %zu domains do not fit 32 bits",
                       shape->vocabulary, shape->domains);
    *c = (struct em_expert_counts){.shape = *shape};
    ember_status status = EMBER_E_NOMEM;
    EM_TRY_GOTO(status, failed, counts_alloc(&c->expert, 1, E));
    EM_TRY_GOTO(status, failed, counts_alloc(&c->domain, shape->domains, E));
    if (shape->pairs) EM_TRY_GOTO(status, failed, counts_alloc(&c->pair, E, E));
    status = EMBER_E_NOMEM;
    c->score_sum = em_calloc(E, sizeof *c->score_sum);
    if (!c->score_sum) goto failed;
    if (shape->vocabulary) {
        const size_t bytes = shape->token_bytes ? shape->token_bytes : TOKEN_BYTES;
        const size_t fit = bytes / (E * sizeof *c->token);
        c->token_rows_limit = fit < 1 ? 1 : fit < shape->vocabulary ? fit : shape->vocabulary;
        size_t n;
        if (!em_mul_size(shape->vocabulary, sizeof *c->token_row, &n)) goto failed;
        c->token_row = em_alloc(n);
        if (!c->token_row) goto failed;
        memset(c->token_row, 0xff, n); // -1
    }
    return EMBER_OK;
failed:
    em_expert_counts_deinit(c);
    return status;
}

void em_expert_counts_deinit(struct em_expert_counts *c)
{
    em_free(c->expert);
    em_free(c->domain);
    em_free(c->pair);
    em_free(c->token_row);
    em_free(c->token);
    em_free(c->score_sum);
    *c = (struct em_expert_counts){0};
}

void em_expert_counts_reset(struct em_expert_counts *c)
{
    const size_t E = c->shape.experts;
    memset(c->expert, 0, E * sizeof *c->expert);
    memset(c->domain, 0, c->shape.domains * E * sizeof *c->domain);
    if (c->pair) memset(c->pair, 0, E * E * sizeof *c->pair);
    if (c->token_row) memset(c->token_row, 0xff, c->shape.vocabulary * sizeof *c->token_row);
    for (size_t i = 0; i < E; i++)
        c->score_sum[i] = 0;
    c->tokens = c->slots = c->tokens_merged = c->scored = 0;
    c->token_rows = 0;
    c->score_entropy = 0;
}

// The row that counts `token`: its own while there is room, else that of an id it shares by hash.
static ember_status token_row(struct em_expert_counts *c, int32_t token, size_t *row, bool *merged)
{
    const size_t E = c->shape.experts;
    *merged = false;
    if (c->token_row[token] < 0) {
        if (c->token_rows == c->token_rows_limit) {
            *merged = true;
            *row = (size_t)(em_hash64(0, (uint64_t)token, 0) % c->token_rows_limit);
            return EMBER_OK;
        }
        EM_TRY(
            em_grow(&c->token, &c->token_rows_capacity, c->token_rows + 1, E * sizeof *c->token));
        memset(c->token + c->token_rows * E, 0, E * sizeof *c->token);
        c->token_row[token] = (int32_t)c->token_rows++;
    }
    *row = (size_t)c->token_row[token];
    return EMBER_OK;
}

static ember_status check_batch(const struct em_expert_counts *c, const struct em_routed *r)
{
    const struct em_counts_shape *s = &c->shape;
    if (r->k > s->experts)
        return em_fail(EMBER_E_RANGE, "expert counts: %zu experts a token of %zu", r->k,
                       s->experts);
    if (!r->domains && r->domain >= 0 && s->domains && (size_t)r->domain >= s->domains)
        return em_fail(EMBER_E_RANGE, "expert counts: domain %d of %zu", (int)r->domain,
                       s->domains);
    for (size_t t = 0; t < r->T; t++) {
        for (size_t j = 0; j < r->k; j++) {
            const int32_t e = r->experts[t * r->k + j];
            if (e >= 0 && (size_t)e >= s->experts)
                return em_fail(EMBER_E_RANGE, "expert counts: token %zu went to expert %d of %zu",
                               t, (int)e, s->experts);
        }
        if (s->vocabulary && r->tokens &&
            (r->tokens[t] < 0 || (size_t)r->tokens[t] >= s->vocabulary))
            return em_fail(EMBER_E_RANGE, "expert counts: token id %d of %zu", (int)r->tokens[t],
                           s->vocabulary);
        if (s->domains && r->domains && r->domains[t] >= 0 && (size_t)r->domains[t] >= s->domains)
            return em_fail(EMBER_E_RANGE, "expert counts: domain %d of %zu", (int)r->domains[t],
                           s->domains);
    }
    return EMBER_OK;
}

static void add_scores(struct em_expert_counts *c, const float *scores)
{
    const size_t E = c->shape.experts;
    double sum = 0, entropy = 0;
    for (size_t i = 0; i < E; i++)
        sum += (double)scores[i];
    if (!(sum > 0) || !isfinite(sum)) return; // a token without a usable distribution is left out
    for (size_t i = 0; i < E; i++) {
        const double p = (double)scores[i] / sum;
        c->score_sum[i] += p;
        if (p > 0) entropy -= p * log(p);
    }
    c->score_entropy += entropy;
    c->scored++;
}

ember_status em_expert_counts_add(struct em_expert_counts *c, const struct em_routed *r)
{
    EM_TRY(check_batch(c, r));
    const size_t E = c->shape.experts, k = r->k;
    const bool by_token = c->shape.vocabulary && r->tokens;
    // Rows are made before anything is counted, so that running out of memory changes no count.
    for (size_t t = 0; by_token && t < r->T; t++) {
        size_t row;
        bool merged;
        EM_TRY(token_row(c, r->tokens[t], &row, &merged));
    }
    for (size_t t = 0; t < r->T; t++) {
        const int32_t *chosen = r->experts + t * k;
        const int32_t d = r->domains ? r->domains[t] : r->domain;
        uint64_t *by_domain = c->shape.domains && d >= 0 ? c->domain + (size_t)d * E : NULL;
        uint64_t *of_token = NULL;
        if (by_token) {
            size_t row = 0;
            bool merged = false;
            EM_TRY(token_row(c, r->tokens[t], &row, &merged));
            of_token = c->token + row * E;
            c->tokens_merged += merged;
        }
        for (size_t j = 0; j < k; j++) {
            if (chosen[j] < 0) continue;
            const size_t e = (size_t)chosen[j];
            c->slots++;
            c->expert[e]++;
            if (by_domain) by_domain[e]++;
            if (of_token) of_token[e]++;
            for (size_t i = 0; c->pair && i < k; i++)
                if (chosen[i] >= 0) c->pair[e * E + (size_t)chosen[i]]++;
        }
        if (r->scores) add_scores(c, r->scores + t * E);
    }
    c->tokens += r->T;
    return EMBER_OK;
}

static void add_counts(uint64_t *to, const uint64_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] += from[i];
}

ember_status em_expert_counts_merge(struct em_expert_counts *c,
                                    const struct em_expert_counts *other)
{
    const struct em_counts_shape *a = &c->shape, *b = &other->shape;
    if (a->experts != b->experts || a->domains != b->domains || a->vocabulary != b->vocabulary ||
        a->pairs != b->pairs)
        return em_fail(
            EMBER_E_SHAPE,
            "expert counts: %zu experts, %zu domains, %zu token ids do not add to %zu, %zu, %zu",
            b->experts, b->domains, b->vocabulary, a->experts, a->domains, a->vocabulary);
    const size_t E = a->experts;
    for (size_t z = 0; z < a->vocabulary; z++) { // first all rows: a failure changes no count
        size_t row;
        bool merged;
        if (other->token_row[z] >= 0) EM_TRY(token_row(c, (int32_t)z, &row, &merged));
    }
    for (size_t z = 0; z < a->vocabulary; z++) {
        if (other->token_row[z] < 0) continue;
        size_t row = 0;
        bool merged = false;
        EM_TRY(token_row(c, (int32_t)z, &row, &merged));
        add_counts(c->token + row * E, other->token + (size_t)other->token_row[z] * E, E);
        c->tokens_merged += merged;
    }
    add_counts(c->expert, other->expert, E);
    add_counts(c->domain, other->domain, a->domains * E);
    if (c->pair) add_counts(c->pair, other->pair, E * E);
    for (size_t i = 0; i < E; i++)
        c->score_sum[i] += other->score_sum[i];
    c->score_entropy += other->score_entropy;
    c->scored += other->scored;
    c->tokens += other->tokens;
    c->slots += other->slots;
    c->tokens_merged += other->tokens_merged;
    return EMBER_OK;
}

double em_entropy(const uint64_t *counts, size_t n)
{
    double total = 0, h = 0;
    for (size_t i = 0; i < n; i++)
        total += (double)counts[i];
    for (size_t i = 0; i < n; i++)
        if (counts[i]) h -= (double)counts[i] / total * log((double)counts[i] / total);
    return h;
}

// I(e; Z) in nats of a [rows][E] table with these sums.
static double information(const uint64_t *joint, const uint64_t *row_sum,
                          const uint64_t *column_sum, size_t rows, size_t E, double total)
{
    double sum = 0;
    for (size_t z = 0; z < rows; z++)
        for (size_t e = 0; e < E; e++) {
            const double n = (double)joint[z * E + e];
            if (n > 0) sum += n * log(n * total / ((double)row_sum[z] * (double)column_sum[e]));
        }
    return sum / total;
}

// An urn with counts[e] balls of kind e, drawn without putting back; a Fenwick tree (1-based
// partial sums), so that a draw costs log E.
static void urn_fill(uint64_t *tree, const uint64_t *counts, size_t E)
{
    memset(tree, 0, (E + 1) * sizeof *tree);
    for (size_t i = 1; i <= E; i++) {
        tree[i] += counts[i - 1];
        const size_t parent = i + (i & -i);
        if (parent <= E) tree[parent] += tree[i];
    }
}

static size_t urn_draw(uint64_t *tree, size_t E, uint64_t ball)
{
    size_t step = 1, i = 0;
    while (step * 2 <= E)
        step *= 2;
    for (; step; step /= 2)
        if (i + step <= E && tree[i + step] <= ball) {
            i += step;
            ball -= tree[i];
        }
    assert(i < E);
    for (size_t j = i + 1; j <= E; j += j & -j)
        tree[j]--;
    return i;
}

// The information left when the slots' labels are dealt at random with the same sums: row by row
// from an urn of the experts' slots, so that neither the slots nor a second table have to be
// stored.
static double shuffled_information(const uint64_t *row_sum, const uint64_t *column_sum, size_t rows,
                                   size_t E, double total, uint64_t seed, uint64_t *tree,
                                   uint64_t *row)
{
    struct em_rng rng;
    em_rng_seed(&rng, seed, 0);
    urn_fill(tree, column_sum, E);
    uint64_t left = 0;
    for (size_t z = 0; z < rows; z++)
        left += row_sum[z];
    double sum = 0;
    for (size_t z = 0; z < rows; z++) {
        memset(row, 0, E * sizeof *row);
        for (uint64_t i = 0; i < row_sum[z]; i++)
            row[urn_draw(tree, E, em_rng_below(&rng, left--))]++;
        for (size_t e = 0; e < E; e++) {
            const double n = (double)row[e];
            if (n > 0) sum += n * log(n * total / ((double)row_sum[z] * (double)column_sum[e]));
        }
    }
    return sum / total;
}

ember_status em_nmi(const uint64_t *joint, size_t rows, size_t E, uint64_t seed, struct em_nmi *out)
{
    uint64_t *row_sum = em_calloc(rows ? rows : 1, sizeof *row_sum);
    uint64_t *work = em_calloc(3 * E + 1, sizeof *work); // column sums, urn, row
    if (!row_sum || !work) {
        em_free(row_sum);
        em_free(work);
        return EMBER_E_NOMEM;
    }
    uint64_t *column_sum = work, *tree = work + E, *row = work + 2 * E + 1;
    uint64_t total = 0;
    for (size_t z = 0; z < rows; z++)
        for (size_t e = 0; e < E; e++) {
            row_sum[z] += joint[z * E + e];
            column_sum[e] += joint[z * E + e];
            total += joint[z * E + e];
        }
    const double label = em_entropy(row_sum, rows);
    *out = (struct em_nmi){NAN, NAN, NAN};
    if (total && label > 0) {
        const double n = (double)total;
        // Rounding can leave a hair below 0 or above 1.
        out->value = fmin(fmax(information(joint, row_sum, column_sum, rows, E, n) / label, 0), 1);
        out->shuffled = fmin(
            fmax(shuffled_information(row_sum, column_sum, rows, E, n, seed, tree, row) / label, 0),
            1);
        out->ceiling = fmin(em_entropy(column_sum, E) / label, 1);
    }
    em_free(row_sum);
    em_free(work);
    return EMBER_OK;
}

void em_expert_load(const struct em_expert_counts *c, double *f)
{
    for (size_t i = 0; i < c->shape.experts; i++)
        f[i] = c->slots ? (double)c->expert[i] / (double)c->slots : 0;
}

void em_expert_domain_share(const struct em_expert_counts *c, double *share)
{
    const size_t E = c->shape.experts;
    for (size_t d = 0; d < c->shape.domains; d++) {
        uint64_t sum = 0;
        for (size_t i = 0; i < E; i++)
            sum += c->domain[d * E + i];
        for (size_t i = 0; i < E; i++)
            share[d * E + i] = sum ? (double)c->domain[d * E + i] / (double)sum : 0;
    }
}

void em_expert_coactivation(const struct em_expert_counts *c, double *p)
{
    const size_t E = c->shape.experts;
    assert(c->pair);
    for (size_t i = 0; i < E; i++)
        for (size_t j = 0; j < E; j++)
            p[i * E + j] = c->expert[i] ? (double)c->pair[i * E + j] / (double)c->expert[i] : 0;
}

static void load_metrics(const struct em_expert_counts *c, struct em_expert_metrics *m)
{
    const size_t E = c->shape.experts;
    const double n = (double)c->slots, mean = 1 / (double)E;
    double most = 0, squares = 0;
    for (size_t i = 0; i < E; i++) {
        const double f = (double)c->expert[i] / n;
        most = fmax(most, f);
        squares += (f - mean) * (f - mean);
        m->dead += f < 0.1 * mean;
    }
    m->max_violation = most * (double)E - 1;
    m->load_variation = sqrt(squares / (double)E) / mean;
    m->load_entropy = E > 1 ? em_entropy(c->expert, E) / log((double)E) : 1;
}

static void score_metrics(const struct em_expert_counts *c, struct em_expert_metrics *m)
{
    const size_t E = c->shape.experts;
    const double n = (double)c->scored, full = E > 1 ? log((double)E) : 1;
    double h = 0;
    for (size_t i = 0; i < E; i++) {
        const double p = c->score_sum[i] / n;
        if (p > 0) h -= p * log(p);
    }
    m->token_entropy = c->score_entropy / n / full;
    m->marginal_entropy = h / full;
}

ember_status em_expert_metrics(const struct em_expert_counts *c, uint64_t seed,
                               struct em_expert_metrics *m)
{
    const struct em_nmi none = {NAN, NAN, NAN};
    struct em_expert_metrics r = {.tokens = c->tokens,
                                  .slots = c->slots,
                                  .max_violation = NAN,
                                  .load_variation = NAN,
                                  .load_entropy = NAN,
                                  .token_entropy = NAN,
                                  .marginal_entropy = NAN,
                                  .domain = none,
                                  .token = none,
                                  .tokens_merged = c->tokens_merged};
    if (c->slots) load_metrics(c, &r);
    if (c->scored) score_metrics(c, &r);
    EM_TRY(em_nmi(c->domain, c->shape.domains, c->shape.experts, seed, &r.domain));
    EM_TRY(em_nmi(c->token, c->token_rows, c->shape.experts, seed, &r.token));
    *m = r;
    return EMBER_OK;
}

bool em_expert_alarm(const struct em_expert_metrics *m, size_t layer, double progress,
                     bool balanced_per_sequence, char text[EM_ALARM])
{
    if (m->dead && progress > 0.1) {
        snprintf(
            text, EM_ALARM,
            "Layer %zu has %zu dead expert%s: less than a tenth of an even share of the tokens.",
            layer, m->dead, m->dead > 1 ? "s" : "");
        return true;
    }
    if (m->max_violation > 2) {
        snprintf(text, EM_ALARM,
                 "Layer %zu is out of balance: its busiest expert gets %d times an even share.",
                 layer, (int)lround(m->max_violation + 1));
        return true;
    }
    if (balanced_per_sequence && m->domain.value < 0.02) {
        snprintf(
            text, EM_ALARM,
            "Layer %zu has lost its specialisation: balancing every sequence makes experts alike.",
            layer);
        return true;
    }
    return false;
}
