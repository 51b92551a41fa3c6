// The end of a run: scores of the last weights, and what is written about them.
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/process.h"
#include "train/run.h"
#include "train/run_report.h"

static json_t *domains_json(const struct em_training *t, const struct em_score *scores)
{
    json_t *list = json_array();
    for (size_t d = 0; list && t->untrained && d < t->batches.dataset.count; d++) {
        const struct em_score *s = &scores[d];
        list = em_json_add(
            list, json_pack("{s:s, s:I, s:I, s:o, s:o, s:o}", "domain",
                            t->batches.dataset.domains[d].name, "bytes",
                            (json_int_t)(s->bytes + 0.5), "tokens", (json_int_t)s->tokens, "nats",
                            em_json_finite(s->tokens ? s->nats / (double)s->tokens : (double)NAN),
                            "bpb", em_json_finite(em_score_bpb(s)), "untrained_bpb",
                            em_json_finite(em_score_bpb(&t->untrained[d]))));
    }
    return list;
}

ember_status em_write_eval(const struct em_training *t, const struct em_score *scores)
{
    char *path = em_path_join(t->run.dir, "logs/eval.json");
    json_t *list = domains_json(t, scores);
    const ember_status status =
        path && list ? em_json_write(path, list, 2) : em_fail(EMBER_E_NOMEM, "out of memory");
    json_decref(list);
    em_free(path);
    return status;
}

// The scores of the last weights, on the text that the untrained model was scored on.
static ember_status score(struct em_training *t, struct em_score *scores,
                          struct em_expert_views *views)
{
    const struct em_evaluation e = {.dataset = &t->batches.dataset,
                                    .context = t->context,
                                    .limit = t->recipe.train.final_eval_tokens,
                                    .experts = views};
    em_progress(false, "scoring the trained model on held-out text");
    EM_TRY(em_evaluate(&t->stepper, &e, scores));
    EM_TRY(em_write_held_out(t->run.dir, &e, t->stepper.packed.capacity));
    return em_write_eval(t, scores);
}

static json_t *result_json(const struct em_training *t, const struct em_score *scores)
{
    const struct em_progress *p = &t->progress;
    const struct em_forecast *f = &t->forecast;
    json_t *json = json_pack(
        "{s:s, s:I, s:I, s:f, s:f, s:o, s:I, s:o, s:{s:I, s:f}, s:{s:I, s:f}}", "folder",
        t->run.dir, "steps", (json_int_t)p->step, "tokens", (json_int_t)p->tokens, "seconds",
        p->seconds, "loss", p->last_loss, "best_bpb", em_json_finite(p->best), "best_step",
        (json_int_t)p->best_step, "domains", domains_json(t, scores), "foretold", "memory_bytes",
        (json_int_t)f->memory, "seconds", f->total_seconds, "measured", "memory_bytes",
        (json_int_t)em_process_peak(), "seconds", em_clock_seconds() - t->started);
    const struct em_scored *scored = &t->scored;
    if (json && scored->places &&
        json_object_set_new(
            json, "held_out",
            json_pack("{s:f, s:I, s:I}", "loss", scored->loss / (double)scored->places, "places",
                      (json_int_t)scored->places, "right", (json_int_t)scored->right)) != 0) {
        json_decref(json);
        return NULL;
    }
    return json;
}

// What the last evaluation found, in words.
static ember_status tell_scored(const struct em_training *t, struct em_train_result *result)
{
    const struct em_scored *s = &t->scored;
    EM_TRY(em_buf_printf(&result->text, "held out: loss %.4g", s->loss / (double)s->places));
    if (t->batches.held_out.labels)
        EM_TRY(em_buf_printf(&result->text, ", %llu of %llu right (%.2f %%)",
                             (unsigned long long)s->right, (unsigned long long)s->places,
                             100 * (double)s->right / (double)s->places));
    return em_buf_printf(&result->text, "; least loss %.4g after step %llu (best/)\n",
                         t->progress.best, (unsigned long long)t->progress.best_step);
}

static ember_status write_all(struct em_training *t, const struct em_score *scores,
                              const struct em_expert_views *views, struct em_train_result *result)
{
    struct em_run_report r;
    EM_TRY(em_run_report_open(t, scores, views, &r));
    ember_status status = em_run_report_write(&r, t->run.dir);
    if (status == EMBER_OK) status = em_run_report_sketch(&r, STDOUT_FILENO, &result->text);
    em_run_report_close(&r);
    if (status == EMBER_OK) status = em_write_card(t, scores);
    if (status == EMBER_OK && t->scored.places) status = tell_scored(t, result);
    if (status == EMBER_OK)
        status = em_buf_printf(&result->text, "model   %s\nreport  %s/report.html\n", t->run.dir,
                               t->run.dir);
    if (status == EMBER_OK && !(result->json = result_json(t, scores)))
        status = em_fail(EMBER_E_NOMEM, "out of memory");
    if (status == EMBER_OK) em_forecast_outcome(t);
    return status;
}

ember_status em_run_finish(struct em_training *t, struct em_train_result *result)
{
    const size_t domains = t->untrained ? t->batches.dataset.count : 0;
    struct em_score *scores = em_calloc(domains + 1, sizeof *scores);
    struct em_expert_views views = {0};
    ember_status status = scores ? EMBER_OK : EMBER_E_NOMEM;
    if (status == EMBER_OK && domains) {
        status = em_stepper_views(&t->stepper, &t->batches.dataset, t->context, &views);
        if (status == EMBER_OK) status = score(t, scores, &views);
    } else if (status == EMBER_OK) {
        // Where nothing is held out, the best weights that are known are the last.
        status = t->batches.held_out.file
                     ? em_evaluate_tensors(&t->stepper, &t->batches.held_out, &t->scored)
                     : em_run_save_best(t);
        if (status == EMBER_OK) status = em_write_eval(t, scores);
    }
    // The report, its samples and its yardsticks have their room.
    em_trainable_close(&t->trainable);
    em_stepper_release(&t->stepper);
    if (status == EMBER_OK) status = write_all(t, scores, domains ? &views : NULL, result);
    em_expert_views_close(&views);
    em_free(scores);
    return status;
}
