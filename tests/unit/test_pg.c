/*
 * test_pg.c - a projection's rows on a PostgreSQL server: what test_table.c and test_dlq.c ask of SQLite, and what is
 * a server's alone. One server for all tests; each begins without the schema of its projection.
 */
#include "projector/migrate.h"
#include "projector/replay.h"
#include "projector/sql_pg.h"
#include "tests/system/harness.h"
#include "tests/system/pgserver.h"
#include "tests/unit/projecting.h"

#include "core/error.h"

#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define ONE    "-- azoth: migration 1 one\nCREATE TABLE t (id BIGINT, v TEXT);\n"
#define PUT    "-- azoth: on put\nINSERT INTO t VALUES (@id, :v);\n"
#define SIMPLE ONE PUT

/* Event id fails while its v is in `bad`; the handlers of put are on lines 13 and 14 + marks. */
#define FAILS                                                                                      \
    "-- azoth: migration 1 one\n"                                                                  \
    "CREATE TABLE t (id BIGINT, v BIGINT); CREATE TABLE bad (v BIGINT);\n"                         \
    "CREATE TABLE log (id BIGINT);\n"                                                              \
    "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN\n"                          \
    "  IF EXISTS (SELECT FROM bad WHERE v = NEW.v) THEN RAISE 'it is bad'; END IF;\n"              \
    "  RETURN NEW; END $$;\n"                                                                      \
    "CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION no();\n"                   \
    "-- azoth: on put, other\nINSERT INTO log VALUES (@id);\nINSERT INTO t VALUES (@id, :v);\n"    \
    "-- azoth: on bad\nINSERT INTO bad VALUES (:v);\n"                                             \
    "-- azoth: on good\nDELETE FROM bad WHERE v = :v;\n"

#define LETTERS "SELECT event, state, attempts FROM azoth_dlq ORDER BY event"

static struct pgserver server;

/* ---- a directory, a definition, a table ---- */

static int setup(void **state)
{
    if (begin(state))
        return -1;
    if (pgserver_there())
        pgserver_ask(&server, "DROP SCHEMA IF EXISTS p CASCADE");
    return 0;
}

/* The definition as it is read, by the projector and by who looks at its rows. */
static const char *define(const char *marks, const char *body)
{
    static char path[100];
    snprintf(path, sizeof path, "%s/p.sql", fx.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "-- azoth: projection p\n-- azoth: target postgresql %s\n%s%s", server.conninfo,
            marks, body);
    fclose(f);
    return path;
}

static int open_as(const char *marks, const char *body, int accept_changed)
{
    if (!pgserver_there()) {
        print_message("PostgreSQL is not installed\n");
        skip();
    }
    memset(&fx.err, 0, sizeof fx.err);
    int rc = sqlfile_read(define(marks, body), &fx.def, &fx.err);
    struct table_options o = {
        .dir = fx.dir, .uuid = uuid, .accept_changed = accept_changed, .shards = 1};
    if (!rc)
        rc = table_open(&fx.def, &o, &fx.table, &fx.err);
    if (rc)
        sqlfile_fini(&fx.def);
    return rc;
}

static void open_good(const char *marks, const char *body)
{
    good(open_as(marks, body, 0));
    table_on_failure(fx.table, told, NULL);
    pass_ms(0);
}

static void reopen(const char *marks, const char *body)
{
    shut();
    open_good(marks, body);
}

/* ---- events ---- */

static void mark(uint64_t id, const char *type, int v)
{
    char payload[60];
    snprintf(payload, sizeof payload, "{\"v\":%d,\"k\":%d}", v, v % 10);
    add(id, type, payload);
}

/* ---- exactly once ---- */

static void rows_and_cursor_move_together_and_a_restart_resumes(void **state)
{
    (void)state;
    open_good("", SIMPLE);
    add(1, "put", "{\"v\":10}");
    add(2, "put", "{\"v\":\"x\"}");
    good(apply());
    assert_string_equal(rows("SELECT cursor, (SELECT count(*) FROM t) FROM azoth_projection"),
                        "2,2;");
    reopen("", SIMPLE);
    assert_int_equal(cursor(), 2);
    add(3, "put", "{\"v\":null}");
    good(apply());
    assert_string_equal(rows("SELECT id, v FROM t ORDER BY id"), "1,10;2,x;3,null;");
    /* A batch that comes twice is passed over. */
    assert_int_equal(table_apply(fx.table, (struct azoth_bytes){0}, 2, 3, 0, &fx.err),
                     AZOTH_ERR_GAP);
}

static void each_type_of_column_gets_the_value_it_stands_for(void **state)
{
    (void)state;
    open_good("", "-- azoth: migration 1 one\n"
                  "CREATE TABLE t (i INT, n NUMERIC, d DOUBLE PRECISION, s TEXT, b BOOLEAN,"
                  " j JSONB, js JSON, y BYTEA, z TEXT, at TIMESTAMPTZ, a TEXT, whole JSONB);\n"
                  "-- azoth: on put\n"
                  "INSERT INTO t VALUES (:i, :n, :n, :i, :b, :o, :s, :s, :b,"
                  " to_timestamp(@time / 1000000000), @type || :s || @key, @payload);\n");
    add(1, "put",
        "{\"i\":-5,\"n\":0.1,\"b\":true,\"o\":{\"x\":[1,\"\\u00e9\\\\\"]},\"s\":\"a\\\\x\\\"'\"}");
    good(apply());
    assert_string_equal(rows("SELECT i, n, d, s, b, j, js, y, z, a, whole ->> 'i',"
                             " extract(epoch FROM at)::bigint, whole #>> '{o,x,1}' FROM t"),
                        "-5,0.1,0.1r,-5,1,{\"x\": [1, \"\xc3\xa9\\\\\"]},\"a\\\\x\\\"'\","
                        "a\\x\"'b,1,puta\\x\"'stream,-5,1700000000,\xc3\xa9\\;");
}

static void one_field_may_be_a_number_here_and_text_there(void **state)
{
    (void)state;
    open_good("", "-- azoth: migration 1 one\nCREATE TABLE t (i INT PRIMARY KEY, s TEXT);\n"
                  "-- azoth: on put\nINSERT INTO t VALUES (:v, :v) ON CONFLICT (i) DO UPDATE SET"
                  " s = t.s || :v;\n");
    add(1, "put", "{\"v\":7}");
    add(2, "put", "{\"v\":7}");
    good(apply());
    assert_string_equal(rows("SELECT i, s FROM t"), "7,77;");
}

static void a_value_that_the_column_cannot_hold_is_the_events_fault(void **state)
{
    (void)state;
    open_good("-- azoth: on-error log-and-skip\n",
              "-- azoth: migration 1 one\nCREATE TABLE t (i INT, s TEXT UNIQUE);\n"
              "-- azoth: on put\nINSERT INTO t VALUES (:i, :s);\n"
              "-- azoth: on all\nINSERT INTO t VALUES (@id, @payload);\n");
    add(1, "put", "{\"i\":1,\"s\":\"a\"}");
    add(2, "put", "{\"i\":\"x\",\"s\":\"b\"}");
    add(3, "put", "{\"i\":5000000000,\"s\":\"c\"}");
    add(4, "put", "{\"i\":4,\"s\":\"x\\u0000b\"}");
    add(5, "put", "{\"i\":5,\"s\":\"a\"}");
    add(6, "put", "{\"i\":6}");
    add_bytes(7, "all", bytes_str("\xff\xfe"));
    add(8, "put", "{\"i\":8,\"s\":\"d\"}");
    good(apply());
    assert_string_equal(rows("SELECT i, s FROM t ORDER BY i"), "1,a;8,d;");
    assert_string_equal(fx.told, "0:2;0:3;0:4;0:5;0:6;0:7;");
    assert_int_equal(cursor(), 8);
}

static void a_cursor_that_somebody_else_moved_stops_it(void **state)
{
    (void)state;
    open_good("", SIMPLE);
    add(1, "put", "{\"v\":1}");
    good(apply());
    pgserver_ask(&server, "UPDATE p.azoth_projection SET cursor = 5");
    add(2, "put", "{\"v\":2}");
    assert_int_equal(apply(), AZOTH_ERR_CORRUPT);
    assert_string_equal(rows("SELECT count(*) FROM t"), "1;");
}

/* ---- who may ---- */

static void a_second_projector_is_refused_until_the_first_has_ended(void **state)
{
    (void)state;
    struct table *second = NULL;
    struct table_options o = {.dir = fx.dir, .uuid = uuid, .shards = 1};
    open_good("", SIMPLE);
    assert_int_equal(table_open(&fx.def, &o, &second, &fx.err), AZOTH_ERR_DUPLICATE);
    table_close(fx.table);
    fx.table = NULL;
    assert_int_equal(table_open(&fx.def, &o, &second, &fx.err), 0);
    table_close(second);
}

static void a_session_lasts_however_idle_and_not_beyond_its_client(void **state)
{
    (void)state;
    pgserver_ask(&server, "ALTER ROLE azoth SET idle_session_timeout = '1h'");
    open_good("",
              "-- azoth: migration 1 s\nCREATE TABLE s (name TEXT, setting TEXT);\n"
              "-- azoth: on put\nINSERT INTO s SELECT name, CASE WHEN name LIKE 'tcp%' THEN source"
              " ELSE setting END FROM pg_settings;\n");
    add(1, "put", "{}");
    good(apply());
    pgserver_ask(&server, "ALTER ROLE azoth RESET idle_session_timeout");
    /* On a socket of this machine the server shows 0 for those of TCP, but whose they are. */
    assert_string_equal(rows("SELECT name, setting FROM s WHERE name LIKE 'tcp\\_%' OR"
                             " name = 'idle_session_timeout' ORDER BY name"),
                        "idle_session_timeout,0;tcp_keepalives_count,session;"
                        "tcp_keepalives_idle,session;tcp_keepalives_interval,session;"
                        "tcp_user_timeout,session;");
}

static void a_session_that_was_ended_is_the_machines_fault_and_replaced(void **state)
{
    (void)state;
    const char marks[] = "-- azoth: on-error dead-letter\n";
    open_good(marks, SIMPLE);
    add(1, "put", "{\"v\":1}");
    good(apply());
    pgserver_ask(&server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                          " WHERE application_name = 'azoth:p'");
    add(2, "put", "{\"v\":2}");
    assert_int_equal(apply(), AZOTH_ERR_UNREACHABLE);
    assert_int_equal(azoth_code_class(fx.err.code), AZOTH_CLASS_RETRY);
    reopen(marks, SIMPLE);
    assert_int_equal(cursor(), 1);
    add(2, "put", "{\"v\":2}");
    good(apply());
    assert_string_equal(rows("SELECT id, v FROM t ORDER BY id"), "1,1;2,2;");
    assert_string_equal(rows(LETTERS), ";");
}

static void another_database_and_other_handlers_are_refused(void **state)
{
    (void)state;
    static const uint8_t other[16] = {9};
    struct table_options o = {.dir = fx.dir, .uuid = other, .shards = 1};
    open_good("", SIMPLE);
    add(1, "put", "{\"v\":1}");
    good(apply());
    shut();
    assert_int_equal(open_as("", ONE "-- azoth: on put\nINSERT INTO t VALUES (1, :v);\n", 0),
                     AZOTH_ERR_PROJECTION);
    assert_int_equal(open_as("", ONE "-- azoth: on put\nINSERT INTO t VALUES (1, :v);\n", 1), 0);
    table_close(fx.table);
    fx.table = NULL;
    assert_int_equal(table_open(&fx.def, &o, &fx.table, &fx.err), AZOTH_ERR_DIVERGED);
}

static void what_is_not_for_a_server_is_refused_by_name(void **state)
{
    (void)state;
    struct table_options o = {.dir = fx.dir, .uuid = uuid, .shards = 2};
    open_good("", SIMPLE);
    table_close(fx.table);
    fx.table = NULL;
    assert_int_equal(table_open(&fx.def, &o, &fx.table, &fx.err), AZOTH_ERR_PROJECTION);
    assert_non_null(strstr(fx.err.message, "a projection in PostgreSQL is not split"));
    o.shards = 1;
    o.file = "/tmp/some.db";
    assert_int_equal(table_open(&fx.def, &o, &fx.table, &fx.err), AZOTH_ERR_UNSUPPORTED);
    struct sql_db *db = NULL;
    assert_int_equal(sql_pg_open(server.conninfo, "public", SQL_PG_PROJECT, &db, &fx.err),
                     AZOTH_ERR_PROJECTION);
    assert_null(db);
}

static int opens(const char *conninfo, char *message)
{
    struct sql_db *db = NULL;
    int rc = sql_pg_open(conninfo, "p", SQL_PG_PROJECT, &db, &fx.err);
    snprintf(message, sizeof fx.err.message, "%s", fx.err.message);
    sql_close(db);
    return rc;
}

static void why_there_is_no_connection_is_told_without_the_password(void **state)
{
    (void)state;
    char conninfo[400], why[300];
    open_good("", SIMPLE);
    shut();
    assert_int_equal(opens("host=/nonexistent password=secret77", why), AZOTH_ERR_UNREACHABLE);
    assert_null(strstr(why, "secret77"));
    assert_int_equal(opens("host=/x password=secret77 nonsense", why), AZOTH_ERR_CONFIG);
    assert_null(strstr(why, "secret77"));
    assert_int_equal(opens("postgresql://u:a@secret77@h/db", why), AZOTH_ERR_CONFIG);
    assert_null(strstr(why, "secret77"));
    snprintf(conninfo, sizeof conninfo, "host=%s user=azoth password=secret77 dbname=none",
             server.dir);
    assert_int_equal(opens(conninfo, why), AZOTH_ERR_CONFIG);
    assert_non_null(strstr(why, "none"));
    assert_null(strstr(why, "secret77"));
    pgserver_ask(&server, "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    snprintf(conninfo, sizeof conninfo, "host=%s user=azoth dbname=latin", server.dir);
    assert_int_equal(opens(conninfo, why), AZOTH_ERR_CONFIG);
    assert_non_null(strstr(why, "is LATIN1: UTF8 is wanted"));
    snprintf(conninfo, sizeof conninfo, "host=%s user=nobody_here dbname=postgres", server.dir);
    assert_int_equal(opens(conninfo, why), AZOTH_ERR_PERMISSION);
}

static void a_reader_reads_and_does_not_write(void **state)
{
    (void)state;
    open_good("", SIMPLE);
    add(1, "put", "{\"v\":1}");
    good(apply());
    static const char *const wrong[] = {"DELETE FROM t", "SELEC 1", "SELECT 1; SELECT 2", ""};
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(ask("p", wrong[i], &fx.err), AZOTH_ERR_USAGE);
    assert_string_equal(rows("SELECT true, 1::smallint, 2.5::real, 12345678901234567890::numeric,"
                             " sum(id), NULL, '\\x4142'::bytea, now() > to_timestamp(0) FROM t"),
                        "1,1,2.5r,12345678901234567890,1,null,ABb,1;");
    assert_string_equal(rows("SELECT count(*) FROM generate_series(1, 100000)"), "100000;");
    assert_string_equal(rows("SELECT id FROM t WHERE id = 7"), ";");
    run((const char *[]){"sed", "-i", "s/projection p/projection q/", define("", SIMPLE), NULL});
    pgserver_ask(&server, "DROP SCHEMA p CASCADE");
    assert_int_equal(ask("p", "SELECT 1", &fx.err), AZOTH_ERR_NOT_FOUND);
}

static void a_reader_that_may_not_use_the_schema_is_told_so(void **state)
{
    (void)state;
    char conninfo[400];
    struct sql_db *db = NULL;
    open_good("", SIMPLE);
    pgserver_ask(&server, "CREATE ROLE poor LOGIN");
    snprintf(conninfo, sizeof conninfo, "host=%s user=poor dbname=postgres", server.dir);
    assert_int_equal(sql_pg_open(conninfo, "p", SQL_PG_READ, &db, &fx.err), AZOTH_ERR_PERMISSION);
    sql_close(db);
    pgserver_ask(&server, "GRANT USAGE ON SCHEMA p TO poor");
    db = NULL;
    assert_int_equal(sql_pg_open(conninfo, "p", SQL_PG_READ, &db, &fx.err), 0);
    sql_close(db);
    pgserver_ask(&server, "REVOKE USAGE ON SCHEMA p FROM poor; DROP ROLE poor");
}

/* ---- events that fail ---- */

static void fail_fast_keeps_what_came_before_and_stops(void **state)
{
    (void)state;
    open_good("", FAILS);
    mark(1, "bad", 7);
    mark(2, "put", 1);
    mark(3, "put", 7);
    mark(4, "put", 2);
    assert_int_equal(apply(), AZOTH_ERR_HANDLER);
    assert_non_null(strstr(fx.err.message, "event 3 (put): "));
    assert_non_null(strstr(fx.err.message, "p.sql:12: it is bad (SQLSTATE P0001)"));
    assert_string_equal(rows("SELECT id FROM log"), "2;");
    assert_int_equal(cursor(), 2);
}

static void a_skipped_event_leaves_nothing_and_the_batch_goes_on(void **state)
{
    (void)state;
    open_good("-- azoth: on-error log-and-skip\n", FAILS);
    mark(1, "bad", 7);
    mark(2, "put", 1);
    mark(3, "put", 7);
    mark(4, "put", 2);
    add(5, "put", "no JSON");
    mark(6, "put", 3);
    good(apply());
    assert_string_equal(rows("SELECT id FROM t ORDER BY id"), "2;4;6;");
    assert_string_equal(rows("SELECT id FROM log ORDER BY id"), "2;4;6;");
    assert_string_equal(fx.told, "0:3;0:5;");
    assert_int_equal(table_failures(fx.table), 2);
}

static void a_dead_letter_is_kept_whole_and_may_be_tried_again_or_dropped(void **state)
{
    (void)state;
    static const uint8_t id[COMMAND_ID_BYTES] = {1}, id2[COMMAND_ID_BYTES] = {2};
    char answer[COMMAND_ANSWER_MAX];
    const char marks[] = "-- azoth: on-error dead-letter\n";
    open_good(marks, FAILS);
    mark(1, "bad", 7);
    mark(2, "put", 7);
    mark(3, "put", 8);
    mark(4, "put", 7);
    good(apply());
    assert_string_equal(rows("SELECT event, type, key, time - 1700000000000000000, txn, payload,"
                             " state, attempts, first_failure = last_failure, next_attempt"
                             " FROM azoth_dlq WHERE event = 2"),
                        "2,put,streamb,2,1002,{\"v\":7,\"k\":7}b,waiting,1,1,0;");
    /* SQLSTATE P0001 as a number of base 36. */
    assert_string_equal(rows("SELECT code FROM azoth_dlq WHERE event = 2"), "41990401;");
    reopen(marks, FAILS);
    assert_int_equal(standing().waiting, 2);
    assert_int_equal(table_command(fx.table, id, "retry 2", answer, &fx.err), 0);
    assert_memory_equal(answer, "failed event 2", 14);
    assert_string_equal(rows(LETTERS), "2,waiting,2;4,waiting,1;");
    mark(5, "good", 7);
    good(apply());
    assert_int_equal(table_command(fx.table, id2, "retry 2", answer, &fx.err), 0);
    assert_string_equal(answer, "applied");
    assert_int_equal(table_command(fx.table, id2, "retry 2", answer, &fx.err), 0);
    assert_string_equal(answer, "applied");
    assert_string_equal(rows("SELECT id FROM log ORDER BY id"), "2;3;");
    assert_int_equal(table_command(fx.table, (const uint8_t[16]){3}, "drop 4", answer, &fx.err), 0);
    assert_string_equal(answer, "dropped");
    assert_string_equal(rows(LETTERS), ";");
}

/* One of the two is cut in the middle of a character. */
static void a_message_that_was_cut_is_kept_all_the_same(void **state)
{
    (void)state;
    open_good("-- azoth: on-error dead-letter\n", FAILS);
    for (uint64_t id = 1; id <= 2; id++) {
        char payload[700];
        size_t n = (size_t)snprintf(payload, sizeof payload, "{\"v\":\"%s", id == 1 ? "" : "x");
        for (int i = 0; i < 300; i++, n += 2)
            memcpy(payload + n, "\xc3\xa9", 2);
        strcpy(payload + n, "\"}");
        add(id, "put", payload);
    }
    good(apply());
    assert_string_equal(rows("SELECT count(*), min(octet_length(error)) FROM azoth_dlq"), "2,239;");
}

static void retries_are_counted_over_a_restart(void **state)
{
    (void)state;
    const char marks[] = "-- azoth: on-error retry 2 fixed 100ms then dead-letter\n";
    open_good(marks, FAILS);
    mark(1, "bad", 7);
    mark(2, "put", 1);
    mark(3, "put", 7);
    mark(4, "put", 2);
    assert_int_equal(apply(), TABLE_STANDS);
    assert_int_equal(cursor(), 2);
    assert_int_equal(standing().event, 3);
    buf_clear(&fx.frames);
    reopen(marks, FAILS);
    mark(3, "put", 7);
    mark(4, "put", 2);
    struct table_standing s = standing();
    assert_true(s.event == 3 && s.failures == 1);
    pass_ms(200);
    assert_int_equal(apply(), TABLE_STANDS);
    assert_int_equal(standing().failures, 2);
    pass_ms(200);
    good(apply());
    assert_string_equal(rows(LETTERS), "3,waiting,3;");
    assert_string_equal(rows("SELECT id FROM log ORDER BY id"), "2;4;");
    assert_string_equal(rows("SELECT count(*) FROM azoth_retry"), "0;");
}

static void what_follows_a_dead_letter_of_its_value_waits_and_is_released(void **state)
{
    (void)state;
    static const uint8_t id[COMMAND_ID_BYTES] = {1};
    char answer[COMMAND_ANSWER_MAX];
    open_good("-- azoth: on-error dead-letter\n-- azoth: order-by :k\n", FAILS);
    mark(1, "bad", 7);
    mark(2, "put", 7);
    mark(3, "put", 17);
    mark(4, "put", 8);
    mark(5, "put", 27);
    good(apply());
    assert_string_equal(rows(LETTERS), "2,waiting,1;3,parked,0;5,parked,0;");
    assert_int_equal(table_command(fx.table, id, "drop 2", answer, &fx.err), 0);
    assert_int_equal(table_replay_step(fx.table, &fx.err), 1);
    assert_int_equal(table_replay_step(fx.table, &fx.err), 1);
    assert_int_equal(table_replay_step(fx.table, &fx.err), 0);
    assert_string_equal(rows("SELECT id FROM log ORDER BY id"), "3;4;5;");
    assert_string_equal(rows(LETTERS), ";");
}

static void a_breaker_goes_on_counting_over_a_restart(void **state)
{
    (void)state;
    const char marks[] = "-- azoth: on-error log-and-skip\n"
                         "-- azoth: breaker 3 failures in 1min, open 10min\n";
    open_good(marks, FAILS);
    mark(1, "bad", 7);
    mark(2, "put", 7);
    mark(3, "put", 7);
    good(apply());
    assert_string_equal(rows("SELECT state, octet_length(failures) FROM azoth_breaker"), "1,16;");
    reopen(marks, FAILS);
    assert_int_equal(standing().breaker, BREAKER_CLOSED);
    mark(4, "put", 7);
    mark(5, "put", 1);
    assert_int_equal(apply(), TABLE_STANDS);
    buf_clear(&fx.frames);
    assert_int_equal(standing().breaker, BREAKER_OPEN);
    assert_int_equal(cursor(), 4);
}

/* A sequence does not go back with its transaction: so what is tried twice can be seen. */
static void a_deadlock_is_tried_again_and_is_nobodys_fault(void **state)
{
    (void)state;
    open_good("-- azoth: on-error dead-letter\n",
              "-- azoth: migration 1 one\nCREATE TABLE t (id BIGINT); CREATE SEQUENCE tries;\n"
              "CREATE FUNCTION once() RETURNS void LANGUAGE plpgsql AS $$ BEGIN\n"
              "  IF nextval('tries') <= 2 THEN\n"
              "    RAISE 'in the way' USING ERRCODE = '40P01'; END IF; END $$;\n"
              "-- azoth: on put\nINSERT INTO t VALUES (@id);\n"
              "-- azoth: on way\nSELECT once();\n"
              "-- azoth: on always\nDO $$ BEGIN RAISE 'x' USING ERRCODE = '40001'; END $$;\n");
    mark(1, "put", 1);
    mark(2, "way", 1);
    mark(3, "put", 1);
    good(apply());
    assert_string_equal(rows("SELECT last_value FROM tries"), "3;");
    assert_string_equal(rows("SELECT id FROM t ORDER BY id"), "1;3;");
    assert_string_equal(rows(LETTERS), ";");
    /* Not for ever. */
    mark(4, "always", 1);
    assert_int_equal(apply(), AZOTH_ERR_BUSY);
    assert_int_equal(cursor(), 3);
    assert_string_equal(rows(LETTERS), ";");
}

/* What the machine says no to is tried again later, by whoever starts the projector again: no event is put aside. */
static void the_machines_faults_are_not_the_events(void **state)
{
    (void)state;
    static const struct {
        const char *state;
        int code;
    } of[] = {{"53100", AZOTH_ERR_NOSPACE},
              {"53200", AZOTH_ERR_NOMEM},
              {"53300", AZOTH_ERR_UNREACHABLE},
              {"57P01", AZOTH_ERR_UNREACHABLE},
              {"08006", AZOTH_ERR_UNREACHABLE},
              {"25006", AZOTH_ERR_UNREACHABLE},
              {"28000", AZOTH_ERR_PERMISSION},
              {"42501", AZOTH_ERR_PERMISSION},
              {"57014", AZOTH_ERR_BUSY},
              {"55P03", AZOTH_ERR_BUSY},
              {"58030", AZOTH_ERR_IO},
              {"XX001", AZOTH_ERR_CORRUPT},
              {"22012", 0},
              {"23514", 0},
              {"42P01", 0},
              {"P0001", 0},
              {"54000", 0},
              {"0A000", 0}};
    open_good("-- azoth: on-error dead-letter\n",
              "-- azoth: migration 1 one\n"
              "CREATE FUNCTION fails(state TEXT) RETURNS void LANGUAGE plpgsql AS $$ BEGIN\n"
              "  RAISE 'no' USING ERRCODE = state; END $$;\n"
              "-- azoth: on put\nSELECT fails(:v);\n");
    int dead = 0;
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        char payload[40], want[20];
        uint64_t before = cursor();
        snprintf(payload, sizeof payload, "{\"v\":\"%s\"}", of[i].state);
        add(before + 1, "put", payload);
        int rc = apply();
        if (rc != of[i].code)
            print_error("%s: %s\n", of[i].state, fx.err.message);
        assert_int_equal(rc, of[i].code);
        dead += rc == 0;
        assert_int_equal(cursor(), before + (rc == 0));
        snprintf(want, sizeof want, "%d;", dead);
        assert_string_equal(rows("SELECT count(*) FROM azoth_dlq"), want);
    }
}

static void a_commit_of_a_transaction_that_failed_is_no_success(void **state)
{
    (void)state;
    struct sql_db *db = NULL;
    struct sql_stmt *commit = NULL;
    open_good("", SIMPLE);
    shut();
    assert_int_equal(sql_pg_open(server.conninfo, "p", SQL_PG_PROJECT, &db, &fx.err), 0);
    assert_int_equal(sql_prepare(db, "COMMIT", &commit), 0);
    assert_int_equal(sql_exec(db, "BEGIN IMMEDIATE"), 0);
    assert_int_equal(sql_exec(db, "SELECT 1 / 0"), SQL_FAILED);
    assert_int_equal(sql_in_transaction(db), 1);
    /* The server says ROLLBACK to it, and means it. */
    assert_int_equal(sql_run(db, commit, &fx.err, "x"), AZOTH_ERR_BUSY);
    assert_int_equal(sql_in_transaction(db), 0);
    assert_int_equal(sql_exec(db, "BEGIN IMMEDIATE"), 0);
    assert_int_equal(sql_run(db, commit, &fx.err, "x"), 0);
    sql_finalize(commit);
    sql_close(db);
}

/* ---- migrations ---- */

static void count_told(void *arg, uint32_t shard, uint32_t shards, const struct sql_migration *m)
{
    (void)shard;
    (void)shards;
    *(uint32_t *)arg = *(uint32_t *)arg * 10 + m->version;
}

#define TWO "-- azoth: migration 2 two\nCREATE TABLE u (id INT);\n-- azoth: undo\nDROP TABLE u;\n"

static void migrations_are_tried_applied_and_undone(void **state)
{
    (void)state;
    uint32_t told_of = 0;
    open_good("", SIMPLE);
    shut();
    assert_int_equal(sqlfile_read(define("", ONE TWO PUT), &fx.def, &fx.err), 0);
    assert_int_equal(projection_migrate(&fx.def, fx.dir, 1, count_told, &told_of, &fx.err), 0);
    assert_int_equal(told_of, 2);
    assert_string_equal(rows("SELECT to_regclass('u') IS NULL"), "1;");
    assert_int_equal(projection_migrate(&fx.def, fx.dir, 0, count_told, &told_of, &fx.err), 0);
    assert_int_equal(told_of, 22);
    assert_string_equal(rows("SELECT to_regclass('u') IS NULL"), "0;");
    assert_string_equal(rows("SELECT version, title FROM azoth_migrations ORDER BY 1"),
                        "1,one;2,two;");
    assert_int_equal(
        projection_rollback(&fx.def, fx.dir, MIGRATE_ONE_BACK, count_told, &told_of, &fx.err), 0);
    assert_string_equal(rows("SELECT to_regclass('u') IS NULL"), "1;");
    assert_string_equal(rows("SELECT version FROM azoth_migrations"), "1;");
}

static void a_migration_that_fails_leaves_nothing_and_one_that_was_changed_is_refused(void **state)
{
    (void)state;
    open_good("", SIMPLE);
    shut();
    assert_int_equal(open_as("",
                             ONE "-- azoth: migration 2 two\nCREATE TABLE u (id INT);\n"
                                 "SELECT 1 / 0;\n" PUT,
                             0),
                     AZOTH_ERR_PROJECTION);
    assert_non_null(strstr(fx.err.message, "p.sql:7:1: migration 2: division by zero"));
    assert_string_equal(rows("SELECT to_regclass('u') IS NULL, count(*) FROM azoth_migrations"),
                        "1,1;");
    assert_int_equal(open_as("", "-- azoth: migration 1 one\nCREATE TABLE t (id INT);\n" PUT, 0),
                     AZOTH_ERR_PROJECTION);
    assert_non_null(strstr(fx.err.message, "migration 1 was changed"));
}

/* ---- checking ---- */

static void keep(void *arg, const struct azoth_error *err)
{
    char *out = arg;
    size_t n = strlen(out);
    const char *at = strstr(err->message, "p.sql:");
    snprintf(out + n, 2000 - n, "%s|", at ? at : err->message);
}

static void a_check_tells_place_and_reason_with_and_without_a_server(void **state)
{
    (void)state;
    char found[2000] = "";
    struct projection_unchecked unasked;
    const struct projection_check_with with = {.postgresql = ""};
    open_good("", SIMPLE);
    shut();
    const char *path = define("", "-- azoth: migration 1 one\nCREATE TABLE t (id BIGINT, v TEXT);\n"
                                  "CREATE TABLE t (id BIGINT);\nSELECT :a;\n"
                                  "-- azoth: undo\nDROP TABLE t;\n"
                                  "-- azoth: on put\nINSERT INTO t\n  VALUES (@id, :v, wrong);\n"
                                  "INSERT INTO t VALUES (@idd, :v);\nCOMMIT;\n"
                                  "DELETE FROM azoth_dlq;\nINSERT INTO t VALUES (@id, :v);\n");
    assert_int_equal(projection_check_all(path, NULL, &unasked, keep, found), AZOTH_ERR_PROJECTION);
    assert_int_equal(unasked.sql, 1);
    assert_string_equal(found,
                        "p.sql:6:8: parameter :a: there is no event in a migration|"
                        "p.sql:12:23: parameter @idd is neither :field (up to 63 bytes) nor one "
                        "of @id @type @time @txn @key @payload|"
                        "p.sql:13:1: not authorized: transactions are the projector's|"
                        "p.sql:14:13: not authorized: names that begin with azoth_ are the "
                        "projector's|");
    found[0] = 0;
    assert_int_equal(projection_check_all(path, &with, &unasked, keep, found),
                     AZOTH_ERR_PROJECTION);
    assert_int_equal(unasked.sql, 0);
    assert_string_equal(found,
                        "p.sql:5:1: relation \"t\" already exists (SQLSTATE 42P07)|"
                        "p.sql:6:8: parameter :a: there is no event in a migration|"
                        "p.sql:11:20: column \"wrong\" does not exist (SQLSTATE 42703)|"
                        "p.sql:12:23: parameter @idd is neither :field (up to 63 bytes) nor one "
                        "of @id @type @time @txn @key @payload|"
                        "p.sql:13:1: not authorized: transactions are the projector's|"
                        "p.sql:14:13: not authorized: names that begin with azoth_ are the "
                        "projector's|");
    /* Nothing of it is left, and what was there is as it was. */
    assert_string_equal(rows("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'azoth%'"),
                        "0;");
    found[0] = 0;
    assert_int_equal(projection_check_all(define("", SIMPLE), &with, &unasked, keep, found), 0);
    assert_string_equal(found, "");
}

/* ---- the server dies ---- */

struct killer {
    uint64_t after_ns;
};

static void *kill_later(void *arg)
{
    const struct killer *k = arg;
    nap_ms((long)(k->after_ns / NS_PER_MS));
    pgserver_kill(&server);
    return NULL;
}

/* Until the connection is gone: at a statement, or at a COMMIT, whose outcome nobody knows then. */
static void apply_until_it_dies(uint64_t from)
{
    int rc = 0;
    for (uint64_t id = from; !rc; id += 3) {
        for (uint64_t k = id; k < id + 3; k++)
            mark(k, k % 7 ? "put" : "other", (int)(k % 5 ? 1 : 7));
        rc = apply();
    }
    assert_int_equal(rc, AZOTH_ERR_UNREACHABLE);
}

static void a_server_that_is_killed_again_and_again_loses_and_doubles_nothing(void **state)
{
    (void)state;
    const char marks[] = "-- azoth: on-error dead-letter\n";
    uint64_t seed = harness_seed();
    open_good(marks, FAILS);
    mark(1, "bad", 7);
    good(apply());
    for (int round = 0; round < 6; round++) {
        pthread_t thread;
        struct killer k = {random_next(&seed) % 60 * NS_PER_MS};
        uint64_t before = cursor();
        assert_int_equal(pthread_create(&thread, NULL, kill_later, &k), 0);
        apply_until_it_dies(before + 1);
        pthread_join(thread, NULL);
        pgserver_start(&server);
        reopen(marks, FAILS);
        assert_true(cursor() >= before);
        char want[100];
        /* One in five is a dead letter, all others are rows, each once. */
        uint64_t n = cursor() - 1, dead = cursor() / 5;
        snprintf(want, sizeof want, "%" PRIu64 ",%" PRIu64 ",%" PRIu64 ";", n - dead, n - dead,
                 dead);
        assert_string_equal(rows("SELECT count(*), count(DISTINCT id),"
                                 " (SELECT count(*) FROM azoth_dlq) FROM log"),
                            want);
        snprintf(want, sizeof want, "%" PRIu64 ";", cursor());
        assert_string_equal(rows("SELECT events FROM azoth_coverage"), want);
    }
    assert_true(cursor() > 20);
}

static int begin_server(void **state)
{
    (void)state;
    if (pgserver_there())
        pgserver_begin(&server);
    return 0;
}

static int end_server(void **state)
{
    (void)state;
    pgserver_end(&server);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(rows_and_cursor_move_together_and_a_restart_resumes),
        TEST(each_type_of_column_gets_the_value_it_stands_for),
        TEST(one_field_may_be_a_number_here_and_text_there),
        TEST(a_value_that_the_column_cannot_hold_is_the_events_fault),
        TEST(a_cursor_that_somebody_else_moved_stops_it),
        TEST(a_second_projector_is_refused_until_the_first_has_ended),
        TEST(a_session_lasts_however_idle_and_not_beyond_its_client),
        TEST(a_session_that_was_ended_is_the_machines_fault_and_replaced),
        TEST(another_database_and_other_handlers_are_refused),
        TEST(what_is_not_for_a_server_is_refused_by_name),
        TEST(why_there_is_no_connection_is_told_without_the_password),
        TEST(a_reader_reads_and_does_not_write),
        TEST(a_reader_that_may_not_use_the_schema_is_told_so),
        TEST(fail_fast_keeps_what_came_before_and_stops),
        TEST(a_skipped_event_leaves_nothing_and_the_batch_goes_on),
        TEST(a_dead_letter_is_kept_whole_and_may_be_tried_again_or_dropped),
        TEST(a_message_that_was_cut_is_kept_all_the_same),
        TEST(retries_are_counted_over_a_restart),
        TEST(what_follows_a_dead_letter_of_its_value_waits_and_is_released),
        TEST(a_breaker_goes_on_counting_over_a_restart),
        TEST(a_deadlock_is_tried_again_and_is_nobodys_fault),
        TEST(the_machines_faults_are_not_the_events),
        TEST(a_commit_of_a_transaction_that_failed_is_no_success),
        TEST(migrations_are_tried_applied_and_undone),
        TEST(a_migration_that_fails_leaves_nothing_and_one_that_was_changed_is_refused),
        TEST(a_check_tells_place_and_reason_with_and_without_a_server),
        TEST(a_server_that_is_killed_again_and_again_loses_and_doubles_nothing),
    };
    return cmocka_run_group_tests(tests, begin_server, end_server);
}
