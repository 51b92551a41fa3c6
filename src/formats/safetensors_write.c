// Writing safetensors: the order and the padding of the reference writer, the data streamed.
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/io.h"
#include "formats/safetensors_header.h"

enum { PIECE = 1 << 20 }; // bytes asked of a source at a time

struct slot {
    const struct em_st_output *tensor;
    size_t index, bytes;
};

static int reference_order(const void *a, const void *b)
{
    const struct slot *x = a, *y = b;
    // The list of dtypes is in the reference's order, which is by size.
    if (x->tensor->dtype != y->tensor->dtype) return x->tensor->dtype > y->tensor->dtype ? -1 : 1;
    return strcmp(x->tensor->name, y->tensor->name);
}

static int name_order(const void *a, const void *b)
{
    return strcmp((*(const struct em_st_output *const *)a)->name,
                  (*(const struct em_st_output *const *)b)->name);
}

static ember_status check_names(const char *path, const struct em_st_write *w)
{
    const struct em_st_output **sorted = em_calloc(w->count ? w->count : 1, sizeof *sorted);
    if (!sorted) return EMBER_E_NOMEM;
    ember_status status = EMBER_OK;
    for (size_t i = 0; i < w->count; i++) {
        sorted[i] = &w->tensors[i];
        if (!em_st_utf8_valid(sorted[i]->name, strlen(sorted[i]->name)) ||
            strcmp(sorted[i]->name, "__metadata__") == 0)
            status = em_fail(EMBER_E_FORMAT, "%s: \"%s\" cannot be a tensor's name", path,
                             sorted[i]->name);
    }
    qsort(sorted, w->count, sizeof *sorted, name_order);
    for (size_t i = 1; i < w->count && status == EMBER_OK; i++)
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
            status = em_fail(EMBER_E_FORMAT, "%s: tensor %s is to be written twice", path,
                             sorted[i]->name);
    em_free(sorted);
    return status;
}

static ember_status put_string(struct em_buf *b, const char *path, const char *s)
{
    if (!em_st_utf8_valid(s, strlen(s)))
        return em_fail(EMBER_E_FORMAT, "%s: \"%s\" is not valid UTF-8", path, s);
    EM_TRY(em_buf_putc(b, '"'));
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') {
            EM_TRY(em_buf_putc(b, '\\'));
            EM_TRY(em_buf_putc(b, *s));
        } else if ((unsigned char)*s < 0x20) {
            EM_TRY(em_buf_printf(b, "\\u%04x", (unsigned)*s));
        } else {
            EM_TRY(em_buf_putc(b, *s));
        }
    }
    return em_buf_putc(b, '"');
}

static ember_status put_entry(struct em_buf *b, const char *path, const struct slot *s,
                              size_t begin)
{
    EM_TRY(em_buf_putc(b, ','));
    EM_TRY(put_string(b, path, s->tensor->name));
    EM_TRY(em_buf_printf(b, ":{\"dtype\":\"%s\",\"shape\":[", em_st_dtype_name(s->tensor->dtype)));
    for (size_t i = 0; i < s->tensor->rank; i++)
        EM_TRY(em_buf_printf(b, i ? ",%zu" : "%zu", s->tensor->shape[i]));
    return em_buf_printf(b, "],\"data_offsets\":[%zu,%zu]}", begin, begin + s->bytes);
}

static ember_status put_header(struct em_buf *b, const char *path, const struct em_st_write *w,
                               const struct slot *slots)
{
    static const struct em_st_pair format = {"format", "pt"};
    const struct em_st_pair *metadata = w->metadata_count ? w->metadata : &format;
    const size_t pairs = w->metadata_count ? w->metadata_count : 1;
    EM_TRY(em_buf_puts(b, "{\"__metadata__\":{"));
    for (size_t i = 0; i < pairs; i++) {
        if (i) EM_TRY(em_buf_putc(b, ','));
        EM_TRY(put_string(b, path, metadata[i].key));
        EM_TRY(em_buf_putc(b, ':'));
        EM_TRY(put_string(b, path, metadata[i].value));
    }
    if (w->hashes) {
        EM_TRY(em_buf_puts(b, ",\"" EM_ST_HASHES "\":\""));
        EM_TRY(em_st_put_hashes(path, w, b));
        EM_TRY(em_buf_putc(b, '"'));
    }
    EM_TRY(em_buf_putc(b, '}'));
    size_t begin = 0;
    for (size_t i = 0; i < w->count; i++) {
        EM_TRY(put_entry(b, path, &slots[i], begin));
        if (!em_add_size(begin, slots[i].bytes, &begin))
            return em_fail(EMBER_E_RANGE, "%s: the tensors are too large for one file", path);
    }
    EM_TRY(em_buf_putc(b, '}'));
    while (b->size % 8 != 0)
        EM_TRY(em_buf_putc(b, ' '));
    if (b->size > EM_ST_HEADER_LIMIT)
        return em_fail(EMBER_E_RANGE, "%s: the header would have %zu bytes, at most %d are allowed",
                       path, b->size, EM_ST_HEADER_LIMIT);
    return EMBER_OK;
}

static ember_status size_slots(const char *path, const struct em_st_write *w, struct slot *slots)
{
    for (size_t i = 0; i < w->count; i++) {
        const struct em_st_output *t = &w->tensors[i];
        size_t elements = 1, bytes;
        for (size_t d = 0; d < t->rank; d++)
            if (!em_mul_size(elements, t->shape[d], &elements))
                return em_fail(EMBER_E_RANGE, "%s: tensor %s is too large", path, t->name);
        if (!em_st_bytes(t->dtype, elements, &bytes))
            return em_fail(
                EMBER_E_RANGE,
                "%s: tensor %s: %zu elements of %s are no whole number of bytes, or too many", path,
                t->name, elements, em_st_dtype_name(t->dtype));
        if (!t->data && bytes && !w->source)
            return em_fail(EMBER_E_INTERNAL, "%s: tensor %s has neither data nor a source", path,
                           t->name);
        slots[i] = (struct slot){t, i, bytes};
    }
    if (w->count) qsort(slots, w->count, sizeof *slots, reference_order);
    return EMBER_OK;
}

static ember_status write_tensor(struct em_file *f, const struct em_st_write *w,
                                 const struct slot *s, char *piece)
{
    if (s->tensor->data) return em_file_write(f, s->tensor->data, s->bytes);
    for (size_t at = 0; at < s->bytes;) {
        const size_t n = s->bytes - at < PIECE ? s->bytes - at : PIECE;
        EM_TRY(w->source(w->context, s->index, at, piece, n));
        EM_TRY(em_file_write(f, piece, n));
        at += n;
    }
    return EMBER_OK;
}

static ember_status write_file(struct em_file *f, const struct em_st_write *w,
                               const struct em_buf *header, const struct slot *slots)
{
    const uint64_t length = header->size;
    EM_TRY(em_file_write(f, &length, sizeof length));
    EM_TRY(em_file_write(f, header->data, header->size));
    char *piece = em_alloc(PIECE);
    if (!piece) return EMBER_E_NOMEM;
    ember_status status = EMBER_OK;
    for (size_t i = 0; i < w->count && status == EMBER_OK; i++)
        status = write_tensor(f, w, &slots[i], piece);
    em_free(piece);
    return status;
}

ember_status em_safetensors_write(const char *path, const struct em_st_write *w)
{
    EM_TRY(check_names(path, w));
    struct slot *slots = em_calloc(w->count ? w->count : 1, sizeof *slots);
    if (!slots) return EMBER_E_NOMEM;
    struct em_buf header;
    em_buf_init(&header, 0);
    struct em_file f = {.fd = -1};
    ember_status status;
    EM_TRY_GOTO(status, end, size_slots(path, w, slots));
    EM_TRY_GOTO(status, end, put_header(&header, path, w, slots));
    EM_TRY_GOTO(status, end, em_file_create(path, &f));
    status = write_file(&f, w, &header, slots);
    if (status == EMBER_OK)
        status = em_file_commit(&f);
    else
        em_file_abort(&f);
end:
    em_buf_deinit(&header);
    em_free(slots);
    return status;
}
