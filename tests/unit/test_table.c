/* test_table.c - a projection's file: exactly once, what stops it, who may read and write it. */
#include "tests/unit/projecting.h"

#include "core/error.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define HEAD   "-- azoth: projection p\n"
#define ONE    "-- azoth: migration 1 one\nCREATE TABLE t (id INTEGER, v);\n"
#define TWO    "-- azoth: migration 2 two\nCREATE TABLE u (id INTEGER);\n"
#define PUT    "-- azoth: on put\nINSERT INTO t VALUES (@id, :v);\n"
#define SIMPLE HEAD ONE PUT /* its handler is on line 5 */

static int open_as(const char *sql, int accept_changed)
{
    int rc = sqlfile_parse("p.sql", bytes_str(sql), &fx.def, &fx.err);
    struct table_options o = {
        .dir = fx.dir, .uuid = uuid, .accept_changed = accept_changed, .shards = 1};
    if (!rc)
        rc = table_open(&fx.def, &o, &fx.table, &fx.err);
    if (rc)
        sqlfile_fini(&fx.def);
    return rc;
}

static void open_good(const char *sql)
{
    good(open_as(sql, 0));
}

/* ---- exactly once ---- */

static void rows_and_cursor_move_together_and_a_restart_resumes(void **state)
{
    (void)state;
    open_good(SIMPLE);
    add(1, "put", "{\"v\":10}");
    add(2, "put", "{\"v\":20}");
    good(apply_range(1, 2));
    assert_string_equal(rows("SELECT cursor, (SELECT count(*) FROM t) FROM azoth_projection"),
                        "2,2;");
    shut();
    open_good(SIMPLE);
    uint64_t at;
    uint32_t check;
    table_cursor(fx.table, &at, &check);
    assert_int_equal(at, 2);
    assert_int_equal(check, fx.check);
    add(3, "put", "{\"v\":30}");
    good(apply_range(3, 3));
    assert_string_equal(rows("SELECT id, v FROM t ORDER BY id"), "1,10;2,20;3,30;");
}

static void a_batch_that_does_not_begin_behind_the_cursor_changes_nothing(void **state)
{
    (void)state;
    open_good(SIMPLE);
    add(1, "put", "{\"v\":10}");
    good(apply_range(1, 1));
    add(1, "put", "{\"v\":10}");
    assert_int_equal(apply_range(1, 1), AZOTH_ERR_GAP);
    add(3, "put", "{\"v\":30}");
    assert_int_equal(apply_range(3, 3), AZOTH_ERR_GAP);
    assert_int_equal(apply_range(2, 0), AZOTH_ERR_GAP);
    assert_int_equal(apply_range(2, UINT64_MAX), AZOTH_ERR_GAP);
    assert_int_equal(cursor(), 1);
    assert_string_equal(rows("SELECT id, v FROM t"), "1,10;");
}

static void a_range_without_events_moves_the_cursor(void **state)
{
    (void)state;
    open_good(SIMPLE);
    fx.check = 77;
    good(apply_range(1, 500));
    assert_int_equal(cursor(), 500);
    assert_string_equal(rows("SELECT cursor, cursor_check FROM azoth_projection"), "500,77;");
    good(apply_range(501, 500)); /* an empty range */
    assert_int_equal(cursor(), 500);
}

static void ids_ascend_within_the_range(void **state)
{
    (void)state;
    open_good(SIMPLE);
    add(2, "put", "{\"v\":1}");
    add(2, "put", "{\"v\":1}");
    assert_int_equal(apply_range(1, 5), AZOTH_ERR_CORRUPT);
    add(6, "put", "{\"v\":1}");
    assert_int_equal(apply_range(1, 5), AZOTH_ERR_CORRUPT);
    add(3, "put", "{\"v\":1}");
    fx.frames.ptr[fx.frames.len - 1] ^= 1;
    assert_int_equal(apply_range(1, 5), AZOTH_ERR_CORRUPT);
    assert_int_equal(cursor(), 0);
    assert_string_equal(rows("SELECT * FROM t"), ";");
}

static void a_cursor_that_somebody_else_moved_stops_it(void **state)
{
    (void)state;
    char path[100];
    open_good(SIMPLE);
    snprintf(path, sizeof path, "%s/p.g1.db", fx.dir);
    run((const char *[]){"sqlite3", path, "UPDATE azoth_projection SET cursor = 9", NULL});
    add(1, "put", "{\"v\":1}");
    assert_int_equal(apply_range(1, 1), AZOTH_ERR_CORRUPT);
    assert_string_equal(rows("SELECT * FROM t"), ";");
}

/* ---- fail-fast ---- */

#define STRICT                                                                                     \
    HEAD "-- azoth: migration 1 one\nCREATE TABLE t (id INTEGER, v CHECK (v < 100));\n"            \
         "CREATE TABLE log (id INTEGER);\n"                                                        \
         "-- azoth: on put\nINSERT INTO log VALUES (@id);\nINSERT INTO t VALUES (@id, :v);\n"

static void fail_fast_commits_what_came_before_and_nothing_of_the_event(void **state)
{
    (void)state;
    open_good(STRICT);
    add(1, "put", "{\"v\":1}");
    uint32_t check;
    add(4, "put", "{\"v\":4}");
    check = fx.check;
    add(6, "put", "{\"v\":100}");
    add(7, "put", "{\"v\":7}");
    assert_int_equal(apply_range(1, 9), AZOTH_ERR_HANDLER);
    assert_string_equal(fx.err.message, "event 6 (put): p.sql:7: CHECK constraint failed: v < 100");
    assert_string_equal(rows("SELECT id, v FROM t"), "1,1;4,4;");
    assert_string_equal(rows("SELECT id FROM log"), "1;4;");
    assert_string_equal(rows("SELECT cursor FROM azoth_projection"), "4;");
    assert_int_equal(cursor(), 4);
    uint64_t at;
    uint32_t at_check;
    table_cursor(fx.table, &at, &at_check);
    assert_int_equal(at_check, check);
    struct table_stats s;
    table_stats(fx.table, &s);
    assert_int_equal(s.events, 2);
    assert_int_equal(s.batches, 1);
    assert_int_equal(s.failures, 1);
    assert_int_equal(table_applied_events(fx.table), 2);
    /* Again, from there: the event is the first one now. */
    add(6, "put", "{\"v\":100}");
    assert_int_equal(apply_range(5, 9), AZOTH_ERR_HANDLER);
    assert_int_equal(cursor(), 4);
    add(6, "put", "{\"v\":6}");
    good(apply_range(5, 9));
    assert_string_equal(rows("SELECT id FROM log"), "1;4;6;");
}

static void a_statement_that_rolls_everything_back_is_one_that_fails(void **state)
{
    (void)state;
    open_good(HEAD "-- azoth: migration 1 one\nCREATE TABLE t (id INTEGER, v UNIQUE);\n"
                   "-- azoth: on put\nINSERT OR ROLLBACK INTO t VALUES (@id, :v);\n");
    add(1, "put", "{\"v\":1}");
    add(2, "put", "{\"v\":1}");
    add(3, "put", "{\"v\":3}");
    assert_int_equal(apply_range(1, 3), AZOTH_ERR_HANDLER);
    assert_string_equal(rows("SELECT id FROM t"), "1;");
    assert_int_equal(cursor(), 1);
    add(2, "put", "{\"v\":2}");
    good(apply_range(2, 2));
    assert_string_equal(rows("SELECT id FROM t"), "1;2;");
}

static void fails_with(const char *payload, const char *why)
{
    char message[240];
    add(1, "put", payload);
    assert_int_equal(apply_range(1, 1), AZOTH_ERR_HANDLER);
    snprintf(message, sizeof message, "event 1 (put): p.sql:5: %s", why);
    assert_string_equal(fx.err.message, message);
    assert_int_equal(cursor(), 0);
}

static void a_field_that_is_missing_is_named_with_file_and_line(void **state)
{
    (void)state;
    open_good(SIMPLE);
    fails_with("{\"w\":1}", "the payload has no field \"v\"");
    fails_with("{}", "the payload has no field \"v\"");
    fails_with("", "the payload is empty, a JSON object is wanted");
    fails_with("[1]", "the payload is JSON, but no object");
    fails_with("{\"v\":1} x",
               "the payload is no JSON object: byte 9: end of file expected near 'x'");
}

static void numbers_beyond_their_type_are_refused_and_never_rounded(void **state)
{
    (void)state;
    open_good(SIMPLE);
    fails_with(
        "{\"v\":9223372036854775808}",
        "the payload is no JSON object: byte 24: too big integer near '9223372036854775808'");
    fails_with("{\"v\":-9223372036854775809}", "the payload is no JSON object: byte 25: too big "
                                               "negative integer near '-9223372036854775809'");
    fails_with("{\"v\":1e999}",
               "the payload is no JSON object: byte 10: real number overflow near '1e999'");
    add(1, "put", "{\"v\":9223372036854775807}");
    add(2, "put", "{\"v\":-9223372036854775808}");
    good(apply_range(1, 2));
    assert_string_equal(rows("SELECT v FROM t"), "9223372036854775807;-9223372036854775808;");
}

/* ---- values ---- */

static void each_kind_of_json_value_has_its_sql_value(void **state)
{
    (void)state;
    static const char *const payloads[] = {
        "{\"v\":-7}",         "{\"v\":2.5}",         "{\"v\":\"\\u00e9\\u20ac\\ud83d\\ude00\"}",
        "{\"v\":true}",       "{\"v\":false}",       "{\"v\":null}",
        "{\"v\":[1, \"a\"]}", "{\"v\":{\"a\": {}}}", "{\"v\":\"\"}",
        "{\"v\":1,\"v\":2}"};
    open_good(SIMPLE);
    for (uint64_t i = 0; i < 10; i++)
        add(i + 1, "put", payloads[i]);
    good(apply_range(1, 10));
    assert_string_equal(rows("SELECT v, typeof(v) FROM t ORDER BY id"),
                        "-7,integer;2.5r,real;\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80,text;1,integer;"
                        "0,integer;null,null;[1,\"a\"],text;{\"a\":{}},text;,text;2,integer;");
}

static void a_nul_in_a_string_is_kept(void **state)
{
    (void)state;
    open_good(SIMPLE);
    add(1, "put", "{\"v\":\"a\\u0000b\"}");
    good(apply_range(1, 1));
    assert_string_equal(rows("SELECT hex(v), typeof(v) FROM t"), "610062,text;");
}

static void what_the_event_has_beside_its_payload_is_at_hand(void **state)
{
    (void)state;
    open_good(HEAD "-- azoth: migration 1 one\nCREATE TABLE t (a, b, c, d, e, f);\n"
                   "-- azoth: on put\nINSERT INTO t VALUES (@id, @type, @time, @txn, @key, "
                   "@payload);\n");
    static const char raw[] = "\xff\x00\x01";
    add(5, "put", "no JSON at all");
    add_bytes(6, "put", bytes_of(raw, 3));
    add(7, "put", "");
    good(apply_range(1, 7));
    assert_string_equal(rows("SELECT a, b, c, d, e, f FROM t WHERE a = 5"),
                        "5,put,1700000000000000005,1005,stream,no JSON at all;");
    assert_string_equal(rows("SELECT typeof(f), hex(f), length(f) FROM t ORDER BY a"),
                        "text,6E6F204A534F4E20617420616C6C,14;blob,FF0001,3;text,,0;");
}

static void several_types_and_statements_find_their_handler(void **state)
{
    (void)state;
    open_good(HEAD ONE TWO "-- azoth: on put, set\nINSERT INTO t VALUES (@id, @type);\n"
                           "INSERT INTO u VALUES (@id);\n"
                           "-- azoth: on gone\nDELETE FROM t WHERE id = :id;\n");
    struct azoth_bytes types = table_types(fx.table);
    assert_true(bytes_eq(types, bytes_str("\3put\3set\4gone")));
    add(1, "put", "");
    add(2, "set", "");
    add(3, "unknown", "");
    add(4, "gone", "{\"id\":1}");
    good(apply_range(1, 4));
    assert_string_equal(rows("SELECT * FROM t"), "2,set;");
    assert_string_equal(rows("SELECT * FROM u"), "1;2;");
    assert_int_equal(table_applied_events(fx.table), 3);
}

/* ---- definitions that change ---- */

static void pending_migrations_are_applied_once_with_their_history(void **state)
{
    (void)state;
    open_good(SIMPLE);
    add(1, "put", "{\"v\":1}");
    good(apply_range(1, 1));
    shut();
    open_good(HEAD ONE TWO PUT);
    assert_string_equal(rows("SELECT version, title FROM azoth_migrations"), "1,one;2,two;");
    assert_string_equal(rows("SELECT count(*) FROM t, azoth_projection"), "1;");
    shut();
    open_good(HEAD ONE TWO PUT);
    assert_string_equal(rows("SELECT count(*), min(applied_at) > 0 FROM azoth_migrations"), "2,1;");
}

static void a_migration_that_fails_leaves_nothing(void **state)
{
    (void)state;
    open_good(SIMPLE);
    shut();
    assert_int_equal(open_as(HEAD ONE "-- azoth: migration 2 two\nCREATE TABLE u (id);\n"
                                      "  CREATE TABLE t (id);\n" PUT,
                             0),
                     AZOTH_ERR_PROJECTION);
    assert_non_null(strstr(fx.err.message, "p.sql:6:"));
    assert_non_null(strstr(fx.err.message, "table t already exists"));
    assert_string_equal(rows("SELECT name FROM sqlite_master WHERE name = 'u'"), ";");
    assert_string_equal(rows("SELECT version FROM azoth_migrations"), "1;");
    open_good(HEAD ONE TWO PUT);
}

static void a_changed_missing_or_late_migration_is_refused(void **state)
{
    (void)state;
    open_good(HEAD ONE "-- azoth: migration 5 five\nCREATE TABLE five (x);\n" PUT);
    shut();
    assert_int_equal(open_as(HEAD "-- azoth: migration 1 one\nCREATE TABLE t (id INTEGER, v, w);\n"
                                  "-- azoth: migration 5 five\nCREATE TABLE five (x);\n" PUT,
                             0),
                     AZOTH_ERR_PROJECTION);
    assert_non_null(strstr(fx.err.message, "p.sql:3:1: migration 1 was changed"));
    assert_int_equal(
        open_as(HEAD ONE TWO "-- azoth: migration 5 five\nCREATE TABLE five (x);\n" PUT, 0),
        AZOTH_ERR_PROJECTION);
    assert_non_null(strstr(fx.err.message, "migration 2 comes late"));
    assert_int_equal(open_as(HEAD ONE PUT, 0), AZOTH_ERR_PROJECTION);
    assert_non_null(strstr(fx.err.message, "not in the definition any more"));
}

#define OTHER HEAD ONE "-- azoth: on put\nINSERT INTO t VALUES (@id, :v + 1);\n"

static void changed_handlers_are_refused_unless_accepted(void **state)
{
    (void)state;
    open_good(SIMPLE);
    add(1, "put", "{\"v\":1}");
    good(apply_range(1, 1));
    shut();
    assert_int_equal(open_as(OTHER, 0), AZOTH_ERR_PROJECTION);
    assert_non_null(strstr(fx.err.message, "the handlers differ"));
    assert_non_null(strstr(fx.err.message, "--accept-changed"));
    assert_int_equal(open_as(OTHER, 1), 0);
    add(2, "put", "{\"v\":1}");
    good(apply_range(2, 2));
    shut();
    open_good(OTHER);
    assert_string_equal(rows("SELECT id, v FROM t"), "1,1;2,2;");
}

static void handlers_may_change_freely_before_the_first_event(void **state)
{
    (void)state;
    open_good(SIMPLE);
    shut();
    open_good(OTHER);
    add(1, "put", "{\"v\":1}");
    good(apply_range(1, 1));
    shut();
    open_good(OTHER);
    shut();
    assert_int_equal(open_as(SIMPLE, 0), AZOTH_ERR_PROJECTION);
}

static void a_handler_that_cannot_be_prepared_is_refused_with_its_place(void **state)
{
    (void)state;
    assert_int_equal(
        open_as(HEAD ONE "-- azoth: on put\nSELECT 1;\n  INSERT INTO nowhere VALUES (1);\n", 0),
        AZOTH_ERR_PROJECTION);
    assert_string_equal(fx.err.message, "p.sql:6:15: no such table: nowhere");
    assert_int_equal(open_as(HEAD ONE "-- azoth: on put\nSELECT 1;\n  SELECT @when;\n", 0),
                     AZOTH_ERR_PROJECTION);
    assert_non_null(strstr(fx.err.message, "p.sql:6:10:"));
    assert_non_null(strstr(fx.err.message, "parameter @when is neither"));
    assert_int_equal(open_as(HEAD ONE "-- azoth: on put\nCOMMIT;\n", 0), AZOTH_ERR_PROJECTION);
    assert_int_equal(
        open_as(HEAD ONE "-- azoth: on put\nUPDATE azoth_projection SET cursor = 9;\n", 0),
        AZOTH_ERR_PROJECTION);
}

/* ---- the file ---- */

static void the_plain_name_is_a_relative_link_to_the_generation(void **state)
{
    (void)state;
    char path[100], target[100] = "";
    struct stat st;
    open_good(SIMPLE);
    snprintf(path, sizeof path, "%s/p.db", fx.dir);
    assert_int_equal(readlink(path, target, sizeof target - 1), 7);
    assert_string_equal(target, "p.g1.db");
    shut();
    /* Another generation is taken when the link names it. */
    unlink(path);
    assert_int_equal(symlink("p.g2.db", path), 0);
    open_good(SIMPLE);
    assert_int_equal(cursor(), 0);
    snprintf(path, sizeof path, "%s/p.g2.db", fx.dir);
    assert_int_equal(stat(path, &st), 0);
}

static void a_second_projector_is_refused(void **state)
{
    (void)state;
    open_good(SIMPLE);
    struct sqlfile def;
    struct table *second = NULL;
    struct azoth_error err = {0};
    struct table_options o = {.dir = fx.dir, .uuid = uuid, .shards = 1};
    assert_int_equal(sqlfile_parse("p.sql", bytes_str(SIMPLE), &def, &err), 0);
    assert_int_equal(table_open(&def, &o, &second, &err), AZOTH_ERR_DUPLICATE);
    assert_null(second);
    assert_non_null(strstr(err.message, "p.lock: another process projects into it"));
    shut();
    assert_int_equal(table_open(&def, &o, &second, &err), 0);
    table_close(second);
    sqlfile_fini(&def);
}

static void another_database_is_not_mixed_in(void **state)
{
    (void)state;
    static const uint8_t other[16] = {9};
    open_good(SIMPLE);
    struct table_options o = {.dir = fx.dir, .uuid = other, .shards = 1};
    table_close(fx.table);
    fx.table = NULL;
    assert_int_equal(table_open(&fx.def, &o, &fx.table, &fx.err), AZOTH_ERR_DIVERGED);
    /* A file that lies where another shard's belongs. */
    char file[200], its[200], name[200], lock[200];
    snprintf(file, sizeof file, "%s/p.g1.db", fx.dir);
    snprintf(its, sizeof its, "%s/p.1of2.g1.db", fx.dir);
    snprintf(name, sizeof name, "%s/p.1of2.db", fx.dir);
    snprintf(lock, sizeof lock, "%s/p.1of2.lock", fx.dir);
    assert_int_equal(link(file, its), 0);
    assert_int_equal(symlink("p.1of2.g1.db", name), 0);
    o = (struct table_options){.dir = fx.dir, .uuid = uuid, .shard = 1, .shards = 2};
    assert_int_equal(table_open(&fx.def, &o, &fx.table, &fx.err), AZOTH_ERR_PROJECTION);
    assert_null(fx.table);
    assert_non_null(strstr(fx.err.message, "it is shard 0 of 1"));
    /* A link to what is no generation of it. */
    unlink(name);
    assert_int_equal(symlink("p.g1.db", name), 0);
    assert_int_equal(table_open(&fx.def, &o, &fx.table, &fx.err), AZOTH_ERR_DUPLICATE);
    assert_non_null(strstr(fx.err.message, "links to p.g1.db, which is no generation"));
    unlink(name);
    unlink(its);
    unlink(lock);
}

/* The shell's reader, a process of its own; what it prints. */
static void shell_says(const char *sql, const char *expected)
{
    char command[300], out[100] = "";
    snprintf(command, sizeof command, "sqlite3 -readonly %s/p.db \"%s\"", fx.dir, sql);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(out, 1, sizeof out - 1, f);
    out[n] = 0;
    assert_int_equal(pclose(f), 0);
    assert_string_equal(out, expected);
}

static void anyone_reads_while_it_is_projecting(void **state)
{
    (void)state;
    open_good(SIMPLE);
    shell_says("SELECT count(*) FROM t", "0\n");
    for (uint64_t id = 1; id <= 5; id++) {
        add(id, "put", "{\"v\":1}");
        good(apply_range(id, id));
        char expected[10];
        snprintf(expected, sizeof expected, "%" PRIu64 "\n", id);
        shell_says("SELECT count(*) FROM t", expected);
    }
    table_idle(fx.table);
    shell_says("SELECT cursor FROM azoth_projection", "5\n");
    shut();
    shell_says("SELECT cursor FROM azoth_projection", "5\n");
}

static int stop_at_once(void *arg, int n, const char *const *names, const struct query_value *v)
{
    uint64_t *wal = arg;
    (void)n;
    (void)names;
    (void)v;
    /* This reader's snapshot is open: truncating must neither wait for it nor harm it. */
    struct table_stats s;
    add(4, "put", "{\"v\":1}");
    good(apply_range(4, 4));
    uint64_t begin = clock_mono_ns();
    table_idle(fx.table);
    assert_true(clock_mono_ns() - begin < NS_PER_S); /* the busy timeout is two */
    table_stats(fx.table, &s);
    *wal = s.wal_bytes;
    return 1;
}

static void idling_gives_the_wal_back_when_no_reader_is_in_the_way(void **state)
{
    (void)state;
    struct table_stats s;
    uint64_t wal = 0;
    open_good(SIMPLE);
    for (uint64_t id = 1; id <= 3; id++) {
        add(id, "put", "{\"v\":1}");
        good(apply_range(id, id));
    }
    table_stats(fx.table, &s);
    assert_true(s.wal_bytes > 0);
    assert_int_equal(query_run(fx.dir, "p", "SELECT * FROM t", stop_at_once, &wal, &fx.err), 0);
    assert_true(wal > 0);
    table_idle(fx.table);
    table_stats(fx.table, &s);
    assert_int_equal(s.wal_bytes, 0);
    assert_string_equal(rows("SELECT count(*) FROM t"), "4;");
}

static void the_wal_is_checkpointed_while_it_is_busy(void **state)
{
    (void)state;
    struct table_stats s;
    char path[100], payload[2200];
    struct stat before, after;
    open_good(SIMPLE);
    memset(payload, 'x', sizeof payload);
    memcpy(payload, "{\"v\":\"", 6);
    memcpy(payload + 2100, "\"}", 3);
    snprintf(path, sizeof path, "%s/p.g1.db", fx.dir);
    assert_int_equal(stat(path, &before), 0);
    uint64_t id = 1;
    for (int batch = 0; batch < 40; batch++) {
        uint64_t first = id;
        for (; id < first + 500; id++)
            add(id, "put", payload);
        good(apply_range(first, id - 1));
    }
    assert_int_equal(stat(path, &after), 0);
    assert_true(after.st_size > before.st_size + 20000 * 2000 / 2);
    table_stats(fx.table, &s);
    assert_true(s.wal_bytes < 64u << 20);
}

/* ---- checking and querying ---- */

static char reported[2000];

static void collect(void *arg, const struct azoth_error *err)
{
    size_t n = strlen(reported);
    const char *slash = strrchr(err->message, '/');
    ++*(int *)arg;
    snprintf(reported + n, sizeof reported - n, "%s\n", slash ? slash + 1 : err->message);
}

static int check(const char *sql)
{
    char path[100];
    int n = 0;
    snprintf(path, sizeof path, "%s/p.sql", fx.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(sql, f);
    fclose(f);
    reported[0] = 0;
    int rc = projection_check_all(path, NULL, NULL, collect, &n);
    struct azoth_error err = {0};
    assert_int_equal(projection_check(path, &err), rc);
    assert_int_equal(rc != 0, n != 0);
    assert_int_equal(err.code, rc);
    return rc;
}

static void check_finds_everything_and_touches_no_file(void **state)
{
    (void)state;
    assert_int_equal(check(SIMPLE), 0);
    assert_int_equal(check(HEAD "-- azoth: on-error explode\n"
                                "-- azoth: migration 1 one\n"
                                "CREATE TABLE t (id, v);\n"
                                "CREATE TABEL u (id);\n"
                                "CREATE TABLE t (id);\n"
                                "INSERT INTO t VALUES (1, :v);\n"
                                "-- azoth: undo\n"
                                "DROP TABLE t; DROP TABLE t2;\n"
                                "-- azoth: on put\n"
                                "INSERT INTO t VALUES (@id, 'a;''b', x);\n"
                                "SELECT @when; INSERT INTO t VALUES (:id, :v);\n"
                                "UPDATE nowhere SET v = 1;\n"),
                     AZOTH_ERR_PROJECTION);
    assert_string_equal(
        reported,
        "p.sql:2:20: \"explode\" is no error strategy: fail-fast, log-and-skip, dead-letter, "
        "custom "
        "or retry\n"
        "p.sql:5:8: near \"TABEL\": syntax error\n"
        "p.sql:6:14: table t already exists\n"
        "p.sql:7:26: parameter :v: there is no event in a migration\n"
        "p.sql:9:26: no such table: t2\n"
        "p.sql:11:37: no such column: x\n"
        "p.sql:12:8: parameter @when is neither :field (up to 63 bytes) nor one of @id @type @time "
        "@txn @key @payload\n"
        "p.sql:13:8: no such table: nowhere\n");
    char path[100];
    snprintf(path, sizeof path, "%s/p.db", fx.dir);
    assert_int_equal(access(path, F_OK), -1);
}

static void check_takes_triggers_and_undo_back(void **state)
{
    (void)state;
    assert_int_equal(check(HEAD ONE "CREATE TRIGGER g AFTER INSERT ON t BEGIN\n"
                                    "  DELETE FROM t WHERE id = 1; DELETE FROM t WHERE id = 2;\n"
                                    "END;\n"
                                    "-- azoth: undo\nDROP TRIGGER g; DROP TABLE t;\n" PUT),
                     0);
}

static void a_query_has_types_and_names_and_only_reads(void **state)
{
    (void)state;
    struct azoth_error err = {0};
    open_good(SIMPLE);
    add(1, "put", "{\"v\":\"x\"}");
    good(apply_range(1, 1));
    assert_string_equal(rows("SELECT 1, 2.5, 'a', NULL, typeof(x'00')"), "1,2.5r,a,null,blob;");
    assert_int_equal(ask("p", "DELETE FROM t", &err), AZOTH_ERR_USAGE);
    assert_int_equal(ask("p", "SELEC 1", &err), AZOTH_ERR_USAGE);
    assert_int_equal(ask("q", "SELECT 1", &err), AZOTH_ERR_NOT_FOUND);
    assert_string_equal(rows("SELECT count(*) FROM t"), "1;");
}

#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(rows_and_cursor_move_together_and_a_restart_resumes),
        T(a_batch_that_does_not_begin_behind_the_cursor_changes_nothing),
        T(a_range_without_events_moves_the_cursor),
        T(ids_ascend_within_the_range),
        T(a_cursor_that_somebody_else_moved_stops_it),
        T(fail_fast_commits_what_came_before_and_nothing_of_the_event),
        T(a_statement_that_rolls_everything_back_is_one_that_fails),
        T(a_field_that_is_missing_is_named_with_file_and_line),
        T(numbers_beyond_their_type_are_refused_and_never_rounded),
        T(each_kind_of_json_value_has_its_sql_value),
        T(a_nul_in_a_string_is_kept),
        T(what_the_event_has_beside_its_payload_is_at_hand),
        T(several_types_and_statements_find_their_handler),
        T(pending_migrations_are_applied_once_with_their_history),
        T(a_migration_that_fails_leaves_nothing),
        T(a_changed_missing_or_late_migration_is_refused),
        T(changed_handlers_are_refused_unless_accepted),
        T(handlers_may_change_freely_before_the_first_event),
        T(a_handler_that_cannot_be_prepared_is_refused_with_its_place),
        T(the_plain_name_is_a_relative_link_to_the_generation),
        T(a_second_projector_is_refused),
        T(another_database_is_not_mixed_in),
        T(anyone_reads_while_it_is_projecting),
        T(idling_gives_the_wal_back_when_no_reader_is_in_the_way),
        T(the_wal_is_checkpointed_while_it_is_busy),
        T(check_finds_everything_and_touches_no_file),
        T(check_takes_triggers_and_undo_back),
        T(a_query_has_types_and_names_and_only_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
