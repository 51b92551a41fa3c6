// Text of a sequence as it is made: whole characters only, and nothing that a stop string may still
// begin with.
#ifndef EM_INFER_TEXT_STREAM_H
#define EM_INFER_TEXT_STREAM_H

#include "text/tokenizer.h"

// All borrowed; empty strings do not count.
struct em_stops {
    const char *const *text;
    size_t count;
};

struct em_text_stream {
    const struct em_tokenizer *tokenizer;
    struct em_stops stops;
    struct em_decode_stream decode;
    struct em_buf held;
    bool stopped; // a stop string came; it and what follows is dropped
    ember_status (*write)(void *context, const char *text, size_t n); // NULL: nobody listens
    void *context;
};

// Gives what `id` completes to write(); special tokens have no text.
ember_status em_text_stream_push(struct em_text_stream *s, int32_t id) EMBER_CHECKED;
// After the last token: gives what is still held.
ember_status em_text_stream_end(struct em_text_stream *s) EMBER_CHECKED;
void em_text_stream_deinit(struct em_text_stream *s);

#endif
