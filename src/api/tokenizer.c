#include <ember/tokenizer.h>

#include <pthread.h>

#include "base/alloc.h"
#include "base/io.h"
#include "data/documents.h"
#include "data/files.h"
#include "text/bpe_train.h"
#include "text/tokenizer.h"

struct ember_tokenizer {
    struct em_tokenizer *inner;
    // An encoder to keep its cache from call to call; a call that finds it taken makes one of its
    // own.
    pthread_mutex_t lock;
    struct em_encoder *encoder;
};

// Takes the inner tokenizer, also when it fails.
static ember_status wrap(struct em_tokenizer *inner, ember_tokenizer **tokenizer)
{
    ember_tokenizer *t = em_calloc(1, sizeof *t);
    ember_status status = t ? em_encoder_create(inner, &t->encoder) : EMBER_E_NOMEM;
    if (status == EMBER_OK && pthread_mutex_init(&t->lock, NULL) != 0)
        status = em_fail(EMBER_E_NOMEM, "out of memory: a lock");
    if (status != EMBER_OK) {
        if (t) em_encoder_destroy(t->encoder);
        em_free(t);
        em_tokenizer_close(inner);
        return status;
    }
    t->inner = inner;
    *tokenizer = t;
    return EMBER_OK;
}

ember_status ember_tokenizer_open(const char *path, ember_tokenizer **tokenizer)
{
    struct em_tokenizer *inner;
    EM_TRY(em_tokenizer_open(path, &inner));
    return wrap(inner, tokenizer);
}

ember_status ember_tokenizer_bytes(ember_tokenizer **tokenizer)
{
    struct em_tokenizer *inner;
    EM_TRY(em_tokenizer_bytes(&inner));
    return wrap(inner, tokenizer);
}

void ember_tokenizer_close(ember_tokenizer *tokenizer)
{
    if (!tokenizer) return;
    em_encoder_destroy(tokenizer->encoder);
    em_tokenizer_close(tokenizer->inner);
    pthread_mutex_destroy(&tokenizer->lock);
    em_free(tokenizer);
}

ember_status ember_tokenizer_save(const ember_tokenizer *tokenizer, const char *directory)
{
    return em_tokenizer_save(tokenizer->inner, directory);
}

size_t ember_tokenizer_size(const ember_tokenizer *tokenizer)
{
    return em_tokenizer_size(tokenizer->inner);
}

int32_t ember_tokenizer_bos(const ember_tokenizer *tokenizer)
{
    return em_tokenizer_bos(tokenizer->inner);
}

int32_t ember_tokenizer_eos(const ember_tokenizer *tokenizer)
{
    return em_tokenizer_eos(tokenizer->inner);
}

int32_t ember_tokenizer_pad(const ember_tokenizer *tokenizer)
{
    return em_tokenizer_pad(tokenizer->inner);
}

int32_t ember_tokenizer_find(const ember_tokenizer *tokenizer, const char *bytes, size_t n)
{
    return em_tokenizer_find(tokenizer->inner, bytes, n);
}

const char *ember_tokenizer_token(const ember_tokenizer *tokenizer, int32_t id, size_t *n)
{
    return (const char *)em_tokenizer_token(tokenizer->inner, id, n);
}

ember_status ember_tokenizer_encode(const ember_tokenizer *tokenizer, const char *text, size_t n,
                                    unsigned flags, int32_t **ids, size_t *count)
{
    // The lock and the cache behind it do not show: the tokenizer is const to its users.
    ember_tokenizer *t = (ember_tokenizer *)(uintptr_t)tokenizer;
    struct em_encoder *own = NULL;
    struct em_ids found = {0};
    const bool shared = pthread_mutex_trylock(&t->lock) == 0;
    ember_status status = em_ids_reserve(&found, 1);
    if (status == EMBER_OK && !shared) status = em_encoder_create(t->inner, &own);
    if (status == EMBER_OK)
        status = em_encode(shared ? t->encoder : own, text, n,
                           flags & EMBER_TOKENIZER_NO_SPECIAL ? 0 : EM_ENCODE_DEFAULT, &found);
    if (shared) pthread_mutex_unlock(&t->lock);
    em_encoder_destroy(own);
    if (status != EMBER_OK) {
        em_ids_deinit(&found);
        return status;
    }
    *ids = found.ids;
    *count = found.count;
    return EMBER_OK;
}

ember_status ember_tokenizer_decode(const ember_tokenizer *tokenizer, const int32_t *ids,
                                    size_t count, unsigned flags, char **text, size_t *n)
{
    struct em_buf out;
    em_buf_init(&out, 0);
    const unsigned how = (flags & EMBER_TOKENIZER_NO_SPECIAL ? EM_DECODE_SKIP_SPECIAL : 0) |
                         (flags & EMBER_TOKENIZER_RAW ? EM_DECODE_RAW : 0);
    ember_status status = em_decode(tokenizer->inner, ids, count, how, &out);
    const size_t size = out.size;
    char *taken = status == EMBER_OK ? em_buf_take(&out) : NULL;
    if (status == EMBER_OK && !taken) status = EMBER_E_NOMEM;
    em_buf_deinit(&out);
    if (status != EMBER_OK) return status;
    *text = taken;
    *n = size;
    return EMBER_OK;
}

ember_status ember_tokenizer_inspect(const ember_tokenizer *tokenizer, bool json, char **text)
{
    struct em_buf out;
    em_buf_init(&out, 0);
    ember_status status = em_tokenizer_describe(tokenizer->inner, json, &out);
    char *taken = status == EMBER_OK ? em_buf_take(&out) : NULL;
    if (status == EMBER_OK && !taken) status = EMBER_E_NOMEM;
    em_buf_deinit(&out);
    if (status == EMBER_OK) *text = taken;
    return status;
}

// One path after the other, each a file, or a folder in which files that are no text are passed
// over.
struct corpus {
    const char *const *paths;
    size_t path_count, path;
    struct em_document_options options;
    struct em_file_list files;
    struct em_documents *documents;
    ember_tokenizer_corpus read;
};

static void close_path(struct corpus *c)
{
    if (c->documents) {
        const struct em_document_stats *s = em_documents_stats(c->documents);
        c->read.files += s->files;
        c->read.documents += s->documents;
        c->read.bytes += s->bytes;
    }
    em_documents_close(c->documents);
    c->documents = NULL;
    em_file_list_deinit(&c->files);
}

static ember_status next_document(void *context, const char **text, size_t *n)
{
    struct corpus *c = context;
    for (;;) {
        if (!c->documents) {
            *text = NULL;
            if (c->path == c->path_count) return EMBER_OK;
            const char *path = c->paths[c->path++];
            EM_TRY(em_files_expand(path, &c->files));
            EM_TRY(em_documents_open(c->files.paths, c->files.count, &c->options,
                                     !em_path_is_directory(path), &c->documents));
        }
        struct em_document document;
        bool more;
        EM_TRY(em_documents_next(c->documents, &document, &more));
        if (more) {
            *text = document.text;
            *n = document.size;
            return EMBER_OK;
        }
        close_path(c);
    }
}

ember_status ember_tokenizer_train(const char *const *paths, size_t path_count,
                                   const ember_tokenizer_training *options,
                                   ember_tokenizer **tokenizer, ember_tokenizer_corpus *corpus)
{
    static const ember_tokenizer_training none;
    if (!options) options = &none;
    struct corpus c = {
        .paths = paths, .path_count = path_count, .options = {.text_key = options->text_key}};
    struct em_pool *pool;
    struct em_tokenizer *inner;
    EM_TRY(em_pool_create(options->threads, &pool));
    ember_status status = em_bpe_train(
        &(struct em_bpe_train_options){
            .vocab = options->vocab, .min_frequency = options->min_frequency, .pool = pool},
        (struct em_text_source){next_document, &c}, &inner);
    close_path(&c);
    em_pool_destroy(pool);
    if (status != EMBER_OK) return status;
    if (c.read.documents == 0) {
        em_tokenizer_close(inner);
        return em_fail(
            EMBER_E_FORMAT,
            "%s%s: no document to train on (%llu files read, all of them empty or binary)",
            path_count ? paths[0] : "no files", path_count > 1 ? " and others" : "",
            (unsigned long long)c.read.files);
    }
    EM_TRY(wrap(inner, tokenizer));
    if (corpus) *corpus = c.read;
    return EMBER_OK;
}
