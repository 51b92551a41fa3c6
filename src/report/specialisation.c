#include "report/specialisation.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
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
    if (shape->vocabulary > INT32_MAX || shape->domains > INT32_MAX ||
        shape->positions > INT32_MAX || shape->classes > INT32_MAX)
        return em_fail(EMBER_E_RANGE,
                       "expert counts: %zu token ids, %zu domains, %zu places or %zu classes do "
                       "not fit 32 bits",
                       shape->vocabulary, shape->domains, shape->positions, shape->classes);
    *c = (struct em_expert_counts){.shape = *shape};
    ember_status status = EMBER_E_NOMEM;
    EM_TRY_GOTO(status, failed, counts_alloc(&c->expert, 1, E));
    EM_TRY_GOTO(status, failed, counts_alloc(&c->domain, shape->domains, E));
    EM_TRY_GOTO(status, failed, counts_alloc(&c->position, shape->positions, E));
    EM_TRY_GOTO(status, failed, counts_alloc(&c->token_class, shape->classes, E));
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
    em_free(c->position);
    em_free(c->token_class);
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
    memset(c->position, 0, c->shape.positions * E * sizeof *c->position);
    memset(c->token_class, 0, c->shape.classes * E * sizeof *c->token_class);
    if (c->pair) memset(c->pair, 0, E * E * sizeof *c->pair);
    if (c->token_row) memset(c->token_row, 0xff, c->shape.vocabulary * sizeof *c->token_row);
    for (size_t i = 0; i < E; i++)
        c->score_sum[i] = 0;
    c->tokens = c->slots = c->dropped = c->tokens_merged = c->scored = 0;
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

static ember_status check_label(const char *what, const int32_t *label, size_t t, size_t count)
{
    if (!count || !label || label[t] < 0 || (size_t)label[t] < count) return EMBER_OK;
    return em_fail(EMBER_E_RANGE, "expert counts: %s %d of %zu", what, (int)label[t], count);
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
        EM_TRY(check_label("domain", r->domains, t, s->domains));
        EM_TRY(check_label("place", r->positions, t, s->positions));
        EM_TRY(check_label("class", r->classes, t, s->classes));
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

// The row of `table` that counts label t; NULL: none does.
static uint64_t *row_of(uint64_t *table, size_t count, const int32_t *label, size_t t, size_t E)
{
    return count && label && label[t] >= 0 ? table + (size_t)label[t] * E : NULL;
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
        uint64_t *row[] = {r->domains ? row_of(c->domain, c->shape.domains, r->domains, t, E)
                                      : row_of(c->domain, c->shape.domains, &r->domain, 0, E),
                           row_of(c->position, c->shape.positions, r->positions, t, E),
                           row_of(c->token_class, c->shape.classes, r->classes, t, E), NULL};
        if (by_token) {
            size_t of_token = 0;
            bool merged = false;
            EM_TRY(token_row(c, r->tokens[t], &of_token, &merged));
            row[3] = c->token + of_token * E;
            c->tokens_merged += merged;
        }
        for (size_t j = 0; j < k; j++) {
            c->dropped += chosen[j] < 0;
            if (chosen[j] < 0) continue;
            const size_t e = (size_t)chosen[j];
            c->slots++;
            c->expert[e]++;
            for (size_t i = 0; i < sizeof row / sizeof *row; i++)
                if (row[i]) row[i][e]++;
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
        a->positions != b->positions || a->classes != b->classes || a->pairs != b->pairs)
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
    add_counts(c->position, other->position, a->positions * E);
    add_counts(c->token_class, other->token_class, a->classes * E);
    if (c->pair) add_counts(c->pair, other->pair, E * E);
    for (size_t i = 0; i < E; i++)
        c->score_sum[i] += other->score_sum[i];
    c->score_entropy += other->score_entropy;
    c->scored += other->scored;
    c->tokens += other->tokens;
    c->slots += other->slots;
    c->dropped += other->dropped;
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

void em_expert_share(const uint64_t *joint, size_t rows, size_t E, double *share)
{
    for (size_t z = 0; z < rows; z++) {
        uint64_t sum = 0;
        for (size_t i = 0; i < E; i++)
            sum += joint[z * E + i];
        for (size_t i = 0; i < E; i++)
            share[z * E + i] = sum ? (double)joint[z * E + i] / (double)sum : 0;
    }
}

static int falling(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

void em_expert_coverage(const struct em_expert_counts *c, double *covered)
{
    const size_t E = c->shape.experts;
    em_expert_load(c, covered);
    qsort(covered, E, sizeof *covered, falling);
    for (size_t i = 1; i < E; i++)
        covered[i] = fmin(covered[i] + covered[i - 1], 1);
}

bool em_expert_is_dead(uint64_t own, uint64_t slots, size_t E)
{
    return (double)own * 10 * (double)E < (double)slots;
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
        if (!em_expert_is_dead(c->expert[i], c->slots, E)) continue;
        if (m->dead < EM_DEAD_NAMED) m->dead_expert[m->dead] = i;
        m->dead++;
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
                                  .dropped = c->dropped,
                                  .max_violation = NAN,
                                  .load_variation = NAN,
                                  .load_entropy = NAN,
                                  .token_entropy = NAN,
                                  .marginal_entropy = NAN,
                                  .domain = none,
                                  .token = none,
                                  .position = none,
                                  .token_class = none,
                                  .tokens_merged = c->tokens_merged};
    if (c->slots) load_metrics(c, &r);
    if (c->scored) score_metrics(c, &r);
    const size_t E = c->shape.experts;
    EM_TRY(em_nmi(c->domain, c->shape.domains, E, seed, &r.domain));
    EM_TRY(em_nmi(c->token, c->token_rows, E, seed, &r.token));
    EM_TRY(em_nmi(c->position, c->shape.positions, E, seed, &r.position));
    EM_TRY(em_nmi(c->token_class, c->shape.classes, E, seed, &r.token_class));
    *m = r;
    return EMBER_OK;
}

const char *em_expert_dead_names(const struct em_expert_metrics *m, char text[EM_DEAD_TEXT])
{
    const size_t named = m->dead < EM_DEAD_NAMED ? m->dead : EM_DEAD_NAMED;
    size_t n = 0;
    text[0] = '\0';
    for (size_t i = 0; i < named; i++)
        n += (size_t)snprintf(text + n, EM_DEAD_TEXT - n, "%s%zu",
                              !i                                   ? ""
                              : i + 1 == named && m->dead == named ? " and "
                                                                   : ", ",
                              m->dead_expert[i]);
    if (m->dead > named) snprintf(text + n, EM_DEAD_TEXT - n, " and %zu more", m->dead - named);
    return text;
}

bool em_expert_alarm(const struct em_expert_metrics *m, size_t layer, double progress,
                     bool balanced_per_sequence, char text[EM_ALARM])
{
    if (m->dead && progress > 0.1) {
        char names[EM_DEAD_TEXT];
        snprintf(text, EM_ALARM,
                 "Layer %zu: expert%s %s %s dead, with less than a tenth of an even share of the "
                 "tokens.",
                 layer, m->dead > 1 ? "s" : "", em_expert_dead_names(m, names),
                 m->dead > 1 ? "are" : "is");
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
