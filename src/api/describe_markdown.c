// The reference of components, docs/components.md, from their option tables.
#include "api/describe.h"

#include <string.h>

#include <ember/layer.h>

static const char *const about[EMBER_KINDS] = {
    [EMBER_SEQUENCE_MIXER] = "[T, D] to [T, D], looking at earlier tokens of the same sequence.",
    [EMBER_CHANNEL_MIXER] =
        "[T, D] to [T, D], each token by itself. Any of them can be an expert of a mixture.",
    [EMBER_NORM] = "[T, D] to [T, D].",
    [EMBER_ROUTER] = "Who gets which token: [T, D] to indices and weights [T, K] of experts.",
    [EMBER_COMBINER] = "How the outputs of a token's experts become one.",
    [EMBER_GATE] = "[T, D] to [T, E]: a logit for each expert, by which routers choose.",
    [EMBER_BLOCK] = "Norms and residual paths around a sequence mixer and a channel mixer.",
    [EMBER_FAMILY] = "What a `config.json`'s `model_type` means. Those of transformers have the "
                     "keys that it gives them.",
    [EMBER_OPTIMIZER] = "`train.optimizer` of a recipe.",
    [EMBER_SCHEDULE] = "`train.schedule` of a recipe: the learning rate over the steps.",
    [EMBER_SAMPLER] = "How the next token is chosen; they run in the order of their command-line "
                      "options or of the generation config.",
};

// Text in a cell or paragraph: what Markdown would take for its own is escaped.
static ember_status put_text(struct em_buf *out, const char *text)
{
    for (; *text; text++) {
        if (strchr("|<>*_[]`", *text)) EM_TRY(em_buf_putc(out, '\\'));
        EM_TRY(em_buf_putc(out, *text));
    }
    return EMBER_OK;
}

// The same as code: a cell ends at '|' even there.
static ember_status put_code(struct em_buf *out, const char *text)
{
    if (!*text) return EMBER_OK;
    EM_TRY(em_buf_putc(out, '`'));
    for (; *text; text++) {
        if (*text == '|') EM_TRY(em_buf_putc(out, '\\'));
        EM_TRY(em_buf_putc(out, *text));
    }
    return em_buf_putc(out, '`');
}

// "red|green" as `red`, `green`; a range as it is.
static ember_status put_range(struct em_buf *out, const json_t *option)
{
    const char *range = em_text_of(option, "range");
    if (strcmp(em_text_of(option, "type"), "one of") != 0) return put_text(out, range);
    while (*range) {
        const size_t n = strcspn(range, "|");
        EM_TRY(em_buf_printf(out, "`%.*s`%s", (int)n, range, range[n] ? ", " : ""));
        range += n + (range[n] == '|');
    }
    return EMBER_OK;
}

static ember_status put_option(struct em_buf *out, const json_t *o)
{
    EM_TRY(em_buf_printf(out, "| `%s` | %s | ", em_text_of(o, "name"), em_text_of(o, "type")));
    EM_TRY(put_code(out, em_text_of(o, "default")));
    EM_TRY(em_buf_puts(out, " | "));
    EM_TRY(put_range(out, o));
    EM_TRY(em_buf_puts(out, " | "));
    EM_TRY(put_text(out, em_text_of(o, "help")));
    return em_buf_puts(out, " |\n");
}

static ember_status put_options(struct em_buf *out, const json_t *options)
{
    if (!json_array_size(options)) return EMBER_OK;
    EM_TRY(em_buf_puts(out, "\n| option | type | default | range | meaning |\n"
                            "| --- | --- | --- | --- | --- |\n"));
    for (size_t i = 0; i < json_array_size(options); i++)
        EM_TRY(put_option(out, json_array_get(options, i)));
    return EMBER_OK;
}

static ember_status put_list(struct em_buf *out, const char *title, const json_t *list, bool code)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        EM_TRY(em_buf_puts(out, i ? ", " : title));
        EM_TRY(code ? put_code(out, text) : put_text(out, text));
    }
    return json_array_size(list) ? em_buf_puts(out, ".\n") : EMBER_OK;
}

static ember_status put_component(struct em_buf *out, const json_t *o)
{
    EM_TRY(em_buf_printf(out, "\n### `%s`\n\n", em_text_of(o, "name")));
    EM_TRY(put_text(out, em_text_of(o, "help")));
    EM_TRY(em_buf_puts(out, ".\n"));
    const json_t *plugin = json_object_get(o, "plugin");
    if (plugin)
        EM_TRY(em_buf_printf(out, "\nOf the plug-in `%s` %s.\n", em_text_of(plugin, "name"),
                             em_text_of(plugin, "version")));
    EM_TRY(put_list(out, "\nProperties: ", json_object_get(o, "properties"), false));
    EM_TRY(put_list(out, "\nKeys of config.json: ", json_object_get(o, "config_keys"), true));
    return put_options(out, json_object_get(o, "options"));
}

ember_status em_print_markdown(const json_t *root, struct em_buf *out)
{
    const json_t *list = json_object_get(root, "components");
    int kind = -1;
    EM_TRY(em_buf_puts(
        out, "# Components\n\n"
             "Every registered component with its options. This page is made from the "
             "option tables by `make docs` (`ember registry --markdown`); a test holds it "
             "to them.\n[configs.md](configs.md) says how components are put together, "
             "[CONTRIBUTING.md](../CONTRIBUTING.md) how one is added.\n"));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        const char *name = em_text_of(o, "kind");
        if (kind < 0 || strcmp(ember_kind_name((ember_kind)kind), name) != 0) {
            for (kind = 0; strcmp(ember_kind_name((ember_kind)kind), name) != 0;)
                kind++;
            EM_TRY(em_buf_printf(out, "\n## %s\n", name));
            if (about[kind]) EM_TRY(em_buf_printf(out, "\n%s\n", about[kind]));
        }
        EM_TRY(put_component(out, o));
    }
    return EMBER_OK;
}
