#include "infer/forward_file.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "formats/safetensors.h"
#include "models/diagnose.h"

enum { QUIET_SECONDS = 2 };

// What a row-by-row pass reads: B sequences of T tokens. Those of a row that a mask leaves come
// first in it.
struct input {
    size_t B, T;
    int32_t *tokens;  // [B, T], or
    float *values;    // [B, T, D]
    float *timespans; // [B, T], NULL: 1
    bool *seen;       // [B, T], NULL: all
};

static size_t length_of(const struct input *in, size_t row)
{
    size_t length = 0;
    for (size_t t = 0; in->seen && t < in->T; t++)
        length += in->seen[row * in->T + t];
    return in->seen ? length : in->T;
}

static void input_deinit(struct input *in)
{
    em_free(in->tokens);
    em_free(in->values);
    em_free(in->timespans);
    em_free(in->seen);
}

static ember_status read_integers(const struct em_st_tensor *t, const char *path, size_t limit,
                                  int32_t *to)
{
    for (size_t i = 0; i < t->elements; i++) {
        const int64_t v = em_st_integer(t, i);
        if (v < 0 || (uint64_t)v >= limit)
            return em_fail(EMBER_E_RANGE,
                           "%s: input_ids[%zu] is %lld; the vocabulary has %zu tokens", path, i,
                           (long long)v, limit);
        to[i] = (int32_t)v;
    }
    return EMBER_OK;
}

static ember_status read_tokens(const struct em_safetensors *file, const struct em_model *m,
                                struct input *in)
{
    const char *path = em_safetensors_path(file);
    const struct em_st_tensor *t = em_safetensors_find(file, "input_ids");
    if (!t)
        return em_fail(EMBER_E_FORMAT, "%s: has no tensor input_ids, which this model reads", path);
    if (t->rank != 2 || (t->dtype != EM_ST_I32 && t->dtype != EM_ST_I64) || !t->elements)
        return em_fail(EMBER_E_SHAPE, "%s: input_ids has to be [B, T] of I32 or I64 and not empty",
                       path);
    in->B = t->shape[0];
    in->T = t->shape[1];
    in->tokens = em_calloc(t->elements, sizeof *in->tokens);
    return in->tokens ? read_integers(t, path, m->vocabulary, in->tokens) : EMBER_E_NOMEM;
}

static ember_status read_floats(const struct em_st_tensor *t, const char *path, float *to)
{
    const ember_status status = em_st_tensor_f32(t, to);
    return status == EMBER_OK ? EMBER_OK : em_fail_in(status, "%s", path);
}

static ember_status read_values(const struct em_safetensors *file, const struct em_model *m,
                                struct input *in)
{
    const char *path = em_safetensors_path(file);
    const struct em_st_tensor *t = em_safetensors_find(file, "inputs"),
                              *spans = em_safetensors_find(file, "timespans");
    if (!t)
        return em_fail(EMBER_E_FORMAT, "%s: has no tensor inputs, which this model reads", path);
    if (t->rank != 3 || t->shape[2] != m->input_size || !t->elements)
        return em_fail(EMBER_E_SHAPE, "%s: inputs has to be [B, T, %zu] and not empty", path,
                       m->input_size);
    in->B = t->shape[0];
    in->T = t->shape[1];
    if (!(in->values = em_calloc(t->elements, sizeof(float)))) return EMBER_E_NOMEM;
    EM_TRY(read_floats(t, path, in->values));
    for (size_t i = 0; i < t->elements; i++)
        if (!isfinite(in->values[i]))
            return em_fail(EMBER_E_RANGE, "%s: inputs[%zu] is %g; it has to be finite", path, i,
                           (double)in->values[i]);
    if (!spans) return EMBER_OK;
    if (spans->rank != 2 || spans->shape[0] != in->B || spans->shape[1] != in->T)
        return em_fail(EMBER_E_SHAPE, "%s: timespans has to be [%zu, %zu]", path, in->B, in->T);
    if (!(in->timespans = em_calloc(spans->elements, sizeof(float)))) return EMBER_E_NOMEM;
    EM_TRY(read_floats(spans, path, in->timespans));
    for (size_t i = 0; i < spans->elements; i++)
        if (!(in->timespans[i] > 0) || !isfinite(in->timespans[i]))
            return em_fail(EMBER_E_RANGE,
                           "%s: timespans[%zu] is %g; it has to be finite and greater than 0", path,
                           i, (double)in->timespans[i]);
    return EMBER_OK;
}

// Moves what is left of a row to its front. The time of what is not is added to the next span.
static void close_gaps(struct input *in, size_t row, size_t width)
{
    const size_t first = row * in->T;
    size_t n = first;
    float gap = 0;
    for (size_t at = first; at < first + in->T; at++) {
        const float span = in->timespans ? in->timespans[at] : 1;
        if (!in->seen[at]) {
            gap += span;
            continue;
        }
        if (in->tokens) in->tokens[n] = in->tokens[at];
        if (in->values)
            memmove(in->values + n * width, in->values + at * width, width * sizeof *in->values);
        if (in->timespans) in->timespans[n] = span + gap;
        gap = 0;
        n++;
    }
}

static ember_status read_mask(const struct em_safetensors *file, const struct em_model *m,
                              struct input *in)
{
    const char *path = em_safetensors_path(file);
    const struct em_st_tensor *t = em_safetensors_find(file, "mask");
    if (!t) return em_fail(EMBER_E_FORMAT, "%s: has no tensor mask, which was asked for", path);
    if (t->rank != 2 || (t->dtype != EM_ST_I32 && t->dtype != EM_ST_I64) || t->shape[0] != in->B ||
        t->shape[1] != in->T)
        return em_fail(EMBER_E_SHAPE, "%s: mask has to be [%zu, %zu] of I32 or I64", path, in->B,
                       in->T);
    if (!(in->seen = em_calloc(t->elements, sizeof *in->seen))) return EMBER_E_NOMEM;
    for (size_t i = 0; i < t->elements; i++) {
        const int64_t v = em_st_integer(t, i);
        if (v != 0 && v != 1)
            return em_fail(EMBER_E_RANGE, "%s: mask[%zu] is %lld; it has to be 0 or 1", path, i,
                           (long long)v);
        in->seen[i] = v != 0;
    }
    if (in->values && !in->timespans) {
        if (!(in->timespans = em_calloc(t->elements, sizeof(float)))) return EMBER_E_NOMEM;
        for (size_t i = 0; i < t->elements; i++)
            in->timespans[i] = 1;
    }
    for (size_t row = 0; row < in->B; row++) {
        if (!length_of(in, row))
            return em_fail(EMBER_E_RANGE, "%s: mask leaves nothing of row %zu", path, row);
        close_gaps(in, row, m->input_size);
    }
    return EMBER_OK;
}

// The whole result is as large as the answer: it is collected, then written at once.
struct result {
    float *logits;   // [B, T, V]
    float *gradient; // every parameter's, in the model's order
    float loss;
};

static ember_batch rows_batch(const struct em_model *m, const struct input *in, size_t row,
                              size_t begin, size_t end, size_t *offset)
{
    const size_t at = row * in->T + begin;
    offset[0] = 0;
    offset[1] = end - begin;
    ember_batch batch = {.n_tokens = end - begin, .n_sequences = 1, .offset = offset};
    if (in->tokens) batch.tokens = in->tokens + at;
    if (in->values) batch.inputs = in->values + at * m->input_size;
    if (in->timespans) batch.timespans = in->timespans + at;
    return batch;
}

// Nothing that is no number goes into a file as an answer.
static ember_status not_finite(const struct em_model *m, const struct input *in, size_t row,
                               const struct em_forward_job *job)
{
    size_t offset[2];
    char where[512];
    const ember_batch batch = rows_batch(m, in, row, 0, length_of(in, row), offset);
    em_model_diagnose(
        m,
        &(struct em_diagnosis){.backend = job->backend,
                               .pool = job->pool,
                               .bf16 = job->bf16,
                               .head = EM_HEAD_ALL,
                               .run = &(struct em_run){.batch = &batch, .loss_scale = 1}},
        where, sizeof where);
    return em_fail(EMBER_E_NUMERIC, "%s of row %zu are not finite: %s",
                   m->language_model ? "logits" : "outputs", row, where);
}

static ember_status check_gradients(const struct em_model *m)
{
    for (size_t i = 0; i < m->n_file_tensors; i++) {
        const struct em_file_tensor *f = &m->file_tensor[i];
        if (f->param->tensor.grad &&
            !em_all_finite(em_f32(f->param->tensor.grad) + f->offset, f->count))
            return em_fail(EMBER_E_NUMERIC, "grad.%s is not finite", f->name);
    }
    return EMBER_OK;
}

// Rows and parts of them that are done, for the line that long passes show.
struct shown {
    double begin, size; // of the part that runs, of all
    bool any;           // a line has been shown
    double since;
};

// Short passes show nothing.
static void show(void *context, double share)
{
    struct shown *s = context;
    const double now = em_clock_seconds();
    if (!s->any && now - s->since < QUIET_SECONDS) return;
    s->any = true;
    em_progress(false, "forward %.0f %%", 100 * (s->begin + share * s->size));
}

// Outputs back to the places that they are of, and zeros to those that were left out.
static void open_gaps(const struct input *in, size_t row, size_t width, float *outputs)
{
    size_t n = length_of(in, row);
    for (size_t t = in->T; in->seen && t-- > 0;) {
        float *to = outputs + t * width;
        if (in->seen[row * in->T + t])
            memmove(to, outputs + --n * width, width * sizeof *to);
        else
            memset(to, 0, width * sizeof *to);
    }
}

static ember_status run_logits(struct em_model *m, const struct input *in,
                               const struct em_forward_job *job, float *logits)
{
    const size_t chunk = job->chunk && job->chunk < in->T ? job->chunk : in->T;
    struct em_program *p;
    struct em_model_outputs outputs;
    ember_state *state = NULL;
    struct shown shown = {.since = em_clock_seconds()};
    EM_TRY(em_program_create(&(struct em_program_options){.backend = job->backend,
                                                          .pool = job->pool,
                                                          .max_tokens = chunk,
                                                          .max_sequences = 1,
                                                          .packs = m->packs,
                                                          .bf16 = job->bf16},
                             &p));
    ember_status status;
    EM_TRY_GOTO(status, out, em_model_record(m, p, EM_HEAD_ALL, &outputs));
    EM_TRY_GOTO(status, out, em_program_allocate(p));
    EM_TRY_GOTO(status, out, em_state_create(em_program_layout(p), &state));
    const size_t width = outputs.logits->dim[1];
    for (size_t row = 0; row < in->B; row++) {
        const size_t T = length_of(in, row);
        em_state_reset(state);
        for (size_t begin = 0; begin < T; begin += chunk) {
            const size_t end = begin + chunk < T ? begin + chunk : T;
            size_t offset[2];
            ember_batch batch = rows_batch(m, in, row, begin, end, offset);
            if (job->chunk) batch.state_in = batch.state_out = &state;
            shown.begin = ((double)row + (double)begin / (double)T) / (double)in->B;
            shown.size = (double)(end - begin) / (double)T / (double)in->B;
            EM_TRY_GOTO(status, out,
                        em_program_forward(p, &(struct em_run){.batch = &batch,
                                                               .loss_scale = 1,
                                                               .progress = show,
                                                               .context = &shown}));
            const size_t rows = m->pooled ? 1 : end - begin;
            float *to = logits + (m->pooled ? row : row * in->T + begin) * width;
            memcpy(to, em_f32(outputs.logits), rows * width * sizeof *to);
            if (!em_all_finite(to, rows * width)) {
                status = not_finite(m, in, row, job);
                goto out;
            }
        }
        if (!m->pooled) open_gaps(in, row, width, logits + row * in->T * width);
    }
    if (shown.any) em_progress(true, "forward 100 %%");
out:
    em_state_destroy(state);
    em_program_destroy(p);
    return status;
}

// One row at a time: gradients add up, and the loss of all rows is their mean over scored places,
// or over all outputs.
static ember_status run_gradients(struct em_model *m, const struct input *in,
                                  const struct em_forward_job *job, struct result *result)
{
    struct em_program *p;
    struct em_model_outputs outputs;
    int32_t *targets = em_calloc(in->T, sizeof *targets);
    if (!targets) return EMBER_E_NOMEM;
    ember_status status =
        em_program_create(&(struct em_program_options){.backend = job->backend,
                                                       .pool = job->pool,
                                                       .max_tokens = in->T,
                                                       .max_sequences = 1,
                                                       .packs = m->packs,
                                                       .gradients = true,
                                                       .recompute = EM_RECOMPUTE_CHEAP,
                                                       .bf16 = job->bf16},
                          &p);
    if (status != EMBER_OK) {
        em_free(targets);
        return status;
    }
    EM_TRY_GOTO(status, out, em_model_record(m, p, EM_HEAD_LOSS, &outputs));
    EM_TRY_GOTO(status, out, em_program_allocate(p));
    size_t scored = 0;
    for (size_t row = 0; row < in->B; row++)
        scored += m->language_model ? length_of(in, row) - 1 : m->pooled ? 1 : length_of(in, row);
    double loss = 0;
    for (size_t row = 0; row < in->B && scored; row++) {
        const size_t T = length_of(in, row);
        size_t offset[2];
        ember_batch batch = rows_batch(m, in, row, 0, T, offset);
        for (size_t t = 0; m->language_model && t < T; t++)
            targets[t] = t + 1 < T ? batch.tokens[t + 1] : -1;
        if (m->language_model) batch.targets = targets;
        const struct em_run run = {
            .batch = &batch, .gradients = true, .loss_scale = 1 / (double)scored};
        EM_TRY_GOTO(status, out, em_program_forward(p, &run));
        EM_TRY_GOTO(status, out, em_program_backward(p));
        loss += (double)em_f32(outputs.loss)[0];
    }
    if (!scored) status = em_fail(EMBER_E_SHAPE, "a loss needs rows of at least 2 tokens");
    result->loss = (float)loss;
out:
    em_program_destroy(p);
    em_free(targets);
    return status;
}

static ember_status write_result(const struct em_model *m, const struct input *in,
                                 const struct result *result, bool gradients, const char *path)
{
    const size_t logits_shape[] = {in->B, m->pooled ? 1 : in->T, m->output_size}, one[] = {1};
    const size_t count = gradients ? 2 + m->n_file_tensors : 1;
    struct em_st_output *output = em_calloc(count, sizeof *output);
    struct em_arena names = {0};
    ember_status status = output ? EMBER_OK : EMBER_E_NOMEM;
    if (output) {
        size_t n = 0;
        output[n++] = (struct em_st_output){.name = m->language_model ? "logits" : "outputs",
                                            .shape = logits_shape,
                                            .rank = 3,
                                            .dtype = EM_ST_F32,
                                            .data = result->logits};
        if (gradients)
            output[n++] = (struct em_st_output){
                .name = "loss", .shape = one, .rank = 1, .dtype = EM_ST_F32, .data = &result->loss};
        for (size_t i = 0; gradients && i < m->n_file_tensors && status == EMBER_OK; i++) {
            const struct em_file_tensor *f = &m->file_tensor[i];
            if (!f->param->tensor.grad) continue;
            const char *name = em_arena_printf(&names, "grad.%s", f->name);
            if (!name) status = EMBER_E_NOMEM;
            output[n++] = (struct em_st_output){.name = name,
                                                .shape = f->dim,
                                                .rank = f->ndim,
                                                .dtype = EM_ST_F32,
                                                .data = em_f32(f->param->tensor.grad) + f->offset};
        }
        if (status == EMBER_OK)
            status =
                em_safetensors_write(path, &(struct em_st_write){.tensors = output, .count = n});
    }
    em_arena_deinit(&names);
    em_free(output);
    return status;
}

static ember_status run(struct em_model *m, const struct input *in, const char *out,
                        const struct em_forward_job *job)
{
    struct result result = {0};
    size_t n;
    ember_status status = EMBER_E_NOMEM;
    if (!em_mul_size(in->B * in->T, m->output_size, &n) ||
        !(result.logits = em_calloc(n, sizeof(float))))
        goto out;
    if (job->gradients) {
        if (!(result.gradient = em_calloc(m->n_values, sizeof(float)))) goto out;
        EM_TRY_GOTO(status, out, em_model_attach_gradients(m, result.gradient));
        EM_TRY_GOTO(status, out, run_gradients(m, in, job, &result));
    }
    EM_TRY_GOTO(status, out, run_logits(m, in, job, result.logits));
    if (job->gradients) EM_TRY_GOTO(status, out, check_gradients(m));
    status = write_result(m, in, &result, job->gradients, out);
out:
    em_free(result.logits);
    em_free(result.gradient);
    return status;
}

ember_status em_forward_file(struct em_model *m, const char *in, const char *out,
                             const struct em_forward_job *job)
{
    struct em_safetensors *file;
    struct input input = {0};
    if (job->gradients && job->chunk)
        return em_fail(EMBER_E_USAGE, "gradients cannot be taken through chunks");
    if (!m->causal && job->chunk)
        return em_fail(EMBER_E_USAGE,
                       "%s looks at later rows, so it takes whole sequences and no chunks",
                       m->name);
    EM_TRY(em_safetensors_open(in, &file));
    ember_status status =
        m->vocabulary ? read_tokens(file, m, &input) : read_values(file, m, &input);
    if (status == EMBER_OK && job->masked) status = read_mask(file, m, &input);
    em_safetensors_close(file);
    if (status == EMBER_OK) status = run(m, &input, out, job);
    input_deinit(&input);
    return status;
}
