#include "train/batches.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "base/log.h"
#include "data/files.h"
#include "formats/hash.h"
#include "text/bpe_train.h"

// ---- the tokenizer ----

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
    } else if (*named) {
        EM_TRY(em_tokenizer_open(named, &c.tokenizer));
        if (em_path_is_directory(named)) c.from = named;
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

// ---- batches ----

// Shares between those of size and equal ones, so that a small domain is not drowned by a large
// one.
static void mix_domains(struct em_dataset *data, double power)
{
    uint64_t most = 1;
    for (size_t d = 0; d < data->count; d++) {
        if (data->domains[d].weight > 0) return;
        if (data->domains[d].train_tokens > most) most = data->domains[d].train_tokens;
    }
    for (size_t d = 0; d < data->count && power < 1; d++)
        data->domains[d].weight = pow((double)data->domains[d].train_tokens / (double)most, power);
}

static ember_status open_text(const struct em_recipe *recipe, const struct em_tokenizer *tokenizer,
                              const char *cache, bool tidy, struct em_pool *pool,
                              struct em_batches *b)
{
    const struct em_dataset_options options = {
        .tokenizer = tokenizer,
        .cache = cache,
        .tidy = tidy,
        .held_out = recipe->data.held_out > 0 ? recipe->data.held_out : -1,
        .no_eos = !recipe->data.eos,
        .pool = pool,
    };
    EM_TRY(em_dataset_open(recipe->sources, recipe->source_count, &options, &b->dataset));
    mix_domains(&b->dataset, recipe->data.mix);
    b->text = true;
    b->batch = recipe->train.batch;
    b->seq = recipe->train.seq;
    b->scored = (uint64_t)b->batch * b->seq;
    return em_sampler_create(
        &b->dataset,
        &(struct em_sampler_options){.batch = b->batch, .seq = b->seq, .seed = recipe->seed},
        &b->sampler);
}

// The file fixes batch and seq; a recipe that says something else is mistaken.
static ember_status check_given(const struct em_recipe *recipe, const char *key, size_t given,
                                size_t found)
{
    const json_t *train = json_object_get(recipe->json, "train");
    if (!json_object_get(train, key) || given == found) return EMBER_OK;
    return em_fail(EMBER_E_CONFIG, "%s: train.%s is %zu, but input_ids of %s is made for %zu",
                   recipe->name, key, given, recipe->data.ids, found);
}

static ember_status open_ids(const struct em_recipe *recipe, size_t vocabulary,
                             struct em_batches *b)
{
    EM_TRY(em_ids_open(recipe->data.ids, vocabulary, &b->ids));
    b->batch = b->ids.batch;
    b->seq = b->ids.seq;
    b->slices = b->ids.steps;
    b->scored = (uint64_t)b->batch * (b->seq - 1);
    EM_TRY(check_given(recipe, "batch", recipe->train.batch, b->batch));
    EM_TRY(check_given(recipe, "seq", recipe->train.seq, b->seq));
    if (recipe->train.accumulate > b->batch)
        return em_fail(EMBER_E_CONFIG, "%s: train.accumulate is %zu; a batch has %zu rows",
                       recipe->name, recipe->train.accumulate, b->batch);
    if (recipe->train.steps > b->slices)
        return em_fail(EMBER_E_CONFIG, "%s: train.steps is %zu; %s has batches for %llu",
                       recipe->name, recipe->train.steps, recipe->data.ids,
                       (unsigned long long)b->slices);
    return EMBER_OK;
}

ember_status em_batches_open(const struct em_recipe *recipe, const struct em_tokenizer *tokenizer,
                             size_t vocabulary, const char *cache, bool tidy, struct em_pool *pool,
                             struct em_batches *b)
{
    *b = (struct em_batches){0}; // in place: the sampler borrows the dataset
    const ember_status status = recipe->source_count
                                    ? open_text(recipe, tokenizer, cache, tidy, pool, b)
                                    : open_ids(recipe, vocabulary, b);
    if (status != EMBER_OK) em_batches_close(b);
    return status;
}

void em_batches_close(struct em_batches *b)
{
    em_sampler_destroy(b->sampler);
    if (b->text) em_dataset_close(&b->dataset);
    if (b->ids.file) em_ids_close(&b->ids);
    *b = (struct em_batches){0};
}

ember_status em_batches_fill(const struct em_batches *b, uint64_t step, size_t first, size_t rows,
                             struct em_packed *out)
{
    return b->text ? em_sampler_fill(b->sampler, step, first, rows, out)
                   : em_ids_fill(&b->ids, step, first, rows, out);
}

uint64_t em_batches_hash(const struct em_batches *b)
{
    if (b->text) return em_dataset_hash(&b->dataset);
    return em_hash_bytes(b->ids.ids->data, b->ids.ids->bytes);
}
