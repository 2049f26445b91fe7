/*
 * dlq.c - the tables about failures in a projection's own file.
 *
 *   azoth_dlq      one row for each event that failed and was put aside (waiting to be tried again, or
 *                  retired), or that waits behind one of the same value of order-by (parked)
 *   azoth_retry    the event that the projection stands at
 *   azoth_breaker  where the breaker is, and when what it counts happened
 *   azoth_command  answers that were given to commands, so that one sent twice is done once
 *
 * Of the rows of one value the oldest is waiting or retired and all others are parked: that one gone, the
 * next is released (waiting, and not tried yet) by the same transaction.
 *
 * t->faults.dlq counts along, so that an event asks the table only when something has a value.
 */
#include "core/clock.h"
#include "core/error.h"
#include "projector/failure.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#define COMMAND_KEPT_NS (3600 * (int64_t)NS_PER_S)

static const char tables[] =
    "BEGIN IMMEDIATE;"
    "CREATE TABLE IF NOT EXISTS azoth_dlq (event INTEGER PRIMARY KEY, type TEXT NOT NULL,"
    " key BLOB NOT NULL, time INTEGER NOT NULL, txn INTEGER NOT NULL, payload BLOB NOT NULL,"
    " state TEXT NOT NULL CHECK (state IN ('waiting', 'retired', 'parked')),"
    " code INTEGER NOT NULL, error TEXT NOT NULL, attempts INTEGER NOT NULL,"
    " first_failure INTEGER NOT NULL, last_failure INTEGER NOT NULL,"
    " next_attempt INTEGER NOT NULL, value BLOB);"
    "CREATE INDEX IF NOT EXISTS azoth_dlq_state ON azoth_dlq (state, attempts);"
    "CREATE INDEX IF NOT EXISTS azoth_dlq_value ON azoth_dlq (value, event)"
    " WHERE value IS NOT NULL;"
    "CREATE TABLE IF NOT EXISTS azoth_retry (id INTEGER PRIMARY KEY CHECK (id = 1),"
    " event INTEGER NOT NULL, attempts INTEGER NOT NULL, first_failure INTEGER NOT NULL,"
    " last_failure INTEGER NOT NULL, next_attempt INTEGER NOT NULL, code INTEGER NOT NULL,"
    " error TEXT NOT NULL);"
    "CREATE TABLE IF NOT EXISTS azoth_breaker (id INTEGER PRIMARY KEY CHECK (id = 1),"
    " state INTEGER NOT NULL, probes INTEGER NOT NULL, until INTEGER NOT NULL,"
    " failures BLOB NOT NULL);"
    "CREATE TABLE IF NOT EXISTS azoth_command (id BLOB PRIMARY KEY, at INTEGER NOT NULL,"
    " answer TEXT NOT NULL);"
    "COMMIT";

enum query {
    Q_INSERT,
    Q_HEAD,
    Q_GET,
    Q_DELETE,
    Q_RELEASE,
    Q_UPDATE,
    Q_RELEASED,
    Q_DUE_BY_AGE,
    Q_DUE_BY_ATTEMPTS,
    Q_COUNT,
    Q_RETRY_GET,
    Q_RETRY_PUT,
    Q_RETRY_CLEAR,
    Q_BREAKER_GET,
    Q_BREAKER_PUT,
    Q_COMMAND_GET,
    Q_COMMAND_PUT,
    Q_COMMAND_OLD,
    QUERIES
};

/* A time that lies ahead of its failure by more than the longest wait, or a failure ahead of now, is of
 * a clock that was put back: due. */
#define DUE                                                                                        \
    "SELECT event FROM azoth_dlq WHERE state = 'waiting' AND attempts > 0 AND"                     \
    " (last_failure > ?1 OR (next_attempt <= ?1 AND first_failure <= ?2)) ORDER BY "

static const char *const sql[QUERIES] = {
    [Q_INSERT] = "INSERT INTO azoth_dlq VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12,"
                 " ?13, ?14)",
    [Q_HEAD] = "SELECT event FROM azoth_dlq WHERE value = ?1 ORDER BY event LIMIT 1",
    [Q_GET] = "SELECT type, key, time, txn, payload, state, attempts, first_failure, last_failure,"
              " next_attempt, code, value FROM azoth_dlq WHERE event = ?1",
    [Q_DELETE] = "DELETE FROM azoth_dlq WHERE event = ?1",
    [Q_RELEASE] = "UPDATE azoth_dlq SET state = 'waiting' WHERE state = 'parked' AND event ="
                  " (SELECT event FROM azoth_dlq WHERE value = ?1 ORDER BY event LIMIT 1)",
    [Q_UPDATE] = "UPDATE azoth_dlq SET state = ?2, attempts = ?3, first_failure = ?4,"
                 " last_failure = ?5, next_attempt = ?6, code = ?7, error = ?8 WHERE event = ?1",
    [Q_RELEASED] = "SELECT event FROM azoth_dlq WHERE state = 'waiting' AND attempts = 0"
                   " ORDER BY event LIMIT 1",
    [Q_DUE_BY_AGE] = DUE "first_failure, event LIMIT ?3",
    [Q_DUE_BY_ATTEMPTS] = DUE "attempts, first_failure, event LIMIT ?3",
    [Q_COUNT] = "SELECT count(*) FILTER (WHERE state = 'waiting'),"
                " count(*) FILTER (WHERE state = 'retired'),"
                " count(*) FILTER (WHERE state = 'parked'),"
                " count(*) FILTER (WHERE state = 'waiting' AND attempts = 0), count(value)"
                " FROM azoth_dlq",
    [Q_RETRY_GET] = "SELECT event, attempts, first_failure, last_failure, next_attempt, code, error"
                    " FROM azoth_retry",
    [Q_RETRY_PUT] =
        "INSERT INTO azoth_retry VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id)"
        " DO UPDATE SET event = excluded.event, attempts = excluded.attempts,"
        " first_failure = excluded.first_failure, last_failure = excluded.last_failure,"
        " next_attempt = excluded.next_attempt, code = excluded.code,"
        " error = excluded.error",
    [Q_RETRY_CLEAR] = "DELETE FROM azoth_retry",
    [Q_BREAKER_GET] = "SELECT state, probes, until, failures FROM azoth_breaker",
    [Q_BREAKER_PUT] = "INSERT INTO azoth_breaker VALUES (1, ?1, ?2, ?3, ?4) ON CONFLICT (id)"
                      " DO UPDATE SET state = excluded.state, probes = excluded.probes,"
                      " until = excluded.until, failures = excluded.failures",
    [Q_COMMAND_GET] = "SELECT answer FROM azoth_command WHERE id = ?1",
    [Q_COMMAND_PUT] = "INSERT INTO azoth_command VALUES (?1, ?2, ?3)",
    [Q_COMMAND_OLD] = "DELETE FROM azoth_command WHERE at NOT BETWEEN ?1 AND ?2",
};

static const char *const state_names[] = {
    [DLQ_WAITING] = "waiting", [DLQ_RETIRED] = "retired", [DLQ_PARKED] = "parked"};

struct dlq {
    struct sql_stmt *s[QUERIES];
    struct buf value; /* of dlq_value */
    struct buf row;   /* of dlq_get */
};

/* ---- small things ---- */

static int failed(struct table *t, struct azoth_error *err)
{
    return sql_error(t->file.sql, err, t->file.path);
}

/* As text when it is, so that people can read it. */
static void bind_bytes(struct sql_stmt *s, int i, struct azoth_bytes b)
{
    if (utf8_valid(b))
        sql_bind_text(s, i, b);
    else
        sql_bind_blob(s, i, b);
}

static void bind_string(struct sql_stmt *s, int i, const char *text)
{
    sql_bind_text(s, i, bytes_str(text));
}

/* Steps to the first row: 1, 0 without one (and then it is reset). */
static int first_row(struct table *t, struct sql_stmt *s, struct azoth_error *err)
{
    int step = sql_step(s);
    if (step == SQL_ROW)
        return 1;
    int rc = step == SQL_DONE ? 0 : failed(t, err);
    sql_reset(s);
    return rc;
}

static int one_id(struct table *t, struct sql_stmt *s, uint64_t *ret, struct azoth_error *err)
{
    int rc = first_row(t, s, err);
    if (rc != 1)
        return rc;
    *ret = (uint64_t)sql_int64(s, 0);
    sql_reset(s);
    return 1;
}

/* ---- values of order-by ---- */

static int field_value(struct table *t, const struct event_record *ev, struct azoth_error *err)
{
    json_error_t why;
    json_t *payload =
        json_loadb(ev->payload.len ? ev->payload.ptr : "", ev->payload.len, JSON_ALLOW_NUL, &why);
    json_t *v = json_object_get(payload, t->def->order_by + 1);
    char *text = v ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS) : NULL;
    int rc = 0;
    if ((v && !text) || (!payload && json_error_code(&why) == json_error_out_of_memory) ||
        (text && buf_add_str(&t->dlq->value, text)))
        rc = error_set(err, AZOTH_ERR_NOMEM, "event %" PRIu64, ev->id);
    free(text);
    json_decref(payload);
    return rc;
}

int dlq_value(struct table *t, const struct event_record *ev, struct azoth_bytes *ret,
              struct azoth_error *err)
{
    struct dlq *d = t->dlq;
    int rc = 0;
    buf_clear(&d->value);
    if (t->def->order_by[0] == '@') {
        if (ev->key.len && buf_add(&d->value, ev->key.ptr, ev->key.len))
            rc = error_set(err, AZOTH_ERR_NOMEM, "event %" PRIu64, ev->id);
    } else if (t->def->order_by[0]) {
        rc = field_value(t, ev, err);
    }
    *ret = buf_bytes(&d->value);
    return rc ? rc : ret->len > 0;
}

/* ---- rows ---- */

static uint64_t *count_of(struct table *t, enum dlq_state state)
{
    struct dlq_counts *c = &t->faults.dlq;
    return state == DLQ_WAITING ? &c->waiting : state == DLQ_RETIRED ? &c->retired : &c->parked;
}

static int insert(struct table *t, const struct dlq_letter *l, struct azoth_error *err)
{
    struct sql_stmt *s = t->dlq->s[Q_INSERT];
    sql_bind_int64(s, 0, (int64_t)l->ev.id);
    bind_bytes(s, 1, l->ev.type);
    bind_bytes(s, 2, l->ev.key);
    sql_bind_int64(s, 3, l->ev.time_ns);
    sql_bind_int64(s, 4, (int64_t)l->ev.txn);
    bind_bytes(s, 5, l->ev.payload);
    bind_string(s, 6, state_names[l->state]);
    sql_bind_int64(s, 7, l->code);
    bind_string(s, 8, l->error);
    sql_bind_int64(s, 9, (int64_t)l->failures);
    sql_bind_int64(s, 10, l->first_ns);
    sql_bind_int64(s, 11, l->last_ns);
    sql_bind_int64(s, 12, l->next_ns);
    if (l->value.len)
        bind_bytes(s, 13, l->value);
    else
        sql_bind_null(s, 13);
    int rc = table_run(t, s, err);
    if (rc)
        return rc;
    ++*count_of(t, l->state);
    t->faults.dlq.valued += l->value.len > 0;
    return 0;
}

int dlq_insert(struct table *t, const struct dlq_letter *l, struct azoth_error *err)
{
    struct dlq_letter valued = *l;
    int rc = dlq_value(t, &l->ev, &valued.value, err);
    return rc < 0 ? rc : insert(t, &valued, err);
}

int dlq_park(struct table *t, const struct event_record *ev, struct azoth_error *err)
{
    struct dlq_letter l = {.ev = *ev, .state = DLQ_PARKED};
    uint64_t head;
    char error[60];
    int rc = dlq_value(t, ev, &l.value, err);
    if (rc != 1)
        return rc;
    struct sql_stmt *s = t->dlq->s[Q_HEAD];
    bind_bytes(s, 0, l.value);
    rc = one_id(t, s, &head, err);
    if (rc != 1)
        return rc;
    snprintf(error, sizeof error, "waits behind event %" PRIu64, head);
    l.error = error;
    rc = insert(t, &l, err);
    return rc ? rc : 1;
}

/* Copies of the row's bytes, one behind the other. */
static int copy_columns(struct dlq *d, struct sql_stmt *s, const int *column,
                        struct azoth_bytes *ret, int n)
{
    size_t at[8];
    buf_clear(&d->row);
    for (int i = 0; i < n; i++) {
        ret[i] = sql_bytes(s, column[i]);
        at[i] = d->row.len;
        if (buf_add(&d->row, ret[i].len ? ret[i].ptr : "", ret[i].len))
            return AZOTH_ERR_NOMEM;
    }
    for (int i = 0; i < n; i++)
        ret[i].ptr = d->row.ptr + at[i];
    return 0;
}

int dlq_get(struct table *t, uint64_t event, struct dlq_letter *ret, struct azoth_error *err)
{
    static const int column[] = {0, 1, 4, 11};
    struct azoth_bytes bytes[4];
    struct sql_stmt *s = t->dlq->s[Q_GET];
    sql_bind_int64(s, 0, (int64_t)event);
    int rc = first_row(t, s, err);
    if (rc != 1)
        return rc;
    const char *state = sql_text(s, 5);
    *ret = (struct dlq_letter){
        .ev = {.id = event, .time_ns = sql_int64(s, 2), .txn = (uint64_t)sql_int64(s, 3)},
        .state = !state                          ? DLQ_RETIRED
                 : strcmp(state, "waiting") == 0 ? DLQ_WAITING
                 : strcmp(state, "parked") == 0  ? DLQ_PARKED
                                                 : DLQ_RETIRED,
        .failures = (uint64_t)sql_int64(s, 6),
        .first_ns = sql_int64(s, 7),
        .last_ns = sql_int64(s, 8),
        .next_ns = sql_int64(s, 9),
        .code = (int32_t)sql_int64(s, 10),
        .error = ""};
    rc = copy_columns(t->dlq, s, column, bytes, 4);
    ret->ev.type = bytes[0];
    ret->ev.key = bytes[1];
    ret->ev.payload = bytes[2];
    ret->value = bytes[3];
    sql_reset(s);
    return rc ? error_set(err, rc, "event %" PRIu64, event) : 1;
}

int dlq_remove(struct table *t, const struct dlq_letter *l, struct azoth_error *err)
{
    struct dlq_counts *c = &t->faults.dlq;
    struct sql_stmt *s = t->dlq->s[Q_DELETE], *release = t->dlq->s[Q_RELEASE];
    sql_bind_int64(s, 0, (int64_t)l->ev.id);
    int rc = table_run(t, s, err);
    if (rc)
        return rc;
    --*count_of(t, l->state);
    c->released -= l->state == DLQ_WAITING && l->failures == 0;
    if (!l->value.len)
        return 0;
    c->valued--;
    bind_bytes(release, 0, l->value);
    rc = table_run(t, release, err);
    if (!rc && sql_changes(t->file.sql) == 1) {
        c->parked--;
        c->waiting++;
        c->released++;
    }
    return rc;
}

int dlq_update(struct table *t, const struct dlq_letter *was, const struct dlq_letter *l,
               struct azoth_error *err)
{
    struct sql_stmt *s = t->dlq->s[Q_UPDATE];
    sql_bind_int64(s, 0, (int64_t)l->ev.id);
    bind_string(s, 1, state_names[l->state]);
    sql_bind_int64(s, 2, (int64_t)l->failures);
    sql_bind_int64(s, 3, l->first_ns);
    sql_bind_int64(s, 4, l->last_ns);
    sql_bind_int64(s, 5, l->next_ns);
    sql_bind_int64(s, 6, l->code);
    bind_string(s, 7, l->error);
    int rc = table_run(t, s, err);
    if (rc)
        return rc;
    --*count_of(t, was->state);
    ++*count_of(t, l->state);
    t->faults.dlq.released -= was->state == DLQ_WAITING && was->failures == 0;
    return 0;
}

int dlq_released(struct table *t, uint64_t *ret, struct azoth_error *err)
{
    return t->faults.dlq.released ? one_id(t, t->dlq->s[Q_RELEASED], ret, err) : 0;
}

int dlq_due(struct table *t, uint64_t max, uint64_t *ret, struct azoth_error *err)
{
    const struct sql_replay *r = &t->def->replay;
    int64_t now = table_wall(t);
    struct sql_stmt *s = t->dlq->s[r->by_attempts ? Q_DUE_BY_ATTEMPTS : Q_DUE_BY_AGE];
    int n = 0, step;
    sql_bind_int64(s, 0, now);
    sql_bind_int64(s, 1, now - (int64_t)(r->age_ms * NS_PER_MS));
    sql_bind_int64(s, 2, (int64_t)max);
    while ((step = sql_step(s)) == SQL_ROW)
        ret[n++] = (uint64_t)sql_int64(s, 0);
    int rc = step == SQL_DONE ? n : failed(t, err);
    sql_reset(s);
    return rc;
}

/* ---- retry, breaker, commands ---- */

int retry_store(struct table *t, struct azoth_error *err)
{
    const struct retry *r = &t->faults.retry;
    struct sql_stmt *s = t->dlq->s[Q_RETRY_PUT];
    sql_bind_int64(s, 0, (int64_t)r->event);
    sql_bind_int64(s, 1, r->failures);
    sql_bind_int64(s, 2, r->first_ns);
    sql_bind_int64(s, 3, r->last_ns);
    sql_bind_int64(s, 4, r->next_ns);
    sql_bind_int64(s, 5, r->code);
    bind_string(s, 6, r->error);
    return table_run(t, s, err);
}

int retry_clear(struct table *t, struct azoth_error *err)
{
    t->faults.retry = (struct retry){.event = 0};
    return table_run(t, t->dlq->s[Q_RETRY_CLEAR], err);
}

int breaker_store(struct table *t, struct azoth_error *err)
{
    const struct breaker *b = &t->faults.breaker;
    struct sql_stmt *s = t->dlq->s[Q_BREAKER_PUT];
    sql_bind_int64(s, 0, b->at);
    sql_bind_int64(s, 1, (int64_t)b->probes);
    sql_bind_int64(s, 2, b->until_ns);
    sql_bind_blob(s, 3, bytes_of(b->time, b->failures * sizeof *b->time));
    return table_run(t, s, err);
}

int command_get(struct table *t, const uint8_t id[COMMAND_ID_BYTES], char ret[COMMAND_ANSWER_MAX],
                struct azoth_error *err)
{
    struct sql_stmt *s = t->dlq->s[Q_COMMAND_GET];
    sql_bind_blob(s, 0, bytes_of(id, COMMAND_ID_BYTES));
    int rc = first_row(t, s, err);
    if (rc != 1)
        return rc;
    const char *answer = sql_text(s, 0);
    snprintf(ret, COMMAND_ANSWER_MAX, "%s", answer ? answer : "");
    sql_reset(s);
    return 1;
}

int command_put(struct table *t, const uint8_t id[COMMAND_ID_BYTES], const char *answer,
                struct azoth_error *err)
{
    struct sql_stmt *s = t->dlq->s[Q_COMMAND_PUT], *old = t->dlq->s[Q_COMMAND_OLD];
    int64_t now = table_wall(t);
    sql_bind_int64(old, 0, now - COMMAND_KEPT_NS);
    sql_bind_int64(old, 1, now + COMMAND_KEPT_NS);
    int rc = table_run(t, old, err);
    if (rc)
        return rc;
    sql_bind_blob(s, 0, bytes_of(id, COMMAND_ID_BYTES));
    sql_bind_int64(s, 1, now);
    bind_string(s, 2, answer);
    return table_run(t, s, err);
}

/* ---- opening ---- */

/* Running time until a wall clock time, which is at most so far away whatever the clock says. */
static uint64_t due_ns(const struct table *t, int64_t then_ns, int64_t most_ns)
{
    int64_t left = then_ns - table_wall(t);
    if (left > most_ns)
        left = most_ns;
    return left > 0 ? table_mono(t) + (uint64_t)left : 0;
}

static int load_retry(struct table *t, struct azoth_error *err)
{
    struct retry *r = &t->faults.retry;
    struct sql_stmt *s = t->dlq->s[Q_RETRY_GET];
    int rc = first_row(t, s, err);
    if (rc != 1)
        return rc;
    const char *error = sql_text(s, 6);
    r->event = (uint64_t)sql_int64(s, 0);
    r->failures = (uint32_t)sql_int64(s, 1);
    r->first_ns = sql_int64(s, 2);
    r->last_ns = sql_int64(s, 3);
    r->next_ns = sql_int64(s, 4);
    r->code = (int32_t)sql_int64(s, 5);
    snprintf(r->error, sizeof r->error, "%s", error ? error : "");
    sql_reset(s);
    t->retry_due_ns = due_ns(t, r->next_ns, r->next_ns - r->last_ns);
    return 0;
}

static int load_breaker(struct table *t, struct azoth_error *err)
{
    struct breaker *b = &t->faults.breaker;
    const struct sql_breaker *def = &t->def->breaker;
    if (!def->failures)
        return 0;
    b->at = BREAKER_CLOSED;
    struct sql_stmt *s = t->dlq->s[Q_BREAKER_GET];
    int rc = first_row(t, s, err);
    if (rc != 1)
        return rc;
    int64_t at = sql_int64(s, 0);
    b->at = at == BREAKER_OPEN || at == BREAKER_HALF_OPEN ? (enum breaker_at)at : BREAKER_CLOSED;
    b->probes = (uint64_t)sql_int64(s, 1);
    b->until_ns = sql_int64(s, 2);
    b->due_ns = due_ns(t, b->until_ns, (int64_t)(def->open_ms * NS_PER_MS));
    struct azoth_bytes times = sql_bytes(s, 3);
    size_t n = times.len / sizeof *b->time;
    /* Under a definition with fewer, the newest count. */
    size_t most = def->failures - 1, skip = n > most ? n - most : 0;
    if (n > skip)
        memcpy(b->time, (const char *)times.ptr + skip * sizeof *b->time,
               (n - skip) * sizeof *b->time);
    b->failures = (uint32_t)(n - skip);
    sql_reset(s);
    return 0;
}

static int load_counts(struct table *t, struct azoth_error *err)
{
    struct sql_stmt *s = t->dlq->s[Q_COUNT];
    int rc = first_row(t, s, err);
    if (rc != 1)
        return rc;
    t->faults.dlq = (struct dlq_counts){.waiting = (uint64_t)sql_int64(s, 0),
                                        .retired = (uint64_t)sql_int64(s, 1),
                                        .parked = (uint64_t)sql_int64(s, 2),
                                        .released = (uint64_t)sql_int64(s, 3),
                                        .valued = (uint64_t)sql_int64(s, 4)};
    sql_reset(s);
    return 0;
}

int dlq_open(struct table *t, struct azoth_error *err)
{
    t->dlq = calloc(1, sizeof *t->dlq);
    if (!t->dlq)
        return error_set(err, AZOTH_ERR_NOMEM, "a projection");
    int rc = tablefile_run(&t->file, tables, err);
    if (rc)
        sql_exec(t->file.sql, "ROLLBACK");
    for (int i = 0; i < QUERIES && !rc; i++)
        rc = tablefile_prepare(&t->file, sql[i], &t->dlq->s[i], err);
    if (!rc)
        rc = load_counts(t, err);
    if (!rc)
        rc = load_retry(t, err);
    if (!rc)
        rc = load_breaker(t, err);
    return rc;
}

void dlq_close(struct table *t)
{
    if (!t->dlq)
        return;
    for (int i = 0; i < QUERIES; i++)
        sql_finalize(t->dlq->s[i]);
    buf_fini(&t->dlq->value);
    buf_fini(&t->dlq->row);
    free(t->dlq);
    t->dlq = NULL;
}
