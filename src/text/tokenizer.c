#include "text/tokenizer.h"

#include <string.h>
#define XXH_STATIC_LINKING_ONLY // the size of XXH3_state_t, so that it comes from our allocator
#include <xxhash.h>

#include "base/alloc.h"
#include "text/tokenizer_priv.h"
#include "text/unicode.h"

ember_status em_tokenizer_new(struct em_tokenizer **tokenizer)
{
    struct em_tokenizer *t = em_calloc(1, sizeof *t);
    if (!t) return EMBER_E_NOMEM;
    em_bpe_init(&t->bpe);
    em_buf_init(&t->vocab.pool, 0);
    t->bos = t->eos = t->pad = -1;
    *tokenizer = t;
    return EMBER_OK;
}

void em_tokenizer_close(struct em_tokenizer *t)
{
    if (!t) return;
    em_vocab_deinit(&t->vocab);
    em_bpe_deinit(&t->bpe);
    for (size_t i = 0; i < t->added_count; i++)
        em_free(t->added[i].content);
    em_free(t->added);
    em_matcher_deinit(&t->raw);
    em_matcher_deinit(&t->normalized);
    for (size_t i = 0; i < t->step_count; i++) {
        em_free(t->steps[i].literal);
        em_free(t->steps[i].regex);
    }
    em_free(t);
}

// A token that the vocabulary spells too may have other bytes there: "é" is the byte E9 in the
// byte-level alphabet. The vocabulary's bytes stay.
static ember_status add_to_vocab(struct em_tokenizer *t, const struct em_added *token,
                                 unsigned flags)
{
    struct em_buf mapped;
    bool has_bytes;
    em_buf_init(&mapped, 0);
    ember_status status = em_spelling_to_bytes(token->content, token->size, &mapped, &has_bytes);
    if (status == EMBER_OK) {
        const int32_t model_id =
            has_bytes ? em_vocab_find(&t->vocab, mapped.data, mapped.size) : -1;
        if (model_id >= 0 && model_id != token->id)
            status =
                em_fail(EMBER_E_FORMAT, "added token \"%s\" has id %d, and %d in the vocabulary",
                        token->content, token->id, model_id);
        else if (model_id >= 0)
            status = em_vocab_add(&t->vocab, token->id, mapped.data, mapped.size, flags);
        else
            status = em_vocab_add(&t->vocab, token->id, token->content, token->size, flags);
    }
    em_buf_deinit(&mapped);
    return status;
}

ember_status em_tokenizer_add(struct em_tokenizer *t, const struct em_added *token)
{
    if (token->size == 0 || token->size > EM_ADDED_LONGEST)
        return em_fail(EMBER_E_UNSUPPORTED,
                       "added token %d: its text has %zu bytes; expected 1 to %d", token->id,
                       token->size, EM_ADDED_LONGEST);
    EM_TRY(add_to_vocab(t, token, EM_TOKEN_ADDED | (token->special ? EM_TOKEN_SPECIAL : 0)));
    EM_TRY(em_grow(&t->added, &t->added_capacity, t->added_count + 1, sizeof *t->added));
    struct em_added copy = *token;
    copy.content = em_memdup(token->content, token->size);
    if (!copy.content) return EMBER_E_NOMEM;
    t->added[t->added_count++] = copy;
    return EMBER_OK;
}

static ember_status fill_matchers(struct em_tokenizer *t)
{
    struct em_buf text;
    em_buf_init(&text, 0);
    ember_status status = EMBER_OK;
    for (size_t i = 0; i < t->added_count && status == EMBER_OK; i++) {
        const struct em_added *a = &t->added[i];
        em_buf_clear(&text);
        if (a->normalized && t->nfc)
            status = em_nfc((const uint8_t *)a->content, a->size, &text);
        else
            status = em_buf_add(&text, a->content, a->size);
        if (status == EMBER_OK)
            status = em_matcher_add(a->normalized ? &t->normalized : &t->raw, text.data, text.size,
                                    (int32_t)i);
    }
    em_buf_deinit(&text);
    return status;
}

static void hash_number(XXH3_state_t *state, uint64_t number)
{
    uint8_t bytes[8];
    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(number >> 8 * i);
    XXH3_64bits_update(state, bytes, sizeof bytes);
}

static void hash_bytes(XXH3_state_t *state, const void *bytes, size_t n)
{
    hash_number(state, n);
    XXH3_64bits_update(state, bytes, n);
}

static ember_status hash_all(struct em_tokenizer *t)
{
    XXH3_state_t *state = em_alloc_aligned(sizeof *state);
    if (!state) return EMBER_E_NOMEM;
    XXH3_64bits_reset(state);
    hash_bytes(state, "ember tokenizer 1", 17);
    hash_number(state, t->vocab.size);
    for (size_t id = 0; id < t->vocab.size; id++) {
        size_t n;
        const uint8_t *bytes = em_vocab_bytes(&t->vocab, (int32_t)id, &n);
        hash_number(state, t->vocab.tokens[id].flags);
        hash_bytes(state, n ? bytes : (const uint8_t *)"", n);
    }
    hash_number(state, t->bpe.merge_count);
    for (size_t i = 0; i < t->bpe.merge_count; i++) {
        hash_number(state, (uint64_t)t->bpe.merges[i].left);
        hash_number(state, (uint64_t)t->bpe.merges[i].right);
    }
    hash_number(state, (uint64_t)(int64_t)t->bpe.unknown);
    hash_number(state, (t->bpe.fuse_unknown ? 1u : 0u) | (t->bpe.ignore_merges ? 2u : 0u) |
                           (t->nfc ? 4u : 0u));
    if (t->characters) hash_bytes(state, "characters", 10);
    hash_number(state, t->added_count);
    for (size_t i = 0; i < t->added_count; i++) {
        const struct em_added *a = &t->added[i];
        hash_bytes(state, a->content, a->size);
        hash_number(state, (uint64_t)a->id);
        hash_number(state, (a->special ? 1u : 0u) | (a->normalized ? 2u : 0u) |
                               (a->lstrip ? 4u : 0u) | (a->rstrip ? 8u : 0u) |
                               (a->single_word ? 16u : 0u));
    }
    hash_number(state, t->step_count);
    for (size_t i = 0; i < t->step_count; i++) {
        const struct em_step *s = &t->steps[i];
        hash_number(state, (uint64_t)s->split.pattern << 8 | (uint64_t)s->split.behavior << 4 |
                               (s->split.invert ? 1u : 0u) | (s->prefix_space ? 2u : 0u));
        hash_bytes(state, s->literal ? s->literal : "", s->split.literal_size);
    }
    hash_bytes(state, t->before, t->before_count * sizeof *t->before);
    hash_bytes(state, t->after, t->after_count * sizeof *t->after);
    t->hash = XXH3_64bits_digest(state);
    em_free(state);
    return EMBER_OK;
}

ember_status em_tokenizer_finish(struct em_tokenizer *t)
{
    EM_TRY(em_bpe_finish(&t->bpe, &t->vocab));
    EM_TRY(fill_matchers(t));
    return hash_all(t);
}

ember_status em_tokenizer_lfm2_specials(struct em_tokenizer *t)
{
    static const char *const names[] = {"<|pad|>", "<|startoftext|>", "<|endoftext|>"};
    for (int32_t id = 0; id < 3; id++) {
        struct em_added token = {.size = strlen(names[id]), .id = id, .special = true};
        char name[16];
        memcpy(name, names[id], token.size + 1);
        token.content = name;
        EM_TRY(em_vocab_add(&t->vocab, id, name, token.size, EM_TOKEN_MODEL | EM_TOKEN_LISTED));
        EM_TRY(em_tokenizer_add(t, &token));
    }
    t->pad = 0;
    t->bos = 1;
    t->eos = 2;
    t->before[0] = t->bos;
    t->before_count = 1;
    return EMBER_OK;
}

ember_status em_tokenizer_lfm2_split(struct em_tokenizer *t)
{
    char *regex = em_strdup(em_pattern_lfm2);
    if (!regex) return EMBER_E_NOMEM;
    t->steps[0] = (struct em_step){
        .split = {.pattern = EM_PATTERN_LLAMA3, .behavior = EM_SPLIT_ISOLATED}, .regex = regex};
    t->step_count = 1;
    return EMBER_OK;
}

ember_status em_tokenizer_bytes(struct em_tokenizer **tokenizer)
{
    struct em_tokenizer *t;
    EM_TRY(em_tokenizer_new(&t));
    ember_status status = em_tokenizer_lfm2_specials(t);
    for (int32_t b = 0; b < 256 && status == EMBER_OK; b++)
        status = em_vocab_add(&t->vocab, 3 + b, &(uint8_t){(uint8_t)b}, 1,
                              EM_TOKEN_MODEL | EM_TOKEN_LISTED);
    if (status == EMBER_OK) status = em_tokenizer_finish(t);
    if (status == EMBER_OK)
        *tokenizer = t;
    else
        em_tokenizer_close(t);
    return status;
}

size_t em_tokenizer_size(const struct em_tokenizer *tokenizer)
{
    return tokenizer->vocab.size;
}

size_t em_tokenizer_merges(const struct em_tokenizer *tokenizer)
{
    return tokenizer->bpe.merge_count;
}

int32_t em_tokenizer_bos(const struct em_tokenizer *tokenizer)
{
    return tokenizer->bos;
}

int32_t em_tokenizer_eos(const struct em_tokenizer *tokenizer)
{
    return tokenizer->eos;
}

int32_t em_tokenizer_pad(const struct em_tokenizer *tokenizer)
{
    return tokenizer->pad;
}

uint64_t em_tokenizer_hash(const struct em_tokenizer *tokenizer)
{
    return tokenizer->hash;
}

int32_t em_tokenizer_find(const struct em_tokenizer *t, const void *bytes, size_t n)
{
    for (size_t i = 0; i < t->added_count; i++)
        if (t->added[i].size == n && memcmp(t->added[i].content, bytes, n) == 0)
            return t->added[i].id;
    return em_vocab_find(&t->vocab, bytes, n);
}

const uint8_t *em_tokenizer_token(const struct em_tokenizer *t, int64_t id, size_t *n)
{
    return em_vocab_has(&t->vocab, id) ? em_vocab_bytes(&t->vocab, (int32_t)id, n) : NULL;
}

bool em_tokenizer_is_special(const struct em_tokenizer *t, int64_t id)
{
    return em_vocab_has(&t->vocab, id) && (t->vocab.tokens[id].flags & EM_TOKEN_SPECIAL);
}
