/*
 * table.h - a projection's SQLite file: migrations, handlers, cursor. One thread.
 *
 * DIR/NAME.gN.db is the file of generation N, DIR/NAME.db a symbolic link to the one that serves. The
 * connection here is the only one that writes or checkpoints (SQLite 3.40 has a defect with two);
 * everybody else opens the file read-only.
 *
 * Own tables: azoth_projection (one row: identity, cursor) and azoth_migrations (history).
 */
#ifndef PROJECTOR_TABLE_H
#define PROJECTOR_TABLE_H

#include "projector/sqlfile.h"

struct table;

struct table_options {
    const char *dir;          /* of the projections */
    const uint8_t *uuid;      /* 16 bytes of the database that is followed */
    int accept_changed;       /* go on although the handlers differ from those that made the rows */
    uint32_t shard, shards;   /* 0 of 1 when it is not split */
};

/*
 * Opens or makes the file and applies pending migrations, each with its history row in one
 * transaction. PROJECTION: the definition (err says where), a changed, duplicate or late migration,
 * changed handlers. DIVERGED: the file follows another database. DUPLICATE: another process projects
 * into it. NOSPACE, IO, CORRUPT. def must outlive *ret.
 */
int table_open(const struct sqlfile *def, const struct table_options *o, struct table **ret,
               struct azoth_error *err);
/* Truncates the WAL and closes. NULL is accepted. */
void table_close(struct table *t);

/* Last applied event id and that event's checksum (0, 0 at the start). */
void table_cursor(const struct table *t, uint64_t *ret_cursor, uint32_t *ret_check);
/* Wanted event types in the form of wire_pull.types; borrowed. */
struct azoth_bytes table_types(const struct table *t);

/*
 * Applies the events of frames (record.h), which are those of first..last that the projection wants,
 * in one transaction that also moves the cursor to last (last_check is that event's checksum). first must be cursor + 1 (else GAP: nothing
 * was done), ids ascend within the range (else CORRUPT).
 *
 * fail-fast: an event whose handler fails stops it. What came before it is committed with the cursor
 * just before it, nothing of it is left, and HANDLER is returned: err names event, type, FILE:LINE
 * and SQLite's message. NOSPACE, IO, CORRUPT: nothing of the batch was applied.
 */
int table_apply(struct table *t, struct azoth_bytes frames, uint64_t first, uint64_t last,
                uint32_t last_check, struct azoth_error *err);

/* When there is nothing to do: gives the WAL's space back. */
void table_idle(struct table *t);
uint64_t table_applied_events(const struct table *t); /* by this process */

/* Everything that can be found wrong before running: migrations are applied to an empty database in
 * memory, all handlers prepared. The first error, with FILE:LINE:COLUMN. */
int projection_check(const char *path, struct azoth_error *err);

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
/* Runs one statement on DIR/NAME.db, read-only, without checkpointing. NOT_FOUND (no such
 * projection), USAGE (SQLite's message), IO. Calls row for each row; with no rows once with values
 * NULL. */
int query_run(const char *dir, const char *name, const char *sql, query_row row, void *arg,
              struct azoth_error *err);

#endif
