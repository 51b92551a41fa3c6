// Names in files: patterns with '#' for the block and '@' for the expert.
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "models/model.h"
#include "models/model_priv.h"

// Matches a path against a pattern with '#' and '@'; the numbers found go to block and expert.
static bool matches(const char *pattern, const char *path, size_t *block, size_t *expert)
{
    while (*pattern) {
        if (*pattern == '#' || *pattern == '@') {
            size_t n = 0;
            const char *start = path;
            while (*path >= '0' && *path <= '9')
                n = n * 10 + (size_t)(*path++ - '0');
            if (path == start) return false;
            *(*pattern == '#' ? block : expert) = n;
            pattern++;
        } else if (*pattern++ != *path++) {
            return false;
        }
    }
    return !*path;
}

static const char *fill(struct em_arena *arena, const char *pattern, size_t block, size_t expert)
{
    char text[256];
    size_t used = 0;
    for (; *pattern && used + 24 < sizeof text; pattern++) {
        if (*pattern == '#' || *pattern == '@')
            used += (size_t)snprintf(text + used, sizeof text - used, "%zu",
                                     *pattern == '#' ? block : expert);
        else
            text[used++] = *pattern;
    }
    text[used] = '\0';
    return em_arena_strdup(arena, text);
}

// Without a table names are ours; stacked experts ("..expert.gate.weight") are written one by one
// ("..experts.3.gate.weight").
static const char *own_name(struct em_arena *arena, const char *path, bool stacked, size_t expert)
{
    const char *at = stacked ? strstr(path, ".expert.") : NULL;
    if (!at) return path;
    return em_arena_printf(arena, "%.*s.experts.%zu.%s", (int)(at - path), path, expert,
                           at + strlen(".expert."));
}

// `name` as this model's files have it: without the family's prefix where they leave it out.
static const char *in_files(const struct em_model *m, const char *name)
{
    const size_t n = m->bare_names ? strlen(m->family->prefix) : 0;
    return n && strncmp(name, m->family->prefix, n) == 0 ? name + n : name;
}

const char *em_model_copied_name(const struct em_model *m, const char *name, char *text,
                                 size_t size)
{
    for (const struct em_name *c = m->family->copies; c && c->ours; c++) {
        size_t block = 0, number = 0, used = 0;
        if (!matches(in_files(m, c->ours), name, &block, &number)) continue;
        for (const char *p = in_files(m, c->theirs); *p && used + 24 < size; p++)
            used += (size_t)(*p == '#' ? snprintf(text + used, size - used, "%zu", block)
                                       : snprintf(text + used, size - used, "%c", *p));
        return text;
    }
    return NULL;
}

const char *em_model_copy_of(struct em_arena *arena, const struct em_model *m, const char *name,
                             size_t i, ember_status *status)
{
    for (const struct em_name *c = m->family->copies; c && c->ours && m->family->copy_number; c++) {
        size_t block = 0, unused = 0;
        if (!matches(in_files(m, c->theirs), name, &block, &unused)) continue;
        const size_t number = m->family->copy_number(m->form, block, i);
        if (!number) return NULL;
        const char *copy = fill(arena, in_files(m, c->ours), block, number);
        if (!copy) *status = EMBER_E_NOMEM;
        return copy;
    }
    return NULL;
}

static const char *name_of(struct em_model *m, const struct em_weights *weights,
                           const struct em_param *p, size_t expert, int *shape)
{
    const char *path = p->tensor.name;
    if (m->family->name_of) {
        ember_status status = EMBER_OK;
        *shape = EM_AS_IT_IS;
        const char *name = m->family->name_of(&m->arena, m->form, weights, path, &status);
        return name || status != EMBER_OK ? name : path;
    }
    size_t block = 0, unused = 0;
    *shape = EM_AS_IT_IS;
    if (!m->family->names) return own_name(&m->arena, path, p->expert, expert);
    for (const struct em_name *n = m->family->names; n->ours; n++) {
        if (!matches(n->ours, path, &block, &unused)) continue;
        *shape = n->shape;
        return fill(&m->arena, in_files(m, n->theirs), block, expert);
    }
    return path; // a parameter that the family's files do not know: kept under our name
}

// A file that has no name with the prefix leaves it out everywhere.
static bool has_bare_names(const struct em_model *m, const struct em_weights *weights)
{
    const char *prefix = m->family->prefix;
    if (!prefix || !weights) return false;
    for (size_t i = 0; i < em_weights_count(weights); i++)
        if (strncmp(em_weights_at(weights, i)->name, prefix, strlen(prefix)) == 0) return false;
    return true;
}

ember_status em_model_name_tensors(struct em_model *m, const struct em_weights *weights)
{
    size_t capacity = 0;
    m->bare_names = has_bare_names(m, weights);
    for (size_t i = 0; i < m->params.count; i++) {
        struct em_param *p = m->params.param[i];
        const size_t parts = p->expert ? p->tensor.dim[0] : 1;
        EM_TRY(
            em_grow(&m->file_tensor, &capacity, m->n_file_tensors + parts, sizeof *m->file_tensor));
        for (size_t e = 0; e < parts; e++) {
            struct em_file_tensor *f = &m->file_tensor[m->n_file_tensors++];
            int shape;
            *f = (struct em_file_tensor){.param = p,
                                         .count = ember_tensor_count(&p->tensor) / parts};
            f->offset = e * f->count;
            f->name = name_of(m, weights, p, e, &shape);
            if (!f->name) return EMBER_E_NOMEM;
            for (int ones = shape - EM_DEPTHWISE; ones > 0; ones--)
                f->dim[f->ndim++] = 1;
            for (unsigned d = p->expert ? 1 : 0; d < p->tensor.ndim; d++) {
                if (shape == EM_DEPTHWISE && f->ndim == 1) f->dim[f->ndim++] = 1;
                f->dim[f->ndim++] = p->tensor.dim[d];
            }
        }
    }
    return EMBER_OK;
}
