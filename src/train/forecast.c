// What a run will take: memory, disk and time, told before the first step.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "kernels/roof.h"
#include "train/run.h"

static const double mebibyte = 1024.0 * 1024.0;

// ---- memory ----

// The number after `key` in a file of lines "key  number kB"; 0 where there is none.
static uint64_t kilobytes(const char *path, const char *key)
{
    struct em_buf b = {0};
    uint64_t bytes = 0;
    if (em_read_file(path, 1 << 16, &b) == EMBER_OK && b.data) {
        const char *at = strstr(b.data, key);
        if (at) bytes = strtoull(at + strlen(key), NULL, 10) * 1024;
    }
    em_buf_deinit(&b);
    return bytes;
}

static uint64_t number_in(const char *path)
{
    struct em_buf b = {0};
    uint64_t v = 0; // "max" too
    if (em_path_exists(path) && em_read_file(path, 1 << 10, &b) == EMBER_OK && b.data)
        v = strtoull(b.data, NULL, 10);
    em_buf_deinit(&b);
    return v;
}

// Memory that this process may still take: the system's, and what a container leaves.
static uint64_t free_memory(void)
{
    uint64_t bytes = kilobytes("/proc/meminfo", "MemAvailable:");
    const uint64_t limit = number_in("/sys/fs/cgroup/memory.max"),
                   used = number_in("/sys/fs/cgroup/memory.current");
    if (limit && limit > used && limit - used < bytes) bytes = limit - used;
    return bytes;
}

static size_t text_bytes(const struct em_batches *b)
{
    size_t bytes = 0;
    for (size_t d = 0; b->text && d < b->dataset.count; d++)
        bytes += b->dataset.domains[d].cache.map.size;
    return bytes;
}

ember_status em_forecast_memory(struct em_training *t)
{
    struct em_forecast *f = &t->forecast;
    struct em_memory_plan plan;
    EM_TRY(em_program_plan(t->stepper.program, &plan));
    em_model_count(t->model, &f->parameters, &f->active);
    f->weights = t->model->memory_bytes;
    f->gradients = t->trainable.bytes;
    f->optimizer = t->trainable.bytes * t->trainable.optimizer->moments;
    f->packed = plan.packed;
    f->activations = plan.activations;
    f->scratch = plan.scratch;
    f->text = text_bytes(&t->batches);
    // What is resident beside those: the program itself, tables, batches.
    const size_t resident = (size_t)kilobytes("/proc/self/status", "VmRSS:");
    const size_t known = f->weights + f->text;
    f->other = resident > known ? resident - known : 0;
    f->memory = f->weights + f->gradients + f->optimizer + f->packed + f->activations + f->scratch +
                f->text + f->other;
    f->free_memory = free_memory();
    if (f->free_memory && f->memory > f->free_memory + resident)
        em_warn("the run needs %.0f MiB of memory and %.0f MiB are free: a smaller train.batch, "
                "train.accumulate or train.recompute takes less",
                (double)f->memory / mebibyte, (double)f->free_memory / mebibyte);
    return EMBER_OK;
}

// ---- disk ----

ember_status em_forecast_disk(struct em_training *t)
{
    struct em_forecast *f = &t->forecast;
    const size_t states = t->run.state ? 1 : 3; // two stay while the third is written
    const size_t copies = t->run.state ? 2 : 4; // the folder's weights and best/, each twice
    f->disk = (uint64_t)states * (f->weights + f->optimizer) + (uint64_t)copies * f->weights +
              (t->progress.steps - t->progress.step) / t->recipe.train.log_every * 900;
    char *path = em_strdup(t->run.dir);
    if (!path) return EMBER_E_NOMEM;
    // The nearest folder above that is there.
    while (!em_path_exists(path) && strcmp(path, "/") != 0 && strcmp(path, ".") != 0) {
        char *slash = strrchr(path, '/');
        if (slash && slash != path)
            *slash = '\0';
        else
            strcpy(path, slash ? "/" : ".");
    }
    const ember_status status = em_free_space(path, &f->free_disk);
    em_free(path);
    EM_TRY(status);
    if (f->disk > f->free_disk)
        return em_fail(EMBER_E_IO,
                       "%s: the run needs %.0f MiB for its training states and weights, the disk "
                       "has %.0f MiB free",
                       t->run.dir, (double)f->disk / mebibyte, (double)f->free_disk / mebibyte);
    return EMBER_OK;
}

// ---- time ----

uint64_t em_evaluation_every(const struct em_training *t)
{
    if (!t->untrained) return 0;
    if (t->recipe.train.eval_every) return t->recipe.train.eval_every;
    return (t->progress.steps + 9) / 10;
}

// Held-out tokens of one evaluation of at most `limit` tokens a domain.
static double evaluation_tokens(const struct em_training *t, uint64_t limit)
{
    double tokens = 0;
    for (size_t d = 0; t->untrained && d < t->batches.dataset.count; d++) {
        const uint64_t have = t->batches.dataset.domains[d].held_out_tokens;
        tokens += (double)(have < limit ? have : limit);
    }
    return tokens;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Steps that change nothing: one to warm up, then at most five or three seconds.
static ember_status measure(struct em_training *t, double *step, double *token)
{
    enum { MOST = 5 };
    double seconds[MOST], total = 0;
    size_t n = 0;
    struct em_step_figures figures;
    for (size_t i = 0; i <= MOST && (n == 0 || total < 3); i++) {
        if (em_interrupted()) return em_fail(EMBER_E_INTERRUPTED, "stopped before the first step");
        const uint64_t at = t->batches.slices ? i % t->batches.slices : i;
        const double start = em_clock_seconds();
        EM_TRY(em_step(&t->stepper,
                       &(struct em_step_request){
                           .batches = &t->batches, .step = at, .lr = 0, .clip = 1, .dry = true},
                       &figures));
        if (i == 0) continue;
        seconds[n] = em_clock_seconds() - start;
        total += seconds[n++];
    }
    qsort(seconds, n, sizeof *seconds, ascending);
    *step = seconds[n / 2];
    double nats;
    uint64_t scored;
    const double start = em_clock_seconds();
    EM_TRY(em_stepper_evaluate(&t->stepper, &nats, &scored));
    *token = (em_clock_seconds() - start) / (double)t->stepper.packed.batch.n_tokens;
    return EMBER_OK;
}

// Once through the text, or what the minutes allow: evaluations on the way included.
static uint64_t choose_steps(const struct em_training *t, double evaluation)
{
    const struct em_train_settings *o = &t->recipe.train;
    double steps;
    if (o->minutes > 0) {
        const double budget = o->minutes * 60, step = t->forecast.step_seconds;
        const double each = o->eval_every ? evaluation / (double)o->eval_every : 0;
        const double fixed = o->eval_every ? 0 : 10 * evaluation;
        steps = floor((budget > fixed ? budget - fixed : budget / 2) / (step + each));
    } else if (t->batches.slices) {
        steps = (double)t->batches.slices;
    } else {
        steps =
            ceil((double)em_dataset_train_tokens(&t->batches.dataset) / (double)t->batches.scored);
    }
    if (t->batches.slices && steps > (double)t->batches.slices) steps = (double)t->batches.slices;
    return steps < 1 ? 1 : steps < 1e15 ? (uint64_t)steps : (uint64_t)1e15;
}

ember_status em_forecast_time(struct em_training *t)
{
    struct em_forecast *f = &t->forecast;
    const struct em_train_settings *o = &t->recipe.train;
    double token = 0;
    EM_TRY(measure(t, &f->step_seconds, &token));
    t->peak_flops = em_roof_flops(t->bf16 ? EM_GEMM_BF16 : EM_GEMM_F32, t->job->pool);
    const double evaluation = token * evaluation_tokens(t, o->eval_tokens);
    f->evaluation_seconds = token;
    if (o->steps)
        t->progress.steps = o->steps;
    else if (!t->progress.steps)
        t->progress.steps = choose_steps(t, evaluation);
    if (t->progress.step > t->progress.steps)
        return em_fail(EMBER_E_CONFIG, "%s: train.steps is %llu, but the run has done %llu",
                       t->recipe.name, (unsigned long long)t->progress.steps,
                       (unsigned long long)t->progress.step);
    const uint64_t every = em_evaluation_every(t), left = t->progress.steps - t->progress.step;
    f->total_seconds = (double)left * f->step_seconds;
    if (every) f->total_seconds += (double)(left / every) * evaluation;
    f->total_seconds +=
        (t->progress.step ? 1 : 2) * token * evaluation_tokens(t, o->final_eval_tokens);
    return EMBER_OK;
}

// ---- telling ----

static void duration(double seconds, char *text, size_t size)
{
    const uint64_t s = (uint64_t)(seconds + 0.5);
    if (s < 100)
        snprintf(text, size, "%.*f s", seconds < 9.95 ? 1 : 0, seconds);
    else if (s < 6000)
        snprintf(text, size, "%llu min %llu s", (unsigned long long)(s / 60),
                 (unsigned long long)(s % 60));
    else
        snprintf(text, size, "%llu h %llu min", (unsigned long long)(s / 3600),
                 (unsigned long long)(s / 60 % 60));
}

static void amount(double v, char *text, size_t size)
{
    if (v < 1e4)
        snprintf(text, size, "%.0f", v);
    else if (v < 1e6)
        snprintf(text, size, "%.1f k", v / 1e3);
    else if (v < 1e9)
        snprintf(text, size, "%.2f M", v / 1e6);
    else
        snprintf(text, size, "%.2f G", v / 1e9);
}

static ember_status print_text(const struct em_training *t, struct em_buf *out)
{
    char train[32], held[32];
    if (!t->batches.text)
        return em_buf_printf(out, "data      %s: %llu batches of %zu x %zu tokens\n",
                             t->recipe.data.ids, (unsigned long long)t->batches.slices,
                             t->batches.batch, t->batches.seq);
    amount((double)em_dataset_train_tokens(&t->batches.dataset), train, sizeof train);
    amount((double)em_dataset_held_out_tokens(&t->batches.dataset), held, sizeof held);
    EM_TRY(em_buf_printf(out, "data      %s tokens, and %s held out, of %zu tokens:", train, held,
                         em_tokenizer_size(t->tokenizer.tokenizer)));
    for (size_t d = 0; d < t->batches.dataset.count; d++)
        EM_TRY(em_buf_printf(out, "%s %s", d ? "," : "", t->batches.dataset.domains[d].name));
    return em_buf_putc(out, '\n');
}

ember_status em_forecast_print(const struct em_training *t, struct em_buf *out)
{
    const struct em_forecast *f = &t->forecast;
    const double tokens = (double)t->batches.batch * (double)t->batches.seq;
    char total[32], active[32], all[32], time[48];
    amount((double)f->parameters, total, sizeof total);
    amount((double)f->active, active, sizeof active);
    amount(tokens * (double)t->progress.steps, all, sizeof all);
    duration(f->total_seconds, time, sizeof time);
    EM_TRY(em_buf_printf(out, "model     %s: %s parameters, %s of them active for a token\n",
                         t->model->family->name, total, active));
    EM_TRY(print_text(t, out));
    EM_TRY(em_buf_printf(out,
                         "training  %llu steps of %zu x %zu tokens, %s in all, in %s, from %s\n",
                         (unsigned long long)t->progress.steps, t->batches.batch, t->batches.seq,
                         all, t->bf16 ? "bf16" : "f32",
                         t->progress.step         ? "the last state"
                         : t->recipe.model_folder ? t->recipe.model_folder
                                                  : "random weights"));
    EM_TRY(em_buf_printf(
        out,
        "memory    %.1f MiB: weights %.1f, gradients %.1f, optimizer %.1f, packed weights %.1f, "
        "activations %.1f, scratch %.1f, text %.1f, the rest %.1f\n",
        (double)f->memory / mebibyte, (double)f->weights / mebibyte,
        (double)f->gradients / mebibyte, (double)f->optimizer / mebibyte,
        (double)f->packed / mebibyte, (double)f->activations / mebibyte,
        (double)f->scratch / mebibyte, (double)f->text / mebibyte, (double)f->other / mebibyte));
    EM_TRY(em_buf_printf(out, "disk      %.0f MiB in %s; %.0f MiB are free\n",
                         (double)f->disk / mebibyte, t->run.dir, (double)f->free_disk / mebibyte));
    return em_buf_printf(out, "time      about %s: %.3g s a step, %.0f tokens/s\n", time,
                         f->step_seconds, tokens / f->step_seconds);
}

json_t *em_forecast_json(const struct em_training *t)
{
    const struct em_forecast *f = &t->forecast;
    const double tokens = (double)t->batches.batch * (double)t->batches.seq;
    return json_pack(
        "{s:I, s:I, s:I, s:f, s:s, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}, s:I, s:I, "
        "s:f, s:f, s:f}",
        "parameters", (json_int_t)f->parameters, "active_parameters", (json_int_t)f->active,
        "steps", (json_int_t)t->progress.steps, "tokens", tokens * (double)t->progress.steps,
        "dtype", t->bf16 ? "bf16" : "f32", "memory_bytes", "total", (json_int_t)f->memory,
        "weights", (json_int_t)f->weights, "gradients", (json_int_t)f->gradients, "optimizer",
        (json_int_t)f->optimizer, "packed", (json_int_t)f->packed, "activations",
        (json_int_t)f->activations, "scratch", (json_int_t)f->scratch, "text", (json_int_t)f->text,
        "other", (json_int_t)f->other, "disk_bytes", (json_int_t)f->disk, "free_disk_bytes",
        (json_int_t)f->free_disk, "step_s", f->step_seconds, "tokens_per_s",
        tokens / f->step_seconds, "seconds", f->total_seconds);
}
