#include "data/windows.h"

static uint64_t windows_of(const struct em_span *span, size_t context)
{
    return (span->end - span->begin + context - 1) / context;
}

static void begin_domain(struct em_windows *w)
{
    w->span = 0;
    w->at = w->window = w->count = w->taken = 0;
    if (w->domain >= w->end_domain) return;
    const struct em_domain *d = &w->dataset->domains[w->domain];
    for (size_t i = 0; i < d->held_out_count; i++)
        w->count += windows_of(&d->held_out[i], w->options.context);
    w->taken = w->count;
    const uint64_t wanted = w->options.limit / w->options.context;
    if (w->options.limit && wanted < w->count) w->taken = wanted ? wanted : 1;
}

void em_windows_init(struct em_windows *w, const struct em_dataset *dataset, size_t domain,
                     const struct em_windows_options *options)
{
    *w = (struct em_windows){.dataset = dataset, .options = *options};
    if (w->options.context == 0) w->options.context = 1;
    if (w->options.batch_tokens < w->options.context) w->options.batch_tokens = w->options.context;
    w->domain = domain == SIZE_MAX ? 0 : domain;
    w->end_domain = domain == SIZE_MAX ? dataset->count : domain + 1;
    begin_domain(w);
}

static void put_window(const struct em_windows *w, const struct em_span *span, size_t n,
                       struct em_packed *out)
{
    const struct em_cache *c = &w->dataset->domains[w->domain].cache;
    const uint64_t from = span->begin + w->at;
    ember_batch *b = &out->batch;
    int32_t *tokens = out->tokens + b->n_tokens, *targets = out->targets + b->n_tokens;
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        tokens[i] = em_cache_token(c, from + i);
        targets[i] = em_cache_token(c, from + i + 1);
        bytes += w->dataset->token_bytes[targets[i]];
    }
    out->bytes[b->n_sequences] = (double)bytes * span->byte_scale;
    out->labels[b->n_sequences] = (int32_t)w->domain;
    b->n_tokens += n;
    b->n_sequences++;
    out->offset[b->n_sequences] = b->n_tokens;
}

// Window i of `count` is given when it crosses one of `taken` equal steps: those given are spread
// evenly.
static bool is_taken(const struct em_windows *w)
{
    if (w->taken == w->count) return true;
    return (w->window + 1) * w->taken / w->count > w->window * w->taken / w->count;
}

ember_status em_windows_next(struct em_windows *w, struct em_packed *out, bool *more)
{
    EM_TRY(em_packed_reserve(out, w->options.batch_tokens));
    while (w->domain < w->end_domain) {
        const struct em_domain *d = &w->dataset->domains[w->domain];
        if (w->span == d->held_out_count) {
            if (out->batch.n_sequences > 0) break;
            w->domain++;
            begin_domain(w);
            continue;
        }
        const struct em_span *span = &d->held_out[w->span];
        const uint64_t left = span->end - span->begin - w->at;
        const size_t n = left < w->options.context ? (size_t)left : w->options.context;
        if (is_taken(w)) {
            if (out->batch.n_tokens + n > w->options.batch_tokens) break;
            put_window(w, span, n, out);
        }
        w->window++;
        w->at += n;
        if (w->at == span->end - span->begin) {
            w->span++;
            w->at = 0;
        }
    }
    *more = out->batch.n_sequences > 0;
    return EMBER_OK;
}
