/* tablefile.h - the SQLite file below table.c: opening, generations, migrations, the lock. */
#ifndef PROJECTOR_TABLEFILE_H
#define PROJECTOR_TABLEFILE_H

#include "projector/table.h"

#include <sqlite3.h>

struct tablefile {
    sqlite3 *db;
    int lock_fd; /* one projecting process a file; -1: in memory */
    uint32_t shard, shards;
    int64_t makers; /* what makes its rows: checksum of the handlers, and of a shard's rule */
    char path[4400];
};

/* Opens (options->dir NULL: in memory), makes own tables, checks identity, applies migrations. */
int tablefile_open(struct tablefile *f, const struct sqlfile *def, const struct table_options *o,
                   uint64_t *ret_cursor, uint32_t *ret_check, struct azoth_error *err);
/* Opens it whatever handlers made its rows, and applies nothing. */
int tablefile_open_any(struct tablefile *f, const struct sqlfile *def,
                       const struct table_options *o, struct azoth_error *err);
void tablefile_close(struct tablefile *f);

/* What says which shard an event is of; empty when it is not split. */
const char *table_shard_by(const struct sqlfile *def, const struct table_options *o);
/* What makes the rows: a checksum of the handlers, and in a shard of what says which events are its. */
int64_t table_makers(const struct sqlfile *def, const struct table_options *o);

/* As sqlite_error(). */
int tablefile_run(struct tablefile *f, const char *sql, struct azoth_error *err);

/* While on, statements that are prepared may not touch transactions, other files or our tables. */
void tablefile_guard(struct tablefile *f, int on);

/* Steps through a block's statements: 1 and *ret, 0 at the end, PROJECTION with FILE:LINE:COLUMN.
 */
struct sql_cursor {
    const char *path;
    const struct sql_block *block;
    size_t at;
    uint32_t line; /* of the statement returned */
};
int tablefile_next(struct tablefile *f, struct sql_cursor *c, sqlite3_stmt **ret,
                   struct azoth_error *err);

/* NOSPACE, IO, CORRUPT, NOMEM, PERMISSION, BUSY or PROJECTION for SQLite's last error. */
int sqlite_error(sqlite3 *db, struct azoth_error *err, const char *what);

#endif
