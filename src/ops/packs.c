#include "ops/packs.h"

#include <string.h>

#include "base/alloc.h"
#include "kernels/gemm.h"

struct packed {
    ember_tensor *tensor;
    enum em_pack which;
    bool bf16;
    size_t bytes;
    uint64_t version; // of the weights that `data` holds; 0: none
    void *data;
};

struct share {
    void *key, *data;
    size_t key_size, bytes;
};

struct em_packs {
    struct packed *entry;
    size_t count, capacity;
    size_t *table; // open addressing, index + 1; size a power of two, at most half full
    size_t table_size;
    uint64_t version;
    struct share *share;
    size_t shares, share_capacity;
};

// The operands B [K, N] that a weight is packed into.
struct operands {
    size_t groups, K, N, stride; // bytes from one to the next
};

static struct operands operands_of(const ember_tensor *t, enum em_pack which, bool bf16)
{
    const size_t rows = t->dim[t->ndim - 2], columns = t->dim[t->ndim - 1];
    const bool transposed = which == EM_PACK_NT;
    struct operands o = {.groups = t->ndim == 3 ? t->dim[0] : 1,
                         .K = transposed ? columns : rows,
                         .N = transposed ? rows : columns};
    o.stride = em_gemm_packed_size(bf16 ? EM_GEMM_BF16 : EM_GEMM_F32, o.K, o.N);
    return o;
}

size_t em_pack_bytes(const ember_tensor *t, enum em_pack which, bool bf16)
{
    const struct operands o = operands_of(t, which, bf16);
    size_t bytes;
    return em_mul_size(o.stride, o.groups, &bytes) ? bytes : SIZE_MAX;
}

void em_pack_into(ember_tensor *t, enum em_pack which, bool bf16, void *data, struct em_pool *pool)
{
    const struct operands o = operands_of(t, which, bf16);
    const size_t columns = t->dim[t->ndim - 1];
    for (size_t g = 0; g < o.groups; g++) {
        struct em_matrix b = {em_f32(t) + g * o.K * o.N, columns, 1};
        if (which == EM_PACK_NT) b.row_stride = 1, b.col_stride = columns;
        em_gemm_pack(bf16 ? EM_GEMM_BF16 : EM_GEMM_F32, o.K, o.N, b, (char *)data + g * o.stride,
                     pool);
    }
}

ember_status em_packs_create(struct em_packs **weights)
{
    struct em_packs *w = em_calloc(1, sizeof *w);
    if (!w) return EMBER_E_NOMEM;
    w->version = 1;
    *weights = w;
    return EMBER_OK;
}

void em_packs_destroy(struct em_packs *w)
{
    if (!w) return;
    for (size_t i = 0; i < w->count; i++)
        if (w->entry[i].data) em_block_free(w->entry[i].data, w->entry[i].bytes);
    for (size_t i = 0; i < w->shares; i++) {
        if (w->share[i].data) em_block_free(w->share[i].data, w->share[i].bytes);
        em_free(w->share[i].key);
    }
    em_free(w->share);
    em_free(w->entry);
    em_free(w->table);
    em_free(w);
}

void em_packs_changed(struct em_packs *w)
{
    w->version++;
}

uint64_t em_packs_version(const struct em_packs *w)
{
    return w->version;
}

size_t em_packs_bytes(const struct em_packs *w)
{
    size_t bytes = 0;
    for (size_t i = 0; i < w->count; i++)
        bytes += w->entry[i].bytes;
    for (size_t i = 0; i < w->shares; i++)
        bytes += w->share[i].bytes;
    return bytes;
}

static size_t hash(const ember_tensor *t, enum em_pack which, bool bf16)
{
    const uint64_t x =
        ((uint64_t)(uintptr_t)t >> 4) * 0x9e3779b97f4a7c15u + (uint64_t)which * 2 + bf16;
    return (size_t)(x ^ (x >> 29));
}

static struct packed *find(const struct em_packs *w, const ember_tensor *t, enum em_pack which,
                           bool bf16)
{
    if (!w->table_size) return NULL;
    for (size_t i = hash(t, which, bf16);; i++) {
        const size_t at = w->table[i & (w->table_size - 1)];
        if (!at) return NULL;
        struct packed *p = &w->entry[at - 1];
        if (p->tensor == t && p->which == which && p->bf16 == bf16) return p;
    }
}

static ember_status index_entries(struct em_packs *w)
{
    size_t size = w->table_size ? w->table_size : 64;
    while (size < 2 * (w->count + 1))
        size *= 2;
    if (size != w->table_size) {
        size_t *table = em_calloc(size, sizeof *table);
        if (!table) return EMBER_E_NOMEM;
        em_free(w->table);
        w->table = table;
        w->table_size = size;
        for (size_t e = 0; e < w->count; e++) {
            size_t i = hash(w->entry[e].tensor, w->entry[e].which, w->entry[e].bf16);
            while (table[i & (size - 1)])
                i++;
            table[i & (size - 1)] = e + 1;
        }
    }
    return EMBER_OK;
}

ember_status em_packs_need(struct em_packs *w, ember_tensor *t, enum em_pack which, bool bf16)
{
    if (find(w, t, which, bf16)) return EMBER_OK;
    EM_TRY(index_entries(w));
    EM_TRY(em_grow(&w->entry, &w->capacity, w->count + 1, sizeof *w->entry));
    const size_t bytes = em_pack_bytes(t, which, bf16);
    if (bytes == SIZE_MAX)
        return em_fail(EMBER_E_NOMEM, "%s is too large to be packed",
                       t->name ? t->name : "a weight");
    w->entry[w->count] = (struct packed){.tensor = t, .which = which, .bf16 = bf16, .bytes = bytes};
    size_t i = hash(t, which, bf16);
    while (w->table[i & (w->table_size - 1)])
        i++;
    w->table[i & (w->table_size - 1)] = ++w->count;
    return EMBER_OK;
}

ember_status em_packs_allocate(struct em_packs *w)
{
    for (size_t i = 0; i < w->count; i++) {
        struct packed *p = &w->entry[i];
        if (!p->data && !(p->data = em_block_alloc(p->bytes))) return EMBER_E_NOMEM;
    }
    for (size_t i = 0; i < w->shares; i++) {
        struct share *s = &w->share[i];
        if (!s->data && !(s->data = em_block_alloc(s->bytes))) return EMBER_E_NOMEM;
    }
    return EMBER_OK;
}

ember_status em_packs_share(struct em_packs *w, const void *key, size_t key_size, size_t bytes,
                            size_t *number)
{
    for (size_t i = 0; i < w->shares; i++)
        if (w->share[i].bytes == bytes && w->share[i].key_size == key_size &&
            memcmp(w->share[i].key, key, key_size) == 0) {
            *number = i + 1;
            return EMBER_OK;
        }
    EM_TRY(em_grow(&w->share, &w->share_capacity, w->shares + 1, sizeof *w->share));
    void *own = em_alloc(key_size);
    if (!own) return EMBER_E_NOMEM;
    memcpy(own, key, key_size);
    w->share[w->shares] = (struct share){.key = own, .key_size = key_size, .bytes = bytes};
    *number = ++w->shares;
    return EMBER_OK;
}

char *em_packs_shared(const struct em_packs *w, size_t number)
{
    assert(number && number <= w->shares && w->share[number - 1].data);
    return w->share[number - 1].data;
}

const void *em_packs_get(struct em_packs *w, ember_tensor *t, enum em_pack which, bool bf16,
                         struct em_pool *pool)
{
    struct packed *p = find(w, t, which, bf16);
    assert(p && p->data);
    if (p->version == w->version) return p->data;
    em_pack_into(t, which, bf16, p->data, pool);
    p->version = w->version;
    return p->data;
}
