#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/net.h"
#include "support/check.h"

struct peer {
    uint16_t port;
};

// Connects, says one line, waits for the answer and goes.
static void *talk(void *arg)
{
    const struct peer *peer = arg;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(peer->port)};
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    char answer[8] = "";
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0 && write(fd, "ping", 4) == 4)
        (void)!read(fd, answer, sizeof answer);
    close(fd);
    return strncmp(answer, "pong", 4) == 0 ? arg : NULL;
}

static void a_line_goes_there_and_back(void **state)
{
    (void)state;
    const struct em_net *net = em_net();
    struct peer peer = {0};
    const int listening = net->listen_tcp("127.0.0.1", 0, 4, &peer.port);
    if (listening < 0) skip(); // a sandbox without a network
    assert_true(peer.port != 0);
    pthread_t id;
    assert_int_equal(pthread_create(&id, NULL, talk, &peer), 0);
    const int client = net->accept(listening);
    assert_true(client >= 0);
    char text[16] = "";
    assert_int_equal(net->receive(client, text, sizeof text, 10), 4);
    assert_string_equal(text, "ping");
    assert_int_equal(net->receive(client, text, sizeof text, 0.02), -1);
    assert_int_equal(errno, ETIMEDOUT);
    assert_int_equal(net->send(client, "pong", 4, 10), 4);
    assert_int_equal(net->receive(client, text, sizeof text, -1), 0); // the other side is gone
    void *result;
    pthread_join(id, &result);
    assert_ptr_equal(result, &peer);
    // Nobody reads any more: an error comes in the end, and no signal that ends the program.
    ssize_t sent = 0;
    char block[4096] = "";
    for (int i = 0; i < 10000 && sent >= 0; i++)
        sent = net->send(client, block, sizeof block, 0.2);
    assert_int_equal(sent, -1);
    net->close(client);
    net->close(listening);
}

static void a_place_that_is_taken_or_absent_is_refused(void **state)
{
    (void)state;
    const struct em_net *net = em_net();
    uint16_t port = 0;
    const int listening = net->listen_tcp("127.0.0.1", 0, 4, &port);
    if (listening < 0) skip();
    assert_int_equal(net->listen_tcp("127.0.0.1", port, 4, NULL), -1);
    assert_int_equal(errno, EADDRINUSE);
    assert_int_equal(net->listen_tcp("192.0.2.1", 0, 4, NULL), -1); // reserved for documentation
    net->close(listening);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_goes_there_and_back),
        cmocka_unit_test(a_place_that_is_taken_or_absent_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
