#include <ember/tokenizer.h>

#include <pthread.h>

#include "api/library.h"
#include "base/alloc.h"
#include "text/tokenizer.h"

struct ember_tokenizer {
    struct em_tokenizer *inner;
    // An encoder to keep its cache from call to call; a call that finds it taken makes one of its
    // own.
    pthread_mutex_t lock;
    struct em_encoder *encoder;
};

ember_status em_api_wrap_tokenizer(struct em_tokenizer *inner, ember_tokenizer **tokenizer)
{
    ember_tokenizer *t = em_calloc(1, sizeof *t);
    ember_status status = t ? em_encoder_create(inner, &t->encoder) : EMBER_E_NOMEM;
    if (status == EMBER_OK && pthread_mutex_init(&t->lock, NULL) != 0)
        status = em_fail(EMBER_E_NOMEM, "out of memory: a lock");
    if (status != EMBER_OK) {
        if (t) em_encoder_destroy(t->encoder);
        em_free(t);
        em_tokenizer_close(inner);
        return status;
    }
    t->inner = inner;
    *tokenizer = t;
    return EMBER_OK;
}

ember_status ember_tokenizer_open(const char *path, ember_tokenizer **tokenizer)
{
    struct em_tokenizer *inner;
    EM_TRY(em_tokenizer_open(path, &inner));
    return em_api_wrap_tokenizer(inner, tokenizer);
}

ember_status ember_tokenizer_bytes(ember_tokenizer **tokenizer)
{
    struct em_tokenizer *inner;
    EM_TRY(em_tokenizer_bytes(&inner));
    return em_api_wrap_tokenizer(inner, tokenizer);
}

void ember_tokenizer_close(ember_tokenizer *tokenizer)
{
    if (!tokenizer) return;
    em_encoder_destroy(tokenizer->encoder);
    em_tokenizer_close(tokenizer->inner);
    pthread_mutex_destroy(&tokenizer->lock);
    em_free(tokenizer);
}

ember_status ember_tokenizer_save(const ember_tokenizer *tokenizer, const char *directory)
{
    return em_tokenizer_save(tokenizer->inner, directory);
}

size_t ember_tokenizer_size(const ember_tokenizer *tokenizer)
{
    return em_tokenizer_size(tokenizer->inner);
}

int32_t ember_tokenizer_bos(const ember_tokenizer *tokenizer)
{
    return em_tokenizer_bos(tokenizer->inner);
}

int32_t ember_tokenizer_eos(const ember_tokenizer *tokenizer)
{
    return em_tokenizer_eos(tokenizer->inner);
}

int32_t ember_tokenizer_pad(const ember_tokenizer *tokenizer)
{
    return em_tokenizer_pad(tokenizer->inner);
}

int32_t ember_tokenizer_find(const ember_tokenizer *tokenizer, const char *bytes, size_t n)
{
    return em_tokenizer_find(tokenizer->inner, bytes, n);
}

const char *ember_tokenizer_token(const ember_tokenizer *tokenizer, int32_t id, size_t *n)
{
    return (const char *)em_tokenizer_token(tokenizer->inner, id, n);
}

ember_status ember_tokenizer_encode(const ember_tokenizer *tokenizer, const char *text, size_t n,
                                    unsigned flags, int32_t **ids, size_t *count)
{
    // The lock and the cache behind it do not show: the tokenizer is const to its users.
    ember_tokenizer *t = (ember_tokenizer *)(uintptr_t)tokenizer;
    struct em_encoder *own = NULL;
    struct em_ids found = {0};
    const bool shared = pthread_mutex_trylock(&t->lock) == 0;
    ember_status status = em_ids_reserve(&found, 1);
    if (status == EMBER_OK && !shared) status = em_encoder_create(t->inner, &own);
    if (status == EMBER_OK)
        status = em_encode(shared ? t->encoder : own, text, n,
                           flags & EMBER_TOKENIZER_NO_SPECIAL ? 0 : EM_ENCODE_DEFAULT, &found);
    if (shared) pthread_mutex_unlock(&t->lock);
    em_encoder_destroy(own);
    if (status != EMBER_OK) {
        em_ids_deinit(&found);
        return status;
    }
    *ids = found.ids;
    *count = found.count;
    return EMBER_OK;
}

ember_status ember_tokenizer_decode(const ember_tokenizer *tokenizer, const int32_t *ids,
                                    size_t count, unsigned flags, char **text, size_t *n)
{
    struct em_buf out;
    em_buf_init(&out, 0);
    const unsigned how = (flags & EMBER_TOKENIZER_NO_SPECIAL ? EM_DECODE_SKIP_SPECIAL : 0) |
                         (flags & EMBER_TOKENIZER_RAW ? EM_DECODE_RAW : 0);
    ember_status status = em_decode(tokenizer->inner, ids, count, how, &out);
    const size_t size = out.size;
    char *taken = status == EMBER_OK ? em_buf_take(&out) : NULL;
    if (status == EMBER_OK && !taken) status = EMBER_E_NOMEM;
    em_buf_deinit(&out);
    if (status != EMBER_OK) return status;
    *text = taken;
    *n = size;
    return EMBER_OK;
}

ember_status ember_tokenizer_inspect(const ember_tokenizer *tokenizer, bool json, char **text)
{
    struct em_buf out;
    em_buf_init(&out, 0);
    ember_status status = em_tokenizer_describe(tokenizer->inner, json, &out);
    char *taken = status == EMBER_OK ? em_buf_take(&out) : NULL;
    if (status == EMBER_OK && !taken) status = EMBER_E_NOMEM;
    em_buf_deinit(&out);
    if (status == EMBER_OK) *text = taken;
    return status;
}
