/*
 * test_tcp.c - a projector as on another machine: a directory of its own without the store, the feed and the
 * projector reach each other over TCP, and both are killed under load. Its rows are those of one beside the store.
 *
 * Also its own client program: with arguments it is bank_client_main().
 */
#include "tests/system/bank.h"

#include "core/clock.h"
#include "core/error.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define ACCOUNTS        50
#define PROJECTOR_KILLS 10
#define FEED_KILLS      3
#define PATIENCE        (60 * NS_PER_S)
#define PORT_TRIES      10

static struct harness h;
static struct harness away; /* a directory alone, for harness_rows() */

static struct sockaddr_in address(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

/* One that nobody has, a moment ago. */
static int free_port(void)
{
    struct sockaddr_in a = address(0);
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static int accepts(int port)
{
    struct sockaddr_in a = address(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    int there = connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    return there;
}

/* 1 when the process listens there, 0 when it ended: somebody else had taken the port. */
static int listens(struct process *p, int port)
{
    uint64_t until = clock_mono_ns() + PATIENCE;
    while (clock_mono_ns() < until) {
        harness_supervise(&h);
        if (!p->pid)
            return 0;
        if (accepts(port))
            return 1;
        nap_ms(2);
    }
    fail_msg("%s does not listen on port %d", p->name, port);
    return 0;
}

static void endpoint_of(char out[40], int port)
{
    snprintf(out, 40, "tcp://127.0.0.1:%d", port);
}

static struct process *start_feed(char endpoint[40])
{
    for (int i = 0; i < PORT_TRIES; i++) {
        int port = free_port();
        endpoint_of(endpoint, port);
        struct process *p = harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir,
                                          "--feed-listen", endpoint, NULL);
        if (listens(p, port)) {
            p->restart = 1;
            return p;
        }
    }
    fail_msg("no port for the feed");
    return NULL;
}

static struct process *start_remote(const char *feed, const char *uuid)
{
    for (int i = 0; i < PORT_TRIES; i++) {
        int port = free_port();
        char endpoint[40];
        endpoint_of(endpoint, port);
        struct process *p =
            harness_start(&h, "remote", 0, "azoth-projector", "--dir", away.dir, "remote", "--uuid",
                          uuid, "--feed-connect", feed, "--projector-endpoint", endpoint, NULL);
        if (listens(p, port)) {
            p->restart = 1;
            return p;
        }
    }
    fail_msg("no port for the projector");
    return NULL;
}

static void define(const struct harness *where, const char *name)
{
    char path[400];
    snprintf(path, sizeof path, "%s/projections", where->dir);
    mkdir(path, 0770);
    snprintf(path, sizeof path, "%s/projections/%s.sql", where->dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f,
            "-- azoth: projection %s\n"
            "-- azoth: migration 1 create accounts\n"
            "CREATE TABLE accounts (account INTEGER PRIMARY KEY, balance INTEGER NOT NULL, moves "
            "INTEGER NOT NULL);\n"
            "-- azoth: on opened\n"
            "INSERT INTO accounts VALUES (:account, :amount, 0);\n"
            "-- azoth: on transferred\n"
            "UPDATE accounts SET balance = balance - :amount, moves = moves + 1 WHERE account = "
            ":from;\n"
            "UPDATE accounts SET balance = balance + :amount, moves = moves + 1 WHERE account = "
            ":to;\n",
            name);
    fclose(f);
}

static void read_uuid(char out[40])
{
    char path[300];
    snprintf(path, sizeof path, "%s/uuid", h.dir);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%39s", out), 1);
    fclose(f);
}

static void kill_and_wait(struct process *p)
{
    int before = p->restarts;
    uint64_t until = clock_mono_ns() + PATIENCE;
    harness_kill(p, SIGKILL);
    while (p->restarts == before && clock_mono_ns() < until) {
        harness_supervise(&h);
        nap_ms(1);
    }
    assert_int_equal(p->restarts, before + 1);
}

/* Has moved on since the last look: it was killed at work, and works again. */
static uint64_t until_moved(uint64_t from)
{
    char text[100];
    unsigned long long at = 0;
    uint64_t until = clock_mono_ns() + PATIENCE;
    while (at <= from && clock_mono_ns() < until) {
        harness_supervise(&h);
        harness_rows(&away, "remote", "SELECT cursor FROM azoth_projection", text, sizeof text);
        if (sscanf(text, "%llu;", &at) != 1)
            at = 0;
        nap_ms(1);
    }
    assert_true(at > from);
    return at;
}

static void until_projected(struct azoth *db, const char *name)
{
    struct azoth_error err = {0};
    uint64_t head, until = clock_mono_ns() + PATIENCE;
    int rc;
    assert_int_equal(azoth_head(db, &head, NULL, &err), 0);
    do {
        harness_supervise(&h);
        rc = azoth_wait_projected(db, name, head, 100, &err);
    } while (rc && clock_mono_ns() < until);
    if (rc)
        fail_msg("%s", err.message);
}

static void the_rows_are_equal(void)
{
    static const char sql[] = "SELECT account, balance, moves FROM accounts ORDER BY account";
    static char here[8000], there[8000];
    harness_rows(&h, "local", sql, here, sizeof here);
    harness_rows(&away, "remote", sql, there, sizeof there);
    assert_string_equal(there, here);
    harness_rows(&away, "remote", "SELECT count(*), sum(balance), sum(moves) > 100 FROM accounts",
                 there, sizeof there);
    assert_string_equal(there, "50,50000,1;");
}

/* Its files are brought to where the log is, as somebody would who wants the proof. */
static void the_log_proves_it(void)
{
    static const char *const names[] = {"remote.sql", "remote.db"};
    static char out[4000];
    char from[400], to[400];
    for (int i = 0; i < 2; i++) {
        snprintf(from, sizeof from, "%s/projections/%s", away.dir, names[i]);
        snprintf(to, sizeof to, "%s/projections/%s", h.dir, names[i]);
        assert_int_equal(symlink(from, to), 0);
    }
    if (harness_azoth(&h, out, sizeof out, "verify", "--projection", "remote", NULL))
        fail_msg("%s", out);
    assert_non_null(strstr(out, "remote: events 1 to "));
}

static void a_projector_without_the_store_has_the_rows_of_one_beside_it(void **state)
{
    (void)state;
    static char out[8000];
    char feed_at[40], uuid[40];
    uint64_t seed = harness_seed(), at = 0;
    harness_begin(&h);
    memset(&away, 0, sizeof away);
    snprintf(away.dir, sizeof away.dir, "%.200s/away", h.dir);
    assert_int_equal(mkdir(away.dir, 0770), 0);
    define(&h, "local");
    define(&away, "remote");
    read_uuid(uuid);
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, "--writer-sync", "none", NULL);
    struct azoth *db = harness_attach(&h, 20000);
    assert_non_null(db);
    assert_int_equal(bank_open(db, ACCOUNTS), 0);
    struct process *feed = start_feed(feed_at);
    harness_start(&h, "local", 1, "azoth-projector", "--dir", h.dir, "local", NULL);
    struct process *remote = start_remote(feed_at, uuid);
    struct process *client = bank_client(&h, "attached", "-", ACCOUNTS, 100000000, seed);
    for (int i = 0; i < PROJECTOR_KILLS + FEED_KILLS; i++) {
        at = until_moved(at);
        nap_ms((long)(random_next(&seed) % 50));
        kill_and_wait(i % 4 == 3 ? feed : remote);
    }
    until_moved(at);
    harness_kill(client, SIGKILL);
    harness_wait(&h, client, 10000);
    assert_true(harness_drain(db));
    assert_int_equal(feed->restarts, FEED_KILLS);
    assert_int_equal(remote->restarts, PROJECTOR_KILLS);
    until_projected(db, "local");
    until_projected(db, "remote");
    the_rows_are_equal();
    assert_true(bank_check(&h, db, ACCOUNTS));
    assert_int_equal(harness_azoth(&h, out, sizeof out, "lag", "remote", "--json", NULL), 0);
    assert_non_null(strstr(out, "\"name\":\"remote\""));
    assert_non_null(strstr(out, "\"events_behind\":0"));
    snprintf(out, sizeof out, "%s/data.mdb", away.dir);
    assert_int_equal(access(out, F_OK), -1);
    the_log_proves_it();
    azoth_close(db);
    harness_end(&h);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return bank_client_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_projector_without_the_store_has_the_rows_of_one_beside_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
