// Memory that a run will take, and has taken.
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/process.h"
#include "report/xz.h"
#include "train/run.h"
#include "train/run_report.h"

static const double mebibyte = 1024.0 * 1024.0;

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

// The largest piece of held-out text that the report compresses, and what that takes.
static size_t report_bytes(const struct em_training *t)
{
    size_t most = 0;
    for (size_t d = 0; t->untrained && d < t->batches.dataset.count; d++) {
        const struct em_domain *domain = &t->batches.dataset.domains[d];
        const double share = domain->held_out_tokens > t->recipe.train.final_eval_tokens
                                 ? (double)t->recipe.train.final_eval_tokens /
                                       (double)domain->held_out_tokens
                                 : 1,
                     bytes = domain->held_out_bytes * share;
        if (bytes <= EM_XZ_LARGEST && (size_t)bytes > most) most = (size_t)bytes;
    }
    return most ? most + em_xz_memory(most) : 0;
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
    const size_t resident = (size_t)em_process_resident();
    const size_t known = f->weights + f->text;
    f->other = resident > known ? resident - known : 0;
    f->memory = f->weights + f->gradients + f->optimizer + f->packed + f->activations + f->scratch +
                f->text + f->other;
    // What a short text and a small model hide: the report's yardstick, after the training's memory
    // was given back.
    const size_t finish = f->weights + f->packed + f->text + f->other + report_bytes(t);
    if (finish > f->memory) f->memory = finish;
    // Preparing the text, and the tokenizer with it, may have taken more than training will.
    const uint64_t before = em_process_peak();
    if (before > f->memory) f->memory = before;
    f->free_memory = free_memory();
    if (f->free_memory && f->memory > f->free_memory + resident)
        em_warn("the run needs %.0f MiB of memory and %.0f MiB are free: a smaller train.batch, "
                "train.accumulate or train.recompute takes less",
                (double)f->memory / mebibyte, (double)f->free_memory / mebibyte);
    return EMBER_OK;
}
