#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "data/cache.h"
#include "data/cache_file.h"
#include "formats/hash.h"

enum { BATCH_BYTES = 8 << 20, BATCH_DOCUMENTS = 4096 };

// A document on its way through the encoders.
struct job {
    size_t at, size; // in the batch's text
    const char *file;
    uint64_t line, bytes, hash;
    struct em_ids ids;
    ember_status status;
    char message[256]; // the message is the worker thread's, so it is carried over
};

struct batch {
    const struct em_cache_request *request;
    struct em_encoder **encoders; // one per thread
    unsigned threads;
    struct em_buf text;
    struct job *jobs;
    size_t count;
};

// ---- the key ----

static void free_files(struct em_cache_file *files, size_t count)
{
    for (size_t i = 0; files && i < count; i++)
        em_free(files[i].path);
    em_free(files);
}

static ember_status look_at_files(const struct em_cache_request *r, struct em_cache_file *files)
{
    for (size_t i = 0; i < r->path_count; i++) {
        struct em_file_hash hash;
        EM_TRY(em_hash_file(r->paths[i], false, &hash));
        files[i] = (struct em_cache_file){em_strdup(r->paths[i]), hash.bytes, hash.xxh3};
        if (!files[i].path) return EMBER_E_NOMEM;
    }
    return EMBER_OK;
}

// Everything that decides what is in a cache. A file's name does not.
static ember_status make_key(const struct em_cache_request *r, const struct em_cache_file *files,
                             uint64_t *key)
{
    struct em_buf b;
    em_buf_init(&b, 0);
    ember_status status = em_buf_printf(
        &b, "tokens 1 %016llx %d %d %s\n", (unsigned long long)em_tokenizer_hash(r->tokenizer),
        r->no_eos, (int)r->options.format, r->options.text_key ? r->options.text_key : "text");
    for (size_t i = 0; i < r->path_count && status == EMBER_OK; i++) {
        const char *dot = strchr(em_path_base(r->paths[i]), '.'); // its endings decide the format
        status = em_buf_printf(&b, "%016llx %llu %s\n", (unsigned long long)files[i].xxh3,
                               (unsigned long long)files[i].bytes, dot ? dot : "");
    }
    if (status == EMBER_OK) *key = em_hash_bytes(b.data, b.size);
    em_buf_deinit(&b);
    return status;
}

// ---- building ----

static void encode_one(struct batch *b, struct job *j, struct em_encoder *encoder)
{
    const struct em_tokenizer *t = b->request->tokenizer;
    const char *text = b->text.data + j->at;
    j->ids.count = 0;
    j->status = em_encode(encoder, text, j->size, EM_ENCODE_ADD_SPECIAL, &j->ids);
    const int32_t eos = em_tokenizer_eos(t);
    if (j->status == EMBER_OK && !b->request->no_eos && eos >= 0 &&
        (j->ids.count == 0 || j->ids.ids[j->ids.count - 1] != eos))
        j->status = em_ids_push(&j->ids, eos);
    if (j->status != EMBER_OK) {
        strncpy(j->message, ember_last_error(), sizeof j->message - 1);
        return;
    }
    j->hash = em_hash_bytes(text, j->size);
    j->bytes = j->size;
    // Without a BOS nothing predicts the first token: its bytes are not the model's to spend bits
    // on.
    if (j->ids.count > 0 && !em_tokenizer_is_special(t, j->ids.ids[0])) {
        size_t n = 0;
        (void)em_tokenizer_token(t, j->ids.ids[0], &n);
        j->bytes -= n < j->bytes ? n : j->bytes;
    }
}

static void encode_some(void *arg, size_t begin, size_t end, unsigned thread)
{
    struct batch *b = arg;
    for (size_t i = begin; i < end; i++)
        encode_one(b, &b->jobs[i], b->encoders[thread]);
}

static ember_status flush(struct batch *b, struct em_cache_writer *w,
                          struct em_document_stats *stats)
{
    em_parallel(b->request->pool, b->count, 1, encode_some, b);
    for (size_t i = 0; i < b->count; i++) {
        struct job *j = &b->jobs[i];
        if (j->status != EMBER_OK) {
            if (j->line)
                return em_fail(j->status, "%s:%llu: %s", j->file, (unsigned long long)j->line,
                               j->message);
            return em_fail(j->status, "%s: %s", j->file, j->message);
        }
        if (j->ids.count < 2) { // nothing to predict
            stats->empty++;
            stats->documents--;
            stats->bytes -= j->size;
            continue;
        }
        EM_TRY(em_cache_writer_add(w, j->ids.ids, j->ids.count, j->bytes, j->hash));
    }
    b->count = 0;
    em_buf_clear(&b->text);
    return EMBER_OK;
}

static ember_status add_document(struct batch *b, const struct em_document *doc)
{
    struct job *j = &b->jobs[b->count];
    j->at = b->text.size;
    j->size = doc->size;
    j->file = doc->file; // the list of paths outlives the batch
    j->line = doc->line;
    EM_TRY(em_buf_add(&b->text, doc->text, doc->size));
    b->count++;
    return EMBER_OK;
}

static ember_status build_documents(struct batch *b, struct em_documents *documents,
                                    struct em_cache_writer *w, struct em_document_stats *stats)
{
    struct em_document_stats lost = {0}; // documents without a target
    for (bool more = true; more;) {
        struct em_document doc;
        EM_TRY(em_documents_next(documents, &doc, &more));
        if (more) EM_TRY(add_document(b, &doc));
        if (b->count < BATCH_DOCUMENTS && b->text.size < BATCH_BYTES && more) continue;
        EM_TRY(flush(b, w, &lost));
        em_progress(false, "tokenising %s: %.1f MB of text, %llu documents, %.2f M tokens",
                    b->request->name, (double)em_documents_stats(documents)->bytes / 1e6,
                    (unsigned long long)em_documents_stats(documents)->documents,
                    (double)w->tokens / 1e6);
    }
    *stats = *em_documents_stats(documents);
    stats->empty += lost.empty;
    stats->documents += lost.documents; // these two wrapped below zero, and come back
    stats->bytes += lost.bytes;
    em_progress(true, "tokenised %s: %.1f MB of text, %llu documents, %.2f M tokens",
                b->request->name, (double)stats->bytes / 1e6, (unsigned long long)stats->documents,
                (double)w->tokens / 1e6);
    return EMBER_OK;
}

static void batch_deinit(struct batch *b)
{
    for (unsigned i = 0; b->encoders && i < b->threads; i++)
        em_encoder_destroy(b->encoders[i]);
    em_free(b->encoders);
    for (size_t i = 0; b->jobs && i < BATCH_DOCUMENTS; i++)
        em_ids_deinit(&b->jobs[i].ids);
    em_free(b->jobs);
    em_buf_deinit(&b->text);
}

static ember_status batch_init(const struct em_cache_request *r, struct batch *b)
{
    *b = (struct batch){.request = r, .threads = em_pool_threads(r->pool)};
    em_buf_init(&b->text, 0);
    b->encoders = em_calloc(b->threads, sizeof(struct em_encoder *));
    b->jobs = em_calloc(BATCH_DOCUMENTS, sizeof *b->jobs);
    if (!b->encoders || !b->jobs) return EMBER_E_NOMEM;
    for (unsigned i = 0; i < b->threads; i++)
        EM_TRY(em_encoder_create(r->tokenizer, &b->encoders[i]));
    return EMBER_OK;
}

static ember_status build(const struct em_cache_request *r, const char *path, uint64_t key,
                          void **memory, size_t *size)
{
    struct batch b;
    struct em_documents *documents = NULL;
    struct em_cache_writer w = {.file.fd = -1};
    struct em_document_stats stats;
    ember_status status;
    EM_TRY_GOTO(status, end, batch_init(r, &b));
    EM_TRY_GOTO(status, end,
                em_documents_open(r->paths, r->path_count, &r->options, r->strict, &documents));
    EM_TRY_GOTO(status, end, em_cache_writer_open(path, em_tokenizer_size(r->tokenizer), &w));
    EM_TRY_GOTO(status, end, build_documents(&b, documents, &w, &stats));
    status = em_cache_writer_finish(&w, key, &stats, memory, size);
end:
    em_cache_writer_abort(&w);
    em_documents_close(documents);
    batch_deinit(&b);
    return status;
}

// ---- opening ----

// The domain's name as a file's: what is not a letter, a digit, '.', '-' or '_' becomes '_'.
static char *file_stem(const char *directory, const char *name)
{
    char *stem = em_strdup(*name ? name : "domain");
    if (!stem) return NULL;
    for (char *p = stem; *p; p++)
        if (!(*p >= 'a' && *p <= 'z') && !(*p >= 'A' && *p <= 'Z') && !(*p >= '0' && *p <= '9') &&
            !strchr(".-_", *p))
            *p = '_';
    if (strlen(stem) > 100) stem[100] = '\0';
    char *path = em_path_join(directory, stem);
    em_free(stem);
    return path;
}

static ember_status open_file(const char *path, uint64_t key, size_t vocabulary,
                              struct em_cache *out)
{
    struct em_map map;
    struct em_cache c;
    EM_TRY(em_map_open(path, &map));
    const ember_status status = em_cache_view(path, map.data, map.size, key, vocabulary, &c);
    if (status != EMBER_OK) {
        em_map_close(&map);
        return status;
    }
    c.map = map;
    *out = c;
    return EMBER_OK;
}

// Files STEM-<16 digits>.tokens but `keep`.
static void remove_others(const char *directory, const char *stem, const char *keep)
{
    char **names;
    size_t count;
    const char *base = em_path_base(stem);
    const size_t n = strlen(base);
    if (em_list_directory(directory, &names, &count) != EMBER_OK) return;
    for (size_t i = 0; i < count; i++) {
        const char *name = names[i];
        if (strncmp(name, base, n) != 0 || name[n] != '-' ||
            strspn(name + n + 1, "0123456789abcdef") != 16 ||
            strcmp(name + n + 17, ".tokens") != 0 || strcmp(name, em_path_base(keep)) == 0)
            continue;
        char *path = em_path_join(directory, name);
        if (path && em_io()->unlink(path) != 0)
            em_warn("%s: a cache that is no longer used could not be removed", path);
        em_free(path);
    }
    em_names_free(names, count);
}

static ember_status open_at(const struct em_cache_request *r, const char *path, uint64_t key,
                            struct em_cache *out)
{
    const size_t vocabulary = em_tokenizer_size(r->tokenizer);
    enum em_path_kind kind;
    void *unused;
    size_t size;
    EM_TRY(em_path_probe(path, &kind));
    if (kind) {
        const ember_status status = open_file(path, key, vocabulary, out);
        if (status != EMBER_E_FORMAT) return status;
        em_note("%s; it is made anew", ember_last_error());
    }
    EM_TRY(build(r, path, key, &unused, &size));
    EM_TRY(open_file(path, key, vocabulary, out));
    out->made = true;
    return EMBER_OK;
}

static ember_status open_in_memory(const struct em_cache_request *r, struct em_cache *out)
{
    void *memory;
    size_t size;
    EM_TRY(build(r, NULL, 0, &memory, &size));
    struct em_cache c;
    const ember_status status =
        memory ? em_cache_view(r->name, memory, size, 0, em_tokenizer_size(r->tokenizer), &c)
               : EMBER_E_NOMEM;
    if (status != EMBER_OK) {
        em_free(memory);
        return status;
    }
    c.memory = memory;
    c.made = true;
    *out = c;
    return EMBER_OK;
}

static ember_status open_in_folder(const struct em_cache_request *r,
                                   const struct em_cache_file *files, struct em_cache *out)
{
    uint64_t key;
    EM_TRY(make_key(r, files, &key));
    EM_TRY(em_make_directories(r->directory));
    char *stem = file_stem(r->directory, r->name);
    char *path = stem ? em_asprintf("%s-%016llx.tokens", stem, (unsigned long long)key) : NULL;
    const ember_status status = path ? open_at(r, path, key, out) : EMBER_E_NOMEM;
    if (status == EMBER_OK && r->tidy) remove_others(r->directory, stem, path);
    em_free(path);
    em_free(stem);
    return status;
}

ember_status em_cache_open(const struct em_cache_request *r, struct em_cache *out)
{
    if (!r->directory) return open_in_memory(r, out);
    struct em_cache_file *files = em_calloc(r->path_count ? r->path_count : 1, sizeof *files);
    if (!files) return EMBER_E_NOMEM;
    ember_status status = look_at_files(r, files);
    if (status == EMBER_OK) status = open_in_folder(r, files, out);
    if (status != EMBER_OK) {
        free_files(files, r->path_count);
        return status;
    }
    out->files = files;
    out->file_count = r->path_count;
    return EMBER_OK;
}

void em_cache_close(struct em_cache *cache)
{
    if (cache->map.data) em_map_close(&cache->map);
    em_free(cache->memory);
    free_files(cache->files, cache->file_count);
    *cache = (struct em_cache){0};
}
