// What a run will take, told before the first step.
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/process.h"
#include "train/run.h"

static const double mebibyte = 1024.0 * 1024.0;

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
                             t->batches.tensors.file ? t->recipe.data.tensors : t->recipe.data.ids,
                             (unsigned long long)t->batches.slices, t->batches.batch,
                             t->batches.seq);
    amount((double)em_dataset_train_tokens(&t->batches.dataset), train, sizeof train);
    amount((double)em_dataset_held_out_tokens(&t->batches.dataset), held, sizeof held);
    EM_TRY(em_buf_printf(out, "data      %s tokens, and %s held out, of %zu tokens:", train, held,
                         em_tokenizer_size(t->tokenizer.tokenizer)));
    // Text that is read over and over again is learnt by heart: how often is to be seen.
    for (size_t d = 0; d < t->batches.dataset.count; d++) {
        const double times = em_sampler_epochs(t->batches.sampler, d, t->progress.steps);
        EM_TRY(em_buf_printf(out, "%s %s (read %.*f times)", d ? "," : "",
                             t->batches.dataset.domains[d].name,
                             times < 0.1  ? 3
                             : times < 10 ? 2
                                          : 0,
                             times));
    }
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
    if (!(f->step_seconds > 0))
        return em_buf_puts(out, "time      all steps are done: only scores and report are left\n");
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
        f->step_seconds > 0 ? tokens / f->step_seconds : 0, "seconds", f->total_seconds);
}

void em_forecast_outcome(const struct em_training *t)
{
    char took[48], foretold[48];
    const double seconds = em_clock_seconds() - t->started;
    const uint64_t peak = em_process_peak();
    duration(seconds, took, sizeof took);
    duration(t->forecast.total_seconds, foretold, sizeof foretold);
    if (t->forecast.step_seconds > 0)
        em_note("took %s (foretold: %s) and %.1f MiB of memory (%.1f)", took, foretold,
                (double)peak / mebibyte, (double)t->forecast.memory / mebibyte);
}
