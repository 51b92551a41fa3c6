#include "train/tokenizer_choice.h"

#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/log.h"
#include "data/files.h"
#include "formats/hash.h"
#include "text/bpe_train.h"

// All documents of all sources, one after the other.
struct reader {
    const struct em_recipe *recipe;
    size_t source; // the next one
    struct em_file_list files;
    struct em_documents *documents;
};

static void reader_close(struct reader *r)
{
    em_documents_close(r->documents);
    em_file_list_deinit(&r->files);
    r->documents = NULL;
    r->files = (struct em_file_list){0};
}

static ember_status next_source(struct reader *r)
{
    const struct em_source *s = &r->recipe->sources[r->source++];
    reader_close(r);
    EM_TRY(em_files_expand(s->path, &r->files));
    return em_documents_open(r->files.paths, r->files.count, &s->options,
                             !em_path_is_directory(s->path), &r->documents);
}

static ember_status next_text(void *context, const char **text, size_t *n)
{
    struct reader *r = context;
    for (;;) {
        struct em_document d;
        bool more = false;
        if (r->documents) EM_TRY(em_documents_next(r->documents, &d, &more));
        if (more) {
            *text = d.text;
            *n = d.size;
            return EMBER_OK;
        }
        if (r->source == r->recipe->source_count) {
            *text = NULL;
            return EMBER_OK;
        }
        EM_TRY(next_source(r));
    }
}

bool em_tokenizer_is_built_in(const char *named)
{
    return !named || !*named || strcmp(named, "bytes") == 0 || strcmp(named, "dna") == 0 ||
           strncmp(named, "characters:", 11) == 0;
}

static ember_status train_tokenizer(const struct em_recipe *recipe, size_t vocabulary,
                                    struct em_pool *pool, struct em_tokenizer **out)
{
    struct reader r = {.recipe = recipe};
    const size_t vocab = recipe->data.vocab ? recipe->data.vocab : vocabulary;
    if (vocab && vocab < 259)
        return em_fail(EMBER_E_CONFIG,
                       "%s: data.vocab: a tokenizer has at least 259 tokens, not %zu "
                       "(or data.tokenizer is \"bytes\")",
                       recipe->name, vocab);
    em_note("training a tokenizer of %zu tokens on the text", vocab ? vocab : 8192);
    const ember_status status =
        em_bpe_train(&(struct em_bpe_train_options){.vocab = vocab, .pool = pool},
                     (struct em_text_source){next_text, &r}, out);
    reader_close(&r);
    return status;
}

ember_status em_choose_tokenizer(const struct em_recipe *recipe, const char *folder,
                                 size_t vocabulary, struct em_pool *pool,
                                 struct em_tokenizer_choice *out)
{
    struct em_tokenizer_choice c = {0};
    const char *named = recipe->data.tokenizer;
    bool has;
    EM_TRY(em_folder_probe(folder, "tokenizer.json", &has));
    if (*named && strcmp(named, "bytes") == 0) {
        EM_TRY(em_tokenizer_bytes(&c.tokenizer));
    } else if (*named && strcmp(named, "dna") == 0) {
        EM_TRY(em_tokenizer_characters("ACGTN", &c.tokenizer));
    } else if (strncmp(named, "characters:", 11) == 0) {
        EM_TRY(em_tokenizer_characters(named + 11, &c.tokenizer));
    } else if (*named) {
        enum em_path_kind kind;
        EM_TRY(em_path_probe(named, &kind));
        EM_TRY(em_tokenizer_open(named, &c.tokenizer));
        if (kind == EM_PATH_DIRECTORY) c.from = named;
    } else if (has) {
        EM_TRY(em_tokenizer_open(folder, &c.tokenizer));
        c.from = folder;
    } else if (recipe->source_count) {
        EM_TRY(train_tokenizer(recipe, vocabulary, pool, &c.tokenizer));
        c.trained = true;
    }
    *out = c;
    return EMBER_OK;
}
