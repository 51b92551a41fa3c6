#include "train/trainer.h"

#include <math.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "formats/state.h"
#include "train/run.h"

void em_train_result_deinit(struct em_train_result *r)
{
    em_buf_deinit(&r->text);
    json_decref(r->json);
    *r = (struct em_train_result){0};
}

// What the progress line shows, smoothed over about 20 steps.
struct display {
    double loss, bpb, step_seconds, weight;
};

static void blend(double *mean, double value, double weight)
{
    *mean += (value - *mean) * weight;
}

static void update_display(struct display *d, double loss, double bpb, double seconds)
{
    d->weight = fmax(0.05, 1 / (1 / (d->weight > 0 ? d->weight : (double)INFINITY) + 1));
    blend(&d->loss, loss, d->weight);
    blend(&d->bpb, bpb, d->weight);
    blend(&d->step_seconds, seconds, d->weight);
}

static void tell_scored(const struct em_training *t, char *text, size_t size)
{
    const double n = (double)t->scored.places;
    if (t->batches.held_out.labels)
        snprintf(text, size, " (held out %.4f, %.2f %% right)", t->scored.loss / n,
                 100 * (double)t->scored.right / n);
    else
        snprintf(text, size, " (held out %.3g)", t->scored.loss / n);
}

static void show(const struct em_training *t, const struct display *d, bool done)
{
    const struct em_progress *p = &t->progress;
    char bpb[32] = "", mfu[32] = "", held_out[64] = "";
    const double tokens = (double)t->batches.batch * (double)t->batches.seq / d->step_seconds;
    const double share = 6 * (double)t->forecast.active * tokens / t->peak_flops;
    const uint64_t left = (uint64_t)(em_forecast_left(t, d->step_seconds) + 0.5);
    if (isfinite(d->bpb)) snprintf(bpb, sizeof bpb, "  %.3f bits/byte", d->bpb);
    if (isfinite(share)) snprintf(mfu, sizeof mfu, "  MFU %.0f %%", 100 * share);
    if (isfinite(t->held_out)) snprintf(held_out, sizeof held_out, " (held out %.3f)", t->held_out);
    if (t->scored.places) tell_scored(t, held_out, sizeof held_out);
    em_progress(done, "step %llu/%llu  loss %.4f%s%s  %.0f tokens/s%s  %llu:%02llu left",
                (unsigned long long)p->step, (unsigned long long)p->steps, d->loss, bpb, held_out,
                tokens, mfu, (unsigned long long)(left / 60), (unsigned long long)(left % 60));
}

static uint64_t warmup_steps(const struct em_training *t)
{
    const double w = t->recipe.train.warmup, steps = (double)t->progress.steps;
    return (uint64_t)fmin(w < 1 ? floor(w * steps + 0.5) : floor(w), steps);
}

// Of the step that comes, under a schedule with such a peak.
static double rate(const struct em_training *t, double peak)
{
    return em_learning_rate(t->recipe.schedule, t->recipe.schedule_options, peak, t->progress.step,
                            t->progress.steps, warmup_steps(t));
}

static ember_status one_step(struct em_training *t, struct display *d)
{
    struct em_progress *p = &t->progress;
    const struct em_train_settings *o = &t->recipe.train;
    struct em_step_figures figures;
    const double start = em_clock_seconds(), lr = rate(t, o->lr);
    EM_TRY(em_step(&t->stepper,
                   &(struct em_step_request){.batches = &t->batches,
                                             .step = p->step,
                                             .lr = lr,
                                             .share = rate(t, 1),
                                             .clip = o->clip},
                   &figures));
    const double seconds = em_clock_seconds() - start;
    p->step++;
    p->tokens += figures.tokens;
    p->seconds += seconds;
    p->last_loss = figures.loss;
    const double rate = (double)figures.tokens / seconds;
    const double nats = figures.loss * (double)t->batches.scored;
    const double bpb = figures.bytes > 0 ? nats / log(2.0) / figures.bytes : (double)NAN;
    update_display(d, figures.loss, bpb, seconds);
    const uint64_t layers_every = p->steps / 200 + 1;
    const bool layers = p->step % layers_every == 0 || p->step == 1 || p->step == p->steps;
    EM_TRY(em_router_watch_step(&t->watch, &t->stepper, p->step, (double)p->step / (double)p->steps,
                                layers));
    if (p->step % o->log_every && p->step != p->steps) return EMBER_OK;
    json_t *warnings = em_router_watch_take(&t->watch);
    const ember_status status = em_run_log_step(
        &t->log, &(struct em_log_line){.step = p->step,
                                       .tokens = p->tokens,
                                       .loss = figures.loss,
                                       .bpb = bpb,
                                       .lr = lr,
                                       .grad_norm = figures.grad_norm,
                                       .seconds = p->seconds,
                                       .tokens_per_s = rate,
                                       .mfu = 6 * (double)t->forecast.active * rate / t->peak_flops,
                                       .stepper = &t->stepper,
                                       .layers = layers,
                                       .warnings = warnings});
    json_decref(warnings);
    return status;
}

// The score of an evaluation, less being better: the best weights are kept.
static ember_status keep_best(struct em_training *t, double score)
{
    struct em_progress *p = &t->progress;
    p->evaluated = p->step;
    if (score >= p->best) return EMBER_OK; // not of NAN: there is none yet
    p->best = score;
    p->best_step = p->step;
    return em_run_save_best(t);
}

static ember_status evaluate_tensors(struct em_training *t)
{
    struct em_progress *p = &t->progress;
    const struct em_tensor_source *source = &t->batches.held_out;
    const double enough = t->recipe.train.stop_right;
    EM_TRY(em_evaluate_tensors(&t->stepper, source, &t->scored));
    if (source->labels && enough > 0 &&
        (double)t->scored.right >= enough * (double)t->scored.places)
        p->steps = p->step;
    EM_TRY(em_run_log_scored(&t->log, p->step, p->tokens, &t->scored, source->labels != NULL));
    return keep_best(t, t->scored.loss / (double)t->scored.places);
}

static ember_status evaluate_text(struct em_training *t)
{
    struct em_progress *p = &t->progress;
    const struct em_dataset *data = &t->batches.dataset;
    const struct em_evaluation e = {.dataset = data,
                                    .context = t->context,
                                    .limit = t->recipe.train.eval_tokens,
                                    .trace = &t->trace};
    EM_TRY(em_routing_trace_begin(&t->trace, &t->stepper, data->count, p->step));
    struct em_score *scores = em_calloc(data->count, sizeof *scores);
    if (!scores) return EMBER_E_NOMEM;
    ember_status status = em_evaluate(&t->stepper, &e, scores);
    if (status == EMBER_OK) status = em_run_log_eval(&t->log, p->step, p->tokens, data, scores);
    const double bpb = em_mean_bpb(scores, data->count);
    em_free(scores);
    EM_TRY(status);
    t->held_out = bpb;
    return keep_best(t, bpb);
}

static bool evaluation_is_due(const struct em_training *t)
{
    const uint64_t every = em_evaluation_every(t), step = t->progress.step;
    return every && step && t->progress.evaluated != step &&
           (step % every == 0 || step == t->progress.steps);
}

static ember_status stop_here(struct em_training *t)
{
    EM_TRY(em_run_save(t));
    em_note("stopped after step %llu of %llu; --resume goes on from there",
            (unsigned long long)t->progress.step, (unsigned long long)t->progress.steps);
    return em_fail(EMBER_E_INTERRUPTED, "stopped after step %llu",
                   (unsigned long long)t->progress.step);
}

// A step that failed has mostly changed nothing, so what was before it is good, and is kept. Where
// the update itself went wrong, or a weight in memory, what was saved last stays.
static ember_status keep_good_state(struct em_training *t)
{
    char why[800], kept[160] = "nothing was saved before it", *path = NULL;
    uint64_t step = 0;
    snprintf(why, sizeof why, "%s", ember_last_error());
    const ember_status saved = em_run_save(t);
    if (saved != EMBER_OK && saved != EMBER_E_NUMERIC)
        return em_fail(EMBER_E_NUMERIC, "%s; the state before it could not be saved: %.200s", why,
                       ember_last_error());
    if (saved == EMBER_OK)
        step = t->progress.step;
    else if (em_state_find(t->run.dir, &path, &step) != EMBER_OK)
        snprintf(kept, sizeof kept, "%.150s", ember_last_error());
    if (saved == EMBER_OK || path)
        snprintf(kept, sizeof kept,
                 "the state after step %llu is kept: --resume with a smaller train.lr may go on "
                 "from it",
                 (unsigned long long)step);
    em_free(path);
    return em_fail(EMBER_E_NUMERIC, "%s; %s", why, kept);
}

static ember_status loop(struct em_training *t)
{
    struct em_progress *p = &t->progress;
    const struct em_train_settings *o = &t->recipe.train;
    struct display d = {0};
    double saved = em_clock_seconds();
    bool dirty = false; // steps that no state has
    for (;;) {
        if (evaluation_is_due(t)) {
            const ember_status status =
                t->batches.held_out.file ? evaluate_tensors(t) : evaluate_text(t);
            if (status == EMBER_E_INTERRUPTED) return stop_here(t);
            if (status == EMBER_E_NUMERIC) return keep_good_state(t);
            EM_TRY(status);
            dirty = true;
        }
        const bool due = o->save_every ? p->step % o->save_every == 0
                                       : em_clock_seconds() - saved >= o->save_minutes * 60;
        if (dirty && (due || p->step >= p->steps)) {
            EM_TRY(em_run_save(t));
            saved = em_clock_seconds();
            dirty = false;
        }
        if (p->step >= p->steps) break;
        if (em_interrupted()) return stop_here(t);
        const ember_status status = one_step(t, &d);
        if (status == EMBER_E_NUMERIC) return keep_good_state(t);
        EM_TRY(status);
        dirty = true;
        show(t, &d, p->step == p->steps);
    }
    return EMBER_OK;
}

// The scores of the model before its first step.
static ember_status score_untrained(struct em_training *t)
{
    if (!t->untrained || t->run.state) return EMBER_OK; // a state has them
    const struct em_evaluation e = {.dataset = &t->batches.dataset,
                                    .context = t->context,
                                    .limit = t->recipe.train.final_eval_tokens};
    em_progress(false, "scoring the untrained model on held-out text");
    EM_TRY(em_evaluate(&t->stepper, &e, t->untrained));
    return em_run_log_eval(&t->log, 0, 0, e.dataset, t->untrained);
}

static ember_status tell_forecast(const struct em_training *t, struct em_train_result *result)
{
    struct em_buf text = {0};
    ember_status status = em_forecast_print(t, &text);
    if (status == EMBER_OK && t->job->dry_run) {
        result->text = text;
        result->json = em_forecast_json(t);
        return result->json ? EMBER_OK : em_fail(EMBER_E_NOMEM, "out of memory");
    }
    for (char *line = text.data; status == EMBER_OK && line && *line;) {
        char *end = line;
        while (*end && *end != '\n')
            end++;
        const char last = *end;
        *end = '\0';
        em_note("%s", line);
        line = last ? end + 1 : end;
    }
    em_buf_deinit(&text);
    return status;
}

static ember_status run(struct em_training *t, struct em_train_result *result)
{
    EM_TRY(em_run_open(t));
    EM_TRY(em_training_setup(t));
    EM_TRY(em_forecast_memory(t));
    EM_TRY(em_stepper_allocate(&t->stepper));
    EM_TRY(em_forecast_time(t));
    EM_TRY(em_forecast_disk(t));
    EM_TRY(tell_forecast(t, result));
    t->started = em_clock_seconds();
    if (t->job->dry_run) return EMBER_OK;
    if (t->run.state && t->progress.step == t->progress.steps)
        em_note("%s: all %llu steps are done, only scores and report are made again; --set "
                "train.steps=N with more of them trains on",
                t->run.dir, (unsigned long long)t->progress.steps);
    if (t->run.state) EM_TRY(em_run_load(t));
    EM_TRY(em_run_begin_folder(t));
    EM_TRY(em_run_write_data(t));
    t->began = true;
    EM_TRY(em_run_log_open(t->run.dir, t->run.train_bytes, t->run.eval_bytes, t->progress.step,
                           &t->log));
    EM_TRY(em_router_watch_open(&t->stepper, &t->watch));
    EM_TRY(score_untrained(t));
    EM_TRY(loop(t));
    return em_run_finish(t, result);
}

ember_status em_train(const struct em_train_job *job, struct em_train_result *result)
{
    struct em_training t = {.job = job,
                            .progress = {.best = (double)NAN},
                            .held_out = (double)NAN,
                            .run = {.lock = -1}};
    *result = (struct em_train_result){0};
    ember_status status = run(&t, result);
    if (status != EMBER_OK && status != EMBER_E_INTERRUPTED && !t.began) {
        char why[1024];
        snprintf(why, sizeof why, "%s", ember_last_error());
        em_run_undo(&t.run);
        status = em_fail(status, "%s", why);
    }
    em_training_deinit(&t);
    if (status != EMBER_OK) em_train_result_deinit(result);
    return status;
}
