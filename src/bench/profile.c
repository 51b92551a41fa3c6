#include "bench/profile.h"

#include <stdlib.h>
#include <string.h>

void em_bench_profile_add(struct em_bench_profile *p, const char *name, double seconds)
{
    size_t i = 0;
    while (i < p->count && strcmp(p->item[i].name, name))
        i++;
    if (i == EM_BENCH_NAMES)
        i--;
    else if (i == p->count)
        p->item[p->count++].name = name;
    p->item[i].seconds += seconds;
}

static void add_call(void *context, const struct em_call *call)
{
    em_bench_profile_add(context, call->op->name, call->seconds[0] + call->seconds[1]);
}

void em_bench_profile_program(struct em_bench_profile *p, const struct em_program *program)
{
    em_program_visit(program, add_call, p);
}

double em_bench_profile_sum(const struct em_bench_profile *p)
{
    double sum = 0;
    for (size_t i = 0; i < p->count; i++)
        sum += p->item[i].seconds;
    return sum;
}

static int longest_first(const void *a, const void *b)
{
    const double x = ((const struct em_bench_item *)a)->seconds,
                 y = ((const struct em_bench_item *)b)->seconds;
    return (x < y) - (x > y);
}

json_t *em_bench_profile_json(struct em_bench_profile *p, double factor)
{
    json_t *object = json_object();
    qsort(p->item, p->count, sizeof p->item[0], longest_first);
    for (size_t i = 0; object && i < p->count; i++)
        if (json_object_set_new(object, p->item[i].name, json_real(p->item[i].seconds * factor))) {
            json_decref(object);
            return NULL;
        }
    return object;
}
