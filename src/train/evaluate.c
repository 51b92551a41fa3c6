#include "train/evaluate.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/interrupt.h"
#include "base/io.h"

double em_score_bpb(const struct em_score *s)
{
    return s->bytes > 0 ? s->nats / log(2.0) / s->bytes : (double)NAN;
}

double em_mean_bpb(const struct em_score *scores, size_t count)
{
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        const double bpb = em_score_bpb(&scores[i]);
        if (isnan(bpb)) continue;
        sum += bpb;
        n++;
    }
    return n ? sum / (double)n : (double)NAN;
}

ember_status em_evaluate(struct em_stepper *s, const struct em_evaluation *e,
                         struct em_score *scores)
{
    const struct em_windows_options options = {
        .context = e->context, .batch_tokens = s->packed.capacity, .limit = e->limit};
    for (size_t d = 0; d < e->dataset->count; d++) {
        struct em_windows w;
        bool more = true;
        scores[d] = (struct em_score){0};
        em_windows_init(&w, e->dataset, d, &options);
        for (;;) {
            struct em_scored scored;
            EM_TRY(em_windows_next(&w, &s->packed, &more));
            if (!more) break;
            if (em_interrupted()) return em_fail(EMBER_E_INTERRUPTED, "stopped while evaluating");
            const ember_status status = em_stepper_evaluate(s, &scored);
            if (status != EMBER_OK) return em_fail_in(status, "%s", e->dataset->domains[d].name);
            if (e->trace) em_routing_trace_add(e->trace, s, d);
            if (e->experts)
                EM_TRY(em_expert_views_add(e->experts, s->routers, &s->packed.batch, d));
            scores[d].nats += scored.loss;
            scores[d].bytes += em_packed_bytes(&s->packed);
            scores[d].tokens += scored.places;
        }
    }
    return EMBER_OK;
}

ember_status em_evaluate_tensors(struct em_stepper *s, const struct em_tensor_source *source,
                                 struct em_scored *out)
{
    const struct em_stepper_options *o = &s->options;
    const size_t most = (o->batch + o->accumulate - 1) / o->accumulate; // rows of a part
    struct em_scored sum = {0}, part;
    for (uint64_t slice = 0; slice < source->slices; slice++)
        for (size_t first = 0, n; first < source->batch; first += n) {
            n = source->batch - first < most ? source->batch - first : most;
            if (em_interrupted()) return em_fail(EMBER_E_INTERRUPTED, "stopped while evaluating");
            EM_TRY(em_tensors_fill(source, slice, first, n, &s->packed));
            EM_TRY(em_stepper_evaluate(s, &part));
            sum.loss += part.loss;
            sum.places += part.places;
            sum.right += part.right;
        }
    *out = sum;
    return EMBER_OK;
}

ember_status em_stepper_views(const struct em_stepper *s, const struct em_dataset *dataset,
                              size_t context, struct em_expert_views *out)
{
    return em_expert_views_open(&(struct em_expert_views_options){.routers = s->routers,
                                                                  .count = s->n_routers,
                                                                  .tokenizer = dataset->tokenizer,
                                                                  .model = s->model,
                                                                  .context = context,
                                                                  .domains = dataset->count},
                                out);
}

char *em_held_out_path(const char *dir, const char *domain)
{
    // A domain's name may be anything; a file's may not have a slash. "prose.txt" names its own
    // file, not prose.txt.txt.
    const size_t length = strlen(domain);
    const bool ends = length > 4 && strcmp(domain + length - 4, ".txt") == 0;
    char *path = em_asprintf("%s/logs/heldout/%s%s", dir, domain, ends ? "" : ".txt");
    for (char *p = path ? path + strlen(path) - length - (ends ? 0 : 4) : NULL; p && *p; p++)
        if (*p == '/') *p = '_';
    return path;
}

static ember_status write_windows(struct em_windows *w, const struct em_tokenizer *tokenizer,
                                  const uint16_t *token_bytes, struct em_file *f)
{
    struct em_packed packed = {0};
    bool more = true;
    ember_status status = em_windows_next(w, &packed, &more);
    while (status == EMBER_OK && more) {
        for (size_t t = 0; t < packed.batch.n_tokens && status == EMBER_OK; t++) {
            const int32_t id = packed.targets[t];
            size_t n;
            if (!token_bytes[id]) continue; // a special token stands for no text
            const uint8_t *bytes = em_tokenizer_token(tokenizer, id, &n);
            status = em_file_write(f, bytes, n);
        }
        if (status == EMBER_OK) status = em_windows_next(w, &packed, &more);
    }
    em_packed_deinit(&packed);
    return status;
}

ember_status em_write_held_out(const char *dir, const struct em_evaluation *e, size_t batch_tokens)
{
    const struct em_windows_options options = {
        .context = e->context, .batch_tokens = batch_tokens, .limit = e->limit};
    char *folder = em_path_join(dir, "logs/heldout");
    if (!folder) return EMBER_E_NOMEM;
    ember_status status = em_make_directories(folder);
    em_free(folder);
    EM_TRY(status);
    for (size_t d = 0; d < e->dataset->count; d++) {
        struct em_windows w;
        struct em_file f;
        char *path = em_held_out_path(dir, e->dataset->domains[d].name);
        if (!path) return EMBER_E_NOMEM;
        status = em_file_create(path, &f);
        em_free(path);
        EM_TRY(status);
        em_windows_init(&w, e->dataset, d, &options);
        status = write_windows(&w, e->dataset->tokenizer, e->dataset->token_bytes, &f);
        if (status != EMBER_OK) {
            em_file_abort(&f);
            return status;
        }
        EM_TRY(em_file_commit(&f));
    }
    return EMBER_OK;
}
