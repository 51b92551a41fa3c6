// A file of prompts becomes a file of answers.
#include <ember/infer.h>
#include <string.h>

#include "api/model.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "formats/hash.h"
#include "infer/answers.h"
#include "infer/prompts.h"

struct job {
    ember_model *model;
    const ember_generate_file_options *options;
    struct em_prompts prompts;
    struct em_answers answers;
    struct item *item; // [prompts]
    size_t ended, tokens;
    double start;
};

struct item {
    struct job *job;
    size_t index;
    uint64_t seed;
    struct em_buf text;
};

static ember_status on_text(void *context, const char *text, size_t n)
{
    return em_buf_add(&((struct item *)context)->text, text, n);
}

static bool set(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value) == 0;
}

static json_t *list_of(const int32_t *ids, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++)
        if (json_array_append_new(list, json_integer(ids[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static json_t *answer_json(const struct item *item, const ember_answer *answer)
{
    const struct em_prompt *p = &item->job->prompts.prompt[item->index];
    json_t *o = json_pack("{s:I}", "index", (json_int_t)item->index);
    bool done = o && json_object_update(o, (json_t *)(uintptr_t)p->line) == 0;
    if (item->job->model->tokenizer)
        done = done && set(o, "text",
                           json_stringn(item->text.data ? item->text.data : "", item->text.size));
    if (item->job->options->ids || !item->job->model->tokenizer)
        done = done && set(o, "ids", list_of(answer->ids, answer->prompt_tokens + answer->tokens));
    done = done && set(o, "finish", json_string(ember_finish_name(answer->finish))) &&
           set(o, "prompt_tokens", json_integer((json_int_t)answer->prompt_tokens)) &&
           set(o, "tokens", json_integer((json_int_t)answer->tokens)) &&
           set(o, "seed", json_integer((json_int_t)item->seed));
    if (done) return o;
    json_decref(o);
    return NULL;
}

static void show_progress(const struct job *j)
{
    const double seconds = em_clock_seconds() - j->start;
    em_progress(j->ended == j->prompts.count, "answer %zu of %zu, %.1f tokens/s", j->ended,
                j->prompts.count, seconds > 0 ? (double)j->tokens / seconds : 0.0);
}

static ember_status on_end(void *context, const ember_answer *answer)
{
    struct item *item = context;
    struct job *j = item->job;
    struct em_buf line = {0};
    json_t *o = answer_json(item, answer);
    if (!o) return em_fail(EMBER_E_NOMEM, "%s: out of memory", j->answers.path);
    ember_status status = em_json_print(o, 0, &line);
    json_decref(o);
    em_buf_deinit(&item->text);
    char *text = status == EMBER_OK ? em_buf_take(&line) : NULL;
    em_buf_deinit(&line);
    if (status == EMBER_OK && !text) status = EMBER_E_NOMEM;
    EM_TRY(status);
    j->ended++;
    j->tokens += answer->tokens;
    show_progress(j);
    return em_answers_put(&j->answers, item->index, text);
}

// What makes answers of one job useless to another: prompts, weights, settings. Seeds are compared
// by themselves.
static uint64_t job_hash(const struct job *j)
{
    const struct em_model *m = j->model->model;
    const ember_request *like = j->options->like;
    const ember_sampling s =
        like && like->sampling ? *like->sampling : j->model->generation.sampling;
    const double number[] = {s.temperature,
                             (double)s.top_k,
                             s.top_p,
                             s.min_p,
                             s.repeat_penalty,
                             (double)s.order,
                             (double)(like ? like->max_tokens : 0),
                             (double)j->options->ids,
                             (double)j->model->runtime.bf16};
    uint64_t hash = em_hash64(j->prompts.hash, em_hash_bytes(number, sizeof number),
                              em_hash_bytes(m->memory, m->memory_bytes));
    for (size_t i = 0; like && i < like->n_stop; i++)
        hash = em_hash64(hash, i, em_hash_bytes(like->stop[i], strlen(like->stop[i])));
    return hash;
}

// All prompts that are not answered yet, as one call.
static ember_status answer_rest(struct job *j)
{
    const size_t first = j->answers.first, n = j->prompts.count - first;
    ember_request *request = em_calloc(n ? n : 1, sizeof *request);
    j->item = em_calloc(n ? n : 1, sizeof *j->item);
    ember_status status = request && j->item ? EMBER_OK : EMBER_E_NOMEM;
    for (size_t i = 0; status == EMBER_OK && i < n; i++) {
        const struct em_prompt *p = &j->prompts.prompt[first + i];
        // Within what a JSON integer holds.
        const uint64_t seed =
            p->seeded ? p->seed : (j->answers.seed + first + i) & (uint64_t)INT64_MAX;
        j->item[i] = (struct item){.job = j, .index = first + i, .seed = seed};
        if (j->options->like) request[i] = *j->options->like;
        request[i].text = p->text;
        request[i].n_text = p->n_text;
        request[i].ids = p->ids;
        request[i].n_ids = p->n_ids;
        request[i].seed = seed;
        request[i].name = p->name;
        request[i].on_token = NULL;
        request[i].on_text = j->model->tokenizer ? on_text : NULL;
        request[i].on_end = on_end;
        request[i].context = &j->item[i];
    }
    j->start = em_clock_seconds();
    j->ended = first;
    if (status == EMBER_OK) status = ember_generate(j->model, request, n);
    for (size_t i = 0; j->item && i < n; i++)
        em_buf_deinit(&j->item[i].text);
    em_free(j->item);
    em_free(request);
    return status;
}

static ember_status run(struct job *j, const char *prompts, const char *answers)
{
    EM_TRY(em_prompts_read(prompts, &j->prompts));
    const size_t n = j->prompts.count;
    EM_TRY(em_answers_open(answers, n, job_hash(j), j->options->seed, j->options->any_seed,
                           &j->answers));
    em_note("seed %llu", (unsigned long long)j->answers.seed);
    if (j->answers.resumed)
        em_note("%s: goes on after %zu of %zu answers", answers, j->answers.resumed, n);
    const ember_status status = answer_rest(j);
    if (status != EMBER_OK && status != EMBER_E_INTERRUPTED) return status;
    EM_TRY(em_answers_finish(&j->answers));
    if (status != EMBER_OK)
        em_note("stopped after %zu of %zu answers; the same command goes on from there",
                j->answers.first, n);
    return status;
}

ember_status ember_generate_file(ember_model *model, const char *prompts, const char *answers,
                                 const ember_generate_file_options *options)
{
    static const ember_generate_file_options none;
    struct job j = {.model = model, .options = options ? options : &none, .answers.log.fd = -1};
    const ember_status status = run(&j, prompts, answers);
    em_answers_close(&j.answers);
    em_prompts_deinit(&j.prompts);
    return status;
}
