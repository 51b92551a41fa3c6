#include "train/batches.h"

#include <math.h>

#include "base/rng.h"
#include "formats/hash.h"

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
    b->reverse_share = recipe->data.reverse_complement;
    if (b->reverse_share > 0) EM_TRY(em_complement_open(tokenizer, &b->complement));
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
    return em_fail(EMBER_E_CONFIG, "%s: train.%s is %zu, but the batches of %s are made for %zu",
                   recipe->name, key, given,
                   *recipe->data.ids ? recipe->data.ids : recipe->data.tensors, found);
}

static ember_status open_ids(const struct em_recipe *recipe, size_t vocabulary,
                             struct em_batches *b)
{
    if (recipe->data.reverse_complement > 0)
        return em_fail(EMBER_E_CONFIG, "%s: data.reverse_complement needs text, not data.ids",
                       recipe->name);
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

ember_status em_model_tensors_open(const struct em_model *m, const char *path,
                                   struct em_tensor_source *out)
{
    struct em_tensor_source s;
    EM_TRY(em_tensors_open(path,
                           &(struct em_tensor_columns){m->vocabulary, m->input_size, m->output_size,
                                                       m->language_model},
                           &s));
    if (m->pooled && em_tensors_of_places(&s)) {
        const char *what = s.labels ? "labels" : "targets";
        em_tensors_close(&s);
        return em_fail(EMBER_E_CONFIG,
                       "%s: %s are those of places, and the model makes one output of a sequence",
                       path, what);
    }
    *out = s;
    return EMBER_OK;
}

enum em_head em_tensors_head(const struct em_tensor_source *s)
{
    const bool places = em_tensors_of_places(s);
    if (s->labels) return places ? EM_HEAD_PLACES : EM_HEAD_LABELS;
    return places ? EM_HEAD_VALUES : EM_HEAD_SEQUENCE_VALUES;
}

static ember_status open_tensors(const struct em_recipe *recipe, const struct em_model *model,
                                 struct em_batches *b)
{
    if (recipe->train.seq_start)
        return em_fail(EMBER_E_CONFIG, "%s: train.seq_start is for tokens", recipe->name);
    EM_TRY(em_model_tensors_open(model, recipe->data.tensors, &b->tensors));
    b->batch = b->tensors.batch;
    b->seq = b->tensors.seq;
    b->slices = b->tensors.slices;
    b->scored = em_tensors_scored(&b->tensors, 0);
    EM_TRY(check_given(recipe, "batch", recipe->train.batch, b->batch));
    EM_TRY(check_given(recipe, "seq", recipe->train.seq, b->seq));
    if (recipe->train.accumulate > b->batch)
        return em_fail(EMBER_E_CONFIG, "%s: train.accumulate is %zu; a batch has %zu rows",
                       recipe->name, recipe->train.accumulate, b->batch);
    if (!*recipe->data.tensors_held_out) return EMBER_OK;
    EM_TRY(em_model_tensors_open(model, recipe->data.tensors_held_out, &b->held_out));
    if (!b->held_out.labels != !b->tensors.labels || b->held_out.seq > b->seq ||
        em_tensors_of_places(&b->held_out) != em_tensors_of_places(&b->tensors))
        return em_fail(EMBER_E_CONFIG, "%s: %s has to have %s as %s has, of at most %zu places",
                       recipe->name, recipe->data.tensors_held_out,
                       b->tensors.labels ? "labels" : "targets", recipe->data.tensors, b->seq);
    return EMBER_OK;
}

ember_status em_batches_open(const struct em_recipe *recipe, const struct em_tokenizer *tokenizer,
                             const struct em_model *model, const char *cache, bool tidy,
                             struct em_pool *pool, struct em_batches *b)
{
    *b = (struct em_batches){0}; // in place: the sampler borrows the dataset
    const ember_status status = recipe->source_count
                                    ? open_text(recipe, tokenizer, cache, tidy, pool, b)
                                : *recipe->data.tensors ? open_tensors(recipe, model, b)
                                                        : open_ids(recipe, model->vocabulary, b);
    b->seed = recipe->seed;
    b->seq_start = recipe->train.seq_start;
    b->seq_stage = recipe->train.seq_stage;
    if (status != EMBER_OK) em_batches_close(b);
    return status;
}

void em_batches_close(struct em_batches *b)
{
    em_sampler_destroy(b->sampler);
    if (b->text) em_dataset_close(&b->dataset);
    if (b->ids.file) em_ids_close(&b->ids);
    if (b->tensors.file) em_tensors_close(&b->tensors);
    if (b->held_out.file) em_tensors_close(&b->held_out);
    em_complement_close(&b->complement);
    *b = (struct em_batches){0};
}

ember_status em_batches_fill(const struct em_batches *b, uint64_t step, size_t first, size_t rows,
                             struct em_packed *out)
{
    if (b->tensors.file) return em_tensors_fill(&b->tensors, step, first, rows, out);
    EM_TRY(b->text ? em_sampler_fill(b->sampler, step, first, rows, out)
                   : em_ids_fill(&b->ids, step, first, rows, out));
    if (b->reverse_share > 0)
        em_packed_reverse_complement(out, &b->complement, b->reverse_share, b->seed, step,
                                     first * b->seq);
    if (b->seq_start)
        em_packed_cut(out, em_warmup_length(step, b->seq_start, b->seq_stage, b->seq));
    return EMBER_OK;
}

uint64_t em_batches_scored(const struct em_batches *b, uint64_t step)
{
    return b->tensors.file ? em_tensors_scored(&b->tensors, step) : b->scored;
}

uint64_t em_batches_hash(const struct em_batches *b)
{
    if (b->text) return em_dataset_hash(&b->dataset);
    if (b->held_out.file)
        return em_hash64(em_tensors_hash(&b->tensors), 1, em_tensors_hash(&b->held_out));
    if (b->tensors.file) return em_tensors_hash(&b->tensors);
    return em_hash_bytes(b->ids.ids->data, b->ids.ids->bytes);
}
