#include "support/sweep.h"

#include <string.h>

#include "base/alloc.h"
#include "support/full.h"

static void fail_allocation(size_t n)
{
    em_alloc_fail_at(n, 0);
}

const struct sweep_fault sweep_memory = {"allocation", EMBER_E_NOMEM, "out of memory",
                                         fail_allocation, em_alloc_count};

struct sweep_amount sweep_amount_default(void)
{
    return em_test_full() ? (struct sweep_amount){SIZE_MAX, 1} : (struct sweep_amount){2000, 97};
}

static ember_status run(const struct sweep_scenario *s, const struct sweep_fault *fault, size_t n,
                        size_t *calls)
{
    if (s->setup) s->setup(s->context);
    const size_t start = fault->count();
    fault->fail_at(n);
    const ember_status status = s->call(s->context);
    fault->fail_at(0);
    *calls = fault->count() - start;
    return status;
}

static void check_failure(const struct sweep_scenario *s, const struct sweep_fault *fault, size_t n,
                          ember_status status)
{
    const char *message = status == EMBER_OK ? "" : ember_last_error();
    if (status != fault->status)
        fail_msg("%s: %s %zu fails, and the call gives %s \"%s\"", s->name, fault->name, n,
                 ember_status_name(status), message);
    if (!strstr(message, fault->message) || strchr(message, '\n'))
        fail_msg("%s: %s %zu fails, and the message is \"%s\"", s->name, fault->name, n, message);
}

struct sweep_figures sweep(const struct sweep_scenario *s, const struct sweep_fault *fault,
                           struct sweep_amount amount)
{
    struct sweep_figures figures = {0};
    size_t calls;
    // What is made once for the whole process is made here.
    if (run(s, fault, 0, &figures.calls) != EMBER_OK)
        fail_msg("%s: %s", s->name, ember_last_error());
    if (s->after) s->after(s->context, EMBER_OK);
    for (size_t n = 1;; n += n < amount.first ? 1 : amount.stride) {
        const size_t live = em_alloc_live();
        const ember_status status = run(s, fault, n, &calls);
        if (calls < n) { // the call has no n-th: it was left alone
            if (status != EMBER_OK) fail_msg("%s: at last: %s", s->name, ember_last_error());
            if (s->after) s->after(s->context, status);
            break;
        }
        if (status != EMBER_OK || figures.spared++ >= s->spares)
            check_failure(s, fault, n, status);
        else if (em_test_full())
            print_message("%s: %s %zu is done without\n", s->name, fault->name, n);
        if (s->after) s->after(s->context, status);
        if (em_alloc_live() != live)
            fail_msg("%s: %s %zu fails, and %td bytes are lost", s->name, fault->name, n,
                     (ptrdiff_t)(em_alloc_live() - live));
        figures.failures++;
    }
    print_message("%s: %zu %ss, %zu of them failed in turn, %zu were done without\n", s->name,
                  figures.calls, fault->name, figures.failures, figures.spared);
    if (figures.failures == 0) fail_msg("%s: has no %s to fail", s->name, fault->name);
    return figures;
}
