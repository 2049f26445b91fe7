/*
 * effects_dead.c - events of an effects projection that were given up: kept, run again, dropped.
 *
 * azoth_dlq is as a projection's (dlq.c), with the event's frame beside its columns, and in state "waiting" alone:
 * nothing is tried again by itself. An event changes between azoth_effects and azoth_dlq in one transaction.
 */
#include "projector/effects_own.h"

#include "core/clock.h"
#include "core/error.h"

#include <inttypes.h>
#include <string.h>

#define COMMAND_KEPT_NS (3600 * (int64_t)NS_PER_S)

static const char tables[] =
    "CREATE TABLE IF NOT EXISTS azoth_dlq (event INTEGER PRIMARY KEY, type TEXT NOT NULL,"
    " key BLOB NOT NULL, time INTEGER NOT NULL, txn INTEGER NOT NULL, payload BLOB NOT NULL,"
    " state TEXT NOT NULL CHECK (state = 'waiting'), code INTEGER NOT NULL, error TEXT NOT NULL,"
    " attempts INTEGER NOT NULL, first_failure INTEGER NOT NULL, last_failure INTEGER NOT NULL,"
    " next_attempt INTEGER NOT NULL, value BLOB, frame BLOB NOT NULL);"
    "CREATE TABLE IF NOT EXISTS azoth_command (id BLOB PRIMARY KEY, at INTEGER NOT NULL,"
    " answer TEXT NOT NULL)";

int effects_dead_open(struct effects *e, struct azoth_error *err)
{
    sqlite3_stmt *s;
    int rc = tablefile_run(&e->file, tables, err);
    if (rc)
        return rc;
    if (sqlite3_prepare_v2(e->file.db, "SELECT count(*) FROM azoth_dlq", -1, &s, NULL))
        return sqlite_error(e->file.db, err, e->file.path);
    if (sqlite3_step(s) == SQLITE_ROW)
        e->dead = (uint64_t)sqlite3_column_int64(s, 0);
    else
        rc = sqlite_error(e->file.db, err, e->file.path);
    sqlite3_finalize(s);
    return rc;
}

/* Text when it is that, so that people can read it. */
static void bind_bytes(sqlite3_stmt *s, int i, struct azoth_bytes b)
{
    if (utf8_valid(b))
        sqlite3_bind_text64(s, i, b.len ? b.ptr : "", b.len, SQLITE_STATIC, SQLITE_UTF8);
    else
        sqlite3_bind_blob64(s, i, b.ptr, b.len, SQLITE_STATIC);
}

int effects_bury(struct effects *e, struct effect *x, struct azoth_error *err)
{
    struct event_record ev;
    sqlite3_stmt *s = e->own[BURY];
    size_t at = 0;
    int rc = effects_begin(e, err);
    if (rc)
        return rc;
    ensure(record_frame_next(bytes_of(x->frame, x->len), &at, &ev, NULL) == 1);
    sqlite3_bind_int64(s, 1, (int64_t)x->id);
    bind_bytes(s, 2, ev.type);
    bind_bytes(s, 3, ev.key);
    sqlite3_bind_int64(s, 4, ev.time_ns);
    sqlite3_bind_int64(s, 5, (int64_t)ev.txn);
    bind_bytes(s, 6, ev.payload);
    sqlite3_bind_text(s, 7, x->error ? x->error : "failed", -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 8, x->failures);
    sqlite3_bind_int64(s, 9, clock_wall_ns());
    rc = effects_change(e, BURY, err);
    sqlite3_clear_bindings(s);
    if (rc)
        return rc;
    e->dead++;
    return effects_settle(e, x, err);
}

/* ---- commands ---- */

/* Into the ledger again. 1, or 0: there is no such letter. */
static int unbury(struct effects *e, uint64_t event, struct azoth_error *err)
{
    sqlite3_stmt *s = e->own[LETTER];
    struct event_record ev;
    size_t at = 0;
    int rc = 0;
    sqlite3_bind_int64(s, 1, (int64_t)event);
    int step = sqlite3_step(s);
    if (step == SQLITE_ROW) {
        struct azoth_bytes frame = {sqlite3_column_blob(s, 0), (size_t)sqlite3_column_bytes(s, 0)};
        const char *error = (const char *)sqlite3_column_text(s, 2);
        struct effect *x = NULL;
        if (record_frame_next(frame, &at, &ev, NULL) != 1 || at != frame.len || ev.id != event)
            rc = error_set(err, AZOTH_ERR_CORRUPT,
                           "%s: the event of dead letter %" PRIu64 " fails its check", e->file.path,
                           event);
        else if (!(x = effects_append(e, &ev, frame)) || !(x->error = strdup(error ? error : "")))
            rc = error_set(err, AZOTH_ERR_NOMEM, "event %" PRIu64, event);
        if (!rc) {
            x->failures = (uint32_t)sqlite3_column_int64(s, 1);
            x->again = 1;
        }
    } else if (step != SQLITE_DONE) {
        rc = sqlite_error(e->file.db, err, e->file.path);
    }
    sqlite3_reset(s);
    if (rc || step != SQLITE_ROW)
        return rc;
    sqlite3_bind_int64(e->own[UNBURY], 1, (int64_t)event);
    rc = effects_change(e, UNBURY, err);
    return rc ? rc : 1;
}

/* 1, or 0: there is no such letter. */
static int drop(struct effects *e, uint64_t event, struct azoth_error *err)
{
    sqlite3_bind_int64(e->own[DROP], 1, (int64_t)event);
    int rc = effects_run(e, DROP, err);
    if (rc || sqlite3_changes(e->file.db) == 0)
        return rc;
    e->dead--;
    return 1;
}

/* 1 when the command was answered before. */
static int answered(struct effects *e, const uint8_t id[COMMAND_ID_BYTES],
                    char answer[COMMAND_ANSWER_MAX], struct azoth_error *err)
{
    sqlite3_stmt *s = e->own[ANSWER_GET];
    sqlite3_bind_blob(s, 1, id, COMMAND_ID_BYTES, SQLITE_STATIC);
    int step = sqlite3_step(s), rc = step == SQLITE_ROW;
    if (step == SQLITE_ROW)
        snprintf(answer, COMMAND_ANSWER_MAX, "%s", (const char *)sqlite3_column_text(s, 0));
    else if (step != SQLITE_DONE)
        rc = sqlite_error(e->file.db, err, e->file.path);
    sqlite3_reset(s);
    return rc;
}

static int keep_answer(struct effects *e, const uint8_t id[COMMAND_ID_BYTES], const char *answer,
                       struct azoth_error *err)
{
    int64_t now = clock_wall_ns();
    sqlite3_bind_int64(e->own[ANSWER_OLD], 1, now - COMMAND_KEPT_NS);
    sqlite3_bind_int64(e->own[ANSWER_OLD], 2, now + COMMAND_KEPT_NS);
    int rc = effects_run(e, ANSWER_OLD, err);
    sqlite3_bind_blob(e->own[ANSWER_PUT], 1, id, COMMAND_ID_BYTES, SQLITE_STATIC);
    sqlite3_bind_int64(e->own[ANSWER_PUT], 2, now);
    sqlite3_bind_text(e->own[ANSWER_PUT], 3, answer, -1, SQLITE_STATIC);
    return rc ? rc : effects_run(e, ANSWER_PUT, err);
}

int effects_command(struct effects *e, const uint8_t id[COMMAND_ID_BYTES], const char *text,
                    char answer[COMMAND_ANSWER_MAX], struct azoth_error *err)
{
    char verb[8];
    uint64_t event;
    int rc = answered(e, id, answer, err);
    if (rc)
        return rc < 0 ? rc : 0;
    snprintf(answer, COMMAND_ANSWER_MAX, "unknown");
    if (!command_parse(text, verb, &event))
        return 0;
    int retry = strcmp(verb, "retry") == 0;
    if (!retry && strcmp(verb, "drop") != 0)
        return 0;
    if (retry && !effects_room(e)) {
        snprintf(answer, COMMAND_ANSWER_MAX, "failed as many events are open as there may be");
        return 0;
    }
    rc = effects_begin(e, err);
    int had = rc ? rc : retry ? unbury(e, event, err) : 1;
    /* The letter goes, wherever to. */
    if (had > 0)
        had = drop(e, event, err);
    if (had < 0)
        return had;
    snprintf(answer, COMMAND_ANSWER_MAX, "%s", !had ? "not-found" : retry ? "queued" : "dropped");
    rc = had ? keep_answer(e, id, answer, err) : 0;
    return rc ? rc : effects_commit(e, err);
}
