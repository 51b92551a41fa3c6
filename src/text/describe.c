// What a tokenizer consists of, for people and programs.
#include "base/json.h"
#include "text/tokenizer_priv.h"

static const char *const patterns[] = {
    [EM_PATTERN_NONE] = "no cut",
    [EM_PATTERN_GPT2] = "GPT-2's pattern",
    [EM_PATTERN_LLAMA3] = "LFM2's pattern (Llama 3's)",
    [EM_PATTERN_QWEN2] = "Qwen2's pattern",
    [EM_PATTERN_NUMERIC] = "digits",
    [EM_PATTERN_LITERAL] = "a fixed text",
};

static ember_status describe_role(const struct em_tokenizer *t, const char *name, int32_t id,
                                  struct em_buf *out)
{
    if (id < 0) return em_buf_printf(out, "%s: none\n", name);
    size_t n;
    const uint8_t *bytes = em_vocab_bytes(&t->vocab, id, &n);
    return em_buf_printf(out, "%s: %d %.*s\n", name, id, (int)n, (const char *)bytes);
}

static ember_status describe_text(const struct em_tokenizer *t, struct em_buf *out)
{
    size_t special = 0;
    for (size_t i = 0; i < t->added_count; i++)
        special += t->added[i].special;
    EM_TRY(em_buf_printf(out, "model: byte-level BPE, %zu tokens, %zu merges%s\n", t->vocab.size,
                         t->bpe.merge_count, t->bpe.ignore_merges ? ", whole pieces first" : ""));
    EM_TRY(
        em_buf_printf(out, "added tokens: %zu, of them special: %zu\n", t->added_count, special));
    EM_TRY(em_buf_printf(out, "normalizer: %s\n", t->nfc ? "NFC" : "none"));
    EM_TRY(em_buf_puts(out, "split:"));
    for (size_t i = 0; i < t->step_count; i++)
        EM_TRY(em_buf_printf(out, "%s %s%s", i ? "," : "", patterns[t->steps[i].split.pattern],
                             t->steps[i].prefix_space ? " after a space put in front" : ""));
    EM_TRY(em_buf_puts(out, t->step_count ? "\n" : " none\n"));
    EM_TRY(describe_role(t, "bos", t->bos, out));
    EM_TRY(describe_role(t, "eos", t->eos, out));
    EM_TRY(describe_role(t, "pad", t->pad, out));
    EM_TRY(em_buf_puts(out, "template:"));
    for (size_t i = 0; i < t->before_count; i++)
        EM_TRY(em_buf_printf(out, " %d", t->before[i]));
    EM_TRY(em_buf_puts(out, " TEXT"));
    for (size_t i = 0; i < t->after_count; i++)
        EM_TRY(em_buf_printf(out, " %d", t->after[i]));
    return em_buf_printf(out, "\nhash: %016llx\n", (unsigned long long)t->hash);
}

static json_t *make_role(const struct em_tokenizer *t, int32_t id)
{
    if (id < 0) return json_null();
    json_t *name = em_tokenizer_name_json(t, id);
    return name ? json_pack("{s:i, s:o}", "id", (int)id, "token", name) : NULL;
}

static json_t *make_ids(const int32_t *ids, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count && list; i++)
        if (json_array_append_new(list, json_integer(ids[i])) != 0) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

static json_t *make_split(const struct em_tokenizer *t)
{
    json_t *list = json_array();
    for (size_t i = 0; i < t->step_count && list; i++) {
        const struct em_step *s = &t->steps[i];
        json_t *step = json_pack("{s:s, s:b}", "by", patterns[s->split.pattern], "prefix_space",
                                 s->prefix_space);
        bool fine = step;
        if (fine && s->regex) fine = json_object_set_new(step, "regex", json_string(s->regex)) == 0;
        if (!fine) json_decref(step);
        if (!fine || json_array_append_new(list, step) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

static ember_status describe_json(const struct em_tokenizer *t, struct em_buf *out)
{
    json_t *value = json_object();
    const struct {
        const char *key;
        json_t *value;
    } members[] = {
        {"model", json_string("byte-level BPE")},
        {"tokens", json_integer((json_int_t)t->vocab.size)},
        {"merges", json_integer((json_int_t)t->bpe.merge_count)},
        {"ignore_merges", json_boolean(t->bpe.ignore_merges)},
        {"added_tokens", em_tokenizer_added_json(t)},
        {"normalizer", t->nfc ? json_string("NFC") : json_null()},
        {"split", make_split(t)},
        {"bos", make_role(t, t->bos)},
        {"eos", make_role(t, t->eos)},
        {"pad", make_role(t, t->pad)},
        {"before", make_ids(t->before, t->before_count)},
        {"after", make_ids(t->after, t->after_count)},
        {"hash", json_sprintf("%016llx", (unsigned long long)t->hash)},
    };
    bool fine = value;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) // takes each, also when it fails
        fine = json_object_set_new(value, members[i].key, members[i].value) == 0 && fine;
    ember_status status = fine ? em_json_print(value, 2, out)
                               : em_fail(EMBER_E_NOMEM, "out of memory: inspecting a tokenizer");
    json_decref(value);
    if (status == EMBER_OK) status = em_buf_putc(out, '\n');
    return status;
}

ember_status em_tokenizer_describe(const struct em_tokenizer *t, bool json, struct em_buf *out)
{
    return json ? describe_json(t, out) : describe_text(t, out);
}
