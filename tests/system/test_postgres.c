/*
 * test_postgres.c - the bank load projected into PostgreSQL and into SQLite by the same definition, while
 * projector and server are killed; and what people see of such a projection.
 *
 * Also its own client program: with arguments it is bank_client_main().
 */
#include "tests/system/bank.h"
#include "tests/system/pgserver.h"

#include "core/clock.h"
#include "core/error.h"

#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define ACCOUNTS     20
#define PROJECTORS   20 /* so often each is killed */
#define SERVERS      3
#define PATIENCE     (120 * NS_PER_S)
#define TEMPORARY    75
#define EVENTS_LEAST 1000
#define EXAMPLE      "examples/postgresql/accounts.sql"

static struct harness h;
static struct pgserver server;

/* Every event is a row, so one that is applied twice, or not, is seen. */
static const char body[] =
    "-- azoth: on-error dead-letter\n"
    "-- azoth: migration 1 create accounts\n"
    "CREATE TABLE accounts (account BIGINT PRIMARY KEY, balance BIGINT NOT NULL,"
    " moves BIGINT NOT NULL, last_event BIGINT NOT NULL);\n"
    "CREATE TABLE journal (event BIGINT PRIMARY KEY, ref TEXT NOT NULL, amount BIGINT);\n"
    "-- azoth: on opened\n"
    "INSERT INTO accounts VALUES (:account, :amount, 0, @id);\n"
    "-- azoth: on transferred\n"
    "UPDATE accounts SET balance = balance - :amount, moves = moves + 1, last_event = @id"
    " WHERE account = :from;\n"
    "UPDATE accounts SET balance = balance + :amount, moves = moves + 1, last_event = @id"
    " WHERE account = :to;\n"
    "INSERT INTO journal VALUES (@id, :ref, :amount);\n";

static void define(const char *name, const char *marks, const char *sql)
{
    char path[400];
    snprintf(path, sizeof path, "%s/projections/%s.sql", h.dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "-- azoth: projection %s\n%s%s", name, marks, sql);
    fclose(f);
}

/* How to reach the server stands in the database's configuration. */
static void configure(void)
{
    char path[400];
    snprintf(path, sizeof path, "%s/azoth.conf", h.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "[projector]\npostgresql = %s password=secret77\n", server.conninfo);
    fclose(f);
}

static struct azoth *begin(void)
{
    if (!pgserver_there()) {
        print_message("PostgreSQL is not installed\n");
        skip();
    }
    harness_begin(&h);
    pgserver_begin(&server);
    configure();
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, "--writer-sync", "none", NULL);
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
    struct azoth *db = harness_attach(&h, 20000);
    assert_non_null(db);
    return db;
}

static void end(struct azoth *db)
{
    azoth_close(db);
    harness_end(&h);
    pgserver_end(&server);
}

static const char *rows(const char *name, const char *sql)
{
    static char text[2][60000];
    static int which;
    which = !which;
    return harness_rows(&h, name, sql, text[which], sizeof text[which]);
}

static void until_rows(const char *name, const char *sql, const char *want)
{
    uint64_t until = clock_mono_ns() + PATIENCE;
    while (strcmp(rows(name, sql), want) != 0 && clock_mono_ns() < until) {
        harness_supervise(&h);
        nap_ms(5);
    }
    assert_string_equal(rows(name, sql), want);
}

static void same_rows(const char *sql)
{
    const char *a = rows("bank", sql), *b = rows("bank-pg", sql);
    assert_string_equal(a, b);
    assert_true(strlen(a) > 2);
}

/* It is killed, and the next one lives. */
static void kill_projector(struct process *p)
{
    int before = p->restarts;
    harness_kill(p, SIGKILL);
    while (p->restarts == before) {
        harness_supervise(&h);
        nap_ms(1);
    }
}

/* Away for a while: the projector ends or waits, and none of its lives is lost for good. */
static void kill_server(void)
{
    pgserver_kill(&server);
    for (int i = 0; i < 20; i++) {
        harness_supervise(&h);
        nap_ms(5);
    }
    pgserver_start(&server);
}

static void rows_equal_those_in_sqlite_whatever_projector_and_server_are_killed_at(void **state)
{
    (void)state;
    struct azoth *db = begin();
    struct azoth_error err;
    uint64_t head, seed = harness_seed();
    char want[40], proof[4000];
    define("bank", "", body);
    define("bank-pg", "-- azoth: target postgresql\n", body);
    harness_start(&h, "projector", 1, "azoth-projector", "--dir", h.dir, "bank", NULL);
    struct process *p =
        harness_start(&h, "projector-pg", 1, "azoth-projector", "--dir", h.dir, "bank-pg", NULL);
    assert_int_equal(bank_open(db, ACCOUNTS), 0);
    struct process *c = bank_client(&h, "client", "-", ACCOUNTS, 100000000, random_next(&seed));
    for (int i = 0; i < PROJECTORS + SERVERS; i++) {
        nap_ms((long)(20 + random_next(&seed) % 150));
        if (i % (PROJECTORS / SERVERS + 1) == PROJECTORS / SERVERS)
            kill_server();
        else
            kill_projector(p);
    }
    harness_kill(c, SIGKILL);
    while (c->pid)
        harness_supervise(&h);
    assert_true(harness_drain(db));
    assert_int_equal(azoth_head(db, &head, NULL, &err), 0);
    snprintf(want, sizeof want, "%" PRIu64 ";", head);
    until_rows("bank", "SELECT cursor FROM azoth_projection", want);
    until_rows("bank-pg", "SELECT cursor FROM azoth_projection", want);
    assert_true(head > EVENTS_LEAST);
    same_rows("SELECT account, balance, moves, last_event FROM accounts ORDER BY account");
    same_rows("SELECT count(*), sum(amount), min(event), max(event) FROM journal");
    same_rows("SELECT from_event, events, hash FROM azoth_coverage");
    same_rows("SELECT ref FROM journal ORDER BY event DESC LIMIT 500");
    /* No failure of the machine was taken for an event's. */
    assert_string_equal(rows("bank-pg", "SELECT count(*) FROM azoth_dlq"), "0;");
    if (harness_azoth(&h, proof, sizeof proof, "verify", "--projection", "bank-pg", NULL))
        fail_msg("%s", proof);
    print_message("MEASURED %" PRIu64 " events, %d kills, %d restarts of the projector\n", head,
                  PROJECTORS + SERVERS, p->restarts);
    assert_true(p->restarts >= PROJECTORS);
    end(db);
}

static void put(struct azoth *db, int from, int to)
{
    struct azoth_error err;
    for (int i = from; i <= to; i++) {
        char json[40];
        struct azoth_txn *t = azoth_txn_new(db);
        snprintf(json, sizeof json, "{\"v\":%d}", i % 5);
        azoth_event_json(t, "put", json);
        if (azoth_commit(t, NULL, &err))
            fail_msg("%s", err.message);
        azoth_txn_free(t);
    }
}

#define PUT                                                                                        \
    "-- azoth: on-error dead-letter\n-- azoth: migration 1 one\n"                                  \
    "CREATE TABLE t (id BIGINT, v BIGINT CHECK (v > 0));\n-- azoth: undo\nDROP TABLE t;\n"         \
    "-- azoth: on put\nINSERT INTO t VALUES (@id, :v);\n"

static void contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" is not in: %s", part, text);
    assert_null(strstr(text, "secret77"));
}

static void the_command_reads_and_mends_it_with_and_without_a_projector(void **state)
{
    (void)state;
    static char out[8000];
    struct azoth *db = begin();
    define("p", "-- azoth: target postgresql\n", PUT);
    struct process *p = harness_start(&h, "p", 1, "azoth-projector", "--dir", h.dir, "p", NULL);
    put(db, 1, 20);
    until_rows("p", "SELECT cursor FROM azoth_projection", "20;");
    assert_int_equal(harness_azoth(&h, out, sizeof out, "query", "p", "SELECT sum(v) FROM t", NULL),
                     0);
    assert_string_equal(out, "sum\n40\n");
    assert_int_equal(harness_azoth(&h, out, sizeof out, "query", "p", "DELETE FROM t", NULL), 2);
    assert_int_equal(harness_azoth(&h, out, sizeof out, "dlq", "list", "p", "--json"), 0);
    contains(out, "{\"event\":5,\"state\":\"waiting\",\"type\":\"put\"");
    assert_int_equal(harness_azoth(&h, out, sizeof out, "dlq", "retry", "p", "5"), 1);
    contains(out, "event 5: failed event 5 (put): ");
    assert_int_equal(harness_azoth(&h, out, sizeof out, "dlq", "drop", "p", "5"), 0);
    uint64_t until = clock_mono_ns() + PATIENCE;
    do
        assert_int_equal(harness_azoth(&h, out, sizeof out, "lag", "p", "--json", NULL), 0);
    while (!strstr(out, "\"waiting\":3") && clock_mono_ns() < until);
    contains(out, "\"waiting\":3");
    p->restart = 0;
    assert_int_equal(harness_stop(&h, p), 0);
    assert_int_equal(harness_azoth(&h, out, sizeof out, "dlq", "retry-all", "p", NULL), 1);
    assert_string_equal(rows("p", "SELECT event, attempts FROM azoth_dlq ORDER BY event"),
                        "10,2;15,2;20,2;");
    assert_int_equal(harness_azoth(&h, out, sizeof out, "dlq", "export", "p", NULL), 0);
    contains(out, "\"payload\":\"{\\\"v\\\":0}\"");
    assert_int_equal(harness_azoth(&h, out, sizeof out, "projection", "history", "p", NULL), 0);
    contains(out, "version\ttitle\tapplied\tchecksum\n1\tone\t20");
    assert_int_equal(harness_azoth(&h, out, sizeof out, "projection", "plan", "p", NULL), 0);
    assert_string_equal(out, "nothing is pending\n");
    assert_int_equal(harness_azoth(&h, out, sizeof out, "projection", "rollback", "p", NULL), 0);
    contains(out, "undone: migration 1 one\n");
    assert_int_equal(harness_azoth(&h, out, sizeof out, "projection", "migrate", "p", NULL), 0);
    assert_string_equal(out, "applied migration 1 one\n");
    assert_int_equal(harness_azoth(&h, out, sizeof out, "projection", "check", EXAMPLE, "--target"),
                     0);
    assert_string_equal(out, EXAMPLE ": ok\n");
    assert_int_equal(harness_azoth(&h, out, sizeof out, "projection", "check", EXAMPLE, NULL), 0);
    contains(out, "PostgreSQL was not asked");
    assert_int_equal(harness_azoth(&h, out, sizeof out, "config", NULL, NULL, NULL), 0);
    contains(out, "projector.postgresql");
    end(db);
}

/* It has blocked SIGTERM: from then on it is asked, and not just killed. */
static int listens(const struct process *p)
{
    char path[40], line[200];
    unsigned long long mask = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)p->pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "SigBlk: %llx", &mask) == 1)
            break;
    if (f)
        fclose(f);
    return (mask >> (SIGTERM - 1)) & 1;
}

static void a_projector_waits_for_a_server_that_is_away_and_is_not_deaf(void **state)
{
    (void)state;
    static char out[8000];
    struct azoth *db = begin();
    define("p", "-- azoth: target postgresql\n", PUT);
    struct process *p = harness_start(&h, "p", 0, "azoth-projector", "--dir", h.dir, "p", NULL);
    put(db, 1, 4);
    until_rows("p", "SELECT cursor FROM azoth_projection", "4;");
    /* One that runs ends, to be started again. */
    pgserver_kill(&server);
    put(db, 6, 9);
    int status = harness_wait(&h, p, 20000);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), TEMPORARY);
    /* One that is started waits, and ends when it is told to. */
    harness_spawn(&h, p);
    uint64_t until = clock_mono_ns() + PATIENCE;
    while (!listens(p) && clock_mono_ns() < until)
        nap_ms(1);
    assert_int_equal(harness_stop(&h, p), 0);
    harness_spawn(&h, p);
    assert_int_equal(harness_azoth(&h, out, sizeof out, "query", "p", "SELECT 1", NULL), 3);
    pgserver_start(&server);
    until_rows("p", "SELECT cursor, (SELECT count(*) FROM t) FROM azoth_projection", "8,8;");
    assert_true(p->pid > 0);
    end(db);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return bank_client_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_equal_those_in_sqlite_whatever_projector_and_server_are_killed_at),
        cmocka_unit_test(the_command_reads_and_mends_it_with_and_without_a_projector),
        cmocka_unit_test(a_projector_waits_for_a_server_that_is_away_and_is_not_deaf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
