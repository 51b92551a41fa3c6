// Room on the disk that a run will take, and how fast the disk is.
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "train/run.h"

static const double mebibyte = 1024.0 * 1024.0;
enum { BLOCK = 4096, NAME_BYTES = 288, DEEPEST = 8 };

// ---- what there is ----

static uint64_t on_disk(uint64_t bytes)
{
    return (bytes + BLOCK - 1) / BLOCK * BLOCK;
}

static ember_status add_inner(const char *folder, const char *name, int depth, uint64_t *sum);

// Adds a file's bytes or those of a folder's files; nothing where there is nothing. What cannot be
// listed counts as empty, but a lack of memory is no measure of a disk.
static ember_status add_tree(const char *path, int depth, uint64_t *sum)
{
    struct stat s;
    char **names = NULL;
    size_t count = 0;
    if (em_io()->stat(path, &s) != 0) return EMBER_OK;
    *sum += S_ISDIR(s.st_mode) ? BLOCK : on_disk((uint64_t)s.st_size);
    if (!S_ISDIR(s.st_mode) || depth == DEEPEST) return EMBER_OK;
    ember_status status = em_list_directory(path, &names, &count);
    if (status != EMBER_OK) return status == EMBER_E_NOMEM ? status : EMBER_OK;
    for (size_t i = 0; i < count && status == EMBER_OK; i++)
        status = add_inner(path, names[i], depth + 1, sum);
    em_names_free(names, count);
    return status;
}

static ember_status add_inner(const char *folder, const char *name, int depth, uint64_t *sum)
{
    char *path = em_path_join(folder, name);
    if (!path) return EMBER_E_NOMEM;
    const ember_status status = add_tree(path, depth, sum);
    em_free(path);
    return status;
}

static ember_status present(const struct em_training *t, uint64_t *sum)
{
    static const char *const parts[] = {"training", "best", "logs", "model.safetensors",
                                        "tokenizer.json"};
    *sum = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        EM_TRY(add_inner(t->run.dir, parts[i], 0, sum));
    return EMBER_OK;
}

// ---- what there will be ----

// Names, shapes and hashes in the head of a file with all weights: experts are written one by one.
static uint64_t head_bytes(const struct em_training *t)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < t->model->params.count; i++) {
        const ember_tensor *p = &t->model->params.param[i]->tensor;
        bytes += NAME_BYTES * (p->ndim > 2 ? p->dim[0] : 1);
    }
    return bytes;
}

// Everything of a model's folder but its weights.
static ember_status companion_bytes(const struct em_training *t, uint64_t *bytes)
{
    enum { FILES = 6, TOKEN = 64 };
    uint64_t known = 0;
    *bytes = FILES * BLOCK;
    if (!t->tokenizer.tokenizer) return EMBER_OK;
    if (t->tokenizer.from) EM_TRY(add_inner(t->tokenizer.from, "tokenizer.json", 0, &known));
    *bytes += known ? known : TOKEN * em_tokenizer_size(t->tokenizer.tokenizer);
    return EMBER_OK;
}

static uint64_t log_bytes(const struct em_training *t)
{
    enum { LINE = 900, LOADS = 60, LOAD = 22, EVALUATION = 320, REPORT = 1 << 20, POINTS = 201 };
    const uint64_t left = t->progress.steps - t->progress.step,
                   lines = left / t->recipe.train.log_every + 1,
                   detailed = lines < POINTS ? lines : POINTS, every = em_evaluation_every(t);
    uint64_t layers = 0, text = 0;
    for (size_t i = 0; i < t->stepper.n_routers; i++)
        layers += LOADS + LOAD * t->stepper.routers[i].routing.n_experts;
    const size_t domains = t->untrained ? t->batches.dataset.count : 0;
    for (size_t d = 0; d < domains; d++)
        text += on_disk((uint64_t)t->batches.dataset.domains[d].held_out_bytes);
    const uint64_t evaluations = every ? left / every + 2 : 0;
    return lines * LINE + detailed * layers + evaluations * domains * EVALUATION + text + REPORT;
}

// Of texts that a dry run keeps in memory, and a run in files.
static uint64_t cache_bytes(const struct em_training *t)
{
    uint64_t bytes = 0;
    for (size_t d = 0; t->batches.text && d < t->batches.dataset.count; d++) {
        const struct em_cache *c = &t->batches.dataset.domains[d].cache;
        if (c->map.data) continue; // it is there
        bytes += on_disk(c->tokens * (c->narrow ? 2 : 4) + (c->count + 1) * sizeof *c->documents);
    }
    return bytes;
}

// The nearest folder above that is there.
static ember_status free_space(const char *dir, uint64_t *bytes)
{
    char *path = em_strdup(dir);
    if (!path) return EMBER_E_NOMEM;
    while (!em_path_exists(path) && strcmp(path, "/") != 0 && strcmp(path, ".") != 0) {
        char *slash = strrchr(path, '/');
        if (slash && slash != path)
            *slash = '\0';
        else
            strcpy(path, slash ? "/" : ".");
    }
    const ember_status status = em_free_space(path, bytes);
    em_free(path);
    return status;
}

// The most at any moment: two states stay while a third is written, beside the folder's model and
// the best one. Replacing one of those takes less than a state, and the third is gone by then.
ember_status em_forecast_disk(struct em_training *t)
{
    enum { STATES = 3, STATE_FILES = 4 };
    struct em_forecast *f = &t->forecast;
    uint64_t companions, have;
    EM_TRY(companion_bytes(t, &companions));
    EM_TRY(present(t, &have));
    const uint64_t model = on_disk(f->weights + head_bytes(t)) + companions,
                   state = model + on_disk(f->optimizer + 2 * head_bytes(t)) + STATE_FILES * BLOCK,
                   rest = log_bytes(t) + cache_bytes(t), all = STATES * state + 2 * model + rest;
    f->disk = all > have ? all - have : 0;
    EM_TRY(free_space(t->run.dir, &f->free_disk));
    if (f->disk <= f->free_disk) return EMBER_OK;
    return em_fail(
        EMBER_E_IO,
        "%s: the run needs %.1f MiB%s (three states of %.1f, the model and its best version %.1f, "
        "logs and text %.1f), the disk has %.1f MiB free: free %.1f MiB more, or %s",
        t->run.dir, (double)f->disk / mebibyte, t->run.state ? " more" : "",
        (double)state / mebibyte, 2 * (double)model / mebibyte, (double)rest / mebibyte,
        (double)f->free_disk / mebibyte, (double)(f->disk - f->free_disk) / mebibyte,
        t->run.state ? "move the folder to a larger disk" : "give --out on a larger disk");
}

// ---- how fast it is ----

// Seconds to write so many bytes for good.
static ember_status time_write(const char *path, size_t bytes, double *seconds)
{
    enum { PIECE = 1 << 18 };
    struct em_file f;
    char *zeros = em_calloc(1, PIECE);
    if (!zeros) return EMBER_E_NOMEM;
    const double start = em_clock_seconds();
    ember_status status = em_file_create(path, &f);
    if (status == EMBER_OK) {
        for (size_t n = 0; n < bytes && status == EMBER_OK; n += PIECE)
            status = em_file_write(&f, zeros, bytes - n < PIECE ? bytes - n : PIECE);
        if (status == EMBER_OK && em_io()->fsync(f.fd) != 0)
            status = em_fail_errno(path, "cannot fsync");
        *seconds = em_clock_seconds() - start;
        em_file_abort(&f);
    }
    em_free(zeros);
    return status;
}

void em_probe_disk(struct em_training *t)
{
    enum { LARGEST = 16 << 20, SMALL = 1 << 12, LEAST = 1 << 20 };
    struct em_forecast *f = &t->forecast;
    const size_t bytes = f->weights < LARGEST ? f->weights : LARGEST;
    double small = 0, large = 0;
    f->file_seconds = 1e-3; // assumed where that is not measured
    f->byte_seconds = 2e-9;
    // Where nothing may be written, or what is written is next to nothing.
    if (t->job->dry_run || f->weights < LEAST) return;
    char *path = em_path_join(t->run.dir, "probe");
    // A disk that cannot take this is told of by the one who has to write there.
    if (path && time_write(path, SMALL, &small) == EMBER_OK &&
        time_write(path, SMALL + bytes, &large) == EMBER_OK) {
        f->file_seconds = small;
        f->byte_seconds = large > small ? (large - small) / (double)bytes : 0;
    }
    em_free(path);
}
