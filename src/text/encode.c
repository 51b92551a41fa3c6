// Text to ids: repair, added tokens, normalisation, cuts, merges, template.
#include <string.h>

#include "base/alloc.h"
#include "text/tokenizer_priv.h"
#include "text/unicode.h"

struct em_encoder {
    const struct em_tokenizer *tokenizer;
    struct em_bpe_work *work;
    struct em_buf repaired, composed, prefixed[EM_STEPS_MOST];
};

// One call of em_encode.
struct encoding {
    struct em_encoder *encoder;
    const struct em_tokenizer *t;
    unsigned flags;
    struct em_ids *ids;
};

ember_status em_encoder_create(const struct em_tokenizer *tokenizer, struct em_encoder **encoder)
{
    struct em_encoder *e = em_calloc(1, sizeof *e);
    if (!e) return EMBER_E_NOMEM;
    e->tokenizer = tokenizer;
    em_buf_init(&e->repaired, 0);
    em_buf_init(&e->composed, 0);
    for (size_t i = 0; i < EM_STEPS_MOST; i++)
        em_buf_init(&e->prefixed[i], 0);
    const ember_status status = em_bpe_work_create(&e->work);
    if (status == EMBER_OK)
        *encoder = e;
    else
        em_encoder_destroy(e);
    return status;
}

void em_encoder_destroy(struct em_encoder *encoder)
{
    if (!encoder) return;
    em_bpe_work_destroy(encoder->work);
    em_buf_deinit(&encoder->repaired);
    em_buf_deinit(&encoder->composed);
    for (size_t i = 0; i < EM_STEPS_MOST; i++)
        em_buf_deinit(&encoder->prefixed[i]);
    em_free(encoder);
}

// Each piece of a step goes through the steps after it, and what they leave to the model.
static ember_status run_steps(const struct encoding *c, size_t step, const uint8_t *s, size_t n)
{
    if (step == c->t->step_count)
        return em_bpe_encode(&c->t->bpe, &c->t->vocab, c->encoder->work, s, n, c->ids);
    const struct em_step *this = &c->t->steps[step];
    if (this->prefix_space && s[0] != ' ') {
        struct em_buf *prefixed = &c->encoder->prefixed[step];
        em_buf_clear(prefixed);
        EM_TRY(em_buf_putc(prefixed, ' '));
        EM_TRY(em_buf_add(prefixed, s, n));
        s = (const uint8_t *)prefixed->data;
        n = prefixed->size;
    }
    size_t position = 0, begin, end;
    while (em_split_next(&this->split, s, n, &position, &begin, &end))
        EM_TRY(run_steps(c, step + 1, s + begin, end - begin));
    return EMBER_OK;
}

static ember_status encode_plain(const struct encoding *c, const uint8_t *s, size_t n)
{
    if (c->t->characters) return em_encode_characters(c->t, s, n, c->ids);
    return n == 0 ? EMBER_OK : run_steps(c, 0, s, n);
}

typedef ember_status gap_function(const struct encoding *c, const uint8_t *s, size_t n);

// Cuts the matcher's tokens out of s and hands what is between them to `gap`.
static ember_status cut_added(const struct encoding *c, const struct em_matcher *matcher,
                              gap_function *gap, const uint8_t *s, size_t n)
{
    size_t scanned = 0, done = 0, begin, end;
    int32_t place;
    while ((place = em_matcher_next(matcher, s, n, scanned, &begin, &end)) >= 0) {
        const struct em_added *token = &c->t->added[place];
        scanned = end;
        if (token->special && !(c->flags & EM_ENCODE_PARSE_SPECIAL)) continue;
        if (!em_added_stands(token, s, n, done, &begin, &end)) continue;
        if (done < begin) EM_TRY(gap(c, s + done, begin - done));
        EM_TRY(em_ids_push(c->ids, token->id));
        done = end;
    }
    return done < n ? gap(c, s + done, n - done) : EMBER_OK;
}

static ember_status encode_gap(const struct encoding *c, const uint8_t *s, size_t n)
{
    if (c->t->nfc && !em_nfc_is_stable(s, n)) {
        struct em_buf *composed = &c->encoder->composed;
        em_buf_clear(composed);
        EM_TRY(em_nfc(s, n, composed));
        s = (const uint8_t *)composed->data;
        n = composed->size;
    }
    return cut_added(c, &c->t->normalized, encode_plain, s, n);
}

static ember_status encode_all(const struct encoding *c, const uint8_t *s, size_t n)
{
    const struct em_tokenizer *t = c->t;
    const bool template = c->flags & EM_ENCODE_ADD_SPECIAL;
    for (size_t i = 0; template && i < t->before_count; i++)
        EM_TRY(em_ids_push(c->ids, t->before[i]));
    if (em_utf8_valid(s, n) != n) {
        struct em_buf *repaired = &c->encoder->repaired;
        em_buf_clear(repaired);
        EM_TRY(em_utf8_repair(s, n, repaired));
        s = (const uint8_t *)repaired->data;
        n = repaired->size;
    }
    EM_TRY(cut_added(c, &t->raw, encode_gap, s, n));
    for (size_t i = 0; template && i < t->after_count; i++)
        EM_TRY(em_ids_push(c->ids, t->after[i]));
    return EMBER_OK;
}

ember_status em_encode(struct em_encoder *encoder, const void *text, size_t n, unsigned flags,
                       struct em_ids *ids)
{
    const struct encoding c = {encoder, encoder->tokenizer, flags, ids};
    const size_t count = ids->count;
    const ember_status status = encode_all(&c, n ? text : (const uint8_t *)"", n);
    if (status != EMBER_OK) ids->count = count;
    return status;
}
