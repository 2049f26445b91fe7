/*
 * apply.c - a batch of events in one transaction with the cursor.
 *
 * Happy path: BEGIN; each event's handler; the cursor; COMMIT. No savepoint, which costs about a
 * statement: a projection whose events do not fail pays nothing for its error strategy.
 *
 * When an event fails the transaction is rolled back and the batch is done again with a savepoint for
 * each event: what the failing one did is undone, its strategy decides (failure.c), and the others' order
 * stays. The next CAREFUL_BATCHES begin with savepoints, since where one fails others do.
 *
 * A statement may roll back the whole transaction (INSERT OR ROLLBACK, RAISE(ROLLBACK)). The batch is
 * then done once more, and that event, known to fail, is not run but decided upon at its place. Of two such
 * events the batch is cut before the second.
 *
 * Invariants: those of table.c, and
 *   4  an event is applied, skipped or put aside by the transaction that moves the cursor past it
 *      and counted by it, once, in azoth_coverage
 *   5  t->faults agrees with the file whenever no transaction is open
 */
#include "core/crash.h"
#include "core/error.h"
#include "projector/failure.h"

#include <inttypes.h>
#include <string.h>

#define CAREFUL_BATCHES 16u
/* A transaction that another one was in the way of is run again so often. */
#define TRANSIENT_TRIES 10u

int table_run(struct table *t, struct sql_stmt *s, struct azoth_error *err)
{
    return sql_run(t->file.sql, s, err, t->file.path);
}

/* ---- transactions ---- */

int table_begin(struct table *t, struct azoth_error *err)
{
    t->events_open = 0;
    t->failures_open = 0;
    t->notes = t->notes_more = 0;
    t->before = t->faults;
    int rc = table_run(t, t->begin, err);
    if (!rc)
        library_tell(t->library, LIBRARY_BEGUN);
    return rc;
}

int table_savepoint(struct table *t, struct azoth_error *err)
{
    int rc = table_run(t, t->savepoint, err);
    if (!rc)
        library_tell(t->library, LIBRARY_SAVED);
    return rc;
}

int table_release(struct table *t, struct azoth_error *err)
{
    int rc = table_run(t, t->release, err);
    if (!rc)
        library_tell(t->library, LIBRARY_RELEASED);
    return rc;
}

int table_undo(struct table *t, struct azoth_error *err)
{
    int rc = table_run(t, t->rollback_to, err);
    if (!rc)
        rc = table_run(t, t->release, err);
    if (!rc)
        library_tell(t->library, LIBRARY_UNDONE);
    return rc;
}

void table_tell(struct table *t)
{
    char text[40];
    for (uint32_t i = 0; t->on_failure && i < t->notes; i++)
        t->on_failure(t->failure_arg, t->note[i].action, t->note[i].event, t->note[i].error);
    snprintf(text, sizeof text, "and %u more", t->notes_more);
    if (t->on_failure && t->notes_more)
        t->on_failure(t->failure_arg, FAILURE_MORE, t->notes_more, text);
    t->notes = t->notes_more = 0;
}

int table_commit(struct table *t, struct azoth_error *err)
{
    int rc = table_run(t, t->commit, err);
    if (rc)
        return rc;
    library_tell(t->library, LIBRARY_COMMITTED);
    t->events += t->events_open;
    t->failures += t->failures_open;
    return 0;
}

void table_rollback(struct table *t)
{
    /* A statement may have rolled back by itself (INSERT OR ROLLBACK, a full disk). */
    if (sql_in_transaction(t->file.sql))
        table_run(t, t->rollback, NULL);
    library_tell(t->library, LIBRARY_ROLLED_BACK);
    t->faults = t->before;
    t->notes = t->notes_more = 0;
}

static int move_cursor(struct table *t, uint64_t cursor, uint32_t check, struct azoth_error *err)
{
    sql_bind_int64(t->move, 0, (int64_t)cursor);
    sql_bind_int64(t->move, 1, check);
    sql_bind_int64(t->move, 2, t->file.makers);
    sql_bind_int64(t->move, 3, (int64_t)t->cursor);
    int rc = table_run(t, t->move, err);
    if (!rc && sql_changes(t->file.sql) != 1)
        rc = error_set(err, AZOTH_ERR_CORRUPT, "%s: its cursor is not at %" PRIu64 " any more",
                       t->file.path, t->cursor);
    if (!rc)
        rc = failure_passes(t, cursor, err);
    if (!rc)
        rc = coverage_write(t->coverage, &t->faults.sum, err);
    if (rc)
        return rc;
    CRASH_POINT(projector_applied);
    rc = table_commit(t, err);
    if (rc)
        return rc;
    CRASH_POINT(projector_committed);
    t->cursor = cursor;
    t->cursor_check = check;
    t->batches++;
    return 0;
}

/* ---- one transaction's part of a batch ---- */

struct part {
    struct azoth_bytes frames;
    uint64_t first, last;
    uint32_t last_check;
    int careful;                     /* a savepoint for each event */
    uint64_t limit;                  /* of events; 0: all */
    uint64_t cut;                    /* ends before this event; 0: does not */
    uint64_t known_id;               /* fails, and would take the transaction with it; 0: none */
    const struct azoth_error *known; /* why */
    /* What came of it. */
    uint64_t at_id; /* newest event dealt with, and its checksum */
    uint32_t at_check;
    uint64_t done;      /* events */
    uint64_t failed_id; /* stopped it with HANDLER; the transaction is to be rolled back */
    int ended;          /* before its last event */
    int stops;          /* committed, and now: 0, TABLE_STANDS or HANDLER */
};

static int decide(struct table *t, struct part *p, const struct event_record *ev,
                  const struct azoth_error *why, struct azoth_error *err)
{
    enum verdict verdict;
    struct azoth_error keep = *why; /* err may be where it lies */
    int rc = failure_decide(t, ev, &keep, &verdict, err);
    if (rc)
        return rc;
    if (verdict == VERDICT_STAND)
        p->stops = TABLE_STANDS;
    if (verdict == VERDICT_FAIL) {
        p->stops = AZOTH_ERR_HANDLER;
        t->failed_event = ev->id;
        if (err)
            *err = keep;
    }
    return 0;
}

static int run_event(struct table *t, struct part *p, const struct event_record *ev,
                     struct azoth_error *err)
{
    struct azoth_error why = {0};
    int rc;
    if (ev->id == p->known_id)
        return decide(t, p, ev, p->known, err);
    rc = p->careful ? table_savepoint(t, err) : 0;
    if (rc)
        return rc;
    rc = table_apply_event(t, ev, &why);
    if (rc) {
        if (err)
            *err = why;
        if (rc == AZOTH_ERR_HANDLER && (!p->careful || !sql_in_transaction(t->file.sql)))
            p->failed_id = ev->id;
        if (rc != AZOTH_ERR_HANDLER || p->failed_id)
            return rc;
        rc = table_undo(t, err);
        return rc ? rc : decide(t, p, ev, &why, err);
    }
    if (p->careful)
        rc = table_release(t, err);
    return rc ? rc : failure_success(t, err);
}

static int one_event(struct table *t, struct part *p, const struct event_record *ev, uint32_t check,
                     struct azoth_error *err)
{
    if (ev->id == p->cut || (p->limit && p->done == p->limit)) {
        p->ended = 1;
        return 0;
    }
    int rc = t->faults.dlq.valued ? dlq_park(t, ev, err) : 0;
    if (rc == 0)
        rc = run_event(t, p, ev, err);
    if (rc < 0)
        return rc;
    p->done++;
    if (p->stops) {
        p->ended = 1;
        return 0;
    }
    p->at_id = ev->id;
    p->at_check = check;
    coverage_add(&t->faults.sum, ev->id, check);
    p->ended = t->faults.breaker.at == BREAKER_OPEN;
    return 0;
}

static int run_frames(struct table *t, struct part *p, struct azoth_error *err)
{
    size_t at = 0;
    struct event_record ev;
    uint32_t check;
    uint64_t least = p->first;
    int rc;
    while (!p->ended && (rc = record_frame_next(p->frames, &at, &ev, &check)) != 0) {
        if (rc < 0)
            return error_set(err, rc, "a batch's frames fail their check");
        if (ev.id < least || ev.id > p->last)
            return error_set(err, AZOTH_ERR_CORRUPT, "event %" PRIu64 " is out of its batch",
                             ev.id);
        least = ev.id + 1;
        if (ev.id <= t->cursor)
            continue;
        rc = one_event(t, p, &ev, check, err);
        if (rc)
            return rc;
    }
    rc = library_flush(t->library, err);
    if (rc == AZOTH_ERR_HANDLER)
        p->failed_id = p->at_id; /* one of those that were kept, which are newer than the cursor */
    return rc;
}

/*
 * One transaction: the events up to where it ends, then the cursor: at last, or when it ended early at the
 * newest event dealt with, since the feed checks the checksum at the cursor, and only those of events
 * given are known. Rolled back on any failure.
 */
static int run_part(struct table *t, struct part *p, struct azoth_error *err)
{
    p->at_id = t->cursor;
    p->at_check = t->cursor_check;
    int rc = table_begin(t, err);
    if (rc)
        return rc;
    CRASH_POINT(projector_begun);
    rc = run_frames(t, p, err);
    /* A stop before the first event leaves nothing that needs a commit, but for what is tried again. */
    if (!rc && p->stops == AZOTH_ERR_HANDLER && p->at_id == t->cursor && !t->faults.retry.event) {
        t->failures += t->failures_open;
        table_rollback(t);
        return 0;
    }
    struct azoth_error moving = {0};
    if (!rc) {
        rc = p->ended ? move_cursor(t, p->at_id, p->at_check, &moving)
                      : move_cursor(t, p->last, p->last_check, &moving);
        if (rc && err)
            *err = moving;
    }
    if (rc) {
        table_rollback(t);
        return rc;
    }
    if (p->stops == TABLE_STANDS)
        CRASH_POINT(projector_retry_written);
    table_tell(t);
    sql_committed(t->file.sql);
    return 0;
}

/* ---- the batch ---- */

static int stands_or(struct table *t, int rc)
{
    /* On a full disk part of the batch may have been committed. */
    t->stands = rc == TABLE_STANDS || rc == AZOTH_ERR_NOSPACE;
    return rc;
}

/* The part failed with HANDLER at p->failed_id: what the next try does otherwise. */
static void learn(struct table *t, struct part *p, struct azoth_error *known,
                  const struct azoth_error *why)
{
    if (!p->careful)
        return;
    if (p->known_id > t->cursor && p->known_id < p->failed_id) {
        p->cut = p->failed_id;
        return;
    }
    *known = *why;
    p->known_id = p->failed_id;
    p->cut = 0;
}

int table_again(struct table *t, int rc, uint32_t *tries)
{
    return rc == AZOTH_ERR_BUSY && ++*tries < TRANSIENT_TRIES && sql_is_transient(t->file.sql);
}

int table_apply(struct table *t, struct azoth_bytes frames, uint64_t first, uint64_t last,
                uint32_t last_check, struct azoth_error *err)
{
    if (first != t->cursor + 1 || last + 1 < first || last > INT64_MAX)
        return error_set(err, AZOTH_ERR_GAP,
                         "a batch from %" PRIu64 " to %" PRIu64 " does not follow cursor %" PRIu64,
                         first, last, t->cursor);
    struct azoth_error known = {0}, why = {0};
    struct part p = {.frames = frames, .known = &known};
    uint64_t from = t->stands ? 0 : first;
    uint32_t tries = 0;
    breaker_look(&t->faults.breaker, table_mono(t));
    if (t->faults.breaker.at == BREAKER_OPEN && last >= first) {
        return TABLE_STANDS;
    }
    t->stands = 0;
    while (t->cursor < last) {
        enum breaker_at breaker = t->faults.breaker.at;
        uint64_t id = p.known_id, cut = p.cut;
        p = (struct part){.frames = frames,
                          .first = from,
                          .last = last,
                          .last_check = last_check,
                          .known = &known,
                          .known_id = id,
                          .cut = cut > t->cursor ? cut : 0,
                          .limit = breaker == BREAKER_HALF_OPEN ? 1 : 0,
                          .careful = t->careful || t->faults.retry.event ||
                                     breaker == BREAKER_HALF_OPEN || id};
        int rc = run_part(t, &p, &why);
        if (rc == AZOTH_ERR_HANDLER && p.failed_id) {
            learn(t, &p, &known, &why);
            t->careful = CAREFUL_BATCHES;
            continue;
        }
        if (table_again(t, rc, &tries))
            continue;
        if (!rc)
            rc = p.stops;
        if (rc < 0 && err)
            *err = why;
        if (rc)
            return stands_or(t, rc);
        if (t->faults.breaker.at == BREAKER_OPEN)
            return stands_or(t, t->cursor < last ? TABLE_STANDS : 0);
        /* Cut before an event, and none of it left: it is the next part's first. */
        p.cut = 0;
        if (t->failures_open)
            t->careful = CAREFUL_BATCHES;
    }
    if (t->careful && !t->failures_open)
        t->careful--;
    return 0;
}
