// Writing tokenizer.json and tokenizer_config.json, so that Hugging Face's tokenizers gives the
// same ids.
#include "base/alloc.h"
#include "base/io.h"
#include "base/json.h"
#include "text/tokenizer_priv.h"

// json_object_set_new and json_array_append_new take the value, and free it when they fail; a NULL
// value fails too. So a chain of them needs one look at the end.
static json_t *string_of(const void *bytes, size_t n)
{
    return json_stringn(bytes, n);
}

// `raw`: tokens are characters, not spelled in the byte-level alphabet.
static json_t *spelling_of(const struct em_vocab *v, int32_t id, bool raw)
{
    size_t n;
    const uint8_t *bytes = em_vocab_bytes(v, id, &n);
    if (raw || !(v->tokens[id].flags & EM_TOKEN_MODEL)) return string_of(bytes, n);
    struct em_buf text;
    em_buf_init(&text, 0);
    json_t *spelling =
        em_bytes_to_spelling(bytes, n, &text) == EMBER_OK ? string_of(text.data, text.size) : NULL;
    em_buf_deinit(&text);
    return spelling;
}

json_t *em_tokenizer_name_json(const struct em_tokenizer *t, int32_t id)
{
    for (size_t i = 0; i < t->added_count; i++)
        if (t->added[i].id == id) return string_of(t->added[i].content, t->added[i].size);
    return spelling_of(&t->vocab, id, t->characters);
}

static bool set(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value) == 0;
}

static bool append(json_t *array, json_t *value)
{
    return json_array_append_new(array, value) == 0;
}

static json_t *make_vocab(const struct em_tokenizer *t)
{
    const struct em_vocab *v = &t->vocab;
    json_t *vocab = json_object();
    bool fine = vocab;
    for (size_t id = 0; id < v->size && fine; id++) {
        if (!(v->tokens[id].flags & EM_TOKEN_LISTED)) continue;
        json_t *spelling = spelling_of(v, (int32_t)id, t->characters);
        fine = spelling && json_object_setn_new(vocab, json_string_value(spelling),
                                                json_string_length(spelling),
                                                json_integer((json_int_t)id)) == 0;
        json_decref(spelling);
    }
    if (fine) return vocab;
    json_decref(vocab);
    return NULL;
}

// "a b": every version of the readers knows this form, and spellings have no spaces.
static json_t *make_merges(const struct em_tokenizer *t)
{
    json_t *merges = json_array();
    struct em_buf line;
    em_buf_init(&line, 0);
    bool fine = merges;
    for (size_t i = 0; i < t->bpe.merge_count && fine; i++) {
        size_t n;
        em_buf_clear(&line);
        const uint8_t *bytes = em_vocab_bytes(&t->vocab, t->bpe.merges[i].left, &n);
        fine = em_bytes_to_spelling(bytes, n, &line) == EMBER_OK &&
               em_buf_putc(&line, ' ') == EMBER_OK;
        bytes = em_vocab_bytes(&t->vocab, t->bpe.merges[i].right, &n);
        fine = fine && em_bytes_to_spelling(bytes, n, &line) == EMBER_OK &&
               append(merges, string_of(line.data, line.size));
    }
    em_buf_deinit(&line);
    if (fine) return merges;
    json_decref(merges);
    return NULL;
}

static json_t *make_model(const struct em_tokenizer *t)
{
    const struct em_bpe *bpe = &t->bpe;
    json_t *model = json_object();
    const bool fine =
        set(model, "type", json_string("BPE")) && set(model, "dropout", json_null()) &&
        set(model, "unk_token",
            bpe->unknown < 0 ? json_null() : em_tokenizer_name_json(t, bpe->unknown)) &&
        set(model, "continuing_subword_prefix", json_null()) &&
        set(model, "end_of_word_suffix", json_null()) &&
        set(model, "fuse_unk", json_boolean(bpe->fuse_unknown)) &&
        set(model, "byte_fallback", json_false()) &&
        set(model, "ignore_merges", json_boolean(bpe->ignore_merges)) &&
        set(model, "vocab", make_vocab(t)) && set(model, "merges", make_merges(t));
    if (fine) return model;
    json_decref(model);
    return NULL;
}

json_t *em_tokenizer_added_json(const struct em_tokenizer *t)
{
    json_t *list = json_array();
    bool fine = list;
    for (size_t i = 0; i < t->added_count && fine; i++) {
        const struct em_added *a = &t->added[i];
        json_t *item = json_object();
        fine = set(item, "id", json_integer(a->id)) &&
               set(item, "content", string_of(a->content, a->size)) &&
               set(item, "single_word", json_boolean(a->single_word)) &&
               set(item, "lstrip", json_boolean(a->lstrip)) &&
               set(item, "rstrip", json_boolean(a->rstrip)) &&
               set(item, "normalized", json_boolean(a->normalized)) &&
               set(item, "special", json_boolean(a->special));
        if (!fine)
            json_decref(item);
        else
            fine = append(list, item);
    }
    if (fine) return list;
    json_decref(list);
    return NULL;
}

static json_t *make_byte_level(bool prefix_space, bool regex)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", prefix_space,
                     "trim_offsets", 1, "use_regex", regex);
}

static json_t *make_step(const struct em_step *step)
{
    static const char *const behaviors[] = {
        [EM_SPLIT_ISOLATED] = "Isolated",
        [EM_SPLIT_REMOVED] = "Removed",
        [EM_SPLIT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
        [EM_SPLIT_MERGED_WITH_NEXT] = "MergedWithNext",
        [EM_SPLIT_CONTIGUOUS] = "Contiguous",
    };
    const struct em_split *split = &step->split;
    if (split->pattern == EM_PATTERN_NUMERIC)
        return json_pack("{s:s, s:b}", "type", "Digits", "individual_digits",
                         split->behavior == EM_SPLIT_ISOLATED);
    if (!step->regex && !step->literal)
        return make_byte_level(step->prefix_space, split->pattern == EM_PATTERN_GPT2);
    json_t *text =
        step->regex ? json_string(step->regex) : string_of(step->literal, split->literal_size);
    return json_pack("{s:s, s:{s:o}, s:s, s:b}", "type", "Split", "pattern",
                     step->regex ? "Regex" : "String", text, "behavior", behaviors[split->behavior],
                     "invert", split->invert);
}

// ByteLevel comes last: a step of its own, or one more that only maps bytes.
static json_t *make_pre_tokenizer(const struct em_tokenizer *t)
{
    json_t *list = json_array();
    bool fine = list, byte_level = false;
    for (size_t i = 0; i < t->step_count && fine; i++) {
        const struct em_step *s = &t->steps[i];
        byte_level = !s->regex && !s->literal && s->split.pattern != EM_PATTERN_NUMERIC;
        fine = append(list, make_step(s));
    }
    if (fine && !byte_level) fine = append(list, make_byte_level(false, false));
    if (!fine) {
        json_decref(list);
        return NULL;
    }
    if (json_array_size(list) > 1)
        return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list);
    json_t *only = json_incref(json_array_get(list, 0));
    json_decref(list);
    return only;
}

static bool append_template_token(const struct em_tokenizer *t, int32_t id, json_t *items,
                                  json_t *tokens)
{
    json_t *name = em_tokenizer_name_json(t, id);
    const bool fine =
        name &&
        append(items, json_pack("{s:{s:O, s:i}}", "SpecialToken", "id", name, "type_id", 0)) &&
        json_object_set_new(
            tokens, json_string_value(name),
            json_pack("{s:O, s:[i], s:[O]}", "id", name, "ids", (int)id, "tokens", name)) == 0;
    json_decref(name);
    return fine;
}

static json_t *make_post_processor(const struct em_tokenizer *t)
{
    if (t->before_count + t->after_count == 0 && t->characters) return json_null();
    if (t->before_count + t->after_count == 0)
        return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                         "trim_offsets", 1, "use_regex", 1);
    json_t *single = json_array(), *pair = NULL, *tokens = json_object();
    bool fine = single && tokens;
    for (size_t i = 0; i < t->before_count && fine; i++)
        fine = append_template_token(t, t->before[i], single, tokens);
    fine = fine && append(single, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
    for (size_t i = 0; i < t->after_count && fine; i++)
        fine = append_template_token(t, t->after[i], single, tokens);
    if (fine)
        pair = json_deep_copy(
            single); // a pair is the two texts one after the other, each in its template
    fine = pair;
    for (size_t i = 0; i < json_array_size(single) && fine; i++) {
        json_t *item = json_deep_copy(json_array_get(single, i)),
               *part = json_object_get(item, "Sequence");
        fine = item && (!part || set(part, "id", json_string("B")));
        if (!part) part = json_object_get(item, "SpecialToken");
        fine = fine && set(part, "type_id", json_integer(1));
        if (!fine)
            json_decref(item);
        else
            fine = append(pair, item);
    }
    json_t *p = fine ? json_pack("{s:s, s:O, s:O, s:O}", "type", "TemplateProcessing", "single",
                                 single, "pair", pair, "special_tokens", tokens)
                     : NULL;
    json_decref(single);
    json_decref(pair);
    json_decref(tokens);
    return p;
}

static json_t *make_tokenizer(const struct em_tokenizer *t)
{
    json_t *root = json_object();
    const bool fine =
        set(root, "version", json_string("1.0")) && set(root, "truncation", json_null()) &&
        set(root, "padding", json_null()) &&
        set(root, "added_tokens", em_tokenizer_added_json(t)) &&
        set(root, "normalizer", t->nfc ? json_pack("{s:s}", "type", "NFC") : json_null()) &&
        set(root, "pre_tokenizer", t->characters ? json_null() : make_pre_tokenizer(t)) &&
        set(root, "post_processor", make_post_processor(t)) &&
        set(root, "decoder",
            t->characters ? json_pack("{s:s}", "type", "Fuse")
                          : json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel",
                                      "add_prefix_space", 1, "trim_offsets", 1, "use_regex", 1)) &&
        set(root, "model", make_model(t));
    if (fine) return root;
    json_decref(root);
    return NULL;
}

static bool set_role(const struct em_tokenizer *t, json_t *config, const char *key, int32_t id)
{
    return id < 0 || set(config, key, em_tokenizer_name_json(t, id));
}

static bool add_decoder_entry(const struct em_added *a, json_t *decoder)
{
    char id[16];
    snprintf(id, sizeof id, "%d", a->id);
    json_t *content = string_of(a->content, a->size);
    return content && set(decoder, id,
                          json_pack("{s:o, s:b, s:b, s:b, s:b, s:b}", "content", content, "lstrip",
                                    a->lstrip, "normalized", a->normalized, "rstrip", a->rstrip,
                                    "single_word", a->single_word, "special", a->special));
}

static json_t *make_config(const struct em_tokenizer *t)
{
    json_t *config = json_object(), *decoder = json_object();
    bool fine = config && decoder;
    for (size_t i = 0; i < t->added_count && fine; i++)
        fine = add_decoder_entry(&t->added[i], decoder);
    fine = fine && json_object_set(config, "added_tokens_decoder", decoder) == 0 &&
           set_role(t, config, "bos_token", t->bos) && set_role(t, config, "eos_token", t->eos) &&
           set_role(t, config, "pad_token", t->pad) &&
           set(config, "clean_up_tokenization_spaces", json_false()) &&
           set(config, "model_input_names", json_pack("[s, s]", "input_ids", "attention_mask")) &&
           set(config, "tokenizer_class", json_string("PreTrainedTokenizerFast"));
    json_decref(decoder);
    if (fine) return config;
    json_decref(config);
    return NULL;
}

static ember_status write_json(const char *directory, const char *name, json_t *value)
{
    if (!value) return em_fail(EMBER_E_NOMEM, "out of memory: writing %s/%s", directory, name);
    char *path = em_path_join(directory, name);
    const ember_status status = path ? em_json_write(path, value, 2) : EMBER_E_NOMEM;
    em_free(path);
    json_decref(value);
    return status;
}

ember_status em_tokenizer_save(const struct em_tokenizer *t, const char *directory)
{
    EM_TRY(em_make_directories(directory));
    EM_TRY(write_json(directory, "tokenizer.json", make_tokenizer(t)));
    return write_json(directory, "tokenizer_config.json", make_config(t));
}
