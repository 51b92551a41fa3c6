#include "bench/plain.h"

#include "base/clock.h"
#include "kernels/kernels.h"

// Column `i` of `count` equal ones.
static struct em_strip part(const struct em_strip *s, size_t i, size_t count)
{
    return (struct em_strip){s->data + i * (s->width / count), s->count, s->width / count,
                             s->stride};
}

static size_t streams(const struct em_bench_plain *p, const struct em_strip *s)
{
    return p->width && s->width % p->width == 0 ? s->width / p->width : 0;
}

void em_bench_plain_read(struct em_bench_plain *p, const struct em_strip *s)
{
    const size_t count = streams(p, s);
    if (!count) p->side = *s;
    for (size_t i = 0; i < count && p->reads < EM_BENCH_READS; i++)
        p->read[p->reads++] = part(s, i, count);
}

void em_bench_plain_write(struct em_bench_plain *p, const struct em_strip *s)
{
    const size_t count = streams(p, s);
    for (size_t i = 0; i < count && p->writes < EM_BENCH_WRITES; i++)
        p->write[p->writes++] = part(s, i, count);
}

void em_bench_plain_change(struct em_bench_plain *p, const struct em_strip *s)
{
    em_bench_plain_read(p, s);
    em_bench_plain_write(p, s);
}

static bool is_rows(const ember_tensor *t)
{
    return t && t->info && t->dtype == EMBER_F32;
}

static void forward_of(const struct em_call *c, struct em_bench_plain *p)
{
    for (unsigned i = 0; i < c->n_in; i++) {
        if (!is_rows(c->in[i])) continue;
        const struct em_strip s = em_strip_of(c->in[i]);
        em_bench_plain_read(p, &s);
    }
    if (!p->reads) return;
    const struct em_strip y = em_strip_of(c->out[0]);
    em_bench_plain_write(p, &y);
}

static void backward_of(const struct em_call *c, struct em_bench_plain *p)
{
    for (int fresh = 0; fresh < 2; fresh++)
        for (unsigned i = 0; i < c->n_in; i++) {
            if (!is_rows(c->in[i]) || !em_wants(c, i) || em_fresh(c, i) != fresh) continue;
            const struct em_strip d = em_strip_of(c->in[i]->grad);
            if (fresh)
                em_bench_plain_write(p, &d);
            else
                em_bench_plain_change(p, &d);
        }
    if (!p->writes) return;
    const struct em_strip dy = em_strip_of(c->out[0]->grad);
    em_bench_plain_read(p, &dy);
    for (unsigned i = 0; i < c->n_in; i++) {
        if (!is_rows(c->in[i]) || !(c->op->backward_reads & EM_READS_IN(i))) continue;
        const struct em_strip s = em_strip_of(c->in[i]);
        em_bench_plain_read(p, &s);
    }
}

void em_bench_plain_of_call(const struct em_call *c, bool backward, struct em_bench_plain *p)
{
    const struct em_strip y = em_strip_of(c->out[0]);
    *p = (struct em_bench_plain){.rows = y.count, .width = y.width};
    if (backward)
        backward_of(c, p);
    else
        forward_of(c, p);
    if (!p->writes) p->rows = 0;
}

double em_bench_plain_bytes(const struct em_bench_plain *p)
{
    return (double)sizeof(float) * (double)p->rows *
           ((double)(p->reads + p->writes) * (double)p->width + (double)p->side.width);
}

static bool is_contiguous(const struct em_bench_plain *p)
{
    bool all = !p->side.width;
    for (size_t i = 0; i < p->reads; i++)
        all = all && p->read[i].stride == p->width;
    for (size_t i = 0; i < p->writes; i++)
        all = all && p->write[i].stride == p->width;
    return all;
}

static void loop(void *arg, size_t begin, size_t end, unsigned thread)
{
    (void)thread;
    const struct em_bench_plain *p = arg;
    const bool whole = is_contiguous(p);
    for (size_t r = begin; r < end; r = whole ? end : r + 1) {
        const float *x[EM_BENCH_READS];
        float *y[EM_BENCH_WRITES];
        volatile float sink;
        for (size_t i = 0; i < p->reads; i++)
            x[i] = em_strip_row(&p->read[i], r);
        for (size_t i = 0; i < p->writes; i++)
            y[i] = em_strip_row(&p->write[i], r);
        em_kernels()->plain_f32(y, p->writes, x, p->reads, 0.0f, (whole ? end - r : 1) * p->width);
        if (p->side.width) sink = em_kernels()->read_f32(em_strip_row(&p->side, r), p->side.width);
        (void)sink;
    }
}

double em_bench_plain_run(const struct em_bench_plain *p, struct em_pool *pool)
{
    const double start = em_clock_seconds();
    em_parallel(pool, p->rows, em_row_grain(p->width), loop, (void *)(uintptr_t)p);
    return em_clock_seconds() - start;
}
