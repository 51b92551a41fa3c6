#include "train/run_log.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

static ember_status open_one(const char *dir, const char *name, uint64_t bytes,
                             struct em_append *out)
{
    char *path = em_path_join(dir, name);
    if (!path) return EMBER_E_NOMEM;
    ember_status status = em_append_open(path, out);
    em_free(path);
    EM_TRY(status);
    status = em_append_truncate(out, bytes);
    if (status != EMBER_OK) em_append_close(out);
    return status;
}

ember_status em_run_log_open(const char *dir, uint64_t train_bytes, uint64_t eval_bytes,
                             uint64_t last_step, struct em_run_log *out)
{
    struct em_run_log log = {.train_bytes = train_bytes, .eval_bytes = eval_bytes};
    char *logs = em_path_join(dir, "logs");
    ember_status status = logs ? em_make_directories(logs) : EMBER_E_NOMEM;
    if (status == EMBER_OK) status = open_one(logs, "train.jsonl", train_bytes, &log.train);
    if (status == EMBER_OK) status = open_one(logs, "eval.jsonl", eval_bytes, &log.eval);
    // Step 0 has a record (the untrained model's scores), so a new run removes it too.
    if (status == EMBER_OK)
        status = em_tensorboard_open(&log.board, logs,
                                     train_bytes || eval_bytes ? (int64_t)last_step : -1);
    log.folder = logs;
    if (status != EMBER_OK) {
        em_free(logs);
        if (log.train.path) em_append_close(&log.train);
        if (log.eval.path) em_append_close(&log.eval);
        return status;
    }
    *out = log;
    return EMBER_OK;
}

void em_run_log_close(struct em_run_log *log)
{
    if (!log->train.path) return;
    em_append_close(&log->train);
    em_append_close(&log->eval);
    em_tensorboard_close(&log->board);
    em_free(log->folder);
    *log = (struct em_run_log){0};
}

ember_status em_run_log_sync(struct em_run_log *log)
{
    EM_TRY(em_append_sync(&log->train));
    EM_TRY(em_append_sync(&log->eval));
    EM_TRY(em_tensorboard_sync(&log->board));
    return em_sync_directory(log->folder); // their names too
}

static ember_status write_line(struct em_append *file, uint64_t *bytes, const json_t *line)
{
    struct em_buf b = {0};
    ember_status status =
        line ? em_json_print(line, 0, &b) : em_fail(EMBER_E_NOMEM, "out of memory");
    if (status == EMBER_OK) status = em_buf_putc(&b, '\n');
    if (status == EMBER_OK) status = em_append_write(file, b.data, b.size);
    if (status == EMBER_OK) *bytes += b.size;
    em_buf_deinit(&b);
    return status;
}

json_t *em_json_finite(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

json_t *em_json_add(json_t *list, json_t *value)
{
    if (list && json_array_append_new(list, value) == 0) return list;
    if (!list) json_decref(value);
    json_decref(list);
    return NULL;
}

// Figures of all routers together.
struct moe {
    double max_violation, token_entropy, marginal_entropy, aux, z; // the worst, and means
    size_t dead;
    uint64_t dropped;
};

static size_t count_dead(const struct em_router_figures *f, size_t E)
{
    size_t dead = 0;
    for (size_t e = 0; e < E; e++)
        dead += em_expert_is_dead(f->load[e], f->slots, E);
    return dead;
}

static struct moe summarise(const struct em_stepper *s)
{
    struct moe m = {0};
    const double n = (double)s->n_routers;
    for (size_t i = 0; i < s->n_routers; i++) {
        const struct em_router_figures *f = &s->figures[i];
        const size_t E = s->routers[i].routing.n_experts;
        const double tokens = f->tokens ? (double)f->tokens : 1;
        m.max_violation = fmax(m.max_violation, em_max_violation(f, E));
        m.token_entropy += f->token_entropy / tokens / n;
        m.marginal_entropy += f->marginal_entropy / tokens / n;
        m.aux += f->aux / tokens / n;
        m.z += f->z / tokens / n;
        m.dead += count_dead(f, E);
        m.dropped += f->dropped;
    }
    return m;
}

// The smallest and the largest of n values.
static json_t *range(const float *v, size_t n)
{
    double low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        low = fmin(low, (double)v[i]);
        high = fmax(high, (double)v[i]);
    }
    return json_pack("[o, o]", em_json_finite(low), em_json_finite(high));
}

static json_t *layer_json(const struct em_router_record *r, const struct em_router_figures *f)
{
    const size_t E = r->routing.n_experts;
    const double slots = f->slots ? (double)f->slots : 1;
    const double tokens = f->tokens ? (double)f->tokens : 1;
    json_t *load = json_array();
    for (size_t e = 0; load && e < E; e++)
        load = em_json_add(load, json_real((double)f->load[e] / slots));
    json_t *o = json_pack("{s:s, s:o, s:f, s:f, s:f, s:f, s:f, s:I, s:I}", "layer", r->layer,
                          "load", load, "max_violation", em_max_violation(f, E), "entropy",
                          f->token_entropy / tokens, "marginal_entropy",
                          f->marginal_entropy / tokens, "aux", f->aux / tokens, "z", f->z / tokens,
                          "dead", (json_int_t)count_dead(f, E), "dropped", (json_int_t)f->dropped);
    // Of the step's last part.
    if (o && r->logits &&
        json_object_set_new(o, "logits", range(em_f32(r->logits), r->logits->dim[0] * E)) != 0)
        goto failed;
    if (o && r->bias && json_object_set_new(o, "bias", range(em_f32(r->bias), E)) != 0) goto failed;
    return o;
failed:
    json_decref(o);
    return NULL;
}

static json_t *layers_json(const struct em_stepper *s)
{
    json_t *layers = json_array();
    for (size_t i = 0; layers && i < s->n_routers; i++)
        layers = em_json_add(layers, layer_json(&s->routers[i], &s->figures[i]));
    return layers;
}

// What every step says of its routers, and now and then of each.
static ember_status add_routers(json_t *line, const struct em_log_line *l, const struct moe *m)
{
    json_t *o = json_pack("{s:f, s:f, s:f, s:I}", "marginal_entropy", m->marginal_entropy, "aux",
                          m->aux, "z", m->z, "dead", (json_int_t)m->dead);
    json_t *most =
        json_pack("{s:f, s:f, s:I, s:o}", "load_max_violation", m->max_violation, "router_entropy",
                  m->token_entropy, "dropped_tokens", (json_int_t)m->dropped, "moe", o);
    bool good = most && json_object_update(line, most) == 0;
    json_decref(most);
    if (good && l->layers) good = json_object_set_new(o, "layers", layers_json(l->stepper)) == 0;
    if (good && l->warnings)
        good = json_object_set_new(line, "warnings", json_deep_copy(l->warnings)) == 0;
    return good ? EMBER_OK : em_fail(EMBER_E_NOMEM, "out of memory");
}

ember_status em_run_log_step(struct em_run_log *log, const struct em_log_line *l)
{
    json_t *line =
        json_pack("{s:I, s:I, s:f, s:o, s:f, s:f, s:f, s:f, s:o}", "step", (json_int_t)l->step,
                  "tokens", (json_int_t)l->tokens, "loss", l->loss, "bpb", em_json_finite(l->bpb),
                  "lr", l->lr, "seconds", l->seconds, "grad_norm", l->grad_norm, "tokens_per_s",
                  l->tokens_per_s, "mfu", em_json_finite(l->mfu));
    struct em_tensorboard_scalar scalar[16];
    size_t n = 0;
    scalar[n++] = (struct em_tensorboard_scalar){"train/loss", (float)l->loss};
    if (isfinite(l->bpb)) scalar[n++] = (struct em_tensorboard_scalar){"train/bpb", (float)l->bpb};
    scalar[n++] = (struct em_tensorboard_scalar){"train/lr", (float)l->lr};
    scalar[n++] = (struct em_tensorboard_scalar){"train/grad_norm", (float)l->grad_norm};
    scalar[n++] = (struct em_tensorboard_scalar){"speed/tokens_per_s", (float)l->tokens_per_s};
    if (isfinite(l->mfu)) scalar[n++] = (struct em_tensorboard_scalar){"speed/mfu", (float)l->mfu};
    if (l->stepper->n_routers && line) {
        const struct moe m = summarise(l->stepper);
        const ember_status added = add_routers(line, l, &m);
        if (added != EMBER_OK) {
            json_decref(line);
            return added;
        }
        const struct em_tensorboard_scalar more[] = {
            {"moe/max_violation", (float)m.max_violation},
            {"moe/entropy", (float)m.token_entropy},
            {"moe/aux", (float)m.aux},
            {"moe/z", (float)m.z},
            {"moe/dead", (float)m.dead},
            {"moe/dropped", (float)m.dropped},
        };
        memcpy(scalar + n, more, sizeof more);
        n += sizeof more / sizeof more[0];
    }
    ember_status status = write_line(&log->train, &log->train_bytes, line);
    json_decref(line);
    if (status == EMBER_OK) status = em_tensorboard_write(&log->board, (int64_t)l->step, scalar, n);
    return status;
}

ember_status em_run_log_eval(struct em_run_log *log, uint64_t step, uint64_t tokens,
                             const struct em_dataset *dataset, const struct em_score *scores)
{
    json_t *domains = json_array();
    ember_status status = EMBER_OK;
    char tag[160];
    for (size_t d = 0; domains && d < dataset->count && status == EMBER_OK; d++) {
        const struct em_score *s = &scores[d];
        const double bpb = em_score_bpb(s);
        domains = em_json_add(domains, json_pack("{s:s, s:I, s:f, s:f, s:o}", "domain",
                                                 dataset->domains[d].name, "tokens",
                                                 (json_int_t)s->tokens, "bytes", s->bytes, "nats",
                                                 s->tokens ? s->nats / (double)s->tokens : 0, "bpb",
                                                 em_json_finite(bpb)));
        if (!isfinite(bpb)) continue;
        snprintf(tag, sizeof tag, "eval/bpb/%.140s", dataset->domains[d].name);
        const struct em_tensorboard_scalar scalar = {tag, (float)bpb};
        status = em_tensorboard_write(&log->board, (int64_t)step, &scalar, 1);
    }
    json_t *line =
        json_pack("{s:I, s:I, s:o, s:o}", "step", (json_int_t)step, "tokens", (json_int_t)tokens,
                  "bpb", em_json_finite(em_mean_bpb(scores, dataset->count)), "domains", domains);
    if (status == EMBER_OK) status = write_line(&log->eval, &log->eval_bytes, line);
    json_decref(line);
    return status;
}

ember_status em_run_log_scored(struct em_run_log *log, uint64_t step, uint64_t tokens,
                               const struct em_scored *scored, bool labels)
{
    const double n = (double)scored->places, accuracy = (double)scored->right / n;
    const struct em_tensorboard_scalar scalar[] = {{"eval/loss", (float)(scored->loss / n)},
                                                   {"eval/accuracy", (float)accuracy}};
    json_t *line =
        json_pack("{s:I, s:I, s:f, s:I}", "step", (json_int_t)step, "tokens", (json_int_t)tokens,
                  "loss", scored->loss / n, "places", (json_int_t)scored->places);
    if (labels && line && json_object_set_new(line, "accuracy", json_real(accuracy)) != 0) {
        json_decref(line);
        return em_fail(EMBER_E_NOMEM, "out of memory");
    }
    ember_status status = write_line(&log->eval, &log->eval_bytes, line);
    json_decref(line);
    if (status == EMBER_OK)
        status = em_tensorboard_write(&log->board, (int64_t)step, scalar, labels ? 2 : 1);
    return status;
}
