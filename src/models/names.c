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

static const char *name_of(struct em_model *m, const struct em_param *p, size_t expert,
                           bool *depthwise)
{
    const char *path = p->tensor.name;
    size_t block = 0, unused = 0;
    *depthwise = false;
    if (!m->family->names) return own_name(&m->arena, path, p->expert, expert);
    for (const struct em_name *n = m->family->names; n->ours; n++) {
        if (!matches(n->ours, path, &block, &unused)) continue;
        *depthwise = n->depthwise;
        return fill(&m->arena, n->theirs, block, expert);
    }
    return path; // a parameter that the family's files do not know: kept under our name
}

ember_status em_model_name_tensors(struct em_model *m)
{
    size_t capacity = 0;
    for (size_t i = 0; i < m->params.count; i++) {
        struct em_param *p = m->params.param[i];
        const size_t parts = p->expert ? p->tensor.dim[0] : 1;
        EM_TRY(
            em_grow(&m->file_tensor, &capacity, m->n_file_tensors + parts, sizeof *m->file_tensor));
        for (size_t e = 0; e < parts; e++) {
            struct em_file_tensor *f = &m->file_tensor[m->n_file_tensors++];
            bool depthwise;
            *f = (struct em_file_tensor){.param = p,
                                         .count = ember_tensor_count(&p->tensor) / parts};
            f->offset = e * f->count;
            f->name = name_of(m, p, e, &depthwise);
            if (!f->name) return EMBER_E_NOMEM;
            for (unsigned d = p->expert ? 1 : 0; d < p->tensor.ndim; d++) {
                if (depthwise && f->ndim == 1) f->dim[f->ndim++] = 1;
                f->dim[f->ndim++] = p->tensor.dim[d];
            }
        }
    }
    return EMBER_OK;
}
