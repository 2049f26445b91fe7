/*
 * test_sockets.c - pipelines and request sockets over ipc in a directory of their own: answers in
 * any order, both limits of a message's size, peers that go away, and paths at which nanomsg itself
 * would abort the process.
 */
#include "core/dbdir.h"
#include "core/error.h"
#include "core/pipe.h"
#include "core/reqrep.h"
#include "core/wire.h"

#include <nanomsg/nn.h>
#include <nanomsg/reqrep.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_MS 5000

static struct azoth_error err;
static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/azoth-sockets-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

/* Fails when a socket file was left behind. */
static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir);
}

static const char *path_of(const char *name)
{
    static char path[4][128];
    static unsigned turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static const char *endpoint_of(const char *name)
{
    static char url[4][160];
    static unsigned turn;
    char *u = url[turn++ % 4];
    snprintf(u, sizeof url[0], "ipc://%s", path_of(name));
    return u;
}

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static struct reqrep *bound(const char *name)
{
    struct reqrep *s = NULL;
    assert_int_equal(reqrep_bind(endpoint_of(name), &s, &err), 0);
    return s;
}

static struct reqrep *connected(const char *name)
{
    struct reqrep *s = NULL;
    assert_int_equal(reqrep_connect(endpoint_of(name), &s, &err), 0);
    return s;
}

static void ask(struct reqrep *client, uint32_t id, struct azoth_bytes message)
{
    assert_int_equal(reqrep_request(client, id, message, WAIT_MS, &err), 0);
}

static struct azoth_bytes heard(struct reqrep *server, struct reqrep_return *to)
{
    struct azoth_bytes m;
    assert_int_equal(reqrep_receive(server, WAIT_MS, to, &m, &err), 1);
    return m;
}

/* ---- requests ---- */

#define PLAIN 8

static void plain_clients_get_their_own_answer_in_any_order(void **state)
{
    (void)state;
    struct reqrep *server = bound("s");
    int client[PLAIN], timeout = WAIT_MS;
    struct reqrep_return to[PLAIN];
    uint32_t asked[PLAIN];
    for (uint32_t i = 0; i < PLAIN; i++) {
        client[i] = nn_socket(AF_SP, NN_REQ);
        assert_true(client[i] >= 0);
        nn_setsockopt(client[i], NN_SOL_SOCKET, NN_RCVTIMEO, &timeout, sizeof timeout);
        nn_setsockopt(client[i], NN_SOL_SOCKET, NN_SNDTIMEO, &timeout, sizeof timeout);
        assert_true(nn_connect(client[i], endpoint_of("s")) >= 0);
        assert_int_equal(nn_send(client[i], &i, sizeof i, 0), sizeof i);
    }
    for (int i = 0; i < PLAIN; i++) {
        struct azoth_bytes m = heard(server, &to[i]);
        assert_int_equal(m.len, 4);
        memcpy(&asked[i], m.ptr, 4);
        reqrep_release(m);
    }
    for (int i = PLAIN; i-- > 0;) {
        uint32_t answer = asked[i] + 100;
        assert_int_equal(reqrep_answer(server, &to[i], bytes_of(&answer, 4), WAIT_MS, &err), 0);
    }
    for (uint32_t i = 0; i < PLAIN; i++) {
        uint32_t answer;
        assert_int_equal(nn_recv(client[i], &answer, sizeof answer, 0), sizeof answer);
        assert_int_equal(answer, i + 100);
        nn_close(client[i]);
    }
    reqrep_close(server);
}

#define FLIGHT 64

static void sixty_four_requests_in_flight_at_two_servers_find_back(void **state)
{
    (void)state;
    struct reqrep *server[2] = {bound("a"), bound("b")};
    struct reqrep *client[2] = {connected("a"), connected("b")};
    static const uint32_t base = 0x7fffffc0u; /* all 31 bits are the caller's */
    struct reqrep_return to[FLIGHT];
    uint32_t asked[FLIGHT];
    for (uint32_t i = 0; i < FLIGHT; i++)
        ask(client[i % 2], base + i, bytes_of(&i, 4));
    for (int i = 0; i < FLIGHT; i++) {
        struct azoth_bytes m = heard(server[i % 2], &to[i]);
        assert_int_equal(m.len, 4);
        memcpy(&asked[i], m.ptr, 4);
        reqrep_release(m);
    }
    for (int i = FLIGHT; i-- > 0;)
        assert_int_equal(
            reqrep_answer(server[i % 2], &to[i], bytes_of(&asked[i], 4), WAIT_MS, &err), 0);
    uint64_t seen = 0;
    for (int i = 0; i < FLIGHT; i++) {
        struct azoth_bytes m;
        uint32_t id, body;
        assert_int_equal(reqrep_collect(client[i % 2], WAIT_MS, &id, &m, &err), 1);
        assert_int_equal(m.len, 4);
        memcpy(&body, m.ptr, 4);
        reqrep_release(m);
        assert_int_equal(id, base + body);
        assert_int_equal(body % 2, i % 2);
        seen |= 1ull << body;
    }
    assert_true(seen == UINT64_MAX);
    for (int i = 0; i < 2; i++) {
        reqrep_close(client[i]);
        reqrep_close(server[i]);
    }
}

static void the_greatest_message_arrives_both_ways_and_a_greater_one_is_refused(void **state)
{
    (void)state;
    struct reqrep *server = bound("s"), *client = connected("s");
    struct reqrep_return to;
    unsigned char *big = malloc(WIRE_MESSAGE_MAX + 1);
    assert_non_null(big);
    memset(big, 7, WIRE_MESSAGE_MAX + 1);
    assert_int_equal(reqrep_request(client, 1, bytes_of(big, WIRE_MESSAGE_MAX + 1), WAIT_MS, &err),
                     AZOTH_ERR_USAGE);
    ask(client, 2, bytes_of(big, WIRE_MESSAGE_MAX));
    struct azoth_bytes m = heard(server, &to);
    assert_int_equal(m.len, WIRE_MESSAGE_MAX);
    assert_memory_equal(m.ptr, big, m.len);
    reqrep_release(m);
    assert_int_equal(reqrep_answer(server, &to, bytes_of(big, WIRE_MESSAGE_MAX + 1), WAIT_MS, &err),
                     AZOTH_ERR_USAGE);
    assert_int_equal(reqrep_answer(server, &to, bytes_of(big, WIRE_MESSAGE_MAX), WAIT_MS, &err), 0);
    uint32_t id;
    assert_int_equal(reqrep_collect(client, WAIT_MS, &id, &m, &err), 1);
    assert_int_equal(id, 2);
    assert_int_equal(m.len, WIRE_MESSAGE_MAX);
    reqrep_release(m);
    free(big);
    reqrep_close(client);
    reqrep_close(server);
}

/* One that does not know our limit: its connection is dropped, the others are not touched. */
static void a_message_over_the_limit_takes_its_own_connection_down_alone(void **state)
{
    (void)state;
    struct reqrep *server = bound("s"), *client = connected("s");
    struct reqrep_return to;
    int rude = nn_socket(AF_SP, NN_REQ), timeout = WAIT_MS;
    unsigned char *big = calloc(1, WIRE_MESSAGE_MAX + 4096);
    assert_non_null(big);
    nn_setsockopt(rude, NN_SOL_SOCKET, NN_SNDTIMEO, &timeout, sizeof timeout);
    assert_true(nn_connect(rude, endpoint_of("s")) >= 0);
    assert_true(nn_send(rude, big, WIRE_MESSAGE_MAX + 4096, 0) > 0);
    for (uint32_t i = 0; i < 20; i++) {
        ask(client, i, bytes_of(&i, 4));
        struct azoth_bytes m = heard(server, &to);
        assert_int_equal(m.len, 4);
        reqrep_release(m);
    }
    nn_close(rude);
    free(big);
    reqrep_close(client);
    reqrep_close(server);
}

/* Asks until an answer comes: requests sent into a dying connection are lost, as documented. */
static void converse(struct reqrep *server, struct reqrep *client, uint32_t id)
{
    uint64_t until = now_ms() + 2 * WAIT_MS;
    for (;;) {
        struct reqrep_return to;
        struct azoth_bytes m;
        uint32_t got;
        assert_true(now_ms() < until);
        int rc = reqrep_request(client, id, bytes_str("q"), 200, &err);
        assert_true(rc == 0 || rc == AZOTH_ERR_BUSY);
        while (reqrep_receive(server, 200, &to, &m, &err) == 1) {
            reqrep_release(m);
            assert_int_equal(reqrep_answer(server, &to, bytes_str("a"), 200, &err), 0);
            if (reqrep_collect(client, 200, &got, &m, &err) == 1) {
                reqrep_release(m);
                if (got == id)
                    return;
            }
        }
    }
}

static void a_client_finds_its_server_again_and_again(void **state)
{
    (void)state;
    struct reqrep *client = connected("s"); /* before there is a server */
    for (uint32_t i = 1; i <= 5; i++) {
        struct reqrep *server = bound("s");
        converse(server, client, i);
        reqrep_close(server);
    }
    reqrep_close(client);
}

static void an_answer_to_a_client_that_is_gone_is_no_error(void **state)
{
    (void)state;
    struct reqrep *server = bound("s"), *client = connected("s");
    struct reqrep_return to, strange = {.len = 8, .header = {0x12, 0x34, 0x56, 0x78, 0x80}};
    ask(client, 1, bytes_str("q"));
    reqrep_release(heard(server, &to));
    reqrep_close(client);
    assert_int_equal(reqrep_answer(server, &to, bytes_str("a"), WAIT_MS, &err), 0);
    assert_int_equal(reqrep_answer(server, &strange, bytes_str("a"), WAIT_MS, &err), 0);
    client = connected("s");
    converse(server, client, 2);
    reqrep_close(client);
    reqrep_close(server);
}

static void a_request_without_a_server_is_busy_within_its_time(void **state)
{
    (void)state;
    struct reqrep *client = connected("nobody");
    uint64_t before = now_ms();
    assert_int_equal(reqrep_request(client, 1, bytes_str("q"), 100, &err), AZOTH_ERR_BUSY);
    assert_in_range(now_ms() - before, 50, 2000);
    assert_int_equal(reqrep_request(client, 1, bytes_str("q"), 0, &err), AZOTH_ERR_BUSY);
    struct azoth_bytes m;
    uint32_t id;
    before = now_ms();
    assert_int_equal(reqrep_collect(client, 100, &id, &m, &err), 0);
    assert_in_range(now_ms() - before, 50, 2000);
    reqrep_close(client);
}

static void the_poll_descriptor_tells_of_requests(void **state)
{
    (void)state;
    struct reqrep *server = bound("s"), *client = connected("s");
    struct pollfd p = {.fd = reqrep_poll_fd(server), .events = POLLIN};
    struct reqrep_return to;
    assert_true(p.fd >= 0);
    assert_int_equal(poll(&p, 1, 0), 0);
    ask(client, 1, bytes_str("q"));
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    reqrep_release(heard(server, &to));
    assert_int_equal(poll(&p, 1, 0), 0);
    reqrep_close(client);
    reqrep_close(server);
}

/* ---- pipelines ---- */

static struct pipe_end *pulled(const char *name)
{
    struct pipe_end *p = NULL;
    assert_int_equal(pipe_bind_pull(endpoint_of(name), &p, &err), 0);
    return p;
}

static struct pipe_end *pushed(const char *name)
{
    struct pipe_end *p = NULL;
    assert_int_equal(pipe_connect_push(endpoint_of(name), &p, &err), 0);
    return p;
}

static void messages_come_in_order_from_each_endpoint(void **state)
{
    (void)state;
    struct pipe_end *in = pulled("one");
    assert_int_equal(pipe_bind_more(in, endpoint_of("two"), &err), 0);
    struct pipe_end *out[2] = {pushed("one"), pushed("two")};
    uint32_t next[2] = {0, 0};
    for (uint32_t i = 0; i < 200; i++) {
        uint32_t m[2] = {i % 2, i / 2};
        assert_int_equal(pipe_send(out[i % 2], bytes_of(m, sizeof m), WAIT_MS, &err), 0);
    }
    for (int i = 0; i < 200; i++) {
        struct azoth_bytes got;
        uint32_t m[2];
        assert_int_equal(pipe_receive(in, WAIT_MS, &got, &err), 1);
        assert_int_equal(got.len, sizeof m);
        memcpy(m, got.ptr, sizeof m);
        pipe_release(got);
        assert_int_equal(m[1], next[m[0]]++);
    }
    struct azoth_bytes none;
    assert_int_equal(pipe_receive(in, 0, &none, &err), 0);
    pipe_close(out[0]);
    pipe_close(out[1]);
    pipe_close(in);
}

static void a_push_without_a_peer_is_busy_within_its_time(void **state)
{
    (void)state;
    struct pipe_end *out = pushed("nobody");
    uint64_t before = now_ms();
    assert_int_equal(pipe_send(out, bytes_str("m"), 100, &err), AZOTH_ERR_BUSY);
    assert_in_range(now_ms() - before, 50, 2000);
    before = now_ms();
    assert_int_equal(pipe_send(out, bytes_str("m"), 0, &err), AZOTH_ERR_BUSY);
    assert_in_range(now_ms() - before, 0, 1000);
    pipe_close(out);
}

static void the_greatest_message_travels_and_a_greater_one_is_refused(void **state)
{
    (void)state;
    struct pipe_end *in = pulled("p"), *out = pushed("p");
    unsigned char *big = calloc(1, WIRE_MESSAGE_MAX + 1);
    struct azoth_bytes got;
    assert_non_null(big);
    assert_int_equal(pipe_send(out, bytes_of(big, WIRE_MESSAGE_MAX + 1), WAIT_MS, &err),
                     AZOTH_ERR_USAGE);
    assert_int_equal(pipe_send(out, bytes_of(big, WIRE_MESSAGE_MAX), WAIT_MS, &err), 0);
    assert_int_equal(pipe_receive(in, WAIT_MS, &got, &err), 1);
    assert_int_equal(got.len, WIRE_MESSAGE_MAX);
    pipe_release(got);
    free(big);
    pipe_close(out);
    pipe_close(in);
}

static void a_push_finds_the_next_pull_at_its_endpoint(void **state)
{
    (void)state;
    struct pipe_end *out = pushed("p");
    for (uint32_t round = 1; round <= 5; round++) {
        struct pipe_end *in = pulled("p");
        uint64_t until = now_ms() + 2 * WAIT_MS;
        uint32_t got = 0;
        while (got != round) {
            struct azoth_bytes m;
            assert_true(now_ms() < until);
            int rc = pipe_send(out, bytes_of(&round, 4), 200, &err);
            assert_true(rc == 0 || rc == AZOTH_ERR_BUSY);
            if (pipe_receive(in, 200, &m, &err) == 1) {
                memcpy(&got, m.ptr, 4);
                pipe_release(m);
            }
        }
        pipe_close(in);
    }
    pipe_close(out);
}

static volatile sig_atomic_t ticks;

static void tick(int number)
{
    (void)number;
    ticks++;
}

static void a_signal_makes_no_error_of_a_wait(void **state)
{
    (void)state;
    struct pipe_end *in = pulled("p"), *out = pushed("nobody");
    struct reqrep *server = bound("s");
    struct sigaction sa = {.sa_handler = tick, .sa_flags = SA_RESTART}, old;
    struct itimerval every = {{0, 10000}, {0, 10000}}, never = {{0, 0}, {0, 0}};
    struct azoth_bytes m;
    struct reqrep_return to;
    sigaction(SIGALRM, &sa, &old);
    setitimer(ITIMER_REAL, &every, NULL);
    while (ticks < 5) {
        assert_int_equal(pipe_receive(in, 100, &m, &err), 0);
        assert_int_equal(reqrep_receive(server, 100, &to, &m, &err), 0);
        assert_int_equal(pipe_receive(in, 0, &m, &err), 0);
        assert_int_equal(pipe_send(out, bytes_str("m"), 0, &err), AZOTH_ERR_BUSY);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &old, NULL);
    reqrep_close(server);
    pipe_close(out);
    pipe_close(in);
}

/* ---- endpoints ---- */

static int binds(const char *endpoint)
{
    struct pipe_end *p = NULL;
    struct reqrep *s = NULL;
    int rc = pipe_bind_pull(endpoint, &p, &err);
    pipe_close(p);
    assert_int_equal(reqrep_bind(endpoint, &s, &err), rc);
    reqrep_close(s);
    return rc;
}

static void an_endpoint_that_is_none_is_a_usage_error(void **state)
{
    (void)state;
    static const char *const bad[] = {"",       "ipc://",      "tcp://", "inproc://x",
                                      "/tmp/x", "http://a:80", "ipc:",   "tcp://nowhere"};
    char path[130] = "ipc://";
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(binds(bad[i]), AZOTH_ERR_USAGE);
    /* From 108 to 121 bytes nanomsg calls abort(). */
    for (size_t n = DBDIR_SOCKET_PATH_MAX; n < 123; n++) {
        struct pipe_end *p;
        struct reqrep *s;
        memset(path + 6, 'x', n);
        path[6 + n] = 0;
        assert_int_equal(binds(path), AZOTH_ERR_USAGE);
        assert_int_equal(pipe_connect_push(path, &p, &err), AZOTH_ERR_USAGE);
        assert_int_equal(reqrep_connect(path, &s, &err), AZOTH_ERR_USAGE);
    }
}

static void the_longest_path_works(void **state)
{
    (void)state;
    char name[128];
    size_t n = DBDIR_SOCKET_PATH_MAX - 1 - strlen(dir) - 1;
    memset(name, 'x', n);
    name[n] = 0;
    struct pipe_end *in = pulled(name), *out = pushed(name);
    struct azoth_bytes m;
    assert_int_equal(pipe_send(out, bytes_str("m"), WAIT_MS, &err), 0);
    assert_int_equal(pipe_receive(in, WAIT_MS, &m, &err), 1);
    pipe_release(m);
    pipe_close(out);
    pipe_close(in);
}

/* nanomsg removes what it cannot connect to: it aborts on a directory, and a file is gone. */
static void what_is_no_socket_is_left_alone(void **state)
{
    (void)state;
    assert_int_equal(mkdir(path_of("d"), 0700), 0);
    assert_int_equal(binds(endpoint_of("d")), AZOTH_ERR_DUPLICATE);
    assert_int_equal(rmdir(path_of("d")), 0);
    FILE *f = fopen(path_of("f"), "w");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(binds(endpoint_of("f")), AZOTH_ERR_DUPLICATE);
    assert_int_equal(unlink(path_of("f")), 0);
    assert_int_equal(symlink("nowhere", path_of("l")), 0);
    assert_int_equal(binds(endpoint_of("l")), AZOTH_ERR_DUPLICATE);
    assert_int_equal(unlink(path_of("l")), 0);
}

static void a_socket_file_without_a_listener_is_taken_over_and_one_with_is_not(void **state)
{
    (void)state;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path_of("s"));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    close(fd); /* as a process that was killed leaves it */
    struct reqrep *server = bound("s");
    assert_int_equal(binds(endpoint_of("s")), AZOTH_ERR_DUPLICATE);
    struct reqrep *client = connected("s");
    converse(server, client, 1); /* it lives: the refused ones took nothing away */
    reqrep_close(client);
    reqrep_close(server);
}

static mode_t mode_of(const char *name)
{
    struct stat st;
    assert_int_equal(stat(path_of(name), &st), 0);
    return st.st_mode & 07777;
}

static void socket_files_are_for_owner_and_group_whatever_the_umask(void **state)
{
    (void)state;
    static const mode_t masks[] = {0, 022, 0777};
    for (size_t i = 0; i < 3; i++) {
        mode_t old = umask(masks[i]);
        struct pipe_end *p = pulled("p");
        struct reqrep *s = bound("s");
        assert_int_equal(umask(old), masks[i]); /* and it is as it was */
        assert_int_equal(mode_of("p"), 0660);
        assert_int_equal(mode_of("s"), 0660);
        pipe_close(p);
        reqrep_close(s);
    }
}

#define TEST(NAME) cmocka_unit_test_setup_teardown(NAME, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(plain_clients_get_their_own_answer_in_any_order),
        TEST(sixty_four_requests_in_flight_at_two_servers_find_back),
        TEST(the_greatest_message_arrives_both_ways_and_a_greater_one_is_refused),
        TEST(a_message_over_the_limit_takes_its_own_connection_down_alone),
        TEST(a_client_finds_its_server_again_and_again),
        TEST(an_answer_to_a_client_that_is_gone_is_no_error),
        TEST(a_request_without_a_server_is_busy_within_its_time),
        TEST(the_poll_descriptor_tells_of_requests),
        TEST(messages_come_in_order_from_each_endpoint),
        TEST(a_push_without_a_peer_is_busy_within_its_time),
        TEST(the_greatest_message_travels_and_a_greater_one_is_refused),
        TEST(a_push_finds_the_next_pull_at_its_endpoint),
        TEST(a_signal_makes_no_error_of_a_wait),
        TEST(an_endpoint_that_is_none_is_a_usage_error),
        TEST(the_longest_path_works),
        TEST(what_is_no_socket_is_left_alone),
        TEST(a_socket_file_without_a_listener_is_taken_over_and_one_with_is_not),
        TEST(socket_files_are_for_owner_and_group_whatever_the_umask),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
