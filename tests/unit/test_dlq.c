/* test_dlq.c - what becomes of events that fail: strategies, dead letters, replay, order, breaker. */
#include "projector/replay.h"
#include "tests/unit/projecting.h"

#include "core/error.h"

#include <setjmp.h>
#include <spawn.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

extern char **environ;

/* Event id fails while its v is in `bad`: the table is the test's to fill, through events. */
#define BODY                                                                                       \
    "-- azoth: migration 1 one\nCREATE TABLE t (id INTEGER, v); CREATE TABLE log (id INTEGER);\n"  \
    "CREATE TABLE bad (v); CREATE TABLE fatal (v);\n"                                              \
    "CREATE TRIGGER no BEFORE INSERT ON t WHEN NEW.v IN (SELECT v FROM bad)\n"                     \
    "BEGIN SELECT RAISE(ABORT, 'it is bad'); END;\n"                                               \
    "CREATE TRIGGER never BEFORE INSERT ON t WHEN NEW.v IN (SELECT v FROM fatal)\n"                \
    "BEGIN SELECT RAISE(ROLLBACK, 'all is lost'); END;\n"                                          \
    "-- azoth: on put, other\nINSERT INTO log VALUES (@id);\nINSERT INTO t VALUES (@id, :v);\n"    \
    "-- azoth: on bad\nINSERT INTO bad VALUES (:v);\n"                                             \
    "-- azoth: on fatal\nINSERT INTO fatal VALUES (:v);\n"                                         \
    "-- azoth: on good\nDELETE FROM bad WHERE v = :v;\n"                                           \
    "-- azoth: on big\nINSERT INTO t VALUES (@id, length(randomblob(:v)));\n"
#define WITH(marks) "-- azoth: projection p\n" marks BODY

/* The clocks are the test's from the first moment on: stored times are told from the real ones. */
static void open_table(const char *sql)
{
    struct table_options o = {.dir = fx.dir, .uuid = uuid, .shards = 1};
    int rc = sqlfile_parse("p.sql", bytes_str(sql), &fx.def, &fx.err);
    if (!rc)
        rc = table_open(&fx.def, &o, &fx.table, &fx.err);
    good(rc);
    table_on_failure(fx.table, told, NULL);
    pass_ms(0);
}

static void reopen(const char *sql)
{
    shut();
    open_table(sql);
}

static void put(uint64_t id, int v)
{
    char payload[60];
    snprintf(payload, sizeof payload, "{\"v\":%d,\"k\":%d}", v, v % 10);
    add(id, "put", payload);
}

static void mark(uint64_t id, const char *type, int v)
{
    char payload[30];
    snprintf(payload, sizeof payload, "{\"v\":%d}", v);
    add(id, type, payload);
}

#define LETTERS "SELECT event, state, attempts FROM azoth_dlq ORDER BY event"

/* ---- strategies ---- */

static void a_skipped_event_leaves_nothing_and_the_batch_goes_on(void **state)
{
    (void)state;
    open_table(WITH("-- azoth: on-error log-and-skip\n"));
    mark(1, "bad", 7);
    put(2, 1);
    put(3, 7);
    put(4, 2);
    add(5, "put", "no JSON");
    put(6, 3);
    assert_int_equal(apply(), 0);
    assert_string_equal(rows("SELECT id FROM t"), "2;4;6;");
    assert_string_equal(rows("SELECT id FROM log"), "2;4;6;");
    assert_string_equal(rows(LETTERS), ";");
    assert_int_equal(cursor(), 6);
    assert_string_equal(fx.told, "0:3;0:5;");
    assert_int_equal(table_failures(fx.table), 2);
    assert_int_equal(table_applied_events(fx.table), 4);
}

static void a_dead_letter_is_kept_whole_by_the_transaction_that_passes_it(void **state)
{
    (void)state;
    open_table(WITH("-- azoth: on-error dead-letter\n"));
    mark(1, "bad", 7);
    put(2, 7);
    put(3, 8);
    assert_int_equal(apply(), 0);
    assert_string_equal(rows("SELECT id FROM log"), "3;");
    assert_string_equal(
        rows("SELECT event, type, key, time - 1700000000000000000, txn, payload, state, code, "
             "error, attempts, first_failure = last_failure, next_attempt FROM azoth_dlq"),
        "2,put,stream,2,1002,{\"v\":7,\"k\":7},waiting,1811,"
        "event 2 (put): p.sql:12: it is bad,1,1,0;");
    struct table_standing s = standing();
    assert_true(s.waiting == 1 && s.parked == 0 && s.retired == 0 && s.wait_ns == 0);
    reopen(WITH("-- azoth: on-error dead-letter\n"));
    assert_int_equal(standing().waiting, 1);
}

static void a_statement_that_rolls_everything_back_is_survived_by_the_others(void **state)
{
    (void)state;
    open_table(WITH("-- azoth: on-error dead-letter\n"));
    mark(1, "fatal", 7);
    mark(2, "bad", 8);
    for (uint64_t id = 3; id < 13; id++)
        put(id, id == 5 || id == 8 || id == 9 ? 7 : id == 7 ? 8 : 1);
    assert_int_equal(apply(), 0);
    assert_string_equal(rows("SELECT id FROM log"), "3;4;6;10;11;12;");
    assert_string_equal(rows("SELECT event FROM azoth_dlq"), "5;7;8;9;");
    assert_int_equal(cursor(), 12);
    assert_int_equal(table_failures(fx.table), 4);
}

static void a_type_may_differ_from_the_others(void **state)
{
    (void)state;
    open_table(WITH("-- azoth: on-error dead-letter\n-- azoth: on-error fail-fast for other\n"));
    mark(1, "bad", 7);
    put(2, 7);
    put(3, 1);
    mark(4, "other", 7);
    assert_int_equal(apply(), AZOTH_ERR_HANDLER);
    assert_string_equal(fx.err.message, "event 4 (other): p.sql:13: it is bad");
    assert_string_equal(rows("SELECT id FROM log"), "3;");
    assert_string_equal(rows("SELECT event FROM azoth_dlq"), "2;");
    assert_int_equal(cursor(), 3);
}

static void the_fault_of_the_machine_is_not_an_events(void **state)
{
    (void)state;
    open_table(WITH("-- azoth: on-error dead-letter\n"));
    put(1, 1);
    assert_int_equal(apply(), 0);
    char path[100];
    snprintf(path, sizeof path, "%s/p.g1.db", fx.dir);
    int out[2];
    assert_int_equal(pipe(out), 0);
    /* Another process holds the write lock until its input ends. */
    int in[2];
    assert_int_equal(pipe(in), 0);
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, in[0], 0);
    posix_spawn_file_actions_adddup2(&fa, out[1], 1);
    posix_spawn_file_actions_addclose(&fa, in[1]);
    const char *argv[] = {"sqlite3", path, NULL};
    pid_t pid;
    assert_int_equal(posix_spawnp(&pid, "sqlite3", &fa, NULL, (char *const *)argv, environ), 0);
    posix_spawn_file_actions_destroy(&fa);
    const char begin[] = "BEGIN IMMEDIATE;\n.print held\n";
    char got[8];
    assert_int_equal(write(in[1], begin, sizeof begin - 1), sizeof begin - 1);
    assert_true(read(out[0], got, sizeof got) > 0);
    put(2, 2);
    assert_int_equal(apply(), AZOTH_ERR_BUSY);
    assert_int_equal(cursor(), 1);
    close(in[1]);
    close(in[0]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    close(out[0]);
    close(out[1]);
    put(2, 2);
    assert_int_equal(apply(), 0);
    assert_string_equal(rows("SELECT count(*) FROM azoth_dlq"), "0;");
}

static void memory_that_runs_out_in_a_handler_is_not_its_events_fault(void **state)
{
    (void)state;
    open_table(WITH("-- azoth: on-error dead-letter\n"));
    put(1, 1);
    mark(2, "big", 50000000);
    put(3, 3);
    sqlite3_hard_heap_limit64(sqlite3_memory_used() + 8000000);
    int rc = apply();
    sqlite3_hard_heap_limit64(0);
    assert_int_equal(rc, AZOTH_ERR_NOMEM);
    assert_int_equal(cursor(), 0);
    assert_string_equal(rows("SELECT (SELECT count(*) FROM t) + count(*) FROM azoth_dlq"), "0;");
    put(1, 1);
    mark(2, "big", 50000000);
    put(3, 3);
    assert_int_equal(apply(), 0);
    assert_string_equal(rows("SELECT id, v FROM t"), "1,1;2,50000000;3,3;");
}

/* ---- retry ---- */

#define RETRY WITH("-- azoth: on-error retry 2 fixed 100ms then dead-letter\n")

static void a_retry_waits_counts_across_a_restart_and_then_goes_on(void **state)
{
    (void)state;
    open_table(RETRY);
    mark(1, "bad", 7);
    put(2, 1);
    put(3, 7);
    put(4, 2);
    assert_int_equal(apply(), TABLE_STANDS);
    assert_int_equal(cursor(), 2);
    assert_string_equal(rows("SELECT event, attempts, next_attempt - last_failure, error "
                             "FROM azoth_retry"),
                        "3,1,100000000,event 3 (put): p.sql:12: it is bad;");
    struct table_standing s = standing();
    assert_true(s.event == 3 && s.failures == 1 && s.wait_ns == 100 * NS_PER_MS);
    pass_ms(40);
    assert_true(standing().wait_ns == 60 * NS_PER_MS);
    pass_ms(60);
    assert_int_equal(standing().wait_ns, 0);
    assert_int_equal(apply(), TABLE_STANDS);
    assert_int_equal(standing().failures, 2);
    /* A new process has neither the batch nor the clock, only the file. */
    buf_clear(&fx.frames);
    reopen(RETRY);
    assert_true(standing().event == 3 && standing().failures == 2);
    put(3, 7);
    put(4, 2);
    assert_int_equal(apply(), 0);
    assert_string_equal(rows("SELECT id FROM log"), "2;4;");
    assert_string_equal(rows(LETTERS), "3,waiting,3;");
    assert_string_equal(rows("SELECT count(*) FROM azoth_retry"), "0;");
    assert_int_equal(standing().event, 0);
}

static void a_retry_that_succeeds_leaves_no_trace(void **state)
{
    (void)state;
    open_table(RETRY);
    mark(1, "bad", 7);
    put(2, 7);
    put(3, 3);
    assert_int_equal(apply(), TABLE_STANDS);
    shut();
    char path[100];
    snprintf(path, sizeof path, "%s/p.g1.db", fx.dir);
    run((const char *[]){"sqlite3", path, "DELETE FROM bad", NULL});
    open_table(RETRY);
    buf_clear(&fx.frames);
    put(2, 7);
    put(3, 3);
    assert_int_equal(apply(), 0);
    assert_string_equal(rows("SELECT id FROM log"), "2;3;");
    assert_string_equal(rows("SELECT (SELECT count(*) FROM azoth_retry) + count(*) FROM azoth_dlq"),
                        "0;");
}

static void
a_retry_without_another_strategy_fails_at_last_and_once_more_after_a_restart(void **state)
{
    (void)state;
    static const char sql[] = WITH("-- azoth: on-error retry 1 fixed 1ms\n");
    open_table(sql);
    mark(1, "bad", 7);
    put(2, 7);
    assert_int_equal(apply(), TABLE_STANDS);
    assert_int_equal(apply(), AZOTH_ERR_HANDLER);
    assert_string_equal(rows("SELECT event, attempts FROM azoth_retry"), "2,2;");
    reopen(sql);
    put(2, 7);
    assert_int_equal(apply(), AZOTH_ERR_HANDLER);
    assert_string_equal(rows("SELECT event, attempts FROM azoth_retry"), "2,3;");
    assert_int_equal(cursor(), 1);
}

static void waiting_times_keep_their_bounds(void **state)
{
    (void)state;
    const struct backoff e = {BACKOFF_EXPONENTIAL, 100, 5000}, f = {BACKOFF_FIBONACCI, 10, 100},
                         d = {BACKOFF_FIXED, 250, 250};
    static const uint64_t most[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000};
    static const uint64_t fib[] = {10, 10, 20, 30, 50, 80, 100, 100};
    for (uint32_t n = 1; n <= 8; n++) {
        uint64_t least = most[n - 1] / 2 > 100 ? most[n - 1] / 2 : 100;
        assert_int_equal(backoff_ms(&e, n, 0), least);
        assert_int_equal(backoff_ms(&e, n, most[n - 1] - least), most[n - 1]);
        assert_int_equal(backoff_ms(&f, n, 12345), fib[n - 1]);
        assert_int_equal(backoff_ms(&d, n, 12345), 250);
    }
    assert_true(backoff_ms(&e, UINT32_MAX, UINT64_MAX) <= 5000);
}

/* ---- replay ---- */

#define REPLAY                                                                                     \
    WITH("-- azoth: on-error dead-letter\n"                                                        \
         "-- azoth: replay every 1s, age 500ms, attempts 3, stop-after 2\n")

static int replay_all(void)
{
    int n = 0, rc;
    while ((rc = table_replay_step(fx.table, &fx.err)) == 1)
        n++;
    assert_int_equal(rc, 0);
    return n;
}

static void letters_are_tried_again_in_rounds_and_retired_at_last(void **state)
{
    (void)state;
    open_table(REPLAY);
    mark(1, "bad", 7);
    mark(2, "bad", 8);
    put(3, 7);
    put(4, 8);
    put(5, 7);
    assert_int_equal(apply(), 0);
    assert_int_equal(replay_all(), 0); /* too young */
    mark(6, "good", 8);
    assert_int_equal(apply(), 0);
    pass_ms(1000);
    assert_int_equal(table_replay_wait_ns(fx.table), 0);
    assert_int_equal(replay_all(), 3);
    assert_string_equal(rows("SELECT id, v FROM t"), "4,8;");
    assert_string_equal(rows(LETTERS), "3,waiting,2;5,waiting,2;");
    assert_true(table_replay_wait_ns(fx.table) == 1000 * NS_PER_MS);
    pass_ms(1000);
    assert_int_equal(replay_all(), 2);
    assert_string_equal(rows(LETTERS), "3,retired,3;5,retired,3;");
    assert_true(standing().retired == 2 && standing().waiting == 0);
    assert_int_equal(table_replay_wait_ns(fx.table), UINT64_MAX);
    assert_string_equal(fx.told, "1:3;1:4;1:5;4:3;4:5;");
}

static void a_round_ends_after_so_many_failures_in_a_row(void **state)
{
    (void)state;
    open_table(REPLAY);
    mark(1, "bad", 7);
    for (uint64_t id = 2; id < 7; id++)
        put(id, 7);
    assert_int_equal(apply(), 0);
    pass_ms(1000);
    assert_int_equal(replay_all(), 2);
    assert_string_equal(rows("SELECT sum(attempts) FROM azoth_dlq"), "7;");
}

static char answer[COMMAND_ANSWER_MAX];

static const char *command(uint8_t id, const char *what)
{
    uint8_t bytes[COMMAND_ID_BYTES] = {id};
    assert_int_equal(table_command(fx.table, bytes, what, answer, &fx.err), 0);
    return answer;
}

static void a_command_is_done_once_however_often_it_comes(void **state)
{
    (void)state;
    open_table(WITH("-- azoth: on-error dead-letter\n"));
    mark(1, "bad", 7);
    mark(2, "fatal", 8);
    put(3, 7);
    put(4, 8);
    assert_int_equal(apply(), 0);
    assert_string_equal(command(1, "retry 3"), "failed event 3 (put): p.sql:12: it is bad");
    assert_string_equal(command(1, "retry 3"), "failed event 3 (put): p.sql:12: it is bad");
    assert_string_equal(rows(LETTERS), "3,waiting,2;4,waiting,1;");
    assert_string_equal(command(2, "retry 4"), "failed event 4 (put): p.sql:12: all is lost");
    assert_string_equal(rows(LETTERS), "3,waiting,2;4,waiting,2;");
    mark(5, "good", 7);
    assert_int_equal(apply(), 0);
    assert_string_equal(command(3, "retry 3"), "applied");
    reopen(WITH("-- azoth: on-error dead-letter\n"));
    assert_string_equal(command(3, "retry 3"), "applied");
    assert_string_equal(command(4, "retry 3"), "not-found");
    assert_string_equal(command(5, "drop 4"), "dropped");
    assert_string_equal(command(5, "drop 4"), "dropped");
    assert_string_equal(command(6, "drop 4"), "not-found");
    assert_string_equal(command(7, "frob 4"), "unknown");
    assert_string_equal(command(7, "drop 4x"), "unknown");
    assert_string_equal(command(7, "drop 99999999999999999999"), "unknown");
    assert_string_equal(rows("SELECT id FROM log"), "3;");
    assert_int_equal(standing().waiting, 0);
}

/* ---- order ---- */

#define ORDERED WITH("-- azoth: on-error dead-letter\n-- azoth: order-by :k\n")

static void later_events_of_a_value_wait_behind_the_failed_one_and_follow_it_in_order(void **state)
{
    (void)state;
    open_table(ORDERED);
    mark(1, "bad", 11); /* k is the last digit */
    put(2, 11);
    put(3, 21);
    put(4, 12);
    put(5, 31);
    assert_int_equal(apply(), 0);
    assert_string_equal(rows("SELECT id FROM t"), "4;");
    assert_string_equal(rows(LETTERS), "2,waiting,1;3,parked,0;5,parked,0;");
    assert_string_equal(rows("SELECT error FROM azoth_dlq WHERE event = 5"),
                        "waits behind event 2;");
    assert_true(standing().waiting == 1 && standing().parked == 2);
    assert_string_equal(command(1, "retry 3"),
                        "parked: it waits behind an earlier one of its value");
    reopen(ORDERED); /* the file knows who waits */
    put(6, 41);
    mark(7, "good", 11);
    assert_int_equal(apply(), 0);
    assert_int_equal(table_has_released(fx.table), 0);
    assert_string_equal(command(2, "retry 2"), "applied");
    assert_string_equal(rows(LETTERS), "3,waiting,0;5,parked,0;6,parked,0;");
    assert_int_equal(table_has_released(fx.table), 1);
    /* One that comes now still stands behind them. */
    put(8, 51);
    assert_int_equal(apply(), 0);
    reopen(ORDERED);
    assert_int_equal(replay_all(), 4);
    assert_string_equal(rows("SELECT id FROM t ORDER BY rowid"), "4;2;3;5;6;8;");
    assert_string_equal(rows(LETTERS), ";");
    assert_true(standing().waiting == 0 && standing().parked == 0);
    put(9, 61);
    assert_int_equal(apply(), 0);
    assert_string_equal(rows("SELECT id FROM t WHERE id = 9"), "9;");
}

static void a_released_one_that_fails_holds_the_rest_back_and_a_drop_lets_them_go(void **state)
{
    (void)state;
    open_table(ORDERED);
    mark(1, "bad", 11);
    mark(2, "bad", 21);
    put(3, 11);
    put(4, 21);
    put(5, 31);
    assert_int_equal(apply(), 0);
    assert_string_equal(command(1, "drop 3"), "dropped");
    assert_int_equal(replay_all(), 1);
    assert_string_equal(rows(LETTERS), "4,waiting,1;5,parked,0;");
    assert_string_equal(command(2, "drop 4"), "dropped");
    assert_int_equal(replay_all(), 1);
    assert_string_equal(rows("SELECT id FROM t"), "5;");
}

/* ---- breaker ---- */

#define BREAKER                                                                                    \
    WITH("-- azoth: on-error dead-letter\n"                                                        \
         "-- azoth: breaker 3 failures in 1s, open 500ms, probes 2\n")

static void many_failures_open_the_breaker_and_probes_close_it(void **state)
{
    (void)state;
    open_table(BREAKER);
    assert_int_equal(standing().breaker, BREAKER_CLOSED);
    mark(1, "bad", 7);
    put(2, 7);
    put(3, 7);
    assert_int_equal(apply(), 0);
    pass_ms(2000); /* those two are forgotten */
    put(4, 7);
    put(5, 7);
    put(6, 1);
    put(7, 7);
    put(8, 7);
    put(9, 1);
    put(10, 2);
    put(11, 3);
    assert_int_equal(apply(), TABLE_STANDS);
    assert_int_equal(cursor(), 7);
    assert_true(standing().breaker == BREAKER_OPEN && standing().wait_ns == 500 * NS_PER_MS);
    assert_int_equal(apply(), TABLE_STANDS); /* too early: nothing is done */
    assert_int_equal(cursor(), 7);
    pass_ms(500);
    assert_int_equal(standing().breaker, BREAKER_HALF_OPEN);
    assert_int_equal(apply(), TABLE_STANDS); /* the probe fails */
    assert_int_equal(cursor(), 8);
    assert_string_equal(rows("SELECT event FROM azoth_dlq"), "2;3;4;5;7;8;");
    reopen(BREAKER);
    assert_string_equal(rows("SELECT state FROM azoth_breaker"), "2;");
    pass_ms(500);
    buf_clear(&fx.frames);
    put(9, 1);
    put(10, 2);
    put(11, 3);
    assert_int_equal(apply(), 0);
    assert_int_equal(standing().breaker, BREAKER_CLOSED);
    assert_string_equal(rows("SELECT state FROM azoth_breaker"), "1;");
    assert_string_equal(rows("SELECT id FROM t"), "6;9;10;11;");
    assert_string_equal(fx.told, "1:2;1:3;1:4;1:5;1:7;3:7;1:8;3:8;");
}

static void an_open_breaker_outlives_a_restart(void **state)
{
    (void)state;
    open_table(BREAKER);
    /* By the real clocks: those of the test are not set when the file is opened. */
    table_set_clock(fx.table, 0, 0);
    mark(1, "bad", 7);
    put(2, 7);
    put(3, 7);
    put(4, 7);
    put(5, 1);
    assert_int_equal(apply(), TABLE_STANDS);
    reopen(WITH("-- azoth: on-error dead-letter\n"
                "-- azoth: breaker 3 failures in 1s, open 10min\n"));
    table_set_clock(fx.table, 0, 0);
    struct table_standing s = standing();
    assert_true(s.breaker == BREAKER_OPEN || s.breaker == BREAKER_HALF_OPEN);
    reopen(WITH("-- azoth: on-error dead-letter\n"));
    assert_int_equal(standing().breaker, BREAKER_NONE);
    buf_clear(&fx.frames);
    put(5, 1);
    assert_int_equal(apply(), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest tests[] = {
        T(a_skipped_event_leaves_nothing_and_the_batch_goes_on),
        T(a_dead_letter_is_kept_whole_by_the_transaction_that_passes_it),
        T(a_statement_that_rolls_everything_back_is_survived_by_the_others),
        T(a_type_may_differ_from_the_others),
        T(the_fault_of_the_machine_is_not_an_events),
        T(memory_that_runs_out_in_a_handler_is_not_its_events_fault),
        T(a_retry_waits_counts_across_a_restart_and_then_goes_on),
        T(a_retry_that_succeeds_leaves_no_trace),
        T(a_retry_without_another_strategy_fails_at_last_and_once_more_after_a_restart),
        cmocka_unit_test(waiting_times_keep_their_bounds),
        T(letters_are_tried_again_in_rounds_and_retired_at_last),
        T(a_round_ends_after_so_many_failures_in_a_row),
        T(a_command_is_done_once_however_often_it_comes),
        T(later_events_of_a_value_wait_behind_the_failed_one_and_follow_it_in_order),
        T(a_released_one_that_fails_holds_the_rest_back_and_a_drop_lets_them_go),
        T(many_failures_open_the_breaker_and_probes_close_it),
        T(an_open_breaker_outlives_a_restart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
