/*
 * table.h - a projection's SQLite file: migrations, handlers, cursor.
 *
 * DIR/NAME.gN.db (of a shard: split.h) is the file of generation N, DIR/NAME.db a relative symbolic link to the one that
 * serves, DIR/NAME.lock the lock of the process that projects into it. The connection here is the only
 * one that writes or checkpoints (SQLite 3.40 has a defect with two); everybody else opens the file
 * read-only, at any time.
 *
 * Own tables: azoth_projection (one row: identity, cursor, checksum of the handlers that moved it
 * there), azoth_migrations (history), azoth_dlq (dead letters), azoth_retry (the event that is being
 * tried again), azoth_breaker and azoth_command (see replay.h). Definitions may not write to tables of that
 * prefix.
 *
 * A struct table belongs to one thread at a time and must not cross a fork.
 */
#ifndef PROJECTOR_TABLE_H
#define PROJECTOR_TABLE_H

#include "projector/breaker.h"
#include "projector/sqlfile.h"

struct table;

struct table_options {
    const char *dir;  /* of the projections */
    const char *file; /* this one, under a lock of the caller's; NULL: the one that serves */
    const char *
        postgresql; /* the setting of that name, of a target that says none; NULL: as target.h finds it */
    const uint8_t *uuid;    /* 16 bytes of the database that is followed */
    const char *load;       /* the library of handlers in C; NULL: the definition's */
    int accept_changed;     /* go on although the handlers differ from those that made the rows */
    uint32_t shard, shards; /* 0 of 1 when it is not split */
};

/*
 * Opens or makes the file and applies pending migrations, each with its history row in one
 * transaction. PROJECTION: the definition (err says FILE:LINE:COLUMN), a changed, missing or late
 * migration, changed handlers without accept_changed, what is in C and has no library; CONFIG: the library
 * cannot be used. DIVERGED: the file follows another database.
 * DUPLICATE: another process projects into it. NOSPACE, IO, CORRUPT, BUSY, PERMISSION, NOMEM.
 * def is borrowed until table_close; strings of o during the call. Blocks on the disk.
 */
int table_open(const struct sqlfile *def, const struct table_options *o, struct table **ret,
               struct azoth_error *err);

/* Truncates the WAL if no reader is in the way, and closes. Blocks on the disk. NULL is accepted.
 */
void table_close(struct table *t);

/* Last applied event id and that event's checksum (0, 0 at the start). */
void table_cursor(const struct table *t, uint64_t *ret_cursor, uint32_t *ret_check);

/* Wanted event types in the form of wire_pull.types: u8 length and bytes each; borrowed from t. */
struct azoth_bytes table_types(const struct table *t);

/*
 * Applies the events of frames (record.h), which are those of first..last that the projection wants
 * (perhaps none), in one transaction that also moves the cursor to last (last_check is that event's
 * checksum). frames is read during the call only. Blocks on the disk.
 *
 * GAP: first is not cursor + 1, or last is below first - 1; nothing was done, so a batch that came
 * twice or too early is dropped by its receiver. last = first - 1 is an empty range: 0. CORRUPT: ids do
 * not ascend within the range, a frame fails its check, or the cursor in the file is not the one it was
 * left at.
 *
 * Fields of the payload: integers (within int64), reals, strings, null as such, booleans as 0 and 1,
 * objects and arrays as JSON text; of a name that comes twice, the last. @payload is text when it is
 * UTF-8, else a blob. An event is parsed once, and only when its handler has a :field.
 *
 * An event whose handler fails (also: a field that is not there, a payload that is no JSON object)
 * leaves nothing behind, and its strategy says what then:
 *   fail-fast     what came before it is committed with the cursor at the newest event before it that was
 *                 given (others between were not for this projection), and HANDLER is returned: err
 *                 names event, type, FILE:LINE and why
 *   log-and-skip  the batch goes on behind it
 *   dead-letter   it is kept in azoth_dlq by the same transaction, and the batch goes on behind it
 *   retry         what came before it and the account of the attempt (azoth_retry) are committed, and
 *                 TABLE_STANDS is returned: call again with the rest of the batch (first = the new cursor
 *                 + 1; frames at or below the cursor are passed over) when table_standing() says so. After
 *                 the last attempt its other strategy
 * A breaker that opens ends the batch in the same way, with TABLE_STANDS.
 *
 * NOSPACE, IO, CORRUPT, BUSY, PERMISSION, NOMEM: the machine's fault and not the event's; what was not
 * committed before is as if it had not been given. Behind NOSPACE the rest of the batch may be given again, as
 * behind TABLE_STANDS.
 */
#define TABLE_STANDS 1
int table_apply(struct table *t, struct azoth_bytes frames, uint64_t first, uint64_t last,
                uint32_t last_check, struct azoth_error *err);

/* Why the projection does not go on, and what it has put aside. */
struct table_standing {
    uint64_t wait_ns;  /* until table_apply may be called; 0: now */
    uint64_t event;    /* that is being tried again; 0: none */
    uint64_t failed;   /* that failed for good, so that table_apply() ended with HANDLER; 0: none */
    uint32_t failures; /* of it, so far */
    enum breaker_at breaker;
    uint64_t waiting, retired, parked; /* dead letters */
    const char *error;                 /* of the event; "" without one; borrowed from t */
};
void table_standing(struct table *t, struct table_standing *ret);

/* Told behind the commit that made it so. error: as text. more: so many others of the same transaction
 * are not told one by one. */
enum failure_action {
    FAILURE_SKIPPED,
    FAILURE_DEAD_LETTERED,
    FAILURE_RETRIES,
    FAILURE_OPENS,   /* the breaker */
    FAILURE_RETIRED, /* a dead letter that failed for the last time */
    FAILURE_MORE     /* event: how many others */
};
typedef void (*table_failure)(void *arg, enum failure_action action, uint64_t event,
                              const char *error);
void table_on_failure(struct table *t, table_failure fn, void *arg);
/* Every failure of a batch is told one by one, which takes some 300 bytes for each until it is committed. */
void table_tell_each_failure(struct table *t);

/* For tests: the clocks stand at these times; 0: they run. */
void table_set_clock(struct table *t, int64_t wall_ns, uint64_t mono_ns);

/*
 * When there is nothing to do: checkpoints and truncates the WAL. Does not wait for readers: 1 if one
 * is in the way, a later call tries again. Blocks on the disk; nothing to do costs nothing.
 */
int table_idle(struct table *t);

/* Since table_open. */
struct table_stats {
    uint64_t events;    /* applied by handlers, committed */
    uint64_t batches;   /* transactions committed */
    uint64_t failures;  /* attempts at an event that failed */
    uint64_t wal_bytes; /* of the WAL file now */
    /* Running time since when a reader has kept it from starting over, as the last checkpoint saw it; 0: none did */
    uint64_t wal_pinned_ns;
};
void table_stats(const struct table *t, struct table_stats *ret);
uint64_t table_applied_events(const struct table *t); /* table_stats.events */
uint64_t table_failures(const struct table *t);       /* table_stats.failures */

/* ---- checking, for `azoth projection check` (tablecheck.c) ---- */

/*
 * Everything that can be found wrong before running: marks, then migrations (run on an empty database
 * in memory, each undo right after its migration and taken back), then handlers, prepared. Calls report
 * for each error, at most PROJECTION_CHECK_MAX, with FILE:LINE:COLUMN. The code of the first, or 0:
 * PROJECTION, IO, PERMISSION, NOMEM. Touches no file but the definition.
 *
 * What is in C is looked at when `load` names the library, which runs its code: it is loaded, and its state
 * opened on the empty tables. Also CONFIG then.
 *
 * With the target postgresql it is marks, parameters and statements by their first words, since its SQL is the
 * server's to judge. With a connection string (empty: libpq knows) that is done too, in a schema that is never
 * committed; also PERMISSION, UNREACHABLE, CONFIG.
 */
#define PROJECTION_CHECK_MAX 50u
struct projection_check_with {
    const char *load;       /* NULL: what is in C is not looked at */
    const char *postgresql; /* NULL: no server is asked */
};
struct projection_unchecked {
    int in_c; /* there are handlers in C, or decisions, and no library was given */
    int sql;  /* a server would have to judge it, and none was given */
};
/* with and ret may be NULL. */
int projection_check_all(const char *path, const struct projection_check_with *with,
                         struct projection_unchecked *ret, sqlfile_report report, void *arg);

/* The same without a library or a server; err gets the first error. */
int projection_check(const char *path, struct azoth_error *err);

/* Whether a handler may use a parameter of this name (":amount", "@id"); NULL: "?", no. */
int table_parameter_valid(const char *name);

/* ---- reading, for `azoth query` ---- */

enum query_type { QUERY_NULL, QUERY_INTEGER, QUERY_REAL, QUERY_TEXT, QUERY_BLOB };
struct query_value {
    enum query_type type;
    int64_t integer;
    double real;
    struct azoth_bytes bytes; /* of TEXT and BLOB */
};
/* names and values have n elements and live during the call. Return non-zero to stop. */
typedef int (*query_row)(void *arg, int n, const char *const *names,
                         const struct query_value *values);
/*
 * Runs one statement on DIR/NAME.db, read-only, without checkpointing, on a connection of its own: any
 * process, any thread. NOT_FOUND (no such projection), USAGE (SQLite's message), IO. Calls row for
 * each row; with no rows once with values NULL.
 *
 * Of a projection that is split (split.h) each table holds the rows of all shards, and views are the
 * definition's over these tables; each shard as of a moment of its own, as they have cursors of their own.
 */
int query_run(const char *dir, const char *name, const char *sql, query_row row, void *arg,
              struct azoth_error *err);
/* The same on the file of one shard; 0 of 1: unsplit. */
int query_run_shard(const char *dir, const char *name, uint32_t shard, uint32_t shards,
                    const char *sql, query_row row, void *arg, struct azoth_error *err);
/* The same on a file that serves, did, or shall. */
int query_run_file(const char *path, const char *sql, query_row row, void *arg,
                   struct azoth_error *err);

#endif
