#include "text/bpe_train.h"

#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "text/tokenizer_priv.h"
#include "text/unicode.h"

// Text is gathered until there is enough for every thread, then cut into segments and counted.
enum { SEGMENT_BYTES = 1 << 18, BATCH_SEGMENTS = 16 };

struct counting {
    const struct em_split *split;
    struct em_buf text; // whole documents, repaired
    size_t *ends;       // where segments end in it
    size_t end_count, end_capacity;
    struct em_words *words; // per thread
    ember_status *status;   // per thread: the first failure
    unsigned threads;
};

// Whether the split pattern always cuts before text[i]: a letter or digit after a line end. No
// piece has a line end with a letter behind it, and what follows does not look back.
static bool always_cut(const uint8_t *text, size_t i)
{
    const uint8_t c = text[i];
    return text[i - 1] == '\n' && c < 128 && (em_ascii_class[c] & (EM_LETTER | EM_NUMBER));
}

static ember_status add_end(struct counting *c, size_t end)
{
    EM_TRY(em_grow(&c->ends, &c->end_capacity, c->end_count + 1, sizeof *c->ends));
    c->ends[c->end_count++] = end;
    return EMBER_OK;
}

static ember_status add_document(struct counting *c, const char *text, size_t n)
{
    const size_t begin = c->text.size;
    EM_TRY(em_utf8_repair((const uint8_t *)text, n, &c->text));
    const uint8_t *s = (const uint8_t *)c->text.data;
    size_t segment = begin;
    for (size_t i = begin + SEGMENT_BYTES; i < c->text.size; i++)
        if (always_cut(s, i)) {
            EM_TRY(add_end(c, i));
            segment = i;
            i += SEGMENT_BYTES - 1;
        }
    return segment < c->text.size ? add_end(c, c->text.size) : EMBER_OK;
}

static void count_segments(void *arg, size_t begin, size_t end, unsigned thread)
{
    struct counting *c = arg;
    for (size_t i = begin; i < end && c->status[thread] == EMBER_OK; i++) {
        const size_t from = i ? c->ends[i - 1] : 0;
        c->status[thread] = em_words_count(&c->words[thread], c->split,
                                           (const uint8_t *)c->text.data + from, c->ends[i] - from);
    }
}

static ember_status count_batch(struct counting *c, struct em_pool *pool)
{
    em_parallel(pool, c->end_count, 1, count_segments, c);
    c->end_count = 0;
    em_buf_clear(&c->text);
    for (unsigned i = 0; i < c->threads; i++)
        if (c->status[i] != EMBER_OK) // the message is that thread's; say it again on this one
            return em_fail(c->status[i], "counting the words of the text: %s",
                           c->status[i] == EMBER_E_NOMEM ? "out of memory" : "too much text");
    return EMBER_OK;
}

static ember_status count_all(struct counting *c, struct em_text_source source,
                              struct em_pool *pool)
{
    for (;;) {
        const char *text = NULL;
        size_t n = 0;
        EM_TRY(source.next(source.context, &text, &n));
        if (!text) break;
        EM_TRY(add_document(c, text, n));
        if (c->text.size >= (size_t)c->threads * BATCH_SEGMENTS * SEGMENT_BYTES)
            EM_TRY(count_batch(c, pool));
    }
    return count_batch(c, pool);
}

ember_status em_count_words(const struct em_split *split, struct em_text_source source,
                            struct em_pool *pool, struct em_words *words)
{
    struct counting c = {.split = split, .threads = em_pool_threads(pool)};
    em_buf_init(&c.text, 0);
    c.words = em_calloc(c.threads, sizeof *c.words);
    c.status = em_calloc(c.threads, sizeof *c.status);
    ember_status status = c.words && c.status ? EMBER_OK : EMBER_E_NOMEM;
    if (status == EMBER_OK) status = count_all(&c, source, pool);
    for (unsigned i = 0; i < c.threads && c.words; i++) {
        if (status == EMBER_OK) status = em_words_join(words, &c.words[i]);
        em_words_deinit(&c.words[i]);
    }
    em_free(c.words);
    em_free(c.status);
    em_free(c.ends);
    em_buf_deinit(&c.text);
    return status;
}

static ember_status train(struct em_tokenizer *t, const struct em_bpe_train_options *options,
                          struct em_text_source source, struct em_words *words, size_t vocab)
{
    EM_TRY(em_tokenizer_lfm2_specials(t));
    EM_TRY(em_tokenizer_lfm2_split(t));
    t->bpe.ignore_merges = true; // as LFM2 has it
    for (unsigned place = 0; place < 256; place++) {
        const uint8_t byte = em_alphabet_byte(place);
        EM_TRY(em_vocab_add(&t->vocab, (int32_t)(3 + place), &byte, 1,
                            EM_TOKEN_MODEL | EM_TOKEN_LISTED));
    }
    EM_TRY(em_count_words(&t->steps[0].split, source, options->pool, words));
    EM_TRY(em_learn_merges(t, words, vocab, options->min_frequency ? options->min_frequency : 2));
    if (t->vocab.size < vocab)
        em_note("tokenizer: %zu tokens, not the %zu asked for: the text has no more pairs that "
                "occur often enough",
                t->vocab.size, vocab);
    return em_tokenizer_finish(t);
}

ember_status em_bpe_train(const struct em_bpe_train_options *options, struct em_text_source source,
                          struct em_tokenizer **tokenizer)
{
    const size_t vocab = options->vocab ? options->vocab : 8192;
    if (vocab < 3 + 256 || vocab > EM_VOCAB_LIMIT)
        return em_fail(EMBER_E_CONFIG, "tokenizer: a vocabulary of %zu tokens; expected %d to %zu",
                       vocab, 3 + 256, EM_VOCAB_LIMIT);
    struct em_tokenizer *t;
    EM_TRY(em_tokenizer_new(&t));
    struct em_words words;
    em_words_init(&words);
    const ember_status status = train(t, options, source, &words, vocab);
    em_words_deinit(&words);
    if (status == EMBER_OK)
        *tokenizer = t;
    else
        em_tokenizer_close(t);
    return status;
}
