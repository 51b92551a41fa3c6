#include "data/dataset.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "data/files.h"
#include "data/split.h"
#include "formats/hash.h"

#define DEFAULT_HELD_OUT 0.02

// ---- names ----

static bool is_taken(char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (names[i] && strcmp(names[i], name) == 0) return true;
    return false;
}

// The first of base, base-2, base-3, ... that is free. Takes `base`.
static char *free_name(char *base, char *const *names, size_t count)
{
    if (!base || !is_taken(names, count, base)) return base;
    char *name = NULL;
    for (unsigned n = 2; !name; n++) {
        name = em_asprintf("%s-%u", base, n);
        if (!name) break;
        if (is_taken(names, count, name)) {
            em_free(name);
            name = NULL;
        }
    }
    em_free(base);
    return name;
}

static ember_status fill_names(const struct em_source *sources, size_t count, char **names)
{
    // Names that were given come first: a derived one makes way for them.
    for (size_t i = 0; i < count; i++) {
        if (!sources[i].name) continue;
        if (is_taken(names, count, sources[i].name))
            return em_fail(EMBER_E_CONFIG,
                           "data: two sources are named \"%s\"; give each a name of its own",
                           sources[i].name);
        names[i] = em_strdup(sources[i].name);
        if (!names[i]) return EMBER_E_NOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        if (names[i]) continue;
        names[i] = free_name(em_domain_name(sources[i].path), names, count);
        if (!names[i]) return EMBER_E_NOMEM;
    }
    return EMBER_OK;
}

static void free_names(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        em_free(names[i]);
    em_free(names);
}

ember_status em_domain_names(const struct em_source *sources, size_t count, char ***out)
{
    char **names = em_calloc(count ? count : 1, sizeof *names);
    if (!names) return EMBER_E_NOMEM;
    const ember_status status = fill_names(sources, count, names);
    if (status == EMBER_OK)
        *out = names;
    else
        free_names(names, count);
    return status;
}

// ---- opening ----

static ember_status measure_tokens(struct em_dataset *d)
{
    const size_t V = em_tokenizer_size(d->tokenizer);
    d->token_bytes = em_calloc(V ? V : 1, sizeof *d->token_bytes);
    if (!d->token_bytes) return EMBER_E_NOMEM;
    for (size_t i = 0; i < V; i++) {
        size_t n = 0;
        if (em_tokenizer_is_special(d->tokenizer, (int64_t)i) ||
            !em_tokenizer_token(d->tokenizer, (int64_t)i, &n))
            continue;
        d->token_bytes[i] = (uint16_t)(n < UINT16_MAX ? n : UINT16_MAX);
    }
    return EMBER_OK;
}

// One line, and only when something of the user's is not trained on as it is.
static void tell(const char *name, const struct em_document_stats *s,
                 const struct em_file_list *files)
{
    struct em_buf b;
    em_buf_init(&b, 0);
    const struct {
        uint64_t count;
        const char *what;
    } facts[] = {
        {s->dropped, "lines dropped that are no usable JSON"},
        {s->empty, "empty documents dropped"},
        {s->invalid_utf8, "documents with bytes that are no UTF-8 (U+FFFD stands for them)"},
        {s->binary_files, "binary files passed over"},
        {s->json_as_text, ".json files read as plain text (no line of them is a document)"},
        {s->cut, "cuts in very large files"},
        {files->links, "symbolic links passed over"},
        {files->hidden, "hidden names passed over"},
        {files->special, "devices, pipes or sockets passed over"},
    };
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
        if (facts[i].count &&
            em_buf_printf(&b, "%s%llu %s", b.size ? ", " : "", (unsigned long long)facts[i].count,
                          facts[i].what) != EMBER_OK)
            break;
    if (b.size) em_note("data: %s: %s", name, b.data);
    em_buf_deinit(&b);
}

static ember_status open_cache(const struct em_source *source, const struct em_dataset_options *o,
                               struct em_domain *d)
{
    struct em_file_list files = {0};
    enum em_path_kind kind = EM_PATH_ABSENT;
    ember_status status = em_files_expand(source->path, &files);
    if (status == EMBER_OK) status = em_path_probe(source->path, &kind);
    if (status == EMBER_OK) {
        const struct em_cache_request request = {
            .name = d->name,
            .paths = files.paths,
            .path_count = files.count,
            .strict = files.count == 1 && kind != EM_PATH_DIRECTORY,
            .options = source->options,
            .tokenizer = o->tokenizer,
            .no_eos = o->no_eos,
            .directory = o->cache,
            .tidy = o->tidy,
            .pool = o->pool,
        };
        status = em_cache_open(&request, &d->cache);
    }
    if (status == EMBER_OK) tell(d->name, &d->cache.stats, &files);
    if (status == EMBER_OK && d->cache.count == 0)
        status = em_fail(EMBER_E_FORMAT,
                         "%s: no document to train on (%llu files read, %llu empty documents, %llu "
                         "binary files)",
                         source->path, (unsigned long long)d->cache.stats.files,
                         (unsigned long long)d->cache.stats.empty,
                         (unsigned long long)d->cache.stats.binary_files);
    em_file_list_deinit(&files);
    return status;
}

static ember_status open_domain(const struct em_source *source, const struct em_dataset_options *o,
                                struct em_dataset *data, struct em_domain *d)
{
    if (!(source->weight >= 0) || !isfinite(source->weight))
        return em_fail(EMBER_E_CONFIG, "data: %s: expected a weight of at least 0, found %g",
                       d->name, source->weight);
    d->weight = source->weight;
    EM_TRY(open_cache(source, o, d));
    const double share = o->held_out == 0 ? DEFAULT_HELD_OUT : o->held_out;
    EM_TRY(em_split_domain(d, share, data->token_bytes));
    if (share > 0 && d->held_out_tokens == 0)
        em_warn("data: %s: too little text to hold some of it out: it has no held-out loss",
                d->name);
    return EMBER_OK;
}

static ember_status open_all(const struct em_source *sources, size_t count,
                             const struct em_dataset_options *o, struct em_dataset *d)
{
    d->tokenizer = o->tokenizer;
    EM_TRY(measure_tokens(d));
    char **names;
    EM_TRY(em_domain_names(sources, count, &names));
    d->domains = em_calloc(count ? count : 1, sizeof *d->domains);
    d->count = d->domains ? count : 0;
    for (size_t i = 0; i < d->count; i++) {
        d->domains[i].name = names[i];
        names[i] = NULL;
    }
    free_names(names, count);
    if (!d->domains) return EMBER_E_NOMEM;
    for (size_t i = 0; i < count; i++)
        EM_TRY(open_domain(&sources[i], o, d, &d->domains[i]));
    return EMBER_OK;
}

ember_status em_dataset_open(const struct em_source *sources, size_t count,
                             const struct em_dataset_options *options, struct em_dataset *out)
{
    if (count == 0)
        return em_fail(EMBER_E_CONFIG, "data: expected at least one file, folder or glob");
    if (isnan(options->held_out))
        return em_fail(EMBER_E_CONFIG, "data: the held-out share is not a number");
    struct em_dataset d = {0};
    const ember_status status = open_all(sources, count, options, &d);
    if (status == EMBER_OK)
        *out = d;
    else
        em_dataset_close(&d);
    return status;
}

void em_dataset_close(struct em_dataset *dataset)
{
    for (size_t i = 0; i < dataset->count; i++) {
        struct em_domain *d = &dataset->domains[i];
        em_cache_close(&d->cache);
        em_free(d->train);
        em_free(d->held_out);
        em_free(d->name);
    }
    em_free(dataset->domains);
    em_free(dataset->token_bytes);
    *dataset = (struct em_dataset){0};
}

uint64_t em_dataset_train_tokens(const struct em_dataset *dataset)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < dataset->count; i++)
        sum += dataset->domains[i].train_tokens;
    return sum;
}

uint64_t em_dataset_held_out_tokens(const struct em_dataset *dataset)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < dataset->count; i++)
        sum += dataset->domains[i].held_out_tokens;
    return sum;
}

uint64_t em_dataset_hash(const struct em_dataset *dataset)
{
    uint64_t hash = em_tokenizer_hash(dataset->tokenizer);
    for (size_t i = 0; i < dataset->count; i++) {
        const struct em_domain *d = &dataset->domains[i];
        const struct {
            uint64_t before, documents, train, held_out;
            double weight;
        } facts = {hash,
                   em_hash_bytes(d->cache.documents,
                                 (size_t)(d->cache.count + 1) * sizeof *d->cache.documents),
                   d->train_tokens, d->held_out_tokens, d->weight};
        hash = em_hash_bytes(&facts, sizeof facts);
    }
    return hash;
}
