/* tablefile.h - where the rows of a projection lie, below table.c: opening, identity, migrations, the lock. */
#ifndef PROJECTOR_TABLEFILE_H
#define PROJECTOR_TABLEFILE_H

#include "projector/table.h"

#include "projector/sql_sqlite.h"

struct tablefile {
    struct sql_db *sql;
    sqlite3 *db; /* the same, for what is about SQLite alone */
    int lock_fd; /* one projecting process a file; -1: in memory */
    uint32_t shard, shards;
    int64_t makers;   /* what makes its rows: checksum of the handlers, and of a shard's rule */
    uint64_t library; /* what of C makes them, too: its caller's, before opening; 0: nothing */
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
/* What makes the rows: a checksum of the handlers, in SQL and in C (library_makers()), and in a shard of what says
 * which events are its. */
int64_t table_makers(const struct sqlfile *def, const struct table_options *o, uint64_t library);

/* Runs statements of ours. Errors of sql_error(). */
int tablefile_run(struct tablefile *f, const char *sql, struct azoth_error *err);
/* Prepares one of ours; likewise. */
int tablefile_prepare(struct tablefile *f, const char *sql, struct sql_stmt **ret,
                      struct azoth_error *err);

/* Steps through a block's statements: 1 and *ret, 0 at the end, PROJECTION with FILE:LINE:COLUMN.
 */
struct sql_cursor {
    const char *path;
    const struct sql_block *block;
    size_t at;
    size_t from;   /* of the statement returned; `at` is behind it */
    uint32_t line; /* likewise */
};
int tablefile_next(struct tablefile *f, struct sql_cursor *c, struct sql_stmt **ret,
                   struct azoth_error *err);

/* ---- reading, on connections of their own; SQLite's codes ---- */

/* Shards from..to (exclusive) of a projection, read-only: the first one's file as main, the others as shard_N.
 * *ret is to be closed whatever comes of it; ret_path is for messages. */
int query_open_shards(const char *dir, const char *name, uint32_t from, uint32_t to,
                      uint32_t shards, sqlite3 **ret, char *ret_path, size_t path_size);
int query_attach(sqlite3 *db, const char *path, const char *schema);
void query_value_of(sqlite3_stmt *s, int i, struct query_value *ret);

#endif
