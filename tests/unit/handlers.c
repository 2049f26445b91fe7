/*
 * handlers.c - a library of handlers for test_library.c: does what payloads say, notes everything that it is
 * told, and keeps a sum in memory that follows the transactions.
 */
#include "tests/unit/handlers.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct handlers_control control = {.table = "", .version = 1, .open = "", .answer = "F"};

AZOTH_API struct handlers_control *handlers_control(void);
struct handlers_control *handlers_control(void)
{
    return &control;
}

struct state {
    sqlite3 *db;
    sqlite3_stmt *insert;
    int64_t at_begin, at_savepoint; /* of control.sum */
};

__attribute__((format(printf, 1, 2))) static void note(const char *fmt, ...)
{
    size_t n = strlen(control.told);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(control.told + n, sizeof control.told - n, fmt, ap);
    va_end(ap);
}

/* ---- the state ---- */

static int open_state(const struct azoth_projection_open *o, void **ret,
                      struct azoth_projection_fail *f)
{
    struct state *s = calloc(1, sizeof *s);
    sqlite3_stmt *sum;
    note("open %s %u/%u ", o->name, o->shard, o->shards);
    if (!s)
        return f->event(f, 0, "no memory");
    s->db = o->db;
    int rc = 0;
    if (strcmp(control.open, "refuses") == 0)
        rc = f->event(f, 3, "not today");
    else if (strcmp(control.open, "writes") == 0 &&
             sqlite3_exec(o->db, "INSERT INTO t VALUES (0, 0)", NULL, NULL, NULL))
        rc = f->sqlite(f);
    else if (sqlite3_prepare_v3(o->db, "INSERT INTO t VALUES (?, ?) RETURNING id", -1,
                                SQLITE_PREPARE_PERSISTENT, &s->insert, NULL) ||
             sqlite3_prepare_v2(o->db, "SELECT coalesce(sum(v), 0) FROM t", -1, &sum, NULL))
        rc = f->sqlite(f);
    if (rc) {
        sqlite3_finalize(s->insert);
        free(s);
        return rc;
    }
    sqlite3_step(sum);
    control.sum = sqlite3_column_int64(sum, 0);
    sqlite3_finalize(sum);
    *ret = s;
    return 0;
}

static void close_state(void *state)
{
    struct state *s = state;
    note("close ");
    sqlite3_finalize(s->insert);
    free(s);
}

static void begin(void *state)
{
    ((struct state *)state)->at_begin = control.sum;
    note("B ");
}

static void commit(void *state)
{
    (void)state;
    note("C ");
}

static void rollback(void *state)
{
    control.sum = ((struct state *)state)->at_begin;
    note("R ");
}

static void savepoint(void *state)
{
    ((struct state *)state)->at_savepoint = control.sum;
    note("s ");
}

static void release(void *state)
{
    (void)state;
    note("r ");
}

static void undo(void *state)
{
    control.sum = ((struct state *)state)->at_savepoint;
    note("u ");
}

/* ---- handlers ---- */

static int64_t value_of(const struct azoth_projection_event *ev)
{
    const char *at = ev->payload.len ? memmem(ev->payload.ptr, ev->payload.len, "\"v\":", 4) : NULL;
    return at ? strtoll(at + 4, NULL, 10) : 0;
}

static void trespass(sqlite3 *db)
{
    static const char *const tries[] = {"COMMIT",
                                        "SAVEPOINT mine",
                                        "PRAGMA journal_mode = DELETE",
                                        "ATTACH ':memory:' AS other",
                                        "DELETE FROM azoth_dlq",
                                        "UPDATE azoth_projection SET cursor = 0"};
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++)
        note("%d ", sqlite3_exec(db, tries[i], NULL, NULL, NULL));
}

static int misbehave(struct state *s, int64_t v, struct azoth_projection_fail *f)
{
    char *why = NULL;
    switch (v) {
    case V_FAILS:
        return f->event(f, 42, "it is %s", "bad");
    case V_BREAKS_A_CHECK:
        return sqlite3_exec(s->db, "INSERT INTO checked VALUES (-1)", NULL, NULL, NULL)
                   ? f->sqlite(f)
                   : 0;
    case V_ROLLS_BACK:
        note("%d ",
             sqlite3_exec(s->db, "INSERT OR ROLLBACK INTO checked VALUES (-1)", NULL, NULL, NULL));
        note("%d ", sqlite3_exec(s->db, "INSERT INTO t VALUES (999, 999)", NULL, NULL, &why));
        sqlite3_free(why);
        return 0;
    case V_FAILS_SILENTLY:
        return 5;
    case V_TRESPASSES:
        trespass(s->db);
        return 0;
    case V_WANTS_MEMORY:
        return sqlite3_exec(s->db, "SELECT length(randomblob(50000000))", NULL, NULL, NULL)
                   ? f->sqlite(f)
                   : 0;
    default:
        return 0;
    }
}

static int put(struct state *s, const struct azoth_projection_event *ev,
               struct azoth_projection_fail *f)
{
    int64_t v = value_of(ev);
    sqlite3_reset(s->insert);
    sqlite3_bind_int64(s->insert, 1, (int64_t)ev->id);
    sqlite3_bind_int64(s->insert, 2, v);
    if (sqlite3_step(s->insert) != SQLITE_ROW)
        return f->sqlite(f);
    if (v != V_LEAVES_A_ROW)
        sqlite3_reset(s->insert);
    control.sum += v;
    return misbehave(s, v, f);
}

static int one(void *state, struct sqlite3 *db, const struct azoth_projection_event *ev,
               struct azoth_projection_fail *f)
{
    (void)db;
    note("e%" PRIu64 " ", ev->id);
    return put(state, ev, f);
}

static int many(void *state, struct sqlite3 *db, const struct azoth_projection_event *ev, size_t n,
                struct azoth_projection_fail *f)
{
    int rc = 0, worst = 0;
    (void)db;
    note("b%" PRIu64 "-%" PRIu64 ":%zu ", ev[0].id, ev[n - 1].id, n);
    for (size_t i = 0; i < n; i++) {
        rc = put(state, &ev[i], f);
        worst = rc ? rc : worst;
    }
    return worst;
}

static int others(void *state, struct sqlite3 *db, const struct azoth_projection_event *ev,
                  size_t n, struct azoth_projection_fail *f)
{
    note("other ");
    return many(state, db, ev, n, f);
}

/* ---- decisions ---- */

static enum azoth_projection_answer on_error(void *state, const struct azoth_projection_event *ev,
                                             const struct azoth_projection_failure *why,
                                             uint64_t *ret_wait_ms)
{
    const char *a = control.answer;
    (void)state;
    if (why->attempts < 10)
        note("?%" PRIu64 ":%u:%d:%s ", ev->id, why->attempts, why->code, why->error);
    control.asked_first_ns = why->first_failure_ns;
    *ret_wait_ms = strtoull(a + 1, NULL, 10);
    const char *next = strchr(a, ' ');
    if (next)
        control.answer = next + 1;
    return *a == 'S'   ? AZOTH_PROJECTION_SKIP
           : *a == 'D' ? AZOTH_PROJECTION_DEAD_LETTER
           : *a == 'R' ? AZOTH_PROJECTION_RETRY
                       : AZOTH_PROJECTION_FAIL_FAST;
}

/* ---- the table ---- */

static const struct azoth_projection_handler handlers[] = {
    {"one", one, NULL}, {"many", NULL, many}, {"more", NULL, many}, {"other", NULL, others}};
static const struct azoth_projection_handler both[] = {{"one", one, many}};

const struct azoth_projection_library *azoth_projections(void)
{
    static struct azoth_projection p;
    static struct azoth_projection_library library;
    p = (struct azoth_projection){.name = "p",
                                  .version = control.version,
                                  .handlers = sizeof handlers / sizeof *handlers,
                                  .handler = handlers,
                                  .open = open_state,
                                  .close = close_state,
                                  .begin = begin,
                                  .commit = commit,
                                  .rollback = rollback,
                                  .savepoint = savepoint,
                                  .release = release,
                                  .undo = undo,
                                  .on_error = on_error};
    library = (struct azoth_projection_library){AZOTH_PROJECTION_ABI, 1, &p};
    if (strcmp(control.table, "abi") == 0)
        library.abi = 7;
    if (strcmp(control.table, "count") == 0)
        library.count = 0;
    if (strcmp(control.table, "other") == 0)
        p.name = "q";
    if (strcmp(control.table, "mute") == 0)
        p.on_error = NULL;
    if (strcmp(control.table, "both") == 0) {
        p.handler = both;
        p.handlers = 1;
    }
    return strcmp(control.table, "nothing") == 0 ? NULL : &library;
}
