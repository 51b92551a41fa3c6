// README.md of a trained folder: the model's card, as Hugging Face and its readers expect one. It
// is meant to be published, so it names files and not the folders that they lie in.
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/process.h"
#include "kernels/kernels.h"
#include "models/model_priv.h"
#include "train/run.h"

enum { MOST_FILES = 40 }; // rows of the table of files; data.json has them all

// A name from the outside must not end a table's cell or begin a tag.
static ember_status put_cell(struct em_buf *b, const char *text)
{
    for (; *text; text++) {
        if (strchr("|<>&`*_[]\\", *text))
            EM_TRY(em_buf_printf(b, "&#%d;", *text));
        else
            EM_TRY(em_buf_putc(b, (unsigned char)*text < 0x20 ? ' ' : *text));
    }
    return EMBER_OK;
}

// "10.96 M"
static const char *amount(double v, char text[32])
{
    if (v < 1e4)
        snprintf(text, 32, "%.0f", v);
    else if (v < 1e6)
        snprintf(text, 32, "%.1f k", v / 1e3);
    else if (v < 1e9)
        snprintf(text, 32, "%.2f M", v / 1e6);
    else
        snprintf(text, 32, "%.2f G", v / 1e9);
    return text;
}

static bool is_known_to_transformers(const struct em_training *t)
{
    return t->model->family->architecture && t->model->language_model;
}

// ---- the head ----

static ember_status put_front_matter(const struct em_training *t, struct em_buf *b)
{
    return em_buf_printf(b,
                         "---\n"
                         "library_name: %s\n"
                         "%s"
                         "tags:\n- ember\n- %s\n"
                         "# For you to say before you publish this: license (the data's terms may "
                         "bind the model), language, datasets.\n"
                         "# license: \n"
                         "# language: \n"
                         "# datasets: \n"
                         "---\n\n",
                         is_known_to_transformers(t) ? "transformers" : "ember",
                         t->model->language_model ? "pipeline_tag: text-generation\n" : "",
                         t->model->family->name);
}

static ember_status put_summary(const struct em_training *t, struct em_buf *b)
{
    char total[32], active[32], tokens[32];
    EM_TRY(em_buf_puts(b, "# "));
    EM_TRY(put_cell(b, em_path_base(t->run.dir)));
    EM_TRY(em_buf_printf(
        b,
        "\n\nA %smodel of the family `%s` with %s parameters, %s of them active for a "
        "token, trained on %s tokens from %s with Ember " EMBER_VERSION
        ". %s`report.html` has its curves.\n\n",
        t->model->language_model ? "language " : "", t->model->family->name,
        amount((double)t->forecast.parameters, total), amount((double)t->forecast.active, active),
        amount((double)t->progress.tokens, tokens),
        t->recipe.model_folder ? "the weights of another model" : "random weights",
        t->recipe.model_folder || !t->model->language_model
            ? ""
            : "It continues text; it was not taught to follow instructions. "));
    return EMBER_OK;
}

static ember_status put_use(const struct em_training *t, struct em_buf *b)
{
    EM_TRY(
        em_buf_puts(b, "## Use\n\nThis folder is the model: `config.json`, `model.safetensors`"));
    if (!t->model->language_model)
        return em_buf_puts(b, ". `best/` holds the weights that were best on held-out data. "
                              "`training/` and `logs/` are for going on and need not be "
                              "published.\n\n```sh\nember forward . --in IN.safetensors --out "
                              "OUT.safetensors\n```\n\n");
    EM_TRY(em_buf_puts(b, t->tokenizer.tokenizer
                              ? ", the tokenizer's files and `generation_config.json`. "
                              : " and `generation_config.json`; it has no tokenizer. "));
    EM_TRY(em_buf_puts(b, "`best/` holds the weights that were best on held-out text. `training/`, "
                          "`cache/` and `logs/` are for going on and need not be published.\n\n"
                          "```sh\nember generate . "));
    EM_TRY(em_buf_puts(b, t->tokenizer.tokenizer ? "-p \"Once upon a time\"\n```\n\n"
                                                 : "--prompt-ids \"3 17\" --ids\n```\n\n"));
    if (!is_known_to_transformers(t))
        return em_buf_puts(b, "Its blocks are a free list, which other programs do not know.\n\n");
    if (!t->tokenizer.tokenizer)
        return em_buf_puts(b, "```python\nfrom transformers import AutoModelForCausalLM\n\n"
                              "model = AutoModelForCausalLM.from_pretrained(\".\")\n```\n\n");
    return em_buf_puts(b,
                       "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
                       "tokenizer = AutoTokenizer.from_pretrained(\".\")\n"
                       "model = AutoModelForCausalLM.from_pretrained(\".\")\n"
                       "ids = tokenizer(\"Once upon a time\", return_tensors=\"pt\")\n"
                       "print(tokenizer.decode(model.generate(**ids, max_new_tokens=64)[0]))\n"
                       "```\n\n");
}

// ---- figures and data ----

static ember_status put_scores(const struct em_training *t, const struct em_score *scores,
                               struct em_buf *b)
{
    if (!t->untrained) return EMBER_OK;
    EM_TRY(em_buf_puts(b, "## Figures\n\n"
                          "Held-out text, which was never trained on: bits for each of its bytes, "
                          "less is better.\n\n"
                          "| domain | held-out bytes | bits per byte | nats per token | untrained "
                          "|\n| --- | ---: | ---: | ---: | ---: |\n"));
    for (size_t d = 0; d < t->batches.dataset.count; d++) {
        const struct em_score *s = &scores[d];
        const double bpb = em_score_bpb(s);
        EM_TRY(em_buf_puts(b, "| "));
        EM_TRY(put_cell(b, t->batches.dataset.domains[d].name));
        if (isfinite(bpb))
            EM_TRY(em_buf_printf(b, " | %.0f | %.3f | %.3f | %.3f |\n", s->bytes, bpb,
                                 s->nats / (double)s->tokens, em_score_bpb(&t->untrained[d])));
        else
            EM_TRY(em_buf_puts(b, " | none | | | |\n"));
    }
    return em_buf_puts(b, "\n");
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static ember_status put_files(const json_t *domain, struct em_buf *b, size_t *rows)
{
    const json_t *files = json_object_get(domain, "files");
    for (size_t i = 0; i < json_array_size(files) && *rows < MOST_FILES; i++, ++*rows) {
        const json_t *f = json_array_get(files, i);
        EM_TRY(em_buf_puts(b, "| "));
        EM_TRY(put_cell(b, text_of(domain, "domain")));
        EM_TRY(em_buf_puts(b, " | "));
        EM_TRY(put_cell(b, em_path_base(text_of(f, "path"))));
        EM_TRY(em_buf_printf(b, " | %lld | `%s` |\n",
                             (long long)json_integer_value(json_object_get(f, "bytes")),
                             text_of(f, "xxh3")));
    }
    return EMBER_OK;
}

static ember_status put_data_tables(const struct em_training *t, const json_t *list,
                                    struct em_buf *b)
{
    size_t rows = 0, files = 0;
    if (t->batches.text) {
        EM_TRY(em_buf_puts(b,
                           "| domain | documents | bytes of text | tokens to train on | held out "
                           "|\n| --- | ---: | ---: | ---: | ---: |\n"));
        for (size_t d = 0; d < t->batches.dataset.count; d++) {
            const struct em_domain *domain = &t->batches.dataset.domains[d];
            EM_TRY(em_buf_puts(b, "| "));
            EM_TRY(put_cell(b, domain->name));
            EM_TRY(em_buf_printf(b, " | %llu | %llu | %llu | %llu |\n",
                                 (unsigned long long)domain->cache.count,
                                 (unsigned long long)domain->cache.stats.bytes,
                                 (unsigned long long)domain->train_tokens,
                                 (unsigned long long)domain->held_out_tokens));
        }
    } else {
        EM_TRY(em_buf_printf(b, "%s from a file: %llu batches of %zu x %zu.\n",
                             t->model->vocabulary ? "Token ids" : "Vectors",
                             (unsigned long long)t->batches.slices, t->batches.batch,
                             t->batches.seq));
    }
    EM_TRY(em_buf_puts(b, "\n| domain | file | bytes | XXH3 |\n| --- | --- | ---: | --- |\n"));
    for (size_t d = 0; d < json_array_size(list); d++) {
        EM_TRY(put_files(json_array_get(list, d), b, &rows));
        files += json_array_size(json_object_get(json_array_get(list, d), "files"));
    }
    if (files > rows)
        EM_TRY(em_buf_printf(b, "\n%zu more files are listed in `data.json`.\n", files - rows));
    return em_buf_puts(b, "\n");
}

static ember_status put_data(const struct em_training *t, struct em_buf *b)
{
    json_t *list = NULL;
    EM_TRY(em_run_read_data(t, &list));
    ember_status status = em_buf_puts(b, "## Data\n\n");
    if (status == EMBER_OK) status = put_data_tables(t, list, b);
    json_decref(list);
    return status;
}

// ---- model and training ----

static ember_status put_model(const struct em_training *t, struct em_buf *b)
{
    const struct em_model *m = t->model;
    EM_TRY(em_buf_printf(b,
                         "## Model\n\n| | |\n| --- | --- |\n"
                         "| parameters | %zu, %zu of them active for a token |\n"
                         "| layers, width, vocabulary | %zu, %zu, %zu |\n",
                         t->forecast.parameters, t->forecast.active, m->depth, m->width,
                         m->vocabulary));
    if (m->context) EM_TRY(em_buf_printf(b, "| context | %zu tokens |\n", m->context));
    for (size_t i = 0, next; i < t->stepper.n_routers; i = next) { // alike ones in one row
        const struct ember_routing *r = &t->stepper.routers[i].routing;
        for (next = i + 1; next < t->stepper.n_routers; next++) {
            const struct ember_routing *other = &t->stepper.routers[next].routing;
            if (other->k != r->k || other->n_experts != r->n_experts) break;
        }
        EM_TRY(em_buf_printf(b, "| experts | %zu of %zu for a token, in %zu layer%s |\n", r->k,
                             r->n_experts, next - i, next - i > 1 ? "s" : ""));
    }
    return em_buf_puts(b, "| weights | f32 |\n\n`config.json` has the rest.\n\n");
}

static void date(char text[32])
{
    const time_t now = (time_t)em_clock_wall();
    struct tm utc;
    *text = '\0';
    if (gmtime_r(&now, &utc)) strftime(text, 32, "%Y-%m-%d", &utc);
}

static ember_status put_training(const struct em_training *t, struct em_buf *b)
{
    const struct em_progress *p = &t->progress;
    const struct em_train_settings *o = &t->recipe.train;
    char day[32];
    date(day);
    EM_TRY(em_buf_puts(b, "## Training\n\n| | |\n| --- | --- |\n| start | "));
    if (t->recipe.model_folder)
        EM_TRY(put_cell(b, em_path_base(t->recipe.model_folder)));
    else
        EM_TRY(em_buf_puts(b, "random weights"));
    EM_TRY(em_buf_printf(
        b,
        " |\n"
        "| steps | %llu of %zu x %zu tokens, %llu in all |\n"
        "| optimizer | %s, learning rate %g, schedule %s, gradients clipped to %g |\n"
        "| number format | %s |\n"
        "| seed | %llu |\n"
        "| time | %.0f s of steps, %u threads of %s (%s) |\n"
        "| memory | %.0f MiB at its peak |\n"
        "| finished | %s, Ember " EMBER_VERSION " |\n"
        "| last training loss | %.4f nats per token |\n",
        (unsigned long long)p->step, t->batches.batch, t->batches.seq,
        (unsigned long long)p->tokens, t->recipe.optimizer->name, o->lr, t->recipe.schedule->name,
        o->clip, t->bf16 ? "bf16 products with f32 sums, all else f32" : "f32",
        (unsigned long long)t->recipe.seed, p->seconds, em_pool_threads(t->job->pool),
        *em_cpu()->model ? em_cpu()->model : "an unnamed processor", em_kernels()->isa,
        (double)em_process_peak() / (1024 * 1024), day, p->last_loss));
    if (isfinite(p->best))
        EM_TRY(em_buf_printf(
            b, "| best on held-out text | %.3f bits per byte after step %llu, in best/ |\n",
            p->best, (unsigned long long)p->best_step));
    return em_buf_puts(b, "\n");
}

// A path of the recipe becomes its last part.
static ember_status strip(json_t *object, const char *key)
{
    const char *path = json_string_value(json_object_get(object, key));
    if (!path || !strchr(path, '/')) return EMBER_OK;
    return json_object_set_new(object, key, json_string(em_path_base(path))) == 0
               ? EMBER_OK
               : em_fail(EMBER_E_NOMEM, "out of memory");
}

static ember_status strip_folders(json_t *recipe)
{
    json_t *data = json_object_get(recipe, "data"), *sources = json_object_get(data, "sources");
    EM_TRY(strip(recipe, "model"));
    EM_TRY(strip(data, "ids"));
    EM_TRY(strip(data, "tokenizer"));
    EM_TRY(strip(data, "cache"));
    for (size_t i = 0; i < json_array_size(sources); i++)
        EM_TRY(strip(json_array_get(sources, i), "path"));
    return EMBER_OK;
}

ember_status em_print_recipe(const struct em_training *t, struct em_buf *out)
{
    json_t *recipe = json_deep_copy(t->recipe.json);
    ember_status status = recipe ? strip_folders(recipe) : em_fail(EMBER_E_NOMEM, "out of memory");
    if (status == EMBER_OK) status = em_json_print(recipe, 2, out);
    json_decref(recipe);
    return status;
}

static ember_status put_recipe(const struct em_training *t, struct em_buf *b)
{
    struct em_buf text = {0};
    ember_status status = em_print_recipe(t, &text);
    if (status == EMBER_OK)
        status = em_buf_printf(
            b,
            "With this as `again.json`, and the data beside it, `ember train again.json --set "
            "train.steps=%llu` trains it again; on the same instruction set, to the bit. (Of a run "
            "that went on with other settings, these are the last ones.)\n\n"
            "```json\n%s\n```\n",
            (unsigned long long)t->progress.steps, text.data);
    em_buf_deinit(&text);
    return status;
}

static ember_status fill(const struct em_training *t, const struct em_score *scores,
                         struct em_buf *b)
{
    EM_TRY(put_front_matter(t, b));
    EM_TRY(put_summary(t, b));
    EM_TRY(put_use(t, b));
    EM_TRY(put_scores(t, scores, b));
    EM_TRY(put_data(t, b));
    EM_TRY(put_model(t, b));
    EM_TRY(put_training(t, b));
    return put_recipe(t, b);
}

ember_status em_write_card(const struct em_training *t, const struct em_score *scores)
{
    struct em_buf b = {0};
    char *path = em_path_join(t->run.dir, "README.md");
    ember_status status = path ? fill(t, scores, &b) : EMBER_E_NOMEM;
    if (status == EMBER_OK) status = em_write_file(path, b.data, b.size);
    em_buf_deinit(&b);
    em_free(path);
    return status;
}
