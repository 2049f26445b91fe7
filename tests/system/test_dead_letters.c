/*
 * test_dead_letters.c - events that fail, with the real projector killed over and over: none is lost, none
 * is dealt with twice; what `azoth lag` and `azoth dlq` say of them; and what a strategy costs whose
 * events do not fail.
 */
#include "tests/system/harness.h"

#include "core/clock.h"
#include "core/error.h"
#include "core/record.h"
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

#include <cmocka.h>

#define EVENTS   100000
#define POISON   100 /* one in so many */
#define KILLS    30
#define PATIENCE (120 * NS_PER_S)

static struct harness h;

static void define(const char *sql)
{
    char path[300];
    snprintf(path, sizeof path, "%s/projections/p.sql", h.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(sql, f);
    fclose(f);
}

/* Events whose v is their id, but 0 for poison. */
static void commit(struct azoth *db, int from, int to, int poison)
{
    struct azoth_error err;
    struct azoth_txn *t = NULL;
    for (int id = from; id <= to; id++) {
        char json[40];
        if (!t)
            t = azoth_txn_new(db);
        snprintf(json, sizeof json, "{\"v\":%d}", id % poison == 0 ? 0 : id);
        azoth_event_json(t, "put", json);
        if (id % 1000 == 0 || id == to) {
            if (azoth_commit(t, NULL, &err))
                fail_msg("%s", err.message);
            azoth_txn_free(t);
            t = NULL;
        }
    }
}

static char text[4000];

static const char *rows(const char *sql)
{
    return harness_rows(&h, "p", sql, text, sizeof text);
}

static void until_rows(const char *sql, const char *want)
{
    uint64_t until = clock_mono_ns() + PATIENCE;
    while (strcmp(rows(sql), want) != 0 && clock_mono_ns() < until) {
        harness_supervise(&h);
        nap_ms(5);
    }
    assert_string_equal(rows(sql), want);
}

static struct process *begin(const char *sql, struct azoth **ret)
{
    harness_begin(&h);
    define(sql);
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, "--writer-sync", "none", NULL);
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
    *ret = harness_attach(&h, 10000);
    assert_non_null(*ret);
    return harness_start(&h, "projector", 1, "azoth-projector", "--dir", h.dir, "p", NULL);
}

#define TABLE                                                                                      \
    "-- azoth: migration 1 one\nCREATE TABLE t (id INTEGER, v CHECK (v > 0));\n"                   \
    "CREATE TABLE log (id INTEGER);\n"
#define PUT "-- azoth: on put\nINSERT INTO log VALUES (@id);\nINSERT INTO t VALUES (@id, :v);\n"

static void poison_is_put_aside_once_and_the_rest_applied_once_whatever_dies(void **state)
{
    (void)state;
    struct azoth *db;
    char want[80];
    uint64_t seed = harness_seed(), until = clock_mono_ns() + PATIENCE;
    struct process *p =
        begin("-- azoth: projection p\n-- azoth: on-error dead-letter\n" TABLE PUT, &db);
    /* Commits and kills take turns: each life has events to work on. */
    for (int k = 0; k < KILLS; k++) {
        commit(db, k * (EVENTS / KILLS) + 1, k == KILLS - 1 ? EVENTS : (k + 1) * (EVENTS / KILLS),
               POISON);
        nap_ms(2 + (long)(random_next(&seed) % 60));
        pid_t was = p->pid;
        harness_kill(p, SIGKILL);
        while ((p->pid == was || !p->pid) && clock_mono_ns() < until) {
            harness_supervise(&h);
            nap_ms(1);
        }
        assert_true(p->pid && p->pid != was);
    }
    snprintf(want, sizeof want, "%d;", EVENTS);
    until_rows("SELECT cursor FROM azoth_projection", want);
    snprintf(want, sizeof want, "%d,%d,%d;", EVENTS - EVENTS / POISON, EVENTS - EVENTS / POISON,
             EVENTS - EVENTS / POISON);
    assert_string_equal(rows("SELECT count(*), count(DISTINCT id), (SELECT count(*) FROM log) "
                             "FROM t"),
                        want);
    snprintf(want, sizeof want, "%d,%d,1;", EVENTS / POISON, EVENTS / POISON);
    assert_string_equal(rows("SELECT count(*), sum(event % 100 = 0 AND payload = '{\"v\":0}'), "
                             "max(attempts) FROM azoth_dlq"),
                        want);
    assert_true(p->restarts >= KILLS);
    char proof[4000];
    if (harness_azoth(&h, proof, sizeof proof, "verify", "--projection", "p", NULL))
        fail_msg("%s", proof);
    assert_non_null(strstr(proof, "p: events 1 to 100000: its 100000 handled"));
    print_message("MEASURED %d restarts\n", p->restarts);
    azoth_close(db);
    harness_end(&h);
}

static void a_projection_that_retries_says_so_and_stops_when_it_is_told(void **state)
{
    (void)state;
    struct azoth *db;
    static char out[8000];
    uint64_t until = clock_mono_ns() + PATIENCE;
    struct process *p = begin("-- azoth: projection p\n"
                              "-- azoth: on-error retry 3 fixed 10min then dead-letter\n" TABLE PUT,
                              &db);
    commit(db, 1, 9, 5);
    do
        assert_int_equal(harness_azoth(&h, out, sizeof out, "lag", "p", "--json", NULL), 0);
    while (!strstr(out, "\"state\":\"retrying\"") && clock_mono_ns() < until);
    assert_non_null(strstr(out, "\"stands_at_event\":5"));
    assert_non_null(strstr(out, "CHECK constraint failed"));
    assert_non_null(strstr(out, "\"cursor\":4"));
    assert_null(strstr(out, "\"next_attempt_s\":null"));
    /* It sleeps for ten minutes, but is not deaf, and remembers. */
    uint64_t asked = clock_mono_ns();
    p->restart = 0;
    assert_int_equal(harness_stop(&h, p), 0);
    assert_true(clock_mono_ns() - asked < 5 * NS_PER_S);
    assert_string_equal(rows("SELECT event, attempts FROM azoth_retry"), "5,1;");
    harness_spawn(&h, p);
    until = clock_mono_ns() + PATIENCE;
    do
        assert_int_equal(harness_azoth(&h, out, sizeof out, "lag", "p", "--json", NULL), 0);
    while (!strstr(out, "\"state\":\"retrying\"") && clock_mono_ns() < until);
    assert_non_null(strstr(out, "\"stands_at_event\":5"));
    assert_string_equal(rows("SELECT event, attempts FROM azoth_retry"), "5,1;");
    assert_string_equal(rows("SELECT count(*) FROM t"), "4;");
    azoth_close(db);
    harness_end(&h);
}

static void an_open_breaker_is_seen_and_passes(void **state)
{
    (void)state;
    struct azoth *db;
    static char out[8000];
    uint64_t until = clock_mono_ns() + PATIENCE;
    begin("-- azoth: projection p\n-- azoth: on-error dead-letter\n"
          "-- azoth: breaker 3 failures in 1min, open 2s, probes 2\n" TABLE PUT,
          &db);
    commit(db, 1, 16, 5);
    do
        assert_int_equal(harness_azoth(&h, out, sizeof out, "lag", "p", "--json", NULL), 0);
    while (!strstr(out, "\"breaker\":\"open\"") && clock_mono_ns() < until);
    assert_non_null(strstr(out, "\"state\":\"open\""));
    assert_non_null(strstr(out, "\"waiting\":3"));
    until_rows("SELECT cursor FROM azoth_projection", "16;");
    commit(db, 17, 19, 5);
    until_rows("SELECT cursor FROM azoth_projection", "19;");
    until = clock_mono_ns() + PATIENCE;
    do
        assert_int_equal(harness_azoth(&h, out, sizeof out, "lag", "p", "--json", NULL), 0);
    while (!strstr(out, "\"breaker\":\"closed\"") && clock_mono_ns() < until);
    assert_non_null(strstr(out, "\"breaker\":\"closed\""));
    azoth_close(db);
    harness_end(&h);
}

static void
a_dead_letter_is_listed_tried_again_and_dropped_with_and_without_a_projector(void **state)
{
    (void)state;
    struct azoth *db;
    static char out[8000];
    struct process *p = begin("-- azoth: projection p\n-- azoth: on-error dead-letter\n" TABLE PUT
                              "-- azoth: on other\nDELETE FROM log;\n",
                              &db);
    commit(db, 1, 20, 5);
    until_rows("SELECT cursor FROM azoth_projection", "20;");
    assert_int_equal(harness_azoth(&h, out, sizeof out, "dlq", "list", "p", "--json"), 0);
    assert_non_null(strstr(out, "{\"event\":5,\"state\":\"waiting\",\"type\":\"put\""));
    assert_non_null(strstr(out, "\"event\":20,"));
    assert_int_equal(harness_azoth(&h, out, sizeof out, "dlq", "retry", "p", "5"), 1);
    assert_non_null(strstr(out, "event 5: failed event 5 (put): "));
    assert_int_equal(harness_azoth(&h, out, sizeof out, "dlq", "drop", "p", "5"), 0);
    assert_int_equal(harness_azoth(&h, out, sizeof out, "dlq", "drop", "p", "5"), 1);
    assert_string_equal(out, "event 5: not-found\n");
    p->restart = 0;
    assert_int_equal(harness_stop(&h, p), 0);
    assert_int_equal(harness_azoth(&h, out, sizeof out, "dlq", "retry-all", "p", NULL), 1);
    assert_string_equal(rows("SELECT event, attempts FROM azoth_dlq ORDER BY event"),
                        "10,2;15,2;20,2;");
    /* A killed one leaves its socket: it is no obstacle. */
    harness_spawn(&h, p);
    until_rows("SELECT cursor FROM azoth_projection", "20;");
    harness_kill(p, SIGKILL);
    harness_wait(&h, p, 5000);
    assert_int_equal(harness_azoth(&h, out, sizeof out, "dlq", "drop", "p", "10"), 0);
    assert_int_equal(harness_azoth(&h, out, sizeof out, "dlq", "export", "p", NULL), 0);
    assert_non_null(strstr(out, "\"payload\":\"{\\\"v\\\":0}\""));
    assert_int_equal(harness_azoth(&h, out, sizeof out, "dlq", "drop", "p", "--all"), 0);
    assert_string_equal(rows("SELECT count(*) FROM azoth_dlq"), "0;");
    assert_int_equal(harness_azoth(&h, out, sizeof out, "dlq", "show", "p", "15"), 1);
    azoth_close(db);
    harness_end(&h);
}

/* ---- what it costs ---- */

#define BATCH  1000
#define ROUNDS 9

static struct buf frames[ROUNDS * 20];
static uint32_t checks[ROUNDS * 20];

static void make_frames(void)
{
    uint64_t id = 0;
    for (int b = 0; b < ROUNDS * 20; b++)
        for (int i = 0; i < BATCH; i++) {
            unsigned char rec[200];
            char json[60];
            snprintf(json, sizeof json, "{\"v\":%d}", (int)(id * 7919 % 50000) + 1);
            struct event_record ev = {.id = ++id,
                                      .type = bytes_str("put"),
                                      .key = bytes_str("k"),
                                      .payload = bytes_str(json)};
            record_event_encode(rec, &ev);
            struct azoth_bytes bytes = bytes_of(rec, record_event_size(&ev));
            assert_int_equal(record_frame_add(&frames[b], id, bytes), 0);
            checks[b] = record_checksum(bytes);
        }
}

struct side {
    struct sqlfile def;
    struct table *table;
    uint64_t ns[ROUNDS];
    char dir[300];
};

static void open_side(struct side *s, const char *name, const char *mark)
{
    char sql[600];
    struct azoth_error err = {0};
    snprintf(s->dir, sizeof s->dir, "%s/%s", h.dir, name);
    char *argv[] = {"mkdir", s->dir, NULL};
    char out[80];
    assert_int_equal(harness_run(out, sizeof out, argv), 0);
    snprintf(sql, sizeof sql,
             "-- azoth: projection p\n%s-- azoth: migration 1 one\n"
             "CREATE TABLE t (v INTEGER PRIMARY KEY, n INTEGER);\n-- azoth: on put\n"
             "INSERT INTO t VALUES (:v, 1) ON CONFLICT (v) DO UPDATE SET n = n + 1;\n",
             mark);
    struct table_options o = {.dir = s->dir, .shards = 1};
    assert_int_equal(sqlfile_parse("p.sql", bytes_str(sql), &s->def, &err), 0);
    if (table_open(&s->def, &o, &s->table, &err))
        fail_msg("%s", err.message);
}

/* Processor time: others on the machine do not count. */
static uint64_t cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void run_round(struct side *s, int round)
{
    uint64_t from = cpu_ns();
    for (int b = round * 20; b < (round + 1) * 20; b++)
        assert_int_equal(table_apply(s->table, buf_bytes(&frames[b]), (uint64_t)b * BATCH + 1,
                                     (uint64_t)(b + 1) * BATCH, checks[b], NULL),
                         0);
    s->ns[round] = cpu_ns() - from;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void without_failures_dead_letters_cost_nothing(void **state)
{
    (void)state;
    static struct side plain, dead;
    double ratio[ROUNDS];
    harness_begin(&h);
    make_frames();
    open_side(&plain, "plain", "");
    open_side(&dead, "dead",
              "-- azoth: on-error dead-letter\n-- azoth: order-by :v\n"
              "-- azoth: breaker 10 failures in 1min, open 30s\n"
              "-- azoth: replay every 1s\n");
    for (int r = 0; r < ROUNDS; r++) {
        /* Each goes first as often. */
        run_round(r % 2 ? &dead : &plain, r);
        run_round(r % 2 ? &plain : &dead, r);
        ratio[r] = (double)plain.ns[r] / (double)dead.ns[r];
    }
    qsort(ratio, ROUNDS, sizeof *ratio, by_size);
    print_message("MEASURED rate with dead-letter / with fail-fast: %.3f (median of %d pairs)\n",
                  ratio[ROUNDS / 2], ROUNDS);
    assert_true(ratio[ROUNDS / 2] >= 0.9);
    struct side *const sides[] = {&plain, &dead};
    for (int i = 0; i < 2; i++) {
        table_close(sides[i]->table);
        sqlfile_fini(&sides[i]->def);
    }
    for (int b = 0; b < ROUNDS * 20; b++)
        buf_fini(&frames[b]);
    harness_end(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(poison_is_put_aside_once_and_the_rest_applied_once_whatever_dies),
        cmocka_unit_test(a_projection_that_retries_says_so_and_stops_when_it_is_told),
        cmocka_unit_test(an_open_breaker_is_seen_and_passes),
        cmocka_unit_test(
            a_dead_letter_is_listed_tried_again_and_dropped_with_and_without_a_projector),
        cmocka_unit_test(without_failures_dead_letters_cost_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
