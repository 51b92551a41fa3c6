// Time that a run will take, by measuring its first steps; a length in minutes becomes steps here.
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/interrupt.h"
#include "kernels/roof.h"
#include "train/run.h"

// ---- measuring ----

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, ascending);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static ember_status dry_step(struct em_training *t, uint64_t i, double *seconds)
{
    // The first batches over and over: what is wrong with a later one belongs to its step.
    const uint64_t at = t->progress.step + i % 3;
    struct em_step_figures figures;
    if (em_interrupted()) return em_fail(EMBER_E_INTERRUPTED, "stopped before the first step");
    const double start = em_clock_seconds();
    EM_TRY(
        em_step(&t->stepper,
                &(struct em_step_request){.batches = &t->batches,
                                          .step = t->batches.slices ? at % t->batches.slices : at,
                                          .lr = 0,
                                          .clip = 1,
                                          .dry = true},
                &figures));
    *seconds = em_clock_seconds() - start;
    return EMBER_OK;
}

// The median of steps that change nothing, after warming up. Neighbours on the machine come and go
// within seconds, so short steps are measured for two; of long ones, two or three have to do. A run
// shorter than that is not measured longer than it takes.
static ember_status measure_step(struct em_training *t, double *step)
{
    enum { MOST = 64 };
    const struct em_train_settings *o = &t->recipe.train;
    double seconds[MOST], warm = 0, total = 0;
    size_t n = 0;
    const double enough = o->minutes > 0 ? fmin(2, o->minutes * 60 / 20) : 2;
    const uint64_t most = o->steps ? o->steps - t->progress.step : MOST;
    for (uint64_t i = 0; i < 3 && (i == 0 || warm < enough / 10); i++) {
        EM_TRY(dry_step(t, i, step));
        warm += *step;
    }
    while (n == 0 || (n < MOST && n < most && (total < enough || (n < 3 && total < 3 * enough)))) {
        EM_TRY(dry_step(t, n, &seconds[n]));
        total += seconds[n++];
    }
    *step = median(seconds, n);
    return EMBER_OK;
}

// Seconds for a held-out token.
static ember_status measure_evaluation(struct em_training *t, double *token)
{
    enum { TIMES = 3 };
    double seconds[TIMES], total = 0;
    struct em_scored scored;
    size_t n = 0;
    while (n < TIMES && total < 1) {
        const double start = em_clock_seconds();
        EM_TRY(em_stepper_evaluate(&t->stepper, &scored));
        seconds[n] = em_clock_seconds() - start;
        total += seconds[n++];
    }
    *token = median(seconds, n) / (double)t->stepper.packed.batch.n_tokens;
    return EMBER_OK;
}

// ---- what a run consists of ----

// Held-out tokens of one evaluation of at most `limit` tokens a domain.
static double evaluation_tokens(const struct em_training *t, uint64_t limit)
{
    const struct em_tensor_source *held = &t->batches.held_out;
    double tokens = held->file ? (double)held->slices * (double)(held->batch * held->seq) : 0;
    for (size_t d = 0; t->untrained && d < t->batches.dataset.count; d++) {
        const uint64_t have = t->batches.dataset.domains[d].held_out_tokens;
        tokens += (double)(have < limit ? have : limit);
    }
    return tokens;
}

uint64_t em_evaluation_every(const struct em_training *t)
{
    if (!t->untrained && !t->batches.held_out.file) return 0;
    if (t->recipe.train.eval_every) return t->recipe.train.eval_every;
    return (t->progress.steps + 9) / 10;
}

// Seconds of everything that happens in a run.
struct costs {
    double step, evaluation; // one of each; an evaluation keeps the weights where they are the best
    double state;            // one
    double begin, end;       // scores before, and scores, report and last state after
};

// Text of the domains that the report looks at: what a general compressor makes of it, and a sample
// of the model's.
static double report_seconds(const struct em_training *t, double tokens)
{
    enum { SAMPLE = 140 };
    const double compress = 1.5e6, read = 8e9; // bytes/s of xz -9e, and of weights from memory
    if (!t->untrained) return 0;
    double bytes = 0, held_out = 0;
    for (size_t d = 0; d < t->batches.dataset.count; d++) {
        const struct em_domain *domain = &t->batches.dataset.domains[d];
        bytes += (double)domain->held_out_bytes;
        held_out += (double)domain->held_out_tokens;
    }
    const double domains = (double)t->batches.dataset.count, weights = (double)t->forecast.weights;
    return bytes * (held_out > 0 ? fmin(1, tokens / held_out) : 0) / compress +
           domains * (SAMPLE * (4 * (double)t->forecast.active / read + 2e-4) + 2 * weights / read);
}

static struct costs find_costs(const struct em_training *t)
{
    const struct em_train_settings *o = &t->recipe.train;
    const struct em_forecast *f = &t->forecast;
    const double weights = (double)f->weights, moments = (double)f->optimizer,
                 full = evaluation_tokens(t, o->final_eval_tokens);
    struct costs c = {.step = f->step_seconds};
    const double best = 4 * f->file_seconds + weights * f->byte_seconds;
    c.evaluation = f->evaluation_seconds * evaluation_tokens(t, o->eval_tokens) + best;
    c.state = 20 * f->file_seconds + (2 * weights + moments) * f->byte_seconds;
    c.begin = 12 * f->file_seconds + (t->progress.step ? 0 : f->evaluation_seconds * full);
    c.end = f->evaluation_seconds * full + c.state + report_seconds(t, full) +
            (t->untrained || t->batches.held_out.file ? 0 : best) + 8 * f->file_seconds;
    return c;
}

// States on the way for so many seconds of training.
static double state_count(const struct em_training *t, double steps, double seconds)
{
    const struct em_train_settings *o = &t->recipe.train;
    return floor(o->save_every ? steps / (double)o->save_every : seconds / (o->save_minutes * 60));
}

// ---- steps ----

// What the minutes allow, with everything that belongs to a run. Training gets half of them at
// least, however much there is to evaluate.
static double steps_in(const struct em_training *t, const struct costs *c, double seconds)
{
    const struct em_train_settings *o = &t->recipe.train;
    double rest = seconds - c->begin - c->end, step = c->step;
    if (t->untrained && o->eval_every)
        step += c->evaluation / (double)o->eval_every;
    else if (t->untrained)
        rest -= 10 * c->evaluation;
    step += o->save_every ? c->state / (double)o->save_every
                          : c->step * c->state / (o->save_minutes * 60);
    return fmax(floor(rest / step), floor(seconds / 2 / c->step));
}

static ember_status choose_steps(struct em_training *t, const struct costs *c)
{
    const struct em_train_settings *o = &t->recipe.train;
    const double done = (double)t->progress.step;
    double steps;
    if (o->minutes > 0) {
        const double left = o->minutes * 60 - t->progress.seconds;
        if (left <= 0)
            return em_fail(EMBER_E_CONFIG,
                           "%s: train.minutes is %g, but the steps that are done took %.2f already",
                           t->recipe.name, o->minutes, t->progress.seconds / 60);
        steps = done + fmax(1, steps_in(t, c, left));
    } else if (t->batches.slices) {
        steps = (double)t->batches.slices;
    } else {
        steps =
            ceil((double)em_dataset_train_tokens(&t->batches.dataset) / (double)t->batches.scored);
    }
    if (t->batches.ids.file && steps > (double)t->batches.slices) steps = (double)t->batches.slices;
    t->progress.steps = steps < 1 ? 1 : steps < 1e15 ? (uint64_t)steps : (uint64_t)1e15;
    return EMBER_OK;
}

static ember_status check_steps(const struct em_training *t)
{
    const struct em_progress *p = &t->progress;
    if (p->step <= p->steps) return EMBER_OK;
    return em_fail(EMBER_E_CONFIG, "%s: train.steps is %llu, but the run has done %llu",
                   t->recipe.name, (unsigned long long)p->steps, (unsigned long long)p->step);
}

// The steps that are known before anything is measured: given, or fixed when the run began.
static ember_status known_steps(struct em_training *t)
{
    if (t->recipe.train.steps) t->progress.steps = t->recipe.train.steps;
    if (t->recipe.new_length && !t->recipe.train.steps) t->progress.steps = 0;
    return t->progress.steps ? check_steps(t) : EMBER_OK;
}

ember_status em_forecast_time(struct em_training *t)
{
    struct em_forecast *f = &t->forecast;
    const struct em_progress *p = &t->progress;
    EM_TRY(known_steps(t));
    if (!p->steps || p->step < p->steps) EM_TRY(measure_step(t, &f->step_seconds));
    if (f->step_seconds > 0) EM_TRY(measure_evaluation(t, &f->evaluation_seconds));
    t->peak_flops = em_roof_flops(t->bf16 ? EM_GEMM_BF16 : EM_GEMM_F32, t->job->pool);
    em_probe_disk(t);
    const struct costs c = find_costs(t);
    if (!p->steps) EM_TRY(choose_steps(t, &c));
    EM_TRY(check_steps(t));
    const uint64_t every = em_evaluation_every(t), left = p->steps - p->step;
    const double steps = (double)left * c.step;
    f->total_seconds = c.begin + steps + c.end;
    if (every) f->total_seconds += ceil((double)left / (double)every) * c.evaluation;
    f->total_seconds += state_count(t, (double)left, steps) * c.state;
    f->end_seconds = c.end;
    f->first_step = p->step;
    return EMBER_OK;
}

double em_forecast_left(const struct em_training *t, double step_seconds)
{
    const struct em_forecast *f = &t->forecast;
    const struct em_progress *p = &t->progress;
    const double all = (double)(p->steps - f->first_step), left = (double)(p->steps - p->step),
                 between = f->total_seconds - f->end_seconds - all * f->step_seconds;
    return left * step_seconds + (all > 0 ? fmax(0, between) * left / all : 0) + f->end_seconds;
}
