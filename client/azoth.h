/*
 * azoth.h - state and events in one durable transaction, for one Linux machine.
 *
 *   struct azoth *db;
 *   azoth_open("/var/lib/azoth/main", NULL, &db, &err);
 *   struct azoth_txn *t = azoth_txn_new(db);
 *   azoth_require_min_i64(t, AZOTH_STR("acct/1"), 100);
 *   azoth_add_i64(t, AZOTH_STR("acct/1"), -100);
 *   azoth_add_i64(t, AZOTH_STR("acct/2"), 100);
 *   azoth_event_json(t, "transferred", "{\"from\":1,\"to\":2,\"amount\":100}");
 *   int rc = azoth_commit(t, &info, &err);
 *   azoth_txn_free(t);
 *   azoth_close(db);
 *
 * Calls return 0 or a negative AZOTH_ERR_*; the last parameter (may be NULL) gets the detail. Outputs
 * are untouched on failure. A handle may be used by many threads at once; a transaction, snapshot or
 * iterator by one at a time. After fork() the child's handle answers AZOTH_ERR_FORKED.
 */
#ifndef AZOTH_H
#define AZOTH_H

#include "azoth_base.h"

#ifdef __cplusplus
extern "C" {
#endif

struct azoth;
struct azoth_txn;
struct azoth_snapshot;
struct azoth_scan;
struct azoth_events;

#define AZOTH_STR(s) ((struct azoth_bytes){(s), sizeof(s) - 1}) /* of a string literal */
AZOTH_API struct azoth_bytes azoth_str(const char *s);          /* borrows s, without the NUL */

/* ---- opening ---- */

enum azoth_open_flags {
    AZOTH_EMBEDDED = 1,  /* run the writer on a thread of this process when none is running; then
                            other processes may attach to it */
    AZOTH_CREATE = 2,    /* with AZOTH_EMBEDDED: make the database if there is none */
    AZOTH_READ_ONLY = 4, /* reads only: needs no writer */
};

struct azoth_options {
    unsigned flags;          /* enum azoth_open_flags */
    uint32_t deadline_ms;    /* of transactions that set none; 0: 5000 */
    const char *name;        /* shown in `azoth status`; NULL: the program's name */
    const char *sync;        /* embedded: "full" (default), "meta-lazy", "none" */
    uint32_t attach_wait_ms; /* how long to wait for a writer that is starting; 0: 2000 */
    int wait_paused;         /* transactions wait while writes are paused or sealed */
};

/* Makes an empty database in dir, whole and durable or not at all: after a death on the way it can be
 * called again. DATABASE_EXISTS, BUSY (another process makes one there), IO, NOSPACE, PERMISSION. */
AZOTH_API int azoth_init(const char *dir, struct azoth_error *err);

/*
 * Opens the database in dir. opt may be NULL. NO_DATABASE, NO_WRITER, WRITER_RUNNING (embedded was
 * asked for, and another process writes: open without it to attach), LAYOUT, FORMAT, FULL, CORRUPT,
 * PERMISSION, IO, NOMEM. Opening a directory again in the same process shares environment, segment
 * and writer; each open has its own handle to close.
 */
AZOTH_API int azoth_open(const char *dir, const struct azoth_options *opt, struct azoth **ret,
                         struct azoth_error *err);

/* Waits for asynchronous transactions, then releases everything. Embedded: what is submitted by
 * other processes is finished first. NULL is accepted. */
AZOTH_API void azoth_close(struct azoth *db);

/*
 * Opens a remote handle: transactions go to workers' endpoints ("ipc://...", "tcp://..."), several
 * separated by commas, many in flight at once. Reads (get, scan, events) go the same way, a page
 * per call. Callbacks, snapshots and embedded mode are AZOTH_ERR_UNSUPPORTED. Never opens the data
 * directory. UNREACHABLE is told by the first call, not here.
 *
 * A request that stays silent for 300 ms, or whose worker dies, is sent again under the same id, to
 * the next endpoint. A refusal is told only when no other copy of the request can commit any more;
 * while a stopped worker may hold one, it is held back, and at the deadline it is OUTCOME_UNKNOWN.
 * That counts within one call: after OUTCOME_UNKNOWN, a refusal of your own retry under the same id
 * says nothing of the copy that the first call left behind; azoth_outcome() does, once it is known.
 */
AZOTH_API int azoth_connect(const char *endpoints, const struct azoth_options *opt,
                            struct azoth **ret, struct azoth_error *err);

/* ---- transactions ---- */

/* NULL when memory is out. Belongs to db, which must outlive it. */
AZOTH_API struct azoth_txn *azoth_txn_new(struct azoth *db);
AZOTH_API void azoth_txn_free(struct azoth_txn *t);
AZOTH_API void azoth_txn_reset(struct azoth_txn *t); /* empties it for another use; new id */

/*
 * Every append below returns 0 or the error; the first error is also kept and returned by commit, so
 * a sequence may be written without looking at each. Keys and values are copied.
 */
AZOTH_API int azoth_read(struct azoth_txn *t, struct azoth_bytes key); /* declares, for callbacks */
AZOTH_API int azoth_write(struct azoth_txn *t,
                          struct azoth_bytes key); /* declares, for callbacks */

/* Requirements, checked under locks before anything is queued: PREFLIGHT_FAILED names the key. Min
 * and max are inclusive; a missing key fails them. */
AZOTH_API int azoth_require_exists(struct azoth_txn *t, struct azoth_bytes key);
AZOTH_API int azoth_require_absent(struct azoth_txn *t, struct azoth_bytes key);
AZOTH_API int azoth_require_equals(struct azoth_txn *t, struct azoth_bytes key,
                                   struct azoth_value v);
AZOTH_API int azoth_require_min(struct azoth_txn *t, struct azoth_bytes key, struct azoth_value v);
AZOTH_API int azoth_require_max(struct azoth_txn *t, struct azoth_bytes key, struct azoth_value v);
AZOTH_API int azoth_require_min_i64(struct azoth_txn *t, struct azoth_bytes key, int64_t least);
AZOTH_API int azoth_require_max_i64(struct azoth_txn *t, struct azoth_bytes key, int64_t greatest);
AZOTH_API int azoth_require_type(struct azoth_txn *t, struct azoth_bytes key, enum azoth_type type);
AZOTH_API int azoth_require_contains(struct azoth_txn *t, struct azoth_bytes key,
                                     struct azoth_bytes member);
/* Unchanged since this version (azoth_entry.version); 0: the key is absent. */
AZOTH_API int azoth_require_version(struct azoth_txn *t, struct azoth_bytes key, uint64_t version);

/* Operations, evaluated by the writer in the order given. */
AZOTH_API int azoth_set(struct azoth_txn *t, struct azoth_bytes key, struct azoth_value v);
AZOTH_API int azoth_set_i64(struct azoth_txn *t, struct azoth_bytes key, int64_t n);
AZOTH_API int azoth_set_u256(struct azoth_txn *t, struct azoth_bytes key,
                             const struct azoth_u256 *n);
AZOTH_API int azoth_set_string(struct azoth_txn *t, struct azoth_bytes key,
                               struct azoth_bytes utf8);
AZOTH_API int azoth_set_bytes(struct azoth_txn *t, struct azoth_bytes key, struct azoth_bytes b);
AZOTH_API int azoth_set_set(struct azoth_txn *t, struct azoth_bytes key,
                            const struct azoth_bytes *members, size_t n);
AZOTH_API int azoth_set_array(struct azoth_txn *t, struct azoth_bytes key,
                              const struct azoth_bytes *members, size_t n);
AZOTH_API int azoth_delete(struct azoth_txn *t, struct azoth_bytes key);
AZOTH_API int azoth_add(struct azoth_txn *t, struct azoth_bytes key, struct azoth_value delta);
AZOTH_API int azoth_add_i64(struct azoth_txn *t, struct azoth_bytes key, int64_t delta);
AZOTH_API int azoth_add_u256(struct azoth_txn *t, struct azoth_bytes key,
                             const struct azoth_u256 *delta);
AZOTH_API int azoth_set_add(struct azoth_txn *t, struct azoth_bytes key, struct azoth_bytes member);
AZOTH_API int azoth_set_remove(struct azoth_txn *t, struct azoth_bytes key,
                               struct azoth_bytes member);
AZOTH_API int azoth_array_push(struct azoth_txn *t, struct azoth_bytes key,
                               struct azoth_bytes member);

/* Events. */
struct azoth_event_in {
    struct azoth_bytes type;     /* 1 to 255 bytes UTF-8 */
    struct azoth_bytes payload;  /* any bytes */
    struct azoth_bytes stream;   /* stream key; may be empty */
    struct azoth_bytes metadata; /* may be empty */
};
AZOTH_API int azoth_event(struct azoth_txn *t, const struct azoth_event_in *ev);
AZOTH_API int azoth_event_json(struct azoth_txn *t, const char *type,
                               const char *json); /* checked */
AZOTH_API int azoth_event_bytes(struct azoth_txn *t, const char *type, struct azoth_bytes payload);

/*
 * Callbacks run in the calling process, under the stripe locks, on a snapshot taken after them. They
 * see declared keys only (UNDECLARED_KEY), no scans (SCAN_IN_CALLBACK). validate refuses with
 * azoth_reject(). execute reads, and yields operations and events with the append calls above on
 * the transaction it is given; it writes nothing itself. Not retried, called at most once per commit.
 */
typedef int (*azoth_callback)(struct azoth_txn *t, void *arg);
AZOTH_API int azoth_validate(struct azoth_txn *t, azoth_callback fn, void *arg);
AZOTH_API int azoth_execute(struct azoth_txn *t, azoth_callback fn, void *arg);
/* Inside a callback: reads; *ret borrows until the callback returns. NOT_FOUND when absent. */
struct azoth_entry {
    uint64_t version; /* transaction id of the last change */
    struct azoth_value value;
};
AZOTH_API int azoth_txn_get(struct azoth_txn *t, struct azoth_bytes key, struct azoth_entry *ret);
AZOTH_API int azoth_txn_get_i64(struct azoth_txn *t, struct azoth_bytes key, int64_t *ret);
/* Inside a callback: refuses the transaction; returns AZOTH_ERR_REJECTED to be returned. */
AZOTH_API int azoth_reject(struct azoth_txn *t, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Request id: made at azoth_txn_new; set one to retry under the id of an earlier attempt. */
AZOTH_API void azoth_txn_id(const struct azoth_txn *t, uint8_t ret[AZOTH_ID_BYTES]);
AZOTH_API void azoth_txn_set_id(struct azoth_txn *t, const uint8_t id[AZOTH_ID_BYTES]);
AZOTH_API void azoth_txn_set_deadline(struct azoth_txn *t, uint32_t ms); /* 1 to 3,600,000 */

struct azoth_commit_info {
    uint64_t txn;         /* transaction id; 0 when it had nothing to commit */
    uint64_t first_event; /* 0 when it logged none */
    uint64_t last_event;
    uint32_t keys_written;
    uint32_t keys_deleted;
    uint32_t keys_missing; /* deletes of keys that were not there */
    uint32_t duplicate;    /* 1: this id was committed before; the first commit's result */
};

/*
 * Commits and waits, at most until the deadline. 0 means durable (in the database's sync mode). info
 * may be NULL. PREFLIGHT_FAILED, REJECTED, LOCK_TIMEOUT, BUSY, PAUSED, SEALED, ID_REUSED, UNDECLARED_KEY,
 * OVERFLOW, UNDERFLOW, TYPE, TXN_SIZE, NOSPACE: nothing was changed. OUTCOME_UNKNOWN: submitted, the
 * answer did not come in time; azoth_outcome() tells, and a retry under the same id is safe.
 */
AZOTH_API int azoth_commit(struct azoth_txn *t, struct azoth_commit_info *info,
                           struct azoth_error *err);

/*
 * Submits without waiting for the commit; done is called with the outcome by azoth_poll() (in its
 * thread) or by azoth_close(). t is the library's until then. May wait for a free slot and for
 * stripes no longer than the deadline: LOCK_TIMEOUT and the like are told through done too. At most
 * 1,024 are in flight for a handle: BUSY beyond.
 *
 * Order: of one attached handle, transactions that touch the same key, and those that declare no
 * key (events alone), are applied in the order of submission. Others may overtake one that waits
 * for its locks. Through workers (azoth_connect) there is no order among those in flight.
 */
typedef void (*azoth_done)(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                           const struct azoth_error *err, void *arg);
AZOTH_API int azoth_submit(struct azoth_txn *t, azoth_done done, void *arg,
                           struct azoth_error *err);
/* Completes what is ready, waiting at most timeout_ms for the first: the number of done calls made.
 * USAGE inside a transaction's callback, FORKED in a child of the process that opened db. */
AZOTH_API int azoth_poll(struct azoth *db, uint32_t timeout_ms);
AZOTH_API uint32_t azoth_in_flight(struct azoth *db);

/* What became of a request id: 0 and *info when it was committed; BUSY while it is in the writer's
 * hands; NOT_FOUND when it is not remembered (not committed, or forgotten after 24 h). */
AZOTH_API int azoth_outcome(struct azoth *db, const uint8_t id[AZOTH_ID_BYTES],
                            struct azoth_commit_info *info, struct azoth_error *err);

/* Calls a named command of a worker (remote handles). args: bytes for the command. */
AZOTH_API int azoth_call(struct azoth_txn *t, const char *command, struct azoth_bytes args,
                         struct azoth_commit_info *info, struct azoth_error *err);

/* ---- reading ---- */

/* One value, copied into *buf (malloc'd or grown by realloc; the caller frees it); *ret borrows it.
 * NOT_FOUND, CORRUPT, FORMAT. */
struct azoth_buffer {
    void *ptr;
    size_t size;
};
AZOTH_API int azoth_get(struct azoth *db, struct azoth_bytes key, struct azoth_buffer *buf,
                        struct azoth_entry *ret, struct azoth_error *err);
AZOTH_API int azoth_get_i64(struct azoth *db, struct azoth_bytes key, int64_t *ret,
                            struct azoth_error *err);
AZOTH_API int azoth_exists(struct azoth *db, struct azoth_bytes key, int *ret,
                           struct azoth_error *err);

/* A snapshot sees one commit for as long as it is open. Keep it short: it holds pages. */
AZOTH_API int azoth_snapshot(struct azoth *db, struct azoth_snapshot **ret,
                             struct azoth_error *err);
AZOTH_API void azoth_snapshot_free(struct azoth_snapshot *s);
/* Values and events borrow the snapshot. */
AZOTH_API int azoth_snapshot_get(struct azoth_snapshot *s, struct azoth_bytes key,
                                 struct azoth_entry *ret, struct azoth_error *err);
AZOTH_API uint64_t azoth_snapshot_head(struct azoth_snapshot *s); /* newest event id */

/* Keys in byte order, in one snapshot: those that start with prefix and lie in [from, to). Empty:
 * open. azoth_scan_next: 1, 0 at the end, or an error. key and entry borrow the scan's snapshot. */
AZOTH_API int azoth_scan(struct azoth *db, struct azoth_bytes prefix, struct azoth_bytes from,
                         struct azoth_bytes to, struct azoth_scan **ret, struct azoth_error *err);
AZOTH_API int azoth_scan_next(struct azoth_scan *s, struct azoth_bytes *key,
                              struct azoth_entry *entry, struct azoth_error *err);
AZOTH_API void azoth_scan_free(struct azoth_scan *s);

struct azoth_event {
    uint64_t id, txn;
    int64_t time_ns; /* UTC since 1970 */
    struct azoth_bytes type, payload, stream, metadata;
};
/* Events from (inclusive) to (exclusive; 0: the end), of one type or (NULL) of all. An event
 * borrows the iterator until the next call. Those that were archived are read from their files: NOT_FOUND, PERMISSION
 * and CORRUPT of azoth_events_next() name one that is not there, not to be read, or damaged. */
AZOTH_API int azoth_events(struct azoth *db, uint64_t from, uint64_t to, const char *type,
                           struct azoth_events **ret, struct azoth_error *err);
AZOTH_API int azoth_events_next(struct azoth_events *it, struct azoth_event *ret,
                                struct azoth_error *err);
/* Follow mode: waits at most timeout_ms for the next one; 0 when none came. Keeps no snapshot while
 * it waits. */
AZOTH_API int azoth_events_follow(struct azoth_events *it, uint32_t timeout_ms,
                                  struct azoth_event *ret, struct azoth_error *err);
AZOTH_API void azoth_events_free(struct azoth_events *it);

/* Newest event id and transaction id. */
AZOTH_API int azoth_head(struct azoth *db, uint64_t *ret_event, uint64_t *ret_txn,
                         struct azoth_error *err);

/* ---- projections in this process ---- */

/*
 * A projection needs no process of its own: a handle on the directory (embedded, attached or read-only; no
 * remote one) applies the log to DIR/projections/NAME.db itself, rows and cursor in one transaction, with the
 * definition's error strategies, dead letters and replay, under the lock that a projector holds. Killed at any
 * moment, the next call goes on where the file stands: exactly once. Of one that is split all shards are
 * projected, one after the other.
 *
 * definition: a name is DIR/projections/NAME.sql; what has a '/' or ends with ".sql" is a file. The rows are read
 * with SQLite, read-only, at any time (or lie where the definition's target says). `azoth lag` tells the file's
 * cursor (its state is silent); azoth_wait_projected() is about projectors that report to a feed, and commands
 * that ask a projector (`azoth dlq retry`, `azoth projection rebuild`) find the file locked while
 * azoth_projection_run() has it, and wait for its end as long as their --timeout says.
 */
struct azoth_projection_options {
    uint32_t timeout_ms; /* of run: how long; 0: until it is stopped */
    /* Of run: it ends within 0.1 s and a batch after this is not 0. May be set by a signal handler, or by another
     * thread with an atomic store. NULL: it is not stopped. */
    const volatile int *stop;
    int accept_changed; /* go on although the handlers are not those that made the rows */
    const char *load;   /* the library of handlers in C; NULL: the definition's */
    /* Told of what is no reason to end, behind the transaction: "skipped", "dead-lettered", "to be tried
     * again", "retired", "breaker open", "more failures" (event: how many). NULL: nobody. */
    void (*failed)(void *arg, const char *what, uint64_t event, const char *why);
    void *arg;
};

/*
 * Applies what is in the log now, and due dead letters, in transactions of at most 1,000 events, 4 MiB and about
 * 100 ms; *ret_cursor (may be NULL) is then the newest event that all shards have. opt may be NULL. Waits for
 * the disk, not for time: BUSY says that it stands at an event that is to be tried again later, or behind an open
 * breaker, and when to call again; what came before was applied, and the attempts are kept in the file.
 *
 * HANDLER: an event failed under fail-fast (err names event, FILE:LINE and why); what came before was
 * applied. PROJECTION: the definition is wrong, or was changed. CONFIG: its library or server cannot be used.
 * DUPLICATE: another process or thread projects into it. UNSUPPORTED: effects, a remote handle, or inside a
 * callback. DIVERGED, GAP, CORRUPT, FORMAT, NOSPACE, IO, PERMISSION, FULL, USAGE, FORKED, NOMEM. Any thread; projections of several names in several threads at once.
 */
AZOTH_API int azoth_projection_run_once(struct azoth *db, const char *definition,
                                        const struct azoth_projection_options *opt,
                                        uint64_t *ret_cursor, struct azoth_error *err);

/*
 * Goes on applying until the time is over or it is stopped (0), woken by commits; a read-only handle looks a
 * hundred times a second. Waits until an event that is tried again is due, or a breaker may close. Errors as
 * above but BUSY: each ends it. azoth_close() only after it has returned.
 */
AZOTH_API int azoth_projection_run(struct azoth *db, const char *definition,
                                   const struct azoth_projection_options *opt,
                                   struct azoth_error *err);

/* ---- values ---- */

AZOTH_API int azoth_value_i64(struct azoth_value v, int64_t *ret);            /* TYPE */
AZOTH_API int azoth_value_u256(struct azoth_value v, struct azoth_u256 *ret); /* TYPE */
AZOTH_API int azoth_value_count(struct azoth_value v, uint32_t *ret);         /* Set, Array */
/* Members of a Set or Array: begin with *at = 0; 1, or 0 at the end. */
AZOTH_API int azoth_value_next(struct azoth_value v, size_t *at, struct azoth_bytes *ret);
/* JSON form into out (NUL-terminated when it fits): its length, as snprintf. */
AZOTH_API int azoth_value_json(struct azoth_value v, char *out, size_t size);
AZOTH_API int azoth_u256_parse(const char *decimal,
                               struct azoth_u256 *ret); /* ENCODING, OVERFLOW */
AZOTH_API size_t azoth_u256_text(const struct azoth_u256 *n, char out[80]);

/* ---- operating ---- */

/*
 * Pauses and seals. While there is one, transactions that write are refused with PAUSED or SEALED, or wait
 * if they asked to (wait_paused); reads go on. Several may be in force at once, eight at most; writes go on
 * when the last has ended.
 *
 * One that a handle asks for is the handle's: it ends with azoth_resume() or azoth_unseal(), with
 * azoth_close(), within a second of the death of the process, and after timeout_ms (1 ms to 1 h) even when
 * the process stands. A handle has one at a time: the next one takes the place of the one before, with no
 * write between them.
 *
 * Any thread may call; not inside a callback. Attached handles only, embedded ones too: UNSUPPORTED. All:
 * FORKED, NO_WRITER, PERMISSION, NOMEM.
 */

/* Pauses writes. Blocks until what was submitted before is finished, at most for the handle's deadline:
 * TIMEOUT, and then there is no pause. USAGE (timeout_ms), FULL, RETIRED. */
AZOTH_API int azoth_pause(struct azoth *db, uint32_t timeout_ms, struct azoth_error *err);
/* The same, but held: it belongs to no process. It ends after timeout_ms, by azoth_resume_held(), or when
 * the database is stopped as a whole. */
AZOTH_API int azoth_pause_hold(struct azoth *db, uint32_t timeout_ms, struct azoth_error *err);
/* Ends this handle's pause; no error when it has none. Returns when writes go on or another one's pause
 * is there; without a writer, after the handle's deadline: the next writer goes on. */
AZOTH_API int azoth_resume(struct azoth *db, struct azoth_error *err);
/* Ends this handle's pause and all held ones, with `everybody` those of other processes too. *ret_left (may
 * be NULL): pauses of others that are left. */
AZOTH_API int azoth_resume_held(struct azoth *db, int everybody, uint32_t *ret_left,
                                struct azoth_error *err);

/* What a sealed database stands at. */
struct azoth_seal_info {
    uint64_t event,
        txn; /* the newest; everything up to them is complete and durable, nothing is after */
    int64_t time_ns; /* when it was sealed (UTC) */
};
/* Seals: fixes the newest event until the seal ends. Errors and blocking as azoth_pause(). */
AZOTH_API int azoth_seal(struct azoth *db, uint32_t timeout_ms, struct azoth_seal_info *ret,
                         struct azoth_error *err);
/* Ends this handle's seal, as azoth_resume(). */
AZOTH_API int azoth_unseal(struct azoth *db, struct azoth_error *err);
/* Seals until azoth_unseal_held(), over restarts of writer and machine: the store keeps it. Takes the place of
 * this handle's pause or seal, and fixes the event that such a seal stands at: TIMEOUT when that seal has ended by itself. Of a database that is sealed
 * so already it tells that seal. Blocks for a commit too; NOSPACE, IO, and OUTCOME_UNKNOWN: it may be repeated. */
AZOTH_API int azoth_seal_hold(struct azoth *db, struct azoth_seal_info *ret,
                              struct azoth_error *err);
/* Ends the seal that the store keeps and this handle's own, with `everybody` those of other processes too; no
 * error when there is none. *ret_left (may be NULL): seals of others that are left. Errors as
 * azoth_seal_hold(). */
AZOTH_API int azoth_unseal_held(struct azoth *db, int everybody, uint32_t *ret_left,
                                struct azoth_error *err);

/* 1 while this handle's pause or seal is in force and has been since it was asked for; 0 when it has ended,
 * by its time, by somebody who resumed everybody's, or because the segment was retired. What was read
 * between asking and a 1 is of one moment. Does not block. */
AZOTH_API int azoth_pause_stands(struct azoth *db);

/* Waits until projection `name` (all its shards) has applied event_id. TIMEOUT, NOT_FOUND, UNSUPPORTED (a remote
 * handle), NO_WRITER: none has made what would tell it. */
AZOTH_API int azoth_wait_projected(struct azoth *db, const char *name, uint64_t event_id,
                                   uint32_t timeout_ms, struct azoth_error *err);

#ifdef __cplusplus
}
#endif
#endif
