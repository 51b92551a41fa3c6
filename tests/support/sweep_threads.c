// The system's pthread_create, but for the calls that are to fail. The linker takes this one for
// the whole program, and only for programs that use sweep_threads.
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "support/sweep.h"

static atomic_size_t calls, failing;

typedef int create_thread(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *arg);

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                   void *arg)
{
    static _Atomic(create_thread *) system_create;
    create_thread *create = atomic_load(&system_create);
    if (!create) {
        void *symbol = dlsym(RTLD_NEXT, "pthread_create");
        memcpy(&create, &symbol, sizeof create);
        atomic_store(&system_create, create);
    }
    const size_t call = atomic_fetch_add(&calls, 1) + 1;
    return call == atomic_load(&failing) ? EAGAIN : create(thread, attributes, start, arg);
}

static void fail_thread(size_t n)
{
    atomic_store(&failing, n ? atomic_load(&calls) + n : 0);
}

static size_t count_threads(void)
{
    return atomic_load(&calls);
}

const struct sweep_fault sweep_threads = {"thread", EMBER_E_IO, "cannot start a thread",
                                          fail_thread, count_threads};
