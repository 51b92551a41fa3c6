#include "data/sampler.h"

#include <math.h>

#include "base/alloc.h"
#include "base/rng.h"

enum { MIX_ROWS = 16384 }; // rows among which weights are rounded to whole ones

// What a hash is for, so that equal numbers do not meet.
enum purpose { DOCUMENTS = 1, MIX, ROWS, PHASE };

// The stream of a domain: span em_permute(j, count) lies at [starts[j], starts[j + 1]).
struct stream {
    const struct em_domain *domain;
    uint64_t *starts; // [count + 1]
    uint64_t places;  // starts[count]
    uint64_t rows;    // of an epoch, at least 1
    uint64_t share;   // rows of this domain in a period of the mix
    uint64_t before;  // rows of the domains before it
    uint64_t seed;
};

struct em_sampler {
    const struct em_dataset *dataset;
    struct em_sampler_options options;
    struct stream *streams;
    uint64_t period; // sum of shares
};

static uint64_t derive(uint64_t seed, enum purpose purpose, uint64_t a)
{
    return em_hash64(seed, (uint64_t)purpose, a);
}

static size_t span_at(const struct stream *s, size_t j)
{
    return (size_t)em_permute(j, s->domain->train_count, derive(s->seed, DOCUMENTS, 0));
}

static ember_status lay_out(struct stream *s, size_t seq)
{
    const struct em_domain *d = s->domain;
    s->starts = em_calloc(d->train_count + 1, sizeof *s->starts);
    if (!s->starts) return EMBER_E_NOMEM;
    for (size_t j = 0; j < d->train_count; j++) {
        const struct em_span *span = &d->train[span_at(s, j)];
        s->starts[j + 1] = s->starts[j] + (span->end - span->begin);
    }
    s->places = s->starts[d->train_count];
    s->rows = s->places / seq > 0 ? s->places / seq : 1;
    return EMBER_OK;
}

// Without weights every row of an epoch comes once: shares are the rows themselves.
static ember_status mix_by_size(struct em_sampler *s)
{
    for (size_t i = 0; i < s->dataset->count; i++) {
        s->streams[i].before = s->period;
        s->streams[i].share = s->streams[i].places ? s->streams[i].rows : 0;
        s->period += s->streams[i].share;
    }
    return EMBER_OK;
}

static ember_status mix_by_weight(struct em_sampler *s, double sum)
{
    const size_t count = s->dataset->count;
    const double rows = count <= MIX_ROWS / 4 ? MIX_ROWS : 4.0 * (double)count;
    for (size_t i = 0; i < count; i++) {
        struct stream *t = &s->streams[i];
        const double weight = t->domain->weight > 0 ? t->domain->weight : 1;
        const double share = floor(weight / sum * rows + 0.5);
        t->before = s->period;
        t->share = t->places == 0 ? 0 : share < 1 ? 1 : (uint64_t)share;
        s->period += t->share;
    }
    return EMBER_OK;
}

static ember_status mix(struct em_sampler *s)
{
    double sum = 0;
    bool weighted = false;
    for (size_t i = 0; i < s->dataset->count; i++) {
        const double weight = s->dataset->domains[i].weight;
        weighted = weighted || weight > 0;
        sum += weight > 0 ? weight : 1;
    }
    EM_TRY(weighted ? mix_by_weight(s, sum) : mix_by_size(s));
    if (s->period == 0)
        return em_fail(EMBER_E_FORMAT, "data: there is nothing to train on: all of it is held out");
    return EMBER_OK;
}

static ember_status prepare(struct em_sampler *s)
{
    s->streams = em_calloc(s->dataset->count, sizeof *s->streams);
    if (!s->streams) return EMBER_E_NOMEM;
    for (size_t i = 0; i < s->dataset->count; i++) {
        s->streams[i].domain = &s->dataset->domains[i];
        s->streams[i].seed = em_hash64(s->options.seed, 0, i);
        EM_TRY(lay_out(&s->streams[i], s->options.seq));
    }
    return mix(s);
}

ember_status em_sampler_create(const struct em_dataset *dataset,
                               const struct em_sampler_options *options, struct em_sampler **out)
{
    size_t tokens;
    if (options->batch == 0 || options->seq == 0 ||
        !em_mul_size(options->batch, options->seq, &tokens) || tokens > INT32_MAX)
        return em_fail(
            EMBER_E_RANGE,
            "data: batch %zu of %zu tokens: both must be at least 1 and their product below 2^31",
            options->batch, options->seq);
    struct em_sampler *s = em_calloc(1, sizeof *s);
    if (!s) return EMBER_E_NOMEM;
    s->dataset = dataset;
    s->options = *options;
    const ember_status status = prepare(s);
    if (status == EMBER_OK)
        *out = s;
    else
        em_sampler_destroy(s);
    return status;
}

void em_sampler_destroy(struct em_sampler *sampler)
{
    if (!sampler) return;
    for (size_t i = 0; sampler->streams && i < sampler->dataset->count; i++)
        em_free(sampler->streams[i].starts);
    em_free(sampler->streams);
    em_free(sampler);
}

// Row number `row` of the run: which domain, and which of its rows.
static const struct stream *choose(const struct em_sampler *s, uint64_t row, uint64_t *index)
{
    const uint64_t turn = row / s->period;
    const uint64_t j = em_permute(row % s->period, s->period, derive(s->options.seed, MIX, turn));
    size_t low = 0, high = s->dataset->count;
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (s->streams[middle].before <= j)
            low = middle;
        else
            high = middle;
    }
    *index = turn * s->streams[low].share + (j - s->streams[low].before);
    return &s->streams[low];
}

static void put_piece(const struct em_sampler *s, const struct stream *t, uint64_t from, size_t n,
                      struct em_packed *out)
{
    const struct em_cache *c = &t->domain->cache;
    ember_batch *b = &out->batch;
    int32_t *tokens = out->tokens + b->n_tokens, *targets = out->targets + b->n_tokens;
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        tokens[i] = em_cache_token(c, from + i);
        targets[i] = em_cache_token(c, from + i + 1);
        bytes += s->dataset->token_bytes[targets[i]];
    }
    out->bytes[b->n_sequences] = (double)bytes;
    out->labels[b->n_sequences] = (int32_t)(t->domain - s->dataset->domains);
    b->n_tokens += n;
    b->n_sequences++;
    out->offset[b->n_sequences] = b->n_tokens;
}

// `seq` places of a stream from `place` on, around its end as often as needed.
static void put_row(const struct em_sampler *s, const struct stream *t, uint64_t place,
                    struct em_packed *out)
{
    size_t low = 0, high = t->domain->train_count;
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (t->starts[middle] <= place)
            low = middle;
        else
            high = middle;
    }
    uint64_t offset = place - t->starts[low];
    for (size_t need = s->options.seq; need > 0;) {
        const struct em_span *span = &t->domain->train[span_at(t, low)];
        const uint64_t left = span->end - span->begin - offset;
        const size_t n = left < need ? (size_t)left : need;
        put_piece(s, t, span->begin + offset, n, out);
        need -= n;
        offset = 0;
        low = low + 1 == t->domain->train_count ? 0 : low + 1;
    }
}

ember_status em_sampler_fill(const struct em_sampler *s, uint64_t step, size_t first, size_t rows,
                             struct em_packed *out)
{
    if (rows == 0 || first >= s->options.batch || rows > s->options.batch - first ||
        step > (UINT64_MAX >> 1) / s->options.batch)
        return em_fail(EMBER_E_RANGE, "data: step %llu has no rows %zu to %zu: a batch has %zu",
                       (unsigned long long)step, first, first + rows, s->options.batch);
    EM_TRY(em_packed_reserve(out, rows * s->options.seq));
    for (size_t i = 0; i < rows; i++) {
        uint64_t index;
        const struct stream *t = choose(s, step * s->options.batch + first + i, &index);
        const uint64_t epoch = index / t->rows,
                       row = em_permute(index % t->rows, t->rows, derive(t->seed, ROWS, epoch));
        const uint64_t phase = derive(t->seed, PHASE, epoch) % t->places;
        // rows * seq <= places but for a stream shorter than a row, so neither sum wraps.
        put_row(s, t, (phase + row * s->options.seq % t->places) % t->places, out);
    }
    return EMBER_OK;
}

double em_sampler_epochs(const struct em_sampler *s, size_t domain, uint64_t steps)
{
    const struct stream *t = &s->streams[domain];
    if (t->places == 0) return 0;
    const double rows =
        (double)steps * (double)s->options.batch * (double)t->share / (double)s->period;
    return rows * (double)s->options.seq / (double)t->places;
}
