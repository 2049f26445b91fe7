/*
 * test_shards.c - a projection in several processes and files, with real processes: the same rows as in one,
 * whoever is killed; another number of shards is filled beside the old one.
 */
#include "tests/system/harness.h"

#include "core/clock.h"
#include "core/error.h"
#include "projector/split.h"
#include "projector/table.h"

#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define ACCOUNTS 200
#define PATIENCE (60 * NS_PER_S)

static struct harness h;
static struct azoth *db;
static char projections[300];
static int head;

#define HANDLERS                                                                                   \
    "-- azoth: migration 1 one\n"                                                                  \
    "CREATE TABLE account (name PRIMARY KEY, balance INTEGER NOT NULL, moves INTEGER NOT NULL);\n" \
    "CREATE TABLE history (event INTEGER PRIMARY KEY, amount CHECK (amount <> 0));\n"              \
    "CREATE VIEW total AS SELECT count(*) AS n, sum(balance) AS balance FROM account;\n"           \
    "-- azoth: on moved\n"                                                                         \
    "INSERT INTO history VALUES (@id, :amount);\n"                                                 \
    "INSERT INTO account VALUES (:account, :amount, 1) ON CONFLICT (name) DO UPDATE SET "          \
    "balance = balance + :amount, moves = moves + 1;\n"

static void define(const char *name, const char *marks)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s.sql", projections, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "-- azoth: projection %s\n%s" HANDLERS, name, marks);
    fclose(f);
}

static void append(const char *name, const char *more)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s.sql", projections, name);
    FILE *f = fopen(path, "a");
    assert_non_null(f);
    fputs(more, f);
    fclose(f);
}

static void begin(void)
{
    harness_begin(&h);
    snprintf(projections, sizeof projections, "%s/projections", h.dir);
    head = 0;
}

static void start_store(void)
{
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, "--writer-sync", "none", NULL);
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
    db = harness_attach(&h, 10000);
    assert_non_null(db);
}

static struct process *start_shard(const char *name, unsigned shard, unsigned shards)
{
    char label[32], of[24];
    snprintf(label, sizeof label, "%s-%u-%u", name, shard, shards);
    snprintf(of, sizeof of, "%u/%u", shard, shards);
    return harness_start(&h, label, 1, "azoth-projector", "--dir", h.dir, name, of, NULL);
}

static void end(void)
{
    azoth_close(db);
    harness_end(&h);
}

/* Each event moves an amount of its own to an account; every `poison`th one moves nothing, which fails. */
static void move(int n, int poison)
{
    struct azoth_error err;
    struct azoth_txn *t = azoth_txn_new(db);
    for (int i = 0; i < n; i++) {
        char json[80];
        head++;
        snprintf(json, sizeof json, "{\"account\":\"a%d\",\"amount\":%d}", head * 31 % ACCOUNTS,
                 poison && head % poison == 0 ? 0
                 : head % 977 - 400           ? head % 977 - 400
                                              : 1);
        azoth_event_json(t, "moved", json);
    }
    if (azoth_commit(t, NULL, &err))
        fail_msg("%s", err.message);
    azoth_txn_free(t);
}

static int take_number(void *arg, int n, const char *const *names, const struct query_value *v)
{
    (void)names;
    if (v && n == 1)
        *(uint64_t *)arg = (uint64_t)v[0].integer;
    return 0;
}

/* 0 while it is not there. */
static uint64_t number_of(const char *name, unsigned shard, unsigned shards, const char *sql)
{
    uint64_t n = 0;
    return query_run_shard(projections, name, shard, shards, sql, take_number, &n, NULL) ? 0 : n;
}

static uint64_t cursor_of(const char *name, unsigned shard, unsigned shards)
{
    return number_of(name, shard, shards, "SELECT cursor FROM azoth_projection");
}

static void await_shards(const char *name, unsigned from, unsigned shards)
{
    uint64_t until = clock_mono_ns() + PATIENCE;
    for (unsigned i = from; i < shards; i++) {
        while (cursor_of(name, i, shards) < (uint64_t)head && clock_mono_ns() < until) {
            harness_supervise(&h);
            nap_ms(1);
        }
        assert_int_equal(cursor_of(name, i, shards), head);
    }
}

static void same_rows(const char *a, const char *b)
{
    static const char *const asked[] = {
        "SELECT name, balance, moves FROM account ORDER BY name", "SELECT n, balance FROM total",
        "SELECT count(*), sum(amount), sum(event * amount), max(event) FROM history"};
    static char one[65536], other[65536];
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        harness_rows(&h, a, asked[i], one, sizeof one);
        assert_true(strlen(one) > 5);
        assert_string_equal(one, harness_rows(&h, b, asked[i], other, sizeof other));
    }
}

/* ---- tests ---- */

static void four_shards_have_the_rows_of_one_whoever_is_killed(void **state)
{
    (void)state;
    struct process *shard[4];
    uint64_t seed = harness_seed(), until = clock_mono_ns() + PATIENCE;
    begin();
    define("whole", "");
    define("split", "-- azoth: shard-by :account\n-- azoth: shards 4\n");
    start_store();
    harness_start(&h, "whole", 1, "azoth-projector", "--dir", h.dir, "whole", NULL);
    for (unsigned i = 0; i < 4; i++)
        shard[i] = start_shard("split", i, 4);
    for (int k = 0; k < 20; k++) {
        move(500, 0);
        nap_ms((long)(random_next(&seed) % 20));
        struct process *p = shard[random_next(&seed) % 4];
        int was = p->restarts;
        harness_kill(p, SIGKILL);
        while (p->restarts == was && clock_mono_ns() < until) {
            harness_supervise(&h);
            nap_ms(1);
        }
    }
    await_shards("whole", 0, 1);
    await_shards("split", 0, 4);
    same_rows("whole", "split");
    static char proof[65536];
    assert_int_equal(
        harness_azoth(&h, proof, sizeof proof, "verify", "--all-projections", NULL, NULL), 0);
    assert_non_null(strstr(proof, "split.3of4: events 1 to 10000: its "));
    assert_non_null(strstr(proof, "whole: events 1 to 10000: its 10000 handled"));
    /* Each has a part of its own. */
    for (unsigned i = 0; i < 4; i++) {
        assert_in_range(number_of("split", i, 4, "SELECT count(*) FROM account"), 20, 100);
    }
    end();
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* How long shards 1 to 3 take to what was just committed: the middle of `n` times. */
static uint64_t middle_lag(int n, struct process *killed)
{
    uint64_t took[64];
    for (int k = 0; k < n; k++) {
        move(100, 0);
        uint64_t from = clock_mono_ns();
        int was = killed ? killed->restarts : -1;
        if (killed)
            harness_kill(killed, SIGKILL);
        await_shards("split", 1, 4);
        took[k] = clock_mono_ns() - from;
        while (killed && killed->restarts == was && clock_mono_ns() - from < PATIENCE)
            harness_supervise(&h);
    }
    qsort(took, (size_t)n, sizeof *took, by_size);
    return took[n / 2];
}

static void a_shard_that_is_killed_over_and_over_does_not_hold_up_the_others(void **state)
{
    (void)state;
    uint64_t quiet = 0, killing = 0;
    begin();
    define("split", "-- azoth: shard-by :account\n-- azoth: shards 4\n");
    start_store();
    struct process *victim = start_shard("split", 0, 4);
    for (unsigned i = 1; i < 4; i++)
        start_shard("split", i, 4);
    move(1, 0);
    await_shards("split", 0, 4);
    /* In turns, as the machine's speed changes; the least of each. */
    for (int round = 0; round < 4; round++) {
        uint64_t a = middle_lag(15, NULL), b = middle_lag(15, victim);
        quiet = round == 0 || a < quiet ? a : quiet;
        killing = round == 0 || b < killing ? b : killing;
    }
    print_message("MEASURED lag of three shards: %.1f ms, while the fourth is killed %d times %.1f "
                  "ms\n",
                  (double)quiet / 1e6, victim->restarts, (double)killing / 1e6);
    assert_true(victim->restarts >= 20);
    /* A start of a process costs processor time; waiting for the dead one's lapse would be 10 s. */
    assert_true(killing < 5 * quiet + 50 * NS_PER_MS);
    await_shards("split", 0, 4);
    static char text[65536];
    char want[80];
    snprintf(want, sizeof want, "%d,%d;", head, head);
    assert_string_equal(
        harness_rows(&h, "split", "SELECT count(*), max(event) FROM history", text, sizeof text),
        want);
    end();
}

static void another_number_of_shards_is_filled_beside_the_old_one(void **state)
{
    (void)state;
    static char text[65536];
    char want[80];
    begin();
    define("whole", "");
    define("split", "-- azoth: shard-by :account\n");
    start_store();
    harness_start(&h, "whole", 1, "azoth-projector", "--dir", h.dir, "whole", NULL);
    struct process *old[2] = {start_shard("split", 0, 2), start_shard("split", 1, 2)};
    move(2000, 0);
    await_shards("whole", 0, 1);
    await_shards("split", 0, 2);
    same_rows("whole", "split");
    /* A set that is not complete is not read. */
    for (unsigned i = 0; i < 2; i++)
        start_shard("split", i, 3);
    await_shards("split", 1, 2);
    uint64_t until = clock_mono_ns() + PATIENCE;
    while (cursor_of("split", 1, 3) < 2000 && clock_mono_ns() < until)
        nap_ms(1);
    same_rows("whole", "split");
    assert_string_equal(harness_rows(&h, "split", "SELECT DISTINCT shards FROM azoth_projection",
                                     text, sizeof text),
                        "2;");
    start_shard("split", 2, 3);
    await_shards("split", 0, 3);
    for (int i = 0; i < 2; i++) {
        old[i]->restart = 0;
        assert_int_equal(harness_stop(&h, old[i]), 0);
    }
    /* From here on only the new one goes on. */
    move(1000, 0);
    await_shards("whole", 0, 1);
    await_shards("split", 0, 3);
    same_rows("whole", "split");
    assert_string_equal(harness_rows(&h, "split", "SELECT DISTINCT shards FROM azoth_projection",
                                     text, sizeof text),
                        "3;");
    /* Those that stopped are not waited for, and not told of. */
    struct azoth_error err;
    if (azoth_wait_projected(db, "split", (uint64_t)head, 10000, &err))
        fail_msg("%s", err.message);
    assert_int_equal(harness_azoth(&h, text, sizeof text, "lag", "split", NULL, NULL), 0);
    assert_null(strstr(text, "0/2"));
    for (int i = 0; i < 3; i++) {
        snprintf(want, sizeof want, "split %d/3", i);
        assert_non_null(strstr(text, want));
    }
    end();
}

static void dead_letters_of_all_shards_are_told_and_dealt_with(void **state)
{
    (void)state;
    static char text[65536];
    begin();
    define("split", "-- azoth: shard-by :account\n-- azoth: on-error dead-letter\n");
    start_store();
    struct process *shard[3];
    for (unsigned i = 0; i < 3; i++)
        shard[i] = start_shard("split", i, 3);
    move(60, 10);
    await_shards("split", 0, 3);
    assert_string_equal(
        harness_rows(&h, "split", "SELECT event FROM azoth_dlq ORDER BY event", text, sizeof text),
        "10;20;30;40;50;60;");
    assert_int_equal(harness_azoth(&h, text, sizeof text, "dlq", "list", "split", "--json"), 0);
    assert_non_null(strstr(text, "\"event\":60,"));
    assert_int_equal(harness_azoth(&h, text, sizeof text, "dlq", "drop", "split", "20"), 0);
    assert_int_equal(harness_azoth(&h, text, sizeof text, "dlq", "retry", "split", "30"),
                     1); /* fails again */
    assert_int_equal(harness_azoth(&h, text, sizeof text, "dlq", "drop", "split", "31"),
                     1); /* is none */
    assert_string_equal(harness_rows(&h, "split",
                                     "SELECT event, attempts FROM azoth_dlq ORDER BY event", text,
                                     sizeof text),
                        "10,1;30,2;40,1;50,1;60,1;");
    /* Without projectors it is done here, in each file. */
    for (unsigned i = 0; i < 3; i++) {
        shard[i]->restart = 0;
        assert_int_equal(harness_stop(&h, shard[i]), 0);
    }
    assert_int_equal(harness_azoth(&h, text, sizeof text, "dlq", "drop", "split", "--all"), 0);
    assert_string_equal(
        harness_rows(&h, "split", "SELECT count(*) FROM azoth_dlq", text, sizeof text), "0;");
    end();
}

static void migrations_of_all_shards_are_told_and_undone(void **state)
{
    (void)state;
    static char text[65536];
    begin();
    define("split", "-- azoth: shard-by :account\n");
    start_store();
    struct process *shard[2] = {start_shard("split", 0, 2), start_shard("split", 1, 2)};
    move(10, 0);
    await_shards("split", 0, 2);
    append("split", "-- azoth: migration 2 two\nCREATE TABLE u (a);\n-- azoth: undo\nDROP TABLE "
                    "u;\n");
    assert_int_equal(harness_azoth(&h, text, sizeof text, "projection", "migrate", "split", NULL),
                     2);
    shard[0]->restart = shard[1]->restart = 0;
    assert_int_equal(harness_stop(&h, shard[0]), 0);
    /* One runs still: neither is changed. */
    assert_int_equal(harness_azoth(&h, text, sizeof text, "projection", "migrate", "split", NULL),
                     2);
    assert_string_equal(
        harness_rows(&h, "split", "SELECT max(version) FROM azoth_migrations", text, sizeof text),
        "1;");
    assert_int_equal(harness_stop(&h, shard[1]), 0);
    assert_int_equal(harness_azoth(&h, text, sizeof text, "projection", "plan", "split", NULL), 0);
    assert_string_equal(text, "shard 0/2: would apply migration 2 two\n"
                              "shard 1/2: would apply migration 2 two\n");
    assert_int_equal(
        harness_azoth(&h, text, sizeof text, "projection", "migrate", "split", "--json"), 0);
    assert_non_null(strstr(text, "{\"version\":2,\"shard\":1,\"title\":\"two\"}"));
    assert_string_equal(harness_rows(&h, "split",
                                     "SELECT shard, count(*) FROM azoth_projection JOIN u", text,
                                     sizeof text),
                        ",0;");
    assert_string_equal(harness_rows(&h, "split",
                                     "SELECT count(*) FROM azoth_migrations WHERE version = 2",
                                     text, sizeof text),
                        "2;");
    assert_int_equal(harness_azoth(&h, text, sizeof text, "projection", "rollback", "split", NULL),
                     0);
    assert_string_equal(harness_rows(&h, "split",
                                     "SELECT count(*) FROM azoth_migrations WHERE version = 2",
                                     text, sizeof text),
                        "0;");
    /* No file of an unsplit projection was made on the way. */
    char path[400];
    snprintf(path, sizeof path, "%s/split.db", projections);
    assert_int_equal(access(path, F_OK), -1);
    end();
}

static int ends_with(const char *name, const char *of, const char *more)
{
    struct process *p =
        harness_start(&h, "refused", 0, "azoth-projector", "--dir", h.dir, name, of, more, NULL);
    int status = harness_wait(&h, p, 10000);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void what_is_no_shard_is_refused(void **state)
{
    (void)state;
    begin();
    define("split", "-- azoth: shards 4\n");
    define("free", "");
    start_store();
    static const char *const bad[] = {"4/4", "0/0", "1/", "/4", "0/11", "0/4x", "-1/4", "0 /4"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(ends_with("free", bad[i], NULL), 100);
    assert_int_equal(ends_with("split", NULL, NULL), 100);
    assert_int_equal(ends_with("split", "0/3", NULL), 100);
    assert_int_equal(ends_with("split", "0/4", "--once"), 0);
    /* One lock for each file. */
    start_shard("split", 1, 4);
    uint64_t until = clock_mono_ns() + PATIENCE;
    char lock[500];
    snprintf(lock, sizeof lock, "%s/split.1of4.db", projections);
    while (access(lock, F_OK) && clock_mono_ns() < until)
        nap_ms(1);
    assert_int_equal(ends_with("split", "1/4", NULL), 1);
    assert_int_equal(ends_with("split", "2/4", "--once"), 0);
    end();
}

static void run_starts_a_process_for_each_shard(void **state)
{
    (void)state;
    static char text[65536];
    begin();
    define("split", "-- azoth: shard-by :account\n-- azoth: shards 4\n");
    struct process *run = harness_start(&h, "run", 0, "azoth", "run", h.dir, NULL);
    db = harness_attach(&h, 20000);
    assert_non_null(db);
    move(100, 0);
    await_shards("split", 0, 4);
    assert_string_equal(
        harness_rows(&h, "split", "SELECT count(*) FROM history", text, sizeof text), "100;");
    assert_int_equal(harness_stop(&h, run), 0);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(four_shards_have_the_rows_of_one_whoever_is_killed),
        cmocka_unit_test(a_shard_that_is_killed_over_and_over_does_not_hold_up_the_others),
        cmocka_unit_test(another_number_of_shards_is_filled_beside_the_old_one),
        cmocka_unit_test(dead_letters_of_all_shards_are_told_and_dealt_with),
        cmocka_unit_test(migrations_of_all_shards_are_told_and_undone),
        cmocka_unit_test(what_is_no_shard_is_refused),
        cmocka_unit_test(run_starts_a_process_for_each_shard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
