/*
 * running_sum.c - a library of handlers for test_crash_handlers.c: each row has the sum of all ids up to it, which is
 * kept in memory alone and read from the newest row when the state is opened. Every seventh event fails, is tried
 * again, and is a dead letter then.
 */
#include "client/azoth_projection.h"

#include <sqlite3.h>
#include <stdlib.h>

struct state {
    int64_t sum, at_begin, at_savepoint;
    sqlite3_stmt *insert;
};

static int open_state(const struct azoth_projection_open *o, void **ret,
                      struct azoth_projection_fail *f)
{
    struct state *s = calloc(1, sizeof *s);
    sqlite3_stmt *newest = NULL;
    if (!s)
        return f->event(f, 0, "no memory");
    if (sqlite3_prepare_v2(o->db, "SELECT total FROM t ORDER BY id DESC LIMIT 1", -1, &newest,
                           NULL) ||
        sqlite3_prepare_v2(o->db, "INSERT INTO t VALUES (?, ?)", -1, &s->insert, NULL)) {
        int rc = f->sqlite(f);
        sqlite3_finalize(newest);
        free(s);
        return rc;
    }
    if (sqlite3_step(newest) == SQLITE_ROW)
        s->sum = sqlite3_column_int64(newest, 0);
    sqlite3_finalize(newest);
    *ret = s;
    return 0;
}

static void close_state(void *state)
{
    struct state *s = state;
    sqlite3_finalize(s->insert);
    free(s);
}

static void begin(void *state)
{
    struct state *s = state;
    s->at_begin = s->sum;
}

static void rollback(void *state)
{
    struct state *s = state;
    s->sum = s->at_begin;
}

static void savepoint(void *state)
{
    struct state *s = state;
    s->at_savepoint = s->sum;
}

static void undo(void *state)
{
    struct state *s = state;
    s->sum = s->at_savepoint;
}

static int put(void *state, struct sqlite3 *db, const struct azoth_projection_event *ev, size_t n,
               struct azoth_projection_fail *f)
{
    struct state *s = state;
    (void)db;
    for (size_t i = 0; i < n; i++) {
        s->sum += (int64_t)ev[i].id;
        sqlite3_bind_int64(s->insert, 1, (int64_t)ev[i].id);
        sqlite3_bind_int64(s->insert, 2, s->sum);
        int step = sqlite3_step(s->insert);
        if (step != SQLITE_DONE)
            return f->sqlite(f);
        sqlite3_reset(s->insert);
        if (ev[i].id % 7 == 0)
            return f->event(f, 7, "it is a seventh");
    }
    return 0;
}

static enum azoth_projection_answer on_error(void *state, const struct azoth_projection_event *ev,
                                             const struct azoth_projection_failure *why,
                                             uint64_t *ret_wait_ms)
{
    (void)state;
    (void)ev;
    *ret_wait_ms = 1;
    return why->attempts < 2 ? AZOTH_PROJECTION_RETRY : AZOTH_PROJECTION_DEAD_LETTER;
}

static const struct azoth_projection_handler handlers[] = {{.type = "put", .batch = put}};
static const struct azoth_projection projections[] = {{.name = "p",
                                                       .version = 1,
                                                       .handlers = 1,
                                                       .handler = handlers,
                                                       .open = open_state,
                                                       .close = close_state,
                                                       .begin = begin,
                                                       .rollback = rollback,
                                                       .savepoint = savepoint,
                                                       .undo = undo,
                                                       .on_error = on_error}};

const struct azoth_projection_library *azoth_projections(void)
{
    static const struct azoth_projection_library library = {AZOTH_PROJECTION_ABI, 1, projections};
    return &library;
}
