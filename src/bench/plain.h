// A plain loop with the reads and writes of a kernel that memory bounds, over the same memory: what
// such a kernel is measured against.
#ifndef EM_BENCH_PLAIN_H
#define EM_BENCH_PLAIN_H

#include "bench/bench.h"
#include "ops/rows.h"

enum { EM_BENCH_READS = 8, EM_BENCH_WRITES = 4 };

struct em_bench_plain {
    size_t rows, width;
    struct em_strip read[EM_BENCH_READS], write[EM_BENCH_WRITES]; // each [rows, width]
    struct em_strip side;                                         // read too; of another width
    size_t reads, writes;
};

// Streams past the last place are left out. A strip that is k times as wide as the others is k
// streams.
void em_bench_plain_read(struct em_bench_plain *p, const struct em_strip *s);
void em_bench_plain_write(struct em_bench_plain *p, const struct em_strip *s);
// In place. Before those that are only read, as values that a pass keeps stand at the same number.
void em_bench_plain_change(struct em_bench_plain *p, const struct em_strip *s);

// What the call's forward or backward reads and writes: rows, not parameters. No rows: nothing to
// compare with.
void em_bench_plain_of_call(const struct em_call *c, bool backward, struct em_bench_plain *p);

double em_bench_plain_bytes(const struct em_bench_plain *p);
// Runs the loop and returns its seconds. Memory that is read and written keeps its (finite) values.
double em_bench_plain_run(const struct em_bench_plain *p, struct em_pool *pool);

#endif
