/* test_library.c - handlers in C: batches and savepoints, what the state is told, decisions, the guard. */
#include "projector/library.h"

#include "core/error.h"
#include "projector/replay.h"
#include "tests/unit/handlers.h"
#include "tests/unit/projecting.h"
#include "tests/unit/seed.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define TABLES                                                                                     \
    "-- azoth: migration 1 one\nCREATE TABLE t (id INTEGER, v);\n"                                 \
    "CREATE TABLE checked (v CHECK (v > 0));\n"
#define IN_C "-- azoth: on one in C\n-- azoth: on many, more in C\n"
#define LOAD "-- azoth: load handlers.so\n"
/* The library's handlers, and one in SQL between them. */
#define WITH(marks)                                                                                \
    "-- azoth: projection p\n" LOAD marks TABLES IN_C "-- azoth: on sql\n"                         \
    "INSERT INTO t VALUES (@id, :v); INSERT INTO checked VALUES (:v);\n"

static struct {
    char build[PATH_MAX - 100];
    void *library; /* stays loaded between two tables, and so does what it has noted */
    struct handlers_control *control;
    uint32_t skipped; /* as the projector's log would have it */
} loaded;

static int setup(void **state)
{
    char path[PATH_MAX], link[100];
    handlers_control_fn control;
    memset(&loaded, 0, sizeof loaded);
    ssize_t n = readlink("/proc/self/exe", loaded.build, sizeof loaded.build - 1);
    if (begin(state) || n < 0)
        return -1;
    *strrchr(loaded.build, '/') = 0;
    snprintf(path, sizeof path, "%s/handlers.so", loaded.build);
    snprintf(link, sizeof link, "%s/handlers.so", fx.dir);
    loaded.library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *symbol = loaded.library ? dlsym(loaded.library, "handlers_control") : NULL;
    if (!symbol || symlink(path, link))
        return -1;
    memcpy(&control, &symbol, sizeof control);
    loaded.control = control();
    *loaded.control =
        (struct handlers_control){.table = "", .version = 1, .open = "", .answer = "F"};
    return 0;
}

static int teardown(void **state)
{
    int rc = end(state);
    dlclose(loaded.library);
    return rc;
}

static void skipped(void *arg, enum failure_action action, uint64_t event, const char *error)
{
    (void)arg;
    (void)event;
    (void)error;
    loaded.skipped += action == FAILURE_SKIPPED;
}

static int open_with(const char *sql, const struct table_options *more)
{
    char path[100];
    struct table_options o = *more;
    o.dir = fx.dir;
    o.uuid = uuid;
    o.shards = o.shards ? o.shards : 1;
    memset(&fx.err, 0, sizeof fx.err);
    snprintf(path, sizeof path, "%s/p.sql", fx.dir);
    int rc = sqlfile_parse(path, bytes_str(sql), &fx.def, &fx.err);
    if (!rc) {
        /* What errors say is shorter so. */
        snprintf(fx.def.path, sizeof fx.def.path, "p.sql");
        rc = table_open(&fx.def, &o, &fx.table, &fx.err);
    }
    if (rc) {
        sqlfile_fini(&fx.def);
        return rc;
    }
    table_on_failure(fx.table, skipped, NULL);
    pass_ms(0);
    return 0;
}

static void open_good(const char *sql)
{
    good(open_with(sql, &(struct table_options){0}));
}

static void refused(const char *sql, int code, const char *message)
{
    assert_int_equal(open_with(sql, &(struct table_options){0}), code);
    assert_non_null(strstr(fx.err.message, message));
}

static void put(uint64_t id, const char *type, int v)
{
    char payload[30];
    snprintf(payload, sizeof payload, "{\"v\":%d}", v);
    add(id, type, payload);
}

static int apply_one(uint64_t id, const char *type, int v)
{
    put(id, type, v);
    return apply();
}

/* What the library was told since the last look. */
static const char *noted(void)
{
    static char was[sizeof loaded.control->told];
    memcpy(was, loaded.control->told, sizeof was);
    loaded.control->told[0] = 0;
    return was;
}

#define ROWS    "SELECT id, v FROM t ORDER BY rowid"
#define LETTERS "SELECT event, attempts, code, error FROM azoth_dlq ORDER BY event"

/* ---- transactions ---- */

static void events_reach_c_and_sql_in_one_order_and_one_transaction(void **state)
{
    (void)state;
    open_good(WITH(""));
    assert_string_equal(noted(), "open p 0/1 ");
    put(1, "many", 1);
    put(2, "more", 2);
    put(3, "one", 3);
    put(4, "many", 4);
    put(5, "sql", 5);
    put(6, "nobody's", 0);
    put(7, "more", 6);
    put(8, "more", 1);
    assert_int_equal(apply(), 0);
    assert_string_equal(noted(), "B b1-2:2 e3 b4-4:1 b7-8:2 C ");
    assert_string_equal(rows(ROWS), "1,1;2,2;3,3;4,4;5,5;7,6;8,1;");
    assert_string_equal(rows("SELECT cursor FROM azoth_projection"), "8;");
    assert_int_equal(table_applied_events(fx.table), 7);
    assert_int_equal(loaded.control->sum, 1 + 2 + 3 + 4 + 6 + 1);
    assert_int_equal(apply_one(9, "one", 1), 0);
    assert_string_equal(noted(), "B e9 C ");
    shut();
    assert_string_equal(noted(), "close ");
}

static void a_long_stretch_is_cut_into_calls_of_the_greatest_size(void **state)
{
    (void)state;
    open_good(WITH(""));
    noted();
    for (uint64_t id = 1; id <= 2 * AZOTH_PROJECTION_BATCH_MAX + 1; id++)
        put(id, "many", 1);
    assert_int_equal(apply(), 0);
    assert_string_equal(noted(), "B b1-1024:1024 b1025-2048:1024 b2049-2049:1 C ");
    assert_string_equal(rows("SELECT count(*), count(DISTINCT id) FROM t"), "2049,2049;");
}

static void a_batch_that_fails_is_done_again_event_by_event(void **state)
{
    (void)state;
    open_good(WITH("-- azoth: on-error dead-letter\n"));
    noted();
    put(1, "many", 1);
    put(2, "many", V_FAILS);
    put(3, "more", 3);
    put(4, "one", V_BREAKS_A_CHECK);
    put(5, "one", 5);
    assert_int_equal(apply(), 0);
    assert_string_equal(noted(), "B b1-3:3 R "
                                 "B s b1-1:1 r s b2-2:1 u s b3-3:1 r s e4 u s e5 r C ");
    assert_string_equal(rows(ROWS), "1,1;3,3;5,5;");
    assert_string_equal(rows(LETTERS),
                        "2,1,42,event 2 (many): p.sql:8: it is bad;"
                        "4,1,275,event 4 (one): p.sql:7: CHECK constraint failed: v > 0;");
    assert_int_equal(loaded.control->sum, 9);
    assert_int_equal(cursor(), 5);
    assert_int_equal(table_applied_events(fx.table), 3);
    /* For a while events come one by one, then in batches again. */
    for (uint64_t id = 6; id < 6 + 16; id++) {
        assert_int_equal(apply_one(id, "many", 1), 0);
        assert_non_null(strstr(noted(), "B s b"));
    }
    put(22, "many", 1);
    put(23, "many", 1);
    assert_int_equal(apply(), 0);
    assert_string_equal(noted(), "B b22-23:2 C ");
}

static void a_failure_before_another_handlers_event_is_found_at_its_own(void **state)
{
    (void)state;
    open_good(WITH("-- azoth: on-error log-and-skip\n"));
    noted();
    put(1, "many", V_FAILS);
    put(2, "sql", 2);
    put(3, "many", V_FAILS_SILENTLY);
    put(4, "one", 4);
    assert_int_equal(apply(), 0);
    assert_string_equal(noted(), "B b1-1:1 R B s b1-1:1 u s r s b3-3:1 u s e4 r C ");
    assert_string_equal(rows(ROWS), "2,2;4,4;");
    assert_int_equal(loaded.skipped, 2);
}

static void fail_fast_commits_what_came_before_and_names_the_event(void **state)
{
    (void)state;
    open_good(WITH(""));
    put(1, "many", 1);
    put(2, "many", V_FAILS_SILENTLY);
    put(3, "many", 3);
    assert_int_equal(apply(), AZOTH_ERR_HANDLER);
    assert_string_equal(fx.err.message, "event 2 (many): p.sql:7: it returned 5, and no reason");
    assert_string_equal(rows(ROWS), "1,1;");
    assert_int_equal(cursor(), 1);
    assert_int_equal(loaded.control->sum, 1);
}

static void a_rollback_that_a_handler_ignores_is_its_failure_and_writes_nothing(void **state)
{
    (void)state;
    open_good(WITH("-- azoth: on-error dead-letter\n"));
    noted();
    put(1, "one", 1);
    put(2, "one", V_ROLLS_BACK);
    put(3, "one", 3);
    assert_int_equal(apply(), 0);
    /* SQLITE_CONSTRAINT_CHECK of the row, SQLITE_CONSTRAINT_COMMITHOOK of what follows. */
    assert_string_equal(noted(), "B e1 e2 275 531 R B s e1 r s e2 275 531 R B s e1 r s e3 r C ");
    assert_string_equal(rows(ROWS), "1,1;3,3;");
    assert_string_equal(rows(LETTERS), "2,1,0,event 2 (one): p.sql:7: its SQL rolled the "
                                       "transaction back, and it went on;");
    assert_int_equal(loaded.control->sum, 4);
}

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static void a_sum_in_memory_that_follows_is_always_that_of_the_file(void **state)
{
    (void)state;
    static const char *const types[] = {"one", "many", "more"};
    static const int values[] = {1, 2, 3, V_FAILS, V_BREAKS_A_CHECK, V_ROLLS_BACK};
    uint64_t seed = seed_of_run(), id = 0;
    open_good(WITH("-- azoth: on-error dead-letter\n"));
    for (int batch = 0; batch < 300; batch++) {
        /* Long stretches without failures, so that batches are whole again. */
        uint64_t kinds = batch / 40 % 2 ? 3 : 6;
        for (uint64_t n = next_random(&seed) % 12 + 1; n; n--)
            put(++id, types[next_random(&seed) % 3], values[next_random(&seed) % kinds]);
        assert_int_equal(apply(), 0);
        char want[40];
        snprintf(want, sizeof want, "%" PRId64 ";", loaded.control->sum);
        assert_string_equal(rows("SELECT coalesce(sum(v), 0) FROM t"), want);
        loaded.control->told[0] = 0;
    }
    char want[40];
    snprintf(want, sizeof want, "%" PRIu64 ",1;", id);
    assert_string_equal(rows("SELECT count(*) + (SELECT count(*) FROM azoth_dlq),"
                             " (SELECT count(*) FROM azoth_dlq) > 100 FROM t"),
                        want);
}

static void the_fault_of_the_machine_is_not_an_events(void **state)
{
    (void)state;
    open_good(WITH("-- azoth: on-error dead-letter\n"));
    put(1, "one", 1);
    put(2, "many", V_WANTS_MEMORY);
    sqlite3_hard_heap_limit64(sqlite3_memory_used() + 8000000);
    int rc = apply();
    sqlite3_hard_heap_limit64(0);
    assert_int_equal(rc, AZOTH_ERR_NOMEM);
    assert_int_equal(cursor(), 0);
    assert_int_equal(loaded.control->sum, 0);
    assert_string_equal(rows("SELECT (SELECT count(*) FROM t) + count(*) FROM azoth_dlq"), "0;");
    put(1, "one", 1);
    put(2, "many", V_WANTS_MEMORY);
    assert_int_equal(apply(), 0);
    assert_string_equal(rows(ROWS), "1,1;2,13;");
}

static void what_sql_may_not_c_may_not(void **state)
{
    (void)state;
    open_good(WITH("-- azoth: on-error dead-letter\n"));
    noted();
    put(1, "one", V_TRESPASSES);
    put(2, "one", 2);
    assert_int_equal(apply(), 0);
    assert_string_equal(noted(), "B e1 23 23 23 23 23 23 e2 C "); /* SQLITE_AUTH */
    assert_string_equal(rows(ROWS), "1,11;2,2;");
    assert_string_equal(rows("SELECT cursor FROM azoth_projection"), "2;");
}

static void a_statement_that_is_left_stepped_is_reset(void **state)
{
    (void)state;
    open_good(WITH(""));
    assert_int_equal(apply_one(1, "one", V_LEAVES_A_ROW), 0);
    /* Stepped, it would hold what the file was then, and the WAL could not be cut back. */
    table_idle(fx.table);
    struct table_stats stats;
    table_stats(fx.table, &stats);
    assert_int_equal(stats.wal_bytes, 0);
}

/* ---- decisions ---- */

static void each_answer_of_on_error_has_its_effect(void **state)
{
    (void)state;
    open_good(WITH("-- azoth: on-error custom\n"));
    loaded.control->answer = "S D F";
    noted();
    put(1, "many", 1);
    put(2, "many", V_FAILS);
    put(3, "sql", -3); /* of SQL, too */
    put(4, "one", 4);
    put(5, "one", V_FAILS_SILENTLY);
    put(6, "one", 6);
    assert_int_equal(apply(), AZOTH_ERR_HANDLER);
    assert_string_equal(fx.err.message, "event 5 (one): p.sql:7: it returned 5, and no reason");
    assert_string_equal(
        noted(), "B b1-2:2 R B s b1-1:1 r s b2-2:1 u ?2:1:42:event 2 (many): p.sql:8: it is bad "
                 "s u ?3:1:275:event 3 (sql): p.sql:10: CHECK constraint failed: v > 0 "
                 "s e4 r s e5 u ?5:1:0:event 5 (one): p.sql:7: it returned 5, and no reason C ");
    assert_string_equal(rows(ROWS), "1,1;4,4;");
    assert_string_equal(rows("SELECT event FROM azoth_dlq"), "3;");
    assert_int_equal(cursor(), 4);
    assert_int_equal(loaded.skipped, 1);
    assert_int_equal(loaded.control->asked_first_ns, WALL);
    /* A new process counts on, and may decide otherwise. */
    shut();
    loaded.control->answer = "S";
    open_good(WITH("-- azoth: on-error custom\n"));
    noted();
    put(5, "one", V_FAILS_SILENTLY);
    put(6, "one", 6);
    assert_int_equal(apply(), 0);
    assert_non_null(strstr(noted(), "?5:2:0:"));
    assert_string_equal(rows(ROWS), "1,1;4,4;6,6;");
    assert_string_equal(rows("SELECT count(*) FROM azoth_retry"), "0;");
    assert_int_equal(cursor(), 6);
}

static void an_answer_to_wait_stands_at_the_event_and_counts_across_a_restart(void **state)
{
    (void)state;
    open_good(WITH("-- azoth: on-error custom for one\n"));
    loaded.control->answer = "R100 R250 R99999999 D";
    put(1, "one", 1);
    put(2, "one", V_FAILS);
    put(3, "one", 3);
    assert_int_equal(apply(), TABLE_STANDS);
    assert_int_equal(cursor(), 1);
    assert_string_equal(rows("SELECT event, attempts, next_attempt - last_failure, code "
                             "FROM azoth_retry"),
                        "2,1,100000000,42;");
    assert_true(standing().wait_ns == 100 * NS_PER_MS);
    pass_ms(100);
    assert_int_equal(apply(), TABLE_STANDS);
    assert_true(standing().wait_ns == 250 * NS_PER_MS && standing().failures == 2);
    pass_ms(250);
    buf_clear(&fx.frames);
    shut();
    open_good(WITH("-- azoth: on-error custom for one\n"));
    put(2, "one", V_FAILS);
    put(3, "one", 3);
    assert_int_equal(apply(), TABLE_STANDS);
    assert_int_equal(standing().failures, 3);
    assert_true(standing().wait_ns == AZOTH_PROJECTION_WAIT_MS_MAX * NS_PER_MS);
    assert_int_equal(loaded.control->asked_first_ns, WALL);
    pass_ms(AZOTH_PROJECTION_WAIT_MS_MAX);
    assert_int_equal(apply(), 0);
    assert_string_equal(rows(ROWS), "1,1;3,3;");
    assert_string_equal(rows("SELECT event, attempts FROM azoth_dlq"), "2,4;");
    assert_string_equal(rows("SELECT count(*) FROM azoth_retry"), "0;");
}

static void a_library_that_always_wants_another_attempt_is_ended(void **state)
{
    (void)state;
    int rc, attempts = 1;
    open_good(WITH("-- azoth: on-error custom\n"));
    loaded.control->answer = "R0";
    put(1, "one", 1);
    put(2, "one", V_FAILS);
    while ((rc = apply()) == TABLE_STANDS)
        attempts++;
    assert_int_equal(rc, AZOTH_ERR_HANDLER);
    assert_int_equal(attempts, AZOTH_PROJECTION_ATTEMPTS_MAX);
    assert_string_equal(rows("SELECT event, attempts FROM azoth_retry"), "2,1000;");
    assert_string_equal(rows(ROWS), "1,1;");
}

static void custom_may_follow_retries_and_counts_on(void **state)
{
    (void)state;
    open_good(WITH("-- azoth: on-error retry 1 fixed 100ms then custom\n"));
    loaded.control->answer = "R50 S";
    noted();
    put(1, "one", V_FAILS);
    assert_int_equal(apply(), TABLE_STANDS);
    assert_null(strstr(noted(), "?"));
    pass_ms(100);
    assert_int_equal(apply(), TABLE_STANDS);
    assert_non_null(strstr(noted(), "?1:2:42:"));
    assert_true(standing().wait_ns == 50 * NS_PER_MS);
    pass_ms(50);
    assert_int_equal(apply(), 0);
    assert_non_null(strstr(noted(), "?1:3:42:"));
    assert_int_equal(cursor(), 1);
    assert_int_equal(loaded.skipped, 1);
}

static void one_that_waited_behind_a_letter_is_asked_about_when_its_turn_fails(void **state)
{
    (void)state;
    char answer[COMMAND_ANSWER_MAX];
    const uint8_t id[COMMAND_ID_BYTES] = {1};
    open_good(WITH("-- azoth: on-error custom\n-- azoth: order-by @key\n"));
    loaded.control->answer = "D S D";
    put(1, "one", V_FAILS);
    put(2, "one", V_FAILS);
    put(3, "one", V_FAILS);
    put(4, "many", 4);
    assert_int_equal(apply(), 0);
    assert_string_equal(rows("SELECT event, state FROM azoth_dlq ORDER BY event"),
                        "1,waiting;2,parked;3,parked;4,parked;");
    assert_int_equal(table_command(fx.table, id, "drop 1", answer, &fx.err), 0);
    noted();
    assert_int_equal(table_replay_step(fx.table, &fx.err), 1);
    assert_string_equal(noted(), "B s e2 u ?2:1:42:event 2 (one): p.sql:8: it is bad C ");
    assert_int_equal(table_replay_step(fx.table, &fx.err), 1);
    assert_string_equal(rows("SELECT event, state, attempts FROM azoth_dlq ORDER BY event"),
                        "3,waiting,1;4,parked,0;");
    assert_int_equal(loaded.skipped, 1);
    /* A letter itself is tried again without asking; what waited behind it follows when it is gone. */
    const uint8_t again[COMMAND_ID_BYTES] = {2}, drop[COMMAND_ID_BYTES] = {3};
    noted();
    assert_int_equal(table_command(fx.table, again, "retry 3", answer, &fx.err), 0);
    assert_string_equal(answer, "failed event 3 (one): p.sql:8: it is bad");
    assert_string_equal(noted(), "B s e3 u C ");
    assert_int_equal(table_command(fx.table, drop, "drop 3", answer, &fx.err), 0);
    noted();
    assert_int_equal(table_replay_step(fx.table, &fx.err), 1);
    assert_string_equal(noted(), "B s b4-4:1 r C ");
    assert_string_equal(rows(ROWS), "4,4;");
    assert_int_equal(loaded.control->sum, 4);
}

static void a_letter_whose_retry_rolls_everything_back_is_kept(void **state)
{
    (void)state;
    char answer[COMMAND_ANSWER_MAX];
    const uint8_t id[COMMAND_ID_BYTES] = {1};
    open_good(WITH("-- azoth: on-error dead-letter\n"));
    assert_int_equal(apply_one(1, "one", V_ROLLS_BACK), 0);
    noted();
    assert_int_equal(table_command(fx.table, id, "retry 1", answer, &fx.err), 0);
    assert_string_equal(noted(), "B s e1 275 531 R B C ");
    assert_string_equal(rows("SELECT event, attempts FROM azoth_dlq"), "1,2;");
    assert_int_equal(loaded.control->sum, 0);
}

/* ---- what is refused ---- */

static void a_library_that_cannot_be_used_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *table, *message;
    } tables[] = {
        {"abi", "handlers.so: made for projection ABI 7, this projector has 1"},
        {"nothing", "handlers.so: made for projection ABI 0, this projector has 1"},
        {"count", "handlers.so: 0 projections, 1 to 256 are possible"},
        {"other", "handlers.so: it has no projection p"},
        {"both", "handlers.so: handler 0 of p: it needs a type, and either event or batch"}};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        loaded.control->table = tables[i].table;
        refused(WITH(""), AZOTH_ERR_CONFIG, tables[i].message);
    }
    assert_string_equal(noted(), "");
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/empty.so", loaded.build);
    struct table_options o = {.load = path};
    assert_int_equal(open_with(WITH(""), &o), AZOTH_ERR_CONFIG);
    assert_non_null(strstr(fx.err.message, "empty.so: it has no function azoth_projections"));
    o.load = "/nowhere.so";
    assert_int_equal(open_with(WITH(""), &o), AZOTH_ERR_CONFIG);
    assert_string_equal(fx.err.message, "/nowhere.so: No such file or directory");
    /* Nothing was made. */
    snprintf(path, sizeof path, "%s/p.db", fx.dir);
    assert_int_equal(access(path, F_OK), -1);
}

static void what_a_definition_wants_in_c_must_be_there(void **state)
{
    (void)state;
    refused("-- azoth: projection p\n" LOAD TABLES "-- azoth: on one, two in C\n",
            AZOTH_ERR_PROJECTION,
            "p.sql:6:1: two is handled in C, but the library has no handler of this type");
    refused("-- azoth: projection p\n" TABLES IN_C, AZOTH_ERR_PROJECTION,
            "p.sql:5:1: one is handled in C: no library (`load FILE.so`, or --load) is given");
    refused("-- azoth: projection p\n-- azoth: on-error custom\n" TABLES
            "-- azoth: on a\nDELETE FROM t;\n",
            AZOTH_ERR_PROJECTION, "p.sql:2:1: on-error custom: no library");
    loaded.control->table = "mute";
    refused(WITH("-- azoth: on-error retry 2 fixed 1s then custom for many\n"),
            AZOTH_ERR_PROJECTION,
            "p.sql:3:1: on-error custom: the library decides nothing (on_error)");
    open_good(WITH(""));
    assert_int_equal(apply_one(1, "one", 1), 0);
}

static void a_state_that_is_not_opened_ends_it_and_writes_nothing(void **state)
{
    (void)state;
    loaded.control->open = "refuses";
    refused(WITH(""), AZOTH_ERR_PROJECTION, "p.sql: its library cannot be opened: not today");
    assert_string_equal(noted(), "open p 0/1 ");
    loaded.control->open = "writes";
    refused(WITH(""), AZOTH_ERR_PROJECTION, "its library cannot be opened: constraint failed");
    loaded.control->open = "";
    struct table_options o = {.shard = 1, .shards = 2};
    assert_int_equal(open_with(WITH(""), &o), 0);
    assert_string_equal(noted(), "open p 0/1 open p 1/2 ");
    shut();
    assert_string_equal(noted(), "close ");
    open_good(WITH(""));
    assert_string_equal(rows("SELECT count(*) FROM t"), "0;");
}

static void another_version_of_the_library_is_refused_until_it_is_accepted(void **state)
{
    (void)state;
    open_good(WITH(""));
    loaded.control->version = 2;
    shut();
    open_good(WITH("")); /* nothing is made yet */
    assert_int_equal(apply_one(1, "one", 1), 0);
    shut();
    open_good(WITH(""));
    shut();
    loaded.control->version = 3;
    refused(WITH(""), AZOTH_ERR_PROJECTION,
            "p.sql: the handlers differ from those that made the rows up to event 1");
    struct table_options o = {.accept_changed = 1};
    assert_int_equal(open_with(WITH(""), &o), 0);
    shut();
    open_good(WITH(""));
    assert_int_equal(apply_one(2, "one", 2), 0);
    shut();
    /* A type that goes from C to SQL is another handler. */
    refused("-- azoth: projection p\n" LOAD TABLES
            "-- azoth: on many, more in C\n-- azoth: on one\nDELETE FROM t;\n",
            AZOTH_ERR_PROJECTION, "the handlers differ");
}

static void copy(const char *from, const char *to)
{
    char path[PATH_MAX], fresh[100];
    snprintf(path, sizeof path, "%s/%s", loaded.build, from);
    snprintf(fresh, sizeof fresh, "%s/fresh.so", fx.dir);
    run((const char *[]){"cp", path, fresh, NULL});
    assert_int_equal(rename(fresh, to), 0);
}

static void a_library_that_is_replaced_is_another_one_while_the_old_one_is_loaded(void **state)
{
    (void)state;
    char path[100];
    struct library *l = NULL, *again = NULL;
    snprintf(path, sizeof path, "%s/mine.so", fx.dir);
    copy("handlers.so", path);
    open_good(WITH(""));
    assert_int_equal(library_load(&fx.def, path, &l, &fx.err), 0);
    copy("empty.so", path);
    assert_int_equal(library_load(&fx.def, path, &again, &fx.err), AZOTH_ERR_CONFIG);
    assert_non_null(strstr(fx.err.message, "mine.so: it has no function azoth_projections"));
    copy("handlers.so", path);
    assert_int_equal(library_load(&fx.def, path, &again, &fx.err), 0);
    assert_ptr_not_equal(library_handler(l, bytes_str("one")),
                         library_handler(again, bytes_str("one")));
    library_unload(l);
    assert_int_equal(library_load(&fx.def, path, &l, &fx.err), 0);
    assert_ptr_equal(library_handler(l, bytes_str("one")),
                     library_handler(again, bytes_str("one")));
    library_unload(l);
    library_unload(again);
}

/* ---- check ---- */

static int in_c;

static void collect(void *arg, const struct azoth_error *err)
{
    (void)arg;
    fx.err = *err;
}

static int check(const char *sql, const char *load)
{
    char path[100], so[PATH_MAX];
    snprintf(path, sizeof path, "%s/p.sql", fx.dir);
    snprintf(so, sizeof so, "%s/%s", loaded.build, load ? load : "");
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(sql, f);
    fclose(f);
    memset(&fx.err, 0, sizeof fx.err);
    const struct projection_check_with with = {.load = load ? so : NULL};
    struct projection_unchecked missed;
    int rc = projection_check_all(path, &with, &missed, collect, NULL);
    in_c = missed.in_c;
    return rc;
}

static void check_runs_no_library_unless_it_is_given(void **state)
{
    (void)state;
    assert_int_equal(check(WITH("-- azoth: on-error custom\n"), NULL), 0);
    assert_int_equal(in_c, 1);
    assert_string_equal(noted(), "");
    assert_int_equal(check(WITH("-- azoth: on-error custom\n"), "handlers.so"), 0);
    assert_int_equal(in_c, 0);
    assert_string_equal(noted(), "open p 0/1 close ");
    /* The library's own statements are about a table that is not there. */
    assert_int_equal(check("-- azoth: projection p\n" IN_C, "handlers.so"), AZOTH_ERR_PROJECTION);
    assert_non_null(strstr(fx.err.message, "its library cannot be opened: no such table: t"));
    assert_int_equal(
        check("-- azoth: projection p\n" TABLES "-- azoth: on two in C\n", "handlers.so"),
        AZOTH_ERR_PROJECTION);
    assert_non_null(strstr(fx.err.message, "p.sql:5:1: two is handled in C"));
    assert_int_equal(
        check("-- azoth: projection p\n" TABLES "-- azoth: on a\nDELETE FROM t;\n", NULL), 0);
    assert_int_equal(in_c, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(events_reach_c_and_sql_in_one_order_and_one_transaction),
        T(a_long_stretch_is_cut_into_calls_of_the_greatest_size),
        T(a_batch_that_fails_is_done_again_event_by_event),
        T(a_failure_before_another_handlers_event_is_found_at_its_own),
        T(fail_fast_commits_what_came_before_and_names_the_event),
        T(a_rollback_that_a_handler_ignores_is_its_failure_and_writes_nothing),
        T(a_sum_in_memory_that_follows_is_always_that_of_the_file),
        T(the_fault_of_the_machine_is_not_an_events),
        T(what_sql_may_not_c_may_not),
        T(a_statement_that_is_left_stepped_is_reset),
        T(each_answer_of_on_error_has_its_effect),
        T(an_answer_to_wait_stands_at_the_event_and_counts_across_a_restart),
        T(a_library_that_always_wants_another_attempt_is_ended),
        T(custom_may_follow_retries_and_counts_on),
        T(one_that_waited_behind_a_letter_is_asked_about_when_its_turn_fails),
        T(a_letter_whose_retry_rolls_everything_back_is_kept),
        T(a_library_that_cannot_be_used_is_refused_by_name),
        T(what_a_definition_wants_in_c_must_be_there),
        T(a_state_that_is_not_opened_ends_it_and_writes_nothing),
        T(another_version_of_the_library_is_refused_until_it_is_accepted),
        T(a_library_that_is_replaced_is_another_one_while_the_old_one_is_loaded),
        T(check_runs_no_library_unless_it_is_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
