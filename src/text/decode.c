// Ids to text.
#include <string.h>

#include "text/tokenizer_priv.h"
#include "text/unicode.h"

// A token's bytes; none for a special token that is to be skipped.
static ember_status token_bytes(const struct em_tokenizer *t, int32_t id, unsigned flags,
                                const uint8_t **bytes, size_t *n)
{
    *bytes = em_tokenizer_token(t, id, n);
    if (!*bytes)
        return em_fail(EMBER_E_RANGE, "id %d is not a token of this vocabulary of %zu", id,
                       t->vocab.size);
    if ((flags & EM_DECODE_SKIP_SPECIAL) && em_tokenizer_is_special(t, id)) *n = 0;
    return EMBER_OK;
}

// Repairs from the first broken byte on, which is seldom.
static ember_status repair_from(struct em_buf *out, size_t from)
{
    const uint8_t *s = (const uint8_t *)out->data + from;
    const size_t n = out->size - from, valid = em_utf8_valid(s, n);
    if (valid == n) return EMBER_OK;
    struct em_buf rest;
    em_buf_init(&rest, 0);
    ember_status status = em_utf8_repair(s + valid, n - valid, &rest);
    if (status == EMBER_OK) {
        out->size = from + valid;
        status = em_buf_add(out, rest.data, rest.size);
    }
    em_buf_deinit(&rest);
    return status;
}

static ember_status decode_all(const struct em_tokenizer *t, const int32_t *ids, size_t count,
                               unsigned flags, struct em_buf *out)
{
    const size_t from = out->size;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *bytes;
        size_t n;
        EM_TRY(token_bytes(t, ids[i], flags, &bytes, &n));
        if (n) EM_TRY(em_buf_add(out, bytes, n));
    }
    if (flags & EM_DECODE_RAW || out->size == from) return EMBER_OK;
    return repair_from(out, from);
}

static void cut_back(struct em_buf *out, size_t size)
{
    out->size = size;
    if (out->data) out->data[size] = 0;
}

ember_status em_decode(const struct em_tokenizer *t, const int32_t *ids, size_t count,
                       unsigned flags, struct em_buf *out)
{
    const size_t size = out->size;
    const ember_status status = decode_all(t, ids, count, flags, out);
    if (status != EMBER_OK) cut_back(out, size);
    return status;
}

// Appends the whole characters of s, U+FFFD for what is broken, and keeps an unfinished end.
static ember_status put_characters(struct em_decode_stream *stream, const uint8_t *s, size_t n,
                                   struct em_buf *out)
{
    while (n > 0) {
        const size_t valid = em_utf8_valid(s, n);
        if (valid) EM_TRY(em_buf_add(out, s, valid));
        s += valid;
        n -= valid;
        if (n == 0) break;
        bool cut;
        const size_t broken = em_utf8_broken(s, n, &cut);
        if (cut) { // at most three bytes
            memcpy(stream->tail, s, n);
            stream->waiting = (unsigned)n;
            return EMBER_OK;
        }
        EM_TRY(em_buf_add(out, "\xEF\xBF\xBD", 3));
        s += broken;
        n -= broken;
    }
    return EMBER_OK;
}

ember_status em_decode_next(const struct em_tokenizer *t, struct em_decode_stream *stream,
                            int32_t id, unsigned flags, struct em_buf *out)
{
    const uint8_t *bytes;
    size_t n;
    EM_TRY(token_bytes(t, id, flags, &bytes, &n));
    if (n == 0) return EMBER_OK;
    if (flags & EM_DECODE_RAW) return em_buf_add(out, bytes, n);
    // The waiting bytes take new ones, one at a time, until they are a character or broken.
    while (stream->waiting > 0 && n > 0) {
        uint8_t joint[4];
        const size_t size = stream->waiting + 1;
        memcpy(joint, stream->tail, stream->waiting);
        joint[stream->waiting] = *bytes;
        stream->waiting = 0;
        bool cut;
        if (em_utf8_valid(joint, size) == size) {
            EM_TRY(em_buf_add(out, joint, size));
            bytes++;
            n--;
        } else if (em_utf8_broken(joint, size, &cut), cut) {
            memcpy(stream->tail, joint, size);
            stream->waiting = (unsigned)size;
            bytes++;
            n--;
        } else { // the new byte does not continue it: it begins something else
            EM_TRY(em_buf_add(out, "\xEF\xBF\xBD", 3));
        }
    }
    return put_characters(stream, bytes, n, out);
}

ember_status em_decode_end(struct em_decode_stream *stream, struct em_buf *out)
{
    if (stream->waiting == 0) return EMBER_OK;
    stream->waiting = 0;
    return em_buf_add(out, "\xEF\xBF\xBD", 3);
}
