// The network seam: every socket operation of Ember goes through one table. Nothing opens a socket
// unless asked.
#ifndef EM_BASE_NET_H
#define EM_BASE_NET_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/fail.h"

struct em_net {
    int (*listen_tcp)(const char *host, uint16_t port, int backlog,
                      uint16_t *bound); // fd, or -1 and errno
    int (*accept)(int fd);
    ssize_t (*receive)(int fd, void *p, size_t n,
                       double timeout_seconds); // -1 and ETIMEDOUT past it
    ssize_t (*send)(int fd, const void *p, size_t n, double timeout_seconds);
    int (*close)(int fd);
};
const struct em_net *em_net(void);
void em_net_use(const struct em_net *net); // NULL: the system's. For tests.

#endif
