// README.md of a trained folder: the model's card.
#include <ember/version.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "train/run.h"

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

static ember_status put_front_matter(const struct em_training *t, struct em_buf *b)
{
    return em_buf_printf(b,
                         "---\nlibrary_name: ember\npipeline_tag: text-generation\ntags:\n- ember\n"
                         "- %s\n---\n\n",
                         t->model->family->name);
}

static ember_status put_data(const struct em_training *t, const struct em_score *scores,
                             struct em_buf *b)
{
    if (!t->batches.text) {
        EM_TRY(em_buf_printf(b, "## Data\n\nToken ids from a file, %llu batches of %zu x %zu: ",
                             (unsigned long long)t->batches.slices, t->batches.batch,
                             t->batches.seq));
        EM_TRY(put_cell(b, t->recipe.data.ids));
        return em_buf_puts(b, "\n\n");
    }
    EM_TRY(em_buf_puts(b,
                       "## Data\n\n"
                       "| domain | source | tokens | held-out bytes | bits per byte | untrained |\n"
                       "| --- | --- | ---: | ---: | ---: | ---: |\n"));
    for (size_t d = 0; d < t->batches.dataset.count; d++) {
        const struct em_domain *domain = &t->batches.dataset.domains[d];
        EM_TRY(em_buf_puts(b, "| "));
        EM_TRY(put_cell(b, domain->name));
        EM_TRY(em_buf_puts(b, " | "));
        EM_TRY(put_cell(b, t->recipe.sources[d].path));
        EM_TRY(em_buf_printf(b, " | %llu ", (unsigned long long)domain->train_tokens));
        const double bpb = t->untrained ? em_score_bpb(&scores[d]) : (double)NAN;
        if (isfinite(bpb))
            EM_TRY(em_buf_printf(b, "| %.0f | %.3f | %.3f |\n", scores[d].bytes, bpb,
                                 em_score_bpb(&t->untrained[d])));
        else
            EM_TRY(em_buf_puts(b, "| none | | |\n"));
    }
    return em_buf_puts(b, "\nHeld-out text was never trained on.\n\n");
}

static ember_status put_training(const struct em_training *t, struct em_buf *b)
{
    const struct em_progress *p = &t->progress;
    EM_TRY(
        em_buf_printf(b,
                      "## Training\n\n"
                      "| | |\n| --- | --- |\n"
                      "| parameters | %zu, %zu of them active for a token |\n"
                      "| start | %s |\n"
                      "| steps | %llu of %zu x %zu tokens, %llu in all |\n"
                      "| optimizer | %s, learning rate %g, schedule %s |\n"
                      "| number format | %s |\n"
                      "| seed | %llu |\n"
                      "| time | %.0f s on %u threads |\n"
                      "| last training loss | %.4f nats per token |\n",
                      t->forecast.parameters, t->forecast.active,
                      t->recipe.model_folder ? "the weights of another folder" : "random weights",
                      (unsigned long long)p->step, t->batches.batch, t->batches.seq,
                      (unsigned long long)p->tokens, t->recipe.optimizer->name, t->recipe.train.lr,
                      t->recipe.schedule->name, t->bf16 ? "bf16 with f32 accumulation" : "f32",
                      (unsigned long long)t->recipe.seed, p->seconds, em_pool_threads(t->job->pool),
                      p->last_loss));
    if (isfinite(p->best))
        EM_TRY(em_buf_printf(
            b, "| best on held-out text | %.3f bits per byte after step %llu, in best/ |\n",
            p->best, (unsigned long long)p->best_step));
    struct em_buf recipe = {0};
    ember_status status = em_json_print(t->recipe.json, 2, &recipe);
    if (status == EMBER_OK)
        status = em_buf_printf(b, "\nThe recipe:\n\n```json\n%s\n```\n", recipe.data);
    em_buf_deinit(&recipe);
    return status;
}

static ember_status fill(const struct em_training *t, const struct em_score *scores,
                         struct em_buf *b)
{
    EM_TRY(put_front_matter(t, b));
    EM_TRY(em_buf_puts(b, "# "));
    EM_TRY(put_cell(b, em_path_base(t->run.dir)));
    EM_TRY(em_buf_printf(b,
                         "\n\nA %s model, trained with Ember " EMBER_VERSION
                         ". `report.html` has its curves; transformers opens the folder where the "
                         "family is known there.\n\n",
                         t->model->family->name));
    EM_TRY(put_data(t, scores, b));
    return put_training(t, b);
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
