// ember inspect: what a model folder, its weights or its config consist of.
#include <ember/describe.h>
#include <stdio.h>
#include <string.h>

#include "api/describe.h"
#include "api/library.h"
#include "base/alloc.h"
#include "base/io.h"
#include "formats/weights.h"
#include "infer/generation_config.h"
#include "models/model.h"
#include "text/tokenizer.h"

struct subject {
    const char *path;
    json_t *config;             // NULL: weights alone
    struct em_weights *weights; // NULL: a config alone
    struct em_model *model;     // NULL as the config
    bool folder;
};

static ember_status holds_weights(const char *folder, bool *found)
{
    char **names;
    size_t count;
    EM_TRY(em_list_directory(folder, &names, &count));
    *found = false;
    for (size_t i = 0; i < count; i++)
        *found = *found || strstr(names[i], ".safetensors");
    em_names_free(names, count);
    return EMBER_OK;
}

// A folder may hold a config alone, or weights alone.
static ember_status open_folder(struct subject *s)
{
    char *config = em_path_join(s->path, "config.json");
    if (!config) return EMBER_E_NOMEM;
    const bool has_config = em_path_exists(config);
    em_free(config);
    bool has_weights;
    EM_TRY(holds_weights(s->path, &has_weights));
    if (has_config) EM_TRY(em_model_read_config(s->path, &s->config));
    return has_weights || !has_config ? em_weights_open(s->path, &s->weights) : EMBER_OK;
}

static ember_status open_subject(struct subject *s)
{
    s->folder = em_path_is_directory(s->path);
    EM_TRY(em_api_refuse_gguf(s->path));
    if (s->folder)
        EM_TRY(open_folder(s));
    else if (em_api_ends_in(s->path, ".safetensors"))
        EM_TRY(em_weights_open(s->path, &s->weights));
    else
        EM_TRY(em_model_read_config(s->path, &s->config));
    return s->config ? em_model_create(s->config, s->path, s->weights, &s->model) : EMBER_OK;
}

static void close_subject(struct subject *s)
{
    em_model_close(s->model);
    em_weights_close(s->weights);
    json_decref(s->config);
}

static const char *type_of(const json_t *component)
{
    const char *type = json_is_string(component)
                           ? json_string_value(component)
                           : json_string_value(json_object_get(component, "type"));
    return type ? type : "?";
}

// What a layer consists of: "short_conv + moe".
static ember_status add_blocks(const json_t *blocks, json_t *list)
{
    for (size_t i = 0; i < json_array_size(blocks); i++) {
        const json_t *b = json_array_get(blocks, i), *group = json_object_get(b, "blocks");
        if (group) {
            const json_t *repeat = json_object_get(b, "repeat");
            const json_int_t times = json_is_integer(repeat) ? json_integer_value(repeat) : 1;
            for (json_int_t k = 0; k < times; k++)
                EM_TRY(add_blocks(group, list));
            continue;
        }
        char text[200];
        const json_t *sequence = json_object_get(b, "sequence"),
                     *channel = json_object_get(b, "channel"),
                     *window = json_object_get(sequence, "window");
        size_t n = 0;
        if (sequence && !json_is_null(sequence))
            n += (size_t)snprintf(text, sizeof text, "%.60s", type_of(sequence));
        if (json_is_integer(window) && json_integer_value(window))
            n += (size_t)snprintf(text + n, sizeof text - n, " (window %lld)",
                                  (long long)json_integer_value(window));
        if (channel && !json_is_null(channel))
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%.60s", n ? " + " : "",
                                  type_of(channel));
        if (!n) snprintf(text, sizeof text, "%.60s", type_of(b));
        EM_TRY(em_push(list, json_string(text)));
    }
    return EMBER_OK;
}

static ember_status add_config(const struct subject *s, json_t *root)
{
    const struct em_model *m = s->model;
    json_t *o, *blocks;
    size_t total, active;
    EM_TRY(em_put_object(root, "model", &o));
    EM_TRY(em_put_text(o, "model_type", m->family->name));
    if (m->family->architecture && m->language_model)
        EM_TRY(em_put_text(o, "architecture", m->family->architecture));
    EM_TRY(em_put_size(o, "hidden_size", m->width));
    EM_TRY(em_put_size(o, "vocab_size", m->vocabulary));
    EM_TRY(em_put_size(o, "context", m->context));
    EM_TRY(em_put(o, "tied", json_boolean(m->head && m->head == m->embedding)));
    EM_TRY(em_put_size(o, "depth", m->depth));
    EM_TRY(em_put_size(o, "distinct_blocks", m->n_blocks));
    em_model_count(m, &total, &active);
    EM_TRY(em_put_size(o, "parameters", total));
    EM_TRY(em_put_size(o, "active_parameters", active));
    EM_TRY(em_put_list(o, "blocks", &blocks));
    return add_blocks(json_object_get(m->form, "blocks"), blocks);
}

static bool is_below(const char *name, const char *path, const char *part)
{
    const size_t n = strlen(path);
    return strncmp(name, path, n) == 0 && strncmp(name + n, part, strlen(part)) == 0;
}

static ember_status add_experts(const struct em_model *m, json_t *root)
{
    json_t *list, *o;
    EM_TRY(em_put_list(root, "experts", &list));
    for (size_t i = 0; i < m->params.moe_count; i++) {
        const struct em_moe_record *r = &m->params.moe[i];
        size_t experts = 0, router = 0;
        for (size_t p = 0; p < m->params.count; p++) {
            const ember_tensor *t = &m->params.param[p]->tensor;
            if (is_below(t->name, r->path, ".expert")) experts += ember_tensor_count(t);
            if (is_below(t->name, r->path, ".router")) router += ember_tensor_count(t);
        }
        EM_TRY(em_put_object(list, NULL, &o));
        EM_TRY(em_put_text(o, "layer", r->path));
        EM_TRY(em_put_size(o, "experts", r->experts));
        EM_TRY(em_put_size(o, "experts_per_token", r->k));
        EM_TRY(em_put_size(o, "parameters", experts));
        EM_TRY(em_put_size(o, "parameters_per_expert", experts / r->experts));
        EM_TRY(em_put_size(o, "router_parameters", router));
    }
    return EMBER_OK;
}

static json_t *shape_of(const size_t *dim, size_t rank)
{
    json_t *shape = json_array();
    for (size_t i = 0; shape && i < rank; i++)
        if (json_array_append_new(shape, json_integer((json_int_t)dim[i])) != 0) {
            json_decref(shape);
            return NULL;
        }
    return shape;
}

static ember_status add_tensor(json_t *list, const char *name, const char *dtype, const size_t *dim,
                               size_t rank, size_t bytes)
{
    json_t *o;
    EM_TRY(em_put_object(list, NULL, &o));
    EM_TRY(em_put_text(o, "name", name));
    EM_TRY(em_put_text(o, "dtype", dtype));
    EM_TRY(em_put(o, "shape", shape_of(dim, rank)));
    return em_put_size(o, "bytes", bytes);
}

// Those of the files; of a config alone, those that its files would have, in f32.
static ember_status add_tensors(const struct subject *s, json_t *root)
{
    json_t *list;
    EM_TRY(em_put_list(root, "tensors", &list));
    for (size_t i = 0; s->weights && i < em_weights_count(s->weights); i++) {
        const struct em_st_tensor *t = em_weights_at(s->weights, i);
        EM_TRY(add_tensor(list, t->name, em_st_dtype_name(t->dtype), t->shape, t->rank, t->bytes));
    }
    for (size_t i = 0; !s->weights && i < s->model->n_file_tensors; i++) {
        const struct em_file_tensor *f = &s->model->file_tensor[i];
        EM_TRY(add_tensor(list, f->name, "F32", f->dim, f->ndim, f->count * sizeof(float)));
    }
    return EMBER_OK;
}

static ember_status add_files(const struct em_weights *w, json_t *o)
{
    json_t *files, *file, *metadata;
    EM_TRY(em_put_list(o, "files", &files));
    for (size_t i = 0; i < em_weights_files(w); i++) {
        const struct em_safetensors *f = em_weights_file(w, i);
        EM_TRY(em_put_object(files, NULL, &file));
        EM_TRY(em_put_text(file, "file", em_path_base(em_safetensors_path(f))));
        EM_TRY(em_put_object(file, "metadata", &metadata));
        for (size_t k = 0; k < em_safetensors_metadata_count(f); k++) {
            const struct em_st_pair pair = em_safetensors_metadata_at(f, k);
            EM_TRY(em_put_text(metadata, pair.key, pair.value));
        }
    }
    return EMBER_OK;
}

static ember_status add_weights(const struct em_weights *w, json_t *root)
{
    json_t *o, *dtypes;
    size_t elements = 0;
    if (!w) return EMBER_OK;
    EM_TRY(em_put_object(root, "weights", &o));
    EM_TRY(em_put_object(o, "dtypes", &dtypes));
    for (size_t i = 0; i < em_weights_count(w); i++) {
        const struct em_st_tensor *t = em_weights_at(w, i);
        const char *name = em_st_dtype_name(t->dtype);
        elements += t->elements;
        EM_TRY(em_put_size(dtypes, name, em_size_of(dtypes, name) + t->elements));
    }
    EM_TRY(em_put_size(o, "tensors", em_weights_count(w)));
    EM_TRY(em_put_size(o, "elements", elements));
    EM_TRY(em_put_size(o, "bytes", em_weights_bytes(w)));
    return add_files(w, o);
}

static ember_status add_generation(const struct subject *s, const struct em_tokenizer *t,
                                   json_t *root)
{
    struct em_generation_config c;
    json_t *o, *end;
    EM_TRY(em_generation_config_read(s->model, s->path, t, &c));
    ember_status status = em_put_object(root, "generation", &o);
    if (status == EMBER_OK) status = em_put_list(o, "end_tokens", &end);
    for (size_t i = 0; status == EMBER_OK && i < c.end_count; i++)
        status = em_push(end, json_integer(c.end[i]));
    if (status == EMBER_OK)
        status =
            em_put(o, "sampling",
                   json_pack("{s:f, s:I, s:f, s:f, s:f, s:b}", "temperature",
                             c.sampling.temperature, "top_k", (json_int_t)c.sampling.top_k, "top_p",
                             c.sampling.top_p, "min_p", c.sampling.min_p, "repeat_penalty",
                             c.sampling.repeat_penalty, "from_file", c.sampling_from_file));
    em_generation_config_deinit(&c);
    return status;
}

// What stands beside the weights of a whole model. A tokenizer that cannot be read is told, and no
// reason to stop.
static ember_status add_rest(const struct subject *s, json_t *root)
{
    if (!s->folder || !s->model || !s->model->language_model) return EMBER_OK;
    struct em_tokenizer *t = NULL;
    json_t *o;
    char *file = em_path_join(s->path, "tokenizer.json");
    if (!file) return EMBER_E_NOMEM;
    ember_status status = EMBER_OK;
    if (em_path_exists(file)) {
        const ember_status opened = em_tokenizer_open(s->path, &t);
        // Without memory nothing is known of the file.
        status = opened == EMBER_E_NOMEM ? opened : em_put_object(root, "tokenizer", &o);
        if (status == EMBER_OK && opened != EMBER_OK)
            status = em_put_text(o, "problem", ember_last_error());
        if (status == EMBER_OK && t)
            status = em_put(o, "tokens", json_integer((json_int_t)em_tokenizer_size(t)));
        if (status == EMBER_OK && t)
            status = em_put(o, "merges", json_integer((json_int_t)em_tokenizer_merges(t)));
    }
    em_free(file);
    if (status == EMBER_OK) status = add_generation(s, t, root);
    em_tokenizer_close(t);
    return status;
}

// ---- as text ----

static ember_status print_runs(const json_t *blocks, struct em_buf *out)
{
    size_t n;
    for (size_t i = 0; i < json_array_size(blocks); i += n) {
        const char *text = json_string_value(json_array_get(blocks, i));
        n = 1;
        while (i + n < json_array_size(blocks) &&
               strcmp(json_string_value(json_array_get(blocks, i + n)), text) == 0)
            n++;
        char range[48];
        snprintf(range, sizeof range, n > 1 ? "%zu-%zu" : "%zu", i, i + n - 1);
        EM_TRY(em_buf_printf(out, "  %-8s %s\n", range, text));
    }
    return EMBER_OK;
}

static ember_status print_model(const json_t *o, struct em_buf *out)
{
    char total[32], active[32];
    if (!o) return EMBER_OK;
    const char *architecture = em_text_of(o, "architecture");
    EM_TRY(em_buf_printf(
        out, "model       %s%s%s%s, width %zu, vocabulary %zu%s, context %zu\n",
        em_text_of(o, "model_type"), *architecture ? " (" : "", architecture,
        *architecture ? ")" : "", em_size_of(o, "hidden_size"), em_size_of(o, "vocab_size"),
        json_is_true(json_object_get(o, "tied")) ? " (tied)" : "", em_size_of(o, "context")));
    EM_TRY(em_buf_printf(out, "parameters  %s, %s of them active for a token\n",
                         em_count_text(em_size_of(o, "parameters"), total),
                         em_count_text(em_size_of(o, "active_parameters"), active)));
    EM_TRY(em_buf_printf(out, "blocks      %zu deep, %zu distinct\n", em_size_of(o, "depth"),
                         em_size_of(o, "distinct_blocks")));
    return print_runs(json_object_get(o, "blocks"), out);
}

static ember_status print_experts(const json_t *list, struct em_buf *out)
{
    char all[32], each[32];
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        if (!i) EM_TRY(em_buf_puts(out, "experts\n"));
        EM_TRY(em_buf_printf(
            out, "  %-24s %zu experts of %s, %zu a token; %s together\n", em_text_of(o, "layer"),
            em_size_of(o, "experts"), em_count_text(em_size_of(o, "parameters_per_expert"), each),
            em_size_of(o, "experts_per_token"), em_count_text(em_size_of(o, "parameters"), all)));
    }
    return EMBER_OK;
}

// Hashes of every tensor are one value of many kilobytes.
static ember_status print_metadata(const char *key, const char *value, struct em_buf *out)
{
    enum { MOST = 100 };
    char count[32];
    const size_t n = strlen(value);
    if (n <= MOST) return em_buf_printf(out, "  %s: %s", key, value);
    return em_buf_printf(out, "  %s: %s bytes, with --json", key, em_count_text(n, count));
}

static ember_status print_weights(const json_t *o, struct em_buf *out)
{
    char bytes[32], count[32];
    const json_t *files = json_object_get(o, "files");
    const char *key;
    json_t *value;
    if (!o) return EMBER_OK;
    EM_TRY(em_buf_printf(out, "weights     %zu tensors, %s:", em_size_of(o, "tensors"),
                         em_bytes_text((double)em_size_of(o, "bytes"), bytes)));
    json_object_foreach(json_object_get(o, "dtypes"), key, value) EM_TRY(
        em_buf_printf(out, " %s %s", em_count_text((size_t)json_integer_value(value), count), key));
    EM_TRY(em_buf_putc(out, '\n'));
    for (size_t i = 0; i < json_array_size(files); i++) {
        const json_t *f = json_array_get(files, i);
        EM_TRY(em_buf_printf(out, "  %s", em_text_of(f, "file")));
        json_object_foreach(json_object_get(f, "metadata"), key, value)
            EM_TRY(print_metadata(key, json_string_value(value), out));
        EM_TRY(em_buf_putc(out, '\n'));
    }
    return EMBER_OK;
}

static ember_status print_rest(const json_t *root, struct em_buf *out)
{
    const json_t *t = json_object_get(root, "tokenizer"), *g = json_object_get(root, "generation"),
                 *end = json_object_get(g, "end_tokens"), *s = json_object_get(g, "sampling");
    if (t && json_object_get(t, "problem"))
        EM_TRY(em_buf_printf(out, "tokenizer   cannot be used: %s\n", em_text_of(t, "problem")));
    else if (t)
        EM_TRY(em_buf_printf(out, "tokenizer   %zu tokens, %zu merges\n", em_size_of(t, "tokens"),
                             em_size_of(t, "merges")));
    if (!g) return EMBER_OK;
    EM_TRY(em_buf_puts(out, "generation  end tokens:"));
    for (size_t i = 0; i < json_array_size(end); i++)
        EM_TRY(em_buf_printf(out, " %lld", (long long)json_integer_value(json_array_get(end, i))));
    return em_buf_printf(out, "%s; temperature %g, top-k %zu, top-p %g, min-p %g, penalty %g\n",
                         json_array_size(end) ? "" : " none",
                         json_real_value(json_object_get(s, "temperature")), em_size_of(s, "top_k"),
                         json_real_value(json_object_get(s, "top_p")),
                         json_real_value(json_object_get(s, "min_p")),
                         json_real_value(json_object_get(s, "repeat_penalty")));
}

static ember_status print_tensors(const json_t *list, struct em_buf *out)
{
    char bytes[32], shape[96];
    EM_TRY(em_buf_puts(out, "tensors\n"));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *t = json_array_get(list, i), *dims = json_object_get(t, "shape");
        size_t n = 0;
        shape[0] = 0;
        for (size_t d = 0; d < json_array_size(dims) && n + 24 < sizeof shape; d++)
            n += (size_t)snprintf(shape + n, sizeof shape - n, "%s%lld", d ? ", " : "",
                                  (long long)json_integer_value(json_array_get(dims, d)));
        EM_TRY(em_buf_printf(out, "  %-4s %-20s %10s  %s\n", em_text_of(t, "dtype"), shape,
                             em_bytes_text((double)em_size_of(t, "bytes"), bytes),
                             em_text_of(t, "name")));
    }
    return EMBER_OK;
}

static ember_status print(const json_t *root, struct em_buf *out)
{
    EM_TRY(em_buf_printf(out, "%s\n", em_text_of(root, "path")));
    EM_TRY(print_model(json_object_get(root, "model"), out));
    EM_TRY(print_experts(json_object_get(root, "experts"), out));
    EM_TRY(print_weights(json_object_get(root, "weights"), out));
    EM_TRY(print_rest(root, out));
    return print_tensors(json_object_get(root, "tensors"), out);
}

ember_status ember_model_inspect(const char *path, bool json, char **text)
{
    struct subject s = {.path = path};
    json_t *root = json_object();
    ember_status status = root ? ember_start() : em_fail(EMBER_E_NOMEM, "%s: out of memory", path);
    if (status == EMBER_OK) status = open_subject(&s);
    if (status == EMBER_OK) status = em_put_text(root, "path", path);
    if (status == EMBER_OK && s.model) status = add_config(&s, root);
    if (status == EMBER_OK && s.model) status = add_experts(s.model, root);
    if (status == EMBER_OK) status = add_weights(s.weights, root);
    if (status == EMBER_OK) status = add_rest(&s, root);
    if (status == EMBER_OK) status = add_tensors(&s, root);
    close_subject(&s);
    return em_describe(status, root, json, print, text);
}
