#include "report/tensorboard.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"

// A record: length (u64), masked CRC of the length (u32), the bytes, masked CRC of the bytes (u32),
// all little endian. An Event: wall_time = 1 (double), step = 2 (varint), file_version = 3
// (string), summary = 5 { value = 1 { tag = 1 (string), simple_value = 2 (float) } }.
enum { FRAME_HEAD = 12, FRAME_TAIL = 4, RECORD_MAX = 64 << 20 };
enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

uint32_t em_crc32c(const void *p, size_t n)
{
    const unsigned char *byte = p;
    uint32_t crc = 0xffffffffu;
    // Bit by bit: a few hundred bytes a record are not worth a table.
    for (size_t i = 0; i < n; i++) {
        crc ^= byte[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0x82f63b78u & (0u - (crc & 1)));
    }
    return ~crc;
}

uint32_t em_crc32c_masked(const void *p, size_t n)
{
    const uint32_t crc = em_crc32c(p, n);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static void put_le(unsigned char *p, uint64_t v, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        p[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t get_le(const unsigned char *p, size_t bytes)
{
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static ember_status add_varint(struct em_buf *b, uint64_t v)
{
    unsigned char bytes[10];
    size_t n = 0;
    do {
        bytes[n++] = (unsigned char)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        v >>= 7;
    } while (v);
    return em_buf_add(b, bytes, n);
}

static ember_status add_key(struct em_buf *b, unsigned field, unsigned type)
{
    return add_varint(b, field << 3 | type);
}

static ember_status add_bytes(struct em_buf *b, unsigned field, const void *p, size_t n)
{
    EM_TRY(add_key(b, field, BYTES));
    EM_TRY(add_varint(b, n));
    return em_buf_add(b, p, n);
}

static ember_status add_time(struct em_buf *b, double seconds)
{
    uint64_t bits;
    unsigned char bytes[8];
    memcpy(&bits, &seconds, sizeof bits);
    put_le(bytes, bits, sizeof bytes);
    EM_TRY(add_key(b, 1, FIXED64));
    return em_buf_add(b, bytes, sizeof bytes);
}

static ember_status add_scalar(struct em_buf *b, const struct em_tensorboard_scalar *s,
                               struct em_buf *value)
{
    uint32_t bits;
    unsigned char bytes[4];
    memcpy(&bits, &s->value, sizeof bits);
    put_le(bytes, bits, sizeof bytes);
    em_buf_clear(value);
    EM_TRY(add_bytes(value, 1, s->tag, strlen(s->tag)));
    EM_TRY(add_key(value, 2, FIXED32));
    EM_TRY(em_buf_add(value, bytes, sizeof bytes));
    return add_bytes(b, 1, value->data, value->size);
}

static ember_status write_record(struct em_tensorboard *t, const struct em_buf *event)
{
    struct em_buf frame;
    unsigned char head[FRAME_HEAD], tail[FRAME_TAIL];
    put_le(head, event->size, 8);
    put_le(head + 8, em_crc32c_masked(head, 8), 4);
    put_le(tail, em_crc32c_masked(event->data, event->size), 4);
    em_buf_init(&frame, 0);
    // One write a record, so that a reader beside the run never sees the head alone.
    ember_status status = em_buf_add(&frame, head, sizeof head);
    if (status == EMBER_OK) status = em_buf_add(&frame, event->data, event->size);
    if (status == EMBER_OK) status = em_buf_add(&frame, tail, sizeof tail);
    if (status == EMBER_OK) status = em_append_write(&t->file, frame.data, frame.size);
    em_buf_deinit(&frame);
    return status;
}

static double now(struct em_tensorboard *t)
{
    t->wall_time = fmax(em_clock_wall(), t->wall_time);
    return t->wall_time;
}

static ember_status write_header(struct em_tensorboard *t)
{
    static const char version[] = "brain.Event:2";
    struct em_buf event;
    em_buf_init(&event, 0);
    ember_status status = add_time(&event, now(t));
    if (status == EMBER_OK) status = add_bytes(&event, 3, version, sizeof version - 1);
    if (status == EMBER_OK) status = write_record(t, &event);
    em_buf_deinit(&event);
    return status;
}

ember_status em_tensorboard_write(struct em_tensorboard *t, int64_t step,
                                  const struct em_tensorboard_scalar *scalars, size_t count)
{
    struct em_buf event, summary, value;
    ember_status status;
    em_buf_init(&event, 0);
    em_buf_init(&summary, 0);
    em_buf_init(&value, 0);
    for (size_t i = 0; i < count; i++)
        EM_TRY_GOTO(status, done, add_scalar(&summary, &scalars[i], &value));
    EM_TRY_GOTO(status, done, add_time(&event, now(t)));
    EM_TRY_GOTO(status, done, add_key(&event, 2, VARINT));
    EM_TRY_GOTO(status, done, add_varint(&event, (uint64_t)step));
    EM_TRY_GOTO(status, done, add_bytes(&event, 5, summary.data ? summary.data : "", summary.size));
    EM_TRY_GOTO(status, done, write_record(t, &event));
done:
    em_buf_deinit(&event);
    em_buf_deinit(&summary);
    em_buf_deinit(&value);
    return status;
}

// What of an Event decides whether it stays.
struct event {
    double wall_time;
    int64_t step;
    bool header;
};

static bool read_varint(const unsigned char **p, const unsigned char *end, uint64_t *v)
{
    *v = 0;
    for (unsigned shift = 0; shift < 64 && *p < end; shift += 7) {
        const unsigned char byte = *(*p)++;
        *v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) return true;
    }
    return false;
}

static bool parse_event(const unsigned char *p, size_t n, struct event *e)
{
    const unsigned char *end = p + n;
    *e = (struct event){0};
    while (p < end) {
        uint64_t key, v;
        if (!read_varint(&p, end, &key)) return false;
        const size_t left = (size_t)(end - p);
        switch (key & 7) {
        case VARINT:
            if (!read_varint(&p, end, &v)) return false;
            if (key >> 3 == 2) e->step = (int64_t)v;
            break;
        case FIXED64:
            if (left < 8) return false;
            v = get_le(p, 8);
            if (key >> 3 == 1) memcpy(&e->wall_time, &v, sizeof v);
            p += 8;
            break;
        case BYTES:
            if (!read_varint(&p, end, &v) || v > (size_t)(end - p)) return false;
            if (key >> 3 == 3) e->header = true;
            p += v;
            break;
        case FIXED32:
            if (left < 4) return false;
            p += 4;
            break;
        default: return false;
        }
    }
    return true;
}

uint64_t em_tensorboard_sound_size(const unsigned char *p, size_t n, int64_t last_step,
                                   double *wall_time)
{
    size_t at = 0;
    while (n - at >= FRAME_HEAD + FRAME_TAIL) {
        const uint64_t length = get_le(p + at, 8);
        if (get_le(p + at + 8, 4) != em_crc32c_masked(p + at, 8) || length > RECORD_MAX ||
            length > n - at - FRAME_HEAD - FRAME_TAIL)
            break;
        const unsigned char *data = p + at + FRAME_HEAD;
        struct event e;
        if (get_le(data + length, 4) != em_crc32c_masked(data, (size_t)length) ||
            !parse_event(data, (size_t)length, &e) || (!e.header && e.step > last_step))
            break;
        if (isfinite(e.wall_time)) *wall_time = e.wall_time;
        at += FRAME_HEAD + (size_t)length + FRAME_TAIL;
    }
    return at;
}

static const char prefix[] = "events.out.tfevents.", suffix[] = ".ember";

static bool is_ours(const char *name)
{
    const size_t n = strlen(name), s = sizeof suffix - 1;
    return !strncmp(name, prefix, sizeof prefix - 1) && n > s && !strcmp(name + n - s, suffix);
}

// The newest of our files in DIR, or a name for a new one.
static ember_status choose_path(const char *dir, char **path, bool *exists)
{
    char **names = NULL;
    size_t count = 0;
    EM_TRY(em_list_directory(dir, &names, &count));
    const char *newest = NULL;
    for (size_t i = 0; i < count; i++) // sorted, and the time has ten digits until the year 2286
        if (is_ours(names[i])) newest = names[i];
    *exists = newest != NULL;
    *path = newest ? em_path_join(dir, newest)
                   : em_asprintf("%s/%s%010lld%s", dir, prefix, (long long)em_clock_wall(), suffix);
    em_names_free(names, count);
    return *path ? EMBER_OK : EMBER_E_NOMEM;
}

ember_status em_tensorboard_open(struct em_tensorboard *t, const char *dir, int64_t last_step)
{
    struct em_tensorboard new = {.wall_time = 0};
    char *path;
    bool exists;
    uint64_t keep = 0;
    EM_TRY(em_make_directories(dir));
    EM_TRY(choose_path(dir, &path, &exists));
    ember_status status = EMBER_OK;
    if (exists) {
        struct em_map map;
        EM_TRY_GOTO(status, done, em_map_open(path, &map));
        keep = em_tensorboard_sound_size(map.data, map.size, last_step, &new.wall_time);
        em_map_close(&map);
    }
    EM_TRY_GOTO(status, done, em_append_open(path, &new.file));
    if (exists) status = em_append_truncate(&new.file, keep);
    if (status == EMBER_OK && !keep) status = write_header(&new);
    if (status == EMBER_OK)
        *t = new;
    else
        em_append_close(&new.file);
done:
    em_free(path);
    return status;
}

ember_status em_tensorboard_sync(struct em_tensorboard *t)
{
    return em_append_sync(&t->file);
}

void em_tensorboard_close(struct em_tensorboard *t)
{
    em_append_close(&t->file);
}
