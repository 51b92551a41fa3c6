// Training of tokenizers, from files to a tokenizer.
#include <ember/tokenizer.h>

#include "api/library.h"
#include "base/io.h"
#include "data/documents.h"
#include "data/files.h"
#include "text/bpe_train.h"

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
    EM_TRY(em_api_wrap_tokenizer(inner, tokenizer));
    if (corpus) *corpus = c.read;
    return EMBER_OK;
}
