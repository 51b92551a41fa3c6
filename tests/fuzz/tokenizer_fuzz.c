// A tokenizer.json from anybody ('{' first), or any text for two tokenizers that are fine: no
// crash, no leak; ids have tokens, and text comes back.
#include "base/log.h"
#include "fuzz/target.h"
#include "text/bpe_train.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

// Encodes in both ways and decodes again; with `exact` the text has to come back.
static void round_trip(const struct em_tokenizer *t, const uint8_t *text, size_t n, bool exact)
{
    struct em_encoder *e;
    require(em_encoder_create(t, &e) == EMBER_OK);
    for (unsigned flags = 0; flags <= EM_ENCODE_PARSE_SPECIAL; flags += EM_ENCODE_PARSE_SPECIAL) {
        struct em_ids ids = {0};
        struct em_buf out, streamed, repaired;
        struct em_decode_stream stream = {0};
        em_buf_init(&out, 0);
        em_buf_init(&streamed, 0);
        em_buf_init(&repaired, 0);
        require(em_encode(e, text, n, flags, &ids) == EMBER_OK);
        require(em_decode(t, ids.ids, ids.count, 0, &out) == EMBER_OK);
        require(em_utf8_valid((const uint8_t *)out.data, out.size) == out.size);
        for (size_t i = 0; i < ids.count; i++)
            require(em_decode_next(t, &stream, ids.ids[i], 0, &streamed) == EMBER_OK);
        require(em_decode_end(&stream, &streamed) == EMBER_OK);
        require(streamed.size == out.size &&
                (!out.size || memcmp(streamed.data, out.data, out.size) == 0));
        require(em_utf8_repair(text, n, &repaired) == EMBER_OK);
        if (exact)
            require(repaired.size == out.size &&
                    (!out.size || memcmp(repaired.data, out.data, out.size) == 0));
        em_ids_deinit(&ids);
        em_buf_deinit(&out);
        em_buf_deinit(&streamed);
        em_buf_deinit(&repaired);
    }
    em_encoder_destroy(e);
}

static void read_file(const uint8_t *data, size_t size)
{
    static const char text[] =
        "It's  <|a|>'LL e\xcc\x81\xff 12345\r\n\n\t -- \xe4\xb8\xad\xf0\x9f\x98\x80 aaaabbbbab ab";
    struct em_tokenizer *t;
    if (em_tokenizer_parse("tokenizer.json", (const char *)data, size, &t) != EMBER_OK) {
        require_reason("tokenizer.json");
        return;
    }
    round_trip(t, (const uint8_t *)text, sizeof text - 1, false);
    round_trip(t, data, size, false);
    em_tokenizer_close(t);
}

static ember_status next_text(void *context, const char **text, size_t *n)
{
    static const char some[] = "the cat, the hat; it's 2024, it'll be 2025.\n\n  the "
                               "\xe4\xb8\xad\xe6\x96\x87 e\xcc\x81 e\xcc\x81";
    bool *done = context;
    *text = *done ? NULL : some;
    *n = sizeof some - 1;
    *done = true;
    return EMBER_OK;
}

static void target(const uint8_t *data, size_t size)
{
    static struct em_tokenizer *bytes, *trained;
    if (!bytes) {
        em_log_threshold(EM_LOG_WARN + 1);
        bool done = false;
        require(em_tokenizer_bytes(&bytes) == EMBER_OK);
        require(em_bpe_train(&(struct em_bpe_train_options){.vocab = 280},
                             (struct em_text_source){next_text, &done}, &trained) == EMBER_OK);
    }
    if (size > 0 && data[0] == '{') {
        read_file(data, size);
    } else {
        round_trip(bytes, data, size, true);
        round_trip(trained, data, size, true);
    }
}
