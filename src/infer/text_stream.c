#include "infer/text_stream.h"

#include <string.h>

static ember_status give(struct em_text_stream *s, size_t n)
{
    if (n && s->write) EM_TRY(s->write(s->context, s->held.data, n));
    memmove(s->held.data, s->held.data + n, s->held.size - n);
    s->held.size -= n;
    return EMBER_OK;
}

// Where the earliest stop string begins, or where the held text ends.
static size_t find_stop(const struct em_text_stream *s, bool *found)
{
    size_t first = s->held.size;
    *found = false;
    for (size_t i = 0; i < s->stops.count; i++) {
        const size_t n = strlen(s->stops.text[i]);
        const char *at = n ? memmem(s->held.data, s->held.size, s->stops.text[i], n) : NULL;
        if (!at) continue;
        *found = true;
        if ((size_t)(at - s->held.data) < first) first = (size_t)(at - s->held.data);
    }
    return first;
}

// How much of the held text's end could be the beginning of a stop string.
static size_t possible_stop(const struct em_text_stream *s)
{
    size_t longest = 0;
    for (size_t i = 0; i < s->stops.count; i++) {
        const size_t n = strlen(s->stops.text[i]);
        for (size_t k = n < s->held.size ? n : s->held.size; k > longest; k--)
            if (memcmp(s->held.data + s->held.size - k, s->stops.text[i], k) == 0) longest = k;
    }
    return longest;
}

static ember_status release(struct em_text_stream *s, bool last)
{
    if (!s->held.size) return EMBER_OK;
    bool found;
    const size_t end = find_stop(s, &found);
    if (found) {
        s->stopped = true;
        EM_TRY(give(s, end));
        em_buf_clear(&s->held);
        return EMBER_OK;
    }
    return give(s, s->held.size - (last ? 0 : possible_stop(s)));
}

ember_status em_text_stream_push(struct em_text_stream *s, int32_t id)
{
    if (s->stopped) return EMBER_OK;
    // A model's vocabulary may be larger than its tokenizer's, padded: such an id has no text.
    size_t n;
    if (!em_tokenizer_token(s->tokenizer, id, &n)) return EMBER_OK;
    EM_TRY(em_decode_next(s->tokenizer, &s->decode, id, EM_DECODE_SKIP_SPECIAL, &s->held));
    return release(s, false);
}

ember_status em_text_stream_end(struct em_text_stream *s)
{
    if (s->stopped) return EMBER_OK;
    EM_TRY(em_decode_end(&s->decode, &s->held));
    return release(s, true);
}

void em_text_stream_deinit(struct em_text_stream *s)
{
    em_buf_deinit(&s->held);
}
