/* sql_sqlite.h - sql.h on a SQLite file. Its thread's. */
#ifndef PROJECTOR_SQL_SQLITE_H
#define PROJECTOR_SQL_SQLITE_H

#include "projector/sql.h"

#include <sqlite3.h>

#define SQLITE_BUSY_MS 2000 /* a lock of another connection is waited for so long */

/* Opens or makes the file, or ":memory:", with the settings of a projector's connection. */
int sql_sqlite_open(const char *path, struct sql_db **ret, struct azoth_error *err);
/* What is below, for those files that are about SQLite alone; it belongs to db. */
sqlite3 *sql_sqlite_handle(struct sql_db *db);
/* As sql_guard(), while *on is set, which is read as each statement is prepared. */
void sql_sqlite_guard_while(struct sql_db *db, const int *on);

/* NOSPACE, IO, CORRUPT, NOMEM, PERMISSION or BUSY for SQLite's last error. */
int sqlite_error(sqlite3 *db, struct azoth_error *err, const char *what);

#endif
