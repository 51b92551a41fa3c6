#include "base/net.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void close_keeping_errno(int fd)
{
    const int error = errno;
    (void)close(fd);
    errno = error;
}

static int listen_at(const struct addrinfo *at, int backlog, uint16_t *bound)
{
    const int fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol), on = 1;
    if (fd < 0) return -1;
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, at->ai_addr, at->ai_addrlen) != 0 || listen(fd, backlog) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        close_keeping_errno(fd);
        return -1;
    }
    uint16_t port = 0;
    if (address.ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, &address, sizeof in);
        port = ntohs(in.sin_port);
    } else if (address.ss_family == AF_INET6) {
        struct sockaddr_in6 in;
        memcpy(&in, &address, sizeof in);
        port = ntohs(in.sin6_port);
    }
    if (bound) *bound = port;
    return fd;
}

static int system_listen_tcp(const char *host, uint16_t port, int backlog, uint16_t *bound)
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    char service[8];
    snprintf(service, sizeof service, "%u", (unsigned)port);
    struct addrinfo *found = NULL;
    const int error = getaddrinfo(host, service, &hints, &found);
    if (error) {
        if (error != EAI_SYSTEM) errno = error == EAI_MEMORY ? ENOMEM : EADDRNOTAVAIL;
        return -1;
    }
    int fd = -1;
    for (const struct addrinfo *at = found; at && fd < 0; at = at->ai_next)
        fd = listen_at(at, backlog, bound);
    const int kept = errno;
    freeaddrinfo(found);
    errno = kept;
    return fd;
}

static int system_accept(int fd)
{
    int client;
    do
        client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    while (client < 0 && (errno == EINTR || errno == ECONNABORTED));
    return client;
}

// Waits for `events`; 0, or -1 and errno (ETIMEDOUT past the timeout). A negative timeout is none.
static int wait_for(int fd, short events, double timeout_seconds)
{
    const double until = now() + timeout_seconds;
    for (;;) {
        int milliseconds = -1;
        if (timeout_seconds >= 0) {
            const double left = until - now();
            milliseconds = left <= 0 ? 0 : left > 1e6 ? 1000000000 : (int)(left * 1000) + 1;
        }
        struct pollfd waited = {.fd = fd, .events = events};
        const int ready = poll(&waited, 1, milliseconds);
        if (ready > 0) return 0;
        if (ready == 0 && now() >= until) {
            errno = ETIMEDOUT;
            return -1;
        }
        if (ready < 0 && errno != EINTR) return -1;
    }
}

static ssize_t system_receive(int fd, void *p, size_t n, double timeout_seconds)
{
    for (;;) {
        if (wait_for(fd, POLLIN, timeout_seconds) != 0) return -1;
        const ssize_t got = recv(fd, p, n, MSG_DONTWAIT);
        if (got >= 0 || (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK)) return got;
    }
}

static ssize_t system_send(int fd, const void *p, size_t n, double timeout_seconds)
{
    for (;;) {
        if (wait_for(fd, POLLOUT, timeout_seconds) != 0) return -1;
        const ssize_t sent = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0 || (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK)) return sent;
    }
}

static const struct em_net system_net = {system_listen_tcp, system_accept, system_receive,
                                         system_send, close};
static const struct em_net *current = &system_net;

const struct em_net *em_net(void)
{
    return current;
}

void em_net_use(const struct em_net *net)
{
    current = net ? net : &system_net;
}
