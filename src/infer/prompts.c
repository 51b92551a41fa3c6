#include "infer/prompts.h"

#include <string.h>

#include "base/alloc.h"
#include "base/io.h"
#include "formats/hash.h"

static ember_status check_keys(const json_t *line, const char *name)
{
    static const char *const known[] = {"prompt", "prompt_ids", "id", "seed"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)line, key, value)
    {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            found = found || strcmp(key, known[i]) == 0;
        if (found) continue;
        const char *near = em_did_you_mean(key, known, sizeof known / sizeof *known);
        return em_fail(EMBER_E_FORMAT,
                       "%s: \"%.40s\" is not known%s%s%s (there are: prompt, prompt_ids, id, seed)",
                       name, key, near ? "; did you mean \"" : "", near ? near : "",
                       near ? "\"?" : "");
    }
    return EMBER_OK;
}

static ember_status read_ids(struct em_prompts *all, const json_t *list, struct em_prompt *p)
{
    char found[96];
    if (!json_is_array(list))
        return em_fail(EMBER_E_FORMAT, "%s: prompt_ids has to be a list of token ids, found %s",
                       p->name, em_json_text(list, found, sizeof found));
    p->n_ids = json_array_size(list);
    int32_t *ids = em_arena_alloc(&all->arena, (p->n_ids + 1) * sizeof *ids);
    if (!ids) return EMBER_E_NOMEM;
    for (size_t i = 0; i < p->n_ids; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
            return em_fail(EMBER_E_FORMAT,
                           "%s: prompt_ids[%zu] has to be a token id, from 0 to %d, found %s",
                           p->name, i, INT32_MAX, em_json_text(v, found, sizeof found));
        ids[i] = (int32_t)json_integer_value(v);
    }
    p->ids = ids;
    return EMBER_OK;
}

static ember_status read_line(struct em_prompts *all, struct em_prompt *p)
{
    const json_t *text = json_object_get(p->line, "prompt"),
                 *ids = json_object_get(p->line, "prompt_ids"),
                 *seed = json_object_get(p->line, "seed");
    char found[96];
    if (!json_is_object(p->line))
        return em_fail(EMBER_E_FORMAT, "%s: a line has to be an object, found %s", p->name,
                       em_json_text(p->line, found, sizeof found));
    EM_TRY(check_keys(p->line, p->name));
    if (!text == !ids)
        return em_fail(EMBER_E_FORMAT, "%s: one of prompt and prompt_ids is needed", p->name);
    if (seed) {
        if (!json_is_integer(seed) || json_integer_value(seed) < 0)
            return em_fail(EMBER_E_FORMAT, "%s: seed has to be an integer from 0 up, found %s",
                           p->name, em_json_text(seed, found, sizeof found));
        p->seeded = true;
        p->seed = (uint64_t)json_integer_value(seed);
    }
    if (ids) return read_ids(all, ids, p);
    if (!json_is_string(text))
        return em_fail(EMBER_E_FORMAT, "%s: prompt has to be a string, found %s", p->name,
                       em_json_text(text, found, sizeof found));
    p->text = json_string_value(text);
    p->n_text = json_string_length(text);
    return EMBER_OK;
}

static bool is_empty(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r", text[i]) || !text[i]) return false;
    return true;
}

static ember_status read_all(const char *path, const char *text, size_t size,
                             struct em_prompts *out)
{
    size_t number = 0;
    for (const char *at = text, *end = text + size; at < end;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        const size_t n = stop ? (size_t)(stop - at) : (size_t)(end - at);
        number++;
        if (!is_empty(at, n)) {
            json_t *line;
            const char *name = em_arena_printf(&out->arena, "%s:%zu", path, number);
            if (!name) return EMBER_E_NOMEM;
            EM_TRY(em_grow(&out->prompt, &out->capacity, out->count + 1, sizeof *out->prompt));
            EM_TRY(em_json_parse(name, at, n, 0, &line));
            out->prompt[out->count++] = (struct em_prompt){.name = name, .line = line};
            EM_TRY(read_line(out, &out->prompt[out->count - 1]));
        }
        at += n + 1;
    }
    return out->count ? EMBER_OK : em_fail(EMBER_E_FORMAT, "%s: there is no prompt", path);
}

ember_status em_prompts_read(const char *path, struct em_prompts *out)
{
    struct em_buf text = {0};
    ember_status status = em_read_file(path, 0, &text);
    if (status == EMBER_OK)
        status = em_prompts_parse(path, text.data ? text.data : "", text.size, out);
    em_buf_deinit(&text);
    return status;
}

ember_status em_prompts_parse(const char *name, const char *text, size_t size,
                              struct em_prompts *out)
{
    struct em_prompts p = {.hash = em_hash_bytes(text, size)};
    const ember_status status = read_all(name, text, size, &p);
    if (status != EMBER_OK) {
        em_prompts_deinit(&p);
        return status;
    }
    *out = p;
    return EMBER_OK;
}

void em_prompts_deinit(struct em_prompts *p)
{
    for (size_t i = 0; i < p->count; i++)
        json_decref((json_t *)(uintptr_t)p->prompt[i].line);
    em_free(p->prompt);
    em_arena_deinit(&p->arena);
    *p = (struct em_prompts){0};
}
