/*
 * effects.c - the ledger of an effects projection.
 *
 *              take                give                 done
 *   (the log) ─────► open, waiting ────► open, given ─────────► no row
 *                        ▲  ▲  ▲            │  │   failed, log-and-skip: no row
 *                        │  │  └── failed ──┘  │   failed, dead-letter: a row of azoth_dlq
 *                        │  └ lease over, given back, a new process of that name
 *                        └ dlq retry: from azoth_dlq
 *
 * Failure modes
 *   a worker dies        its lease ends, or the next process of its name asks: the event is free
 *   an answer is lost    the worker asks again and is given the same event under the same number
 *   a report comes twice, or late: its number is not the present one, or there is no row: ignored
 *   this process dies    before the commit: nothing was told. After it: the file says who has what, and
 *                        the worker reports to the next process, under a number that is still right
 *   power cut            synchronous=NORMAL may lose the last commits: commands run again, none is left
 *                        out, since cursor and rows are one file
 *   COMMIT fails         the process ends; the file is the truth
 *
 * Invariants
 *   E1  an event up to the cursor has a row, or it is settled: both change in one transaction. A dead letter
 *       is settled, and stays so while it is run again
 *   E2  of events with one order value one is with a worker at a time, and the one with the least id is given
 *   E3  a grant's number is never used twice for an event: it counts up in the row
 *   E4  `effect` is sorted by id; what is gone from the file stays in it, marked, until it is packed
 */
#include "projector/effects_own.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/error.h"
#include "core/log.h"
#include "projector/breaker.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

/* ---- own statements ---- */

static int prepare_own(struct effects *e, struct azoth_error *err)
{
    static const char *const sql[OWN_COUNT] = {
        [BEGIN] = "BEGIN IMMEDIATE",
        [COMMIT] = "COMMIT",
        [ROLLBACK] = "ROLLBACK",
        [MOVE] = "UPDATE azoth_projection SET cursor = ?1, cursor_check = ?2, handlers = ?3"
                 " WHERE id = 1 AND cursor = ?4",
        [INSERT] = "INSERT INTO azoth_effects (id, frame) VALUES (?1, ?2)",
        [GIVE] = "UPDATE azoth_effects SET worker = ?2, instance = ?3, grants = ?4,"
                 " next_attempt = NULL WHERE id = ?1",
        [FREE] = "UPDATE azoth_effects SET worker = NULL, instance = NULL WHERE id = ?1",
        [FAIL] = "UPDATE azoth_effects SET worker = NULL, instance = NULL, failures = ?2,"
                 " error = ?3, first_failure = COALESCE(first_failure, ?4), last_failure = ?4,"
                 " next_attempt = ?5 WHERE id = ?1",
        [SETTLE] = "DELETE FROM azoth_effects WHERE id = ?1",
        [BURY] =
            "INSERT INTO azoth_dlq SELECT id, ?2, ?3, ?4, ?5, ?6, 'waiting', 0, ?7, ?8,"
            " COALESCE(first_failure, ?9), ?9, 0, NULL, frame FROM azoth_effects WHERE id = ?1",
        [LETTER] = "SELECT frame, attempts, error FROM azoth_dlq WHERE event = ?1",
        [UNBURY] = "INSERT INTO azoth_effects (id, frame, failures, error, first_failure,"
                   " last_failure, again) SELECT event, frame, attempts, error, first_failure,"
                   " last_failure, 1 FROM azoth_dlq WHERE event = ?1",
        [DROP] = "DELETE FROM azoth_dlq WHERE event = ?1",
        [ANSWER_GET] = "SELECT answer FROM azoth_command WHERE id = ?1",
        [ANSWER_PUT] = "INSERT INTO azoth_command VALUES (?1, ?2, ?3)",
        [ANSWER_OLD] = "DELETE FROM azoth_command WHERE at NOT BETWEEN ?1 AND ?2"};
    static const char table[] =
        "CREATE TABLE IF NOT EXISTS azoth_effects (id INTEGER PRIMARY KEY, frame BLOB NOT NULL,"
        " grants INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0, worker TEXT,"
        " instance INTEGER, error TEXT, first_failure INTEGER, last_failure INTEGER,"
        " next_attempt INTEGER, again INTEGER NOT NULL DEFAULT 0)";
    int rc = tablefile_run(&e->file, table, err);
    /* A file of the time before dead letters has no such column. */
    if (!rc && sqlite3_table_column_metadata(e->file.db, NULL, "azoth_effects", "again", NULL, NULL,
                                             NULL, NULL, NULL))
        rc = tablefile_run(
            &e->file, "ALTER TABLE azoth_effects ADD COLUMN again INTEGER NOT NULL DEFAULT 0", err);
    if (!rc)
        rc = effects_dead_open(e, err);
    if (rc)
        return rc;
    for (int i = 0; i < OWN_COUNT; i++)
        if (sqlite3_prepare_v3(e->file.db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &e->own[i], NULL))
            return sqlite_error(e->file.db, err, e->file.path);
    sql_keep_log(e->file.sql);
    return 0;
}

int effects_run(struct effects *e, enum own which, struct azoth_error *err)
{
    int step = sqlite3_step(e->own[which]);
    int rc = step == SQLITE_DONE ? 0 : sqlite_error(e->file.db, err, e->file.path);
    sqlite3_reset(e->own[which]);
    return rc;
}

int effects_change(struct effects *e, enum own which, struct azoth_error *err)
{
    int rc = effects_run(e, which, err);
    if (!rc && sqlite3_changes(e->file.db) != 1)
        rc = error_set(err, AZOTH_ERR_CORRUPT, "%s: another process has changed it", e->file.path);
    return rc;
}

int effects_begin(struct effects *e, struct azoth_error *err)
{
    if (e->in_transaction)
        return 0;
    int rc = effects_run(e, BEGIN, err);
    e->in_transaction = !rc;
    return rc;
}

void effects_on_settled(struct effects *e, effects_settled_fn fn, void *arg)
{
    e->on_settled = fn;
    e->settled_arg = arg;
}

static void tell_settled(struct effects *e)
{
    uint64_t mono = clock_mono_ns();
    int64_t wall = clock_wall_ns();
    for (uint32_t i = 0; i < e->untold_len && e->on_settled; i++)
        e->on_settled(e->settled_arg, mono - e->untold[i].given_ns, wall - e->untold[i].time_ns);
    e->untold_len = 0;
}

int effects_commit(struct effects *e, struct azoth_error *err)
{
    if (!e->in_transaction)
        return 0;
    CRASH_POINT(effects_commits);
    int rc = effects_run(e, COMMIT, err);
    if (rc)
        return rc;
    e->in_transaction = 0;
    e->commits++;
    sql_committed(e->file.sql);
    tell_settled(e);
    CRASH_POINT(effects_committed);
    return 0;
}

/* ---- the ledger in memory ---- */

static void forget(struct effect *x)
{
    free(x->frame);
    free(x->error);
    x->frame = NULL;
    x->error = NULL;
    x->gone = 1;
}

/* Drops what is gone when that is half of it. */
static void pack(struct effects *e)
{
    while (e->first < e->len && e->effect[e->first].gone)
        e->first++;
    if (e->len - e->open < 1024 || e->open > e->len / 2)
        return;
    uint32_t to = 0;
    for (uint32_t i = e->first; i < e->len; i++)
        if (!e->effect[i].gone)
            e->effect[to++] = e->effect[i];
    e->len = to;
    e->first = 0;
}

struct effect *effects_find(struct effects *e, uint64_t id)
{
    uint32_t low = e->first, high = e->len;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (e->effect[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    /* What a dead letter that is back was before is gone, and lies in front of it. */
    while (low < e->len && e->effect[low].id == id && e->effect[low].gone)
        low++;
    return low < e->len && e->effect[low].id == id ? &e->effect[low] : NULL;
}

/* The value of order-by as a number: events of one value have one. Two values with one number only wait
 * for each other. 0: no order. */
static uint64_t order_of(const struct sqlfile *def, const struct event_record *ev)
{
    uint64_t h = 0;
    if (!def->order_by[0])
        return 0;
    if (def->order_by[0] == '@') {
        h = ev->key.len ? XXH3_64bits(ev->key.ptr, ev->key.len) : 0;
        return ev->key.len && h == 0 ? 1 : h;
    }
    json_t *o =
        json_loadb(ev->payload.len ? ev->payload.ptr : "", ev->payload.len, JSON_ALLOW_NUL, NULL);
    const json_t *v = json_object_get(o, def->order_by + 1);
    char *text = v ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS) : NULL;
    if (text) {
        h = XXH3_64bits(text, strlen(text));
        h += h == 0;
    }
    free(text);
    json_decref(o);
    return h;
}

struct effect *effects_append(struct effects *e, const struct event_record *ev,
                              struct azoth_bytes frame)
{
    if (e->len == e->cap) {
        uint32_t cap = e->cap ? e->cap * 2 : 1024;
        struct effect *all = realloc(e->effect, cap * sizeof *all);
        if (!all)
            return NULL;
        e->effect = all;
        e->cap = cap;
    }
    unsigned char *copy = malloc(frame.len);
    if (!copy)
        return NULL;
    memcpy(copy, frame.ptr, frame.len);
    /* Behind all others, but for a dead letter that is back. */
    uint32_t at = e->len;
    while (at > e->first && e->effect[at - 1].id > ev->id)
        at--;
    memmove(&e->effect[at + 1], &e->effect[at], (e->len - at) * sizeof *e->effect);
    struct effect *x = &e->effect[at];
    *x = (struct effect){.id = ev->id,
                         .order = order_of(e->def, ev),
                         .time_ns = ev->time_ns,
                         .len = (uint32_t)frame.len,
                         .frame = copy};
    e->len++;
    e->open++;
    e->open_bytes += frame.len;
    return x;
}

static void not_given(struct effects *e, struct effect *x)
{
    x->given = 0;
    x->worker[0] = 0;
    for (uint32_t i = 0; i < e->givens; i++)
        if (e->given[i] == x->id) {
            e->given[i] = e->given[--e->givens];
            return;
        }
}

/* ---- opening ---- */

static int load_row(struct effects *e, sqlite3_stmt *s, uint64_t now_ns, struct azoth_error *err)
{
    struct azoth_bytes frame = {sqlite3_column_blob(s, 1), (size_t)sqlite3_column_bytes(s, 1)};
    struct event_record ev;
    size_t at = 0;
    if (record_frame_next(frame, &at, &ev, NULL) != 1 || at != frame.len ||
        ev.id != (uint64_t)sqlite3_column_int64(s, 0))
        return error_set(err, AZOTH_ERR_CORRUPT, "%s: the event in row %lld fails its check",
                         e->file.path, (long long)sqlite3_column_int64(s, 0));
    struct effect *x = effects_append(e, &ev, frame);
    if (!x)
        return error_set(err, AZOTH_ERR_NOMEM, "the ledger of effects");
    x->grants = (uint32_t)sqlite3_column_int64(s, 2);
    x->failures = (uint32_t)sqlite3_column_int64(s, 3);
    x->again = sqlite3_column_int(s, 8);
    const char *worker = (const char *)sqlite3_column_text(s, 4);
    const char *error = (const char *)sqlite3_column_text(s, 6);
    if (error && !(x->error = strdup(error)))
        return error_set(err, AZOTH_ERR_NOMEM, "the ledger of effects");
    if (worker && e->givens < GIVEN_MAX) {
        snprintf(x->worker, sizeof x->worker, "%s", worker);
        x->instance = (uint64_t)sqlite3_column_int64(s, 5);
        x->given = 1;
        x->given_ns = clock_mono_ns();
        x->deadline_ns = now_ns + (e->def->lease_ms + EFFECTS_GRACE_MS) * NS_PER_MS;
        e->given[e->givens++] = x->id;
    }
    if (sqlite3_column_type(s, 7) != SQLITE_NULL) {
        /* A clock that was put elsewhere meanwhile must not make it wait for longer than it may. */
        int64_t left = sqlite3_column_int64(s, 7) - clock_wall_ns();
        int64_t most = (int64_t)(e->def->policy.backoff.max_ms * NS_PER_MS);
        left = left < 0 ? 0 : left > most ? most : left;
        x->due_ns = now_ns + (uint64_t)left;
    }
    return 0;
}

static int load(struct effects *e, uint64_t now_ns, struct azoth_error *err)
{
    sqlite3_stmt *s;
    int rc = 0, step;
    if (sqlite3_prepare_v2(e->file.db,
                           "SELECT id, frame, grants, failures, worker, instance, error,"
                           " next_attempt, again FROM azoth_effects ORDER BY id",
                           -1, &s, NULL))
        return sqlite_error(e->file.db, err, e->file.path);
    while ((step = sqlite3_step(s)) == SQLITE_ROW && !rc)
        rc = load_row(e, s, now_ns, err);
    if (!rc && step != SQLITE_DONE)
        rc = sqlite_error(e->file.db, err, e->file.path);
    sqlite3_finalize(s);
    return rc;
}

static int list_types(struct effects *e)
{
    for (uint32_t i = 0; i < e->def->handlers; i++)
        for (uint32_t k = 0; k < e->def->handler[i].types_len; k++) {
            struct azoth_bytes type = e->def->handler[i].types[k];
            unsigned char len = (unsigned char)type.len;
            if (buf_add(&e->types, &len, 1) || buf_add(&e->types, type.ptr, type.len))
                return AZOTH_ERR_NOMEM;
        }
    return 0;
}

int effects_open(const struct sqlfile *def, const struct table_options *o, uint64_t now_ns,
                 struct effects **ret, struct azoth_error *err)
{
    struct effects *e = calloc(1, sizeof *e);
    if (!e)
        return error_set(err, AZOTH_ERR_NOMEM, "the ledger of effects");
    struct table_options any = *o;
    any.accept_changed = 1; /* what was done is done: other types count from here on */
    e->def = def;
    e->file.lock_fd = -1;
    int rc = list_types(e) ? error_set(err, AZOTH_ERR_NOMEM, "the ledger of effects") : 0;
    if (!rc && getrandom(&e->random, sizeof e->random, 0) != sizeof e->random)
        rc = error_set(err, AZOTH_ERR_IO, "random bytes");
    e->random |= 1;
    if (!rc)
        rc = tablefile_open(&e->file, def, &any, &e->cursor, &e->cursor_check, err);
    if (!rc)
        rc = prepare_own(e, err);
    if (!rc)
        rc = coverage_open(&e->file, buf_bytes(&e->types), "", e->cursor, &e->coverage, &e->sum,
                           err);
    if (!rc)
        rc = load(e, now_ns, err);
    if (rc)
        effects_close(e);
    else
        *ret = e;
    return rc;
}

void effects_close(struct effects *e)
{
    if (!e)
        return;
    if (e->in_transaction)
        effects_run(e, ROLLBACK, NULL);
    for (int i = 0; i < OWN_COUNT; i++)
        sqlite3_finalize(e->own[i]);
    coverage_close(e->coverage);
    if (e->file.db)
        effects_idle(e);
    tablefile_close(&e->file);
    for (uint32_t i = e->first; i < e->len; i++)
        forget(&e->effect[i]);
    free(e->effect);
    buf_fini(&e->types);
    free(e);
}

/* ---- events ---- */

void effects_cursor(const struct effects *e, uint64_t *ret_cursor, uint32_t *ret_check)
{
    *ret_cursor = e->cursor;
    *ret_check = e->cursor_check;
}

uint64_t effects_settled(const struct effects *e)
{
    for (uint32_t i = e->first; i < e->len; i++)
        if (!e->effect[i].gone && !e->effect[i].again)
            return e->effect[i].id - 1;
    return e->cursor;
}

struct azoth_bytes effects_types(const struct effects *e)
{
    return buf_bytes(&e->types);
}

int effects_room(const struct effects *e)
{
    return e->open < EFFECTS_OPEN_MAX && e->open_bytes < EFFECTS_OPEN_BYTES_MAX;
}

static int insert(struct effects *e, const struct event_record *ev, struct azoth_bytes frame,
                  struct azoth_error *err)
{
    if (!effects_append(e, ev, frame))
        return error_set(err, AZOTH_ERR_NOMEM, "event %" PRIu64, ev->id);
    sqlite3_bind_int64(e->own[INSERT], 1, (int64_t)ev->id);
    sqlite3_bind_blob64(e->own[INSERT], 2, frame.ptr, frame.len, SQLITE_STATIC);
    int rc = effects_run(e, INSERT, err);
    sqlite3_clear_bindings(e->own[INSERT]);
    return rc;
}

static int insert_all(struct effects *e, struct azoth_bytes frames, uint64_t first, uint64_t last,
                      struct coverage_sum *sum, struct azoth_error *err)
{
    struct event_record ev;
    uint64_t least = first;
    uint32_t check;
    size_t at = 0, from = 0;
    int rc;
    while ((rc = record_frame_next(frames, &at, &ev, &check)) == 1) {
        if (ev.id < least || ev.id > last)
            return error_set(err, AZOTH_ERR_CORRUPT, "event %" PRIu64 " is out of its batch",
                             ev.id);
        least = ev.id + 1;
        rc = insert(e, &ev, bytes_of((const unsigned char *)frames.ptr + from, at - from), err);
        if (rc)
            return rc;
        coverage_add(sum, ev.id, check);
        from = at;
    }
    return rc < 0 ? error_set(err, rc, "a batch's frames fail their check") : 0;
}

int effects_take(struct effects *e, struct azoth_bytes frames, uint64_t first, uint64_t last,
                 uint32_t last_check, struct azoth_error *err)
{
    if (first != e->cursor + 1 || last + 1 < first || last > INT64_MAX)
        return error_set(err, AZOTH_ERR_GAP,
                         "a batch from %" PRIu64 " to %" PRIu64 " does not follow cursor %" PRIu64,
                         first, last, e->cursor);
    if (last < first)
        return 0;
    struct coverage_sum sum = e->sum;
    int rc = effects_begin(e, err);
    if (!rc)
        rc = insert_all(e, frames, first, last, &sum, err);
    if (rc)
        return rc;
    sqlite3_bind_int64(e->own[MOVE], 1, (int64_t)last);
    sqlite3_bind_int64(e->own[MOVE], 2, last_check);
    sqlite3_bind_int64(e->own[MOVE], 3, (int64_t)e->def->checksum);
    sqlite3_bind_int64(e->own[MOVE], 4, (int64_t)e->cursor);
    rc = effects_change(e, MOVE, err);
    if (!rc)
        rc = coverage_write(e->coverage, &sum, err);
    if (!rc)
        rc = effects_commit(e, err);
    if (rc)
        return rc;
    e->sum = sum;
    e->cursor = last;
    e->cursor_check = last_check;
    return 0;
}

/* ---- what became of a grant ---- */

static struct effect *present(struct effects *e, uint64_t id, uint32_t grant)
{
    struct effect *x = effects_find(e, id);
    return x && x->given && x->grants == grant ? x : NULL;
}

int effects_settle(struct effects *e, struct effect *x, struct azoth_error *err)
{
    int rc = effects_begin(e, err);
    if (rc)
        return rc;
    sqlite3_bind_int64(e->own[SETTLE], 1, (int64_t)x->id);
    rc = effects_change(e, SETTLE, err);
    if (rc)
        return rc;
    /* One that was a dead letter was settled long ago. */
    if (!x->again && e->untold_len < SETTLED_TOLD)
        e->untold[e->untold_len++] = (struct settled){x->time_ns, x->given_ns};
    not_given(e, x);
    e->open--;
    e->open_bytes -= x->len;
    e->settled++;
    forget(x);
    pack(e);
    return 0;
}

static int set_free(struct effects *e, struct effect *x, struct azoth_error *err)
{
    int rc = effects_begin(e, err);
    if (rc)
        return rc;
    sqlite3_bind_int64(e->own[FREE], 1, (int64_t)x->id);
    rc = effects_change(e, FREE, err);
    if (!rc)
        not_given(e, x);
    return rc;
}

int effects_done(struct effects *e, uint64_t id, uint32_t grant, struct azoth_error *err)
{
    struct effect *x = present(e, id, grant);
    return x ? effects_settle(e, x, err) : 0;
}

int effects_given_back(struct effects *e, uint64_t id, uint32_t grant, struct azoth_error *err)
{
    struct effect *x = present(e, id, grant);
    return x ? set_free(e, x, err) : 0;
}

/* xorshift64 (Marsaglia 2003): jitter only. */
static uint64_t random_next(struct effects *e)
{
    e->random ^= e->random << 13;
    e->random ^= e->random >> 7;
    e->random ^= e->random << 17;
    return e->random;
}

static uint64_t wait_ns(struct effects *e, uint32_t failures)
{
    return backoff_ms(&e->def->policy.backoff, failures, random_next(e)) * NS_PER_MS;
}

static int write_failure(struct effects *e, struct effect *x, uint64_t delay_ns,
                         struct azoth_error *err)
{
    int64_t wall = clock_wall_ns();
    sqlite3_stmt *s = e->own[FAIL];
    int rc = effects_begin(e, err);
    if (rc)
        return rc;
    sqlite3_bind_int64(s, 1, (int64_t)x->id);
    sqlite3_bind_int64(s, 2, x->failures);
    sqlite3_bind_text(s, 3, x->error, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 4, wall);
    if (delay_ns)
        sqlite3_bind_int64(s, 5, wall + (int64_t)delay_ns);
    else
        sqlite3_bind_null(s, 5);
    return effects_change(e, FAIL, err);
}

static enum strategy strategy_now(const struct sqlfile *def, uint32_t failures)
{
    if (def->policy.strategy != STRATEGY_RETRY)
        return def->policy.strategy;
    return failures <= def->policy.count ? STRATEGY_RETRY : def->policy.then;
}

static void describe(const struct effect *x, char *out, size_t size)
{
    snprintf(out, size, "event %" PRIu64 ", attempt %u: %s", x->id, x->failures,
             x->error ? x->error : "failed");
}

static void say_failure(const struct effects *e, const struct effect *x, int level,
                        const char *what, uint64_t delay_ns)
{
    char shown[LOG_TEXT];
    log_line(level,
             "%s projection=%s event=%" PRIu64 " failures=%u next_ms=%" PRIu64 " error=\"%s\"",
             what, e->def->name, x->id, x->failures, delay_ns / NS_PER_MS,
             log_text(x->error ? x->error : "", shown));
}

int effects_failed(struct effects *e, uint64_t id, uint32_t grant, struct azoth_bytes error,
                   uint64_t now_ns, struct azoth_error *err)
{
    struct effect *x = present(e, id, grant);
    char text[ERROR_MAX + 64];
    if (!x)
        return 0;
    /* UTF-8 is not cut within a character. */
    size_t n = error.len < ERROR_MAX ? error.len : ERROR_MAX;
    while (n < error.len && n && (((const unsigned char *)error.ptr)[n] & 0xc0) == 0x80)
        n--;
    char *kept = n ? strndup(error.ptr, n) : strdup("failed");
    if (!kept)
        return error_set(err, AZOTH_ERR_NOMEM, "event %" PRIu64, id);
    free(x->error);
    x->error = kept;
    x->failures++;
    e->failures++;
    enum strategy what = strategy_now(e->def, x->failures);
    describe(x, text, sizeof text);
    if (what == STRATEGY_LOG_AND_SKIP) {
        say_failure(e, x, LOG_LEVEL_WARN, "skipped", 0);
        e->skipped++;
        return effects_settle(e, x, err);
    }
    if (what == STRATEGY_DEAD_LETTER) {
        say_failure(e, x, LOG_LEVEL_WARN, "dead-lettered", 0);
        return effects_bury(e, x, err);
    }
    uint64_t delay = what == STRATEGY_RETRY ? wait_ns(e, x->failures) : 0;
    int rc = write_failure(e, x, delay, err);
    if (rc)
        return rc;
    not_given(e, x);
    x->due_ns = now_ns + delay;
    if (what == STRATEGY_RETRY) {
        say_failure(e, x, LOG_LEVEL_NOTICE, "to be tried again", delay);
        return 0;
    }
    rc = effects_commit(e, err);
    return rc ? rc : error_set(err, AZOTH_ERR_HANDLER, "%s", text);
}

/* ---- giving ---- */

/* Whether an event of this order was seen in this pass. It is now. */
static int was_seen(struct effects *e, uint64_t order)
{
    uint32_t at = (uint32_t)order & (SEEN_SLOTS - 1);
    while (e->seen[at].pass == e->pass && e->seen[at].order != order)
        at = (at + 1) & (SEEN_SLOTS - 1);
    int was = e->seen[at].pass == e->pass;
    e->seen[at] = (struct seen){order, e->pass};
    return was;
}

static struct effect *first_free(struct effects *e, uint64_t now_ns)
{
    e->pass++;
    /* Also behind a later one: a dead letter that is back has its old place. */
    for (uint32_t i = 0; i < e->givens; i++) {
        const struct effect *x = effects_find(e, e->given[i]);
        ensure(x != NULL);
        if (x->order)
            was_seen(e, x->order);
    }
    for (uint32_t i = e->first; i < e->len; i++) {
        struct effect *x = &e->effect[i];
        if (x->gone || x->given)
            continue;
        int behind = x->order && was_seen(e, x->order);
        if (!behind && x->due_ns <= now_ns)
            return x;
    }
    return NULL;
}

/* What the process of this name has: its event, once those of its predecessors are free. */
static int had(struct effects *e, const struct effects_worker *w, struct effect **ret,
               struct azoth_error *err)
{
    *ret = NULL;
    for (uint32_t i = 0; i < e->givens;) {
        struct effect *x = effects_find(e, e->given[i]);
        ensure(x != NULL);
        if (strcmp(x->worker, w->name) != 0) {
            i++;
        } else if (x->instance == w->instance) {
            *ret = x;
            i++;
        } else {
            log_line(LOG_LEVEL_NOTICE,
                     "taken back from a worker that ended with it projection=%s event=%" PRIu64
                     " worker=%s",
                     e->def->name, x->id, w->name);
            int rc = set_free(e, x, err);
            if (rc)
                return rc;
        }
    }
    return 0;
}

int effects_give(struct effects *e, const struct effects_worker *w, uint64_t now_ns,
                 struct effects_grant *ret, struct azoth_error *err)
{
    struct effect *x;
    int rc = had(e, w, &x, err);
    if (rc)
        return rc;
    if (!x) {
        x = e->givens < GIVEN_MAX ? first_free(e, now_ns) : NULL;
        if (!x)
            return 0;
        rc = effects_begin(e, err);
        if (rc)
            return rc;
        sqlite3_bind_int64(e->own[GIVE], 1, (int64_t)x->id);
        sqlite3_bind_text(e->own[GIVE], 2, w->name, -1, SQLITE_TRANSIENT);
        sqlite3_bind_int64(e->own[GIVE], 3, (int64_t)w->instance);
        sqlite3_bind_int64(e->own[GIVE], 4, (int64_t)x->grants + 1);
        rc = effects_change(e, GIVE, err);
        if (rc)
            return rc;
        x->grants++;
        x->given = 1;
        x->given_ns = clock_mono_ns();
        x->instance = w->instance;
        snprintf(x->worker, sizeof x->worker, "%s", w->name);
        e->given[e->givens++] = x->id;
    }
    x->deadline_ns = now_ns + (e->def->lease_ms + EFFECTS_GRACE_MS) * NS_PER_MS;
    *ret = (struct effects_grant){x->id, x->grants, x->failures, (uint32_t)e->def->lease_ms,
                                  bytes_of(x->frame, x->len)};
    return 1;
}

int effects_leave(struct effects *e, const struct effects_worker *w, struct azoth_error *err)
{
    struct effect *x;
    int rc = had(e, w, &x, err);
    /* An answer to it was on its way when it ended. */
    return !rc && x ? set_free(e, x, err) : rc;
}

int effects_expire(struct effects *e, uint64_t now_ns, struct azoth_error *err)
{
    for (uint32_t i = 0; i < e->givens;) {
        struct effect *x = effects_find(e, e->given[i]);
        ensure(x != NULL);
        if (x->deadline_ns > now_ns) {
            i++;
            continue;
        }
        log_line(LOG_LEVEL_WARN,
                 "taken back from a worker that is silent projection=%s event=%" PRIu64
                 " worker=%s silent_ms=%" PRIu64,
                 e->def->name, x->id, x->worker, e->def->lease_ms + EFFECTS_GRACE_MS);
        int rc = set_free(e, x, err);
        if (rc)
            return rc;
    }
    return 0;
}

uint64_t effects_due_ns(const struct effects *e, uint64_t now_ns)
{
    uint64_t due = UINT64_MAX;
    for (uint32_t i = e->first; i < e->len; i++) {
        const struct effect *x = &e->effect[i];
        uint64_t at = x->given ? x->deadline_ns : x->due_ns;
        /* One that may run now waits for a worker, or for one before it. */
        if (!x->gone && at > now_ns && at < due)
            due = at;
    }
    return due;
}

int effects_probe(struct effects *e, struct azoth_error *err)
{
    /* A row that is set to what it is would not be written. */
    int rc = tablefile_run(&e->file,
                           "BEGIN IMMEDIATE;"
                           "INSERT OR REPLACE INTO azoth_command VALUES (zeroblob(1), 0, '');"
                           "DELETE FROM azoth_command WHERE id = zeroblob(1);"
                           "COMMIT",
                           err);
    sql_committed(e->file.sql);
    return rc;
}

int effects_idle(struct effects *e)
{
    return e->in_transaction ? 0 : sql_idle(e->file.sql);
}

void effects_stats(const struct effects *e, struct effects_stats *ret)
{
    *ret = (struct effects_stats){.settled = e->settled,
                                  .skipped = e->skipped,
                                  .failures = e->failures,
                                  .commits = e->commits,
                                  .dead = e->dead,
                                  .open = e->open,
                                  .given = e->givens,
                                  .wal_bytes = sql_log_bytes(e->file.sql),
                                  .wal_pinned_ns = sql_log_pinned_ns(e->file.sql)};
    for (uint32_t i = e->first; i < e->len; i++) {
        const struct effect *x = &e->effect[i];
        if (x->gone || !x->failures)
            continue;
        ret->waiting += !x->given;
        if (!ret->error[0])
            describe(x, ret->error, sizeof ret->error);
    }
}
